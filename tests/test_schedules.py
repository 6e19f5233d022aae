"""Schedules: what their corners are, and that nothing in between jumps."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torchs
from toys import CPU, make_run, tokens

from mslearn.batches import HeldOut
from mslearn.schedules import (
    ReduceOnPlateau,
    constant,
    exponential,
    inverse_sqrt,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
)

runs = st.integers(2, 400).flatmap(
    lambda steps: st.tuples(st.just(steps), st.integers(0, steps - 1), st.floats(1e-6, 10))
)


@given(runs)
def test_warm_up_rises_to_the_peak_and_reaches_it(run):
    steps, warmup, peak = run
    for schedule in (
        warmup_cosine(peak, warmup, steps),
        warmup_stable_decay(peak, warmup, steps, 0),
        warmup_linear(peak, warmup, steps),
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


@pytest.mark.parametrize("make", [warmup_cosine, warmup_stable_decay, warmup_linear])
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
    with pytest.raises(ValueError, match=r"low < high, got 10 steps from 1\.0 to 0\.1"):
        exponential(1.0, 0.1, 10)
    with pytest.raises(ValueError, match="rate must be positive, got 0"):
        exponential(0, 0.1, 10)
    with pytest.raises(ValueError, match="rate must be positive, got -2"):
        inverse_sqrt(-2, 4)


def driven_by(make, steps: int, peak: float) -> list[float]:
    """The rates that a scheduler of torch gives an optimiser whose own rate is `peak`."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warmed(optimizer, warmup: int, rest) -> torchs.LRScheduler:
    """Torch's warm-up over `warmup` steps, two or more, and then `rest`."""
    rising = torchs.LinearLR(optimizer, 1 / warmup, 1.0, total_iters=warmup - 1)
    return torchs.SequentialLR(optimizer, [rising, rest], milestones=[warmup])


longer = st.integers(6, 80).flatmap(
    lambda steps: st.tuples(st.just(steps), st.integers(2, steps - 3), st.floats(1e-4, 10))
)


class TestEqualToTorch:
    @given(longer)
    def test_linear(self, run):
        steps, warmup, peak = run
        theirs = driven_by(
            lambda o: warmed(o, warmup, torchs.LinearLR(o, 1.0, 0.0, total_iters=steps - warmup)),
            steps,
            peak,
        )
        ours = warmup_linear(peak, warmup, steps)
        assert [ours(step) for step in range(steps)] == pytest.approx(theirs, rel=1e-9)

    @given(longer, st.floats(0, 1))
    def test_cosine(self, run, floor):
        steps, warmup, peak = run

        def make(o):
            last = steps - 1 - warmup
            return warmed(o, warmup, torchs.CosineAnnealingLR(o, last, eta_min=floor * peak))

        ours = warmup_cosine(peak, warmup, steps, floor)
        theirs = driven_by(make, steps, peak)
        assert [ours(step) for step in range(steps)] == pytest.approx(
            theirs, rel=1e-9, abs=1e-9 * peak
        )

    @given(longer)
    def test_stable_and_decay_without_a_warm_up(self, run):
        steps, flat, peak = run

        def make(o):
            stable = torchs.ConstantLR(o, 1.0, total_iters=flat)
            falling = torchs.LinearLR(o, 1.0, 0.0, total_iters=steps - flat)
            return torchs.SequentialLR(o, [stable, falling], milestones=[flat])

        ours = warmup_stable_decay(peak, 0, steps, (steps - flat) / steps)
        assert [ours(step) for step in range(steps)] == pytest.approx(
            driven_by(make, steps, peak), rel=1e-9
        )

    @given(st.integers(2, 60), st.floats(1e-5, 1), st.floats(1.1, 1e4))
    def test_exponential(self, steps, low, ratio):
        gamma = ratio ** (1 / (steps - 1))
        theirs = driven_by(lambda o: torchs.ExponentialLR(o, gamma), steps, low)
        ours = exponential(low, low * ratio, steps)
        assert [ours(step) for step in range(steps)] == pytest.approx(theirs, rel=1e-9)

    @given(st.integers(1, 50), st.integers(1, 1024))
    def test_inverse_square_root_is_equation_3_of_the_transformer_paper(self, warmup, d_model):
        ours = inverse_sqrt((d_model * warmup) ** -0.5, warmup)
        paper = [d_model**-0.5 * min(t**-0.5, t * warmup**-1.5) for t in range(1, 101)]
        assert [ours(step) for step in range(100)] == pytest.approx(paper, rel=1e-12)


scores = st.lists(
    st.one_of(
        st.floats(0.5, 3), st.sampled_from([1.0, 0.999, 0.99, -1.0, 0.0, math.inf, math.nan])
    ),
    max_size=60,
)


class TestReduceOnPlateau:
    @given(
        scores,
        st.floats(0.05, 0.95),
        st.integers(0, 4),
        st.sampled_from([0.0, 1e-4, 0.01, 0.2]),
        st.integers(0, 4),
        st.sampled_from([0.0, 1e-3, 0.3]),
        st.booleans(),
    )
    def test_every_decision_is_torchs(
        self, seen, factor, patience, threshold, cooldown, least, larger
    ):
        ours = ReduceOnPlateau(1.0, factor, patience, threshold, cooldown, least, larger)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        mode = "max" if larger else "min"
        theirs = torchs.ReduceLROnPlateau(
            optimizer, mode, factor, patience, threshold, "rel", cooldown, least
        )
        for number, score in enumerate(seen):
            before = optimizer.param_groups[0]["lr"]
            theirs.step(score)
            now = optimizer.param_groups[0]["lr"]
            assert ours.see(score) == (now < before)
            assert ours(number) == now
            assert (ours.waited, ours.cooling) == (theirs.num_bad_epochs, theirs.cooldown_counter)

    def test_a_rate_that_can_fall_no_further_stays(self):
        plateau = ReduceOnPlateau(1.0, 0.5, patience=0, least=0.3)
        assert [plateau.see(1.0) for _ in range(5)] == [False, True, True, False, False]
        assert plateau(0) == 0.3

    def test_the_warm_up_is_under_whatever_the_rate_is(self):
        plateau = ReduceOnPlateau(1.0, 0.5, patience=0, warmup=4)
        assert [plateau(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
        plateau.see(1.0)
        plateau.see(1.0)
        assert plateau(1) == 0.25 and plateau(9) == 0.5

    def test_a_new_one_that_is_shown_the_same_scores_goes_on_the_same(self):
        seen = [3.0, 2.0, 2.0, 2.0, 1.9, 1.9, 1.9, 1.9]
        first = ReduceOnPlateau(1.0, 0.5, patience=1)
        second = ReduceOnPlateau(1.0, 0.5, patience=1)
        decisions = [first.see(score) for score in seen]
        assert decisions == [False, False, False, True, False, False, True, False]
        for score in seen:
            second.see(score)
        assert second == first

    def test_it_drives_a_run_through_its_evaluation(self):
        plateau = ReduceOnPlateau(0.02, 0.5, patience=0, threshold=0.9)  # nothing is good enough
        held_out = HeldOut(tokens(400), 16)
        run = make_run(evaluate=plateau.watch(held_out, "bits_per_byte"), evaluate_every=5)
        run.schedule = plateau
        rates = [record.lr for record in run.train(15)]
        assert rates == [0.02] * 10 + [0.01] * 5
        assert [sorted(r.held_out) for r in run.log if r.held_out] == [["bits_per_byte"]] * 3

    def test_what_cannot_work_is_refused_in_words(self):
        with pytest.raises(ValueError, match=r"factor must lie between 0 and 1, .* got 1\.5"):
            ReduceOnPlateau(1.0, 1.5)
        with pytest.raises(ValueError, match="cannot be negative, got -1, 0 and 0"):
            ReduceOnPlateau(1.0, 0.5, -1)
        with pytest.raises(ValueError, match="rate must be positive, got 0"):
            ReduceOnPlateau(0)
        watched = ReduceOnPlateau(1.0).watch(lambda model, device: {"accuracy": 0.5}, "loss")
        with pytest.raises(ValueError, match=r"no score 'loss' to watch: .* accuracy"):
            watched(None, CPU)
