"""How fast a training step is: ours against the plain baseline, in turn, in one run."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from mslearn.baseline import Baseline, plain_adamw, plain_step
from mslearn.batches import Batches, Tokens
from mslearn.device import Device, matmul_peak, pick
from mslearn.optim import AdamW
from mslearn.run import Run
from mslearn.transformer import Config, Transformer

VOCABULARY = 4096  # that of the base checkpoint


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and its batch."""

    config: Config
    batch_size: int

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.config.context


SHAPES = {
    "A": Shape(Config(VOCABULARY, context=256, n_layers=6, n_heads=6, d_model=192), 16),
    "B": Shape(Config(VOCABULARY, context=256, n_layers=6, n_heads=6, d_model=384), 8),
}


@dataclass(frozen=True)
class Paired:
    """Seconds of two things measured in turn, pair by pair."""

    first: list[float]
    second: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times faster the second was, pair by pair."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest ratio."""
        return min(self.ratios), max(self.ratios)


def measure_pairs(
    first: Callable[[], object],
    second: Callable[[], object],
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Paired:
    """Time both in turn `pairs` times, who goes first changing from pair to pair.

    What else the machine does then slows both alike. Each runs once before, unmeasured.
    """
    if pairs < 1:
        raise ValueError(f"a median needs at least 1 pair, got {pairs}; pass for example 7")
    seconds: tuple[list[float], list[float]] = ([], [])
    first(), second()
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            started = clock()
            (first, second)[which]()
            seconds[which].append(clock() - started)
    return Paired(*seconds)


def random_tokens(vocab_size: int, count: int = 200_000) -> Tokens:
    """Made-up text: the time of a step does not depend on what it reads."""
    ids = np.random.default_rng(0).integers(vocab_size, size=count).astype(np.uint16)
    return Tokens(ids, np.ones(vocab_size, int))


def baseline_steps(shape: Shape, tokens: Tokens, device: Device) -> Iterator[float]:
    """The baseline's training, one step for each `next`, always in float32."""
    torch.manual_seed(0)
    model = Baseline(shape.config).to(device.torch_device)
    optimizer = plain_adamw(model)
    batches = Batches(tokens, shape.config.context, shape.batch_size)
    step = 0
    while True:
        inputs, targets = (device.to(part) for part in batches(step))
        yield plain_step(model, (inputs, targets), optimizer)
        step += 1


def our_steps(shape: Shape, tokens: Tokens, device: Device) -> Iterator[object]:
    """Ours: the whole loop that every stage uses, with the same kind of optimiser."""
    torch.manual_seed(0)
    model: nn.Module = Transformer(shape.config)
    batches = Batches(tokens, shape.config.context, shape.batch_size)
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    return Run(model, batches, optimizer, device=device).train(2**31)


def block(steps: Iterator[object], count: int, device: Device) -> Callable[[], None]:
    """What is timed: `count` steps and the wait until the device has done them."""

    def work() -> None:
        for _ in range(count):
            next(steps)
        device.synchronize()

    return work


def train(name: str = "A", pairs: int = 9, steps: int = 2, shape: Shape | None = None) -> dict:
    """Measure on this machine: medians of paired ratios, and in `runs` what they are medians of.

    `fp32_ratio` and `bf16_ratio` say how many times faster our step is than the baseline's in
    float32; the second is None where bfloat16 gains nothing. `peak_share` is the share of the
    fastest matrix product measured here that our float32 step reaches.
    """
    if shape is None:
        if name not in SHAPES:
            raise ValueError(f"no shape {name!r}: choose one of {', '.join(SHAPES)}")
        shape = SHAPES[name]
    fast = pick()
    full = replace(fast, amp_dtype=None)
    tokens = random_tokens(shape.config.vocab_size)
    plain = block(baseline_steps(shape, tokens, full), steps, full)
    formats = {"fp32": full} | ({"bf16": fast} if fast.amp_dtype else {})
    found: dict[str, Any] = {"shape": name, "fp32_ratio": None, "bf16_ratio": None}
    details: dict[str, Any] = {}
    flops = Transformer(shape.config).flops_per_token() * shape.tokens_per_step * steps
    for label, device in formats.items():
        ours = block(our_steps(shape, tokens, device), steps, device)
        paired = measure_pairs(plain, ours, pairs)
        found[f"{label}_ratio"] = paired.ratio
        fastest = min(paired.second)
        details[f"{label}_spread"] = paired.spread
        details[f"{label}_peak_share"] = flops / fastest / matmul_peak(device)
        details[f"{label}_tokens_per_s"] = shape.tokens_per_step * steps / fastest
        details["baseline_tokens_per_s"] = shape.tokens_per_step * steps / min(paired.first)
    found["peak_share"] = details["fp32_peak_share"]
    runs = f"{pairs} pairs of {steps} steps each, in turn"
    return {**found, "device": str(fast), "runs": runs, **details}
