"""Comparing two results, and a learner's prediction beside what came out."""

import json
import os
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mslearn.home import home


@dataclass(frozen=True)
class Comparison:
    """Whether two results are equal bit for bit or nearly, and their largest difference."""

    name: str
    exact: bool
    close: bool
    largest: float
    note: str = ""

    def __bool__(self) -> bool:
        return self.close

    def __str__(self) -> str:
        answer = {True: "yes", False: "no"}
        line = f"exact: {answer[self.exact]}, close: {answer[self.close]}, "
        line += f"largest difference: {self.largest:.1g}"
        parts = [self.name and f"{self.name:<24}", line, self.note and f"({self.note})"]
        return " ".join(part for part in parts if part)

    __repr__ = __str__


def compare(
    ours: Any, reference: Any, *, name: str = "", rtol: float | None = None, atol: float = 0.0
) -> Comparison:
    """Compare numbers, arrays or tensors: exact, close, largest absolute difference.

    Close means within `rtol` of the reference's largest entry, plus `atol`; by default `rtol` is
    1e-10 where both are in 64 bits and 1e-4 below. Infinities and NaNs must sit in the same places.
    A differing shape is never close.
    """
    a, b = _array(ours), _array(reference)
    if a.shape != b.shape:
        note = f"shapes differ: {a.shape} and {b.shape}"
        return Comparison(name, False, False, float("inf"), note)
    if rtol is None:
        wide = {np.dtype("float64"), np.dtype("int64"), np.dtype("bool")}
        rtol = 1e-10 if {a.dtype, b.dtype} <= wide else 1e-4
    exact = bool(np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f"))
    a, b = a.astype("float64"), b.astype("float64")
    finite = np.isfinite(b)
    same_places = np.array_equal(finite, np.isfinite(a)) and np.array_equal(
        a[~finite], b[~finite], equal_nan=True
    )
    if not same_places:
        return Comparison(name, False, False, float("inf"), "not finite in different places")
    largest = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    allowed = atol + rtol * float(np.abs(b)[finite].max(initial=0.0))
    return Comparison(name, exact, largest <= allowed, largest)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # numpy has no such type
            value = value.float()
        value = value.numpy()
    return np.asarray(value)


def read_json(path: Path) -> dict[str, Any]:
    """The object kept at `path`; empty when there is none or it cannot be read."""
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at once, so that a crash leaves the old one or the new one whole."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


NOTHING_YET = "none yet: write answer=... in the call of predict() and run that cell"


def predict(key: str, question: str, answer: Any = None) -> None:
    """Keep the learner's answer to a question that a run is about to settle, and show both.

    With no answer the one kept earlier stays; `reveal(key, result)` shows it beside the result.
    """
    path = home() / "predictions.json"
    kept = read_json(path)
    if answer is not None:
        kept[key] = {"question": question, "answer": answer}
        write_json(path, kept)
    _say("Question:", question)
    _say("Your prediction:", kept.get(key, {}).get("answer", NOTHING_YET))


def reveal(key: str, result: Any) -> None:
    """Show the prediction kept under `key` beside what came out."""
    kept = read_json(home() / "predictions.json").get(key, {})
    _say("Your prediction:", kept.get("answer", NOTHING_YET))
    _say("What came out:", result)


def _say(what: str, words: Any) -> None:
    margin = " " * 17
    print(textwrap.fill(f"{what:16} {words}", 88, subsequent_indent=margin, break_on_hyphens=False))
