"""One class full of cheats and faults: what was earned is marked, and nothing else happens."""

import json
import os
from pathlib import Path

import pytest

from mslearn import exercises, sandbox
from mslearn.__main__ import main
from mslearn.exercises import ExerciseSet
from mslearn.hostile import ATTACKS, handed_in, honest, hostile

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(sandbox.fault()), reason=sandbox.fault() or "there is one"),
]
SET: ExerciseSet = exercises.load_set(exercises.paths("03")[0])
FIRST = SET.exercises["03.1"]
HONEST = {"honest-0": 63, "honest-1": 0b100101, "honest-2": 0}


def altered(change) -> bytes:
    """A notebook with everything right whose list of cells was changed."""
    notebook = honest(SET, 63)[0]
    notebook["cells"] = change(notebook["cells"])
    return json.dumps(notebook).encode()


def with_output(megabytes: int) -> bytes:
    notebook = honest(SET, 63)[0]
    output = {"output_type": "stream", "name": "stdout", "text": "x" * (megabytes << 20)}
    notebook["cells"][-1]["outputs"] = [output]
    return json.dumps(notebook).encode()


FILES = {  # what is handed in, the marks it has earned, words of the remark
    "not JSON": (b"not json", 0, "it is not JSON"),
    "JSON without cells": (b'{"cells": 3}', 0, "it has no cells"),
    "deep JSON": (b"[" * 10**6, 0, "it is not JSON"),
    "cells of nonsense": (b'{"cells": [{"cell_type": "code", "source": [1, 2]}, 3]}', 0, "no text"),
    "not UTF-8": (b'{"cells": ["\xff\xfe"]}', 0, "it is not JSON"),
    "empty": (b"", 0, "it is not JSON"),
    "cells twice": (altered(lambda cells: cells + cells), SET.marks, ""),
    "cells reversed": (altered(lambda cells: cells[::-1]), SET.marks, ""),
    "only its answers": (
        altered(lambda cells: [c for c in cells if "answer" in c["metadata"].get("tags", [])]),
        SET.marks,
        "",
    ),
    "ids and tags gone": (
        altered(lambda cells: [{**c, "id": "", "metadata": {}} for c in cells]),
        SET.marks,
        "",
    ),
    "50 MB": (with_output(50), SET.marks, ""),
    "70 MB": (with_output(70), 0, "clear its outputs"),
    "Žofie Ωmega 李雷 \u202e": (altered(lambda cells: cells), SET.marks, ""),
    "..%2f..%2fup": (altered(lambda cells: cells), SET.marks, ""),
    "<script>alert(1)": (altered(lambda cells: cells), SET.marks, ""),
}
LINKS = ("link to a notebook", "link to a folder", "pipe")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the class's submissions and nothing else but a notebook out of their reach."""
    place = tmp_path_factory.mktemp("hostile")
    submissions = place / "submissions"
    submissions.mkdir()
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "right.ipynb").write_bytes(altered(lambda cells: cells))
    for name, number in HONEST.items():
        (submissions / f"{name}.ipynb").write_text(json.dumps(honest(SET, number)[0]))
    for number, name in enumerate(ATTACKS):
        made, _ = hostile(SET, name)
        (submissions / f"attack {number:02d}.ipynb").write_text(json.dumps(made))
    for name, (content, _, _) in FILES.items():
        (submissions / f"{name}.ipynb").write_bytes(content)
    (submissions / "link to a notebook.ipynb").symlink_to(place / "elsewhere" / "right.ipynb")
    (submissions / "link to a folder").symlink_to(place / "elsewhere")
    (submissions / "within").mkdir()
    (submissions / "within" / "03_cross_entropy.ipynb").symlink_to("../../elsewhere/right.ipynb")
    os.mkfifo(submissions / "pipe.ipynb")
    return place


def everything(folder: Path) -> dict[str, int]:
    """Every file of a folder with its size."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


@pytest.fixture(scope="module")
def book(place: Path) -> dict:
    """The gradebook of the class, by learner; around the marking, a look at what else changed."""
    home = Path(os.environ["MSLEARN_HOME"])
    before = everything(place), everything(home)
    out = place / "grades"
    options = ["--jobs", "2", "--call", "6", "--total", "90", "--set", "03"]
    assert main(["grade", str(place / "submissions"), "--out", str(out), *options]) == 0
    after = {k: v for k, v in everything(place).items() if not k.startswith("grades/")}
    assert (after, everything(home)) == before, "nothing is written outside of the output's folder"
    learners = json.loads((out / "gradebook.json").read_text("utf-8"))["learners"]
    return {each["learner"]: each for each in learners}


@pytest.mark.parametrize("name", HONEST)
def test_honest_learners_beside_them_have_exact_marks(book, name):
    assert book[name]["marks"] == honest(SET, HONEST[name])[1]


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=list(ATTACKS))
def test_no_attack_has_more_than_it_earned(book, number):
    assert book[f"attack {number:02d}"]["marks"] <= FIRST.marks


FAIR = ("leaves", "never ends", "ten gigabytes", "the network", "arguments changed", "solutions")


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=list(ATTACKS))
def test_what_was_right_beside_an_attack_that_leaves_it_alone_counts(book, number):
    if list(ATTACKS)[number].startswith(FAIR):
        assert book[f"attack {number:02d}"]["marks"] == FIRST.marks


@pytest.mark.parametrize("name", FILES)
def test_a_strange_file_has_what_it_earned_and_is_named(book, name):
    _, marks, remark = FILES[name]
    told = book[" ".join(name.replace("\u202e", "").split())]
    assert told["marks"] == marks
    assert remark in " ".join(told["remarks"])


def test_links_and_pipes_are_not_followed(book):
    for name in (*LINKS, "within"):
        assert book[name]["marks"] == 0
    assert "links are not followed" in book["link to a notebook"]["remarks"][0]
    assert "links are not followed" in book["link to a folder"]["remarks"][0]
    assert "there is no notebook" in book["within"]["remarks"][0]
    assert "no plain file" in book["pipe"]["remarks"][0]


def test_everybody_is_in_the_book_and_has_a_page_that_runs_no_script(book, place):
    assert len(book) == len(HONEST) + len(ATTACKS) + len(FILES) + len(LINKS) + len(["within"])
    pages = list((place / "grades" / "reports").iterdir())
    assert len(pages) == len(book)
    for page in (*pages, place / "grades" / "class.html"):
        text = page.read_text("utf-8")
        assert "<script" not in text and "\u202e" not in text


def test_no_reference_is_told_to_anybody(book):
    said = json.dumps(book)
    assert "keepdim" not in said and "logsumexp" not in said
    assert handed_in(SET, {})["cells"], "the hints and stubs are no secret"
