"""How fast text is generated: with the cache against without it, and against `transformers`."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mslearn.bench_train import SHAPES
from mslearn.convert import to_transformers
from mslearn.device import Device, pick
from mslearn.generate import generate as tokens_after
from mslearn.pairs import Paired, clock_of, measure_pairs
from mslearn.transformer import Config, Transformer

PROMPT, NEW = 16, 240  # together the context of shape A: the text is never read anew
Way = Callable[[], list[int]]


def generate(
    pairs: int = 5, new: int = NEW, config: Config | None = None, device: Device | None = None
) -> dict[str, Any]:
    """How many times faster `new` tokens come with our cache: batch 1, float32, made-up prompt.

    `cached_ratio` is against ourselves without it, `transformers_ratio` against the library with
    its own cache and the same weights, in its nanochat layout; each a median of pairs in turn. The
    model has the sizes of shape A and random weights, for the time does not depend on them; the
    likeliest token is taken each time, so that both write the same text. Raises ValueError when
    prompt and new tokens do not fit the context: past it the text is read anew.
    """
    config = config or SHAPES["A"].config
    if new < 1 or PROMPT + new > config.context:
        raise ValueError(
            f"{PROMPT} tokens of prompt and {new} new ones must fit a context of {config.context}; "
            f"ask for 1 to {config.context - PROMPT} new tokens"
        )
    device = replace(device or pick(), amp_dtype=None)  # one token at a time gains nothing by bf16
    model = random_model(config).to(device.torch_device)
    prompt = torch.randint(config.vocab_size, (PROMPT,)).tolist()
    cached, uncached = (our_way(model, prompt, new, cache) for cache in (True, False))
    theirs = their_way(model, prompt, new)
    clock, _ = clock_of(device)
    alone = measure_pairs(
        synchronized(uncached, device), synchronized(cached, device), pairs, clock
    )
    beside = measure_pairs(synchronized(theirs, device), synchronized(cached, device), pairs, clock)
    same = agreement(theirs(), cached())
    return _summary(alone, beside, same, new, config, device)


def random_model(config: Config) -> Transformer:
    """A model with every weight at work: a fresh one adds nothing to its stream."""
    torch.manual_seed(0)
    model = Transformer(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def our_way(model: Transformer, prompt: list[int], new: int, cache: bool) -> Way:
    """The likeliest tokens from our own loop."""
    return lambda: tokens_after(model, prompt, new, temperature=0, cache=cache)


def their_way(model: Transformer, prompt: list[int], new: int) -> Way:
    """The likeliest tokens from the library's `generate`, with its cache and our weights."""
    theirs = to_transformers(model).to(model.embedding.weight.device)
    ids = torch.tensor([prompt], device=theirs.device)
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
    seen = torch.ones_like(ids)

    def work() -> list[int]:
        found: Tensor = theirs.generate(ids, attention_mask=seen, use_cache=True, **settings)
        return found[0, len(prompt) :].tolist()

    return work


def synchronized(way: Way, device: Device) -> Callable[[], None]:
    """What is timed: a text, and the wait until the device has written it."""

    def work() -> None:
        way()
        device.synchronize()

    return work


def agreement(left: list[int], right: list[int]) -> float:
    """The share of the tokens, from the first on, before two texts part."""
    pairs = enumerate(zip(left, right, strict=True))
    parting = next((place for place, (a, b) in pairs if a != b), len(left))
    return parting / len(left)


def _summary(
    alone: Paired, beside: Paired, same: float, new: int, config: Config, device: Device
) -> dict[str, Any]:
    sizes = f"{config.n_layers} layers, {config.n_heads} heads, width {config.d_model}"
    return {
        "cached_ratio": alone.ratio,
        "spread": alone.spread,
        "transformers_ratio": beside.ratio,
        "transformers_spread": beside.spread,
        "cached_tokens_per_s": new / statistics.median(alone.second),
        "uncached_tokens_per_s": new / statistics.median(alone.first),
        "transformers_tokens_per_s": new / statistics.median(beside.first),
        "same_text": same,
        "new_tokens": new,
        "prompt_tokens": PROMPT,
        "model": f"{sizes}, vocabulary {config.vocab_size}, context {config.context}, batch 1",
        "device": str(device),
        "runs": f"median of {len(alone.ratios)} pairs, in turn, {clock_of(device)[1]}",
    }
