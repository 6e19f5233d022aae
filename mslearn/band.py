"""The experiment `pretraining_band`: how far apart runs of chapter 11's recipe lie by seed alone.

"Is my curve normal?" has an answer only beside curves of the same recipe, text and length.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mslearn import data
from mslearn.batches import Batches, Corpus, HeldOut
from mslearn.bpe import BPE
from mslearn.device import Device
from mslearn.optim import muon_and_adamw
from mslearn.picture import Band, smooth
from mslearn.recipes import Recipe
from mslearn.run import Run
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store

SMALL = Recipe(
    steps=300,
    vocab_size=2048,
    context=128,
    n_layers=4,
    n_heads=4,
    d_model=128,
    batch_size=16,
    lr=0.04,
    adam_lr=0.01,
    weight_decay=0.0,
    warmup=6,
)
SEEDS = range(5)
EVERY, EVALUATE_EVERY, EVALUATE_TOKENS = 10, 50, 32_000


def wiki_corpus(vocab_size: int = SMALL.vocab_size) -> Corpus:
    """The Wikipedia leads as tokens; the tokeniser is learnt from the training split alone."""
    wiki = data.load("wiki")
    texts = {split: [d.text for d in wiki.split(split)] for split in data.SPLITS}
    return Corpus.build("wiki", texts, BPE.train(texts["train"], vocab_size))


def small_run(recipe: Recipe, corpus: Corpus, device: Device) -> Run:
    """The run of chapter 11, held-out text measured as it goes."""
    model = recipe.model()
    return Run(
        model,
        Batches(corpus.train, recipe.context, recipe.batch_size, recipe.seed),
        muon_and_adamw(model, recipe.lr, recipe.adam_lr, dtype=device.amp_dtype),
        schedule=warmup_stable_decay(recipe.lr, recipe.warmup, recipe.steps, recipe.decay),
        device=device,
        evaluate=HeldOut(corpus.valid, recipe.context, max_tokens=EVALUATE_TOKENS),
        evaluate_every=EVALUATE_EVERY,
    )


def follow(run: Run, recipe: Recipe, corpus: Corpus) -> dict:
    """Train to the end: the smoothed loss every tenth step, held-out scores, all of `valid`."""
    for _ in run.train(recipe.steps):
        pass
    losses = smooth([record.loss for record in run.log])
    scored = [record for record in run.log if record.held_out]
    whole = HeldOut(corpus.valid, recipe.context)(run.model.eval(), run.device)
    return {
        "first": round(run.log[0].loss, 4),
        "loss": [round(loss, 4) for loss in losses[EVERY - 1 :: EVERY]],
        "held_out": {str(r.step): round(r.held_out["bits_per_byte"], 4) for r in scored},
        "bits_per_byte": round(whole["bits_per_byte"], 4),
    }


def experiment(store: Store, base: Path | None = None) -> None:
    """One run for each of five seeds, and for any other asked for; `base` is not used."""
    corpus = wiki_corpus()
    for seed in sorted({*SEEDS, *store.seeds}):
        recipe = replace(SMALL, seed=seed)
        settings = {"recipe": asdict(recipe), "texts": {"wiki": data.load("wiki").sha256}}
        settings["tokens"] = {"train": len(corpus.train), "valid": len(corpus.valid)}

        def work(recipe: Recipe = recipe) -> dict:
            return follow(small_run(recipe, corpus, store.device), recipe, corpus)

        store.cell(str(seed), settings, work)


def reference_band(result: dict) -> Band:
    """Where the smoothed loss of one more seed would lie, by step, from a stored result."""
    curves = [cell["loss"] for cell in result["cells"].values()]
    low, high = prediction_interval(curves)
    steps = EVERY * np.arange(1, len(low) + 1) - 1
    return Band(steps.tolist(), low.tolist(), high.tolist())


def prediction_interval(
    values: Float[np.ndarray, "seeds ..."] | Sequence, level: float = 0.95
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Where one more value would lie: mean ∓ t·s·√(1 + 1/n), with s the values' deviation.

    Wider than the interval of their mean, because the new value strays as much as the old.
    Assumes values spread like a Gaussian's. Source: Student 1908; Hahn and Meeker 1991, chapter 4.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        raise ValueError(f"a band needs curves of two seeds or more, got {n}")
    half = stdtrit(n - 1, (1 + level) / 2) * values.std(axis=0, ddof=1) * math.sqrt(1 + 1 / n)
    mean = values.mean(axis=0)
    return mean - half, mean + half
