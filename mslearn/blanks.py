"""The experiment `masked`: both sides of a blank against the left alone, at equal compute.

One small network on the bytes of one text, trained to predict the next byte or to fill blanks,
with several shares of the bytes hidden; three seeds each, in float32, which is faster at this size.
"""

import functools
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from mslearn import data
from mslearn.band import wiki_corpus
from mslearn.batches import Batches, Corpus
from mslearn.device import Device, pick
from mslearn.masking import MaskedBatches, Masking, masked_loss
from mslearn.optim import muon_and_adamw
from mslearn.recipes import Masked, Recipe
from mslearn.run import Run, next_token_loss
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store
from mslearn.transformer import Transformer

LITTLE = Masked(
    steps=600,
    vocab_size=257,
    context=64,
    n_layers=2,
    n_heads=2,
    d_model=64,
    batch_size=32,
    lr=0.04,
    adam_lr=0.01,
    weight_decay=0.0,
    warmup=20,
)
# How many of the tokens are asked for, and how many of those become the mask, or another token.
MASKINGS = {
    "0.05": (0.05, 0.8, 0.1),
    "0.15": (0.15, 0.8, 0.1),
    "0.3": (0.3, 0.8, 0.1),
    "0.5": (0.5, 0.8, 0.1),
    "hidden": (0.15, 1.0, 0.0),
}
KINDS = ("causal", *MASKINGS)
N_BLANKS = 2000
PLAIN = Device("cpu", "any CPU", None)


@functools.cache
def corpus() -> Corpus:
    """The Wikipedia leads, byte by byte, and the mark of a text's end."""
    return wiki_corpus(LITTLE.vocab_size)


def little_run(kind: str, seed: int, steps: int = LITTLE.steps) -> Run:
    """The run of one cell. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r}: choose one of {', '.join(KINDS)}")
    recipe = replace(LITTLE, seed=seed)
    batches = Batches(corpus().train, recipe.context, recipe.batch_size, seed)
    if kind == "causal":
        model, loss = Recipe.model(recipe), next_token_loss  # the decoder of the same sizes
    else:
        model, loss = recipe.model(), masked_loss
        batches = MaskedBatches(batches, Masking(recipe.vocab_size, *MASKINGS[kind]))
    return Run(
        model,
        batches,
        muon_and_adamw(model, recipe.lr, recipe.adam_lr),
        schedule=warmup_stable_decay(recipe.lr, recipe.warmup, steps, recipe.decay),
        loss=loss,
        device=PLAIN,
    )


def windows(count: int = N_BLANKS) -> tuple[Int[Tensor, "count time"], Int[Tensor, " count"]]:
    """Held-out windows, and the place of one token in each, in its middle half: always the same."""
    ids, time = corpus().valid.ids, LITTLE.context
    rows = torch.from_numpy(ids[: count * time].astype(np.int64)).view(count, time)
    places = np.random.default_rng(0).integers(time // 4, 3 * time // 4, size=count)
    return rows, torch.from_numpy(places)


@torch.no_grad()
def fill(model: Transformer, count: int = N_BLANKS) -> dict[str, float]:
    """One blank in each held-out window: bits, and the share of first guesses that are right.

    A decoder guesses from the left alone. An encoder also meets the token unhidden, and another one
    in its place: how often does it say what was there?
    """
    model.eval()
    text, places = windows(count)
    rows, truth = torch.arange(count), text[torch.arange(count), places]
    if model.config.causal:
        return _score(_logits(model, text, places - 1), truth)
    seen, wrong = text.clone(), text.clone()
    seen[rows, places] = LITTLE.vocab_size
    others = np.random.default_rng(1).integers(1, LITTLE.vocab_size, size=count)
    wrong[rows, places] = (truth + torch.from_numpy(others)) % LITTLE.vocab_size  # never the truth
    shown = _score(_logits(model, text, places), truth)["accuracy"]
    mended = _score(_logits(model, wrong, places), truth)["accuracy"]
    score = _score(_logits(model, seen, places), truth)
    return score | {"shown": shown, "mended": mended}


def _logits(model: Transformer, text: Tensor, places: Tensor) -> Tensor:
    parts = []
    for rows, at in zip(text.split(100), places.split(100), strict=True):
        parts.append(model.head(model.features(rows)[torch.arange(len(rows)), at]))
    return torch.cat(parts)


def _score(logits: Tensor, truth: Tensor) -> dict[str, float]:
    bits = F.cross_entropy(logits, truth).item() / np.log(2).item()
    right = (logits.argmax(-1) == truth).double().mean().item()
    return {"bits": round(bits, 4), "accuracy": round(right, 4)}


def measure(kind: str, seed: int, steps: int = LITTLE.steps) -> dict[str, float]:
    """Train one network, then let it fill the blanks."""
    run = little_run(kind, seed, steps)
    for _ in run.train(steps):
        pass
    return fill(run.model)


def experiment(store: Store, base: Path | None = None) -> None:
    """Every kind for every seed; `base` is not used."""
    store.device = pick("cpu", amp=False)
    texts = data.load("wiki").sha256[:16]
    for seed in store.seeds:
        for kind in KINDS:
            settings = {"recipe": asdict(replace(LITTLE, seed=seed)), "texts": texts}
            settings |= {"masking": MASKINGS.get(kind), "blanks": N_BLANKS}
            work = functools.partial(measure, kind, seed)
            store.cell(f"{kind}/{seed}", settings, work)
