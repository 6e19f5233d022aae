"""A set of exercises as tests: what every grader has to prove of itself, from a table a set."""

from collections.abc import Mapping
from typing import Any

import pytest

from mslearn import grade, sandbox
from mslearn.cells import read_cells
from mslearn.exercises import Exercise, ExerciseSet, load_set, paths, worth
from mslearn.judge import TO_DO, Case, Row, mark
from mslearn.mutants import survivors
from mslearn.submission import Notebook

KINDS = ("fault", "predict", "experiment")  # a word in the title of one exercise each
Wrong = Mapping[str, Mapping[str, tuple[Any, str]]]


def marks(exercise: Exercise, answer: Any, seed: int = 0) -> int:
    return sum(row.marks for row in grade.mark(exercise, answer, seed))


def through_a_worker(exercises: ExerciseSet, sources: list[str], seed: int = 0) -> dict:
    """The rows of a notebook with these cells, by place, marked in another process."""
    code = sandbox.worker_code()
    notebook = Notebook(tuple(sources), exercises.chapter)
    case = Case(notebook, exercises, lambda: sandbox.start(code, unsafe=True), seed=seed)
    return {row.place: row.reason for row in mark(case) if isinstance(row, Row)}


def prove(chapter: str, wrong: Wrong, survive: Mapping[str, str]) -> type:
    """The test class of one set.

    `wrong` holds, by exercise, at least three plausible wrong answers by name, each with words of
    the message that it must meet; `survive` the mutants that the checks let through, with a reason.
    """
    path = paths(chapter)[0]
    exercises = load_set(path)
    keys = list(exercises.exercises)
    cases = [(key, name) for key in wrong for name in wrong[key]]

    class TestSet:
        def test_has_four_to_eight_exercises_of_every_kind(self) -> None:
            assert keys == [f"{chapter}.{n}" for n in range(1, len(keys) + 1)]
            assert 4 <= len(keys) <= 8
            titles = " ".join(each.title.lower() for each in exercises.exercises.values())
            assert [kind for kind in KINDS if kind not in titles] == []

        @pytest.mark.parametrize("key", keys)
        def test_hints_lead_to_the_reference(self, key: str) -> None:
            exercise = exercises.exercises[key]
            assert len(exercise.hints) >= 3
            assert exercise.reference_after > len(exercise.hints)

        def test_marks_are_read_off_the_page_as_they_are(self) -> None:
            assert worth(path) == {k: each.marks for k, each in exercises.exercises.items()}

        @pytest.mark.parametrize("key", keys)
        def test_the_stub_scores_nothing_and_is_to_do(self, key: str) -> None:
            exercise = exercises.exercises[key]
            assert exercise.unanswered(exercise.stub)
            assert not exercise.unanswered(exercise.reference)
            assert marks(exercise, exercise.stub) == 0

        @pytest.mark.parametrize("key", keys)
        def test_the_reference_has_full_marks_on_twenty_seeds(self, key: str) -> None:
            exercise = exercises.exercises[key]
            for seed in range(20):
                rows = grade.mark(exercise, exercise.reference, seed)
                assert [row.reason for row in rows] == [""] * len(rows), seed

        def test_every_exercise_has_three_wrong_answers(self) -> None:
            assert list(wrong) == keys
            assert all(len(answers) >= 3 for answers in wrong.values())

        @pytest.mark.parametrize(("key", "name"), cases)
        def test_a_wrong_answer_is_told_why(self, key: str, name: str) -> None:
            answer, message = wrong[key][name]
            for seed in range(3):
                rows = grade.mark(exercises.exercises[key], answer, seed)
                assert any(message in row.reason for row in rows), [str(row) for row in rows]
                assert sum(row.marks for row in rows) < exercises.exercises[key].marks

        @pytest.mark.parametrize("key", keys)
        def test_an_answer_without_a_thought_scores_nothing(self, key: str) -> None:
            for answer in (lambda *given, **more: None, lambda *given, **more: given[0]):
                assert marks(exercises.exercises[key], answer) == 0

        @pytest.mark.parametrize("key", keys)
        def test_partial_credit(self, key: str) -> None:
            exercise = exercises.exercises[key]
            scores = {marks(exercise, answer) for answer, _ in wrong[key].values()}
            assert any(0 < score < exercise.marks for score in scores)

        def test_references_have_full_marks_in_another_process(self) -> None:
            sources = [each.source for each in exercises.exercises.values()]
            rows = through_a_worker(exercises, sources, seed=7)
            assert {place: reason for place, reason in rows.items() if reason} == {}
            assert len(rows) == sum(len(each.rules) for each in exercises.exercises.values())

        def test_what_is_handed_out_is_to_do_in_another_process(self) -> None:
            handed_out = path.parent.parent / "exercises" / path.name
            code = [cell.source for cell in read_cells(handed_out) if cell.kind == "code"]
            assert set(through_a_worker(exercises, code).values()) == {TO_DO}

        def test_the_checks_catch_nine_small_faults_of_ten(self) -> None:
            every, alive = survivors(exercises)
            assert len(alive) <= every / 10
            assert {str(each) for each in alive} == set(survive), "reasons in SURVIVORS"

    return TestSet
