"""A small set whose answers build on each other, for tests of the graders."""

import json
from pathlib import Path

from mslearn import exercises, sandbox
from mslearn.exercises import ExerciseSet
from mslearn.judge import Case, Row, mark
from mslearn.remote import Limits
from mslearn.submission import Notebook

SOFTMAX = """def softmax(z):
    # BEGIN SOLUTION
    e = (z - z.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)
    # END SOLUTION"""
MIX = """def mix(z, v):
    # BEGIN SOLUTION
    return softmax(z) @ v
    # END SOLUTION"""
STEP = """def step(w, gradient):
    # BEGIN SOLUTION
    w -= 0.1 * gradient
    # END SOLUTION"""
NORM = """class Norm(torch.nn.Module):
    # BEGIN SOLUTION
    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))

    def forward(self, x):
        return self.weight * x / x.square().mean(-1, keepdim=True).sqrt()

    # STUB pass
    # END SOLUTION"""
CHECKS = """from mslearn.grade import beside, rule

@rule("97.1", "Rows sum to 1")
def rows(answer, g):
    z = torch.randn(3, 4, generator=g)
    return None if torch.allclose(answer(z), z.softmax(-1)) else "rows do not sum to 1"

@rule("97.2", "The mixture")
def mixture(answer, g):
    z, v = torch.randn(3, 4, generator=g), torch.randn(4, 2, generator=g)
    return None if torch.allclose(answer(z, v), z.softmax(-1) @ v) else "it is no mixture"

@rule("97.2", "The value of one row")
def one_row(answer, g):
    return None if answer(torch.ones(1, 1), torch.ones(1, 1)).item() == 1 else "not 1"

@rule("97.3", "The step", marks=2, in_place=True)
def the_step(answer, g):
    w, gradient = torch.randn(3, generator=g), torch.full((3,), 2.0)
    right = w - 0.2
    answer(w, gradient)
    return None if torch.allclose(w, right) else "w did not go down by a tenth of the gradient"

@rule("97.4", "The size of the result")
def size(answer, g):
    x = torch.randn(2, 5, generator=g)
    return None if torch.allclose(answer(5)(x).square().mean(-1), torch.ones(2)) else "not 1"

@rule("97.4", "The gradient reaches the weight")
def reaches(answer, g):
    found = beside(answer, slope)(torch.randn(2, 5, generator=g))
    return None if found is not None and found.shape == (5,) else "it does not"
"""
PROBE = """def slope(answer, x):
    norm = answer(x.shape[-1])
    norm(x).sum().backward()
    return norm.weight.grad
"""
TERMS = "*5 minutes · effort: medium · importance: high · reference after 2 tries*"
HINT = "<details><summary>Hint 1</summary>Think.</details>"


def write(folder: Path) -> Path:
    """The solutions notebook of the set, in a course's folder of its own."""
    cells = [("markdown", "# A toy set", []), ("code", "import torch", ["setup"])]
    for number, (name, source) in enumerate(
        {"softmax": SOFTMAX, "mix": MIX, "step": STEP, "Norm": NORM}.items(), 1
    ):
        cells.append(("markdown", f"## 97.{number} On {name}\n\n{TERMS}\n\n{HINT}", []))
        cells.append(("code", source, ["answer"]))
        cells.append(("code", f'check("97.{number}", {name})', []))
    cells += [("code", PROBE, ["probe"]), ("code", CHECKS, ["checks"])]
    for name in ("solutions", "exercises", "notebooks"):
        (folder / name).mkdir(exist_ok=True)
    path = folder / "solutions" / "97_toy.ipynb"
    path.write_text(document(cells), "utf-8")
    return path


def document(cells: list[tuple[str, str, list[str]]]) -> str:
    """A notebook of cells, each its kind, source and tags."""
    made = [
        {"cell_type": kind, "id": f"97-{n}", "source": source, "metadata": {"tags": tags}}
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        for n, (kind, source, tags) in enumerate(cells)
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def load(folder: Path) -> ExerciseSet:
    return exercises.load_set(write(folder))


def verdicts(own: ExerciseSet, sources: list[str], limits: Limits | None = None, **more) -> dict:
    """The rows of a notebook with these cells by place, and its notes under `notes`."""
    code = sandbox.worker_code()

    def start():
        return sandbox.start(code, unsafe=True)

    limits = limits or Limits(call=10.0)
    found: dict = {}
    for each in mark(Case(Notebook(tuple(sources), "97"), own, start, limits, **more)):
        if isinstance(each, Row):
            found[each.place] = each
        elif isinstance(each, list):
            found["notes"] = each
    return found
