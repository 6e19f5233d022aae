"""A learner's check in a real JupyterLab: the answer typed, the reason and the hint read."""

import json
import time
from pathlib import Path

import pytest

from mslearn import exercises
from mslearn.browser import Notebook, chromium, jupyterlab, window
from mslearn.hostile import handed_in

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium on PATH"),
]
SHOTS = Path(__file__).resolve().parent.parent / "artifacts"
SETUP, ANSWER, CHECK = 0, 3, 4  # the code cells of exercise 2, as they stand on the page
NEARLY = "def log_softmax(z):\n    return z - z.exp().sum(-1, keepdim=True).log()"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    own = exercises.load_set(exercises.paths("03")[0])
    (folder / "03.ipynb").write_text(json.dumps(handed_in(own, {})), "utf-8")
    with jupyterlab(folder) as lab, window() as page:
        opened = Notebook(page, lab, "03.ipynb")
        opened.open()
        opened.run(SETUP)
        yield opened
        opened.shut_down()


def answer(notebook: Notebook, text: str) -> None:
    """Type an answer in place of what the cell holds, and run it."""
    notebook.cells.nth(ANSWER).locator(".cm-content").click()
    notebook.page.keyboard.press("Control+A")
    notebook.page.keyboard.insert_text(text)
    notebook.run(ANSWER)


def check(notebook: Notebook) -> str:
    """Run the check and read what is under it; the seconds are kept beside the pictures."""
    start = time.perf_counter()
    notebook.run(CHECK)
    said = notebook.output(CHECK)
    SHOTS.mkdir(exist_ok=True)
    seconds = round(time.perf_counter() - start, 3)
    (SHOTS / "check.json").write_text(json.dumps({"seconds_from_key_to_words": seconds}))
    return said


def test_an_answer_goes_from_to_do_over_a_hint_to_full_marks(notebook):
    notebook.run(ANSWER)
    assert "to do (0 of 5)" in check(notebook)
    answer(notebook, NEARLY)
    said = check(notebook)
    assert "Great logits: no, exp overflows" in said and "2 of 5 marks" in said
    assert "Hint 1 of 3: Which number, taken from every logit" in said
    notebook.page.screenshot(path=SHOTS / "check.png")
    answer(notebook, NEARLY.replace("z - z.exp", "z.log_softmax(-1) + 0 * z.exp"))
    assert "Hint 2 of 3" in check(notebook)
    answer(notebook, "def log_softmax(z):\n    return z.log_softmax(-1)")
    assert "5 of 5 marks" in check(notebook)
