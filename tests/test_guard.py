"""The guard: silent on noise, quick on divergence, and overruled by whoever drives."""

import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import finish, same_weights, tiny_run

from mslearn.controls import Event
from mslearn.guard import QUIET, Guard
from mslearn.snapshots import Snapshots

HOT = 30.0  # a rate at which the tiny run explodes


def losses(run):
    return [record.loss for record in run.log]


def verdict(curve, guard=None):
    """The first step at which the guard speaks, and what it says; None where it never does."""
    guard = guard or Guard()
    for step, loss in enumerate(curve):
        trouble = guard.judge(step, loss, math.isfinite(loss))
        if trouble:
            return step, trouble
    return None


def falling(rng, steps, start, end, noise):
    """A loss as it should be: falling, with some noise on it."""
    way = end + (start - end) * np.exp(-np.arange(steps) / (steps / 5))
    return way + noise * rng.standard_normal(steps)


class TestJudgement:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 10**6),
        st.floats(0, 10),
        st.floats(0, 10),
        st.floats(1e-3, 1),
        st.floats(1e-3, 1e3),
    )
    def test_noise_on_a_falling_or_a_flat_loss_is_no_trouble(self, seed, fall, end, noise, unit):
        curve = falling(np.random.default_rng(seed), 1000, end + fall, end, noise)
        assert verdict(unit * curve) is None

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10**6), st.floats(0.01, 0.2), st.integers(200, 900))
    def test_a_loss_that_climbs_back_to_where_it_began_is_noticed_soon(self, seed, noise, turn):
        curve = falling(np.random.default_rng(seed), 1000, 8.0, 2.0, noise)
        curve[turn:] = 8.0 + noise * np.random.default_rng(seed + 1).standard_normal(1000 - turn)
        assert turn < verdict(curve)[0] <= turn + 20

    @given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
    def test_the_unit_of_the_loss_does_not_matter(self, seed, unit):
        curve = np.concatenate([falling(np.random.default_rng(seed), 200, 8, 2, 0.1), [7.0] * 50])
        assert verdict(unit * curve)[0] == verdict(curve)[0]

    def test_one_batch_that_is_off_is_no_trouble(self):
        curve = falling(np.random.default_rng(0), 300, 8.0, 2.0, 0.1)
        curve[100::50] = 20.0
        assert verdict(curve) is None

    def test_a_loss_that_rises_a_little_at_a_higher_rate_is_no_trouble(self):
        curve = falling(np.random.default_rng(0), 300, 8.0, 2.0, 0.1)
        curve[200:] += 1.5
        assert verdict(curve) is None

    def test_three_steps_in_a_row_without_a_number_are_and_two_are_not(self):
        assert verdict([3.0, math.nan, math.nan, 3.0, math.inf, math.nan, 3.0]) is None
        step, trouble = verdict([3.0, math.nan, math.inf, math.nan])
        assert step == 3 and trouble == "3 steps in a row gave no finite gradient"

    def test_while_it_is_quiet_it_says_nothing(self):
        curve = [4.0] * 20 + [9.0] * 100
        quiet = Guard(quiet_until=90)
        assert verdict(curve)[0] < 40 and verdict(curve, quiet)[0] == 90 + 4

    def test_what_to_do_with_nobody_there_is_one_of_two(self):
        with pytest.raises(ValueError, match="'take' or 'raise'"):
            Guard(headless="ask")


def exploding(**more):
    """A run whose rate is dragged to `HOT` at step 60 by a script."""
    run = tiny_run(snapshots=Snapshots(every=10), **more)
    run.follow([(60, "lr", HOT)])
    return run


class TestNobodyThere:
    @pytest.fixture(scope="class")
    @classmethod
    def guarded(cls):
        with pytest.warns(UserWarning, match="try a third of the rate; nobody is there"):
            return finish(exploding(), 200)

    def test_the_step_is_skipped_and_counted_and_the_run_goes_back(self, guarded):
        names = [event.name for event in guarded.events]
        first = names.index("guard")
        assert names[:3] == ["lr", "skip", "guard"]
        skip, back = guarded.events[first - 1 : first + 1]
        assert back.step == skip.step + 1 and back.value <= 60
        assert guarded.step == 200 and len(guarded.log) == 200

    def test_the_rate_is_a_third_of_what_it_was(self, guarded):
        moves = [event.value for event in guarded.events if event.name == "lr"]
        assert moves == [pytest.approx(HOT / 3**n) for n in range(len(moves))] and len(moves) > 1

    def test_it_says_why_in_one_sentence(self, guarded):
        (step, why), *_ = guarded.notices
        assert step == guarded.events[2].value
        assert why.startswith("the smoothed loss rose from ") and "at rate 30 (step " in why
        assert why.endswith(f": back at step {step}, try a third of the rate")

    def test_the_end_is_better_than_without(self, guarded):
        free = tiny_run()
        free.follow([(60, "lr", HOT)])
        assert guarded.log.recent() < 0.1 * finish(free, 200).log.recent()

    def test_a_replay_needs_no_guard_to_do_the_same(self, guarded):
        again = tiny_run().replay(guarded.events)
        assert again.events == guarded.events and losses(again) == losses(guarded)
        assert same_weights(again.model, guarded.model)

    def test_by_schedule_it_is_the_factor_that_is_cut(self):
        run = tiny_run(
            snapshots=Snapshots(every=10), schedule=lambda step: 0.01 if step < 60 else HOT
        )
        with pytest.warns(UserWarning, match="third of the rate"):
            finish(run, 80)
        factors = [event.value for event in run.events if event.name == "factor"]
        assert factors[0] == pytest.approx(1 / 3) and run.controls.lr is None

    def test_asked_to_raise_it_raises_as_a_plain_run(self):
        run = exploding(guard=Guard(headless="raise"))
        with pytest.raises(FloatingPointError, match=r"smoothed loss rose.*go back to step \d+"):
            finish(run, 200)

    def test_it_gives_up_when_going_back_does_not_help(self):
        def hopeless(model, batch):
            value = (model(batch[0]) - batch[1]).square().mean()
            return value * math.nan if run.step > 40 else value

        run = tiny_run(snapshots=Snapshots(every=10), loss=hopeless)
        with (
            pytest.warns(UserWarning, match="no finite gradient"),
            pytest.raises(FloatingPointError, match="no finite gradient"),
        ):
            finish(run, 200)
        backs = [event.value for event in run.events if event.name == "guard"]
        assert backs[:3] == [40, 30, 20] and backs[-1] == 0 and len(backs) == 6

    def test_a_guard_without_snapshots_is_refused(self):
        with pytest.raises(ValueError, match="give the run snapshots"):
            tiny_run(guard=Guard())

    def test_a_guard_that_never_speaks_changes_no_bit(self):
        plain = finish(tiny_run(), 100)
        watched = finish(tiny_run(snapshots=Snapshots(every=10)), 100)
        assert losses(plain) == losses(watched)


class Attended:
    """A run on a thread of its own, its rate dragged to `HOT`, stopped by the guard."""

    def __init__(self):
        self.run = tiny_run(snapshots=Snapshots(every=10))
        self.run.attended = True
        self.thread = threading.Thread(target=finish, args=(self.run, 400))

    def __enter__(self):
        self.run.controls.paused = True
        self.thread.start()
        for _ in range(60):
            self.step()
        self.run.ask("lr", HOT)
        self.run.ask("paused", False)
        self.until(lambda: self.run.proposal is not None and self.run.controls.paused)
        return self

    def __exit__(self, *error):
        self.run.controls.paused, self.run.controls.stopped = False, True
        self.thread.join()

    def step(self):
        goal = self.run.step + 1
        self.run.ask("single", True)
        self.until(lambda: self.run.step >= goal)

    def until(self, true):
        limit = time.monotonic() + 30
        while not true():
            assert self.thread.is_alive() and time.monotonic() < limit, "waited in vain"
            time.sleep(0.001)


class TestSomebodyThere:
    def test_the_run_waits_at_the_snapshot_for_an_answer(self):
        with Attended() as it:
            proposal = it.run.proposal
            time.sleep(0.05)
            assert it.run.step == proposal.back_to == 60 < proposal.step
            assert (proposal.control, proposal.value) == ("lr", HOT / 3)
            assert proposal.why == it.run.notices[-1][1]
            assert it.run.controls.lr is None  # the rate went back as well

    def test_accepted_it_goes_on_at_a_third(self):
        with Attended() as it:
            assert it.run.ask("answer", "accept") == ""
            it.until(lambda: it.run.step > 60)
            assert it.run.log[60].lr == HOT / 3

    def test_overruled_it_goes_on_from_where_it_was_stopped_and_the_guard_keeps_quiet(self):
        with Attended() as it:
            left = it.run.proposal.step
            it.run.ask("answer", "overrule")
            it.until(lambda: it.run.step > left)
            assert it.run.log[60].lr == it.run.log[left].lr == HOT
            assert it.run.guard.quiet_until == left + QUIET
            it.until(lambda: it.run.proposal is not None)
            assert it.run.proposal.step > left + QUIET

    def test_another_rate_is_an_answer_too(self):
        with Attended() as it:
            it.run.ask("lr", 0.001)
            it.run.ask("paused", False)
            it.until(lambda: it.run.step > 60)
            assert it.run.log[60].lr == 0.001 and it.run.proposal is None
            assert it.run.notices[-1][1] == "the guard's proposal was left aside"

    @pytest.mark.parametrize("answer", ["accept", "overrule"])
    def test_what_was_answered_is_replayed_to_the_bit(self, answer):
        with Attended() as it:
            it.run.ask("answer", answer)
            it.until(lambda: it.run.step > 62)
        again = tiny_run().replay(it.run.events)
        assert again.events == it.run.events and losses(again) == losses(it.run)
        assert same_weights(again.model, it.run.model)

    def test_a_script_may_answer(self):
        run = tiny_run(snapshots=Snapshots(every=10))
        run.follow([(60, "lr", HOT), (0, "answer", "overrule"), (100, "note", "still here")])
        finish(run, 101)
        assert [e.name for e in run.events] == ["lr", "skip", "guard", "answer", "note"]
        assert run.events[-1] == Event(100, "note", "still here") and run.log[99].lr == HOT

    def test_an_answer_to_nothing_is_said(self):
        run = tiny_run(snapshots=Snapshots(every=10))
        run.controls.answer = "overrule"
        finish(run, 3)
        assert run.notices == [(0, "the guard has asked for nothing")] and run.events == []
