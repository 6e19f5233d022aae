"""A run that is driven: back in time, into branches, and all of it once more without hands."""

import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import finish, same_weights, tiny_run

from mslearn.checkpoint import Checkpoints
from mslearn.controls import WANTED, Controls, Event, Events, objection
from mslearn.schedules import constant
from mslearn.snapshots import Snapshots

STEPS = 60


def losses(run):
    return [record.loss for record in run.log]


def rates(run):
    return [record.lr for record in run.log]


def driven(acts, steps=STEPS, every=5, **more):
    """A run on which `acts` are done at their steps, in order, each as a person would."""
    run, left = tiny_run(snapshots=Snapshots(every=every), **more), list(acts)
    for record in run.train(steps):
        while left and record.step >= left[0][0]:
            _, name, value = left.pop(0)
            if name == "call":
                value(run)
            else:
                assert run.ask(name, value) == ""
    return run


@pytest.fixture(scope="module")
def undisturbed():
    return finish(tiny_run(), STEPS)


class TestRates:
    def test_a_factor_multiplies_the_schedule_and_goes_on_with_it(self, undisturbed):
        run = driven([(9, "factor", 0.5), (19, "factor", 1.0)])
        planned = rates(undisturbed)
        assert rates(run)[10:20] == [0.5 * rate for rate in planned[10:20]]
        assert rates(run)[:10] + rates(run)[20:] == planned[:10] + planned[20:]

    def test_a_rate_goes_before_a_factor(self):
        run = driven([(9, "factor", 0.5), (19, "lr", 0.3), (29, "lr", None)], 40)
        assert set(rates(run)[20:30]) == {0.3}
        assert rates(run)[30:] == [0.5 * run.schedule(step) for step in range(30, 40)]

    def test_each_group_has_its_own_rate(self):
        run, seen = tiny_run(), []
        run.controls.lr, run.controls.ratios = 0.1, [1.0, 0.0]
        before = [p.clone() for p in run.model.parameters()]
        finish(run, 1)
        seen = [group["lr"] for group in run.optimizer.param_groups]
        still = [torch.equal(*pair) for pair in zip(before, run.model.parameters(), strict=True)]
        assert seen == [0.1, 0.0] and still == [False, False, True, True]
        assert run.groups == ["first", "last"] and run.ratios == [1.0, 0.5]

    def test_a_schedule_may_give_one_for_each_group(self):
        run = tiny_run(schedule=lambda step: (0.02, 0.003 * step))
        finish(run, 3)
        assert [group["lr"] for group in run.optimizer.param_groups] == [0.02, 0.006]
        assert rates(run) == [0.02] * 3 and run.planned(9) == 0.02

    def test_a_controls_field_is_read_once_for_a_step(self):
        class Counted(Controls):
            reads = 0

            def __getattribute__(self, name):
                Counted.reads += name == "factor"
                return super().__getattribute__(name)

        run = tiny_run()
        run.controls = Counted()
        finish(run, 10)
        assert Counted.reads == 10


class TestAsking:
    @pytest.mark.parametrize(
        "name, value",
        [
            *[("lr", v) for v in (0, -1.0, float("nan"), float("inf"), True, "0.1", [0.1])],
            *[("factor", v) for v in (None, 0, False)],
            *[("ratios", v) for v in ([1.0], [1.0, -1.0], [1.0, float("nan")], 3, "ab")],
            *[("rewind", v) for v in (-1, 2.5, True, None, "3")],
            *[("branch", v) for v in ("b", [], [""], ["b", -1], ["b", 1, 2], ["x" * 41])],
            ("paused", 1),
            ("single", False),
            ("answer", "no"),
            ("speed", 3),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_a_sentence_and_changes_nothing(self, name, value):
        run = tiny_run(snapshots=Snapshots())
        sentence = run.ask(name, value)
        assert (WANTED.get(name, "no control")) in sentence
        assert run.controls == Controls()

    def test_what_makes_sense_is_taken(self):
        good = {"lr": 1, "ratios": [1.0, 0.5], "rewind": 0, "branch": ["b", 3], "note": "n"}
        assert not any(objection(name, value, 2) for name, value in good.items())

    def test_what_cannot_be_done_is_said(self):
        run = tiny_run()
        assert "no snapshots" in run.ask("rewind", 3)
        assert "asked for nothing" in run.ask("answer", "accept")

    def test_after_the_end_it_is_harmless_and_said(self, undisturbed):
        run = finish(tiny_run(snapshots=Snapshots(every=5)), 30)
        assert "has ended at step 30" in run.ask("rewind", 10)
        assert "will hold if it goes on" in run.ask("note", "so far")
        assert run.step == 30 and run.events == []
        finish(run, STEPS)
        assert losses(run) == losses(undisturbed)
        assert run.events == [Event(30, "note", "so far")]

    def test_a_step_at_a_time_while_paused(self):
        run = tiny_run()
        run.controls.paused = True
        trainer = threading.Thread(target=finish, args=(run, STEPS))
        trainer.start()
        for count in (1, 2, 3):
            assert run.ask("single", True) == ""
            limit = time.monotonic() + 30
            while run.step < count and time.monotonic() < limit:
                time.sleep(0.001)
        time.sleep(0.05)
        assert run.step == 3 and run.controls.paused
        run.controls.stopped = True
        trainer.join()
        assert [e.name for e in run.events] == ["paused", *["single"] * 3, "stopped"]

    def test_a_thousand_moves_in_one_step_are_one_event(self):
        run = tiny_run()
        for record in run.train(3):
            for move in range(1, 1001):
                run.ask("lr", move * 1e-6 + record.step)
        assert len(run.events) == 2 and rates(run)[1:] == [0.001, 1.001]


class TestRewind:
    def test_and_going_on_without_a_change_is_as_if_never_having_done_so(self, undisturbed):
        run = driven([(33, "rewind", 20), (40, "call", lambda run: run.rewind(12))])
        assert losses(run) == losses(undisturbed) and run.log[30].step == 30
        assert same_weights(run.model, undisturbed.model)
        assert run.events == [Event(34, "rewind", 20), Event(41, "rewind", 10)]

    def test_lands_on_the_newest_snapshot_before_and_says_so(self):
        run = finish(tiny_run(snapshots=Snapshots(every=5)), 20)
        assert run.reachable() == [0, 5, 10, 15, 20]
        assert run.rewind(13) == 10 == run.step == len(run.log)
        assert "step 10, the nearest snapshot before step 13" in run.notices[-1][1]
        assert run.reachable() == [0, 5, 10]

    @pytest.mark.parametrize("part", ["optimizer", "random", "step"])
    def test_no_part_of_a_snapshot_is_spare(self, part, undisturbed):
        run = finish(tiny_run(snapshots=Snapshots(every=5)), 20)
        state = run.snapshots.get(0, 10).content[1]
        state[part] = run.snapshots.get(0, 5).content[1][part]
        run.rewind(10)
        finish(run, STEPS)
        assert not same_weights(run.model, undisturbed.model)

    def test_a_snapshot_shares_no_memory_with_the_run(self):
        run = finish(tiny_run(snapshots=Snapshots(every=5)), 10)
        weights, state = run.snapshots.get(0, 5).content
        ours = [*weights.values()]
        ours += [t for moments in state["optimizer"]["state"].values() for t in moments.values()]
        copies = [tensor.clone() for tensor in ours]
        for _ in range(3):  # what is put back must not be what is trained on
            run.rewind(5)
            finish(run, 10)
        assert len(ours) == 4 + 12
        assert all(torch.equal(*pair) for pair in zip(ours, copies, strict=True))

    def test_the_rate_in_the_hand_goes_back_too(self):
        run = driven([(9, "lr", 0.02), (24, "lr", 0.1), (24, "factor", 2.0), (40, "rewind", 20)])
        assert rates(run)[10:] == [0.02] * 50
        assert run.controls.lr == 0.02 and run.controls.factor == 1.0
        assert [event.value for event in run.family.now.events] == [0.02]

    def test_a_move_made_together_with_it_holds(self):
        run = driven([(30, "rewind", 20), (30, "lr", 0.02)])
        assert run.events[-1] == Event(20, "lr", 0.02) and rates(run)[20:] == [0.02] * 40

    def test_from_another_thread_it_waits_for_the_step_to_end(self, undisturbed):
        run, done = tiny_run(snapshots=Snapshots(every=5)), []

        def elsewhere():
            done.append(run.rewind(10))

        for record in run.train(STEPS):
            if record.step == 30 and not done:
                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join()
                assert run.step == 31 and done == [None]
        assert run.events == [Event(31, "rewind", 10)]
        assert losses(run) == losses(undisturbed)

    def test_a_log_that_is_being_read_stays_as_it_was(self):
        run = finish(tiny_run(snapshots=Snapshots(every=5)), 20)
        read, before = run.log, losses(run)
        run.rewind(5)
        assert run.log is not read and [r.loss for r in read] == before and len(run.log) == 5

    def test_without_snapshots_it_says_what_to_do(self):
        run = finish(tiny_run(), 3)
        with pytest.raises(ValueError, match=r"run.enable\(\)"):
            run.rewind(1)

    def test_the_layers_norms_go_back_too(self):
        run = finish(tiny_run(snapshots=Snapshots(every=5), watch_every=4), 20)
        assert [sample.step for sample in run.log.layers] == [0, 4, 8, 12, 16]
        run.rewind(10)
        finish(run, 20)
        assert [sample.step for sample in run.log.layers] == [0, 4, 8, 12, 16]

    def test_with_checkpoints_a_new_process_resumes_where_it_went_back_to(self, tmp_path):
        keep = {"checkpoints": Checkpoints(tmp_path), "save_every": 10}
        run = finish(tiny_run(snapshots=Snapshots(every=5), **keep), 40)
        run.rewind(22)
        again = tiny_run(**keep)
        assert again.resume() and again.step == 20 and losses(again) == losses(run)
        assert same_weights(again.model, run.model)


class TestBranch:
    def test_a_second_timeline_leaves_the_first_as_it_was(self, undisturbed):
        run = driven([(30, "branch", ["hot", 20]), (30, "lr", 0.05)], 50)
        assert run.family.current == "hot" and rates(run)[20:] == [0.05] * 30
        run.switch("main")
        assert run.step == 31 and finish(run, STEPS) is run
        assert losses(run) == losses(undisturbed)
        assert same_weights(run.model, undisturbed.model)
        run.switch("hot")
        assert run.step == 50 and rates(run)[20:] == [0.05] * 30

    def test_from_this_moment_it_needs_no_snapshot_there(self):
        run = driven([(31, "branch", ["now"])], 40)
        assert run.family["now"].born == 32 and run.family["main"].step == 32
        assert 32 in run.reachable() and run.rewind(33) == 32

    def test_it_can_go_back_beyond_its_birth_and_the_parent_is_unharmed(self, undisturbed):
        run = driven([(30, "branch", ["b"]), (40, "rewind", 12)])
        assert run.family["b"].born == 10 and run.family["main"].step == 31
        assert losses(run) == losses(undisturbed)

    def test_a_parent_that_goes_back_leaves_its_branch_the_past_they_shared(self, undisturbed):
        run = driven([(30, "branch", ["b"])], 50)
        run.switch("main")
        run.rewind(10)
        run.controls.lr = 0.1  # another past from here on
        finish(run, 30)
        run.switch("b")
        assert run.rewind(24) == 20
        assert losses(finish(run, STEPS)) == losses(undisturbed)

    def test_a_dropped_timeline_frees_its_memory_but_not_what_its_branch_needs(self):
        run = driven([(30, "branch", ["b", 20])], 50)
        used, reachable = run.snapshots.used, run.reachable()
        run.drop("main")
        assert run.snapshots.used < used and run.reachable() == reachable
        assert [row["name"] for row in run.family.rows()] == ["b"] and run.family[
            "b"
        ].parent is None

    def test_the_branch_born_last_takes_a_dropped_ones_place(self):
        run = tiny_run(snapshots=Snapshots(every=5))
        for name, step in (("early", 10), ("late", 20)):
            run.switch("main")
            finish(run, 30)
            run.branch(name, step)
        run.drop("main")
        parents = {line.name: (line.parent, line.born) for line in run.family.timelines.values()}
        assert parents == {"late": (None, 0), "early": ("late", 10)}
        run.switch("early")
        assert run.reachable() == [0, 5, 10]

    def test_what_cannot_be_done_says_why_and_changes_nothing(self):
        run = finish(tiny_run(snapshots=Snapshots(every=5)), 12)
        run.branch("b")
        for act, words in (
            (lambda: run.branch("b"), "already"),
            (lambda: run.switch("c"), "there are main, b"),
            (lambda: run.drop("b"), "in use"),
        ):
            with pytest.raises(ValueError, match=words):
                act()
        assert run.family.current == "b" and run.step == 12 and len(run.events) == 1

    def test_a_request_that_cannot_be_met_is_said_and_the_run_goes_on(self, undisturbed):
        run = driven([(9, "switch", "nowhere")])
        assert "there is no timeline 'nowhere'" in run.notices[-1][1]
        assert losses(run) == losses(undisturbed)

    def test_the_table_compares_them(self):
        run = tiny_run(
            snapshots=Snapshots(every=5), evaluate=lambda *_: {"accuracy": 0.5}, evaluate_every=10
        )
        finish(run, 20)
        run.branch("b", 10)
        run.controls.lr = 0.02
        finish(run, 30)
        main, branch = run.family.rows()
        assert main["scores"] == {"accuracy": 0.5} and main["step"] == 20 and main["moves"] == 0
        assert branch["parent"] == "main" and branch["born"] == 10 and branch["moves"] == 1
        assert branch["loss"] == pytest.approx(sum(losses(run)[-10:]) / 10)
        assert "*b" in str(run.family) and "accuracy 0.500" in str(run.family)


STEP = st.integers(0, 45)
ACTS = st.one_of(
    st.tuples(STEP, st.just("lr"), st.sampled_from([0.003, 0.02, None])),
    st.tuples(STEP, st.just("factor"), st.sampled_from([0.5, 1.0, 2.0])),
    st.tuples(STEP, st.just("ratios"), st.sampled_from([[1.0, 0.1], None])),
    st.tuples(STEP, st.just("rewind"), STEP),
    st.tuples(STEP, st.just("branch"), st.tuples(st.sampled_from("abc")).map(list)),
    st.tuples(STEP, st.just("branch"), st.tuples(st.sampled_from("abc"), STEP).map(list)),
    st.tuples(STEP, st.just("switch"), st.sampled_from(["main", *"abc"])),
    st.tuples(STEP, st.just("drop"), st.sampled_from(["main", *"abc"])),
    st.tuples(STEP, st.just("note"), st.text(max_size=3)),
)


class TestReplay:
    def test_three_hundred_driven_steps_from_a_file_to_the_bit(self, tmp_path):
        acts = [
            (40, "lr", 0.02),
            (80, "factor", 1.7),
            (80, "lr", None),
            (120, "ratios", [1.0, 0.1]),
            (150, "rewind", 100),
            (160, "note", "from here"),
            (170, "branch", ["warm", 90]),
            (200, "lr", 0.004),
            (240, "lr", None),
        ]
        run = driven(acts, 300, every=7)
        run.events.save(tmp_path / "events.json")
        assert (tmp_path / "events.json").stat().st_size < 1000
        again = tiny_run().replay(tmp_path / "events.json")
        assert again.events == run.events and len(run.events) >= 9
        assert losses(again) == losses(run) and same_weights(again.model, run.model)
        before, after = (each.family["main"].log.column("loss") for each in (run, again))
        assert before == after

    @settings(max_examples=25, deadline=None)
    @given(st.lists(ACTS, max_size=8).map(lambda acts: sorted(acts, key=lambda act: act[0])))
    def test_whatever_was_done_across_rewinds_and_branches(self, acts):
        run = driven(acts, 50)
        again = tiny_run().replay(run.events)
        assert again.events == run.events and losses(again) == losses(run)
        assert same_weights(again.model, run.model)
        assert set(again.family.timelines) == set(run.family.timelines)
        for name, line in run.family.timelines.items():
            assert again.family[name].log.column("loss") == line.log.column("loss")

    def test_also_what_was_done_between_two_calls_of_train(self):
        run = finish(tiny_run(snapshots=Snapshots(every=5)), 30)
        run.rewind(20)
        run.controls.lr = 0.5
        finish(run, 25)
        run.branch("b", 10)
        again = tiny_run().replay(run.events)
        assert again.step == 10 and again.family.current == "b"
        assert losses(again) == losses(run) and same_weights(again.model, run.model)

    def test_pauses_are_not_waited_for(self):
        events = Events([(3, "paused", True), (3, "paused", False), (5, "single", True)])
        assert tiny_run().replay(events, until=8).events == events

    def test_on_another_device_it_warns(self):
        events = finish(tiny_run(), 5).events
        events.about["device"] = "another"
        with pytest.warns(UserWarning, match="recorded with device another"):
            tiny_run().replay(events)

    def test_of_another_runs_events_says_so(self):
        events = Events([(20, "rewind", 10), (5, "note", "gone by")])
        with pytest.raises(ValueError, match="recorded on another run: note at step 5"):
            tiny_run().replay(events, until=30)

    def test_needs_a_new_run_and_an_end(self):
        with pytest.raises(ValueError, match="begins at step 0"):
            finish(tiny_run(), 3).replay([], until=5)
        with pytest.raises(ValueError, match="pass until"):
            tiny_run().replay([])

    def test_events_survive_the_file(self, tmp_path):
        events = Events(
            [(1, "lr", 0.1 + 0.2), (2, "branch", ("ü", 1)), (3, "lr", None)], {"end": 9}
        )
        events.save(tmp_path / "events.json")
        loaded = Events.load(tmp_path / "events.json")
        assert loaded == events and loaded.about == {"end": 9}


class TestScript:
    def test_events_happen_at_their_steps_as_by_a_hand(self):
        run = tiny_run(snapshots=Snapshots(every=5))
        run.follow([(10, "lr", 0.02), (20, "rewind", 15), (17, "branch", ("b",)), (30, "lr", None)])
        finish(run, 40)
        assert [(e.step, e.name) for e in run.events] == [
            (10, "lr"),
            (20, "rewind"),
            (17, "branch"),
            (30, "lr"),
        ]
        assert set(rates(run)[10:30]) == {0.02} and run.family.now.born == 17

    def test_the_first_act_of_a_hand_drops_the_rest_of_it(self):
        run = tiny_run(snapshots=Snapshots(every=5))
        run.follow([(10, "lr", 0.02), (20, "lr", 0.05), (30, "rewind", 0)])
        for record in run.train(40):
            if record.step == 12:
                run.ask("note", "I only watch")
            if record.step == 24:
                run.ask("lr", 0.001)
        assert [(e.step, e.name) for e in run.events] == [
            (10, "lr"),
            (13, "note"),
            (20, "lr"),
            (25, "lr"),
        ]
        assert run.script is None and "the run is yours" in run.notices[-1][1]

    def test_it_does_not_wait_and_it_can_stop(self):
        run = tiny_run()
        run.follow([(3, "paused", True), (6, "stopped", True)])
        assert finish(run, 20).step == 6

    def test_what_a_person_did_and_the_script_of_it_give_the_same(self):
        by_hand = driven([(9, "lr", 0.02), (19, "factor", 2.0), (29, "lr", None)])
        run = tiny_run(snapshots=Snapshots())
        run.follow(by_hand.events)
        assert losses(finish(run, STEPS)) == losses(by_hand)

    def test_a_resumed_run_goes_on_with_what_it_has_not_yet_done(self, tmp_path):
        script = [(10, "lr", 0.02), (20, "rewind", 15), (17, "lr", 0.01), (30, "lr", 0.02)]

        def scripted(folder, steps):
            run = tiny_run(
                snapshots=Snapshots(every=5), checkpoints=Checkpoints(folder), save_every=9
            )
            run.resume()
            run.follow(script)
            return finish(run, steps)

        whole = scripted(tmp_path / "whole", 40)
        scripted(tmp_path / "parts", 29)
        again = scripted(tmp_path / "parts", 40)
        assert again.events == whole.events and len(again.events) == 4
        assert losses(again) == losses(whole)


class TestCode:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(ACTS, max_size=6).map(lambda acts: sorted(acts, key=lambda act: act[0])))
    def test_it_reproduces_every_rate_exactly(self, acts):
        def by_group(run):
            return [group["lr"] for group in run.optimizer.param_groups]

        run = driven(acts, 50)
        again = finish(tiny_run(schedule=run.driven()), len(run.log))
        assert rates(again) == rates(run) and by_group(again) == by_group(run)

    def test_run_with_it_gives_the_driven_weights(self):
        run = driven([(9, "ratios", [1.0, 0.1]), (19, "factor", 0.7), (29, "lr", 0.03)])
        again = finish(tiny_run(schedule=run.driven()), STEPS)
        assert losses(again) == losses(run) and same_weights(again.model, run.model)

    def test_it_reads_as_a_person_would_write_it(self):
        run = driven([(9, "lr", 0.03), (19, "lr", None), (19, "factor", 0.5)], 30)
        assert run.as_code("mine") == (
            "from mslearn.schedules import warmup_cosine\n\n"
            "planned = warmup_cosine(0.01, 5, 300)\n\n\n"
            "def mine(step):\n"
            '    """The rate that a hand drove over 30 steps, exactly; the last rule goes on '
            'after."""\n'
            "    if step < 10:\n        return planned(step)\n"
            "    if step < 20:\n        return 0.03\n"
            "    return 0.5 * planned(step)\n"
        )

    def test_a_schedule_that_nobody_can_write_down_becomes_a_table(self):
        def falling(step):
            return 0.01 / (1 + step // 3)

        run = finish(tiny_run(schedule=falling), 20)
        code = run.as_code()
        assert "STARTS = [0, 3, 6" in code and rates(run) == [run.driven()(s) for s in range(20)]

    def test_so_does_one_with_a_rate_for_each_group(self):
        run = tiny_run(schedule=lambda step: (0.01 + step, 0.02))
        for record in run.train(9):
            run.controls.factor = 2.0 if record.step == 3 else run.controls.factor
        assert run.driven()(1) == (1.01, 0.02) and run.driven()(5) == (2 * 5.01, 0.04)

    def test_a_name_must_be_one(self):
        with pytest.raises(ValueError, match="must be a Python name"):
            tiny_run(schedule=constant(0.1)).as_code("my schedule")


def test_who_looks_on_from_another_thread_is_never_disturbed():
    run = tiny_run(
        snapshots=Snapshots(0.2, every=1), evaluate=lambda *_: {"x": 1.0}, evaluate_every=1
    )
    faults, over = [], threading.Event()

    def look():
        try:
            while not over.is_set():
                run.reachable(), str(run.family), run.log.column("loss"), list(run.log)
        except BaseException as error:
            faults.append(error)

    onlooker = threading.Thread(target=look)
    onlooker.start()
    for record in run.train(150):
        if record.step % 40 == 20 and len(run.events) < 8:
            run.controls.rewind = record.step - 15
            run.controls.branch = (f"b{len(run.events)}",)
    over.set()
    onlooker.join()
    assert not faults and len(run.events) == 8


def test_an_evaluation_that_draws_random_numbers_changes_no_bit_of_the_training(undisturbed):
    run = tiny_run(evaluate=lambda *_: {"x": float(torch.rand(()))}, evaluate_every=3)
    assert losses(finish(run, STEPS)) == losses(undisturbed)
