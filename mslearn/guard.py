"""The guard of a run: when the loss is no number, or has lost half of what was learnt, it says so.

It looks at the losses alone. What is then done is the run's business: back to a snapshot from
before the rise, and a third of the rate.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

PAST = 0.9  # weight of the past in the smoothed loss: about ten steps
FIRST = 10  # steps before which it has no opinion
IN_A_ROW = 3  # steps without a finite gradient, as in a run without a guard
SUSTAINED = 5  # steps with the smoothed loss above the limit
NOISE = 6.0  # the limit lies this many times the noise above the best, at the least
QUIET = 100  # steps of silence after it was overruled


class Proposal(NamedTuple):
    """What the guard wants: go on from `back_to` with `control` set to `value`, and why."""

    step: int
    back_to: int
    control: str
    value: float
    why: str


@dataclass
class Guard:
    """What it has seen so far; a run's snapshots hold a copy.

    The limit for the smoothed loss is its best, plus half of the way it has come down or `NOISE`
    times the noise, whichever is more. The noise is the usual jump from a step to the next, over
    √2: a descent hardly adds to it. With nobody there to answer, `headless` "take" makes the run
    take the proposal, "raise" raises FloatingPointError.
    """

    headless: str = "take"
    seen: int = 0
    last: float = math.nan
    smoothed: float = 0.0
    start: float = math.nan
    best: float = math.inf
    best_step: int = 0
    noise: float = 0.0
    bad: int = 0
    high: int = 0
    quiet_until: int = 0

    def __post_init__(self) -> None:
        if self.headless not in ("take", "raise"):
            raise ValueError(f"headless must be 'take' or 'raise', got {self.headless!r}")

    @property
    def mean(self) -> float:
        """The smoothed loss, its start corrected as in Adam."""
        return self.smoothed / (1 - PAST**self.seen) if self.seen else math.nan

    @property
    def limit(self) -> float:
        """Where trouble begins."""
        return self.best + max((self.start - self.best) / 2, NOISE * self.noise)

    def judge(self, step: int, loss: float, finite: bool) -> str:
        """Take in the loss of a step; the trouble in words, "" where there is none."""
        self.bad = 0 if finite else self.bad + 1
        if finite:
            self._see(step, loss)
        if step < self.quiet_until:
            self.bad = self.high = 0
        elif self.bad >= IN_A_ROW:
            return f"{IN_A_ROW} steps in a row gave no finite gradient"
        elif self.high >= SUSTAINED:
            return f"the smoothed loss rose from {self.best:.3f} to {self.mean:.3f}"
        return ""

    def _see(self, step: int, loss: float) -> None:
        jump = abs(loss - self.last) / math.sqrt(2) if self.seen else 0.0  # a descent is no noise
        self.last = loss
        self.smoothed = PAST * self.smoothed + (1 - PAST) * loss
        self.seen += 1
        if self.seen <= FIRST:
            self.start = self.best = self.mean
            self.best_step, self.noise = step, self.noise + (jump - self.noise) / self.seen
            return
        self.high = self.high + 1 if self.mean > self.limit else 0
        if self.mean <= self.best + NOISE / 2 * self.noise:  # nor is a rise
            self.noise = 0.98 * self.noise + 0.02 * jump
        if self.mean < self.best:
            self.best, self.best_step = self.mean, step
