"""A set of exercises as its solutions notebook tells it: the one source of text, answers and rules.

The notebook in `solutions/` holds each exercise's text and hints (Markdown), its reference (code
cells tagged `answer`) and its rules (code cells tagged `checks`). A rule is a function of an answer
and a random generator that returns why the answer fails, or None. It knows nothing of notebooks or
processes, so the grader of a class can hand it a stand-in that asks a sandbox.
"""

import ast
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType
from typing import Any

import torch

from mslearn.cells import LEFT_OUT, Cell, defined, read_cells, with_answers, without_answers
from mslearn.home import course

HEADING = re.compile(r"^## (?P<key>\d\d\.\d+) (?P<title>.+)$", re.M)
TERMS = re.compile(
    r"^\*(?P<minutes>\d+) minutes · effort: (?P<effort>[\w-]+) · importance: (?P<importance>\w+)"
    r"(?: · reference after (?P<tries>\d+) tries)?\*$",
    re.M,
)
CHECK = re.compile(r"^check\(\"([\d.]+)\", (\w+)\)", re.M)
HINT = re.compile(r"<details>\s*<summary>Hint[^<]*</summary>(.*?)</details>", re.S)
Reason = str | None


@dataclass(frozen=True)
class Rule:
    """One property that an answer must have, worth `marks`; `test(answer, generator)` judges.

    An answer gets copies of its arguments from the grader of a class, so that it cannot change what
    it is compared with; a rule made `in_place` sees what a call has left of them. A `hidden` rule
    is the instructor's own: learners are told its marks, not its words.
    """

    key: str
    says: str
    marks: int
    test: Callable[[Any, torch.Generator], Reason]
    in_place: bool = False
    hidden: bool = False


@dataclass(frozen=True)
class Exercise:
    """One exercise; its answer is what the notebook calls `name`, its reference may be shown
    after `reference_after` different failing tries."""

    key: str
    title: str
    name: str
    minutes: int
    effort: str
    importance: str
    reference_after: int
    hints: tuple[str, ...]
    rules: tuple[Rule, ...]
    reference: Any
    stub: Any
    source: str  # of the reference's cell
    stub_source: str

    @property
    def marks(self) -> int:
        return sum(rule.marks for rule in self.rules)

    def unanswered(self, answer: Any) -> bool:
        """Whether the learner has yet to begin: the answer is the stub as it was handed out."""
        return fingerprint(answer) == fingerprint(self.stub)


@dataclass(frozen=True)
class ExerciseSet:
    """Every exercise of one chapter, by key, and the cells that an answer may count on.

    `setup` runs before any answer; `given` are the other cells as learners have them; `names` is
    what the notebook's own code defines, which an instructor's rules may use.
    """

    chapter: str
    title: str
    exercises: dict[str, Exercise]
    setup: tuple[str, ...]
    given: frozenset[str]
    names: dict[str, Any] = field(repr=False)

    @property
    def marks(self) -> int:
        return sum(exercise.marks for exercise in self.exercises.values())


def rule(
    key: str, says: str, *, marks: int = 1, in_place: bool = False
) -> Callable[[Callable], Rule]:
    """Make a rule of exercise `key` out of `test(answer, generator) -> reason | None`."""
    return lambda test: Rule(key, says, marks, test, in_place)


def paths(chapter: str = "[0-9][0-9]") -> list[Path]:
    """The solutions notebooks, of one chapter such as "03" or of all."""
    return sorted((course() / "solutions").glob(f"{chapter}_*.ipynb"))


def worth(path: Path) -> dict[str, int]:
    """The marks of each exercise, read off a solutions notebook without running it."""
    marks: dict[str, int] = {}
    for cell in read_cells(path):
        if "checks" not in cell.tags:
            continue
        for call in (
            node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)
        ):
            if isinstance(call.func, ast.Name) and call.func.id == "rule":
                given = {each.arg: each.value.value for each in call.keywords}
                key = call.args[0].value
                marks[key] = marks.get(key, 0) + given.get("marks", 1)
    return marks


def load(chapter: str) -> dict[str, Exercise]:
    """The exercises of a chapter, such as "03", by key."""
    found = paths(chapter)
    if not found:
        raise ValueError(f"there is no solutions notebook for chapter {chapter}: see solutions/")
    return load_set(found[0]).exercises


def load_set(path: Path) -> ExerciseSet:
    """The set that a solutions notebook tells; read again only when the file has changed."""
    return _load(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load(path: Path, changed: int) -> ExerciseSet:
    cells = read_cells(path)
    code = [cell for cell in cells if cell.kind == "code"]
    answered, blank = (_run(code, path.name, change) for change in (str, without_answers))
    rules = [each for each in answered.values() if isinstance(each, Rule)]
    names = dict(CHECK.findall("\n".join(cell.source for cell in code)))
    found = {}
    for text in (cell.source for cell in cells if cell.kind == "markdown"):
        heading = HEADING.search(text)
        if heading and (key := heading["key"]) in names:
            name = names[key]
            own = tuple(each for each in rules if each.key == key)
            both = answered[name], blank[name]
            told, sources = _told(key, text), _answer(key, name, code)
            found[key] = Exercise(key, heading["title"], name, *told, own, *both, *sources)
    title = re.search(r"^# (.+)$", cells[0].source, re.M)
    setup = tuple(cell.source for cell in code if {"setup", "probe"} & cell.tags)
    given = [cell.source for cell in code if not {"answer", "setup", *LEFT_OUT} & cell.tags]
    handed_out = frozenset(without_answers(source).strip() for source in given)
    name = title[1] if title else path.stem
    return ExerciseSet(path.stem[:2], name, found, setup, handed_out, answered)


def with_rules(exercises: ExerciseSet, folder: Path | None) -> ExerciseSet:
    """The set with an instructor's own rules: those of `NN*.py` in a folder outside the course.

    Such a file is run with the names of the set's own cells and of `rule`.
    """
    known, hidden = dict(exercises.exercises), []
    for path in sorted(folder.glob(f"{exercises.chapter}*.py")) if folder else ():
        names = {**exercises.names, "rule": rule}
        before = {id(each) for each in names.values()}
        try:
            exec(compile(path.read_text("utf-8"), f"<solution {path.name}>", "exec"), names)
        except Exception as error:
            raise ValueError(f"{path} does not run: {type(error).__name__}: {error}") from error
        new = [each for each in names.values() if id(each) not in before]
        hidden += [replace(each, hidden=True) for each in new if isinstance(each, Rule)]
    for each in hidden:
        if each.key not in known:
            raise ValueError(f"{folder}: a rule is for exercise {each.key}, which does not exist")
        exercise = known[each.key]
        known[each.key] = replace(exercise, rules=(*exercise.rules, each))
    return replace(exercises, exercises=known)


def _told(key: str, text: str) -> tuple[int, str, str, int, tuple[str, ...]]:
    """What an exercise's Markdown says of it: minutes, effort, importance, tries, hints."""
    terms = TERMS.search(text)
    if terms is None:
        raise ValueError(
            f"exercise {key} needs a line such as *20 minutes · effort: medium · importance: high* "
            "under its heading; ` · reference after 4 tries` may follow"
        )
    hints = tuple(" ".join(hint.split()) for hint in HINT.findall(text))
    tries = int(terms["tries"] or len(hints) + 1)
    return int(terms["minutes"]), terms["effort"], terms["importance"], tries, hints


def _answer(key: str, name: str, code: list[Cell]) -> tuple[str, str]:
    """The source of the answer called `name` and of its stub."""
    for cell in code:
        if "answer" in cell.tags and name in defined(cell.source):
            return with_answers(cell.source), without_answers(cell.source)
    raise ValueError(f"exercise {key}: no cell tagged `answer` defines {name}, which is checked")


def _run(code: list[Cell], name: str, change: Callable[[str], str]) -> dict[str, Any]:
    """Run the tagged cells of a solutions notebook and return what they define."""
    namespace: dict[str, Any] = {"__name__": f"mslearn.solutions.{name}"}
    for cell in code:
        if {"setup", "probe", "answer", "checks"} & cell.tags:
            exec(compile(change(cell.source), f"<solution {name} {cell.name}>", "exec"), namespace)
    return namespace


def fingerprint(answer: Any) -> str:
    """What tells one try from the next: the code of a function or class, or a value's text."""

    def parts(value: Any) -> Iterator[str]:
        value = getattr(value, "__func__", value)  # of a static or class method
        value = getattr(value, "__code__", value)
        if isinstance(value, CodeType):
            yield value.co_code.hex() + repr(value.co_names)
            for constant in value.co_consts:
                yield from parts(constant)
        elif isinstance(value, type):
            for name, member in sorted(vars(value).items()):
                if not name.startswith("__") or hasattr(member, "__code__"):
                    yield name
                    yield from parts(member)
        else:
            yield repr(value)

    return hashlib.sha256("\n".join(parts(answer)).encode()).hexdigest()[:16]
