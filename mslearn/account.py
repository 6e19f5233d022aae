"""A run in words: a sentence for who cannot see its picture, its notes, a table, its texts."""

import html
from collections.abc import Sequence
from typing import Any

from mslearn.run import Run

PAST = 0.9  # weight of the past in the smoothed curve, as in history.js


def describe(
    run: Run,
    steps: int,
    *,
    phase: str = "finished",
    title: str = "Training",
    guess: Sequence[Sequence[float]] = (),
) -> str:
    """The picture in words, for who cannot see it."""
    if not run.log:
        return f"{title}: {phase} before the first step."
    losses = smooth(list(run.log.column("loss")))
    moves = sum((e.name == "lr" and e.value is not None) or e.name == "factor" for e in run.events)
    scores = "".join(
        f", held-out {k.replace('_', ' ')} {v:.3f}" for k, v in run.family.now.scores.items()
    )
    hand = f"moved by hand {moves} times" if moves else "by schedule"
    words = (
        f"{title}, {phase} at step {run.step} of {steps}: training loss from {losses[0]:.3f} to "
        f"{losses[-1]:.3f} nats (smoothed){scores}; rate {hand}, {run.log[-1].lr:.2e} at the end."
    )
    if len(guess):
        words += f" Predicted was {guess[-1][1]:.3f} at step {guess[-1][0]:.0f}."
    others = [
        line for line in run.family.timelines.values() if line is not run.family.now and line.log
    ]
    for line in others:
        words += f" Timeline {line.name}: {line.log.recent():.3f} at step {line.step}."
    return words + "".join(f" Step {pin['step']}: {pin['text']}." for pin in pins(run))


def pins(run: Run) -> list[dict[str, Any]]:
    """Notes, and where the guard came back to, on the current timeline: step, text, guard."""
    notes = [e for e in run.family.now.events if e.name == "note" and e.value]
    found = [{"step": e.step, "text": str(e.value), "guard": False} for e in notes]
    line = "main"
    for event in list(run.events):
        if event.name == "branch":
            line = event.value[0]
        elif event.name == "switch":
            line = event.value
        elif event.name == "guard" and line == run.family.current and event.value <= run.step:
            text = f"the guard came back here from step {event.step}"
            found.append({"step": event.value, "text": text, "guard": True})
    return sorted(found, key=lambda pin: pin["step"])


def smooth(values: Sequence[float], past: float = PAST) -> list[float]:
    """Exponential mean of the finite values so far, its start corrected as in Adam."""
    mean, weight, means = 0.0, 0.0, []
    for value in values:
        if abs(value) < float("inf"):  # false for NaN too
            mean, weight = past * mean + (1 - past) * value, past * weight + (1 - past)
        means.append(mean / weight if weight else float("nan"))
    return means


def table(run: Run) -> str:
    """The timelines side by side, where there are several."""
    rows = run.family.rows()
    if len(rows) < 2:
        return ""
    names = dict.fromkeys(name for row in rows for name in row["scores"])
    heads = ["timeline", "from", "step", "moves", "loss", *(f"held-out {n}" for n in names)]
    cells = [
        [
            ("→ " if row["current"] else "") + row["name"],
            f"{row['parent']}, step {row['born']}" if row["parent"] else "the start",
            *(str(row[key]) for key in ("step", "moves")),
            f"{row['loss']:.3f}",
            *(f"{row['scores'][n]:.3f}" if n in row["scores"] else "" for n in names),
        ]
        for row in rows
    ]
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>" for row in cells
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def written(texts: Sequence[tuple[int, str]]) -> str:
    """What the model wrote as training went, folded."""
    if not texts:
        return ""
    items = "".join(f"<li><b>step {step}</b> {html.escape(text)}</li>" for step, text in texts)
    return f"<details><summary>What the model wrote</summary><ul>{items}</ul></details>"
