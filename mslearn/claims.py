"""The claims of the article, each with its verdict and the places where the course settles it.

The table stands in the appendix, `notebooks/A_the_article_tested.ipynb`: a row for each claim. The
chapters say where they settle one by naming its id in their text.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mslearn.home import course

# Where CURRICULUM puts each claim: the chapters that have to speak of it.
CHAPTERS = {
    "C1": "11", "C2": "19", "C3": "10 12", "C4": "04", "C5": "03", "C6": "03", "C7": "08",
    "C8": "07", "C9": "06", "C10": "01", "C11": "02", "C12": "13 14", "C13": "15", "C14": "16",
    "C15": "17", "C16": "06 11", "C17": "05", "C18": "20",
    "X1": "03", "X2": "03", "X3": "04", "X4": "08", "X5": "08", "X6": "08", "X7": "07",
    "X8": "06", "X9": "01", "X10": "02",
    "E1": "19", "E2": "19", "E3": "19", "E4": "19 20", "E5": "19",
}  # fmt: skip
APPENDIX = "A_the_article_tested.ipynb"
VERDICTS = ("right", "right, with a limit", "wrong, corrected", "measured", "not yet")
ID = re.compile(r"\b([CXE]\d{1,2})\b")
ROW = re.compile(r"^\| *([CXE]\d{1,2}) *\|(.+)\|$", re.M)
LINK = re.compile(r"\]\((\d\d)_\w+\.ipynb[^)]*\)")
HEADING = re.compile(r"^#{1,6} +(.+)$", re.M)


@dataclass(frozen=True)
class Claim:
    """One row of the table; `chapters` are those that its text links to."""

    id: str
    says: str
    verdict: str
    found: str

    @property
    def chapters(self) -> list[str]:
        return LINK.findall(self.found)


class Place(NamedTuple):
    """Where a page names a claim: its chapter's number and the section's heading."""

    chapter: str
    section: str


def table(page: Path | None = None) -> list[Claim]:
    """The rows of the appendix, in its order. Raises ValueError for a row of another width."""
    claims = []
    for name, rest in ROW.findall(text_of(page or course() / "notebooks" / APPENDIX)):
        cells = [cell.strip() for cell in rest.split("|")]
        if len(cells) != 3:
            raise ValueError(f"row {name}: expected claim, verdict and what was found, got {rest}")
        claims.append(Claim(name, *cells))
    return claims


def places() -> dict[str, list[Place]]:
    """Every place in the chapters that names a claim, by its id."""
    found: dict[str, list[Place]] = {}
    for page in sorted((course() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        section = ""
        for line in text_of(page).splitlines():
            heading = HEADING.match(line)
            section = heading[1] if heading else section
            for name in ID.findall(line):
                place = Place(page.stem[:2], section)
                if name in CHAPTERS and place not in found.setdefault(name, []):
                    found[name].append(place)
    return found


def text_of(page: Path) -> str:
    """The Markdown of a notebook, its cells one after the other."""
    import nbformat

    cells = nbformat.read(page, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def finished() -> set[str]:
    """The numbers of the chapters that exist."""
    return {page.stem[:2] for page in (course() / "notebooks").glob("[0-9][0-9]_*.ipynb")}


def faults() -> list[str]:
    """What is wrong with the register, a sentence each; empty when the pages keep it."""
    rows, where, wrong = table(), places(), []
    if [row.id for row in rows] != list(CHAPTERS):
        wrong.append("the appendix has not one row for each claim, in their order")
    for row in rows:
        chapters, there = CHAPTERS[row.id].split(), finished()
        named = {place.chapter for place in where.get(row.id, [])}
        wrong += [
            f"{row.id} belongs to chapter {chapter}, which does not name it"
            for chapter in chapters
            if chapter in there and chapter not in named
        ]
        if row.verdict not in VERDICTS:
            wrong.append(f"{row.id} has the verdict {row.verdict!r}: one of {VERDICTS} is expected")
        elif there.issuperset(chapters) and row.verdict == "not yet":
            wrong.append(f"{row.id} is settled in chapter {' and '.join(chapters)}: say how")
        elif not there.intersection(chapters) and row.verdict != "not yet":
            wrong.append(f"{row.id} has a verdict but its chapter is not written")
        if missing := there.intersection(chapters) - set(row.chapters):
            wrong.append(f"{row.id} has no link to chapter {', '.join(sorted(missing))}")
    return wrong
