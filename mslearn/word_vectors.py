"""The experiment `word_vectors`: counts, skip-gram, GloVe and gensim's skip-gram on the same text.

gensim is no part of the course, as it has no build for Python 3.14. Where it is not installed its
cells are left out; its version stands in each of them.
"""

import functools
import importlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mslearn import data
from mslearn.likeness import PAIRS, Space, titles
from mslearn.store import Store
from mslearn.vectors import GloVe, SkipGram, cooccurrence, factor, ppmi
from mslearn.vocabulary import Text, Vocabulary, words

MIN_COUNT, WINDOW = 8, 10
PLAIN = SkipGram()
SKIP_GRAMS = {
    "skip-gram": PLAIN,
    "not thinned": replace(PLAIN, threshold=1.0),
    "power 1": replace(PLAIN, power=1.0),
}
METHODS = ("counts", *SKIP_GRAMS, "glove", "gensim")


@functools.cache
def wiki_words() -> Text:
    """The training split of the Wikipedia leads, its words that occur `MIN_COUNT` times or more."""
    texts = [words(document.text) for document in data.load("wiki").split("train")]
    return Text.of(texts, Vocabulary.of(texts, MIN_COUNT))


def table_of(method: str, seed: int) -> Tensor:
    """The vectors (words, d) of one method, the same number d for all.

    Raises ValueError for an unknown method and ModuleNotFoundError where gensim is missing.
    """
    text = wiki_words()
    if method == "counts":
        return factor(ppmi(cooccurrence(text, WINDOW), PLAIN.power), PLAIN.d, seed)
    if method in SKIP_GRAMS:
        return SKIP_GRAMS[method].train(text, seed)[0]
    if method == "glove":
        return sum(GloVe().train(cooccurrence(text, WINDOW), seed)[:2])
    if method == "gensim":
        return _gensim(text, seed)
    raise ValueError(f"no method {method!r}: choose one of {', '.join(METHODS)}")


def _gensim(text: Text, seed: int) -> Tensor:
    """gensim's own skip-gram, told what ours is told; its rate is its default."""
    models = importlib.import_module("gensim.models")
    names = text.vocabulary.names
    cuts = torch.bincount(text.documents).tolist()
    model = models.Word2Vec(
        [[names[i] for i in part.tolist()] for part in text.ids.split(cuts)],
        vector_size=PLAIN.d,
        window=PLAIN.window,
        negative=PLAIN.k,
        sample=PLAIN.threshold,
        ns_exponent=PLAIN.power,
        epochs=PLAIN.passes,
        min_count=1,
        sg=1,
        workers=1,
        seed=seed,
    )
    return torch.from_numpy(np.stack([model.wv[name] for name in names]))


def scores(table: Tensor) -> dict[str, float]:
    """Purity of the neighbours of titles, and the share of analogies solved, in all and by kind."""
    space = Space(wiki_words().vocabulary, table)
    topics = titles(data.load("wiki").split("train"), space.vocabulary)
    kinds = {kind: space.analogies(kind) for kind in PAIRS}
    found = {
        "purity": space.purity(topics).mean(),
        "analogies": np.concatenate(list(kinds.values())).mean(),
        **{kind: share.mean() for kind, share in kinds.items()},
    }
    return {name: round(float(share), 4) for name, share in found.items()}


def experiment(store: Store, base: Path | None = None) -> None:
    """Every method for every seed; `base` is not used."""
    texts = data.load("wiki").sha256[:16]
    for method in METHODS:
        settings = {"texts": texts, "min_count": MIN_COUNT, "window": WINDOW}
        settings |= asdict(SKIP_GRAMS.get(method, GloVe() if method == "glove" else PLAIN))
        if method == "gensim":
            settings["version"] = "4.4.0"
        for seed in store.seeds:
            try:
                store.cell(f"{method}/{seed}", settings, lambda m=method, s=seed: _cell(m, s))
            except ModuleNotFoundError as missing:
                print(f"{method}/{seed} left out: {missing}; pip install gensim==4.4.0")


def _cell(method: str, seed: int) -> dict:
    """The scores of one method and seed, with gensim's version where it made them."""
    found = scores(table_of(method, seed))
    if method == "gensim":
        found["version"] = importlib.import_module("gensim").__version__
    return found
