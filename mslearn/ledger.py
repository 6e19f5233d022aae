"""The formula ledger: each numbered equation of a page beside a check that wrong versions fail.

A chapter's checks are the `LEDGER` of its test file, by equation number. `mslearn ledger` runs all
of them, every mutant included, and prints the table; the tests run the same.
"""

import argparse
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch

from mslearn.home import course

TAG = re.compile(r"\\tag\{([\d.]+)\}")
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.S)


@dataclass(frozen=True)
class Formula:
    """What the page says (`page`), an independent `oracle`, and wrong versions it must not equal.

    All take what `inputs(generator)` gives, in float64.
    """

    inputs: Callable[[torch.Generator], tuple]
    page: Callable[..., Any]
    oracle: Callable[..., Any]
    mutants: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def agrees(self, formula: Callable[..., Any], seeds: int = 5) -> bool:
        """Whether a version of the formula equals the oracle to 1e-9 on every seed's inputs."""
        for seed in range(seeds):
            args = self.inputs(torch.Generator().manual_seed(seed))
            ours, theirs = (
                torch.as_tensor(f(*args), dtype=torch.float64) for f in (formula, self.oracle)
            )
            if ours.shape != theirs.shape or not torch.allclose(ours, theirs, 1e-9, 1e-11):
                return False
        return True


@dataclass(frozen=True)
class Property:
    """What the page says, and a check of it that speaks for itself: it asserts, or passes."""

    check: Callable[[Any], None]
    page: Any
    mutants: Mapping[str, Any] = field(default_factory=dict)

    def agrees(self, formula: Any) -> bool:
        """Whether a version of the formula passes the check."""
        try:
            self.check(formula)
        except AssertionError:
            return False
        return True


@dataclass(frozen=True)
class Definition:
    """An equation that only gives something a name; `reason` says why nothing can be checked."""

    reason: str
    page: ClassVar[None] = None
    mutants: ClassVar[Mapping[str, Any]] = {}

    def agrees(self, formula: Any) -> bool:
        """A definition holds where it says why it is one."""
        return len(self.reason.split()) >= 4


Entry = Formula | Property | Definition


@dataclass(frozen=True)
class Verdict:
    """What became of one equation: does its check pass, and which wrong versions passed too."""

    tag: str
    entry: Entry | None
    holds: bool
    survivors: tuple[str, ...] = ()
    wrong: str = ""

    def __bool__(self) -> bool:
        return self.holds and not self.survivors and not self.wrong

    def __str__(self) -> str:
        kind = type(self.entry).__name__.lower() if self.entry else "-"
        rejects = ", ".join(self.entry.mutants) if self.entry else ""
        if isinstance(self.entry, Definition):
            rejects = self.entry.reason
        said = self.wrong or ("holds" if self.holds else "DOES NOT HOLD")
        if self.survivors:
            said = f"ACCEPTS WRONG: {', '.join(self.survivors)}"
        return f"{self.tag:<7} {kind:<11} {said:<7} {rejects}"


def tags(page: Path) -> list[str]:
    """The numbers of the displayed equations of a notebook, in the order of the page.

    Raises ValueError on a displayed equation without a number, or with two.
    """
    import nbformat

    cells = nbformat.read(page, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = []
    for equation in DISPLAYED.findall(text):
        numbers = TAG.findall(equation)
        if len(numbers) != 1:
            raise ValueError(
                f"{page.name}: a displayed equation needs one number, got {len(numbers)} in "
                f"{' '.join(equation.split())[:60]!r}: add \\tag{{N.M}}, or set it in the line"
            )
        found += numbers
    return found


def judge(tag: str, entry: Entry) -> Verdict:
    """Check one equation, and every wrong version of it."""
    survivors = tuple(name for name, mutant in entry.mutants.items() if entry.agrees(mutant))
    bare = not entry.mutants and not isinstance(entry, Definition)
    return Verdict(tag, entry, entry.agrees(entry.page), survivors, "NO MUTANT" if bare else "")


def verdicts(page: Path, ledger: Mapping[str, Entry]) -> Iterator[Verdict]:
    """One verdict for each equation of the page, then one for each check that belongs to none."""
    numbers = tags(page)
    for tag in numbers:
        missing = Verdict(tag, None, False, wrong="NO CHECK")
        yield judge(tag, ledger[tag]) if tag in ledger else missing
    for tag in ledger.keys() - set(numbers):
        yield Verdict(tag, ledger[tag], False, wrong="NO EQUATION")
    for tag in sorted({tag for tag in numbers if numbers.count(tag) > 1}):
        yield Verdict(tag, None, False, wrong="NUMBER USED TWICE")


def checks(page: Path) -> Mapping[str, Entry]:
    """The `LEDGER` of the chapter's test file, `tests/test_NN_topic.py`; empty where none is."""
    path = page.parent.parent / "tests" / f"test_{page.stem}.py"
    return getattr(tables(path), "LEDGER", {})


@functools.cache
def tables(path: Path) -> ModuleType | None:
    """A test file as a module, for the tables in it; None where there is no such file."""
    if not path.exists():
        return None
    sys.path.insert(0, str(path.parent))  # test files share helpers of their folder
    try:
        spec = importlib.util.spec_from_file_location(f"tables_of_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error}: the tables live with the tests; install them with `pip install -e .[test]`"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def pages() -> list[Path]:
    """Every notebook of the course that displays an equation."""
    return [page for page in sorted((course() / "notebooks").glob("*.ipynb")) if tags(page)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `mslearn ledger`."""
    parser.add_argument("chapters", nargs="*", metavar="NN", help="chapters; all by default")


def command(arguments: argparse.Namespace) -> int:
    """Print the ledger; 1 when an equation has no check, fails it, or a wrong version passes."""
    chosen = [p for p in pages() if not arguments.chapters or p.stem[:2] in arguments.chapters]
    if unknown := set(arguments.chapters) - {page.stem[:2] for page in chosen}:
        raise ValueError(
            f"no chapter {', '.join(sorted(unknown))} with equations; there are "
            f"{', '.join(page.stem[:2] for page in pages())}"
        )
    every: list[Verdict] = []
    for page in chosen:
        print(f"\n{page.stem}\nnumber  kind        verdict rejects")
        for verdict in verdicts(page, checks(page)):
            print(verdict, flush=True)
            every.append(verdict)
    mutants = sum(len(verdict.entry.mutants) for verdict in every if verdict.entry)
    wrong = sum(not verdict for verdict in every)
    proved = f"{len(every) - wrong} proved, {wrong} not"
    print(f"\n{len(every)} equations, {proved}; {mutants} wrong versions tried")
    return 1 if wrong else 0
