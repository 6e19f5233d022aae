"""A run with a hand on its rate: the same numbers as without, and every act takes effect."""

import re
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient

from mslearn import live as live_module
from mslearn.account import describe, pins, smooth
from mslearn.device import Device
from mslearn.guess import Guess, in_words, sound, start_loss
from mslearn.live import Live
from mslearn.page import slider_range
from mslearn.panel import Panel
from mslearn.picture import Band, picture, planned
from mslearn.pilot import write_notebook
from mslearn.points import MOST, Stream, extremes
from mslearn.records import Log, Record
from mslearn.run import Controls, Run
from mslearn.samples import Samples
from mslearn.schedules import warmup_cosine
from mslearn.snapshots import Snapshots

ROOT = Path(__file__).resolve().parent.parent
STEPS = 60


def squares(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def make_run(loss=squares, pause: float = 0.0) -> Run:
    """A network with dropout, so that the random numbers have to agree too."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(16, 32), torch.nn.Dropout(0.1), torch.nn.Linear(32, 16)
    model = torch.nn.Sequential(*layers)

    def batches(step):
        time.sleep(pause)
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        return x, x.roll(1, dims=1)

    return Run(
        model,
        batches,
        torch.optim.AdamW(model.parameters()),
        schedule=warmup_cosine(1e-2, 5, STEPS),
        loss=loss,
        device=Device("cpu", "test", None),
        evaluate=lambda model, device: {"loss": 1.5, "accuracy": 0.25},
        evaluate_every=20,
    )


def until(true, seconds: float = 30.0) -> None:
    """Wait for something another thread does; the limit is for a fault only."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def slow():
    """A run under way that would take minutes, stopped after the test."""
    live = Live(make_run(pause=0.01), 20_000)
    until(lambda: live.run.log)
    yield live
    live.stop()


def act(live: Live, kind: str, **more) -> None:
    """What the page sends when a person does something."""
    live.panel.receive(live.panel.widget, {"kind": kind, **more}, [])


class TestWithNobodyAtTheSlider:
    def test_losses_and_weights_are_those_of_the_plain_loop_bit_for_bit(self):
        plain = make_run()
        losses = [record.loss for record in plain.train(STEPS)]
        driven = Live(make_run(), STEPS).wait()
        assert [record.loss for record in driven.log] == losses
        weights = zip(plain.model.parameters(), driven.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)

    def test_the_schedule_drives_and_no_event_is_logged(self):
        run = Live(make_run(), STEPS).wait()
        assert [record.lr for record in run.log] == [run.schedule(step) for step in range(STEPS)]
        assert run.controls.lr is None and run.events == []

    def test_the_training_thread_computes_with_as_many_threads_as_the_cell(self):
        seen = set()

        def loss(model, batch):
            seen.add((threading.get_ident(), torch.get_num_threads()))
            return squares(model, batch)

        Live(make_run(loss), 3).wait()
        ((thread, count),) = seen
        assert thread != threading.get_ident() and count == torch.get_num_threads()


class TestActs:
    def test_a_move_is_used_from_the_next_step_until_the_schedule_is_followed_again(self, slow):
        act(slow, "rate", mode="absolute", value=0.5)
        until(lambda: slow.run.events)
        step = slow.run.events[0].step
        act(slow, "rate", mode="absolute", value=None)
        until(lambda: len(slow.run.events) == 2 and slow.run.log[-1].step > slow.run.events[1].step)
        back = slow.run.events[1].step
        rates = [record.lr for record in slow.run.log]
        assert set(rates[step:back]) == {0.5}
        assert rates[step - 1] == slow.run.schedule(step - 1)
        assert rates[back] == slow.run.schedule(back)

    def test_on_a_slow_run_it_is_at_most_one_step_late(self):
        live = Live(make_run(pause=0.3), 20_000)
        until(lambda: live.run.log)
        begun = live.run.step  # the step under way
        act(live, "rate", mode="absolute", value=0.5)
        until(lambda: live.run.events)
        live.stop()
        assert begun <= live.run.events[0].step <= begun + 1

    def test_a_multiple_of_the_schedule_keeps_its_shape_and_lets_go_of_a_rate_held(self, slow):
        act(slow, "rate", mode="absolute", value=0.5)
        until(lambda: slow.run.log[-1].lr == 0.5)
        act(slow, "rate", mode="factor", value=0.5)
        until(lambda: slow.run.log[-1].lr != 0.5)
        last = slow.run.log[-1]
        assert last.lr == 0.5 * slow.run.schedule(last.step) and slow.run.controls.lr is None

    def test_a_run_with_a_step_to_finish_is_pausing_and_paused_when_that_is_done(self):
        live = Live(make_run(pause=0.5), 20_000)
        until(lambda: live.run.log)
        act(live, "ask", name="paused", value=True)
        assert live.phase == "pausing"
        until(lambda: live.phase == "paused")
        step = live.run.step
        time.sleep(0.6)
        assert live.run.step == step == len(live.run.log)
        live.stop()

    def test_pause_holds_the_run_one_step_is_one_and_resume_lets_it_go_on(self, slow):
        act(slow, "ask", name="paused", value=True)
        until(lambda: slow.phase == "paused")
        held = slow.run.step
        act(slow, "ask", name="single", value=True)
        until(lambda: slow.run.step > held)
        until(lambda: slow.phase == "paused")
        time.sleep(0.1)
        assert slow.run.step == held + 1
        act(slow, "ask", name="paused", value=False)
        until(lambda: slow.run.step > held + 1)
        assert slow.phase == "running"

    def test_rewind_and_branch_give_a_family_that_the_page_is_told_of(self, slow):
        until(lambda: slow.run.step >= 20)
        act(slow, "branch", name="", step=10)
        until(lambda: slow.run.family.current == "branch 1")
        born = slow.run.family.timelines["branch 1"].born
        assert born <= 10 and len(slow.run.family.timelines["main"].log) >= 20
        act(slow, "ask", name="rewind", value=born)
        until(lambda: any(event.name == "rewind" for event in slow.run.events))

    def test_a_branch_that_is_given_no_name_gets_one_that_is_free(self, slow):
        names = []
        for count in (1, 2):
            act(slow, "branch", name="", step=None)
            until(lambda n=count: len(slow.run.family.timelines) == n + 1)
            names.append(slow.run.family.current)
        assert names == ["branch 1", "branch 2"]

    def test_a_note_is_pinned_to_the_step_it_came_at(self, slow):
        act(slow, "ask", name="note", value="look here")
        until(lambda: pins(slow.run))
        (pin,) = pins(slow.run)
        assert pin == {"step": slow.run.events[0].step, "text": "look here", "guard": False}

    def test_stop_ends_it_early_and_wait_gives_back_the_run(self, slow):
        act(slow, "ask", name="stopped", value=True)
        run = slow.wait()
        assert run is slow.run and slow.phase == "stopped" and run.step < 20_000
        assert "stopped" in slow.picture.alt

    def test_stop_ends_a_paused_run_too(self, slow):
        act(slow, "ask", name="paused", value=True)
        act(slow, "ask", name="stopped", value=True)
        assert slow.wait() is slow.run

    def test_a_thousand_moves_in_a_second_are_taken_and_the_last_one_stays(self, slow):
        for move in range(1_000):
            act(slow, "rate", mode="absolute", value=1e-3 + 1e-6 * move)
        until(lambda: slow.run.log[-1].lr == 1e-3 + 1e-6 * 999)
        steps = [event.step for event in slow.run.events]
        assert len(steps) == len(set(steps)) < 1_000  # at most one a step

    def test_an_act_after_the_end_changes_nothing_and_is_answered(self):
        live = Live(make_run(), 2)
        live.wait()
        act(live, "ask", name="rewind", value=0)
        assert live.phase == "finished" and "has ended" in live.panel.said
        assert live.run.step == 2


@pytest.fixture(scope="module")
def panel():
    return Panel(make_run(), STEPS, "Training", None)


NOT_RATES = st.one_of(
    st.booleans(), st.text(), st.floats(max_value=0), st.sampled_from([float("inf"), float("nan")])
)
NONSENSE = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"kind": st.text()}),
    st.fixed_dictionaries({"kind": st.just("rate"), "mode": st.text(), "value": NOT_RATES}),
    st.fixed_dictionaries({"kind": st.just("ask"), "name": st.text(), "value": NOT_RATES}),
    st.fixed_dictionaries({"kind": st.just("ask"), "name": st.just("paused"), "value": st.text()}),
    st.fixed_dictionaries({"kind": st.just("branch"), "name": st.text(), "step": NOT_RATES}),
    st.fixed_dictionaries({"kind": st.just("guess"), "value": NOT_RATES}),
)


@given(NONSENSE)
def test_a_message_that_makes_no_sense_changes_nothing(panel, message):
    panel.receive(None, message)
    assert panel.run.controls == Controls() and panel.guess == []


class TestFaults:
    def test_a_budget_too_small_for_one_snapshot_is_said_before_the_start(self):
        run = make_run()
        with pytest.raises(ValueError, match="snapshot"):
            run.enable(Snapshots(megabytes=0.001))
        assert run.step == 0

    def test_a_model_too_large_for_the_usual_budget_trains_without_rewinding(self, monkeypatch):
        run = make_run()
        monkeypatch.setattr(run, "enable", lambda: Run.enable(run, Snapshots(megabytes=0.001)))
        with pytest.warns(UserWarning, match="no rewinding"):
            live = Live(run, 3)
        assert live.wait().step == 3 and run.snapshots is None

    def test_what_training_raises_comes_out_of_wait(self):
        def loss(model, batch):
            raise RuntimeError("the loss is broken")

        live = Live(make_run(loss), STEPS)
        with pytest.raises(RuntimeError, match="the loss is broken"):
            live.wait()
        assert live.phase == "failed" and "failed" in live.picture.alt

    def test_an_interrupt_stops_the_run_and_keeps_its_picture(self, slow, monkeypatch):
        join, calls = slow._painter.join, []

        def interrupted(timeout=None):
            calls.append(timeout)
            if len(calls) == 1:
                raise KeyboardInterrupt
            join(timeout)

        monkeypatch.setattr(slow._painter, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            slow.wait()
        assert slow.phase == "stopped" and slow.picture is not None

    def test_starting_again_stops_the_run_before(self, slow):
        again = Live(make_run(), STEPS)
        assert slow.phase == "stopped"
        assert again.wait().step == STEPS

    def test_the_same_run_started_again_goes_on_where_it_was(self):
        run = make_run()
        Live(run, 20).wait()
        Live(run, STEPS).wait()
        losses = [record.loss for record in make_run().train(STEPS)]
        assert [record.loss for record in run.log] == losses


class TestWire:
    @pytest.fixture
    def sent(self, monkeypatch):
        """A panel on a finished run, and the list of what it sends."""
        run, messages = make_run(), []
        panel = Panel(run, STEPS, "Training", None)
        monkeypatch.setattr(
            panel.widget, "send", lambda content, buffers=(): messages.append((content, buffers))
        )
        for _ in run.train(40):
            pass
        return panel, messages

    def test_a_point_takes_sixteen_bytes_and_goes_once(self, sent):
        panel, messages = sent
        panel.flush("running")
        panel.flush("running")
        points = [buffers[0] for content, buffers in messages if "points" in content]
        assert [len(buffer) for buffer in points] == [40 * 16]

    def test_nothing_is_sent_when_nothing_has_changed(self, sent):
        panel, messages = sent
        panel.flush("paused")
        before = len(messages)
        panel.flush("paused")
        assert len(messages) == before

    def test_points_are_steps_losses_rates_and_gradient_norms(self, sent):
        panel, messages = sent
        panel.flush("running")
        numbers, last = array("f", messages[0][1][0]), panel.run.log[-1]
        assert numbers[-4:] == array("f", (last.step, last.loss, last.lr, last.grad_norm))

    def test_held_out_scores_are_numbered_by_name(self, sent):
        panel, messages = sent
        panel.flush("running")
        ((family, (_, held, _)),) = messages  # one message, so that the page draws once
        assert family["names"] == ["loss", "accuracy"]
        assert array("f", held).tolist() == [19, 0, 1.5, 19, 1, 0.25, 39, 0, 1.5, 39, 1, 0.25]

    def test_a_page_that_says_hello_gets_everything_again(self, sent):
        panel, messages = sent
        panel.flush("running")
        panel.receive(None, {"kind": "hello", "page": 1})
        panel.flush("running")
        (_, first), (content, second) = messages
        assert first == second and content["all"] and panel.run.attended

    def test_what_a_picture_takes_the_page_is_counted_among_the_costs(self, sent):
        panel, _ = sent
        panel.flush("running")
        assert panel.flush("running") < 0.1
        panel.receive(None, {"kind": "drew", "page": 1.5, "ms": 200})
        assert panel.flush("running") > 0.2 and not panel.stirred.is_set()

    def test_the_page_learns_which_of_its_acts_have_arrived(self, sent):
        panel, messages = sent
        panel.receive(None, {"kind": "rate", "mode": "absolute", "value": 0.1, "at": 7.5})
        panel.flush("running")
        state = messages[0][0]["state"]
        assert state["seen"] == 7.5 and state["lr"] == 0.1

    def test_a_timeline_that_went_back_is_sent_anew(self, sent):
        panel, messages = sent
        panel.flush("running")
        panel.run.enable(Snapshots())
        panel.run.family.now.log = panel.run.log.upto(10)
        panel.flush("running")
        content, buffers = messages[-1]
        assert content["points"][0]["from"] == (0, 0, 0) and len(buffers[0]) == 10 * 16

    def test_a_text_the_model_wrote_goes_once(self, sent):
        panel, messages = sent
        panel.texts.append((10, "once upon"))
        for _ in range(2):
            panel.flush("running")
        told = [content["samples"] for content, _ in messages if "samples" in content]
        assert told == [[{"step": 10, "text": "once upon"}]]


def long_log(steps: int) -> Log:
    log = Log()
    for step in range(steps):
        loss = 1e9 if step == 12_345 else 1.0 + step % 7
        log.append(Record(step, loss, 1e-3, 1.0, 0.0, 0.0))
    return log


class TestLongRuns:
    def test_as_many_points_are_sent_of_100_000_steps_as_of_10_000(self):
        stream, names, sent = Stream(log := long_log(100_000), len(log)), [], b""
        while news := stream.news(names, still=True):
            sent += news.points
        assert MOST - 10 <= len(sent) / 16 <= 1.01 * MOST

    def test_one_step_that_explodes_is_among_them(self):
        points = Stream(long_log(100_000), 100_000).news([]).points
        assert max(array("f", points)[1::4]) == 1e9

    def test_a_loss_that_is_no_number_is_the_greatest_of_its_stretch(self):
        losses = [1.0, 2.0, float("nan"), 0.5]
        assert extremes(np.array(losses), 4).tolist() == [2, 3]

    def test_steps_of_a_stretch_not_yet_full_wait_until_the_end(self):
        stream = Stream(long_log(30), 100_000)  # 20 steps a stretch
        assert len(stream.news([]).points) == 2 * 16
        assert array("f", stream.news([], still=True).points)[::4].tolist() == [20, 21, 29]

    @pytest.mark.parametrize("steps", range(1, 41))
    def test_a_chart_that_stands_still_has_the_last_step(self, steps):
        for told in range(steps + 1):  # what the page had before the run was paused
            stream = Stream(log := long_log(told), 100_000)
            before = stream.news([]).points
            for record in long_log(steps)[told:]:
                log.append(record)
            news = stream.news([], still=True)
            shown = array("f", before + (news.points if news else b""))[::4].tolist()
            assert shown[-1] == steps - 1 and shown == sorted(set(shown))
            assert stream.news([], still=True) is None


class TestSamples:
    def test_training_goes_on_bit_for_bit_as_if_nothing_had_been_written(self):
        def write(model):
            assert not model.training and not torch.is_grad_enabled()
            return f"{torch.rand(1).item()}"

        live = Live(make_run(), STEPS, sample=write)
        losses = [record.loss for record in live.wait().log]
        assert losses == [record.loss for record in make_run().train(STEPS)]
        assert live.samples.texts[-1][0] == STEPS and "What the model wrote" in live.picture.below

    def test_a_slow_one_is_written_less_often(self):
        calls = []
        samples = Samples(lambda model: calls.append(time.sleep(0.05)), every=1)
        for done in range(1, 20):
            samples.look(torch.nn.Identity(), done)
        assert len(calls) == 1  # the next is due when nineteen times as long has gone by

    def test_one_that_fails_says_so_and_training_goes_on(self):
        live = Live(make_run(), STEPS, sample=lambda model: 1 / 0)
        assert live.wait().step == STEPS
        assert live.samples.texts == [(6, "the sample failed: ZeroDivisionError: division by zero")]


class TestGuess:
    def test_a_typed_one_lies_on_the_chart_and_in_its_words(self):
        run = make_run()
        guess = Guess(run, STEPS, {0: 1.0, STEPS: 0.5})
        live = Live(run, STEPS, guess=guess)
        live.wait()
        assert live.panel.guess == [[0.0, 1.0], [60.0, 0.5]]
        assert "Predicted was 0.500 at step 60" in live.picture.alt
        assert in_words(guess.points) == "loss 1.00 at step 0, 0.50 at step 60"

    def test_looking_at_the_first_loss_leaves_the_training_as_it_was(self):
        first = next(iter(make_run().train(1))).loss
        run = make_run()
        assert start_loss(run) == pytest.approx(first, rel=0.2)  # without dropout
        losses = [record.loss for record in run.train(STEPS)]
        assert losses == [record.loss for record in make_run().train(STEPS)]

    @pytest.mark.parametrize("points", [None, "1", [[1]], [[0, float("inf")]], [[0, True]]])
    def test_what_is_no_curve_is_refused(self, points):
        assert not sound(points)

    def test_nonsense_typed_in_a_cell_is_refused_in_words(self):
        with pytest.raises(ValueError, match="a prediction is"):
            Guess(make_run(), STEPS, {0: float("nan")})


class Place:
    """Where a notebook would show something; keeps what it was given."""

    def __init__(self):
        self.shown = []

    def update(self, what):
        self.shown.append(what)


class TestWithoutLiveControl:
    """A page that cannot show widgets never says hello: it gets pictures."""

    @pytest.fixture
    def place(self, monkeypatch):
        place = Place()
        monkeypatch.setattr(live_module, "_show", lambda widget: (None, None, place))
        monkeypatch.setattr(live_module, "NO_PAGE", 0.0)
        return place

    def test_a_picture_of_the_run_under_way_stands_in_for_the_panel(self, place):
        live = Live(make_run(pause=0.01), 20_000)
        until(lambda: any("running at step" in shown.alt for shown in place.shown))
        assert "running" in place.shown[0].alt
        live.stop()

    def test_where_a_page_has_answered_the_panel_stays_until_the_end(self, place):
        live = Live(make_run(pause=0.005), STEPS)
        act(live, "hello", page=1)
        live.wait()
        assert all("finished" in picture.alt for picture in place.shown[1:])
        assert live.run.attended

    def test_colab_is_asked_to_show_widgets(self, monkeypatch):
        asked = []
        colab = SimpleNamespace(
            output=SimpleNamespace(enable_custom_widget_manager=lambda: asked.append(True))
        )
        monkeypatch.setitem(sys.modules, "google.colab", colab)
        monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace())
        monkeypatch.setattr("IPython.display.display", lambda *a, **k: Place())
        live_module._show(None)
        assert asked == [True]


class TestEarlierRuns:
    def test_the_one_before_is_drawn_behind_where_it_trained_the_same(self):
        Live(make_run(), STEPS).wait()
        curves = Live(make_run(), STEPS).panel.widget.setup["earlier"]
        assert len(curves[-1]["step"]) == STEPS
        assert Live(make_run(lambda m, b: squares(m, b)), 2).panel.widget.setup["earlier"] == []


class TestPicture:
    def test_a_family_has_a_table_below_it_and_every_timeline_in_its_words(self):
        run = make_run()
        run.enable()
        for record in run.train(STEPS):
            if record.step == 30 and run.family.current == "main":
                run.branch("gentle")
        image = picture(run, STEPS)
        assert "<td>main, step 31</td>" in image.below and "Timeline main" in image.alt

    def test_its_words_say_step_loss_rate_and_scores(self):
        run = make_run()
        for _ in run.train(STEPS):
            pass
        words = describe(run, STEPS)
        assert f"step {STEPS} of {STEPS}" in words and "held-out accuracy 0.250" in words
        assert "rate by schedule, 1.00e-03 at the end" in words

    def test_a_band_is_drawn_behind_the_curve_it_names(self):
        run = make_run()
        for _ in run.train(STEPS):
            pass
        bands = [None, ([0, 60], [0, 0], [1, 1]), Band([0, 60], [0, 0], [1, 1], of="accuracy")]
        assert len({picture(run, STEPS, band=band).content for band in bands}) == 3

    def test_a_run_without_a_step_has_one_too(self):
        assert "before the first step" in picture(make_run(), STEPS, phase="stopped").alt

    def test_smoothing_starts_at_the_first_value_and_passes_over_what_is_not_finite(self):
        assert smooth([4.0, float("nan"), float("inf"), 4.0]) == pytest.approx([4.0] * 4)

    def test_the_plan_reaches_from_the_first_step_to_the_last(self):
        plan = planned(make_run(), STEPS)
        assert plan[0][0] == 0 and plan[-1] == (STEPS - 1, pytest.approx(1e-3))

    @given(st.floats(1e-6, 10))
    def test_the_slider_reaches_from_a_hundredth_to_thirty_times_the_peak(self, peak):
        low, high = slider_range([peak])
        assert 10**low <= peak / 100 and 10**high >= 30 * peak


CELLS = (
    "import sys\nsys.path.insert(0, {tests!r})\nfrom test_live import STEPS, make_run\n"
    "from mslearn.live import Live",
    "live = Live(make_run(), STEPS)",
    "run = live.wait()",
    "print([record.loss.hex() for record in run.log])",
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The two cells of a live run, run without a page, and the notebook saved."""
    path = tmp_path_factory.mktemp("headless") / "live.ipynb"
    write_notebook(path, (CELLS[0].format(tests=str(ROOT / "tests")), *CELLS[1:]))
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata["tags"] = ["nbval-ignore-output"]
    NotebookClient(notebook, timeout=300, store_widget_state=False).execute()
    nbformat.write(notebook, path)
    return path


class TestWithoutAPage:
    def test_the_losses_are_those_of_the_plain_loop(self, executed):
        printed = nbformat.read(executed, 4).cells[3].outputs[0].text
        losses = [record.loss.hex() for record in make_run().train(STEPS)]
        assert printed.strip() == str(losses)

    def test_the_saved_cell_holds_one_picture_with_its_words_and_no_widget(self, executed):
        (output,) = nbformat.read(executed, 4).cells[1].outputs
        assert set(output.data) == {"text/html", "text/plain"}
        assert re.search(
            r'<img src="data:image/png;base64,\S+".* alt="Training, finished',
            output.data["text/html"],
        )

    def test_nbval_repeats_it(self, executed):
        command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
        config = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "--confcutdir", ROOT]
        done = subprocess.run(
            [*command, *config, executed], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
