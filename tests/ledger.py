"""A chapter's formula ledger as tests, a name for each equation."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mslearn.ledger import Definition, Entry, Formula, Property, judge, tags

__all__ = ["Definition", "Formula", "Property", "prove", "tags"]


def prove(page: Path, ledger: Mapping[str, Entry]) -> type:
    """The test class of one chapter's ledger."""

    class TestLedger:
        def test_every_equation_on_the_page_has_a_check_and_every_check_an_equation(self) -> None:
            assert tags(page) == list(ledger)

        @pytest.mark.parametrize("tag", ledger)
        def test_the_equation_holds_and_its_wrong_versions_do_not(self, tag: str) -> None:
            verdict = judge(tag, ledger[tag])
            assert verdict, str(verdict)

    return TestLedger
