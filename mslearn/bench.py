"""`mslearn bench NAME`: measure what the course claims, on the machine at hand."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mslearn.bench_bpe import bpe
from mslearn.bench_generate import generate
from mslearn.bench_grade import grade
from mslearn.bench_learn import RATES, learn
from mslearn.bench_live import live
from mslearn.bench_train import SHAPES, train

Result = dict[str, Any]

NAMES = ("bpe", "train", "learn", "generate", "live", "grade")


def measurement(
    name: str, quick: bool = False, shape: str = "A", **settings: Any
) -> Callable[[], Result]:
    """The measurement of a name; `quick` makes it short enough to try, and too noisy to quote.

    `settings` are those of `learn`: its seconds, its text and how much of it.
    """
    if name not in NAMES:
        raise ValueError(f"no measurement {name!r}: choose one of {', '.join(NAMES)}")
    if name == "bpe":
        return lambda: bpe(**({"pairs": 1, "n_bytes": 100_000} if quick else {}))
    if name == "train":
        return lambda: train(shape, **({"pairs": 1, "steps": 1} if quick else {}))
    if name == "learn":
        rates = {side: each[1:2] for side, each in RATES.items()}
        short = {"seconds": 5.0, "rates": rates, "seeds": (0,)}
        return lambda: learn(**{**settings, **(short if quick else {})})
    if name == "generate":
        return lambda: generate(**({"pairs": 1, "new": 48} if quick else {}))
    if name == "grade":
        return lambda: grade(**({"learners": 4, "attacks": ("leaves",)} if quick else {}))
    return lambda: live(**({"pairs": 1, "long": 5_000} if quick else {}))


def table(name: str, result: Result) -> str:
    """A row for each value that was measured, its name first; what a value holds is indented."""
    rows = _rows(result)
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join([f"mslearn bench {name}", *(f"  {a:<{width}}{b}".rstrip() for a, b in rows)])


def _rows(result: Result, indent: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in result.items():
        label = indent + key.replace("_", " ")
        if isinstance(value, dict):
            rows += [(label, ""), *_rows(value, indent + "  ")]
        else:
            rows.append((label, _written(value)))
    return rows


def _written(value: object) -> str:
    if value is None:
        return "not measured here"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "  ".join(_written(each) for each in value)
    return str(value)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `mslearn bench`."""
    parser.add_argument("name", choices=NAMES, help="what to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="few runs, to try whether it works")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="A", help="sizes for `train`")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="CPU-seconds a run for `learn` (default 60)"
    )
    parser.add_argument("--text", default="wiki", help="the set that `learn` reads (default wiki)")
    parser.add_argument("--bytes", type=int, help="train `learn` on its first documents alone")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")
    parser.add_argument("--keep", type=Path, help="add the result to this JSON file, by its name")


def command(arguments: argparse.Namespace) -> int:
    """Measure, print the table for people, and the JSON object last where asked for."""
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {arguments.threads}")
        torch.set_num_threads(arguments.threads)
    settings = {"seconds": arguments.seconds, "text": arguments.text, "n_bytes": arguments.bytes}
    result = measurement(arguments.name, arguments.quick, arguments.shape, **settings)()
    print(table(arguments.name, result))
    if arguments.keep:
        keep(arguments.keep, arguments.name, result, arguments.bytes)
    if arguments.json:
        print(json.dumps(result))
    return 0


def keep(file: Path, name: str, result: Result, n_bytes: int | None = None) -> None:
    """Put the result beside those the file has, under the name and what it was measured for."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    about = [result[key] for key in ("text", "seconds", "shape") if key in result]
    about += [] if n_bytes is None else [n_bytes]
    words = (f"{each:g}" if isinstance(each, float) else str(each) for each in about)
    kept["/".join([name, *words])] = result
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
