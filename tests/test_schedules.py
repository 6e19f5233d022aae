"""Schedules: what their corners are, and that nothing in between jumps."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mslearn.schedules import constant, warmup_cosine, warmup_stable_decay

runs = st.integers(2, 400).flatmap(
    lambda steps: st.tuples(st.just(steps), st.integers(0, steps - 1), st.floats(1e-6, 10))
)


@given(runs)
def test_warm_up_rises_to_the_peak_and_reaches_it(run):
    steps, warmup, peak = run
    for schedule in (
        warmup_cosine(peak, warmup, steps),
        warmup_stable_decay(peak, warmup, steps, 0),
    ):
        rates = [schedule(step) for step in range(steps)]
        assert all(b >= a - 1e-12 * peak for a, b in pairwise(rates[: warmup + 1]))
        assert max(rates) == pytest.approx(peak)
        if warmup:
            assert rates[0] == pytest.approx(peak / warmup)


@given(runs, st.floats(0, 1))
def test_after_the_warm_up_a_cosine_only_falls_and_ends_at_its_floor(run, floor):
    steps, warmup, peak = run
    schedule = warmup_cosine(peak, warmup, steps, floor)
    falling = [schedule(step) for step in range(warmup, steps)]
    assert all(a >= b - 1e-12 * peak for a, b in pairwise(falling))
    if len(falling) > 1:
        assert falling[-1] == pytest.approx(floor * peak, abs=1e-12)
    assert schedule(10 * steps) == pytest.approx(floor * peak, abs=1e-12)


def test_half_way_a_cosine_is_half_way():
    schedule = warmup_cosine(1.0, 0, 101, floor=0.2)
    assert schedule(50) == pytest.approx(0.6)
    assert schedule(25) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


@given(runs, st.floats(0, 1))
def test_stable_then_linear_and_the_last_step_still_moves(run, decay):
    steps, warmup, peak = run
    schedule = warmup_stable_decay(peak, warmup, steps, decay)
    falling = max(1, round(decay * steps))
    assert all(0 < schedule(step) <= peak * (1 + 1e-12) for step in range(steps))
    assert schedule(steps - 1) == pytest.approx(
        peak / max(falling, warmup if warmup == steps else 0)
    )
    assert schedule(steps) == 0
    flat = range(warmup, steps - falling + 1)
    assert all(schedule(step) == pytest.approx(peak) for step in flat)


def test_constant_is_constant():
    assert {constant(0.3)(step) for step in (0, 5, 10**6)} == {0.3}


@pytest.mark.parametrize("make", [warmup_cosine, warmup_stable_decay])
def test_what_makes_no_schedule_is_refused_in_words(make):
    with pytest.raises(ValueError, match="rate must be positive, got -1"):
        make(-1, 0, 10)
    with pytest.raises(ValueError, match="rate must be positive, got nan"):
        make(math.nan, 0, 10)
    with pytest.raises(ValueError, match="shorter than the run, got 10 of 10 steps"):
        make(1.0, 10, 10)
    with pytest.raises(ValueError, match="share of the run between 0 and 1, got 2"):
        warmup_stable_decay(1.0, 0, 10, 2)
    with pytest.raises(ValueError, match="share of the peak between 0 and 1, got -1"):
        warmup_cosine(1.0, 0, 10, floor=-1)
