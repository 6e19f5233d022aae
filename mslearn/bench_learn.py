"""How much is learnt in sixty CPU-seconds: ours against the plain baseline, on the same text."""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from mslearn import data
from mslearn.band import SMALL
from mslearn.baseline import Baseline, Characters, plain_adamw
from mslearn.batches import Batches, HeldOut, Tokens
from mslearn.bpe import BPE
from mslearn.device import Device, pick
from mslearn.optim import muon_and_adamw
from mslearn.recipes import Recipe
from mslearn.run import Run
from mslearn.schedules import Schedule, warmup_cosine, warmup_stable_decay
from mslearn.transformer import Config

Clock = Callable[[], float]
Texts = Mapping[str, list[str]]

RATES = (1e-3, 2e-3, 4e-3, 8e-3)  # the baseline's, tried on the validation split
SEEDS = (0, 1)
# The text at a step of nanoGPT's recipe for a CPU. With the larger batch and context of ours, the
# baseline would make a third of the steps in the same time, and learn far less from them.
PLAIN = replace(SMALL, context=64, batch_size=12)
TICKS = 1000


class Budget:
    """CPU seconds in place of steps: the schedule over them, and whether they are spent.

    The clock counts the processor time of this process, so that a busy machine takes nothing away.
    It starts at the first step.
    """

    def __init__(self, seconds: float, schedule: Schedule, clock: Clock) -> None:
        self.seconds, self.schedule, self.clock = seconds, schedule, clock
        self.started: float | None = None

    @property
    def share(self) -> float:
        """What has been spent of the whole, from 0."""
        return 0.0 if self.started is None else (self.clock() - self.started) / self.seconds

    def __call__(self, step: int) -> float:
        """The rate now: the schedule's, had it as many steps as a thousand parts of the budget."""
        if self.started is None:
            self.started = self.clock()
        return self.schedule(min(TICKS - 1, int(TICKS * self.share)))


@dataclass(frozen=True)
class Side:
    """One of the two: text as tokens, and the CPU seconds that making its vocabulary took.

    `run(rate, seed, seconds)` is its training, not yet begun.
    """

    encode: Callable[[list[str]], Tokens]
    train: Tokens
    spent: float
    context: int
    run: Callable[[float, int, float], Run]


def our_side(texts: list[str], recipe: Recipe, device: Device, clock: Clock) -> Side:
    """The course's choices: BPE, the small transformer of chapter 11, Muon, the fast format."""
    started = clock()
    tokenizer = BPE.train(texts, recipe.vocab_size)
    lengths = [len(token) for token in tokenizer.tokens]
    lengths[tokenizer.end] = 0

    def encode(texts: list[str]) -> Tokens:
        ids = [i for text in texts for i in (*tokenizer.encode(text), tokenizer.end)]
        return Tokens(np.array(ids, dtype=np.uint16), np.array(lengths))

    def run(rate: float, seed: int, seconds: float) -> Run:
        model = replace(recipe, vocab_size=tokenizer.vocab_size, seed=seed).model()
        adam_lr = recipe.adam_lr * rate / recipe.lr
        optimizer = muon_and_adamw(model, rate, adam_lr, dtype=device.amp_dtype)
        shape = warmup_stable_decay(rate, TICKS // 50, TICKS, recipe.decay)
        batches = Batches(tokens, recipe.context, recipe.batch_size, seed)
        budget = Budget(seconds, shape, clock)
        return Run(model, batches, optimizer, schedule=budget, device=device)

    tokens = encode(texts)
    return Side(encode, tokens, clock() - started, recipe.context, run)


def baseline_side(texts: list[str], recipe: Recipe, device: Device, clock: Clock) -> Side:
    """The plain baseline, as deep and wide, on characters, with AdamW and a cosine, in float32."""
    started = clock()
    characters = Characters(texts)
    full = replace(device, amp_dtype=None)

    def run(rate: float, seed: int, seconds: float) -> Run:
        torch.manual_seed(seed)
        sizes = (recipe.context, recipe.n_layers, recipe.n_heads, recipe.d_model)
        model = Baseline(Config(characters.vocab_size, *sizes))
        shape = warmup_cosine(rate, TICKS // 50, TICKS)
        batches = Batches(tokens, recipe.context, recipe.batch_size, seed)
        budget = Budget(seconds, shape, clock)
        return Run(model, batches, plain_adamw(model, rate), schedule=budget, device=full)

    tokens = characters.tokens(texts)
    return Side(characters.tokens, tokens, clock() - started, recipe.context, run)


def train_for(side: Side, rate: float, seed: int, seconds: float) -> Run:
    """Train until the CPU seconds are spent, those of the vocabulary among them."""
    left = seconds - side.spent
    if left <= 0:
        raise ValueError(
            f"making the vocabulary took {side.spent:.1f} of {seconds:g} CPU-seconds and left none "
            "to train; give more seconds"
        )
    run = side.run(rate, seed, left)
    for _ in run.train(2**31):
        if run.schedule.share >= 1:
            break
    return run


def score(run: Run, side: Side, texts: list[str]) -> float:
    """Bits per byte of a trained model on all of `texts`."""
    held_out = HeldOut(side.encode(texts), side.context)
    model: nn.Module = run.model.eval()
    return held_out(model, run.device)["bits_per_byte"]


@contextmanager
def one_thread():
    """A second of one thread is one CPU-second; give the threads back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def learn(
    seconds: float = 60.0,
    rates: tuple[float, ...] = RATES,
    seeds: tuple[int, ...] = SEEDS,
    texts: Texts | None = None,
    recipe: Recipe = SMALL,
    plain_recipe: Recipe = PLAIN,
    clock: Clock = time.process_time,
) -> dict[str, Any]:
    """Bits per byte on the test split after `seconds` CPU-seconds of one thread, mean over seeds.

    The baseline's rate is the best of `rates` on the validation split with the first seed; ours is
    the recipe's. Time for vocabulary and encoding is counted on both sides, time for evaluation on
    neither. `texts["test"]` is read once, when every model is trained.
    """
    if len(rates) < 1 or len(seeds) < 1:
        raise ValueError(f"learn needs a rate and a seed at least, got {rates} and {seeds}")
    texts = wiki_texts() if texts is None else texts
    device = pick("cpu")  # CPU-seconds measure nothing on another device
    with one_thread():
        train = texts["train"]
        ours = our_side(train, recipe, device, clock)
        plain = baseline_side(train, plain_recipe, device, clock)
        tried = {rate: train_for(plain, rate, seeds[0], seconds) for rate in rates}
        valid = texts["valid"]
        scores = {rate: score(run, plain, valid) for rate, run in tried.items()}
        best = min(scores, key=scores.__getitem__)
        runs = {
            "baseline": [tried[best], *(train_for(plain, best, s, seconds) for s in seeds[1:])],
            "ours": [train_for(ours, recipe.lr, seed, seconds) for seed in seeds],
        }
        test = texts["test"]  # every choice has been made
        found = {
            name: [score(run, side, test) for run in runs[name]]
            for name, side in {"baseline": plain, "ours": ours}.items()
        }
        where = str(device)
    return {
        **_summary(found, seconds, seeds),
        "device": where,
        **_details(scores, [ours, plain], runs),
    }


def _summary(found: dict[str, list[float]], seconds: float, seeds: tuple[int, ...]) -> dict:
    gains = [a - b for a, b in zip(found["baseline"], found["ours"], strict=True)]
    return {
        "seconds": seconds,
        "baseline_bpb": statistics.mean(found["baseline"]),
        "bpb": statistics.mean(found["ours"]),
        "seeds": len(seeds),
        "gain": statistics.mean(gains),
        "spread": (min(gains), max(gains)),
        "runs": f"mean of {len(seeds)} seeds, each {seconds:g} CPU-seconds of one thread",
        "by_seed": found,
    }


def _details(scores: dict[float, float], sides: list[Side], runs: dict[str, list[Run]]) -> dict:
    steps = {name: [run.step for run in each] for name, each in runs.items()}
    spent = {n: round(side.spent, 2) for n, side in zip(("ours", "baseline"), sides, strict=True)}
    return {
        "baseline_rate": min(scores, key=scores.__getitem__),
        "baseline_rates_on_valid": {f"{rate:g}": score for rate, score in scores.items()},
        "steps": steps,
        "vocabulary_seconds": spent,
    }


def wiki_texts() -> dict[str, list[str]]:
    """The Wikipedia leads by split."""
    wiki = data.load("wiki")
    return {split: [document.text for document in wiki.split(split)] for split in data.SPLITS}
