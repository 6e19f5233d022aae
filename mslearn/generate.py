"""Generating text: one token at a time, chosen from the model's probabilities."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mslearn.attention import Cache
from mslearn.bpe import BPE
from mslearn.device import one_thread
from mslearn.fused import normalize
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
    ValueError for an empty prompt, settings out of range or an encoder, which sees both sides.
    """
    _check(tokens, n, temperature, top_k, top_p)
    if not model.config.causal:
        raise ValueError(
            "a model that sees both sides cannot write from left to right; load a causal one, such "
            "as checkpoints/base, or fill blanks with this one"
        )
    generator = torch.Generator().manual_seed(seed)
    predictions = _Predictions(model, [int(token) for token in tokens], cache)
    new: list[int] = []
    while len(new) < n:
        token = choose(predictions.next(), generator, temperature, top_k, top_p)
        if token == stop:
            break
        new.append(token)
        predictions.append(token)
    return new


class OneAtATime:
    """The same network for one position of one text, which is a vector: what a token costs.

    Where `Transformer` multiplies matrices, this multiplies a vector, and there a CPU is 2.5 times
    faster with the weights in the order (in, out): every number of the vector adds its multiple of
    one row to all outputs at once. So the weights are copied, once for each text.
    """

    def __init__(self, model: Transformer) -> None:
        self.model, self.width = model, model.config.d_model // model.config.n_heads
        self.blocks = [
            [each.weight.detach().T.contiguous() for each in (a.qkv, a.out, f.up, f.down)]
            for a, f in (block.children() for block in model.blocks)
        ]
        self.head = model.head.weight.detach().T.contiguous()

    def __call__(self, token: int, cache: Cache) -> Float[Tensor, " vocab"]:
        """Logits after `token`, which follows what the cache holds and is added to it."""
        heads, width, now = self.model.config.n_heads, self.width, cache.length
        cos, sin = self.model.table[:, now]  # (D,) each
        x = normalize(self.model.embedding.weight[token])
        for layer, (qkv, out, up, down) in enumerate(self.blocks):
            parts = (normalize(x) @ qkv).view(3 * heads, width)  # queries, keys and values by head
            qk = normalize(parts[: 2 * heads])
            qk = torch.addcmul(qk * cos, qk.roll(width // 2, -1), sin)
            new = qk[None, heads:, None], parts[None, 2 * heads :, None]  # (1, H, 1, D) each
            keys, values = cache.extend(layer, *new)
            y = F.scaled_dot_product_attention(qk[None, :heads, None], keys, values)  # (1, H, 1, D)
            x = torch.addmv(x, out.T, y.view(-1))
            x = torch.addmv(x, down.T, F.relu(normalize(x) @ up).square())
        cache.length += 1
        return normalize(x) @ self.head


class _Predictions:
    """The next token's logits, after the text so far; the caller appends what it chose."""

    def __init__(self, model: Transformer, tokens: list[int], cached: bool) -> None:
        self.model = model
        self.window = tokens[-model.config.context :]
        self.step = OneAtATime(model) if cached else None
        self.cache: Cache | None = None

    def append(self, token: int) -> None:
        self.window = [*self.window, token]
        if len(self.window) > self.model.config.context:
            # Every position would move by one, and with it every key: read a half once instead
            # of the whole context at every further token.
            self.window = self.window[-max(1, self.model.config.context // 2) :]
            self.cache = None

    @torch.inference_mode()
    def next(self) -> Float[Tensor, " vocab"]:
        """The logits after the last token of the window."""
        if self.cache is not None:
            with one_thread():  # too little work to share: threads would wait for one another
                return self.step(self.window[-1], self.cache)
        self.cache = self.model.new_cache() if self.step else None
        batch = torch.tensor([self.window], device=self.model.embedding.weight.device)  # (1, T)
        features = self.model.features(batch, self.cache)
        return self.model.head(features[0, -1])  # the last position alone


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
