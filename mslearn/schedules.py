"""The learning rate as a plain function of the step: `schedule(step) -> rate`, step from 0.

`ReduceOnPlateau` is the one that looks at scores as well.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Schedule = Callable[[int], float | tuple[float, ...]]
"""One rate, or one for each group of an optimiser's parameters."""


def remembered(maker: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Have each schedule of a maker keep the call that makes it again, as `schedule.made_by`."""

    @functools.wraps(maker)
    def make(*values: float, **named: float) -> Schedule:
        schedule = maker(*values, **named)
        words = [*map(_plain, values), *(f"{name}={_plain(v)}" for name, v in named.items())]
        schedule.made_by = f"{maker.__name__}({', '.join(words)})"
        return schedule

    return make


def _plain(value: float) -> str:
    """A number as Python writes it, also where it came from an array."""
    return repr(float(value) if isinstance(value, float) else int(value))


def _check(peak: float, warmup: int, steps: int) -> None:
    if not peak > 0:
        raise ValueError(f"rate must be positive, got {peak}; pass for example 3e-4")
    if not 0 <= warmup < steps:
        raise ValueError(
            f"warm-up must be at least 0 and shorter than the run, got {warmup} of {steps} steps"
        )


@remembered
def constant(rate: float) -> Schedule:
    """The same rate at every step."""
    _check(rate, 0, 1)
    return lambda step: rate


@remembered
def warmup_linear(peak: float, warmup: int, steps: int) -> Schedule:
    """Linear to `peak` over `warmup` steps, then linear towards zero.

    The last step still moves: it has the rate peak / (steps - warmup). Source: Devlin et al. 2019,
    BERT, appendix A.2.
    """
    _check(peak, warmup, steps)

    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * max(0.0, (steps - step) / (steps - warmup))

    return schedule


@remembered
def inverse_sqrt(peak: float, warmup: int) -> Schedule:
    """Linear to `peak` over `warmup` steps, then falling as 1/√step; needs no end.

    Source: Vaswani et al. 2017, Attention is all you need, equation 3.
    """
    warmup = max(1, warmup)
    _check(peak, warmup, warmup + 1)
    return lambda step: peak * min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))


@remembered
def exponential(low: float, high: float, steps: int) -> Schedule:
    """From `low` to `high` over `steps` steps, each the same factor above the one before.

    Source: Smith 2017, Cyclical learning rates, section 3.3, there with equal differences.
    """
    _check(low, 0, 1)
    if not high > low or steps < 2:
        raise ValueError(
            f"a rising rate needs two steps or more and low < high, got {steps} steps from {low} "
            f"to {high}; pass for example 1e-4, 1.0, 100"
        )
    return lambda step: low * (high / low) ** min(1.0, step / (steps - 1))


@remembered
def warmup_cosine(peak: float, warmup: int, steps: int, floor: float = 0.1) -> Schedule:
    """Linear to `peak` over `warmup` steps, then half a cosine down to `floor * peak`.

    Source: Loshchilov and Hutter 2017, SGDR, equation 5, with warm-up and without restarts.
    """
    _check(peak, warmup, steps)
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is a share of the peak between 0 and 1, got {floor}")

    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    return schedule


@remembered
def warmup_stable_decay(peak: float, warmup: int, steps: int, decay: float = 0.6) -> Schedule:
    """Linear to `peak`, flat, then linear towards zero over the last `decay` share of the run.

    The last step still moves: it has the rate peak / (steps in the decay). Source: Hu et al. 2024,
    MiniCPM, section 4.
    """
    _check(peak, warmup, steps)
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is a share of the run between 0 and 1, got {decay}")
    falling = max(1, round(decay * steps))

    def schedule(step: int) -> float:
        rising = (step + 1) / warmup if warmup else 1.0
        return peak * max(0.0, min(1.0, rising, (steps - step) / falling))

    return schedule


@dataclass
class ReduceOnPlateau:
    """A rate that is multiplied by `factor` once a score has not improved for too long.

    It is a schedule, `plateau(step)`, with a linear warm-up if asked; `plateau.see(score)` after
    each evaluation may lower what it gives from then on. Improved means below the best so far by
    the share `threshold` of it (above, where `larger_is_better`). After more than `patience` scores
    in a row without that, the rate falls, not under `least`, and the next `cooldown` scores are not
    counted. Equal, decision for decision, to `torch.optim.lr_scheduler.ReduceLROnPlateau`.
    What it knows is the scores it saw: show them to a new one to go on after a break.
    """

    rate: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    least: float = 0.0
    larger_is_better: bool = False
    warmup: int = 0
    best: float = field(init=False)
    waited: int = field(default=0, init=False)
    cooling: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _check(self.rate, 0, 1)
        if not 0 < self.factor < 1:
            raise ValueError(
                f"factor must lie between 0 and 1, so that the rate falls, got {self.factor}"
            )
        if min(self.patience, self.cooldown, self.warmup) < 0:
            raise ValueError(
                "patience, cooldown and warmup count evaluations or steps and cannot be negative, "
                f"got {self.patience}, {self.cooldown} and {self.warmup}"
            )
        self.best = -math.inf if self.larger_is_better else math.inf

    def __call__(self, step: int) -> float:
        return self.rate * min(1.0, (step + 1) / self.warmup) if self.warmup else self.rate

    def see(self, score: float) -> bool:
        """Take note of a score; True when the rate has just been lowered."""
        if self._improves(score):
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.cooling:
            self.cooling, self.waited = self.cooling - 1, 0
        if self.waited <= self.patience:
            return False
        self.cooling, self.waited = self.cooldown, 0
        lowered = max(self.rate * self.factor, self.least)
        if self.rate - lowered <= 1e-8:  # torch's eps: too little to be a change
            return False
        self.rate = lowered
        return True

    def _improves(self, score: float) -> bool:
        if self.larger_is_better:
            return score > self.best * (1 + self.threshold)
        return score < self.best * (1 - self.threshold)

    def watch(self, evaluate: Callable[..., dict[str, float]], name: str) -> Callable[..., Any]:
        """`evaluate` as it was, for a run to call, with its score `name` shown to the plateau."""

        def watched(*args: Any) -> dict[str, float]:
            scores = evaluate(*args)
            if name not in scores:
                raise ValueError(
                    f"no score {name!r} to watch: this evaluation gives {', '.join(scores)}"
                )
            self.see(scores[name])
            return scores

        return watched
