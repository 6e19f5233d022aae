"""What a hand may do to a run, and the list of what it did: plain fields and plain events."""

import json
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RATES = ("lr", "factor", "ratios")  # what goes back in time with the run
VALUES = (*RATES, "paused", "stopped", "note")
REQUESTS = ("rewind", "branch", "switch", "drop", "answer")
WANTED = {
    "lr": "a positive number, or None for the schedule",
    "factor": "a positive number",
    "ratios": "one number of 0 or more for each group of parameters, or None",
    "paused": "True or False",
    "stopped": "True or False",
    "note": "a text",
    "single": "True",
    "rewind": "a step, 0 or more",
    "branch": "a name of 1 to 40 characters, and a step if not this one",
    "switch": "the name of a timeline",
    "drop": "the name of a timeline",
    "answer": "'accept' or 'overrule'",
}


@dataclass
class Controls:
    """What a person may change while it runs. Plain fields: any thread may set them.

    The rate is `lr` while that is a number, else `factor` times the schedule; group i of the
    optimiser has `ratios[i]` times it. `note` is pinned to the next step. The last six are
    requests: the run takes each once and does it between two steps, `single` while paused.
    """

    lr: float | None = None
    factor: float = 1.0
    ratios: tuple[float, ...] | None = None
    paused: bool = False
    stopped: bool = False
    note: str | None = None
    single: bool | None = None
    rewind: int | None = None
    branch: tuple | None = None
    switch: str | None = None
    drop: str | None = None
    answer: str | None = None

    def take(self, name: str) -> Any:
        """A request, which is then no more; in one move, so that none set meanwhile is lost."""
        return vars(self).pop(name, None)

    def rates(self) -> dict[str, Any]:
        """The fields that decide the rate."""
        return {name: getattr(self, name) for name in RATES}


def objection(name: str, value: Any, groups: int) -> str:
    """Why `value` makes no sense for a control of this name, in a sentence; "" where it does."""
    match name, value:
        case (("lr" | "ratios"), None):
            return ""
        case (("lr" | "factor"), _) if _number(value) and value > 0:
            return ""
        case "ratios", (list() | tuple()) if len(value) == groups:
            if all(_number(ratio) and ratio >= 0 for ratio in value):
                return ""
        case (("paused" | "stopped"), bool()) | ("note", str()) | ("single", True):
            return ""
        case "rewind", int() if not isinstance(value, bool) and value >= 0:
            return ""
        case "branch", [str() as title, *rest] if 0 < len(title) <= 40:
            if not rest or (not objection("rewind", *rest[:1], groups) and len(rest) == 1):
                return ""
        case (("switch" | "drop"), str()) | ("answer", ("accept" | "overrule")):
            return ""
    if name not in WANTED:
        return f"there is no control {name!r}; choose among {', '.join(WANTED)}"
    return f"{name} must be {WANTED[name]}, got {value!r}"


def _number(value: Any) -> bool:
    """A finite one; Python counts True as the number 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Event:
    """A change of a control, with the step it took effect at and the clock's time."""

    step: int
    name: str
    value: float | bool | str | tuple | None
    at: float = field(compare=False, default=0.0)

    def __post_init__(self) -> None:
        if isinstance(self.value, list):  # as JSON knows no tuples
            object.__setattr__(self, "value", tuple(self.value))


class Events(list):
    """All that was done to a run, in the order in which it was done; and about that run."""

    def __init__(self, events: Iterable = (), about: dict | None = None) -> None:
        super().__init__(e if isinstance(e, Event) else Event(*e) for e in events)
        self.about = dict(about or {})

    def save(self, path: Path | str) -> None:
        """A small JSON file: one line an event, without the clock's times."""
        lines = ",\n".join(json.dumps([e.step, e.name, e.value]) for e in self)
        Path(path).write_text(f'{{"about": {json.dumps(self.about)},\n"events": [\n{lines}\n]}}\n')

    @classmethod
    def load(cls, path: Path | str) -> "Events":
        """What `save` wrote."""
        stored = json.loads(Path(path).read_text())
        return cls(stored["events"], stored["about"])


class Script:
    """Events still to be done by nobody's hand, each at its step and in their order.

    `strict` replays a recorded run: an event whose step has gone by means that it is another.
    """

    def __init__(self, events: Iterable, *, strict: bool = False) -> None:
        self.strict = strict
        self._left = deque(Events(events))
        # the steps that it comes back to: those that a rewind, the guard or a branch starts from
        back = {e.value for e in self._left if e.name in ("rewind", "guard")}
        self.targets = back | {e.value[1] for e in self._left if e.name == "branch" and e.value[1:]}

    def __len__(self) -> int:
        return len(self._left)

    def pass_over(self, done: Iterable[Event]) -> None:
        """Leave out what stands first and was done already, as step and name say."""
        acts = iter([(event.step, event.name) for event in done])
        while self._left and (self._left[0].step, self._left[0].name) in acts:  # in their order
            self._left.popleft()

    def answers(self) -> bool:
        """Whether the next event answers the guard."""
        return bool(self._left) and self._left[0].name == "answer"

    def due(self, step: int, asked: bool = False) -> Event | None:
        """The next event if its step has come; an answer once it is `asked` for."""
        if not self._left:
            return None
        waits = not asked if self.answers() and not self.strict else self._left[0].step > step
        if waits:
            return None
        if self.strict and self._left[0].step < step:
            raise ValueError(
                f"the events were recorded on another run: {self._left[0].name} at step "
                f"{self._left[0].step} comes up at step {step}; make the run as it was made then"
            )
        return self._left.popleft()
