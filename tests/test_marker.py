"""The process that marks: what brings it down costs one property, and the class goes on."""

import json

import pytest

from mslearn import exercises
from mslearn.gradebook import Record, results
from mslearn.hostile import honest
from mslearn.judge import BROKE_US, Row
from mslearn.marker import MOST_BREAKS, Marker, Terms
from mslearn.report import learner_page

SET = exercises.load_set(exercises.paths("03")[0])
ENDS = '@rule("03.1", "Ends us {}")\ndef ends_{}(answer, g):\n    import os\n    os._exit(3)\n'
WAITS = '@rule("03.1", "Waits")\ndef waits(answer, g):\n    while True: pass\n'


@pytest.fixture
def handed_in(tmp_path):
    path = tmp_path / "ann.ipynb"
    path.write_text(json.dumps(honest(SET, 1)[0]), "utf-8")
    return path


@pytest.fixture
def marker(tmp_path):
    """Makes a marker whose rules include these, without a sandbox: what is tested is our side."""
    made = []

    def make(rules: str) -> Marker:
        folder = tmp_path / "checks"
        folder.mkdir()
        (folder / "03.py").write_text(rules)
        made.append(Marker(Terms(checks=str(folder), unsafe=True)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_value_that_brings_it_down_costs_one_property(marker, handed_in):
    own = marker(ENDS.format(1, 1))
    for _ in range(2):  # and the next notebook finds it at work again
        found = own.mark(handed_in)
        assert found.rows["03.1", 3].reason == BROKE_US
        assert [found.rows["03.1", n].reason for n in range(3)] == [""] * 3
        assert len(found.rows) == sum(len(e.rules) for e in SET.exercises.values()) + 1
        own.process.kill()
        own.process.wait()


def test_a_comparison_without_end_is_given_up(marker, handed_in):
    own = marker(WAITS)
    own.patience = 12.0
    assert own.mark(handed_in).rows["03.1", 3].reason == BROKE_US


def test_a_notebook_that_brings_it_down_each_time_is_given_up(marker, handed_in):
    own = marker("".join(ENDS.format(n, n) for n in range(MOST_BREAKS + 3)))
    found = own.mark(handed_in)
    assert found.notes == ["marking was given up: too many answers brought it down"]
    assert found.rows["03.1", 2].reason == ""


def test_a_notebook_that_cannot_be_read_is_a_problem_and_no_error(tmp_path):
    own = Marker(Terms(unsafe=True))
    assert "cannot be read" in own.mark(tmp_path / "nothing.ipynb").problem
    own.close()


def test_the_page_says_where_a_reference_stood_in():
    rows = {("03.2", 0): Row(("03.2", 0), "", ("03.1",))}
    record = Record("ann", "ann.ipynb", "03", "", "", rows=rows)
    (result,) = results([record], {"03": SET})
    assert result.marks == 1
    assert "with the reference answer to 03.1 in place of yours" in learner_page(result, False)
