"""Causal self-attention with rotary positions, normalised queries and keys, and a cache."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mslearn.crew import texts_apart
from mslearn.fused import attend, normalize, rotate, widen


def rotary_table(
    head_width: int, context: int, base: float = 10000.0, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "2 context head_width"]:
    """Cosines and sines of position times frequency, frequencies from 1 down to 1/base.

    Both halves of the width have the same angles; the sines of the first are negative, so that
    turning x is x·cos + (x with its halves swapped)·sin.

    Source: Su et al. 2021, RoFormer, equation 15. Raises ValueError for an odd head width.
    """
    if head_width % 2:
        raise ValueError(
            f"rotary positions turn pairs, so the head width must be even, got {head_width}; "
            "choose d_model as an even multiple of n_heads"
        )
    frequencies = base ** (-torch.arange(0, head_width, 2, dtype=dtype) / head_width)
    angles = torch.arange(context)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)])


class Cache:
    """Keys and values of the positions seen so far, in memory allocated once."""

    def __init__(
        self, layers: int, batch: int, heads: int, context: int, width: int, like: Tensor
    ) -> None:
        shape = (layers, 2, batch, heads, context, width)
        self.both = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.keys, self.values = self.both[:, 0], self.both[:, 1]
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, H, T, D) after what is there; give back everything up to and with it."""
        stop = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : stop] = keys
        self.values[layer, :, :, self.length : stop] = values
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]


@texts_apart
class Attention(nn.Module):
    """Every position looks at itself and the positions before it.

    One packed product makes queries, keys and values; queries and keys are scaled to length
    √width, which keeps the logits of attention bounded (Henry et al. 2020, QKNorm).
    """

    def __init__(self, d_model: int, n_heads: int, causal: bool = True) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        table: Float[Tensor, "2 time width"],
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch time d_model"]:
        batch, time, d_model = x.shape
        width = d_model // self.n_heads
        qkv = widen(self.qkv(x)).view(batch, time, 3 * self.n_heads, width)
        qk, v = qkv.split([2 * self.n_heads, self.n_heads], dim=2)
        qk = rotate(normalize(qk), table)  # queries and keys in one pass
        q, k = qk.chunk(2, dim=2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, T, H, D) -> (B, H, T, D)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        y = attend(q, k, v, **self._mask(time, k.shape[2], x.device)).to(x.dtype)
        return self.out(y.transpose(1, 2).reshape(batch, time, d_model))

    def _mask(self, time: int, seen: int, device: torch.device) -> dict:
        """Which of `seen` positions the last `time` may look at, as the attention's arguments."""
        if not self.causal or time == 1:  # a single new position may see all that is cached
            return {}
        if time == seen:
            return {"is_causal": True}
        # is_causal would line the two up at their starts; here they end together.
        allowed = torch.ones(time, seen, dtype=torch.bool, device=device).tril(seen - time)
        return {"attn_mask": allowed}
