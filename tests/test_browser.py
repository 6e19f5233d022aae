"""The course in a real JupyterLab in a real Chromium: a hand on the rate while it trains."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from mslearn.bench_live import CELLS, MOVES, drag, move_in_browser, write_notebook
from mslearn.browser import Notebook, chromium, jupyterlab, window

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium on PATH"),
]
SHOTS = Path(__file__).resolve().parent.parent / "artifacts"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on an empty folder."""
    SHOTS.mkdir(exist_ok=True)
    with jupyterlab(tmp_path_factory.mktemp("lab")) as account:
        yield account


@pytest.fixture
def page():
    with window() as page:
        yield page


class Cockpit(Notebook):
    """A notebook with a live run in it, and names for what is on its panel."""

    def __init__(self, page, lab, path, cells=CELLS[:4]) -> None:
        write_notebook(Path(lab["root_dir"]) / path, cells)
        super().__init__(page, lab, path)
        self.slider = page.get_by_role("slider", name="Learning rate", exact=True)
        self.typed = page.get_by_role("textbox", name="Learning rate, typed")
        self.chart = page.get_by_role("img", name=re.compile(r"^Training: step \d+"))
        self.picture = self.cells.nth(1).locator(".jp-OutputArea-output img")

    def start(self) -> "Cockpit":
        """Run all cells up to `wait()`, which keeps the kernel busy, and see the first points."""
        self.open()
        self.run(0)
        self.run(1)
        self.run(2, wait=False)
        self.more_points(5)
        return self

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def points(self) -> int:
        return int(self.chart.get_attribute("data-points"))

    def more_points(self, than: int) -> None:
        """Wait until the chart shows more points than that."""
        seen = "n => Number(document.querySelector('canvas[data-points]')?.dataset.points) > n"
        self.page.wait_for_function(seen, arg=than)

    def chart_says(self, pattern: str) -> None:
        from playwright.sync_api import expect

        expect(self.chart).to_have_attribute("aria-label", re.compile(pattern), timeout=60_000)

    def stop(self) -> list[list]:
        """Press stop; gives the run's events as [step, name, value, time]."""
        self.button("Stop").click()
        self.picture.wait_for()
        self.run(3)
        return json.loads(self.output(3))


@pytest.fixture
def cockpit(page, lab, request):
    name = re.sub(r"\W", "_", request.node.name)
    notebook = Cockpit(page, lab, f"{name}.ipynb").start()
    yield notebook
    notebook.shut_down()


def test_the_rate_in_use_follows_the_mouse_during_training(cockpit):
    released, chosen = move_in_browser(cockpit.page)
    cockpit.page.screenshot(path=SHOTS / "driving.png")
    events = [event for event in cockpit.stop() if event[1] == "lr"]
    assert [value for _, _, value, _ in events] == chosen
    assert len(events) == MOVES == len(released)
    for let_go, (_, _, _, used), next_go in zip(
        released, events, [*released[1:], 9e9], strict=True
    ):
        assert let_go - 0.01 < used < next_go  # in use before the next move
    cockpit.page.screenshot(path=SHOTS / "stopped.png")


def test_a_typed_rate_and_the_keyboard_reach_the_optimiser(cockpit):
    cockpit.typed.fill("0.0123")
    cockpit.typed.press("Enter")
    cockpit.chart_says(r"rate 1\.23e-2$")
    cockpit.slider.focus()
    before = float(cockpit.slider.input_value())
    cockpit.page.keyboard.press("ArrowRight")
    after = float(cockpit.slider.input_value())
    assert after == pytest.approx(before + 0.05)
    cockpit.button("Follow schedule").click()
    cockpit.chart_says(r"rate 2\.00e-2$")
    events = cockpit.stop()
    assert [value for _, name, value, _ in events if name == "lr"] == [
        0.0123,
        float(f"{10**after:.3g}"),
        None,
    ]


def test_the_slider_follows_the_schedule_without_feeding_back(cockpit):
    cockpit.more_points(30)
    shown = float(cockpit.slider.input_value())
    assert 10**shown == pytest.approx(0.02, rel=0.07)  # a twentieth of a decade at most away
    assert [event[1] for event in cockpit.stop()] == ["stopped"]


def test_nonsense_in_the_field_is_refused_in_words(cockpit):
    cockpit.typed.fill("fast")
    cockpit.typed.press("Enter")
    cockpit.page.get_by_text("a rate is a positive number").wait_for()
    assert cockpit.typed.get_attribute("aria-invalid") == "true"
    assert [event[1] for event in cockpit.stop()] == ["stopped"]


def test_pause_holds_the_chart_and_resume_lets_it_go_on(cockpit):
    cockpit.button("Pause").click()
    cockpit.page.get_by_role("status").get_by_text("paused").wait_for()
    cockpit.page.wait_for_timeout(1_000)
    held = cockpit.points
    cockpit.page.wait_for_timeout(1_000)
    assert cockpit.points == held
    cockpit.page.screenshot(path=SHOTS / "paused.png")
    cockpit.button("Resume").click()
    cockpit.more_points(held)
    assert [event[1:3] for event in cockpit.stop()][:2] == [["paused", True], ["paused", False]]


def test_a_reloaded_page_has_the_whole_chart_and_its_controls_back(cockpit):
    drag(cockpit.page, 0.3)
    cockpit.chart_says(r"rate 3\.16e-4$")
    cockpit.save()
    before = cockpit.points
    cockpit.page.reload()
    cockpit.ready()
    cockpit.more_points(before)
    cockpit.chart_says(r"rate 3\.16e-4$")  # still held by hand
    cockpit.page.screenshot(path=SHOTS / "reloaded.png")
    cockpit.button("Follow schedule").click()
    cockpit.chart_says(r"rate 2\.00e-2$")
    cockpit.button("Stop").click()
    cockpit.page.get_by_role("status").get_by_text("stopped").wait_for()
    cockpit.run(2)  # the first picture's place is lost with the old page: wait() shows it again
    alt = cockpit.cells.nth(2).locator(".jp-OutputArea-output img").get_attribute("alt")
    assert alt.startswith("Training, stopped at step")


def test_running_the_cell_again_replaces_the_run(cockpit):
    cockpit.page.evaluate(
        "() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')"
    )  # wait() holds the kernel: a person interrupts it
    cockpit.picture.wait_for()
    cockpit.run(0)
    cockpit.run(1)
    cockpit.more_points(5)
    cockpit.run(1)  # the run goes on where it was
    cockpit.more_points(10)
    assert cockpit.chart.count() == 1
    cockpit.run(2, wait=False)
    cockpit.stop()


def test_the_saved_notebook_shows_the_picture_without_a_kernel(cockpit):
    cockpit.stop()
    cockpit.save()
    saved = nbformat.read(Path(cockpit.lab["root_dir"]) / cockpit.path, 4)
    (output,) = saved.cells[1].outputs
    assert set(output.data) == {"text/html", "text/plain"} and "widgets" not in saved.metadata
    cockpit.shut_down()
    cockpit.open("auto-later", kernel=False)
    cockpit.picture.wait_for()
    assert cockpit.picture.get_attribute("alt").startswith("Training, stopped at step")
    assert cockpit.picture.evaluate("image => image.naturalWidth") > 500
    cockpit.page.screenshot(path=SHOTS / "reopened.png")


def test_an_error_in_training_is_shown_and_raised_by_wait(page, lab):
    broken = "def loss(model, batch):\n    raise ValueError('no such loss')\nrun.loss = loss"
    notebook = Cockpit(page, lab, "broken.ipynb", (f"{CELLS[0]}\n{broken}", *CELLS[1:3]))
    notebook.open()
    for cell in range(3):
        notebook.run(cell)
    assert "ValueError: no such loss" in notebook.output(2)
    notebook.shut_down()


def test_dark_pages_have_a_light_ink(lab):
    with window(dark=True) as page:
        notebook = Cockpit(page, lab, "dark.ipynb")
        notebook.open()
        command = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
        page.evaluate(command, "JupyterLab Dark")
        notebook.run(0)
        notebook.run(1)
        notebook.more_points(40)
        drag(page, 0.4)
        notebook.more_points(90)
        ink = notebook.chart.evaluate("canvas => getComputedStyle(canvas).color")
        page.screenshot(path=SHOTS / "dark.png")
        assert min(float(part) for part in re.findall(r"[\d.]+", ink)[:3]) > 180
        notebook.button("Stop").click()
        notebook.picture.wait_for()
        notebook.shut_down()
