"""The cockpit in a real Jupyter in a real Chromium, and the faults that it has to survive.

One JupyterLab serves them all. The tests of a class share a notebook and its run, and go one after
the other; screenshots of what they see are left in artifacts/.
"""

import json
import re
from pathlib import Path

import nbformat
import pytest

from mslearn.browser import chromium, jupyterlab, window
from mslearn.pilot import Pilot, drag, move, rate_pattern

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium on PATH"),
]
SHOTS = Path(__file__).resolve().parent.parent / "artifacts"
MOVES = 10
IMPORTS = "from mslearn.live_cost import small_run\nfrom mslearn.live import Live"
EVENTS = (
    "import json\nprint(json.dumps([[e.step, e.name, e.value, e.at] for e in live.run.events]))"
)
CELLS = (
    f"{IMPORTS}\nrun = small_run(20_000)",
    "live = Live(run, 20_000)",
    "run = live.wait()",
    EVENTS,
)
WRITES = "live = Live(run, 20_000, sample=lambda model: 'It was the best', sample_every=20)"
AS_BEFORE = """yes =>
  yes === (document.querySelector("canvas[data-points]").toDataURL() === window.before)"""
BRIGHT = """yes => {
  const ink = getComputedStyle(document.querySelector("canvas[data-points]")).color;
  return yes === ink.match(/[\\d.]+/g).slice(0, 3).every(part => Number(part) > 180);
}"""
DARK = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on an empty folder."""
    SHOTS.mkdir(exist_ok=True)
    with jupyterlab(tmp_path_factory.mktemp("lab")) as account:
        yield account


@pytest.fixture(scope="module")
def browser():
    """One page for all; a second tab is opened where it is needed."""
    with window(height=1250) as page:
        yield page


@pytest.fixture(scope="class")
def flight(browser, lab, request):
    """A notebook with a run of twenty thousand steps under way, `wait()` holding its kernel."""
    cells = getattr(request.cls, "cells", CELLS)
    pilot = Pilot(browser, lab, f"{request.cls.__name__}.ipynb", cells).start()
    yield pilot
    pilot.shut_down()


def stop(pilot: Pilot) -> list[list]:
    """Press stop; gives the run's events as [step, name, value, time]."""
    pilot.button("Stop").click()
    pilot.picture.wait_for()
    return events(pilot)


def events(pilot: Pilot) -> list[list]:
    """The run's events, read in the last cell once `wait()` is over."""
    pilot.run(3)
    return json.loads(pilot.output(3))


def numbers(pilot: Pilot, timeline: str) -> list[str]:
    """The row of a timeline in the table: from, step, rate, loss, what was held out."""
    row = pilot.table.get_by_role("rowheader", name=timeline, exact=True).locator("..")
    return row.get_by_role("cell").all_inner_texts()


class TestControls:
    cells = (CELLS[0], WRITES, *CELLS[2:])

    def test_the_slider_follows_the_schedule_without_feeding_back(self, flight):
        flight.reach(40)
        shown = float(flight.slider.input_value())
        assert 10**shown == pytest.approx(0.02, rel=0.07)  # a twentieth of a decade at most away
        assert flight.slider.get_attribute("aria-valuetext") == "2.00e-2, by schedule"

    def test_a_typed_rate_and_the_keyboard_reach_the_optimiser(self, flight):
        flight.type_rate(0.0123)
        flight.slider.focus()
        before = float(flight.slider.input_value())
        flight.page.keyboard.press("ArrowRight")
        after = float(flight.slider.input_value())
        assert after == pytest.approx(before + 0.05)
        flight.chart_says(rate_pattern(float(f"{10**after:.3g}")))

    def test_a_multiple_of_the_schedule_is_in_use_and_drawn_ahead(self, flight):
        flight.follow()
        flight.mode.select_option("factor")
        flight.typed.fill("0.5")
        flight.typed.press("Enter")
        flight.chart_says(rate_pattern(0.01))
        assert flight.slider.get_attribute("aria-valuetext") == "0.500 times the schedule, by hand"
        flight.page.screenshot(path=SHOTS / "multiple.png")
        flight.follow()
        flight.mode.select_option("absolute")
        flight.chart_says(rate_pattern(0.02))

    def test_one_rate_for_each_group_of_parameters(self, flight):
        flight.page.get_by_text("Rates of the parameter groups").click()
        shares = flight.page.get_by_role(
            "textbox", name=re.compile("^Share of the rate, .*, typed$")
        )
        assert shares.count() == 2
        flight.page.get_by_text("the rest", exact=True).wait_for()  # a group goes by its name
        flight.button("Pause").click()
        flight.says("^paused")
        shares.nth(1).fill("0")
        shares.nth(1).press("Enter")
        flight.page.screenshot(path=SHOTS / "groups.png")
        held = flight.step
        flight.button("One step").click()
        flight.reach(held + 1)  # with it, for of two changes in one step only the last counts
        flight.button("As planned").click()
        flight.button("Resume").click()
        flight.page.get_by_text("Rates of the parameter groups").click()

    def test_nonsense_in_the_field_is_refused_in_words(self, flight):
        flight.typed.fill("fast")
        flight.typed.press("Enter")
        flight.says("a rate is a positive number")
        assert flight.typed.get_attribute("aria-invalid") == "true"
        flight.type_rate(0.02)
        flight.follow()

    def test_pause_holds_the_chart_one_step_is_one_and_resume_lets_it_go_on(self, flight):
        flight.button("Pause").click()
        flight.says("^paused")  # no step is under way, and the chart has the newest
        held = flight.step
        flight.button("One step").click()
        flight.reach(held + 1)
        flight.page.wait_for_timeout(1_200)  # in which no other step follows
        assert flight.step == held + 1
        flight.button("Resume").click()
        flight.reach(held + 5)

    def test_a_note_is_pinned_to_the_curve(self, flight):
        flight.page.get_by_role("textbox", name="Note pinned to the next step").fill("half as fast")
        flight.button("Pin note").click()
        flight.page.get_by_role("list", name="Notes on the curve").get_by_text(
            "half as fast"
        ).wait_for()

    def test_the_keys_work_when_the_panel_has_the_focus(self, flight):
        flight.button("One step").focus()
        flight.page.keyboard.press("p")
        flight.says("^paused")
        flight.page.keyboard.press("p")
        flight.says("^running")

    def test_everything_that_can_be_done_has_a_name_for_a_screen_reader(self, flight):
        unnamed = flight.page.locator(
            ".mslearn-panel :is(button, input, select, canvas)"
        ).evaluate_all(
            "all => all.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim()))"
            ".map(e => e.outerHTML)"
        )
        assert unnamed == []
        assert re.match(
            r"Training: step \d+ of 20000, loss ", flight.chart.get_attribute("aria-label")
        )

    def test_the_arrows_read_the_chart_aloud(self, flight):
        flight.chart.focus()
        flight.page.keyboard.press("ArrowLeft")
        flight.page.get_by_text(re.compile(r"^step \d+: loss \d")).wait_for(state="attached")

    def test_gradient_layers_and_logarithmic_axes_are_a_click_away(self, flight):
        before = flight.chart.bounding_box()["height"]
        for view in ("Gradient", "Layers", "Log loss", "Log steps"):
            flight.button(view).click()
        flight.button("Pause").click()
        flight.says("^paused")
        box = flight.chart.bounding_box()
        assert box["height"] > before + 200
        flight.chart.evaluate("canvas => { window.before = canvas.toDataURL(); }")
        flight.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60)
        flight.page.wait_for_function(AS_BEFORE, arg=False)  # the values under the mouse
        flight.page.screenshot(path=SHOTS / "layers.png")
        flight.page.mouse.move(5, 5)
        flight.page.wait_for_function(AS_BEFORE, arg=True)
        flight.button("Resume").click()
        for view in ("Gradient", "Layers", "Log loss", "Log steps"):
            flight.button(view).click()

    def test_the_model_writes_as_training_goes(self, flight):
        written = flight.page.get_by_role("region", name="Text the model writes")
        written.get_by_text("It was the best").first.wait_for()

    def test_dark_pages_have_a_light_ink(self, flight):
        for theme, dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
            flight.page.evaluate(DARK, theme)
            flight.page.wait_for_function(BRIGHT, arg=dark)
            flight.page.screenshot(path=SHOTS / f"{'dark' if dark else 'light'}.png")

    def test_each_move_of_the_mouse_is_one_event_in_use_before_the_next(self, flight):
        released, chosen = move(flight, MOVES)
        done = stop(flight)
        shares = [event[2] for event in done if event[1] == "ratios"]
        assert shares == [[1.0, 0.0], None]  # what the groups were given, and taken back
        assert {"factor", "note", "paused", "single"} <= {event[1] for event in done}
        found = [event for event in done if event[1] == "lr"][-MOVES:]
        assert [value for _, _, value, _ in found] == chosen
        for let_go, (_, _, _, used), next_go in zip(
            released, found, [*released[1:], 9e9], strict=True
        ):
            assert let_go - 0.01 < used < next_go


class TestTheDrivenRun:
    """Into divergence, caught by the guard, back in time, branched, and better at the end."""

    def test_the_slider_goes_too_far_and_the_guard_stops_the_run(self, flight):
        flight.reach(60)
        flight.page.screenshot(path=SHOTS / "1-steady.png")
        drag(flight.page, 1.0)
        flight.page.wait_for_timeout(300)
        flight.page.screenshot(path=SHOTS / "2-too-fast.png")
        flight.button("Accept").wait_for()
        flight.says("^paused")
        flight.page.screenshot(path=SHOTS / "3-guard.png")

    def test_it_says_why_in_a_sentence_and_its_proposal_is_taken(self, flight):
        why = flight.page.get_by_role("alert").inner_text()
        assert "a third of the rate" in why and "step" in why
        flight.button("Accept").click()
        flight.says("^running")
        flight.page.get_by_role("alert").wait_for(state="hidden")

    def test_the_time_line_is_dragged_back_and_the_run_rewinds(self, flight):
        flight.reach(flight.step + 20)
        flight.button("Pause").click()
        flight.says("^paused")  # nothing moves under the mouse, and the run cannot catch up
        step = flight.step
        drag(flight.page, 0.2, "Time line")
        flight.button("Rewind to step").wait_for()
        flight.page.screenshot(path=SHOTS / "4-time-line.png")
        flight.button("Rewind to step").click()
        flight.page.wait_for_function(
            "n => Number(document.querySelector('canvas[data-points]').dataset.step) < n", arg=step
        )
        flight.button("Resume").click()

    def test_a_branch_from_before_goes_on_gently_beside_it(self, flight):
        flight.reach(80)
        flight.time.focus()
        for _ in range(4):
            flight.page.keyboard.press("ArrowLeft")
        flight.page.get_by_role("textbox", name="Name of the branch").fill("gentle")
        flight.button("Branch from step").click()
        flight.table.get_by_role("rowheader", name="gentle").wait_for()
        drag(flight.page, 0.55)
        flight.chart_says(rate_pattern(5.62e-3))
        flight.reach(int(numbers(flight, "main")[1]) + 150)  # well past where the other was left
        flight.page.screenshot(path=SHOTS / "5-branch.png")

    def test_the_branch_ends_better_and_the_other_is_dropped(self, flight):
        losses = {name: float(numbers(flight, name)[3]) for name in ("main", "gentle")}
        assert losses["gentle"] < losses["main"]
        flight.page.get_by_role("button", name="Drop main").click()
        flight.table.wait_for(state="hidden")
        found = [event[1] for event in stop(flight)]
        for name in ("lr", "guard", "answer", "rewind", "branch", "drop"):
            assert name in found
        flight.page.screenshot(path=SHOTS / "6-picture.png")


class TestFaults:
    def test_a_thousand_moves_in_a_second(self, flight):
        flight.slider.evaluate(
            """async slider => {
              for (let move = 0; move < 1000; move++) {
                slider.value = -3 + move / 1000;
                slider.dispatchEvent(new Event("input"));
                slider.dispatchEvent(new Event("change"));
                if (move % 50 === 49) await new Promise(done => setTimeout(done, 50));
              }
            }"""
        )
        last = float(flight.typed.input_value())
        flight.chart_says(rate_pattern(last))
        flight.follow()
        flight.chart_says(rate_pattern(0.02))

    def test_an_interrupt_ends_the_run_and_leaves_its_picture(self, flight):
        flight.interrupt(2)
        assert "KeyboardInterrupt" in flight.output(2)
        flight.page.locator(".mslearn-panel").wait_for(state="detached")

    def test_running_the_cell_again_during_a_run_replaces_it(self, flight):
        flight.run(0)
        flight.run(1)
        flight.more_points(5)
        flight.run(1)  # the run goes on where it was
        flight.more_points(10)
        assert flight.chart.count() == 1

    def test_a_second_run_in_the_same_kernel_has_the_first_behind_it(self, flight):
        flight.run(0)
        flight.run(1)
        flight.more_points(5)
        assert flight.chart.count() == 1
        flight.button("Earlier runs").wait_for()

    def test_a_control_after_the_end_changes_nothing(self, flight):
        flight.page.evaluate("window.late = document.querySelector('.mslearn-panel')")
        flight.button("Stop").click()
        flight.picture.wait_for()
        flight.page.evaluate("for (const b of window.late.querySelectorAll('button')) b.click()")
        names = [event[1] for event in events(flight)]
        assert names[-1] == "stopped"

    def test_a_page_reloaded_during_the_run_has_the_whole_chart_and_its_controls_back(self, flight):
        flight.run(0)
        flight.run(1)
        flight.run(2, wait=False)  # wait() keeps the kernel busy meanwhile
        flight.more_points(5)
        drag(flight.page, 0.3)
        flight.chart_says(rate_pattern(3.16e-4))
        flight.save()
        before = flight.points
        flight.page.reload()
        flight.ready()
        flight.more_points(before)
        flight.chart_says(rate_pattern(3.16e-4))  # still held by hand
        flight.follow()
        flight.chart_says(rate_pattern(0.02))

    def test_two_tabs_show_the_same_and_either_may_drive(self, flight):
        flight.save()  # what the other tab opens is the file
        other = flight.page.context.new_page()
        other.set_default_timeout(60_000)
        try:
            other.goto(flight.page.url.replace("auto-course", "auto-second"))
            theirs = other.get_by_role("slider", name="Learning rate", exact=True)
            theirs.wait_for()
            drag(other, 0.4)
            flight.chart_says(rate_pattern(1e-3))
            assert float(flight.typed.input_value()) == 1e-3
        finally:
            other.close()

    def test_the_notebook_saved_closed_and_opened_without_a_kernel_shows_the_picture(self, flight):
        flight.button("Stop").click()
        flight.run(0)
        flight.run(1)
        flight.more_points(5)
        flight.button("Stop").click()
        flight.picture.wait_for()
        flight.save()
        saved = nbformat.read(Path(flight.lab["root_dir"]) / flight.path, 4)
        (output,) = saved.cells[1].outputs
        assert set(output.data) == {"text/html", "text/plain"} and "widgets" not in saved.metadata
        flight.shut_down()
        flight.open("auto-later", kernel=False)
        flight.picture.wait_for()
        assert flight.picture.get_attribute("alt").startswith("Training, stopped at step")
        assert flight.picture.evaluate("image => image.naturalWidth") > 500
        flight.page.screenshot(path=SHOTS / "reopened.png")


LOSS = "def loss(model, batch):\n    raise ValueError('no such loss')\nrun.loss = loss"


@pytest.fixture(scope="class")
def pilot(browser, lab):
    """A notebook whose loss raises, and a cell with a run that is sound."""
    cells = (
        f"{CELLS[0]}\n{LOSS}",
        *CELLS[1:3],
        "run = small_run(20_000)\nlive = Live(run, 20_000)",
    )
    pilot = Pilot(browser, lab, "endings.ipynb", cells)
    pilot.open("auto-endings")
    yield pilot
    pilot.shut_down()


class TestEndings:
    """One kernel, which does not live to see the end."""

    def test_an_error_in_the_loss_is_shown_and_raised_by_wait(self, pilot):
        for cell in range(3):
            pilot.run(cell)
        assert "ValueError: no such loss" in pilot.output(2)
        assert "failed" in pilot.picture.get_attribute("alt")

    def test_a_kernel_that_is_restarted_leaves_a_panel_that_says_so(self, pilot):
        pilot.run(3)
        pilot.more_points(3)
        pilot.restart()
        pilot.says("the kernel has gone")
        assert pilot.slider.is_disabled()


def test_a_prediction_is_drawn_before_the_run_and_lies_on_its_chart(browser, lab):
    guess = "from mslearn.guess import Guess\nguess = Guess(run, 300)"
    cells = (
        f"{IMPORTS}\nrun = small_run(300)\n{guess}",
        "live = Live(run, 300, guess=guess)",
        "run = live.wait()",
        "print(guess.points)",
    )
    pilot = Pilot(browser, lab, "guess.ipynb", cells)
    pilot.open("auto-guess")
    pilot.run(0)
    pilot.chart_says("nothing is predicted yet")  # it has been drawn
    box = pilot.chart.bounding_box()
    for share, height in ((0.09, 40), (0.3, 120), (0.6, 160), (0.97, 170)):
        pilot.page.mouse.move(box["x"] + share * box["width"], box["y"] + height)
        pilot.page.mouse.down()
    pilot.page.mouse.up()
    pilot.page.screenshot(path=SHOTS / "prediction.png")
    pilot.run(1)
    pilot.more_points(20)
    pilot.page.screenshot(path=SHOTS / "predicted.png")
    pilot.run(2)
    pilot.run(3)
    assert "Predicted was" in pilot.picture.get_attribute("alt")
    assert len(json.loads(pilot.output(3))) >= 4
    pilot.page.screenshot(path=SHOTS / "beside.png")
    pilot.shut_down()


def test_notebook_7_has_the_same_cockpit(browser, tmp_path):
    pytest.importorskip("notebook")
    with jupyterlab(tmp_path, app="notebook") as server:
        pilot = Pilot(browser, server, "seven.ipynb", CELLS).start()
        pilot.type_rate(0.0123)
        pilot.page.screenshot(path=SHOTS / "notebook-7.png")
        found = [event[1:3] for event in stop(pilot)]
        assert ["lr", 0.0123] in found
        pilot.shut_down()
