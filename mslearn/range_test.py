"""The learning-rate range test: a short run whose rate rises until the loss breaks away.

Source: Smith 2017, Cyclical learning rates for training neural networks, section 3.3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mslearn.account import smooth
from mslearn.run import Run
from mslearn.schedules import Schedule, exponential

BROKEN = 0.5  # share of what was learnt that the loss has to lose again for the test to end
NOISE = 0.1  # share of the first loss by which it has to rise in any case
SHARE = 1 / 3  # of the rate with the least loss: where the smoothed curve turns is late


@dataclass(frozen=True)
class RangeTest:
    """Rate, loss and smoothed loss of each step, up to where the loss broke away, if it did."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    broke_away: bool

    @property
    def least(self) -> int:
        """The step with the least smoothed loss."""
        return self.smoothed.index(min(self.smoothed))

    @property
    def suggestion(self) -> float:
        """A peak for a schedule: a third of the rate at which the smoothed loss was least.

        Raises ValueError where the test has not seen the loss fall and then rise again.
        """
        if self.least == 0:
            raise ValueError(
                f"the loss rose from the first step on, at rate {self.rates[0]:.1e}; start lower, "
                f"for example at low={self.rates[0] / 100:.1e}"
            )
        if not self.broke_away:
            raise ValueError(
                f"the loss had not broken away at rate {self.rates[-1]:.1e}, so the edge is still "
                f"ahead; go higher, for example to high={self.rates[-1] * 100:.1e}"
            )
        return SHARE * self.rates[self.least]


def range_test(
    make_run: Callable[[Schedule], Run], low: float = 1e-4, high: float = 10.0, steps: int = 100
) -> RangeTest:
    """Train a fresh run, `make_run(schedule)`, while its rate rises from `low` to `high`.

    It ends early where the smoothed loss has lost half of what it had won, or the loss is no
    number. The run is thrown away: weights that went over the edge are no place to start from.
    """
    run = make_run(exponential(low, high, steps))
    if run.step:
        raise ValueError(
            f"the test needs a run at step 0, got one at step {run.step}; have make_run build the "
            "model anew at each call"
        )
    rates: list[float] = []
    losses: list[float] = []
    over = False
    try:
        for record in run.train(steps):
            rates.append(record.lr)
            losses.append(record.loss)
            over = not math.isfinite(record.loss) or _is_over(smooth(losses))
            if over:
                break
    except FloatingPointError:  # three steps without a finite gradient
        over = True
    return RangeTest(rates, losses, smooth(losses), over)


def _is_over(smoothed: list[float]) -> bool:
    """Whether the last smoothed loss has lost too much of what was won."""
    first, least = smoothed[0], min(smoothed)
    return smoothed[-1] > least + max(BROKEN * (first - least), NOISE * abs(first))
