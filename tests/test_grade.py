"""A learner's check: reasons, hints by tries, the reference after an effort, and what is kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mslearn import cells, exercises, grade

TERMS = "*5 minutes · effort: medium · importance: high{}*"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> Path:
    """A learner who has answered nothing yet."""
    monkeypatch.setenv("MSLEARN_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def log_softmax() -> grade.Exercise:
    return grade.load("03")["03.2"]


def nearly(z):
    return z - z.exp().sum(-1, keepdim=True).log()


def tries(number: int):
    """Wrong answers, each with code of its own."""
    for each in range(number):
        names: dict = {}
        exec(f"def f(z):\n    return z + {each}", names)
        yield names["f"]


class TestTheCheck:
    def test_an_unanswered_exercise_is_to_do_and_counts_as_no_try(self, log_softmax, capsys):
        grade.check("03.2", log_softmax.stub)
        assert "to do (0 of 5)" in capsys.readouterr().out
        grade.progress("03")
        assert "03.2 A log-softmax that never overflows: to do, 0 of 5" in capsys.readouterr().out

    def test_every_property_has_its_marks_and_a_reason(self, capsys):
        grade.check("03.2", nearly)
        lines = capsys.readouterr().out.splitlines()
        assert lines[1] == "  The example by hand: yes (1 of 1)"
        assert lines[3] == (
            "  Great logits: no, exp overflows: logits near 1000 gave infinity or NaN (0 of 1)"
        )
        assert lines[5] == "  2 of 5 marks" and lines[6].startswith("  Hint 1 of 3: ")

    def test_hints_move_on_with_changed_tries_only(self, capsys):
        first, second, *others = tries(5)
        for answer, due in ((first, 1), (first, 1), (second, 2), (first, 2), (others[0], 3)):
            grade.check("03.2", answer)
            assert f"Hint {due} of 3" in capsys.readouterr().out
        grade.check("03.2", others[1])
        assert "Hint 3 of 3" in capsys.readouterr().out

    def test_full_marks_bring_no_hint_and_stay(self, log_softmax, capsys):
        grade.check("03.2", log_softmax.reference)
        said = capsys.readouterr().out
        assert "5 of 5 marks\n" in said and "Hint" not in said
        grade.check("03.2", nearly)
        capsys.readouterr()
        grade.progress("03")
        assert "03.2 A log-softmax that never overflows: done, 5 of 5" in capsys.readouterr().out

    def test_an_error_of_the_answer_is_told_from_a_value_of_no_use(self, capsys):
        def breaks(z):
            raise KeyError("first line\nsecond line")

        grade.check("03.2", breaks)
        assert "no, your code raised KeyError: 'first line" in capsys.readouterr().out
        grade.check("03.2", lambda z: "text")
        assert "the check cannot use what your answer gave" in capsys.readouterr().out

    def test_no_exercise_of_that_number_is_said(self):
        with pytest.raises(ValueError, match=r"there is no exercise 03\.99"):
            grade.check("03.99", None)

    def test_classes_are_told_apart_by_their_code(self):
        one, same, other = (
            type("A", (), {"step": f, "rate": 1})
            for f in (lambda self: 1, lambda self: 1, lambda self: 2)
        )
        assert exercises.fingerprint(one) == exercises.fingerprint(same)
        assert exercises.fingerprint(one) != exercises.fingerprint(other)


class TestTheReference:
    def test_is_shown_after_the_tries_that_the_author_sets(self, log_softmax, capsys):
        *early, last = tries(log_softmax.reference_after)
        for answer in early:
            grade.check("03.2", answer)
        assert "reference(" not in capsys.readouterr().out
        grade.reference("03.2")
        assert capsys.readouterr().out == (
            "03.2: the reference is shown after 1 more different tries\n"
        )
        grade.check("03.2", last)
        assert 'reference("03.2")' in capsys.readouterr().out
        grade.reference("03.2")
        shown = capsys.readouterr().out
        assert "keepdim=True" in shown and "SOLUTION" not in shown

    def test_the_marks_then_say_so(self, log_softmax, capsys):
        for answer in tries(log_softmax.reference_after):
            grade.check("03.2", answer)
        grade.reference("03.2")
        grade.check("03.2", log_softmax.reference)
        assert "5 of 5 marks, with the reference seen" in capsys.readouterr().out
        grade.progress("03")
        assert "done, 5 of 5 marks, with the reference seen" in capsys.readouterr().out

    def test_whoever_has_full_marks_may_see_it_freely(self, log_softmax, capsys):
        grade.check("03.2", log_softmax.reference)
        grade.reference("03.2")
        assert "keepdim=True" in capsys.readouterr().out
        grade.progress("03")
        assert "seen" not in capsys.readouterr().out

    @pytest.mark.parametrize(("words", "tries"), [("", 2), (" · reference after 7 tries", 7)])
    def test_the_effort_is_the_authors(self, words, tries):
        text = (
            f"## 98.1 One\n\n{TERMS.format(words)}\n\n<details><summary>Hint</summary>h</details>"
        )
        assert exercises._told("98.1", text) == (5, "medium", "high", tries, ("h",))
        with pytest.raises(ValueError, match=r"exercise 98\.1 needs a line such as"):
            exercises._told("98.1", "## 98.1 One")


class TestProgress:
    def test_over_the_course_is_a_line_for_each_set(self, log_softmax, capsys):
        grade.check("03.2", log_softmax.reference)
        capsys.readouterr()
        grade.progress()
        lines = capsys.readouterr().out.splitlines()
        assert "03 cross entropy: 5 of 26 marks, 1 of 6 exercises done" in lines
        assert lines[-1].startswith("Together: 5 of ")
        assert len(lines) == len(exercises.paths()) + 1

    def test_survives_a_file_that_is_damaged(self, own_folder, capsys):
        (own_folder / "progress.json").write_text("{")
        grade.progress("03")
        assert "Together: 0 of 26 marks" in capsys.readouterr().out

    def test_is_the_learners_own_file(self, own_folder):
        grade.check("03.2", nearly)
        kept = json.loads((own_folder / "progress.json").read_text())
        assert kept["03.2"]["marks"] == 2 and len(kept["03.2"]["tries"]) == 1


def test_a_first_check_needs_no_slow_import():
    code = (
        "import sys, torch; from mslearn import grade; grade.check('03.2', lambda z: z);"
        "print([name for name in ('nbformat', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_what_is_no_notebook_is_said(tmp_path):
    (tmp_path / "x.ipynb").write_text("[]")
    with pytest.raises(ValueError, match="is not a notebook"):
        cells.read_cells(tmp_path / "x.ipynb")


def test_names_are_found_in_a_cell_whether_it_is_python_or_not():
    source = "x, (y, *z) = 1, (2, 3)\nw: int = 3\ndef f(q): r = 1\nclass C: s = 2\nv[0] = 1"
    assert cells.defined(source) == {"x", "y", "z", "w", "f", "C"}
    assert cells.defined("def f(x)\n  return\ny = 1") >= {"f", "y"}


def test_every_rule_draws_the_same_inputs_from_a_seed(log_softmax):
    seen = []
    for _ in range(2):
        grade.mark(log_softmax, lambda z: seen.append(z.clone()) or z, seed=4)
    half = len(seen) // 2
    assert all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))


@pytest.mark.parametrize("path", exercises.paths(), ids=lambda path: path.stem)
def test_every_set_is_proved(path):
    proof = Path(__file__).with_name(f"test_{path.stem[:2]}_exercises.py")
    assert f'prove("{path.stem[:2]}"' in proof.read_text("utf-8")
    assert (path.parent.parent / "exercises" / path.name).exists()
