"""Building notebooks: what is kept of a run, how exercises are made, and what is never lost."""

import copy
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mslearn import build
from mslearn.__main__ import main
from mslearn.cells import STUB

ANSWER = """def double(x):
    \"\"\"Twice x.\"\"\"
    # BEGIN SOLUTION
    return x + x
    # END SOLUTION"""
FAULTY = """def half(x):
    # BEGIN SOLUTION
    return x / 2
    # STUB y = x
    # STUB return y // 2
    # END SOLUTION"""
DRAW = """import sys
from mslearn import plot
fig, axes = plot.figure()
plot.label(axes, "steps", "loss (nats)")
plot.show(fig, alt="an empty chart")
print("one"); sys.stdout.flush(); print("two")"""


def tagged(source: str, *tags: str) -> nbformat.NotebookNode:
    return new_code_cell(source, metadata={"tags": list(tags), "scrolled": True})


def exercises_of(path: Path) -> Path:
    return path.parent.parent / "exercises" / path.name


def solution() -> nbformat.NotebookNode:
    cells = [
        new_markdown_cell("# A small set"),
        new_markdown_cell("The answers.", metadata={"tags": ["solution"]}),
        tagged(ANSWER, "answer"),
        tagged("hidden = 1", "checks"),
        new_code_cell(FAULTY),
        new_code_cell(DRAW),
    ]
    return new_notebook(cells=cells, metadata={"widgets": {"a": 1}, "orig_nbformat": 4})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course's folder in which one solution was built."""
    path = tmp_path_factory.mktemp("course") / "solutions" / "98_small.ipynb"
    path.parent.mkdir()
    nbformat.write(solution(), path)
    assert build.build(path) == []
    return path


@pytest.fixture
def course(built: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change; gives the solution's path."""
    for name in ("solutions", "exercises"):
        (tmp_path / name).mkdir()
        source = built.parent.parent / name / built.name
        (tmp_path / name / built.name).write_bytes(source.read_bytes())
    return tmp_path / "solutions" / built.name


def test_what_is_kept_of_a_run(built: Path) -> None:
    notebook = build.read(built)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert notebook.metadata == {"kernelspec": build.KERNEL, "language_info": {"name": "python"}}
    assert all(cell.id.startswith("98-") for cell in notebook.cells)
    assert {key for cell in notebook.cells for key in cell.metadata} == {"tags"}
    picture, text = code[-1].outputs
    assert text.text == "one\ntwo\n"
    assert 'alt="an empty chart"' in picture.data["text/html"]
    assert picture.data["text/plain"] == "an empty chart"


def test_building_again_changes_not_one_byte(course: Path) -> None:
    files = (course, exercises_of(course))
    before = [path.read_bytes() for path in files]
    assert build.build(course) == []
    assert [path.read_bytes() for path in files] == before


def test_exercises_hold_stubs_and_no_answers(built: Path) -> None:
    made = build.read(exercises_of(built))
    sources = [cell.source for cell in made.cells]
    assert sources[:3] == [
        "# A small set",
        f'def double(x):\n    """Twice x."""\n    {STUB}',
        "def half(x):\n    y = x\n    return y // 2",
    ]
    assert "x + x" not in json.dumps(made) and "hidden" not in json.dumps(made)
    assert made.cells[-1].outputs, "the exercises are stored as a run leaves them"


def test_ids_of_ours_stay_and_random_ones_give_way() -> None:
    notebook = new_notebook(cells=[new_code_cell("1"), new_code_cell("1"), new_code_cell("2")])
    build.name_cells(notebook, "98_small")
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == 3
    notebook.cells[2].source = "3"
    build.name_cells(notebook, "98_small")
    assert [cell.id for cell in notebook.cells] == ids


def test_check_is_content_with_what_build_wrote(course: Path) -> None:
    assert build.check(course) == []


EDITS = {
    "source": lambda cell: cell.update(source=cell.source + "\n"),
    "output": lambda cell: cell.outputs[-1].update(text="three\n"),
    "tag": lambda cell: cell.metadata.update(tags=["raises-exception"]),
    "id": lambda cell: cell.update(id="98-mine"),
}


def retitled(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace("Python 3 (ipykernel)", "Mine"), "utf-8")


def spaced(path: Path) -> None:
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")


@pytest.mark.parametrize("edit", [retitled, spaced])
def test_check_is_red_on_an_edit_outside_of_the_cells(course: Path, edit) -> None:
    edit(exercises_of(course))
    (message,) = build.check(course)
    assert "was edited or run by hand" in message


def test_check_is_red_on_exercises_that_no_solution_makes(course: Path) -> None:
    assert build.orphans(course.parent.parent) == []
    exercises_of(course).with_name("98_small-1.side.ipynb").write_bytes(b"mine")
    assert build.orphans(course.parent.parent) == []
    course.unlink()
    (message,) = build.orphans(course.parent.parent)
    assert message.startswith("exercises/98_small.ipynb is made by no solution")


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_check_is_red_on_any_hand_edit_of_the_exercises(course: Path, edit) -> None:
    target = exercises_of(course)
    notebook = build.read(target)
    edit(notebook.cells[-1])
    nbformat.write(notebook, target)
    (message,) = build.check(course)
    assert message.startswith("exercises/98_small.ipynb") and "run `mslearn build" in message


def test_check_is_red_when_the_solution_moved_on_or_exercises_are_missing(course: Path) -> None:
    notebook = build.read(course)
    notebook.cells[0].source = "# Another title"
    nbformat.write(notebook, course)
    assert "is not what solutions/98_small.ipynb makes" in build.check(course)[0]
    exercises_of(course).unlink()
    assert "is missing" in build.check(course)[0]


def test_check_names_counts_errors_and_what_a_session_left(course: Path) -> None:
    good = build.read(course)

    def verdict(change) -> str:
        notebook = copy.deepcopy(good)
        change(notebook)
        return " ".join(build.disorder(notebook, "98_small"))

    assert "not run once each" in verdict(lambda nb: nb.cells[2].update(execution_count=7))
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert "ended in an error" in verdict(lambda nb: nb.cells[2].outputs.append(error))
    assert "left behind" in verdict(lambda nb: nb.metadata.update(widgets={}))
    view = new_output("display_data", {build.WIDGET: {"model_id": "1"}, "text/plain": "Box()"})
    assert "left behind" in verdict(lambda nb: nb.cells[2].outputs.append(view))


def test_a_learners_work_is_left_alone_then_kept_beside(course: Path) -> None:
    target = exercises_of(course)
    notebook = build.read(target)
    notebook.cells[1].source = "my_work = 1"
    nbformat.write(notebook, target)
    mine = target.read_bytes()
    (message,) = build.build(course)
    assert "holds someone's work" in message and "--overwrite" in message
    assert target.read_bytes() == mine
    assert build.build(course, overwrite=True) == []
    assert build.check(course) == []
    assert target.with_name("98_small-1.side.ipynb").read_bytes() == mine


def test_a_failing_cell_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "notebooks" / "97_bad.ipynb"
    path.parent.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell("1"), new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"97_bad.ipynb, code cell 2:[\s\S]*ZeroDivisionError"):
        build.build(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_markers_that_do_not_pair_are_named() -> None:
    broken = new_notebook(cells=[new_code_cell("# BEGIN SOLUTION\nx = 1")])
    with pytest.raises(ValueError, match="do not pair up"):
        build.exercises(broken)


def test_a_file_that_is_no_notebook_is_one_sentence(tmp_path: Path, capsys) -> None:
    path = tmp_path / "notes.ipynb"
    path.write_text("not json")
    assert main(["build", "--check", str(path)]) == 1
    assert "is not a notebook" in capsys.readouterr().err
