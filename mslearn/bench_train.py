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
from mslearn.device import Device, pick
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
    "C": Shape(Config(VOCABULARY, context=128, n_layers=4, n_heads=4, d_model=128), 32),
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


def clock_of(device: Device) -> tuple[Callable[[], float], str]:
    """The clock for a device, and its name.

    On one thread of a CPU it counts the processor's own time: that is the time on a quiet machine,
    whatever else runs. Several threads or another device need the time on the wall.
    """
    if device.name == "cpu" and torch.get_num_threads() == 1:
        return time.process_time, "processor time"
    return time.perf_counter, "time on the wall"


def peak(device: Device, size: int = 1024, runs: int = 15) -> float:
    """FLOP/s of a square matrix product, a median by the same clock as the steps."""
    clock, _ = clock_of(device)
    dtype = device.amp_dtype or torch.float32
    left = torch.randn(size, size, device=device.torch_device, dtype=dtype)
    seconds = []
    for _ in range(runs + 2):  # the first two build the kernel and wake the processor
        started = clock()
        left @ left
        device.synchronize()
        seconds.append(clock() - started)
    return 2 * size**3 / statistics.median(seconds[2:])


def train(name: str = "A", pairs: int = 9, steps: int = 2, shape: Shape | None = None) -> dict:
    """Measure on this machine: medians of paired ratios, and in `runs` what they are medians of.

    `fp32_ratio` and `bf16_ratio` say how many times faster our step is than the baseline's in
    float32; the second is None where bfloat16 gains nothing. `peak_share` is the share of the
    rate of a large matrix product measured beside it that our float32 step reaches.
    """
    if shape is None:
        if name not in SHAPES:
            raise ValueError(f"no shape {name!r}: choose one of {', '.join(SHAPES)}")
        shape = SHAPES[name]
    fast = pick()
    full = replace(fast, amp_dtype=None)
    tokens = random_tokens(shape.config.vocab_size)
    plain = block(baseline_steps(shape, tokens, full), steps, full)
    found = {"shape": name, "fp32_ratio": None, "bf16_ratio": None, "peak_share": None}
    details: dict[str, Any] = {}
    for label, device in {"fp32": full, **({"bf16": fast} if fast.amp_dtype else {})}.items():
        ours = block(our_steps(shape, tokens, device), steps, device)
        paired = measure_pairs(plain, ours, pairs, clock_of(device)[0])
        n_tokens = shape.tokens_per_step * steps
        flops = Transformer(shape.config).flops_per_token() * n_tokens
        found[f"{label}_ratio"] = paired.ratio
        details[label] = {
            "ratios": [round(ratio, 3) for ratio in paired.ratios],
            "tokens_per_s": n_tokens / statistics.median(paired.second),
            "baseline_tokens_per_s": n_tokens / statistics.median(paired.first),
            "peak_share": flops / statistics.median(paired.second) / peak(device),
        }
    found["peak_share"] = details["fp32"]["peak_share"]
    runs = f"{pairs} pairs of {steps} steps each, in turn; {clock_of(fast)[1]}"
    return {**found, "device": str(fast), "runs": runs, **details}
