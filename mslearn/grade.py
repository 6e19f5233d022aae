"""Checking an exercise at once: a row for each property, marks, a reason, and hints by tries."""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mslearn.check import read_json, write_json
from mslearn.exercises import Exercise, Rule, fingerprint, load, paths, rule, worth
from mslearn.home import home
from mslearn.states import copied

__all__ = [
    "Exercise",
    "Row",
    "Rule",
    "beside",
    "check",
    "load",
    "mark",
    "progress",
    "reference",
    "rule",
]
NOT_THEIRS = ("<solution", "<frozen", "<string", str(Path(__file__).parent))


class AnswerError(Exception):
    """What went wrong inside an answer, in words for the one who wrote it."""


@dataclass(frozen=True)
class Row:
    """The verdict of one rule: `reason` is empty when it holds."""

    rule: Rule
    reason: str

    @property
    def marks(self) -> int:
        return 0 if self.reason else self.rule.marks

    def __str__(self) -> str:
        verdict = f"no, {self.reason}" if self.reason else "yes"
        return f"  {self.rule.says}: {verdict} ({self.marks} of {self.rule.marks})"


def mark(exercise: Exercise, answer: Any, seed: int = 0) -> list[Row]:
    """Judge an answer by every rule, each on inputs of its own drawn from `seed`."""
    return [Row(each, judge(each, answer, seed)) for each in exercise.rules]


class _Apart:
    """An answer that is handed copies, as in a class: it cannot change what it is compared with."""

    def __init__(self, answer: Callable) -> None:
        self._answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer(*copied(args), **copied(kwargs))

    def beside(self, function: Callable) -> Callable:
        return beside(self._answer, function)


def judge(each: Rule, answer: Any, seed: int) -> str:
    """Why the answer fails this rule; empty when it holds."""
    if inspect.isfunction(answer) and not each.in_place:
        answer = _Apart(answer)
    try:
        return each.test(answer, torch.Generator().manual_seed(seed)) or ""
    except AnswerError as error:
        return str(error)
    except Exception as error:  # a learner's code may raise anything; the next rule still runs
        first = (str(error).strip() or "no message").splitlines()[0]
        said = f"{type(error).__name__}: {first}"
        if _theirs(error):
            return f"your code raised {said}"
        return f"the check cannot use what your answer gave ({said})"


def _theirs(error: Exception) -> bool:
    """Whether an error passed through code that is neither a rule's nor a library's."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any(not file.startswith((*NOT_THEIRS, sys.prefix, sys.base_prefix)) for file in files)


def beside(answer: Any, function: Callable) -> Callable:
    """`function(answer, …)` where the answer lives: for a rule that needs more than plain values.

    Gradients, modules, optimisers: `function` belongs to a cell tagged `setup` or `probe`, does
    all of that and returns plain values. In a class the answer lives in another process.
    """
    if hasattr(type(answer), "beside"):  # a stand-in for an answer in a sandbox
        return answer.beside(function)
    return functools.partial(function, answer)


def check(key: str, answer: Any) -> None:
    """Print each property of the answer with its marks and reason, then the hint that is due.

    A first failing try brings the first hint, a changed one the next, and after as many as the
    exercise sets, word of the reference. Unanswered is "to do" and counts as no try. The best marks
    and the tries are kept in the learner's `progress.json`.
    """
    exercise = _exercise(key)
    print(f"{key} {exercise.title}")
    if exercise.unanswered(answer):
        print(f"  to do (0 of {exercise.marks})")
        return
    rows = mark(exercise, answer)
    marks = sum(row.marks for row in rows)
    entry = _keep(exercise, answer, marks)
    print(*rows, sep="\n")
    print(f"  {marks} of {exercise.marks} marks{_seen(entry)}")
    if marks == exercise.marks:
        return
    tries = len(entry["tries"])
    if exercise.hints:
        due = min(tries, len(exercise.hints))
        print(f"  Hint {due} of {len(exercise.hints)}: {exercise.hints[due - 1]}")
    if tries >= exercise.reference_after:
        print(f'  To see the reference: from mslearn.grade import reference; reference("{key}")')


def reference(key: str) -> None:
    """Print the reference answer, after the tries that the exercise asks for or full marks.

    Whoever sees it before full marks has that said beside the marks from then on.
    """
    exercise = _exercise(key)
    progress = read_json(home() / "progress.json")
    entry = progress.get(key, {"marks": 0, "tries": []})
    missing = exercise.reference_after - len(entry["tries"])
    done = entry["marks"] == exercise.marks
    if missing > 0 and not done:
        print(f"{key}: the reference is shown after {missing} more different tries")
        return
    if not done:
        progress[key] = {**entry, "seen": True}
        write_json(home() / "progress.json", progress)
    print(exercise.source)


def _exercise(key: str) -> Exercise:
    exercise = load(key.split(".")[0]).get(key)
    if exercise is None:
        raise ValueError(
            f"there is no exercise {key}: the heading above your answer has its number"
        )
    return exercise


def _keep(exercise: Exercise, answer: Any, marks: int) -> dict[str, Any]:
    """Store best marks and this try; returns what is kept of the exercise."""
    path = home() / "progress.json"
    progress = read_json(path)
    entry = progress.setdefault(exercise.key, {"marks": 0, "tries": []})
    entry.update(marks=max(entry["marks"], marks), of=exercise.marks)
    name = fingerprint(answer)
    if marks < exercise.marks and name not in entry["tries"]:
        entry["tries"].append(name)
    write_json(path, progress)
    return entry


def _seen(entry: dict[str, Any]) -> str:
    return ", with the reference seen" if entry.get("seen") else ""


def progress(chapter: str = "") -> None:
    """Print the best marks so far: of one chapter by exercise, or of the course by chapter."""
    kept, total, possible = read_json(home() / "progress.json"), 0, 0
    for path in paths(chapter) if chapter else paths():
        of = worth(path)
        best = {key: min(kept.get(key, {}).get("marks", 0), of[key]) for key in of}
        total, possible = total + sum(best.values()), possible + sum(of.values())
        if chapter:
            for key, exercise in load(chapter).items():
                state = "begun" if key in kept else "to do"
                state = "done" if best[key] == of[key] else state
                score = f"{best[key]} of {of[key]} marks{_seen(kept.get(key, {}))}"
                print(f"{key} {exercise.title}: {state}, {score}")
        else:
            done = sum(best[key] == of[key] for key in of)
            score = f"{sum(best.values())} of {sum(of.values())} marks"
            topic = path.stem[3:].replace("_", " ")
            print(f"{path.stem[:2]} {topic}: {score}, {done} of {len(of)} exercises done")
    print(f"Together: {total} of {possible} marks")
