"""The schedule that was driven, as a plain Python function: a discovery becomes a recipe."""

from collections.abc import Iterable, Sequence
from typing import Any

from mslearn.controls import RATES, Event
from mslearn.schedules import Schedule

HEAD = '''def {name}(step):
    """The rate{s} that a hand drove over {steps} steps, exactly; the last rule goes on after."""
'''


def rules(events: Iterable[Event]) -> list[tuple[int, dict[str, Any]]]:
    """The steps at which the hand changed the rate, and its fields from there on."""
    hand: dict[str, Any] = {"lr": None, "factor": 1.0, "ratios": None}
    found = [(0, dict(hand))]
    for event in events:
        if event.name in RATES:
            hand[event.name] = event.value
            if found[-1][0] == event.step:
                found.pop()
            if not found or found[-1][1] != hand:
                found.append((event.step, dict(hand)))
    return found


def rates(
    hand: dict[str, Any], planned: float | tuple[float, ...], ratios: Sequence[float]
) -> list[float]:
    """The rate of each group, where the schedule plans `planned` and the hand holds `hand`.

    `ratios` are the optimiser's own. A schedule with a rate for each group has no need of them.
    """
    if isinstance(planned, tuple):
        if hand["lr"] is None and hand["ratios"] is None:
            return [hand["factor"] * rate for rate in planned]
        planned = planned[0]
    rate = hand["factor"] * planned if hand["lr"] is None else hand["lr"]
    return [rate * ratio for ratio in hand["ratios"] or ratios]


def as_code(
    events: Iterable[Event],
    schedule: Schedule,
    ratios: Sequence[float],
    steps: int,
    name: str = "driven",
) -> str:
    """Code of a function of the step that gives the rate at each of `steps` steps.

    Where a hand moved the rates of the groups apart, or the schedule gives one for each, so does
    the function; else it gives the first group's. A schedule of which it is not known how it was
    made becomes a table of its rates.
    """
    if not name.isidentifier():
        raise ValueError(f"the function's name must be a Python name, got {name!r}")
    found = rules(events)
    several = isinstance(schedule(0), tuple)
    apart = several or any(hand["ratios"] is not None for _, hand in found)
    ends = [start for start, _ in found[1:]]
    lines = []
    for (_, hand), end in zip(found, [*ends, None], strict=True):
        where = "" if end is None else f"if step < {end}:\n        "
        lines.append(f"    {where}return {_rule(hand, ratios, apart, several)}")
    body = "\n".join(lines)
    head = HEAD.format(name=name, steps=steps, s="s" if apart else "")
    return (_planned(schedule, steps) if "planned(" in body else "") + head + body + "\n"


def _rule(hand: dict[str, Any], ratios: Sequence[float], apart: bool, several: bool) -> str:
    """What `rates` does, written out for one stretch of steps."""
    factor = "" if hand["factor"] == 1 else f"{float(hand['factor'])!r} * "
    if several and hand["lr"] is None and hand["ratios"] is None:
        return f"tuple({factor}rate for rate in planned(step))" if factor else "planned(step)"
    rate = f"{factor}planned(step){'[0]' if several else ''}"
    if hand["lr"] is not None:
        rate = repr(float(hand["lr"]))
    if not apart:
        return rate
    each = ", ".join(f"{rate} * {float(ratio)!r}" for ratio in hand["ratios"] or ratios)
    return f"({each},)"


def _planned(schedule: Schedule, steps: int) -> str:
    """The schedule as the call that made it, or as a table whose last rate stands for the rest."""
    made_by = getattr(schedule, "made_by", "")
    if made_by:
        maker = made_by.partition("(")[0]
        return f"from mslearn.schedules import {maker}\n\nplanned = {made_by}\n\n\n"
    table = [schedule(step) for step in range(steps + 1)]
    starts = [0] + [step for step in range(1, steps + 1) if table[step] != table[step - 1]]
    return (
        "from bisect import bisect_right\n\n"
        f"STARTS = {starts!r}\nRATES = {[table[step] for step in starts]!r}\n\n\n"
        "def planned(step):\n    return RATES[bisect_right(STARTS, step) - 1]\n\n\n"
    )


def run_code(code: str, name: str = "driven") -> Schedule:
    """The function that code of `as_code` defines."""
    space: dict[str, Any] = {}
    exec(compile(code, f"<{name}>", "exec"), space)
    return space[name]
