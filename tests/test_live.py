"""A run with a hand on its rate: the same numbers as without, and every act takes effect."""

import re
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path

import nbformat
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient

from mslearn.bench_live import write_notebook
from mslearn.device import Device
from mslearn.live import Live
from mslearn.panel import Panel, slider_range
from mslearn.picture import Band, describe, picture, planned, smooth
from mslearn.run import Controls, Run
from mslearn.schedules import warmup_cosine

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
        act(slow, "rate", value=0.5)
        until(lambda: slow.run.events)
        step = slow.run.events[0].step
        act(slow, "rate", value=None)
        until(lambda: len(slow.run.events) == 2 and slow.run.log[-1].step > slow.run.events[1].step)
        back = slow.run.events[1].step
        rates = [record.lr for record in slow.run.log]
        assert set(rates[step:back]) == {0.5}
        assert rates[step - 1] == slow.run.schedule(step - 1)
        assert rates[back] == slow.run.schedule(back)

    def test_pause_holds_the_run_and_resume_lets_it_go_on(self, slow):
        act(slow, "pause", value=True)
        until(lambda: slow.run.events)
        held = slow.run.step
        time.sleep(0.1)
        assert slow.run.step == held and slow.phase == "paused"
        act(slow, "pause", value=False)
        until(lambda: slow.run.step > held)
        assert slow.phase == "running"

    def test_stop_ends_it_early_and_wait_gives_back_the_run(self, slow):
        act(slow, "stop")
        run = slow.wait()
        assert run is slow.run and slow.phase == "stopped" and run.step < 20_000
        assert "stopped" in slow.picture.alt

    def test_stop_ends_a_paused_run_too(self, slow):
        act(slow, "pause", value=True)
        act(slow, "stop")
        assert slow.wait() is slow.run

    def test_an_act_after_the_end_is_no_fault(self):
        live = Live(make_run(), 2)
        live.wait()
        act(live, "pause", value=True)
        assert live.phase == "finished"


@pytest.fixture(scope="module")
def panel():
    return Panel(make_run(), STEPS, "Training", None)


NOT_RATES = st.one_of(
    st.booleans(), st.text(), st.floats(max_value=0), st.sampled_from([float("inf"), float("nan")])
)
NONSENSE = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"kind": st.text().filter(lambda kind: kind != "stop")}),
    st.fixed_dictionaries({"kind": st.just("rate"), "value": NOT_RATES}),
    st.fixed_dictionaries({"kind": st.just("pause"), "value": st.integers() | st.text()}),
)


@given(NONSENSE)
def test_a_message_that_makes_no_sense_changes_nothing(panel, message):
    panel.receive(None, message)
    assert panel.run.controls == Controls()


class TestFaults:
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
            panel.widget, "send", lambda content, buffers: messages.append((content, buffers))
        )
        for _ in run.train(40):
            pass
        return panel, messages

    def test_a_point_takes_twelve_bytes_and_goes_once(self, sent):
        panel, messages = sent
        panel.flush("running")
        panel.flush("running")
        assert [len(buffers[0]) for _, buffers in messages] == [40 * 12, 0]
        assert messages[1][0]["from"] == 40

    def test_points_are_steps_losses_and_rates(self, sent):
        panel, messages = sent
        panel.flush("running")
        numbers = array("f", messages[0][1][0])
        last = panel.run.log[-1]
        assert numbers[-3:] == array("f", (last.step, last.loss, last.lr))

    def test_held_out_scores_are_numbered_by_name(self, sent):
        panel, messages = sent
        panel.flush("running")
        content, (_, held) = messages[0]
        assert content["names"] == ["loss", "accuracy"]
        assert array("f", held).tolist() == [19, 0, 1.5, 19, 1, 0.25, 39, 0, 1.5, 39, 1, 0.25]

    def test_a_page_that_says_hello_gets_everything_again(self, sent):
        panel, messages = sent
        panel.flush("running")
        panel.receive(None, {"kind": "hello", "page": 1})
        panel.flush("running")
        assert messages[0][1] == messages[1][1] and messages[1][0]["from"] == 0

    def test_the_page_learns_which_of_its_acts_have_arrived(self, sent):
        panel, messages = sent
        panel.receive(None, {"kind": "rate", "value": 0.1, "at": 7.5})
        panel.flush("running")
        assert messages[0][0]["state"]["seen"] == 7.5
        assert messages[0][0]["state"]["byHand"] == 0.1


class TestPicture:
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
