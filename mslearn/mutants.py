"""Small faults put into reference answers: which of them do the checks catch?

A mutant differs from the reference in one place of its syntax tree: an operator, a comparison, a
constant, a name such as `mean` for `sum`, a keyword, bound or statement left out. One that earns
full marks has survived: either it is as right as the reference, or a check is missing.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from mslearn import sandbox
from mslearn.exercises import Exercise, ExerciseSet, load_set, paths
from mslearn.grade import AnswerError, judge
from mslearn.home import course
from mslearn.ledger import tables
from mslearn.remote import Limits, Remote

LIMITS = Limits(call=20.0, total=3600.0)
PAIRED_OPERATORS = (
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
    (ast.Pow, ast.Mult),
    (ast.FloorDiv, ast.Div),
    (ast.Mod, ast.FloorDiv),
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.In, ast.NotIn),
    (ast.Is, ast.IsNot),
    (ast.And, ast.Or),
    (ast.USub, ast.UAdd),
)
PAIRED_NAMES = (
    "sum mean  amax amin  argmax argmin  max min  any all  exp log  log2 log  softmax log_softmax  "
    "zeros ones  zeros_like ones_like  sqrt square  cos sin  tril triu  rand randn  floor ceil"
)
OPERATORS = {b: a for a, b in reversed(PAIRED_OPERATORS)} | dict(PAIRED_OPERATORS)
NAMES = {b: a for a, b in (pair.split() for pair in PAIRED_NAMES.split("  "))}
NAMES |= dict(pair.split() for pair in PAIRED_NAMES.split("  "))
BUILTINS = {"max", "min", "any", "all"}  # other names of the table are no functions by themselves


@dataclass(frozen=True)
class Mutant:
    """One faulty version of a reference; `change` says what differs, and in which line."""

    key: str
    change: str
    source: str

    def __str__(self) -> str:
        return f"{self.key}: {self.change}"


def mutants(exercise: Exercise) -> Iterator[Mutant]:
    """Every faulty version of an exercise's reference, in the order of its source."""
    tree, lines = ast.parse(exercise.source), exercise.source.splitlines()
    seen, names = {ast.unparse(tree)}, set()
    for node in _run(tree):
        for change, name, value in _changes(node):
            before = getattr(node, name)
            setattr(node, name, value)
            source = ast.unparse(ast.fix_missing_locations(tree))
            setattr(node, name, before)
            line = lines[node.lineno - 1].strip() if hasattr(node, "lineno") else ""
            text = f"{change} in `{line}`"
            while text in names:
                text += " again"
            if source not in seen:
                seen.add(source)
                names.add(text)
                yield Mutant(exercise.key, text, source)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are run: no annotations, no docstrings."""
    yield node
    if _negative(node):
        return
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for each in child if isinstance(child, list) else [child]:
            if isinstance(each, ast.AST) and not _is_text(each):
                yield from _run(each)


def _negative(node: ast.AST) -> bool:
    """Whether this is a number such as −1, which the tree holds as minus and 1."""
    number = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
    return number and isinstance(node.op, ast.USub) and type(node.operand.value) is int


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[tuple[str, str, Any]]:
    """The faults that can be made at a node: what it is called, the field, its new value."""
    if _negative(node):
        value = node.operand.value
        yield f"-{value} → {1 - value}", "operand", ast.Constant(value - 1)
        return
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) | ast.UnaryOp(op=op):
            if type(op) in OPERATORS:
                yield _became(op), "op", OPERATORS[type(op)]()
        case ast.Compare(ops=ops):
            for n, op in enumerate(ops):
                yield _became(op), "ops", [*ops[:n], OPERATORS[type(op)](), *ops[n + 1 :]]
        case ast.Constant(value=bool(value)):
            yield f"{value} → {not value}", "value", not value
        case ast.Constant(value=int(value)):
            yield f"{value} → {value + 1}", "value", value + 1
        case ast.Constant(value=float(value)):
            other = 2 * value or 1.0
            yield f"{value} → {other}", "value", other
        case ast.Attribute(attr=name) if name in NAMES:
            yield f"{name} → {NAMES[name]}", "attr", NAMES[name]
        case ast.Name(id=name) if name in BUILTINS:
            yield f"{name} → {NAMES[name]}", "id", NAMES[name]
        case ast.Call(keywords=keywords, args=args):
            for n, each in enumerate(keywords):
                yield f"no {each.arg}=", "keywords", keywords[:n] + keywords[n + 1 :]
            if len(args) > 1:
                yield "arguments swapped", "args", [args[1], args[0], *args[2:]]
        case ast.Slice(lower=lower, upper=upper):
            yield from (("no lower bound", "lower", None),) if lower else ()
            yield from (("no upper bound", "upper", None),) if upper else ()
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield "condition turned", "test", ast.UnaryOp(ast.Not(), test)
        case ast.comprehension(ifs=[_, *rest]):
            yield "no condition", "ifs", rest
    body = getattr(node, "body", None)
    for n, each in enumerate(body if isinstance(body, list) else []):
        if isinstance(each, ast.AugAssign | ast.Expr) and not _is_text(each):
            yield f"no `{ast.unparse(each)}`", "body", [*body[:n], ast.Pass(), *body[n + 1 :]]


def _became(operator: ast.AST) -> str:
    return f"{type(operator).__name__} → {OPERATORS[type(operator)].__name__}"


def survivors(exercises: ExerciseSet, seed: int = 0) -> tuple[int, list[Mutant]]:
    """How many mutants the references of a set have, and those that the checks let through.

    They run in a process of their own, without a sandbox: they are ours, but may never end.
    """
    every = [mutant for each in exercises.exercises.values() for mutant in mutants(each)]
    remote, alive = None, []
    try:
        for mutant in every:
            if remote is None or remote.ended:
                process = sandbox.start(sandbox.worker_code(), unsafe=True)
                remote = Remote(process, LIMITS, monotonic() + LIMITS.total)
                remote.start(exercises.setup)
            for each in exercises.exercises.values():  # an answer may build on another
                remote.run(each.source)
            if _passes(remote, exercises.exercises[mutant.key], mutant, seed):
                alive.append(mutant)
    finally:
        if remote is not None:
            remote.close()
    return len(every), alive


def _passes(remote: Remote, exercise: Exercise, mutant: Mutant, seed: int) -> bool:
    """Whether a mutant earns full marks."""
    try:
        remote.run(mutant.source)
        for rule in exercise.rules:
            remote.in_place = rule.in_place
            if judge(rule, remote.get(exercise.name), seed):
                return False
    except AnswerError:
        return False
    return True


def reasons(chapter: str) -> Mapping[str, str]:
    """Why mutants of a set may survive: `SURVIVORS` in the test file of its exercises."""
    return getattr(tables(course() / "tests" / f"test_{chapter}_exercises.py"), "SURVIVORS", {})


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `mslearn mutate`."""
    parser.add_argument("chapters", nargs="*", metavar="NN", help="sets; all by default")


def command(arguments: argparse.Namespace) -> int:
    """Print, for each set, how many mutants are caught, and why the others are not."""
    total = caught = 0
    for path in paths():
        if arguments.chapters and path.stem[:2] not in arguments.chapters:
            continue
        every, alive = survivors(load_set(path))
        known = reasons(path.stem[:2])
        print(f"{path.stem}: {every - len(alive)} of {every} caught", flush=True)
        for mutant in alive:
            print(f"  {mutant}\n    {known.get(str(mutant), 'NO REASON IS GIVEN')}")
        total, caught = total + every, caught + every - len(alive)
    if not total:
        raise ValueError(f"no set {', '.join(arguments.chapters)}: see solutions/")
    print(f"Together: {caught} of {total}, {caught / total:.1%}")
    return 0 if caught >= 0.9 * total else 1
