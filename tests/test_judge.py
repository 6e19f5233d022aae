"""Marking one notebook: what runs, what is compared with what, and who gets marks for what."""

import sys
from subprocess import PIPE, Popen

import pytest
import torch
import toyset

from mslearn.exercises import ExerciseSet
from mslearn.judge import BROKE_US, TO_DO, Case, mark
from mslearn.remote import Limits
from mslearn.submission import Notebook

KEYS = ("97.1", "97.2", "97.3", "97.4")
WRONG_SOFTMAX = "def softmax(z):\n    return z.exp()"


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> ExerciseSet:
    return toyset.load(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def right(toy: ExerciseSet) -> dict[str, str]:
    """The reference cells, by exercise."""
    return {key: each.source for key, each in toy.exercises.items()}


def reasons(found: dict) -> dict:
    return {place: row.reason for place, row in found.items() if place != "notes"}


def wrong(found: dict) -> set:
    return {place for place, reason in reasons(found).items() if reason}


class TestWhatIsRun:
    def test_references_hold_classes_gradients_and_steps_in_place(self, toy, right):
        found = toyset.verdicts(toy, list(right.values()), seed=3)
        assert reasons(found) == dict.fromkeys(found.keys() - {"notes"}, "")
        assert len(found) == 7 and found["notes"] == []

    def test_cells_may_stand_in_any_order_and_twice(self, toy, right):
        uses_early = f"row = mix(torch.zeros(1, 2), torch.ones(2, 1))\n{right['97.3']}"
        backwards = [uses_early, *reversed(right.values()), right["97.2"]]
        assert not wrong(toyset.verdicts(toy, backwards))

    def test_of_two_answers_the_last_counts(self, toy, right):
        found = toyset.verdicts(toy, [right["97.1"], WRONG_SOFTMAX])
        assert found["97.1", 0].reason == "rows do not sum to 1"

    def test_helpers_and_imports_of_the_learners_own_count(self, toy):
        cells = [
            "import math as m\n\ndef helper(z):\n    return z - z.logsumexp(-1, keepdim=True)",
            "%matplotlib inline\nimport numpy as np",
            "def softmax(z):\n    assert m.pi > 3 and np.pi > 3\n    return helper(z).exp()",
        ]
        assert toyset.verdicts(toy, cells)["97.1", 0].reason == ""

    def test_a_missing_answer_and_a_cell_that_does_not_run_are_named(self, toy):
        cells = ["def softmax(z)\n    return z", "1 / 0\ndef mix(z, v):\n    return z"]
        found = toyset.verdicts(toy, cells)
        assert "SyntaxError" in found["97.1", 0].reason
        assert "ZeroDivisionError" in found["97.2", 0].reason
        assert "nothing in the notebook is called step" in found["97.3", 0].reason
        assert [note.split(":")[0] for note in found["notes"]] == ["code cell 1", "code cell 2"]

    def test_what_was_handed_out_is_to_do_and_is_not_run(self, toy):
        stubs = [each.stub_source + "  \n# mine" for each in toy.exercises.values()]
        assert set(reasons(toyset.verdicts(toy, stubs)).values()) == {TO_DO}


class TestWhatIsCompared:
    def test_an_answer_cannot_change_what_it_is_compared_with(self, toy, right):
        cheat = "def softmax(z):\n    z.zero_()\n    return torch.full_like(z, 0.25)"
        assert toyset.verdicts(toy, [cheat])["97.1", 0].reason == "rows do not sum to 1"

    def test_inputs_follow_the_seed(self, toy):
        remembers = "def softmax(z):\n    assert z[0, 0] != {}\n    return z.softmax(-1)"
        first = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))[0, 0].item()
        cells = [remembers.format(first)]
        assert "AssertionError" in toyset.verdicts(toy, cells, seed=5)["97.1", 0].reason
        assert toyset.verdicts(toy, cells, seed=6)["97.1", 0].reason == ""

    def test_a_probe_of_the_learners_own_is_not_asked(self, toy):
        lies = "def slope(answer, x):\n    return torch.ones(5)"
        norm = "class Norm:\n    def __init__(self, n): pass\n    def __call__(self, x): return x"
        found = toyset.verdicts(toy, [norm, lies])
        assert "raised" in found["97.4", 1].reason

    @pytest.mark.parametrize("value", ["Yes()", "torch.ones(3, 4).as_subclass(Same)", "Yes"])
    def test_objects_that_say_yes_are_no_numbers(self, toy, value):
        liars = """class Yes:
    def __getattr__(self, name): return self
    def __call__(self, *a): return self
    def __eq__(self, other): return True
    def __bool__(self): return True
class Same(torch.Tensor):
    def __eq__(self, other): return True"""
        found = toyset.verdicts(toy, [liars, f"def softmax(z):\n    return {value}"])
        assert found["97.1", 0].reason


class TestFollowThrough:
    def test_what_builds_on_a_wrong_answer_is_tried_with_the_reference(self, toy, right):
        found = toyset.verdicts(toy, [WRONG_SOFTMAX, right["97.2"]])
        assert found["97.1", 0].reason == "rows do not sum to 1"
        assert found["97.2", 0].reason == "" and found["97.2", 0].through == ("97.1",)
        assert found["97.2", 1].reason == "" and found["97.2", 1].through == ("97.1",)

    def test_also_where_the_answer_is_missing_or_ends_the_process(self, toy, right):
        for first in ("", "import os\ndef softmax(z):\n    os._exit(0)"):
            found = toyset.verdicts(toy, [first, right["97.2"]])
            assert found["97.1", 0].reason
            assert found["97.2", 0].through == ("97.1",), first

    def test_what_is_wrong_by_itself_stays_wrong_and_nothing_of_that_run_is_told(self, toy):
        tells = "import inspect\ndef mix(z, v):\n    raise ValueError(inspect.getsource(softmax))"
        found = toyset.verdicts(toy, [WRONG_SOFTMAX, tells])
        assert found["97.2", 0].reason and not found["97.2", 0].through
        assert "amax" not in str(found)

    def test_also_through_a_helper(self, toy):
        helper = "def weights(z):\n    return softmax(z)"
        through = "def mix(z, v):\n    return weights(z) @ v"
        found = toyset.verdicts(toy, [WRONG_SOFTMAX, helper, through])
        assert found["97.2", 0].through == ("97.1",)

    def test_a_right_answer_is_not_replaced(self, toy, right):
        found = toyset.verdicts(toy, [right["97.1"], "def mix(z, v):\n    return softmax(z) + v"])
        assert found["97.2", 0].reason and not found["97.2", 0].through


class TestWhenTheProcessEnds:
    def test_other_answers_keep_their_marks(self, toy, right):
        cells = [
            "import os\nos._exit(0)",
            "def softmax(z):\n    os = __import__('os')\n    os.kill(os.getpid(), 9)",
            "def step(w, gradient):\n    while True: pass",
            right["97.4"],
        ]
        found = toyset.verdicts(toy, cells, Limits(call=2.0, total=60.0))
        assert "ended" in found["97.1", 0].reason
        assert "took longer than 2 s" in found["97.3", 0].reason
        assert found["97.4", 0].reason == found["97.4", 1].reason == ""
        assert found["notes"][0].startswith("code cell 1: the process of your code ended")

    def test_after_two_ends_the_rest_of_an_exercise_is_not_tried(self, toy, monkeypatch):
        monkeypatch.setattr("mslearn.judge.MOST_ENDS", 1)
        found = toyset.verdicts(toy, ["import os\ndef mix(z, v):\n    os._exit(0)"])
        assert found["97.2", 1].reason.startswith("not tried")

    def test_the_whole_notebook_has_its_time(self, toy):
        cells = ["def softmax(z):\n    while True: pass"]
        found = toyset.verdicts(toy, cells, Limits(call=20.0, total=4.0))
        assert "the time for one notebook (4 s)" in found["97.1", 0].reason

    def test_a_worker_that_does_not_start_is_nobodys_fault(self, toy, right):
        def start():
            return Popen([sys.executable, "-c", "pass"], stdin=PIPE, stdout=PIPE)

        case = Case(Notebook((right["97.1"],), "97"), toy, start)
        with pytest.raises(RuntimeError, match="a worker does not start"):
            list(mark(case))

    def test_marking_is_taken_up_with_the_verdicts_from_before(self, toy, right):
        before = toyset.verdicts(toy, list(right.values()))
        rows = {("97.1", 0): before["97.1", 0]}
        found = toyset.verdicts(toy, [right["97.2"]], rows=rows, avoid=[("97.2", 0)])
        assert ("97.1", 0) not in found
        assert found["97.2", 0].reason == BROKE_US
