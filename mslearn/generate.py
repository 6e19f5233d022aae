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
    """The same network for one position of one text, a single row: what a token costs.

    There a CPU waits for the weights, each of which it needs once, and for the start of every
    operation. So the weights are copied, once for each text, into the order (in, out), in which
    each number of the row adds its multiple of one line to all outputs at once; and the operations
    are as few as they can be: keys and values go into the cache together, and the angle of the
    position becomes one small matrix, the same for all layers.
    """

    def __init__(self, model: Transformer) -> None:
        self.heads, self.width = model.config.n_heads, model.config.d_model // model.config.n_heads
        self.embedding, self.table = model.embedding.weight.detach(), model.table
        self.blocks = [
            [_across(each) for each in (a.qkv, a.out, f.up, f.down)]
            for a, f in (block.children() for block in model.blocks)
        ]
        self.head = _across(model.head)
        self.on_cpu = self.embedding.device.type == "cpu"
        self.eps = self.embedding.new_tensor(torch.finfo(self.embedding.dtype).eps)
        self.unit = torch.eye(self.width, dtype=self.eps.dtype, device=self.eps.device)
        self.swap = self.unit.roll(self.width // 2, 0)  # x @ swap exchanges the halves of x

    def __call__(self, token: int, cache: Cache) -> Float[Tensor, " vocab"]:
        """Logits after `token`, which follows what the cache holds and is added to it."""
        heads, width, now = self.heads, self.width, cache.length
        cos, sin = self.table[:, now]  # (D,) each
        turn = torch.addcmul(self.unit * cos, self.swap, sin)  # x @ turn is `rotate` of x
        x = self._normalize(self.embedding[token : token + 1])  # (1, d_model)
        for (qkv, out, up, down), both in zip(self.blocks, cache.both, strict=True):
            parts = self._product(self._normalize(x), qkv).view(3 * heads, width)
            qk = parts[: 2 * heads]  # queries and keys by head, and after them the values
            torch.mm(normalize(qk), turn, out=qk)
            q, kv = parts.view(3, 1, heads, 1, width).split([1, 2])
            both[:, :, :, now : now + 1] = kv
            keys, values = both[:, :, :, : now + 1]  # (1, H, T, D) each
            y = F.scaled_dot_product_attention(q[0], keys, values)  # (1, H, 1, D)
            x += self._product(y.view(1, -1), out)
            x += self._product(self._product(self._normalize(x), up).relu_().square_(), down)
        cache.length += 1
        return self._product(self._normalize(x), self.head)[0]

    def _normalize(self, row: Float[Tensor, "1 d_model"]) -> Float[Tensor, "1 d_model"]:
        """`normalize` of a single row: a scalar product, and the root of one number."""
        x = row[0]
        return row * torch.add(self.eps, x.dot(x), alpha=1 / len(x)).rsqrt_()

    def _product(self, row: Tensor, weight: Tensor) -> Float[Tensor, "1 outputs"]:
        if self.on_cpu:
            # A product reads several lines in turn, a sum straight on: that fetches them faster,
            # and the product then finds them in the processor's own memory.
            weight.sum()
        return row @ weight


def _across(linear: torch.nn.Linear) -> Float[Tensor, "inputs outputs"]:
    return linear.weight.detach().T.contiguous()


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
