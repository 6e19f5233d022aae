"""The experiment `embeddings`: what a network's input vectors should be, and who trains them.

Four beginnings for the same embedding: `learned` (random numbers, trained with the rest), `warm`
(skip-gram vectors, trained with the rest), `frozen` (skip-gram vectors, kept) and `random` (random
numbers, kept). In a small language model of words, and in a classifier of topics with few labels
and with many. Vectors come from the training split alone, the text that both models train on.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn import data
from mslearn.documents import Document
from mslearn.optim import muon_and_adamw
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store
from mslearn.transformer import Config, Transformer
from mslearn.vectors import SkipGram
from mslearn.vocabulary import Text, Vocabulary

KINDS = ("learned", "warm", "frozen", "random")
VECTORS = SkipGram(d=64, passes=1)
MIN_COUNT, CONTEXT, BATCH = 20, 64, 16
STEPS, MARKS = 60, (10, 20, 40, 60)  # steps, and those after which the loss is measured
SIZES = (0.02, 1.0)  # root mean square of the language model's embedding at the start
LABELS, CLASSIFIER_STEPS = (100, 7296), 100
RATES = (0.01, 0.03, 0.1, 0.3)


def pieces(text: str) -> list[str]:
    """Words, numbers and marks of a text, in lower case."""
    return re.findall(r"[^\W\d_]+|\d+|[^\w\s]", text.lower())


@functools.cache
def vocabulary() -> Vocabulary:
    """The pieces that occur `MIN_COUNT` times or more in the training split."""
    return Vocabulary.of([pieces(d.text) for d in _documents("train")], MIN_COUNT)


@functools.cache
def _documents(split: str) -> tuple[Document, ...]:
    return tuple(data.load("wiki").split(split))


@functools.cache
def stream(split: str) -> Int[Tensor, " places"]:
    """A split as one row of numbers; V stands for any other piece, V + 1 for the end of a text."""
    known, numbers = vocabulary(), []
    for document in _documents(split):
        numbers += [known.numbers.get(piece, len(known)) for piece in pieces(document.text)]
        numbers.append(len(known) + 1)
    return torch.tensor(numbers)


@functools.cache
def vectors(seed: int) -> Tensor:
    """Skip-gram vectors of the training split, (V, d), with a root mean square of 1."""
    texts = ([p for p in pieces(d.text)] for d in _documents("train"))
    table, _ = VECTORS.train(Text.of(texts, vocabulary()), seed)
    return table / table.square().mean().sqrt()


def prepare(embedding: nn.Embedding, kind: str, size: float, seed: int) -> None:
    """Give an embedding the beginning that `kind` names, in place; what is kept is frozen.

    Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no beginning {kind!r}: choose one of {', '.join(KINDS)}")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1000 + seed)
        embedding.weight.normal_(0, size, generator=generator)
        if kind in ("warm", "frozen"):
            embedding.weight[: len(vocabulary())] = size * vectors(seed)
    embedding.weight.requires_grad_(kind in ("learned", "warm"))


def language(
    kind: str, seed: int, size: float, split: str, steps: int = STEPS
) -> dict[str, dict[str, float]]:
    """Train the language model; held-out nats a piece at the `MARKS` up to `steps`."""
    torch.manual_seed(seed)
    model = Transformer(Config(len(vocabulary()) + 2, CONTEXT, 2, 2, VECTORS.d))
    prepare(model.embedding, kind, size, seed)
    optimizer = muon_and_adamw(model, 0.02, 0.01)
    rates = [group["lr"] for group in optimizer.param_groups]
    share = warmup_stable_decay(1.0, 10, STEPS, 0.6)
    generator, text, found = torch.Generator().manual_seed(seed), stream("train"), {}
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share(step)
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH, 1), generator=generator)
        windows = text[starts + torch.arange(CONTEXT + 1)]  # (B, T + 1)
        optimizer.zero_grad()
        model.loss(windows[:, :-1], windows[:, 1:]).backward()
        optimizer.step()
        if step + 1 in MARKS:
            found[str(step + 1)] = held_out(model, split)
    return {"nats": found}


@torch.no_grad()
def held_out(model: Transformer, split: str, windows: int = 128) -> float:
    """Mean nats a piece over the first windows of a split."""
    text = stream(split)[: windows * CONTEXT + 1]
    inputs, targets = (part.view(-1, CONTEXT) for part in (text[:-1], text[1:]))
    halves = zip(inputs.split(64), targets.split(64), strict=True)
    return round(float(torch.stack([model.loss(x, y) for x, y in halves]).mean()), 4)


@functools.cache
def topics(split: str) -> tuple[Int[Tensor, " places"], Int[Tensor, " texts"], Int[Tensor, " n"]]:
    """Labelled texts of a split: their known pieces in one row, where each starts, its class."""
    known, names = vocabulary().numbers, data.load("wiki").labels
    labelled = [document for document in _documents(split) if document.label]
    texts = [[known[p] for p in pieces(d.text) if p in known] for d in labelled]
    starts = torch.tensor([0, *map(len, texts)]).cumsum(0)
    rows = torch.tensor([number for text in texts for number in text])
    return rows, starts, torch.tensor([names.index(d.label) for d in labelled])


class MeanOfWords(nn.Module):
    """The mean of a text's vectors, then one linear layer: `model(rows, starts)`."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary()), VECTORS.d)
        self.head = nn.Linear(VECTORS.d, n_classes)

    def forward(self, rows: Tensor, starts: Tensor) -> Tensor:
        return self.head(F.embedding_bag(rows, self.embedding.weight, starts, mode="mean"))


def classify(kind: str, labels: int, seed: int, lr: float, split: str) -> dict[str, float]:
    """Train the classifier on some labels; the share of a split's texts that it gets right."""
    rows, starts, classes = topics("train")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(classes), generator=generator)[:labels]
    torch.manual_seed(seed)
    model = MeanOfWords(len(data.load("wiki").labels))
    prepare(model.embedding, kind, 1.0, seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    for step in range(CLASSIFIER_STEPS):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / CLASSIFIER_STEPS)
        batch = chosen[torch.randint(len(chosen), (64,), generator=generator)].tolist()
        texts = [rows[starts[i] : starts[i + 1]] for i in batch]
        begins = torch.tensor([0, *(len(text) for text in texts[:-1])]).cumsum(0)
        optimizer.zero_grad()
        F.cross_entropy(model(torch.cat(texts), begins), classes[batch]).backward()
        optimizer.step()
    rows, starts, classes = topics(split)
    with torch.no_grad():
        right = model(rows, starts[:-1]).argmax(1) == classes
    return {"accuracy": round(float(right.float().mean()), 4)}


def experiment(store: Store, base: Path | None = None) -> None:
    """Search rates and sizes with seed 0 on validation texts, then score all seeds on the test.

    A size makes no difference where nothing trains it: the network brings its input to length 1.
    """
    common = {"texts": data.load("wiki").sha256[:16], "min_count": MIN_COUNT}
    common |= {"vectors": asdict(VECTORS)}
    for kind in KINDS:
        for labels in LABELS:
            name, settings = f"topics/{labels}/{kind}", {"steps": CLASSIFIER_STEPS, **common}
            work = functools.partial(classify, kind, labels)
            _cells(store, name, settings, "lr", RATES, work, lambda cell: cell["accuracy"])
    for kind in KINDS:
        sizes = SIZES if kind in ("learned", "warm") else SIZES[-1:]
        name, settings = f"language/{kind}", {"steps": STEPS, **common}
        work = functools.partial(language, kind)
        _cells(store, name, settings, "size", sizes, work, lambda c: -c["nats"][str(STEPS)])


def _cells(
    store: Store,
    name: str,
    settings: dict[str, Any],
    searched: str,
    values: tuple[float, ...],
    work: Callable[..., dict],
    goodness: Callable[[dict], float],
) -> None:
    """A cell for each value of the one setting searched, then one for each seed at the best."""
    best = values[0]
    if len(values) > 1:
        for value in values:
            run = functools.partial(work, 0, value, "valid")
            store.cell(f"search/{name}/{value}", {searched: value, **settings}, run)
        kept = store.cells()
        there = [value for value in values if f"search/{name}/{value}" in kept]
        best = max(there, key=lambda v: goodness(kept[f"search/{name}/{v}"]), default=best)
    for seed in store.seeds:
        run = functools.partial(work, seed, best, "test")
        store.cell(f"{name}/{seed}", {searched: best, **settings}, run)
