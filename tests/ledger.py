"""The formula ledger: each numbered equation of a page beside a check that mutants must fail."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

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
            ours, theirs = (torch.as_tensor(f(*args)).double() for f in (formula, self.oracle))
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


def tags(page: Path) -> list[str]:
    """The numbers of the displayed equations of a notebook, in the order of the page.

    Fails on a displayed equation without a number, or with two.
    """
    cells = nbformat.read(page, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = [TAG.findall(equation) for equation in DISPLAYED.findall(text)]
    assert all(len(each) == 1 for each in found), "a displayed equation needs one number"
    return [each[0] for each in found]


def prove(page: Path, ledger: Mapping[str, Formula | Property]) -> type:
    """The test class of one chapter's ledger."""

    class TestLedger:
        def test_every_equation_on_the_page_has_a_check_and_every_check_an_equation(self) -> None:
            assert tags(page) == list(ledger)

        @pytest.mark.parametrize("tag", ledger)
        def test_the_equation_holds(self, tag: str) -> None:
            assert ledger[tag].agrees(ledger[tag].page)

        @pytest.mark.parametrize("tag", ledger)
        def test_wrong_versions_are_rejected(self, tag: str) -> None:
            assert ledger[tag].mutants, "a check needs at least one mutant that it rejects"
            for name, mutant in ledger[tag].mutants.items():
                assert not ledger[tag].agrees(mutant), f"accepted a wrong version: {name}"

    return TestLedger
