"""A text and what is known of it; a set of them, without repeats, split so that nothing leaks."""

import hashlib
import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Document:
    """One text; `extra` holds what only its own set has (a summary, a score, an answer)."""

    id: str
    text: str
    title: str | None = None
    label: str | None = None
    split: str = "train"
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, repr=False)
class Dataset:
    """Documents and the terms they come under.

    `sha256` pins the archive they were read from; it is empty for a set of the hub.
    """

    name: str
    documents: tuple[Document, ...]
    labels: tuple[str, ...]
    licence: str
    citation: str
    sha256: str = ""

    def split(self, name: str) -> list[Document]:
        """The documents of `train`, `valid` or `test`, in the order of the source."""
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}: ask for one of {', '.join(SPLITS)}")
        return [document for document in self.documents if document.split == name]

    @property
    def n_bytes(self) -> int:
        """The size of all texts in UTF-8."""
        return sum(len(document.text.encode()) for document in self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(name)):,} {name}" for name in SPLITS)
        lines = [
            f"{self.name}: {len(self):,} documents ({counts}), {self.n_bytes / 1e6:.1f} MB",
            f"labels: {', '.join(self.labels)}" if self.labels else "no labels",
            f"licence: {self.licence}",
            f"from: {self.citation}",
        ]
        return "\n".join(lines)


def normalise(text: str) -> str:
    """Letters and digits only, in lower case: texts equal after this are the same text."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def clean(text: str) -> str:
    """The prose alone: entities read, leftover mark-up and emptied templates taken out."""
    text = re.sub(r"<ref\b[^<>]*>[^<>]*</ref>|</?[a-z][^<>]*>", "", html.unescape(text))
    text = re.sub(r"\s*\(\s*\)", "", text)
    return re.sub(r"[^\S\n]+", " ", text).strip()


def split_of(text: str) -> str:
    """The split that a text falls into, by its own content: 80 % train, 10 % valid, 10 % test.

    The same text falls into the same split in every set, version and order.
    """
    digest = hashlib.sha256(normalise(text).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def unique(
    documents: Iterable[Document], content: Callable[[Document], str] = lambda each: each.text
) -> list[Document]:
    """The documents without repeats of `content`; the first of each stays."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(normalise(content(document)), document)
    return list(first.values())


def divide(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Documents without repeats, each in the split of its text.

    Repeats go first, or a text could be learnt from one copy and tested on the other.
    """
    return tuple(replace(each, split=split_of(each.text)) for each in unique(documents))
