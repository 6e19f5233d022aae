"""How pytest runs the course: a learner's folder of its own, and how notebooks are compared.

Notebooks are run with nbval. What it leaves open is settled here, once:
- printed decimals may differ by a thousandth, or by one in the last of three or more digits shown,
  or by less than 1e-5 (rounding errors differ between processors); whole numbers may not differ;
- seconds, rates per second, memory addresses and temporary folders are not compared;
- a picture has to be there, but its bytes may differ; widgets are not compared;
- a cell that was never run in the stored notebook fails rather than pass uncompared;
- each notebook meets a learner who has answered nothing yet, whatever notebook ran before.
"""

import json
import math
import os
import re
import shutil
import tempfile
from itertools import zip_longest
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, coalesce_streams

from mslearn.home import home

RELATIVE, ABSOLUTE = 1e-3, 1e-5
CELL_SECONDS = 300.0  # a whole chapter stays under 180 on two quiet cores
WIDGET = "application/vnd.jupyter.widget-view+json"
DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*(?:[eE][-+]?\d+)?|[eE][-+]?\d+)(?!\d)")
LAST = pytest.StashKey[Path]()  # the notebook whose cell ran last
TIME = r"(?:ns|us|µs|ms|s|sec|seconds?|min|minutes?|h|hours?)"
UNCOMPARED = (
    (re.compile(r"data:image/[^\"')\s]+"), "<image>"),  # first: the others are slow on its letters
    (re.compile(rf"[\d.,]+(?:e[-+]?\d+)?\s?(?:{TIME}|[A-Za-z]+/s)(?![\w/])"), "<time>"),
    (re.compile(r"\d+:\d\d(?::\d\d)?(?= left)|(?<=ETA )[\d:]+"), "<time>"),
    (re.compile(r"0x[0-9a-fA-F]{6,}"), "<address>"),
    (re.compile(r"(?<!\S)\S*ipykernel_\d+\S*"), "<file>"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a learner's folder with the texts in it and nothing else."""
    archives = home() / "data"
    folder = Path(tempfile.mkdtemp(prefix="mslearn-tests-"))
    if archives.is_dir():
        shutil.copytree(archives, folder / "data")
    os.environ["MSLEARN_HOME"] = str(folder)
    os.environ["PYTHONHASHSEED"] = "0"  # for the kernels, as when the notebooks were stored
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    config.option.nbval_current_env = True  # the Python under test, whatever kernels there are
    config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, CELL_SECONDS)
    IPyNbCell.compare_outputs = compare_outputs


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a cell whose stored notebook was never run: nbval would pass it uncompared."""
    if not isinstance(item, IPyNbCell):
        return
    if item.config.stash.get(LAST, None) != item.path:
        item.config.stash[LAST] = item.path
        forget_answers()
    if not item.options["check"] or item.options["skip"]:
        return
    if item.cell.execution_count is None and item.cell.source.strip():
        notebook = item.path.relative_to(item.config.rootpath).as_posix()
        pytest.fail(f"stored without having been run; run `python -m mslearn build {notebook}`")


def forget_answers() -> None:
    """Take the learner's predictions and marks away: a notebook shows those of the one before."""
    for name in ("predictions.json", "progress.json"):
        (home() / name).unlink(missing_ok=True)


def compare_outputs(cell: IPyNbCell, test: list, ref: list, skip_compare=None) -> bool:
    """Stand in for nbval's comparison of a cell's outputs, with the rules above."""
    ours, stored = by_kind(coalesce_streams(test)), by_kind(coalesce_streams(ref))
    cell.comparison_traceback = []
    for kind in sorted(ours.keys() | stored.keys()):
        for old, new in zip_longest(stored.get(kind, []), ours.get(kind, [])):
            if old is None or new is None or not same(old, new):
                cell.comparison_traceback.append(f"{kind}\n  stored: {old}\n  now:    {new}\n")
    return not cell.comparison_traceback


def by_kind(outputs: list) -> dict[str, list[str]]:
    """Sort outputs by stream or MIME type, as nbval does: order counts within a kind only."""
    kinds: dict[str, list[str]] = {}
    for output in outputs:
        if output.output_type == "stream":
            found = {output.name: output.text}
        elif output.output_type == "error":
            found = {"error": f"{output.ename}: {output.evalue}"}
        else:
            found = without_widget(output.data)
        for kind, value in found.items():
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            kinds.setdefault(kind, []).append("<image>" if kind.startswith("image/") else text)
    return kinds


def without_widget(data: dict) -> dict:
    """What is left of an output when its live view is gone, as `mslearn build` stores it."""
    rest = {kind: value for kind, value in data.items() if kind != WIDGET}
    return {} if WIDGET in data and rest.keys() <= {"text/plain"} else rest


def same(stored: str, now: str) -> bool:
    """Whether two texts say the same: words exactly, decimals within the tolerance."""
    stored, now = canonical(stored), canonical(now)
    if DECIMAL.sub("<number>", stored) != DECIMAL.sub("<number>", now):
        return False
    pairs = zip(DECIMAL.findall(stored), DECIMAL.findall(now), strict=True)
    return all(close(old, new) for old, new in pairs)


def canonical(text: str) -> str:
    """Leave out what is not compared; columns may widen when a number gets a digit more."""
    for pattern, replacement in UNCOMPARED:
        text = pattern.sub(replacement, text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def close(stored: str, now: str) -> bool:
    """Whether two printed decimals are the same up to rounding."""
    mantissa, _, exponent = stored.lower().partition("e")
    digits = mantissa.lstrip("+-").replace(".", "").lstrip("0")
    last_place = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    allowed = max(ABSOLUTE, 1.01 * last_place if len(digits) >= 3 else 0.0)
    return math.isclose(float(stored), float(now), rel_tol=RELATIVE, abs_tol=allowed)
