"""What a cache saves in generation: the same text with and without it, in turn, in one run."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from mslearn.bench_train import SHAPES, Paired, clock_of, measure_pairs
from mslearn.device import Device, pick
from mslearn.generate import generate as tokens_after
from mslearn.transformer import Config, Transformer

PROMPT, NEW = 16, 240  # together the context of shape A: the text is never read anew


def generate(
    pairs: int = 5, new: int = NEW, config: Config | None = None, device: Device | None = None
) -> dict[str, Any]:
    """How many times faster `new` tokens come with the cache: batch 1, float32, made-up prompt.

    The model has the sizes of shape A and random weights, for the time does not depend on them.
    Raises ValueError when prompt and new tokens do not fit the context: past it both read anew.
    """
    config = config or SHAPES["A"].config
    if new < 1 or PROMPT + new > config.context:
        raise ValueError(
            f"{PROMPT} tokens of prompt and {new} new ones must fit a context of {config.context}; "
            f"ask for 1 to {config.context - PROMPT} new tokens"
        )
    device = replace(device or pick(), amp_dtype=None)  # one token at a time gains nothing by bf16
    torch.manual_seed(0)
    model = Transformer(config).to(device.torch_device)
    prompt = torch.randint(config.vocab_size, (PROMPT,)).tolist()

    def way(cache: bool) -> Callable[[], None]:
        def work() -> None:
            tokens_after(model, prompt, new, cache=cache)
            device.synchronize()

        return work

    clock, _ = clock_of(device)
    paired = measure_pairs(way(cache=False), way(cache=True), pairs, clock)
    return _summary(paired, new, config, device)


def _summary(paired: Paired, new: int, config: Config, device: Device) -> dict[str, Any]:
    sizes = f"{config.n_layers} layers, {config.n_heads} heads, width {config.d_model}"
    return {
        "cached_ratio": paired.ratio,
        "spread": paired.spread,
        "cached_tokens_per_s": new / statistics.median(paired.second),
        "uncached_tokens_per_s": new / statistics.median(paired.first),
        "new_tokens": new,
        "prompt_tokens": PROMPT,
        "model": f"{sizes}, vocabulary {config.vocab_size}, context {config.context}, batch 1",
        "device": str(device),
        "runs": f"median of {len(paired.ratios)} pairs, in turn, {clock_of(device)[1]}",
    }
