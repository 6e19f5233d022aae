"""Real texts by name: load them, split without leaks, list and fetch them."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mslearn import fetch
from mslearn.sources import SOURCES, SPLITS, Document, Source, normalise, split_of


@dataclass(frozen=True)
class Dataset:
    """Documents with the terms they come under. `sha256` pins the archive they were read from."""

    name: str
    documents: tuple[Document, ...]
    labels: tuple[str, ...]
    licence: str
    citation: str
    sha256: str

    def split(self, name: str) -> list[Document]:
        """The documents of `train`, `valid` or `test`, in the order of the source."""
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}: ask for one of {', '.join(SPLITS)}")
        return [document for document in self.documents if document.split == name]


def divide(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Drop repeated texts, the first one staying, then give each text its split."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(normalise(document.text), document)
    return tuple(replace(each, split=split_of(each.text)) for each in first.values())


@functools.cache
def load(name: str) -> Dataset:
    """A text set by name."""
    source: Source = SOURCES[name]
    path = fetch.get(source.archive, f"mslearn data {name}")
    documents = divide(source.parse(fetch.member(path, source.member)))
    terms = (source.labels, source.licence, source.citation, source.archive.sha256)
    return Dataset(name, documents, *terms)


def english() -> dict[str, list[str]]:
    """All the English texts of the registry, by split and document."""
    documents = [document for name in SOURCES for document in load(name).documents]
    return {split: [each.text for each in documents if each.split == split] for split in SPLITS}
