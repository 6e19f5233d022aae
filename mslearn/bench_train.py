"""How fast a training step is: ours against the plain baseline, in turn, in one run."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from mslearn.baseline import Baseline, plain_adamw, plain_step
from mslearn.batches import Batches, Tokens
from mslearn.device import Device, pick
from mslearn.optim import AdamW
from mslearn.pairs import Paired, Worker, clock_of, in_turn, spin
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


def random_batches(shape: Shape, count: int = 200_000) -> Batches:
    """Batches of made-up text: the time of a step does not depend on what it reads."""
    n_symbols = shape.config.vocab_size
    ids = np.random.default_rng(0).integers(n_symbols, size=count).astype(np.uint16)
    return Batches(Tokens(ids, np.ones(n_symbols, int)), shape.config.context, shape.batch_size)


def baseline_steps(shape: Shape, device: Device) -> Iterator[float]:
    """The baseline's training, one step for each `next`, always in float32."""
    torch.manual_seed(0)
    model = Baseline(shape.config).to(device.torch_device)
    optimizer = plain_adamw(model)
    batches = random_batches(shape)
    step = 0
    while True:
        inputs, targets = (device.to(part) for part in batches(step))
        yield plain_step(model, (inputs, targets), optimizer)
        step += 1


def our_steps(shape: Shape, device: Device) -> Iterator[object]:
    """Ours: the whole loop that every stage uses, with the same kind of optimiser."""
    torch.manual_seed(0)
    model: nn.Module = Transformer(shape.config)
    batches = random_batches(shape)
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    return Run(model, batches, optimizer, device=device).train(2**31)


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


def train(name: str = "A", pairs: int = 15, steps: int = 1, shape: Shape | None = None) -> dict:
    """Measure on this machine: medians of paired ratios, and in `runs` what they are medians of.

    `fp32_ratio` and `bf16_ratio` say how many times faster our step is than the baseline's in
    float32; the second is None where bfloat16 gains nothing. `peak_share` is the share of the
    rate of a large matrix product measured beside it that our float32 step reaches.
    `busy_threads_ratio` is, beside a process that keeps one core busy, the time of our step on one
    thread over that on two, in the format that the device would use; None without a second core.
    """
    if shape is None:
        if name not in SHAPES:
            raise ValueError(f"no shape {name!r}: choose one of {', '.join(SHAPES)}")
        shape = SHAPES[name]
    fast = pick()
    full = replace(fast, amp_dtype=None)
    found = {"shape": name, "fp32_ratio": None, "bf16_ratio": None, "peak_share": None}
    details: dict[str, Any] = {}
    with Worker(baseline_steps, shape, device=full, count=steps) as plain:
        for label, device in {"fp32": full, **({"bf16": fast} if fast.amp_dtype else {})}.items():
            with Worker(our_steps, shape, device=device, count=steps) as ours:
                paired = in_turn(plain, ours, pairs)
            found[f"{label}_ratio"] = paired.ratio
            details[label] = _details(paired, shape, steps, device)
    found["peak_share"] = details["fp32"]["peak_share"]
    found["busy_threads_ratio"] = busy(shape, fast, pairs, steps)
    runs = f"{pairs} pairs of {steps} steps each, in turn, each side in a process of its own"
    return {**found, "device": str(fast), "runs": f"{runs}; {clock_of(fast)[1]}", **details}


def _details(paired: Paired, shape: Shape, steps: int, device: Device) -> dict[str, Any]:
    n_tokens = shape.tokens_per_step * steps
    flops = Transformer(shape.config).flops_per_token() * n_tokens
    return {
        "ratios": [round(ratio, 3) for ratio in paired.ratios],
        "tokens_per_s": n_tokens / statistics.median(paired.second),
        "baseline_tokens_per_s": n_tokens / statistics.median(paired.first),
        "peak_share": flops / statistics.median(paired.second) / peak(device),
    }


def busy(shape: Shape, device: Device, pairs: int, steps: int) -> float | None:
    """How many times faster our step is on two threads than on one, beside a busy neighbour."""
    if device.name != "cpu" or (os.cpu_count() or 1) < 2:
        return None
    neighbour = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    settings = dict(device=device, count=steps, clock=time.perf_counter)
    neighbour.start()
    try:
        with (
            Worker(our_steps, shape, threads=1, **settings) as one,
            Worker(our_steps, shape, threads=2, **settings) as two,
        ):
            return in_turn(one, two, pairs).ratio
    finally:
        neighbour.kill()
