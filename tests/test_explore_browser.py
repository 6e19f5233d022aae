"""Chapter 4's sliders in a real JupyterLab in a real Chromium: a hand on them moves the picture."""

import re
from pathlib import Path

import nbformat
import pytest

from mslearn.browser import Notebook, chromium, jupyterlab, window
from mslearn.pilot import write_notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium on PATH"),
]
ROOT = Path(__file__).resolve().parent.parent
SHOTS = ROOT / "artifacts"


def cells_of_chapter_4() -> tuple[str, str]:
    """What the picture with sliders needs of the page, in one cell, and the call that shows it."""
    page = nbformat.read(ROOT / "notebooks" / "04_gradient_descent.ipynb", 4)
    code = [cell.source for cell in page.cells if cell.cell_type == "code"]
    last = next(i for i, source in enumerate(code) if source.startswith("explore("))
    first = next(i for i, source in enumerate(code) if 'data.load("wiki")' in source)
    (descend,) = (source for source in code if "def descend(" in source)
    return "\n".join([code[0], descend, *code[first:last]]), code[last]


class Valley(Notebook):
    """The small notebook, its picture and its two sliders."""

    def __init__(self, page, lab) -> None:
        write_notebook(Path(lab["root_dir"]) / "valley.ipynb", cells_of_chapter_4())
        super().__init__(page, lab, "valley.ipynb")
        self.image = self.cells.nth(1).locator(".jp-OutputArea-output img")

    def slider(self, name: str):
        """The slider whose label is `name`."""
        box = self.page.locator(".widget-hslider", has=self.page.get_by_text(name, exact=True))
        return box.locator(".noUi-target")

    def drag(self, name: str, to: float) -> None:
        """Take the handle of a slider with the mouse and let it go at a share of the way."""
        handle = self.slider(name).locator(".noUi-handle").bounding_box()
        way = self.slider(name).bounding_box()
        y = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(way["x"] + to * way["width"], y, steps=10)
        self.page.mouse.up()

    def says(self, alt: str) -> None:
        """Wait until the picture's alternative text begins like that."""
        from playwright.sync_api import expect

        expect(self.image).to_have_attribute("alt", re.compile(rf"^{re.escape(alt)}"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on an empty folder."""
    SHOTS.mkdir(exist_ok=True)
    with jupyterlab(tmp_path_factory.mktemp("lab")) as account:
        yield account


@pytest.fixture
def valley(lab):
    with window() as page:
        notebook = Valley(page, lab)
        notebook.open()
        notebook.run(0)
        notebook.run(1)
        notebook.says("A path of 60 steps at the rate 0.6/L with batches of 4.")
        yield notebook
        notebook.shut_down()


def test_a_dragged_slider_moves_the_picture_and_the_last_one_is_saved(valley):
    first = valley.image.get_attribute("src")
    valley.drag("rate", to=1.0)
    valley.says("A path of 60 steps at the rate 2.1/L with batches of 4. It has left")
    assert valley.image.count() == 1 and valley.image.get_attribute("src") != first
    assert valley.image.evaluate("image => image.naturalWidth") > 500
    valley.page.screenshot(path=SHOTS / "explored.png")

    valley.save()
    saved = nbformat.read(Path(valley.lab["root_dir"]) / valley.path, 4)
    assert "at the rate 2.1/L" in saved.cells[1].outputs[0].data["text/html"]
    valley.shut_down()
    valley.open("auto-later", kernel=False)
    valley.says("A path of 60 steps at the rate 2.1/L with batches of 4.")


def test_the_arrow_keys_move_a_slider_and_leave_the_other(valley):
    handle = valley.slider("batch").locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    valley.says("A path of 60 steps at the rate 0.6/L with batches of 16.")
    handle.press("ArrowLeft")
    handle.press("ArrowLeft")
    valley.says("A path of 60 steps at the rate 0.6/L with batches of 1.")
