"""Real texts by name: load them, list them, fetch them, check them."""

import argparse
import functools
from pathlib import Path

from mslearn import fetch, hub
from mslearn.documents import SPLITS, Dataset, Document, divide
from mslearn.hubsets import HUB
from mslearn.pretrained import PRETRAINED, Pretrained
from mslearn.sources import SOURCES, Source

__all__ = ["HUB", "SOURCES", "SPLITS", "Dataset", "Document", "english", "english_sets", "load"]


def load(name: str, *, path: str | Path | None = None, limit: int | None = None) -> Dataset:
    """A text set by name: one of the registry (`wiki`, `bible`, …) or of the hub (`imdb`, …).

    `path` reads a file or folder of one's own instead, in the columns of the set that `name` names
    or else in columns `text` and `label`. `limit` is the most documents taken from each split.
    Raises ValueError for an unknown name and FetchError when the texts cannot be had.
    """
    if path is not None or name in HUB:
        return hub.load(name, path, limit)
    _known(name)
    full = _load(name, SOURCES[name].archive.path)
    if limit is None:
        return full
    chosen = [each for split in SPLITS for each in full.split(split)[:limit]]
    return Dataset(name, tuple(chosen), full.labels, full.licence, full.citation, full.sha256)


@functools.cache
def _load(name: str, path: Path) -> Dataset:
    """The whole set, read once in a session. `path` tells learners' folders apart."""
    source = SOURCES[name]
    content = fetch.member(_archive(name), source.member)
    terms = source.labels, source.licence, source.citation, source.archive.sha256
    return Dataset(name, divide(source.parse(content)), *terms)


def _archive(name: str) -> Path:
    return fetch.get(SOURCES[name].archive, f"mslearn data {name}")


def _known(name: str) -> None:
    if name not in SOURCES and name not in HUB:
        names = f"{', '.join(SOURCES)}; from the hub: {', '.join(HUB)}"
        raise ValueError(f"no text set {name!r}: choose one of {names}; or give path=")


def english_sets() -> list[str]:
    """The names of the registry's English sets."""
    return [name for name, source in SOURCES.items() if source.language == "English"]


def english() -> dict[str, list[str]]:
    """All the English texts of the registry, by split, a text a document."""
    documents = [document for name in english_sets() for document in load(name).documents]
    return {split: [each.text for each in documents if each.split == split] for split in SPLITS}


def configure(parser: argparse.ArgumentParser) -> None:
    """`mslearn data`: what may be said after it."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="fetch these (none: list all)")
    parser.add_argument("--all", action="store_true", help="fetch every set of the registry")
    parser.add_argument("--verify", action="store_true", help="rehash what has been fetched")


def command(arguments: argparse.Namespace) -> int:
    """List the texts, fetch some, or verify them; 1 when an archive is damaged."""
    for name in arguments.names:
        if name not in PRETRAINED:
            _known(name)
    names = list(SOURCES) if arguments.all else arguments.names
    if arguments.verify:
        return verify(names or list(SOURCES))
    for name in names:
        if name in PRETRAINED:
            PRETRAINED[name].fetch()
        elif name in SOURCES:
            _archive(name)
        print(PRETRAINED.get(name) or load(name), end="\n\n")
    if not names:
        table()
    return 0


def table() -> None:
    """Print every set with its size and licence, and whether it is here."""
    row = "{:<8} {:>9} {:>5}  {:<7}  {:<33} {}".format
    print(row("name", "documents", "MB", "fetched", "what", "licence"))
    for name, source in SOURCES.items():
        here = "yes" if source.archive.path.is_file() else "no"
        size, licence = f"{source.archive.n_bytes / 1e6:.1f}", source.licence.partition(":")[0]
        print(row(name, f"{source.n_documents:,}", size, here, source.about, licence))
    print("\nFetch with `mslearn data NAME ...` or `mslearn data --all`.")
    models = (f"{each.name} ({each.archive.n_bytes / 1e6:.1f} MB)" for each in PRETRAINED.values())
    print(f"Trained models, fetched by name alone: {', '.join(models)}.")
    print(f"From the hub, when connected: {', '.join(HUB)}.")


def verify(names: list[str]) -> int:
    """Hash the fetched archives again and say which are whole."""
    damaged = 0
    for source in map((SOURCES | PRETRAINED).get, names):
        verdict = _verdict(source)
        damaged += verdict.startswith("damaged")
        print(f"{source.name}: {verdict}")
    return 1 if damaged else 0


def _verdict(source: Source | Pretrained) -> str:
    path = source.archive.path
    if not path.is_file():
        return f"not fetched; run `mslearn data {source.name}`"
    if fetch.digest(path) == source.archive.sha256:
        return f"whole ({source.archive.n_bytes:,} bytes, SHA-256 {source.archive.sha256[:12]}…)"
    return f"damaged; `mslearn data {source.name}` removes it and fetches it anew"
