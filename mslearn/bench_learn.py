"""How much is learnt in sixty CPU-seconds: ours against the plain baseline, on the same text."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from torch import nn

from mslearn import data
from mslearn.band import SMALL
from mslearn.batches import HeldOut
from mslearn.contenders import Clock, Side, baseline_side, bpe_text, character_text, our_side
from mslearn.device import one_thread, pick
from mslearn.recipes import Recipe
from mslearn.run import Run

Texts = Mapping[str, list[str]]

# Tried on the validation split, four for each side.
RATES = {
    "baseline": (1e-3, 2e-3, 4e-3, 8e-3),
    "adamw": (2.5e-3, 5e-3, 1e-2, 2e-2),
    "muon": (0.02, 0.04, 0.08, 0.16),
}
SEEDS = (0, 1)
# The text at a step of nanoGPT's recipe for a CPU. With the larger batch and context of ours, the
# baseline would make a third of the steps in the same time, and learn far less from them.
PLAIN = replace(SMALL, context=64, batch_size=12)


def train_for(side: Side, rate: float, seed: int, seconds: float) -> Run:
    """Train until the CPU seconds are spent, those of the vocabulary among them."""
    left = seconds - side.text.spent
    if left <= 0:
        raise ValueError(
            f"making the vocabulary took {side.text.spent:.1f} of {seconds:g} CPU-seconds and left "
            "none to train; give more seconds"
        )
    run = side.run(rate, seed, left)
    for _ in run.train(2**31):
        if run.schedule.share >= 1:
            break
    return run


def score(run: Run, side: Side, texts: list[str]) -> float:
    """Bits per byte of a trained model on all of `texts`."""
    held_out = HeldOut(side.text.encode(texts), side.context)
    model: nn.Module = run.model.eval()
    return held_out(model, run.device)["bits_per_byte"]


@dataclass(frozen=True)
class Tuned:
    """A side with the rate that did best on the validation split, and its runs, one a seed."""

    rate: float
    valid: dict[float, float]
    runs: list[Run]


def tune(
    side: Side, rates: tuple[float, ...], seeds: tuple[int, ...], seconds: float, valid: list[str]
) -> Tuned:
    """Try every rate with the first seed; the best goes on with the others."""
    tried = {rate: train_for(side, rate, seeds[0], seconds) for rate in rates}
    scores = {rate: score(run, side, valid) for rate, run in tried.items()}
    best = min(scores, key=scores.__getitem__)
    others = [train_for(side, best, seed, seconds) for seed in seeds[1:]]
    return Tuned(best, scores, [tried[best], *others])


def learn(
    seconds: float = 60.0,
    rates: Mapping[str, tuple[float, ...]] = RATES,
    seeds: tuple[int, ...] = SEEDS,
    texts: Texts | None = None,
    recipe: Recipe = SMALL,
    plain_recipe: Recipe = PLAIN,
    clock: Clock = time.process_time,
    text: str = "wiki",
    n_bytes: int | None = None,
) -> dict[str, Any]:
    """Bits per byte on the test split after `seconds` CPU-seconds of one thread, mean over seeds.

    The plain baseline, and ours with AdamW and with Muon, each at the best of its `rates` on the
    validation split with the first seed. `bpb` is that of ours which did better there. Time for
    vocabulary and encoding is counted, time for evaluation is not. `texts["test"]` is read once,
    when every model is trained. Without `texts` they are those of the set `text`, in training as
    many whole documents as hold `n_bytes`.
    """
    if not seeds or set(rates) != set(RATES) or not all(rates.values()):
        names = ", ".join(RATES)
        raise ValueError(f"learn needs a seed and rates for {names}; got {seeds} and {rates}")
    texts = texts_of(text, n_bytes) if texts is None else texts
    device = pick("cpu")  # CPU-seconds measure nothing on another device
    with one_thread():
        train = texts["train"]
        ours = bpe_text(train, recipe.vocab_size, clock)
        plain = character_text(train, clock)
        sides = {
            "baseline": baseline_side(plain, plain_recipe, device, clock),
            "adamw": our_side(ours, recipe, device, clock, muon=False),
            "muon": our_side(ours, recipe, device, clock, muon=True),
        }
        valid = texts["valid"]
        tuned = {n: tune(side, rates[n], seeds, seconds, valid) for n, side in sides.items()}
        test = texts["test"]  # every choice has been made
        found = {n: [score(run, sides[n], test) for run in tuned[n].runs] for n in sides}
        where = str(device)
    better = min(("adamw", "muon"), key=lambda n: min(tuned[n].valid.values()))
    return {
        **_summary(found, better, seconds, seeds),
        "device": where,
        "text": text,
        "train_bytes": ours.train.n_bytes,
        "rates": {n: each.rate for n, each in tuned.items()},
        "valid_by_rate": {
            n: {f"{r:g}": v for r, v in each.valid.items()} for n, each in tuned.items()
        },
        "steps": {n: [run.step for run in each.runs] for n, each in tuned.items()},
        "vocabulary_seconds": {"ours": round(ours.spent, 2), "baseline": round(plain.spent, 2)},
    }


def _summary(
    found: dict[str, list[float]], better: str, seconds: float, seeds: tuple[int, ...]
) -> dict[str, Any]:
    gains = [a - b for a, b in zip(found["baseline"], found[better], strict=True)]
    by_muon = [a - b for a, b in zip(found["adamw"], found["muon"], strict=True)]
    return {
        "seconds": seconds,
        "baseline_bpb": statistics.mean(found["baseline"]),
        "bpb": statistics.mean(found[better]),
        "optimizer": better,
        "seeds": len(seeds),
        "gain": statistics.mean(gains),
        "spread": (min(gains), max(gains)),
        "muon_over_adamw": by_muon,
        "runs": f"mean of {len(seeds)} seeds, each {seconds:g} CPU-seconds of one thread",
        "by_seed": found,
    }


def texts_of(name: str, n_bytes: int | None = None) -> dict[str, list[str]]:
    """A set's texts by split; in training the first whole documents that hold `n_bytes`."""
    documents = data.load(name)
    texts = {split: [each.text for each in documents.split(split)] for split in data.SPLITS}
    if n_bytes is not None:
        if n_bytes < 1:
            raise ValueError(f"a text to train on needs at least 1 byte, got {n_bytes}")
        ends = accumulate(len(each.encode()) for each in texts["train"])
        enough = sum(end < n_bytes for end in ends) + 1
        texts["train"] = texts["train"][:enough]
    return texts
