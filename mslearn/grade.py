"""Checking an exercise at once: a row for each property, marks, a reason, and hints by tries.

One source: the notebook in `solutions/` holds each exercise's text and hints (Markdown), its
reference (code cells tagged `answer`) and its rules (code cells tagged `checks`). A rule is a
function of an answer and a random generator that returns why the answer fails, or None. It knows
nothing of notebooks or processes, so a class grader can hand it a stand-in that asks a sandbox.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import torch

from mslearn.check import read_json, write_json
from mslearn.home import course, home

HEADING = re.compile(r"^## (?P<key>\d\d\.\d+) (?P<title>.+)$", re.M)
CHECK = re.compile(r"^check\(\"([\d.]+)\", (\w+)\)", re.M)
HINT = re.compile(r"<details>\s*<summary>Hint[^<]*</summary>(.*?)</details>", re.S)
STUB = "raise NotImplementedError  # your answer"
REGION = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n(.*?)^[ \t]*# END SOLUTION$", re.M | re.S)
STUB_LINE = re.compile(r"^([ \t]*)# STUB ?(.*)$", re.M)
Reason = str | None


@dataclass(frozen=True)
class Rule:
    """One property that an answer must have, worth `marks`; `test(answer, generator)` judges."""

    key: str
    says: str
    marks: int
    test: Callable[[Any, torch.Generator], Reason]


@dataclass(frozen=True)
class Exercise:
    """One exercise as its solutions notebook tells it."""

    key: str
    title: str
    hints: tuple[str, ...]
    rules: tuple[Rule, ...]
    reference: Any
    stub: Any

    @property
    def marks(self) -> int:
        return sum(rule.marks for rule in self.rules)

    def unanswered(self, answer: Any) -> bool:
        """Whether the learner has yet to begin: the answer is the stub as it was handed out."""
        return fingerprint(answer) == fingerprint(self.stub)


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


def rule(key: str, says: str, *, marks: int = 1) -> Callable[[Callable], Rule]:
    """Make a rule of exercise `key` out of `test(answer, generator) -> reason | None`."""
    return functools.partial(Rule, key, says, marks)


def without_answers(source: str) -> str:
    """A solution's source as the learner finds it: each answer gives way to its stub.

    The stub is what the region's `# STUB` lines hold, or else a plain to-do.
    """

    def stub(region: re.Match) -> str:
        lines = STUB_LINE.findall(region[2])
        return "\n".join(indent + text for indent, text in lines) or region[1] + STUB

    replaced = REGION.sub(stub, source)
    if re.search(r"# (BEGIN|END) SOLUTION|# STUB", replaced):
        raise ValueError(f"a solution's markers do not pair up in this cell:\n{source}")
    return replaced


def mark(exercise: Exercise, answer: Any, seed: int = 0) -> list[Row]:
    """Judge an answer by every rule, each on inputs of its own drawn from `seed`."""
    return [Row(each, _judge(each, answer, seed) or "") for each in exercise.rules]


def _judge(each: Rule, answer: Any, seed: int) -> Reason:
    try:
        return each.test(answer, torch.Generator().manual_seed(seed))
    except Exception as error:  # a learner's code may raise anything; the next rule still runs
        first = (str(error).strip() or "no message").splitlines()[0]
        return f"your code raised {type(error).__name__}: {first}"


def load(chapter: str) -> dict[str, Exercise]:
    """The exercises of a chapter, such as "03", by key, from its solutions notebook."""
    paths = sorted((course() / "solutions").glob(f"{chapter}_*.ipynb"))
    if not paths:
        raise ValueError(f"there is no solutions notebook for chapter {chapter}: see solutions/")
    return _load(paths[0], paths[0].stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load(path: Path, changed: int) -> dict[str, Exercise]:
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    answered, blank = (_run(code, path.name, change) for change in (str, without_answers))
    rules = [each for each in answered.values() if isinstance(each, Rule)]
    names = dict(CHECK.findall("\n".join(cell.source for cell in code)))
    found = {}
    for cell in cells:
        heading = HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        if heading and (key := heading["key"]) in names:
            hints = tuple(" ".join(hint.split()) for hint in HINT.findall(cell.source))
            own = tuple(each for each in rules if each.key == key)
            both = (answered[names[key]], blank[names[key]])
            found[key] = Exercise(key, heading["title"], hints, own, *both)
    return found


def _run(code: list, name: str, change: Callable[[str], str]) -> dict[str, Any]:
    """Run the tagged cells of a solutions notebook and return what they define."""
    namespace: dict[str, Any] = {"__name__": f"mslearn.solutions.{name}"}
    for cell in code:
        if {"setup", "answer", "checks"} & set(cell.metadata.get("tags", [])):
            exec(compile(change(cell.source), f"<{name} {cell.id}>", "exec"), namespace)
    return namespace


def fingerprint(answer: Any) -> str:
    """What tells one try from the next: a function's code, or a value's text."""

    def parts(code: CodeType) -> Iterator[str]:
        yield code.co_code.hex() + repr(code.co_names)
        for constant in code.co_consts:
            yield from parts(constant) if isinstance(constant, CodeType) else [repr(constant)]

    code = getattr(answer, "__code__", None)
    text = "\n".join(parts(code)) if isinstance(code, CodeType) else repr(answer)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(key: str, answer: Any) -> None:
    """Print each property of the answer with its marks and reason, then the hint that is due.

    A first failing try brings the first hint, a changed one the next. Unanswered is "to do" and
    counts as no try. The best marks and the tries are kept in the learner's `progress.json`.
    """
    exercise = load(key.split(".")[0]).get(key)
    if exercise is None:
        raise ValueError(
            f"there is no exercise {key}: the heading above your answer has its number"
        )
    print(f"{key} {exercise.title}")
    if exercise.unanswered(answer):
        print(f"  to do (0 of {exercise.marks})")
        return
    rows = mark(exercise, answer)
    marks = sum(row.marks for row in rows)
    tries = _keep(exercise, answer, marks)
    print(*rows, sep="\n")
    print(f"  {marks} of {exercise.marks} marks")
    if marks < exercise.marks and exercise.hints:
        due = min(tries, len(exercise.hints))
        print(f"  Hint {due} of {len(exercise.hints)}: {exercise.hints[due - 1]}")


def _keep(exercise: Exercise, answer: Any, marks: int) -> int:
    """Store best marks and this try; returns the number of different failing tries so far."""
    path = home() / "progress.json"
    progress = read_json(path)
    entry = progress.setdefault(exercise.key, {"marks": 0, "tries": []})
    entry.update(marks=max(entry["marks"], marks), of=exercise.marks)
    name = fingerprint(answer)
    if marks < exercise.marks and name not in entry["tries"]:
        entry["tries"].append(name)
    write_json(path, progress)
    return len(entry["tries"])


def progress(chapter: str = "[0-9][0-9]") -> None:
    """Print the best marks so far, a line for each exercise: of one chapter, or of all."""
    kept, total, possible = read_json(home() / "progress.json"), 0, 0
    paths = sorted((course() / "solutions").glob(f"{chapter}_*.ipynb"))
    every = [each for path in paths for each in load(path.name[:2]).values()]
    for exercise in every:
        marks = min(kept.get(exercise.key, {}).get("marks", 0), exercise.marks)
        state = "done" if marks == exercise.marks else "begun" if exercise.key in kept else "to do"
        print(f"{exercise.key} {exercise.title}: {state}, {marks} of {exercise.marks} marks")
        total, possible = total + marks, possible + exercise.marks
    print(f"Together: {total} of {possible} marks")
