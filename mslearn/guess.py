"""A prediction of a loss curve, drawn or typed before the run, to be laid beside what came out."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from mslearn import plot
from mslearn.checkpoint import random_state, set_random_state
from mslearn.page import page, setup
from mslearn.run import Run

Points = list[list[float]]


def sound(points: Any) -> bool:
    """Whether this is a list of (step, loss), all of them finite numbers."""
    if not isinstance(points, list | tuple) or len(points) > 1_000:
        return False
    return all(isinstance(p, list | tuple) and len(p) == 2 and all(map(_number, p)) for p in points)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Guess:
    """What the learner expects the loss of `run` to do: shown as an empty chart to draw on.

        guess = Guess(run, 600)                  # a cell of its own: draw, or type step:loss
        live = Live(run, 600, guess=guess)       # the next: both on one chart

    `typed` gives it from the page instead, as {step: loss}. Where nobody draws it stays empty, and
    nothing waits for it. The chart begins at the loss of the first batch, which teaches nothing.
    """

    def __init__(
        self, run: Run, steps: int, typed: Mapping[int, float] | None = None, *, title: str = ""
    ) -> None:
        points = [[float(step), float(loss)] for step, loss in sorted((typed or {}).items())]
        if not sound(points):
            raise ValueError(f"a prediction is {{step: loss}} with finite numbers, got {typed!r}")
        self.points: Points = points
        self.title = title or "Your prediction"
        self._handle = self._page(run, steps)

    def _page(self, run: Run, steps: int) -> Any:
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is None:
            return None
        about = setup(run, steps, self.title, None)
        start = start_loss(run)
        self.widget = page({**about, "guess": self.points, "guessing": True, "start": start})
        self.widget.on_msg(self._receive)
        return display(self.widget, display_id=True)

    def _receive(self, _: Any, message: dict, __: Any = None) -> None:
        match message:
            case {"kind": "guess", "value": points} if sound(points):
                self.points = sorted([float(step), float(loss)] for step, loss in points)

    def close(self) -> None:
        """The run begins: the drawing becomes a picture, and nothing is changed any more."""
        if self._handle is not None:
            self._handle.update(self.picture())

    def picture(self) -> plot.Picture:
        """What was predicted, alone."""
        figure, axes = plot.figure(height=2.2)
        steps, losses = zip(*self.points, strict=True) if self.points else ((), ())
        axes.plot(steps, losses, ":", color="0.2", lw=2)
        plot.label(axes, "step", "loss (nats)", self.title)
        return plot.picture(figure, f"{self.title}: {in_words(self.points)}")


def in_words(points: Points) -> str:
    """The first and the last point of a prediction."""
    if not points:
        return "nothing was predicted"
    (first, start), (last, end) = points[0], points[-1]
    return f"loss {start:.2f} at step {first:.0f}, {end:.2f} at step {last:.0f}"


def start_loss(run: Run) -> float:
    """The loss of the first batch before any step, in nats."""
    before = random_state()
    batch = [run.device.to(tensor) for tensor in run.batches(run.step)]
    run.model.eval()
    try:
        with torch.no_grad(), run.device.autocast():
            return float(run.loss(run.model, tuple(batch)))
    finally:
        run.model.train()
        set_random_state(before)
