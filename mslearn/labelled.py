"""Labelled texts: the tasks, their splits and batches, and the baselines without a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mslearn import data
from mslearn.bpe import BPE

TASKS = {"topics": "wiki", "sentiment": "movies"}


@dataclass(frozen=True)
class Texts:
    """Texts and the number of each one's class in `classes`."""

    texts: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> "Texts":
        """Check and number the labels. Raises ValueError that names what is wrong."""
        number = {name: index for index, name in enumerate(classes)}
        if len(number) < 2:
            raise ValueError(f"a classifier needs two classes or more, got {list(classes)}")
        if len(texts) != len(labels) or not len(texts):
            raise ValueError(f"every text needs one label, got {len(texts)} and {len(labels)}")
        unknown = sorted({str(label) for label in labels} - set(number))
        if unknown:
            raise ValueError(f"unknown label {unknown[0]!r}: expected one of {', '.join(classes)}")
        return cls(tuple(texts), np.array([number[label] for label in labels]), tuple(classes))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, count: int, seed: int = 0) -> "Texts":
        """A random choice of `count`; a smaller one with the same seed is part of a larger one."""
        if not 1 <= count <= len(self):
            raise ValueError(f"choose between 1 and all {len(self)} texts, got {count}")
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        return Texts(tuple(self.texts[i] for i in chosen), self.labels[chosen], self.classes)

    def encode(self, tokenizer: BPE, context: int = 64) -> "Encoded":
        """Tokens of each text, after the mark that every document followed in pre-training."""
        ids = [[tokenizer.end, *tokenizer.encode(text)][:context] for text in self.texts]
        return Encoded([np.array(each) for each in ids], self.labels, len(self.classes))


@dataclass(frozen=True)
class Task:
    """A classification task's three splits, and the set of texts they come from."""

    name: str
    source: data.Dataset

    @cached_property
    def train(self) -> Texts:
        return self._split("train")

    @cached_property
    def valid(self) -> Texts:
        return self._split("valid")

    @cached_property
    def test(self) -> Texts:
        return self._split("test")

    def _split(self, split: str) -> Texts:
        found = [each for each in self.source.split(split) if each.label]
        return Texts.of([e.text for e in found], [e.label for e in found], self.source.labels)


def load_task(name: str) -> Task:
    """`topics` (what a Wikipedia lead is about) or `sentiment` (a film review's side)."""
    if name not in TASKS:
        raise ValueError(f"no task {name!r}: choose one of {', '.join(TASKS)}")
    return Task(name, data.load(TASKS[name]))


@dataclass(frozen=True)
class Encoded:
    """Token ids of each text, of any length, with the numbers of their classes."""

    ids: list[np.ndarray]
    labels: np.ndarray
    n_classes: int

    def batch(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (batch, longest) filled up with zeros on the right, lengths and labels (batch)."""
        lengths = torch.tensor([len(self.ids[i]) for i in chosen])
        tokens = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.int64)
        for row, i in zip(tokens, chosen, strict=True):
            row[: len(self.ids[i])] = torch.from_numpy(self.ids[i])
        return tokens, lengths, torch.from_numpy(self.labels[chosen].astype(np.int64))


class TextBatches:
    """`batches(step)` gives (tokens, lengths, labels): a pure function of the seed and the step.

    Each pass is shuffled by (seed, pass), then stretches of sixteen batches are put in order of
    length, so that the texts of a batch are about as long as each other and little is padding.
    """

    def __init__(self, encoded: Encoded, batch_size: int = 16, seed: int = 0) -> None:
        self.encoded, self.batch_size, self.seed = encoded, batch_size, seed
        self.steps_per_pass = len(encoded.ids) // batch_size
        if self.steps_per_pass < 1:
            raise ValueError(f"{len(encoded.ids)} texts are fewer than a batch of {batch_size}")
        self.lengths = np.array([len(ids) for ids in encoded.ids])
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        pass_number, position = divmod(step, self.steps_per_pass)
        if self._order[0] != pass_number:
            self._order = (pass_number, self._arrange(pass_number))
        return self.encoded.batch(self._order[1][position])

    def _arrange(self, pass_number: int) -> Int[np.ndarray, "steps batch"]:
        generator = np.random.default_rng([self.seed, pass_number])
        order = generator.permutation(len(self.lengths))[: self.steps_per_pass * self.batch_size]
        stretches = np.array_split(order, -(-self.steps_per_pass // 16))
        by_length = [s[np.argsort(self.lengths[s], kind="stable")] for s in stretches]
        return generator.permutation(np.concatenate(by_length).reshape(-1, self.batch_size))

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an average batch, padding not counted."""
        return round(self.batch_size * float(self.lengths.mean()))


def majority(train: Texts, test: Texts) -> np.ndarray:
    """The commonest class of the training texts, for every text."""
    return np.full(len(test), np.bincount(train.labels).argmax())


def bag_of_words(kind: str, train: Texts, valid: Texts) -> Any:
    """A classifier that counts words: `naive bayes` on counts, `regression` on TF-IDF.

    Single words or pairs of them too, and four strengths of smoothing, are tried on `valid`; the
    best of the eight comes back as a scikit-learn pipeline with `predict(texts)`. It reads the
    whole of a text.
    """
    from sklearn.base import clone

    if kind not in ("naive bayes", "regression"):
        raise ValueError(f"kind must be 'naive bayes' or 'regression', got {kind!r}")
    fitted = [clone(each).fit(train.texts, train.labels) for each in _candidates(kind)]
    return max(fitted, key=lambda each: each.score(valid.texts, valid.labels))


def _candidates(kind: str) -> Iterator[Any]:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    for words in ((1, 1), (1, 2)):
        if kind == "naive bayes":
            for alpha in (0.03, 0.1, 0.3, 1.0):
                yield make_pipeline(CountVectorizer(ngram_range=words), MultinomialNB(alpha=alpha))
        else:
            for strength in (1.0, 4.0, 16.0, 64.0):
                vectors = TfidfVectorizer(ngram_range=words, sublinear_tf=True)
                yield make_pipeline(vectors, LogisticRegression(C=strength, max_iter=300, tol=1e-3))
