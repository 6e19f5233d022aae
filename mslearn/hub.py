"""Larger text sets of the hub, through the `datasets` library, as the same documents.

A file or folder of one's own (Parquet, JSON lines, CSV, plain text) goes the same way.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from mslearn.documents import SPLITS, Dataset, Document, split_of, unique
from mslearn.hubsets import HUB, HubSet, Row
from mslearn.index import FetchError, reason, within

CONNECT_SECONDS = 0.7
PUBLISHED = {"train": "train", "validation": "valid", "valid": "valid", "dev": "valid"}
PUBLISHED |= {"test": "test"}
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".txt": "text"}


OWN = HubSet("your own", "", "yours to know", "a file of your own", label="label")


def load(name: str, path: str | Path | None = None, limit: int | None = None) -> Dataset:
    """A set of the hub by name, or the same columns out of a file or folder at `path`.

    `limit` is the most documents taken from each published split. A published split is kept; one
    that is not published, or has no labels, is cut from the training part by the hash of the text.
    Raises FetchError, within a second when there is no connection; ValueError for a wrong file.
    """
    source = HUB.get(name) or replace(OWN, name=name)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    parts = _local(Path(path)) if path is not None else _remote(source, limit or source.limit)
    documents: list[Document] = []
    for published, rows in parts.items():
        split = PUBLISHED.get(published)
        if split:  # SST-2's test part has no labels, others have parts of no use here
            documents += islice(_documents(source, split, rows), limit or source.limit)
    if not documents:
        columns = f"a column {source.text!r}" + (f" and {source.label!r}" if source.label else "")
        raise ValueError(f"no document in {path or source.repository}: expected {columns}")
    complete = _complete(documents)
    labels = source.labels or tuple(sorted({each.label for each in complete if each.label}))
    return Dataset(name, complete, labels, source.licence, source.citation)


def _documents(source: HubSet, split: str, rows: Iterable[Row]) -> Iterator[Document]:
    """Rows as documents, those without text or without their label left out."""
    names = _label_names(source, rows)
    for number, row in enumerate(rows):
        if source.text not in row:
            found = ", ".join(row)
            raise ValueError(f"{source.name} needs a column {source.text!r}; found: {found}")
        label = row.get(source.label) if source.label else None
        if isinstance(label, int):
            label = (names[label] if names else str(label)) if label >= 0 else None
        text = _text(row[source.text])
        if not text or (source.labels and source.label and label is None):
            continue
        extra = {ours: read(row) for ours, read in source.extra.items()}
        title = row["title"] if isinstance(row.get("title"), str) else None
        yield Document(f"{split}-{number}", text, title, label, split, extra)


def _label_names(source: HubSet, rows: Iterable[Row]) -> tuple[str, ...]:
    """What the numbers of the label column stand for, where somebody says so."""
    feature = (getattr(rows, "features", None) or {}).get(source.label)
    return source.labels or tuple(getattr(feature, "names", ()))


def _text(value: Any) -> str:
    """Prose from a string, a list of words or a pair of translations (the English side)."""
    if isinstance(value, Mapping):
        value = value["en"]
    return (value if isinstance(value, str) else " ".join(value or ())).strip()


def _complete(documents: list[Document]) -> tuple[Document, ...]:
    """Without repeats, a held-out copy staying, and with the splits that were not published."""
    held_out_first = sorted(documents, key=lambda each: SPLITS.index(each.split), reverse=True)
    kept = unique(held_out_first, lambda each: f"{each.text} {each.extra.get('question', '')}")
    missing = set(SPLITS) - {each.split for each in kept}
    if "train" not in missing:
        cut = {each.id: split_of(each.text) for each in kept if each.split == "train"}
        kept = [
            replace(each, split=cut[each.id]) if cut.get(each.id) in missing else each
            for each in kept
        ]
    return tuple(sorted(kept, key=lambda each: SPLITS.index(each.split)))


def _local(path: Path) -> Mapping[str, Iterable[Row]]:
    """The parts of a file, or of a folder whose files are named after their split."""
    import datasets

    if not path.exists():
        raise FileNotFoundError(
            f"no {path}: give a file ({', '.join(FORMATS)}) or a folder of them"
        )
    try:
        if path.is_dir():
            return datasets.load_dataset(str(path))
        if path.suffix not in FORMATS:
            raise ValueError(f"its ending should be one of {', '.join(FORMATS)}")
        return datasets.load_dataset(FORMATS[path.suffix], data_files={"train": str(path)})
    except Exception as error:  # the library's own errors share no type
        raise ValueError(f"cannot read {path}: {reason(error)}") from error


def _remote(source: HubSet, limit: int | None) -> Mapping[str, Iterable[Row]]:
    """The parts of a set of the hub: streamed when only some of it is wanted."""
    where = check_connection(source)
    import datasets

    try:
        return datasets.load_dataset(
            source.repository,
            source.configuration,
            revision=source.revision,
            streaming=limit is not None,
        )
    except Exception as error:
        again = f"try again with data.load({source.name!r})"
        fault = f"{source.repository} from {where}: {reason(error)}"
        raise FetchError(f"cannot fetch {fault}; {again}") from error


def check_connection(source: HubSet) -> str:
    """The hub's address, if it (or the proxy before it) answers; FetchError within a second.

    Asked first because the hub's own loaders retry for most of a minute with no connection.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE

    where = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    first = urlsplit(getproxies().get(urlsplit(where).scheme) or where)
    address = first.hostname, first.port or (443 if first.scheme == "https" else 80)
    try:
        if not HF_HUB_OFFLINE:  # asked to use its own cache alone, which needs no connection
            within(
                CONNECT_SECONDS, lambda: socket.create_connection(address, CONNECT_SECONDS).close()
            )
    except OSError as error:
        mend = "connect, or set HF_ENDPOINT to a mirror"
        own = f"data.load({source.name!r}, path=...) reads a copy of yours"
        raise FetchError(
            f"cannot fetch {source.name} ({source.repository}): no answer from "
            f"{first.hostname} ({error}); {mend}, then try again; {own}"
        ) from error
    return where
