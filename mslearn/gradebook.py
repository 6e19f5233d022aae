"""A class's marks: kept for each notebook as it is marked, then together as JSON and CSV."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mslearn.check import read_json, write_json
from mslearn.exercises import Exercise, ExerciseSet, paths
from mslearn.judge import Place, Row
from mslearn.submission import clean, slug

NOTHING = "nothing was handed in"
SAFE, UNSAFE = "bubblewrap", "none (--unsafe)"


@dataclass(frozen=True)
class Record:
    """What became of one notebook. `terms` and `sha256` tell whether it still holds."""

    learner: str
    file: str
    chapter: str
    sha256: str
    terms: str
    problem: str = ""
    rows: dict[Place, Row] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def write(self, folder: Path) -> None:
        """Keep it in the folder of records."""
        rows = [[*row.place, row.reason, row.through] for row in self.rows.values()]
        write_json(_place(folder, self.file), {**vars(self), "rows": rows})

    @classmethod
    def read(cls, folder: Path, file: str) -> "Record | None":
        """The record of a notebook, if there is a whole one."""
        kept = read_json(_place(folder, file))
        try:
            rows = {(k, n): Row((k, n), why, tuple(by)) for k, n, why, by in kept.pop("rows")}
            return cls(**{**kept, "rows": rows, "notes": tuple(kept["notes"])})
        except (KeyError, TypeError, ValueError):
            return None


def _place(folder: Path, file: str) -> Path:
    return folder / f"{slug(file)}.json"


@dataclass(frozen=True)
class Result:
    """One learner's marks in the sets of the class; `records` holds the notebook of each."""

    learner: str
    records: Mapping[str, Record]
    sets: Mapping[str, ExerciseSet]
    remarks: tuple[str, ...]

    @property
    def marks(self) -> int:
        return sum(self.in_set(chapter) for chapter in self.sets)

    @property
    def of(self) -> int:
        return sum(each.marks for each in self.sets.values())

    def in_set(self, chapter: str) -> int:
        """Marks in one set."""
        return sum(self.in_exercise(each) for each in self.sets[chapter].exercises.values())

    def in_exercise(self, exercise: Exercise) -> int:
        """Marks in one exercise."""
        rows = self.rows(exercise)
        return sum(rule.marks for rule, row in rows if not row.reason)

    def rows(self, exercise: Exercise) -> list[tuple[Any, Row]]:
        """Each rule of an exercise with its verdict."""
        record = self.records.get(exercise.key.split(".")[0])
        found = record.rows if record else {}
        nothing = NOTHING if record is None or record.problem else "not judged"
        places = ((exercise.key, number) for number in range(len(exercise.rules)))
        rows = [found.get(place, Row(place, nothing)) for place in places]
        return list(zip(exercise.rules, rows, strict=True))


def results(records: Iterable[Record], sets: Mapping[str, ExerciseSet]) -> list[Result]:
    """The learners' results, by name. Of two notebooks of one set, that with the set's name counts,
    else the last."""
    by_learner: dict[str, list[Record]] = {}
    for record in records:
        by_learner.setdefault(record.learner, []).append(record)
    found = []
    for learner, own in sorted(by_learner.items()):
        remarks, counted = [], {}
        for record in sorted(own, key=_standing):
            if record.problem:
                remarks.append(f"{clean(Path(record.file).name)}: {record.problem}")
            elif record.chapter in counted:
                other = clean(Path(counted[record.chapter].file).name)
                remarks.append(f"{other} was not counted: set {record.chapter} was found twice")
            if not record.problem or record.chapter not in counted:
                counted[record.chapter] = record
        remarks += [note for record in counted.values() for note in record.notes]
        found.append(Result(learner, counted, sets, tuple(remarks)))
    return found


def _standing(record: Record) -> tuple[bool, str]:
    own = [path.name for path in paths(record.chapter)] if record.chapter else []
    return Path(record.file).name in own, record.file


def write_books(folder: Path, results: list[Result], unsafe: bool) -> None:
    """Write `gradebook.json` and `gradebook.csv`."""
    sandbox = UNSAFE if unsafe else SAFE
    learners = [_told(result) for result in results]
    write_json(folder / "gradebook.json", {"sandbox": sandbox, "learners": learners})
    sets = results[0].sets.values()
    exercises = [each for s in sets for each in s.exercises.values()]
    head = ["learner", "marks", "of", "sandbox"]
    head += [f"{each.key} (of {each.marks})" for each in exercises]
    lines = [[*head, "remarks"]]
    for result in results:
        line = [clean(result.learner), result.marks, result.of, sandbox]
        line += [result.in_exercise(each) for each in exercises]
        lines.append([*line, "; ".join(result.remarks)])
    write_csv(folder / "gradebook.csv", lines)


def _told(result: Result) -> dict[str, Any]:
    exercises = {}
    for each in (e for s in result.sets.values() for e in s.exercises.values()):
        properties = [
            {
                "property": rule.says,
                "marks": 0 if row.reason else rule.marks,
                "of": rule.marks,
                "reason": row.reason,
                "with_reference_to": list(row.through),
                "hidden": rule.hidden,
            }
            for rule, row in result.rows(each)
        ]
        marks = {"marks": result.in_exercise(each), "of": each.marks}
        exercises[each.key] = {"title": each.title, **marks, "properties": properties}
    totals = {"learner": clean(result.learner), "marks": result.marks, "of": result.of}
    return {**totals, "remarks": list(result.remarks), "exercises": exercises}


def write_csv(path: Path, lines: Iterable[Iterable[Any]]) -> None:
    """Replace a CSV file at once. A text that a spreadsheet would compute is kept a text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([[_text(v) for v in line] for line in lines])
    replace_file(path, text.getvalue().encode())


def _text(value: Any) -> Any:
    formula = isinstance(value, str) and len(value) > 1 and value[0] in "=+-@"
    return f"'{value}" if formula else value


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
