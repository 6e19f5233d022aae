"""One set of blocks for every kind of transformer: decoder, encoder and prefix model.

`Design` says which: the norm and its place, positions, feed-forward, heads and mask. GPT-2, Llama
and BERT are three designs; the decoder of `transformer.py` is a fourth, written out for speed.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn.attention import Cache
from mslearn.fused import attend, rotate

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "swiglu": F.silu,
}


@dataclass(frozen=True)
class Design:
    """What a model is made of. Widths in numbers per position, `context` in tokens.

    `hidden` 0 means 4·d_model and `kv_heads` 0 as many as `n_heads`. `mask` says what a position
    may see: itself and what is before it, everything, or a prefix whole and then what is before it.
    `rotary_pairs` turns neighbours 2i and 2i + 1 together, `rotary` turns i and i + width/2. A norm
    `plain` is an RMS norm without a weight. `embed_norm` normalises the embeddings and `final_norm`
    the last stream. The head `masked` is BERT's: one more layer and norm before the words.
    Raises ValueError for sizes that do not fit each other.
    """

    vocab_size: int
    context: int
    n_layers: int
    n_heads: int
    d_model: int
    hidden: int = 0
    kv_heads: int = 0
    mask: Literal["causal", "none", "prefix"] = "causal"
    norm: Literal["layer", "rms", "plain"] = "layer"
    place: Literal["pre", "post"] = "pre"
    eps: float = 1e-5
    embed_norm: bool = False
    final_norm: bool = True
    positions: Literal["learned", "rotary", "rotary_pairs", "none"] = "learned"
    base: float = 10000.0
    qk_norm: bool = False
    activation: str = "gelu"
    bias: bool = True
    n_types: int = 0
    head: Literal["linear", "masked", "none"] = "linear"
    tied: bool = True

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.context, self.n_layers, self.n_heads, self.d_model)
        if min(sizes) < 1 or min(self.hidden, self.kv_heads, self.n_types) < 0:
            raise ValueError(f"every size of a model must be at least 1, got {self}")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads must be a multiple of kv_heads, got {self.n_heads} and "
                f"{self.n_kv_heads}: every key-value head serves equally many query heads"
            )
        if self.rotary and self.head_width % 2:
            raise ValueError(
                f"rotary positions turn pairs, so the head width must be even, got "
                f"{self.head_width}; choose d_model as an even multiple of n_heads"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"no activation {self.activation!r}: choose one of {', '.join(ACTIVATIONS)}"
            )

    @property
    def head_width(self) -> int:
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.kv_heads or self.n_heads

    @property
    def width(self) -> int:
        """Numbers between the two matrices of the feed-forward layer."""
        return self.hidden or 4 * self.d_model

    @property
    def rotary(self) -> bool:
        return self.positions.startswith("rotary")


class PlainNorm(nn.Module):
    """Root mean square 1, without parameters."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return F.rms_norm(x, x.shape[-1:], eps=self.eps)


def new_norm(design: Design) -> nn.Module:
    """The norm of a design, over the last axis of `d_model` numbers."""
    if design.norm == "plain":
        return PlainNorm(design.eps)
    kind = nn.LayerNorm if design.norm == "layer" else nn.RMSNorm
    return kind(design.d_model, eps=design.eps)


def may_look(
    kind: str,
    time: int,
    prefix: Int[Tensor, " batch"] | None = None,
    lengths: Int[Tensor, " batch"] | None = None,
) -> Bool[Tensor, "batch #time time"] | None:
    """Which position (row) may look at which (column); None where every one may at every one.

    `prefix` is how many positions of each text are seen whole, `lengths` how many are text and no
    padding. Raises ValueError for a prefix mask without its prefix.
    """
    place = torch.arange(time, device=None if lengths is None else lengths.device)
    allowed = None
    if kind != "none":
        allowed = (place <= place[:, None])[None]  # (1, T, T): column s, row t, s <= t
    if kind == "prefix":
        if prefix is None:
            raise ValueError("a prefix model needs prefix=, the number of tokens seen whole")
        place, allowed = place.to(prefix.device), allowed.to(prefix.device)
        allowed = allowed | (place < prefix[:, None])[:, None]  # (B, T, T)
    if lengths is not None:
        text = (place < lengths[:, None])[:, None]  # (B, 1, T)
        allowed = text if allowed is None else allowed & text
    return allowed


class SelfAttention(nn.Module):
    """Heads of queries, of which groups share keys and values (Ainslie et al. 2023, GQA)."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design, width = design, design.n_kv_heads * design.head_width
        self.q = nn.Linear(design.d_model, design.d_model, bias=design.bias)
        self.k = nn.Linear(design.d_model, width, bias=design.bias)
        self.v = nn.Linear(design.d_model, width, bias=design.bias)
        self.out = nn.Linear(design.d_model, design.d_model, bias=design.bias)

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        table: Float[Tensor, "2 time width"] | None,
        look: dict,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch time d_model"]:
        """`look` is the mask, as arguments of PyTorch's attention."""
        design = self.design
        q, k, v = (
            part(x).unflatten(-1, (-1, design.head_width)) for part in (self.q, self.k, self.v)
        )
        if table is not None:
            q, k = self._turn(q, table), self._turn(k, table)  # (B, T, H, D)
        if design.qk_norm:
            q, k = (F.rms_norm(part, part.shape[-1:], eps=design.eps) for part in (q, k))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, H, T, D)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        grouped = design.n_kv_heads != design.n_heads
        y = attend(q, k, v, enable_gqa=grouped, **look).to(x.dtype)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, D) -> (B, T, H·D)

    def _turn(self, x: Float[Tensor, "batch time heads width"], table: Tensor) -> Tensor:
        if self.design.positions == "rotary":
            return rotate(x, table)
        return neighbours(rotate(halves(x), table))


def halves(x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """0 1 2 3 4 5 as 0 2 4 1 3 5: from pairs of neighbours to pairs across the halves."""
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


def neighbours(x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """0 2 4 1 3 5 as 0 1 2 3 4 5: what `halves` did, undone."""
    return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


class FeedForward(nn.Module):
    """Widen, bend, narrow; SwiGLU multiplies by a second widening (Shazeer 2020)."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.bend, self.gated = ACTIVATIONS[design.activation], design.activation == "swiglu"
        self.up = nn.Linear(design.d_model, design.width, bias=design.bias)
        if self.gated:
            self.gate = nn.Linear(design.d_model, design.width, bias=design.bias)
        self.down = nn.Linear(design.width, design.d_model, bias=design.bias)

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Tensor:
        if self.gated:
            return self.down(self.bend(self.gate(x)) * self.up(x))
        return self.down(self.bend(self.up(x)))


class Block(nn.Module):
    """Attention mixes positions, the feed-forward layer works on each; both add to the stream."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.pre = design.place == "pre"
        self.attention, self.attention_norm = SelfAttention(design), new_norm(design)
        self.feed_forward, self.feed_forward_norm = FeedForward(design), new_norm(design)

    def forward(self, x: Tensor, *where: object) -> Float[Tensor, "batch time d_model"]:
        """`where` is what attention needs besides: table, mask, cache and the layer's number."""
        if self.pre:
            x = x + self.attention(self.attention_norm(x), *where)
            return x + self.feed_forward(self.feed_forward_norm(x))
        x = self.attention_norm(x + self.attention(x, *where))
        return self.feed_forward_norm(x + self.feed_forward(x))
