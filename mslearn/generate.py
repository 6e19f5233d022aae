"""Generating text: one token at a time, chosen from the model's probabilities."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mslearn.bpe import BPE
from mslearn.transformer import Transformer


def choose(
    logits: Float[Tensor, " vocab"],
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """One token id drawn from the logits of the next token; the likeliest at temperature 0.

    `top_k` keeps the k likeliest tokens; `top_p` the fewest whose probabilities reach p (nucleus
    sampling, Holtzman et al. 2020). Drawn on the CPU, so that a seed gives the same text on any
    device up to its rounding.
    """
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.float().cpu() / temperature
    if top_k is None and top_p is None:  # nothing is left out: sorting would cost more than drawing
        return _draw(scaled.softmax(0), generator)
    values, ids = scaled.sort(descending=True)
    kept = min(top_k or len(values), len(values))
    probabilities = values[:kept].softmax(0)
    if top_p is not None:
        before = probabilities.cumsum(0) - probabilities  # the likeliest always has 0 before it
        probabilities = torch.where(before < top_p, probabilities, 0.0)
    return int(ids[_draw(probabilities, generator)])


def _draw(probabilities: Float[Tensor, " vocab"], generator: torch.Generator) -> int:
    """An index by its share of the sum: where a uniform number falls among the running sums."""
    sums = probabilities.double().cumsum(0)
    point = sums[-1] * torch.rand(1, generator=generator, dtype=torch.float64)
    return int(torch.searchsorted(sums, point, right=True))


def generate(
    model: Transformer,
    tokens: list[int] | Int[Tensor, " time"],
    n: int,
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: int | None = None,
    cache: bool = True,
) -> list[int]:
    """Up to `n` token ids that follow `tokens`, fewer when the id `stop` comes up (left out).

    With a cache each new token costs one position instead of the whole text. Past the model's
    context the text is read anew from its last half, with and without the cache alike. Raises
    ValueError for an empty prompt or settings out of range.
    """
    _check(tokens, n, temperature, top_k, top_p)
    generator = torch.Generator().manual_seed(seed)
    predictions = _Predictions(model, [int(token) for token in tokens], cache)
    new: list[int] = []
    for logits in predictions:
        if len(new) == n:
            break
        token = choose(logits, generator, temperature, top_k, top_p)
        if token == stop:
            break
        new.append(token)
        predictions.append(token)
    return new


class _Predictions:
    """The next token's logits, after the text so far; the caller appends what it chose."""

    def __init__(self, model: Transformer, tokens: list[int], cached: bool) -> None:
        self.model, self.cached = model, cached
        self.window = tokens[-model.config.context :]
        self.cache = model.new_cache() if cached else None
        self.unread = self.window

    def append(self, token: int) -> None:
        self.window = [*self.window, token]
        self.unread = [token] if self.cached else self.window
        if len(self.window) > self.model.config.context:
            # Every position would move by one, and with it every key: read a half once instead
            # of the whole context at every further token.
            self.window = self.window[-max(1, self.model.config.context // 2) :]
            self.unread = self.window
            self.cache = self.model.new_cache() if self.cached else None

    def __iter__(self) -> Iterator[Float[Tensor, " vocab"]]:
        device = self.model.embedding.weight.device
        training = self.model.training
        self.model.eval()
        try:
            while True:
                batch = torch.tensor([self.unread], device=device)  # (1, T)
                with torch.inference_mode():
                    features = self.model.features(batch, self.cache)
                    logits = self.model.head(features[0, -1])  # the last position alone
                yield logits
        finally:
            self.model.train(training)


def sample_text(model: Transformer, tokenizer: BPE, prompt: str, n: int = 100, **settings) -> str:
    """The prompt and what the model makes of it, as text; `settings` as in `generate`.

    An empty prompt starts a new document. Generation ends at the tokeniser's end mark.
    """
    tokens = tokenizer.encode(prompt) or [tokenizer.end]
    return prompt + tokenizer.decode(
        generate(model, tokens, n, **{"stop": tokenizer.end, **settings})
    )


def _check(tokens: object, n: int, temperature: float, top_k: int | None, top_p: float | None):
    if len(tokens) == 0:
        raise ValueError("the prompt is empty; start with a token, such as tokenizer.end")
    if n < 0 or temperature < 0:
        raise ValueError(f"n and temperature must not be negative, got {n} and {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k keeps at least 1 token, got {top_k}; leave it out to keep all")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is a probability above 0 and at most 1, got {top_p}")
