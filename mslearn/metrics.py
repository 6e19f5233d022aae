"""Scores of predictions, and the intervals that say how far to trust them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Labels = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds it is expected between, at the confidence `level`."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the bounds: for a difference, ask about 0."""
        return not self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def accuracy(predicted: Labels, true: Labels) -> float:
    """Share of predictions that are right."""
    predicted, true = _pair(predicted, true)
    return float((predicted == true).mean())


def confusion_matrix(
    predicted: Labels, true: Labels, n_classes: int | None = None
) -> Int[np.ndarray, "true predicted"]:
    """Counts of each true class (row) by predicted class (column)."""
    predicted, true = _pair(predicted, true)
    largest = int(max(predicted.max(), true.max()))
    n_classes = largest + 1 if n_classes is None else n_classes
    if largest >= n_classes or min(predicted.min(), true.min()) < 0:
        raise ValueError(f"labels must lie between 0 and {n_classes - 1}, got {largest}")
    cells = np.bincount(true * n_classes + predicted, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


def macro_f1(predicted: Labels, true: Labels, n_classes: int | None = None) -> float:
    """Mean of the classes' F1, each class counting the same however rare it is.

    F1 of a class is 2·hits / (its predictions + its documents). Without `n_classes` the mean is
    over the classes that occur in either, which is scikit-learn's `f1_score(average="macro")`;
    with it, a class that never occurs counts as 0.
    """
    counts = confusion_matrix(predicted, true, n_classes)
    hits, sizes = np.diag(counts), counts.sum(0) + counts.sum(1)
    scores = np.divide(2 * hits, sizes, out=np.zeros(len(hits)), where=sizes > 0)
    return float(scores.mean() if n_classes else scores[sizes > 0].mean())


def bootstrap_interval(
    values: Float[np.ndarray, "items ..."] | Sequence[float],
    other: Float[np.ndarray, "items ..."] | Sequence[float] | None = None,
    *,
    statistic: Callable[[np.ndarray], float] = np.mean,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over items: which other test documents might have been drawn.

    With `other`, the interval of statistic(values) − statistic(other) on the same items each time:
    what two models share (easy and hard documents) cancels. Rows of a matrix stay together, so
    that `statistic` may compute a macro-F1 from (predicted, true). Source: Efron 1979.
    """
    values = np.asarray(values)
    rows = [values] if other is None else [values, np.asarray(other)]
    if len({len(each) for each in rows}) > 1 or len(values) < 2:
        sizes = " and ".join(str(len(each)) for each in rows)
        raise ValueError(f"a bootstrap needs the same two or more items each time, got {sizes}")
    generator = np.random.default_rng(seed)

    def score(chosen: np.ndarray | slice) -> float:
        first, *rest = (float(statistic(each[chosen])) for each in rows)
        return first - sum(rest)

    drawn = [score(generator.integers(len(values), size=len(values))) for _ in range(draws)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(score(slice(None)), float(low), float(high), level)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean over seeds: what other seeds might have given.

    Three seeds give a factor of 4.3 standard errors, so only large differences show. For two
    methods run on the same seeds, pass the differences. Source: Student 1908.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs two seeds or more, got {len(values)}")
    half = stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / math.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean, mean - float(half), mean + float(half), level)


def wilson_interval(hits: int, total: int, level: float = 0.95) -> Interval:
    """Interval of a share, such as an accuracy, that holds near 0 and 1 and for few items.

    Source: Wilson 1927.
    """
    from scipy.special import ndtri

    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"hits must lie between 0 and a positive total, got {hits} of {total}")
    z, share = float(ndtri((1 + level) / 2)), hits / total
    scale = 1 + z**2 / total
    middle = (share + z**2 / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Interval(share, middle - half, middle + half, level)


def _pair(predicted: Labels, true: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of integers. Raises ValueError unless they are as many, and not none."""
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape or not len(true):
        raise ValueError(
            f"predictions and labels must be as many, and at least one, got {len(predicted)} "
            f"predictions and {len(true)} labels"
        )
    return predicted.astype(np.int64), true.astype(np.int64)
