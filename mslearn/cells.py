"""The cells of a notebook, read as plain JSON, and a solution's cells as the learner finds them."""

import ast
import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

STUB = "raise NotImplementedError  # your answer"
REGION = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n(.*?)^[ \t]*# END SOLUTION$", re.M | re.S)
STUB_LINE = re.compile(r"^([ \t]*)# STUB ?(.*)$", re.M)
MARKER = re.compile(r"^[ \t]*# (?:BEGIN SOLUTION|END SOLUTION|STUB.*)\n?", re.M)
LEFT_OUT = {"checks", "solution", "probe"}  # tags of cells that only the solutions notebook has


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook; `tags` say what it is for."""

    kind: str
    source: str
    tags: frozenset[str] = frozenset()
    name: str = ""


def read_cells(path: Path) -> list[Cell]:
    """The cells of a notebook file. Plain JSON, for nbformat takes seconds to import."""
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        return [
            Cell(
                cell["cell_type"],
                "".join(cell["source"]),
                frozenset(cell["metadata"].get("tags", ())),
                cell.get("id", ""),
            )
            for cell in cells
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook: {error!r}") from error


def defined(source: str) -> set[str]:
    """The names that a cell defines at its top level; found by their look where it is no Python."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"^(?:(?:async )?def |class )?(\w+)(?=\s*[(:=])", source, re.M))
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound = (each for target in targets for each in ast.walk(target))
            names |= {each.id for each in bound if _is_bound(each)}
    return names


def _is_bound(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def with_answers(source: str) -> str:
    """A solution's source without the marks of where its answers are."""
    return MARKER.sub("", source)


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


def exercises(solution: "NotebookNode") -> "NotebookNode":
    """The learner's notebook: answers become stubs; cells tagged `checks` or `solution` go."""
    made = copy.deepcopy(solution)
    made.cells = [cell for cell in made.cells if not LEFT_OUT & set(cell.metadata.get("tags", []))]
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.source = without_answers(cell.source)
            cell.outputs, cell.execution_count = [], None
    return made
