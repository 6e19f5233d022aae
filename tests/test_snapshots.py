"""Snapshots: within their budget, near where it matters, whole when they come from the disk."""

import math
import tracemalloc
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import finish, make_run, same_weights, tiny_run

from mslearn.checkpoint import Checkpoints
from mslearn.records import Log, Record
from mslearn.snapshots import MB, MOST, Snapshots
from mslearn.states import copied, expected_bytes, n_bytes

ONE = {"w": torch.zeros(1000)}
SIZE = n_bytes((ONE, {}))


def kept(steps, capacity, timeline=0, pool=None):
    """A pool with room for `capacity` snapshots, one taken at each of the steps."""
    pool = pool or Snapshots((capacity + 0.5) * SIZE / MB, every=1)
    for step in steps:
        assert pool.take(timeline, step, ONE, {})
        assert pool.used <= pool.budget
    return pool


def losses(run):
    return [record.loss for record in run.log]


class TestThinning:
    @given(st.integers(1, 20), st.lists(st.integers(1, 60), min_size=1, max_size=200))
    def test_the_budget_holds_and_the_newest_is_there(self, capacity, gaps):
        steps = [sum(gaps[:i]) for i in range(len(gaps))]
        pool = kept(steps, capacity)
        found = pool.steps(0)
        assert found[-1] == steps[-1] and set(found) <= set(steps)
        assert len(found) == min(capacity, len(steps))
        assert capacity == 1 or found[0] == 0

    @settings(max_examples=30, deadline=None)
    @given(st.integers(8, 48), st.integers(50, 1500))
    def test_early_and_recent_steps_stay_near(self, capacity, length):
        """Going back `d` steps from either end lands within a share of `d`; the share is what as
        many marks, spread evenly on two logarithmic rulers, would allow, times three."""
        found = kept(range(length), capacity).steps(0)
        share = 3 * ((length / 2) ** (2 / (capacity - 2)) - 1)
        for before, after in pairwise(found):
            farthest = after - 1
            near = min(farthest, length - 1 - farthest)
            assert farthest - before <= max(1, share * near)

    def test_the_gaps_grow_away_from_both_ends(self):
        found = kept(range(2000), 24).steps(0)
        gaps = [after - before for before, after in pairwise(found)]
        assert gaps[0] == gaps[-1] == 1 and max(gaps) > 100
        assert 5 < gaps.index(max(gaps)) < len(gaps) - 5

    def test_a_step_that_a_replay_comes_back_to_is_kept(self):
        pool = Snapshots(5.5 * SIZE / MB, every=1)
        pool.wanted = {31, 57}
        assert {31, 57} <= set(kept(range(200), 5, pool=pool).steps(0))

    def test_the_last_of_every_timeline_is_kept_and_then_there_is_no_more_room(self):
        pool = Snapshots(3.5 * SIZE / MB, every=1)
        for timeline in range(3):
            kept(range(20), 3, timeline, pool)
        assert [pool.steps(timeline) for timeline in range(3)] == [[19]] * 3
        assert not pool.take(3, 0, ONE, {}) and pool.steps(3) == []
        assert [pool.steps(timeline) for timeline in range(3)] == [[19]] * 3

    def test_one_shared_by_two_timelines_counts_once(self):
        pool = kept([0, 5], 9)
        before = pool.used
        assert pool.put(1, pool.get(0, 5)) and pool.used == before
        pool.cut(0)
        assert pool.steps(1) == [5] and pool.used == before // 2

    def test_however_small_there_are_not_too_many_to_look_through(self):
        assert len(kept(range(400), 1000).steps(0)) == MOST


class TestBudget:
    def test_too_small_for_one_is_said_before_the_start_with_what_to_do(self):
        with pytest.raises(
            ValueError, match=r"takes about .* MB and there is room for 0.002;.*None"
        ):
            tiny_run(snapshots=Snapshots(0.002))

    def test_what_is_expected_is_what_it_takes(self):
        run = make_run(snapshots=Snapshots(every=1))  # Muon and AdamW
        expected = expected_bytes(run.model, run.optimizer)
        weights, state = finish(run, 3).snapshots.get(0, 2).content
        averages = [t for kept in state["optimizer"]["state"].values() for t in kept.values()]
        tensors = [t for t in (*weights.values(), *averages) if isinstance(t, torch.Tensor)]
        assert sum(t.nbytes for t in tensors) == pytest.approx(expected, rel=0.15)

    @pytest.mark.parametrize("megabytes, share", [(0, 0.1), (-1, 0.1), (math.nan, 0.1), (1, 1)])
    def test_nonsense_is_refused(self, megabytes, share):
        with pytest.raises(ValueError, match="above 0 MB"):
            Snapshots(megabytes, share=share)

    def test_a_run_keeps_to_it(self):
        run = tiny_run(snapshots=Snapshots(0.3, every=1))
        for _ in run.train(100):
            assert run.snapshots.used <= 300_000
        assert 3 < len(run.reachable()) < 20

    def test_no_room_for_a_branch_changes_nothing_and_says_so(self):
        run = finish(tiny_run(snapshots=Snapshots(0.06, every=1)), 10)
        with pytest.raises(ValueError, match="no room for another timeline; drop one"):
            for name in "abc":
                run.branch(name)
        events = len(run.events)
        assert len(run.family.timelines) == events + 1
        assert finish(run, 15).step == 15

    def test_they_take_one_per_cent_of_the_time(self, monkeypatch):
        clock = [0.0]
        monkeypatch.setattr("mslearn.snapshots.time.perf_counter", lambda: clock[0])
        pool, taken = Snapshots(share=0.01), 0
        slow = {"w": torch.zeros(1)}
        monkeypatch.setattr(
            "mslearn.snapshots.copied", lambda tree: clock.__setitem__(0, clock[0] + 0.05) or tree
        )
        for step in range(10_000):
            if pool.due(0, step):
                taken += 1
                pool.take(0, step, slow, {})
            clock[0] += 0.01
        spent = 0.1 * taken  # 0.05 s for the weights, as much for the rest
        assert taken > 5 and spent / clock[0] == pytest.approx(0.01, rel=0.2)


class TestOnDisk:
    def test_half_is_memory_for_the_newest_and_the_others_come_back_from_the_disk(self, tmp_path):
        undisturbed = finish(tiny_run(), 60)
        run = finish(tiny_run(snapshots=Snapshots(0.6, tmp_path, every=2)), 40)
        pool = run.snapshots
        where = {step: pool.get(0, step).content is not None for step in pool.steps(0)}
        assert not where[0] and where[40] and pool.used <= pool.budget
        in_memory = sum(pool.get(0, step).n_bytes for step, there in where.items() if there)
        assert in_memory <= pool.budget // 2
        assert len(list(tmp_path.iterdir())) == list(where.values()).count(False)
        old = max(step for step, there in where.items() if not there)
        assert run.rewind(old) == old
        assert losses(finish(run, 60)) == losses(undisturbed)
        assert same_weights(run.model, undisturbed.model)

    def test_a_damaged_one_is_named_and_the_one_before_is_taken(self, tmp_path):
        run = finish(tiny_run(snapshots=Snapshots(0.6, tmp_path, every=2)), 40)
        old = [s for s in run.reachable() if run.snapshots.get(0, s).path][-1]
        state = run.snapshots.get(0, old).path / "state.pt"
        data = bytearray(state.read_bytes())
        data[100] ^= 1
        state.write_bytes(data)
        with pytest.warns(UserWarning, match=r"state.pt is missing or damaged.*before it is taken"):
            assert run.rewind(old) < old

    def test_what_thinning_drops_leaves_the_disk_too(self, tmp_path):
        pool = Snapshots(12.5 * SIZE / MB, tmp_path, every=1)
        for step in range(200):
            pool.take(0, step, ONE, {})
        on_disk = {pool.get(0, s).path for s in pool.steps(0)} - {None}
        assert set(tmp_path.iterdir()) == on_disk
        pool.cut(0)
        assert list(tmp_path.iterdir()) == []

    def test_when_the_disk_is_full_the_others_stay_in_memory(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError("no space left on device")

        monkeypatch.setattr("mslearn.snapshots.write_state", full)
        run = tiny_run(snapshots=Snapshots(0.6, tmp_path, every=2))
        with pytest.warns(UserWarning, match="no space left.*stay in memory") as said:
            finish(run, 40)
        assert len(said) == 1 and run.step == 40 and run.rewind(3) == 2
        assert run.snapshots.used <= run.snapshots.budget

    def new(self, folder):
        return tiny_run(
            snapshots=Snapshots(0.6, folder / "snapshots", every=2),
            checkpoints=Checkpoints(folder / "checkpoints"),
            save_every=7,
        )

    def drive(self, run, until):
        """Moves, a rewind and a branch, each at its step, as far as there are steps."""
        acts = {12: ("lr", 0.02), 20: ("rewind", 15), 26: ("branch", ["b"]), 33: ("factor", 0.5)}
        for record in run.train(until):
            name, value = acts.pop(record.step, (None, None))
            done = [event.name for event in run.events]
            if name and name not in done:
                run.ask(name, value)
        return run

    def test_a_run_killed_goes_on_with_its_events_branches_and_snapshots(self, tmp_path):
        whole = self.drive(self.new(tmp_path / "whole"), 60)
        self.drive(self.new(tmp_path / "parts"), 45)  # and it is gone: only the disk is left
        torch.manual_seed(99)
        run = self.new(tmp_path / "parts")
        assert run.resume() and run.step == 42 and run.family.current == "b"
        assert max(run.reachable()) <= 42 and len(run.reachable()) > 3
        self.drive(run, 60)
        assert run.events == whole.events and losses(run) == losses(whole)
        assert same_weights(run.model, whole.model)
        again = tiny_run().replay(run.events)
        assert losses(again) == losses(whole)

    def test_it_can_go_back_to_before_it_was_killed(self, tmp_path):
        other = self.drive(self.new(tmp_path / "other"), 26)  # the same moves up to there
        self.drive(self.new(tmp_path), 45)
        run = self.new(tmp_path)
        run.resume()
        early = next(step for step in run.reachable() if 12 < step < 26)
        assert run.rewind(early) == early
        assert losses(run) == losses(other)[:early]
        finish(run, 26)
        assert losses(run) == losses(other)

    def test_what_was_written_after_the_last_checkpoint_is_cleared(self, tmp_path):
        self.drive(self.new(tmp_path), 45)
        before = set((tmp_path / "snapshots").iterdir())
        stray = tmp_path / "snapshots" / "snapshot-999999"
        stray.mkdir()
        run = self.new(tmp_path)
        run.resume()
        left = set((tmp_path / "snapshots").iterdir())
        assert left <= before and stray not in left

    def test_a_new_run_does_not_find_what_another_left(self, tmp_path):
        finish(tiny_run(snapshots=Snapshots(0.6, tmp_path, every=2)), 40)
        run = finish(tiny_run(snapshots=Snapshots(0.6, tmp_path, every=2)), 1)
        assert run.reachable() == [0] and list(tmp_path.iterdir()) == []

    def test_another_timelines_state_that_was_only_in_memory_is_missed_in_words(self, tmp_path):
        run = self.drive(self.new(tmp_path), 45)
        run.snapshots.index = lambda: []
        run.save()
        again = self.new(tmp_path)
        again.resume()
        with pytest.raises(ValueError, match="the last state of 'main' was lost"):
            again.switch("main")


class TestMemory:
    def test_it_is_steady_over_a_hundred_thousand_steps(self):
        run = tiny_run(snapshots=Snapshots(1.0, every=200), watch_every=100)
        real = run._one_step
        # the arithmetic of a step leaves nothing behind; a hundred of them are made all the same
        run._one_step = lambda: real() if run.step % 1000 == 0 else (1.0, 1.0, False)
        steps = run.train(100_000)
        for _ in range(10_000):
            next(steps)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in steps:
                pass
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown / 90_000 < 80  # bytes a step: the log's 41, and what an array keeps spare
        assert run.snapshots.used <= run.snapshots.budget

    def test_copies_share_nothing(self):
        tree = {"a": [torch.ones(2), (torch.zeros(1),)], "b": 3}
        twin = copied(tree)
        tree["a"][0].add_(1)
        tree["a"][1][0].add_(1)
        tree["a"].append(4)
        assert twin["a"][0].tolist() == [1, 1] and twin["a"][1][0].item() == 0
        assert len(twin["a"]) == 2 and twin["b"] == 3


NUMBER = st.floats(allow_nan=False, width=32)


class TestLog:
    def log(self, rows):
        log = Log()
        for step, (loss, skipped, score) in enumerate(rows):
            held_out = None if score is None else {"loss": score}
            log.append(Record(step, loss, 0.1, 2.0, 3.0, 4.0, skipped, held_out))
        return log

    @given(
        st.lists(st.tuples(NUMBER, st.booleans(), st.none() | NUMBER), max_size=20),
        st.integers(0, 25),
    )
    def test_it_is_the_list_of_its_records(self, rows, cut):
        log = self.log(rows)
        records = list(log)
        assert [r.loss for r in records] == [row[0] for row in rows]
        assert log == records and log.upto(cut) == records[:cut] and log[::-1] == records[::-1]
        assert log.column("loss", cut).tolist() == [row[0] for row in rows[cut:]]
        assert Log.load(log.state()) == log and Log.load(log.state()).held_out == log.held_out

    def test_its_ends_and_what_lies_outside(self):
        log = self.log([(1.0, False, None), (2.0, True, 0.5)])
        assert log[-1].held_out == {"loss": 0.5} and log[-1].skipped and log[0].step == 0
        with pytest.raises(IndexError):
            log[2]

    def test_recent_is_the_mean_of_the_last_finite_losses(self):
        log = self.log(
            [(9.0, False, None), (1.0, False, None), (math.inf, True, None), (3.0, False, None)]
        )
        assert log.recent(3) == 2.0 and math.isnan(Log().recent())
