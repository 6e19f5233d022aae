"""The experiment `attention`: what several heads and positions are worth to a small network.

The recipe of chapter 11 with one thing changed, on the same text, three seeds each.
"""

import functools
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from mslearn import data
from mslearn.band import SMALL, wiki_corpus
from mslearn.batches import Batches, Corpus, HeldOut
from mslearn.device import Device, pick
from mslearn.losses import bits_per_byte
from mslearn.optim import muon_and_adamw
from mslearn.run import Run
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store
from mslearn.transformer import Config, Transformer

KINDS = ("whole", "one_head", "no_positions", "no_mask")
STORED = KINDS[:3]  # without its mask a network has no honest score of this kind
VALID_TOKENS = 64_000


@functools.cache
def corpus() -> Corpus:
    """The Wikipedia leads, as chapter 11 cuts them into tokens."""
    return wiki_corpus()


def network(kind: str, seed: int) -> Transformer:
    """Chapter 11's small network with one thing changed. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"no variant {kind!r}: choose one of {', '.join(KINDS)}")
    torch.manual_seed(seed)
    sizes = (SMALL.context, SMALL.n_layers, 1 if kind == "one_head" else SMALL.n_heads)
    model = Transformer(Config(SMALL.vocab_size, *sizes, SMALL.d_model, causal=kind != "no_mask"))
    if kind == "no_positions":  # turned by an angle of 0: cosine 1, sine 0
        model.table[0], model.table[1] = 1.0, 0.0
    return model


def small_run(kind: str, seed: int, steps: int, device: Device | None = None) -> Run:
    """The run of one cell, `steps` long."""
    device, model = device or pick(), network(kind, seed)
    return Run(
        model,
        Batches(corpus().train, SMALL.context, SMALL.batch_size, seed),
        muon_and_adamw(model, SMALL.lr, SMALL.adam_lr, dtype=device.amp_dtype),
        schedule=warmup_stable_decay(SMALL.lr, SMALL.warmup, steps, SMALL.decay),
        device=device,
    )


def measure(kind: str, seed: int, steps: int = SMALL.steps, device: Device | None = None) -> dict:
    """Train one network and score it on held-out text, in bits per byte."""
    run = small_run(kind, seed, steps, device)
    for _ in run.train(steps):
        pass
    held_out = HeldOut(corpus().valid, SMALL.context, max_tokens=VALID_TOKENS)
    return {"bits_per_byte": round(held_out(run.model.eval(), run.device)["bits_per_byte"], 4)}


def counting_tokens() -> dict:
    """The baseline: each token by its share of the training text, one added to every count."""
    train, valid = corpus().train, corpus().valid
    counts = np.bincount(train.ids, minlength=len(train.token_bytes)) + 1
    nats = -np.log(counts / counts.sum())[valid.ids[:VALID_TOKENS]].sum()
    n_bytes = int(valid.token_bytes[valid.ids[:VALID_TOKENS]].sum())
    return {"bits_per_byte": round(bits_per_byte(float(nats), n_bytes), 4)}


def experiment(store: Store, base: Path | None = None) -> None:
    """Every variant for every seed, and the baseline; `base` is not used."""
    texts = data.load("wiki").sha256[:16]
    store.cell("unigram", {"texts": texts}, counting_tokens)
    for kind in STORED:
        for seed in store.seeds:
            work = functools.partial(measure, kind, seed, device=store.device)
            settings = {"recipe": asdict(replace(SMALL, seed=seed)), "texts": texts}
            store.cell(f"{kind}/{seed}", settings, work)
