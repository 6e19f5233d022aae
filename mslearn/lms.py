"""Marks in the files that learning platforms import, by the columns that they document.

- Moodle: the columns of an assignment's grading worksheet, which is uploaded there; in *Grades →
  Import → CSV* the same file is mapped by e-mail address or ID number.
- Canvas: the columns of its gradebook's export; *Grades → Import*.
- nbgrader: the columns of `nbgrader export`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from mslearn.exercises import ExerciseSet
from mslearn.gradebook import Result, write_csv
from mslearn.submission import accounts, clean

ROSTER = "learner, name, email, id, username, section, moodle, canvas"
MOODLE = ["Identifier", "Full name", "ID number", "Email address", "Grade", "Maximum Grade"]
MOODLE += ["Last modified (grade)", "Feedback comments"]
CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
NBGRADER = ["assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"]
NBGRADER += ["raw_score", "late_submission_penalty", "score", "max_score"]
Roster = Mapping[str, Mapping[str, str]]


def read_roster(path: Path | None) -> dict[str, dict[str, str]]:
    """Who the learners are, by the names of their folders or files: a CSV with `ROSTER`'s columns.

    All but `learner` may be missing. `moodle` is the participant's number, `canvas` the user's.
    """
    if path is None:
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines or "learner" not in lines[0]:
        raise ValueError(f"{path} needs a column `learner`; it may have {ROSTER}")
    return {line["learner"]: {k: v or "" for k, v in line.items() if k} for line in lines}


def write_all(
    folder: Path, results: Sequence[Result], sets: Mapping[str, ExerciseSet], roster: Roster
) -> None:
    """Write `moodle-NN.csv` for each set, `canvas.csv` and `nbgrader.csv`."""
    people = [{**accounts(each.learner), **roster.get(each.learner, {})} for each in results]
    both = list(zip(results, people, strict=True))
    for chapter, exercises in sets.items():
        write_csv(folder / f"moodle-{chapter}.csv", _moodle(both, chapter, exercises))
    write_csv(folder / "canvas.csv", _canvas(both, sets))
    write_csv(folder / "nbgrader.csv", _nbgrader(both, sets))


def _moodle(both: Sequence, chapter: str, exercises: ExerciseSet) -> list[list]:
    lines: list[list] = [MOODLE]
    for result, person in both:
        participant = f"Participant {person['moodle']}" if person.get("moodle") else ""
        who = [participant, _name(person), person.get("id", ""), person.get("email", "")]
        marks = [result.in_set(chapter), exercises.marks, "-"]
        lines.append([*who, *marks, _feedback(result, exercises)])
    return lines


def _feedback(result: Result, exercises: ExerciseSet) -> str:
    each = (f"{e.key}: {result.in_exercise(e)} of {e.marks}" for e in exercises.exercises.values())
    return ", ".join(each)


def _canvas(both: Sequence, sets: Mapping[str, ExerciseSet]) -> list[list]:
    titles = [each.title for each in sets.values()]
    lines = [[*CANVAS, *titles]]
    lines.append(["    Points Possible", "", "", "", "", *(each.marks for each in sets.values())])
    for result, person in both:
        who = [_name(person), *(person.get(k, "") for k in ("canvas", "id", "username", "section"))]
        lines.append([*who, *(result.in_set(chapter) for chapter in sets)])
    return lines


def _nbgrader(both: Sequence, sets: Mapping[str, ExerciseSet]) -> list[list]:
    lines: list[list] = [NBGRADER]
    for chapter, exercises in sets.items():
        for result, person in both:
            first, _, last = _name(person).rpartition(" ")
            who = [person.get("id") or clean(result.learner), last, first, person.get("email", "")]
            marks = float(result.in_set(chapter))
            name = f"{chapter} {exercises.title}"
            lines.append([name, "", "", *who, marks, 0.0, marks, float(exercises.marks)])
    return lines


def _name(person: Mapping[str, str]) -> str:
    return clean(person.get("name", ""))
