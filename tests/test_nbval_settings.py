"""The rules by which notebooks are compared, on tiny notebooks of our own."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
)
DRAW = (
    "from IPython.display import display; import base64\n"
    f"display({{'image/png': '{PIXEL}', 'text/plain': 'a pixel'}}, raw=True)"
)


@pytest.fixture
def rules(pytestconfig):
    """The conftest beside the notebooks, as pytest loaded it."""
    return pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ("loss 2.3026", "loss 2.3027"),
        ("loss 2.34", "loss 2.35"),  # rounded from 2.34499 and 2.34501
        ("largest difference 2.3e-07", "largest difference 5.1e-07"),
        ("-0.0000", "0.0000"),
        ("took 12.3 s at 6571 tokens/s", "took 9.1 s at 12,004 tokens/s"),
        ("step 20, 0:41 left", "step 20, 1:07 left"),
        ("<object at 0x7f00aa11bb22>", "<object at 0x7f00cc33dd44>"),
        ("a  9.99 b", "a 10.00 b"),
    ],
)
def test_what_counts_as_the_same(rules, stored, now):
    assert rules.same(stored, now)


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ("loss 2.3026", "loss 2.3126"),
        ("accuracy 0.8", "accuracy 0.9"),
        ("3 layers", "4 layers"),
        ("exact: yes", "exact: no"),
        ("loss 2.30", "loss nan"),
        ("1e-3", "1e-4"),
        ("a1b2e5", "a1b2e6"),  # a hash, not a number
        ("one\ntwo", "one"),
    ],
)
def test_what_counts_as_different(rules, stored, now):
    assert not rules.same(stored, now)


CELLS = {
    "right": (new_code_cell("2.5", outputs=[]), "2.5", True),
    "within tolerance": (new_code_cell("print(2.3027)"), "2.3026\n", True),
    "wrong number": (new_code_cell("print(2.4026)"), "2.3026\n", False),
    "output lost": (new_code_cell("pass"), "2.3026\n", False),
    "output new": (new_code_cell("print(1)"), None, False),
    "never run": (new_code_cell("print(1)"), "unrun", False),
    "image there": (new_code_cell(DRAW), "image", True),
    "image lost": (new_code_cell("print('no pixel')"), "image", False),
    "ignored by its tag": (new_code_cell("print(1)"), "2.5\n", True),
}


def notebook(folder: Path) -> Path:
    """Write the cells above as one stored notebook, each with the output it is said to have."""
    cells = []
    for count, (name, (cell, stored, _)) in enumerate(CELLS.items(), 1):
        cell = nbformat.from_dict(cell)
        cell.execution_count = None if stored == "unrun" else count
        if stored == "image":
            data = {"image/png": "b" + PIXEL[1:], "text/plain": "a pixel"}
            cell.outputs = [new_output("display_data", data)]
        elif name == "right":
            cell.outputs = [new_output("execute_result", {"text/plain": stored})]
        elif stored not in (None, "unrun"):
            cell.outputs = [new_output("stream", name="stdout", text=stored)]
        if name.startswith("ignored"):
            cell.metadata.tags = ["nbval-ignore-output"]
        cells.append(cell)
    path = folder / "tiny.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_notebook_is_held_to_its_stored_outputs(tmp_path):
    shutil.copy(ROOT / "conftest.py", tmp_path)
    notebook(tmp_path)
    command = [sys.executable, "-m", "pytest", "--nbval", "-rA", "--rootdir=.", "tiny.ipynb"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True
    )
    for number, (name, (_, _, passes)) in enumerate(CELLS.items()):
        verdict = "PASSED" if passes else ("FAILED", "ERROR")
        lines = [line for line in done.stdout.splitlines() if line.startswith(verdict)]
        assert any(f"Cell {number}" in line for line in lines), f"{name}: {done.stdout}"
    assert "stored:" in done.stdout and "2.4026" in done.stdout  # a failure shows both sides
