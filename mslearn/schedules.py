"""The learning rate as a plain function of the step: `schedule(step) -> rate`, step from 0."""

import functools
import math
from collections.abc import Callable

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
