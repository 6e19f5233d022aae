"""The experiment `depths`: the norm before or after the addition, in shallow and deep networks.

The bytes of the Wikipedia leads, so that a hundred steps are enough to learn something.
"""

import functools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mslearn import data
from mslearn.batches import Batches, HeldOut, Tokens
from mslearn.blocks import Design
from mslearn.device import Device, pick
from mslearn.models import Model
from mslearn.optim import AdamW
from mslearn.run import Run
from mslearn.schedules import warmup_cosine
from mslearn.store import Store

DEPTHS, PLACES, RATES = (2, 6, 16), ("pre", "post"), (0.003, 0.01)
STEPS, CONTEXT, BATCH, WIDTH, HEADS = 100, 32, 16, 32, 2
TEXTS, VALID_BYTES = 2000, 16_000


@functools.cache
def bytes_of(split: str) -> Tokens:
    """Texts drawn from a whole split, one id a byte."""
    documents = data.load("wiki").split(split)
    drawn = np.random.default_rng(0).permutation(len(documents))[:TEXTS]  # they lie by topic
    texts = "\n".join(documents[i].text for i in drawn)
    return Tokens(np.frombuffer(texts.encode(), np.uint8).astype(np.uint16), np.ones(256, int))


def design_of(depth: int, place: str) -> Design:
    """GPT-2's block, or the same with the norm after each addition, as in BERT."""
    post = place == "post"
    sizes = (256, CONTEXT, depth, HEADS, WIDTH)
    return Design(*sizes, place=place, embed_norm=post, final_norm=not post, tied=False)


def network(depth: int, place: str, seed: int) -> Model:
    """A fresh network; embeddings are wide enough for the first layer to tell bytes apart."""
    torch.manual_seed(seed)
    model = Model(design_of(depth, place))
    for table in (model.embedding, model.position):
        torch.nn.init.normal_(table.weight, std=0.3)
    return model


def small_run(depth: int, place: str, lr: float, seed: int, device: Device | None = None) -> Run:
    """The run of one cell: AdamW, no warm-up, half a cosine down to a tenth of the rate."""
    model = network(depth, place, seed)
    return Run(
        model,
        Batches(bytes_of("train"), CONTEXT, BATCH, seed),
        AdamW(model.parameters(), lr=lr),
        schedule=warmup_cosine(lr, 0, STEPS),
        device=device or pick(),
    )


def measure(
    depth: int, place: str, lr: float, seed: int, steps: int = STEPS, device: Device | None = None
) -> dict:
    """Train one network; its loss in tens of steps, and held-out text in bits per byte."""
    run = small_run(depth, place, lr, seed, device)
    losses = [record.loss for record in run.train(steps)]
    held_out = HeldOut(bytes_of("valid"), CONTEXT, max_tokens=VALID_BYTES)
    return {
        "losses": [round(sum(losses[i : i + 10]) / 10, 3) for i in range(0, steps, 10)],
        "bits_per_byte": round(held_out(run.model.eval(), run.device)["bits_per_byte"], 4),
    }


def counting_bytes() -> dict:
    """The baseline: each byte by its share of the training text, one added to every count."""
    counts = np.bincount(bytes_of("train").ids, minlength=256) + 1
    bits = -np.log2(counts / counts.sum())[bytes_of("valid").ids[:VALID_BYTES]]
    return {"bits_per_byte": round(float(bits.mean()), 4)}


def experiment(store: Store, base: Path | None = None) -> None:
    """Every depth, place and rate for every seed, and the baseline; `base` is not used."""
    texts = f"{TEXTS} drawn from {data.load('wiki').sha256[:16]}"
    store.cell("counting", {"texts": texts}, counting_bytes)
    for depth in DEPTHS:
        for place in PLACES:
            settings = {
                "design": asdict(design_of(depth, place)),
                "steps": STEPS,
                "batch": BATCH,
                "texts": texts,
            }
            for lr in RATES:
                for seed in store.seeds:
                    work = functools.partial(measure, depth, place, lr, seed, device=store.device)
                    store.cell(f"{depth}/{place}/{lr:g}/{seed}", {**settings, "lr": lr}, work)
