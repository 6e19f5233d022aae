"""What learners hand in: found in a folder without following links, and read as nothing but text.

A learner is a folder with notebooks in it, or one notebook file, as Moodle's and Canvas's downloads
have them.
"""

import ast
import hashlib
import json
import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mslearn.cells import defined
from mslearn.exercises import Exercise, ExerciseSet

MAX_FILE = 64 << 20
DEPTH = 4  # folders within a learner's folder that are looked into
JUNK = (".ipynb_checkpoints", ".DS_Store", "._", ".git", "__MACOSX")  # what programs leave
MOODLE = re.compile(r"^(?P<name>.+)_(?P<id>\d+)_assignsubmission_")
CANVAS = re.compile(r"^(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_")
FROM = re.compile(r"solutions/(\d\d)_")
KEYS = re.compile(r"^check\(\"(\d\d)\.", re.M)


@dataclass(frozen=True)
class Submission:
    """One notebook of one learner; `problem` says why it cannot be read, if it cannot."""

    learner: str
    path: Path
    problem: str = ""


@dataclass(frozen=True)
class Notebook:
    """The code cells that were handed in, and the chapter they seem to belong to."""

    sources: tuple[str, ...]
    chapter: str


def find(folder: Path) -> list[Submission]:
    """What every learner in the folder has handed in, by name; or that it is no notebook."""
    found: list[Submission] = []
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        path = Path(entry.path)
        if entry.name.startswith(JUNK):
            continue
        if entry.is_symlink():
            found.append(Submission(path.stem, path, "this is a link, and links are not followed"))
        elif entry.is_dir(follow_symlinks=False):
            notebooks = list(_within(path, DEPTH))
            nothing = Submission(entry.name, path, "there is no notebook in this folder")
            found += [Submission(entry.name, each) for each in notebooks] or [nothing]
        elif path.suffix == ".ipynb":
            found.append(Submission(path.stem, path))
        else:
            found.append(Submission(path.stem, path, "this is no notebook (.ipynb)"))
    return found


def _within(folder: Path, depth: int) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        if entry.name.startswith(JUNK) or entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False):
            found += _within(Path(entry.path), depth - 1) if depth else []
        elif entry.name.endswith(".ipynb"):
            found.append(Path(entry.path))
    return found


def content(path: Path) -> bytes:
    """The bytes of a file; ValueError when it is a link, no plain file, or too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | _binary())
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from error
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("this is no plain file")
        if facts.st_size > MAX_FILE:
            raise ValueError(
                f"the notebook has {facts.st_size / 2**20:.0f} MB and the limit is "
                f"{MAX_FILE >> 20}: clear its outputs and hand it in again"
            )
        return file.read(MAX_FILE)


def _binary() -> int:
    return getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe would never open


def parse(raw: bytes, name: str) -> Notebook:
    """The code cells in the bytes of a notebook; ValueError when it is none."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError("this is not a notebook: it is not JSON") from error
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list):
        raise ValueError("this is not a notebook: it has no cells (save it in format 4)")
    sources = []
    for cell in cells:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source", "")
        lines = source if isinstance(source, list) else [source]
        if not all(isinstance(line, str) for line in lines):
            raise ValueError("this is not a notebook: a cell holds no text")
        sources.append("".join(lines))
    return Notebook(tuple(sources), _chapter(document, sources, name))


def _chapter(document: dict, sources: list[str], name: str) -> str:
    """The chapter whose exercises these are: by the notebook's own mark, its checks, its name."""
    metadata = document.get("metadata")
    ours = metadata.get("mslearn") if isinstance(metadata, dict) else None
    made_from = FROM.search(str(ours.get("from"))) if isinstance(ours, dict) else None
    keys = KEYS.findall("\n".join(sources))
    if made_from:
        return made_from[1]
    if keys:
        return max(sorted(set(keys)), key=keys.count)
    in_name = re.search(r"(?<!\d)(\d\d)_[a-z]", name)
    return in_name[1] if in_name else ""


def to_run(notebook: Notebook, exercises: ExerciseSet) -> dict[float, str]:
    """The code cells to run, by number from 1; not those of the set that only show or check."""
    cells = enumerate(notebook.sources, 1)
    return {n: each for n, each in cells if each.strip() and each.strip() not in exercises.given}


def answered_in(cells: dict[float, str], name: str) -> float | None:
    """The number of the cell that holds an answer: the last that defines its name, or None."""
    return max((n for n, source in cells.items() if name in defined(source)), default=None)


def is_stub(source: str, exercise: Exercise) -> bool:
    """Whether a cell is still what was handed out, whatever its comments and spaces."""
    try:
        return ast.dump(ast.parse(source)) == ast.dump(ast.parse(exercise.stub_source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def used(source: str) -> set[str]:
    """The names that a cell reads."""
    try:
        nodes = ast.walk(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\w+", source))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def clean(text: str, limit: int = 400) -> str:
    """Text of a learner's for people to read: one line, no control or direction characters."""
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", text[: 4 * limit])
    allowed = "".join(
        " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
        for c in text
        if unicodedata.category(c) != "Cs"
        and not 0x202A <= ord(c) <= 0x202E
        and not 0x2066 <= ord(c) <= 0x2069
    )
    short = " ".join(allowed.split())
    return short if len(short) <= limit else short[: limit - 1] + "…"


def slug(learner: str) -> str:
    """A file name for a learner, the same on every system and another for every learner."""
    plain = unicodedata.normalize("NFKD", learner).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()[:40] or "learner"
    return f"{plain}-{hashlib.sha256(os.fsencode(learner)).hexdigest()[:8]}"


def accounts(learner: str) -> dict[str, str]:
    """Name and number that a learning platform has put into the name of a download."""
    for platform, pattern in (("moodle", MOODLE), ("canvas", CANVAS)):
        if match := pattern.match(learner):
            return {"name": match["name"], platform: match["id"]}
    return {"name": learner}
