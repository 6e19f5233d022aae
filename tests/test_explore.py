"""A picture with sliders: drawn anew at a slider's move, refused where a default is no choice."""

import base64
import re
from typing import Any

import IPython.display
import nbformat
import pytest

from mslearn import build, plot
from mslearn.explore import explore

CELLS = (
    "from mslearn import plot\nfrom mslearn.explore import explore",
    "def draw(rate=0.5):\n    figure, axes = plot.figure(height=2)\n    axes.plot([0, rate])\n"
    '    return figure, f"A line up to {rate}"',
    "explore(draw, rate=[0.1, 0.5, 2.0])",
)


def draw(rate: float = 0.5, batch: int = 4) -> tuple:
    """A figure of nothing, whose alt text says what it was asked for."""
    draw.calls.append((rate, batch))
    figure, _ = plot.figure(height=2)
    return figure, f"rate {rate}, batch {batch}"


class Place:
    """Where a picture is shown, and every picture that took its place."""

    def __init__(self, picture: plot.Picture) -> None:
        self.alts = [picture.alt]

    def update(self, picture: plot.Picture) -> None:
        self.alts.append(picture.alt)


@pytest.fixture
def shown(monkeypatch) -> list[Any]:
    """What is displayed, in order; a picture stands in a `Place`."""
    found: list[Any] = []

    def display(thing: Any, display_id: bool = False) -> Place | None:
        found.append(Place(thing) if display_id else thing)
        return found[-1] if display_id else None

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(draw, "calls", [], raising=False)
    return found


def sliders(shown: list[Any]) -> dict[str, Any]:
    return {slider.description: slider for slider in shown[1].children}


def test_the_picture_stands_above_one_slider_for_each_argument_at_its_default(shown):
    explore(draw, rate=[0.1, 0.5, 2.0], batch=[1, 4])
    assert shown[0].alts == ["rate 0.5, batch 4"] and draw.calls == [(0.5, 4)]
    assert {name: each.value for name, each in sliders(shown).items()} == {"rate": 0.5, "batch": 4}
    assert sliders(shown)["rate"].options == (0.1, 0.5, 2.0)


def test_a_move_draws_anew_in_the_same_place_and_keeps_the_other_sliders(shown):
    explore(draw, rate=[0.1, 0.5, 2.0], batch=[1, 4])
    sliders(shown)["rate"].value = 2.0
    sliders(shown)["batch"].value = 1
    assert shown[0].alts[1:] == ["rate 2.0, batch 4", "rate 2.0, batch 1"]
    assert len(shown) == 2


def test_a_slider_set_to_where_it_is_draws_nothing(shown):
    explore(draw, rate=[0.1, 0.5], batch=[1, 4])
    sliders(shown)["rate"].value = 0.5
    assert draw.calls == [(0.5, 4)]


def test_an_argument_without_a_slider_stays_at_its_default(shown):
    explore(draw, rate=[0.5, 2.0])
    sliders(shown)["rate"].value = 2.0
    assert shown[0].alts == ["rate 0.5, batch 4", "rate 2.0, batch 4"]


def no_default(rate: float) -> tuple:
    return draw(rate)


@pytest.mark.parametrize(
    ("function", "choices", "said"),
    [
        (draw, {"rate": [1, 2]}, r"draw has the default 0\.5 for the slider rate=\[1, 2\]: give"),
        (draw, {"speed": [0.5]}, r"draw has no argument for the slider speed=\[0\.5\]: give"),
        (no_default, {"rate": [1, 2]}, r"no_default has no default for the slider rate"),
    ],
)
def test_a_start_that_is_no_choice_is_refused_before_anything_is_drawn(
    shown, function, choices, said
):
    with pytest.raises(ValueError, match=said):
        explore(function, **choices)
    assert shown == [] and draw.calls == []


def test_a_picture_without_words_is_refused(shown):
    with pytest.raises(ValueError, match="a figure needs alt text"):
        explore(lambda rate=1: (plot.figure()[0], " "), rate=[1])


def test_the_stored_notebook_keeps_the_picture_and_not_the_sliders(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    build.execute(notebook, tmp_path / "page.ipynb")
    build.normalise(notebook, "page")
    (output,) = notebook.cells[-1].outputs
    assert output.data["text/plain"] == "A line up to 0.5" and "widgets" not in notebook.metadata
    (image,) = re.findall(r"base64,([^\"]+)", output.data["text/html"])
    assert base64.b64decode(image).startswith(b"\x89PNG")
