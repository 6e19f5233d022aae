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


class WrongFile(ValueError):
    """A file or set that cannot be these documents. Says what was expected in one sentence."""


OWN = HubSet("your own", "", "yours to know", "a file of your own", label="label")


def load(name: str, path: str | Path | None = None, limit: int | None = None) -> Dataset:
    """A set of the hub by name, or the same columns out of a file or folder at `path`.

    `limit` is the most documents taken from each published split. A published split is kept; one
    that is not published, or has no labels, is cut from the training part by the hash of the text.
    Raises FetchError, within a second when there is no connection; WrongFile (a
    ValueError) for a file without these columns, OSError for one that cannot be read.
    """
    source = HUB.get(name) or replace(OWN, name=name)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    limit = limit or source.limit
    where = check_connection(source) if path is None else Path(path)
    documents: list[Document] = []
    try:
        for published, rows in _open(source, where, limit).items():
            if split := PUBLISHED.get(published):  # some have parts of no use here
                documents += islice(_documents(source, split, rows), limit)
    except WrongFile:
        raise
    except Exception as error:  # the library's own errors share no type
        raise _fault(source, where, error) from error
    if not documents:
        columns = f"a column {source.text!r}" + (f" and {source.label!r}" if source.label else "")
        raise WrongFile(f"no document in {path or source.repository}: expected {columns}")
    complete = _complete(documents)
    labels = source.labels or tuple(sorted({each.label for each in complete if each.label}))
    return Dataset(name, complete, labels, source.licence, source.citation)


def _documents(source: HubSet, split: str, rows: Iterable[Row]) -> Iterator[Document]:
    """Rows as documents, those without text or without their label left out."""
    names = _label_names(source, rows)
    for number, row in enumerate(rows):
        try:
            text = _text(row[source.text])
            extra = {ours: read(row) for ours, read in source.extra.items()}
        except KeyError as missing:
            found = f"found: {', '.join(row)}"
            raise WrongFile(f"{source.name} needs a column {missing}; {found}") from missing
        label = row.get(source.label) if source.label else None
        if isinstance(label, int):
            label = (names[label] if names else str(label)) if label >= 0 else None
        if not text or (source.labels and source.label and label is None):
            continue
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


def _open(source: HubSet, where: Path | str, limit: int | None) -> Mapping[str, Iterable[Row]]:
    """The published parts of a set: of a file, of a folder, or of the hub."""
    import datasets

    if isinstance(where, str):
        names = source.repository, source.configuration
        # streamed when only some of it is wanted, else kept in the library's own cache
        return datasets.load_dataset(*names, revision=source.revision, streaming=limit is not None)
    if not where.exists():
        kinds = ", ".join(FORMATS)
        raise WrongFile(f"no {where}: give a file ({kinds}) or a folder of them")
    if where.is_dir():  # its files are named after their split
        return datasets.load_dataset(str(where), streaming=True)
    if where.suffix not in FORMATS:
        raise WrongFile(f"cannot read {where}: its ending should be one of {', '.join(FORMATS)}")
    kind, files = FORMATS[where.suffix], {"train": str(where)}
    return datasets.load_dataset(kind, data_files=files, streaming=True)


def _fault(source: HubSet, where: Path | str, error: Exception) -> OSError:
    """The sentence for a set that the library could not open or read to its end."""
    if isinstance(where, Path):
        return OSError(f"cannot read {where}: {reason(error)}; is it a whole file of that kind?")
    again = f"check the connection and call data.load({source.name!r}) again"
    return FetchError(f"cannot fetch {source.repository} from {where}: {reason(error)}; {again}")


def check_connection(source: HubSet) -> str:
    """The hub's address, if it answers; FetchError that names the set if not."""
    own = f"data.load({source.name!r}, path=...) reads a copy of yours"
    return answering(f"{source.name} ({source.repository})", own)


def answering(what: str, own: str) -> str:
    """The hub's address, if it (or the proxy before it) answers; FetchError within a second.

    Asked first because the hub's own loaders retry for most of a minute with no connection. `own`
    says how to do without.
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
        raise FetchError(
            f"cannot fetch {what}: no answer from {first.hostname} ({error}); {mend}, then try "
            f"again; {own}"
        ) from error
    return where
