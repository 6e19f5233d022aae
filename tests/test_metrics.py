"""Scores equal scikit-learn's and scipy's; intervals cover as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mslearn.metrics import (
    accuracy,
    bootstrap_interval,
    confusion_matrix,
    macro_f1,
    mean_interval,
    wilson_interval,
)

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


@given(pairs)
def test_scores_equal_scikit_learn(rows: list[tuple[int, int]]) -> None:
    predicted, true = (np.array(column) for column in zip(*rows, strict=True))
    assert accuracy(predicted, true) == pytest.approx(
        sklearn_metrics.accuracy_score(true, predicted)
    )
    ours = confusion_matrix(predicted, true, 6)
    assert (ours == sklearn_metrics.confusion_matrix(true, predicted, labels=range(6))).all()
    reference = sklearn_metrics.f1_score(true, predicted, average="macro")
    assert macro_f1(predicted, true) == pytest.approx(reference)
    named = sklearn_metrics.f1_score(
        true, predicted, average="macro", labels=range(6), zero_division=0
    )
    assert macro_f1(predicted, true, 6) == pytest.approx(named)


def test_macro_f1_is_not_fooled_by_the_majority_class() -> None:
    true = np.array([0] * 95 + [1] * 5)
    assert accuracy(np.zeros(100), true) == 0.95
    assert macro_f1(np.zeros(100), true) < 0.5


def test_mean_interval_equals_scipy() -> None:
    values = [0.71, 0.74, 0.69]
    interval = mean_interval(values)
    reference = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(reference)


def test_mean_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(1.0, 2.0, size=(4000, 3))
    covered = np.mean([not mean_interval(row).excludes(1.0) for row in draws])
    assert covered == pytest.approx(0.95, abs=0.012)


def test_wilson_interval_equals_scipy() -> None:
    for hits, total in [(0, 10), (7, 10), (10, 10), (803, 1000)]:
        ours = wilson_interval(hits, total)
        reference = stats.binomtest(hits, total).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_bootstrap_equals_scipy_for_a_mean() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, size=300)
    ours = bootstrap_interval(values)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=2)
    assert ours.low == pytest.approx(reference.confidence_interval.low, abs=0.02)
    assert ours.high == pytest.approx(reference.confidence_interval.high, abs=0.02)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    generator = np.random.default_rng(2)
    shared = generator.random(400)
    first, second = (shared < 0.75).astype(float), (shared < 0.70).astype(float)
    paired = bootstrap_interval(first, second)
    unpaired = bootstrap_interval(first, generator.permutation(second))
    assert paired.excludes(0) and paired.high - paired.low < (unpaired.high - unpaired.low) / 2


def test_bootstrap_of_a_macro_f1_keeps_rows_together() -> None:
    rows = np.array([[0, 0], [1, 1], [2, 2]] * 30)
    interval = bootstrap_interval(rows, statistic=lambda r: macro_f1(r[:, 0], r[:, 1]), draws=50)
    assert (interval.low, interval.high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: accuracy([], []), "at least one"),
        (lambda: accuracy([1, 0], [1]), "2 predictions and 1 labels"),
        (lambda: confusion_matrix([7], [0], 3), "between 0 and 2, got 7"),
        (lambda: mean_interval([0.5]), "two seeds or more, got 1"),
        (lambda: bootstrap_interval([1.0, 2.0], [1.0]), "got 2 and 1"),
        (lambda: wilson_interval(3, 2), "got 3 of 2"),
    ],
)
def test_bad_input_is_named_in_one_sentence(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
