"""Every claim of the article has a row in the appendix, and the chapter that settles it says so."""

from pathlib import Path

import nbformat
import pytest

from mslearn import claims


def page(path: Path, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(c) for c in cells])
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    """A course of one chapter that settles X3 and an appendix of one row."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(claims, "course", lambda: tmp_path)
    monkeypatch.setattr(claims, "CHAPTERS", {"X3": "04"})
    page(tmp_path / "notebooks" / "04_descent.ipynb", "# 4. Descent\n\n## Wrong sign\n\nClaim X3.")
    return tmp_path


def appendix(course: Path, row: str) -> None:
    head = "| id | says | verdict | found |\n|-|-|-|-|\n"
    page(course / "notebooks" / claims.APPENDIX, head + row)


SETTLED = "| X3 | the sign | wrong, corrected | climbs ([chapter 4](04_descent.ipynb)) |"


def test_the_course_keeps_its_register():
    assert claims.faults() == []


def test_a_settled_claim_that_its_chapter_names_is_in_order(course):
    appendix(course, SETTLED)
    assert claims.faults() == []
    assert claims.places() == {"X3": [claims.Place("04", "Wrong sign")]}


def test_a_chapter_that_does_not_name_its_claim_is_at_fault(course):
    appendix(course, SETTLED)
    page(course / "notebooks" / "04_descent.ipynb", "# 4. Descent")
    assert claims.faults() == ["X3 belongs to chapter 04, which does not name it"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (SETTLED.replace("wrong, corrected", "not yet"), "say how"),
        (SETTLED.replace("wrong, corrected", "perhaps"), "'perhaps'"),
        (SETTLED.replace("(04_descent.ipynb)", "(05_other.ipynb)"), "no link to chapter 04"),
        ("", "not one row for each claim"),
    ],
)
def test_a_row_that_says_too_little_is_at_fault(course, row, fault):
    appendix(course, row)
    (said,) = claims.faults()
    assert fault in said


def test_a_verdict_before_its_chapter_is_written_is_at_fault(course):
    appendix(course, SETTLED)
    (course / "notebooks" / "04_descent.ipynb").unlink()
    assert "its chapter is not written" in claims.faults()[0]


def test_a_row_with_a_column_too_few_is_refused(course):
    appendix(course, "| X3 | the sign | wrong, corrected |")
    with pytest.raises(ValueError, match="row X3: expected claim, verdict and what was found"):
        claims.table()
