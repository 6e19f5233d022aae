"""Who is compared in `bench learn`: the plain baseline, and ours with AdamW and with Muon."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from mslearn.baseline import Baseline, Characters, plain_adamw
from mslearn.batches import Batches, Tokens
from mslearn.bpe import BPE
from mslearn.device import Device
from mslearn.optim import AdamW, muon_and_adamw
from mslearn.recipes import Recipe
from mslearn.run import Run
from mslearn.schedules import Schedule, warmup_cosine, warmup_stable_decay
from mslearn.transformer import Config

Clock = Callable[[], float]
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
class Text:
    """The training text as tokens, and the CPU seconds that its vocabulary and encoding took."""

    encode: Callable[[list[str]], Tokens]
    train: Tokens
    vocab_size: int
    spent: float


@dataclass(frozen=True)
class Side:
    """One of those compared; `run(rate, seed, seconds)` is its training, not yet begun."""

    text: Text
    context: int
    run: Callable[[float, int, float], Run]


def bpe_text(texts: list[str], vocab_size: int, clock: Clock) -> Text:
    """Byte-level BPE, learnt from these texts."""
    started = clock()
    tokenizer = BPE.train(texts, vocab_size)
    lengths = [len(token) for token in tokenizer.tokens]
    lengths[tokenizer.end] = 0

    def encode(texts: list[str]) -> Tokens:
        ids = [i for text in texts for i in (*tokenizer.encode(text), tokenizer.end)]
        return Tokens(np.array(ids, dtype=np.uint16), np.array(lengths))

    tokens = encode(texts)
    return Text(encode, tokens, tokenizer.vocab_size, clock() - started)


def character_text(texts: list[str], clock: Clock) -> Text:
    """One token a character, as a plain baseline has it."""
    started = clock()
    characters = Characters(texts)
    tokens = characters.tokens(texts)
    return Text(characters.tokens, tokens, characters.vocab_size, clock() - started)


def our_side(text: Text, recipe: Recipe, device: Device, clock: Clock, muon: bool) -> Side:
    """The course's choices: BPE, the small transformer of chapter 11, the fast number format.

    With Muon on its matrices, or with AdamW on all weights.
    """

    def run(rate: float, seed: int, seconds: float) -> Run:
        model = replace(recipe, vocab_size=text.vocab_size, seed=seed).model()
        if muon:
            adam_lr = recipe.adam_lr * rate / recipe.lr
            optimizer = muon_and_adamw(model, rate, adam_lr, dtype=device.amp_dtype)
        else:
            optimizer = AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
        shape = warmup_stable_decay(rate, TICKS // 50, TICKS, recipe.decay)
        batches = Batches(text.train, recipe.context, recipe.batch_size, seed)
        budget = Budget(seconds, shape, clock)
        return Run(model, batches, optimizer, schedule=budget, device=device)

    return Side(text, recipe.context, run)


def baseline_side(text: Text, recipe: Recipe, device: Device, clock: Clock) -> Side:
    """The plain baseline, as deep and wide, with AdamW and a cosine, in float32."""
    full = replace(device, amp_dtype=None)

    def run(rate: float, seed: int, seconds: float) -> Run:
        torch.manual_seed(seed)
        sizes = (recipe.context, recipe.n_layers, recipe.n_heads, recipe.d_model)
        model = Baseline(Config(text.vocab_size, *sizes))
        shape = warmup_cosine(rate, TICKS // 50, TICKS)
        batches = Batches(text.train, recipe.context, recipe.batch_size, seed)
        budget = Budget(seconds, shape, clock)
        return Run(model, batches, plain_adamw(model, rate), schedule=budget, device=full)

    return Side(text, recipe.context, run)
