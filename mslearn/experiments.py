"""Named experiments: `mslearn experiment NAME` measures what takes too long for a page."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from mslearn import (
    attention_ablation,
    band,
    blanks,
    cleaning,
    depths,
    embeddings,
    initializers,
    label_curve,
    normalizers,
    optimizers,
    rates,
    resets,
    ways,
    word_vectors,
)
from mslearn.store import Store, load_result, origin, result_path

__all__ = ["EXPERIMENTS", "load_result", "origin"]

EXPERIMENTS: dict[str, Callable[[Store, Path | None], None]] = {
    "attention": attention_ablation.experiment,
    "cleaning": cleaning.experiment,
    "depths": depths.experiment,
    "embeddings": embeddings.experiment,
    "initializers": initializers.experiment,
    "labels": label_curve.experiment,
    "masked": blanks.experiment,
    "normalizers": normalizers.experiment,
    "optimizers": optimizers.experiment,
    "pretraining_band": band.experiment,
    "rates": rates.experiment,
    "resets": resets.experiment,
    "ways": ways.experiment,
    "word_vectors": word_vectors.experiment,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `mslearn experiment`."""
    parser.add_argument("name", choices=sorted(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="*", metavar="CELL", help="cells to run, such as 'a/*/0'")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")
    parser.add_argument("--base", type=Path, help="checkpoint to start from")
    parser.add_argument("--out", type=Path, help="result file (default experiments/NAME.json)")


def command(arguments: argparse.Namespace) -> int:
    """Run what is missing of the named experiment; one that is complete takes a moment."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    path = arguments.out or result_path(arguments.name)
    store = Store(path, seeds=tuple(arguments.seeds), only=arguments.only)
    EXPERIMENTS[arguments.name](store, arguments.base)
    print(f"{len(store.cells())} cells are in {path}")
    return 0
