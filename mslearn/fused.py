"""Pieces of the training step with their gradients by hand: fewer passes over memory.

PyTorch builds each of them from several operations, and on a CPU every operation reads and writes
the whole tensor. Each is checked against PyTorch's own in the tests; the gain is in
`mslearn bench train`.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

IGNORED = -100  # the target that counts for nothing, as in F.cross_entropy


class _SquaredRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.addcmul(gradient.new_zeros(()), gradient, positive, value=2)  # in one pass


def squared_relu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The positive part, squared; its gradient is twice the positive part."""
    return _SquaredRelu.apply(x) if torch.is_grad_enabled() else F.relu(x).square()


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (length * length / x.shape[-1] + torch.finfo(x.dtype).eps).rsqrt()
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        product = gradient * y
        along = product.sum(-1, keepdim=True) / -y.shape[-1]  # this part changes no length
        return torch.addcmul(gradient, y, along, out=product).mul_(scale)


def normalize(x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """Scale each vector to a root mean square of 1, without parameters (RMSNorm).

    Source: Zhang and Sennrich 2019, equation 4. A reduced format is left to PyTorch, whose own
    kernel sums in float32.
    """
    if torch.is_grad_enabled() and x.dtype in (torch.float32, torch.float64):
        return _Normalize.apply(x)
    return F.rms_norm(x, (x.shape[-1],))


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return (x * cos).addcmul_(swap_halves(x), sin)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors  # turned back: the same by the opposite angle
        return (gradient * cos).addcmul_(swap_halves(gradient), sin, value=-1), None, None


def rotate(x: Float[Tensor, "batch time heads width"], table: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + width/2]) by its position's angle, from `rotary_table`."""
    cos, sin = table.to(x.dtype)[:, None, :, None, :]  # (2, T, width) -> two of (1, T, 1, width)
    if not torch.is_grad_enabled():  # one new token at a time: the detour costs more than the turn
        return (x * cos).addcmul_(swap_halves(x), sin)
    return _Rotate.apply(x, cos, sin)


def swap_halves(x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """The second half of the last dimension before the first."""
    return x.roll(x.shape[-1] // 2, -1)


def widen(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float32, if it was bfloat16 and on a CPU.

    There a matrix product gains by bfloat16, and all that works number by number loses.
    """
    return x.float() if x.is_cpu and x.dtype == torch.bfloat16 else x


def attend(q: Tensor, k: Tensor, v: Tensor, **look: Any) -> Float[Tensor, "batch heads time width"]:
    """`F.scaled_dot_product_attention`; on a CPU in float32 even under autocast.

    PyTorch's kernel for a CPU takes up to four times as long backwards in bfloat16 where heads are
    narrow, as ours are; it gains from about 128 numbers a head on.
    """
    if not q.is_cpu:
        return F.scaled_dot_product_attention(q, k, v, **look)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(widen(q), widen(k), widen(v), **look)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        kept = targets != IGNORED
        share = kept.to(weight.dtype) / kept.sum()  # of each position in the mean
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            loss, *gradients = _by_rows(x.to(dtype), weight.to(dtype), targets.clamp_min(0), share)
        ctx.save_for_backward(*(g.to(t.dtype) for g, t in zip(gradients, (x, weight), strict=True)))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x_gradient, weight_gradient = ctx.saved_tensors
        return x_gradient * gradient, weight_gradient * gradient, None


def _by_rows(
    x: Tensor, weight: Tensor, targets: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients, a few rows of logits at a time so that they stay in the cache.

    The slopes of a row are its softmax minus one at the target, times its share in the mean. The
    share multiplies the narrow `x` and its gradient in place of the wide slopes.
    """
    n_numbers = 2**20 if x.device.type == "cpu" else 2**26
    rows = max(1, n_numbers // weight.shape[0])
    loss = torch.zeros((), dtype=share.dtype, device=x.device)
    x_gradient, shared = torch.empty_like(x), x * share[:, None].to(x.dtype)
    weight_gradient = torch.zeros_like(weight, dtype=share.dtype)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        target = targets[part, None]
        logits = (x[part] @ weight.T).to(share.dtype)
        slopes = logits.softmax(-1)
        # log Σ exp z is the largest logit minus the log of its probability, which is never tiny.
        below = logits.amax(-1, keepdim=True) - logits.gather(1, target)
        losses = below - slopes.amax(-1, keepdim=True).log()
        loss += losses[:, 0] @ share[part]
        slopes = slopes.scatter_add_(1, target, torch.full_like(losses, -1)).to(x.dtype)
        torch.mm(slopes, weight, out=x_gradient[part])
        weight_gradient += slopes.T @ shared[part]
    return loss, x_gradient.mul_(share[:, None]), weight_gradient


def linear_cross_entropy(
    x: Float[Tensor, "count width"],
    weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " count"],
) -> Float[Tensor, ""]:
    """`F.cross_entropy(x @ weight.T, targets)` without ever holding all the logits.

    Loss and gradients are made in the same pass, as in Hsu et al. 2024, Liger Kernel, section 3.2.
    """
    if not torch.is_grad_enabled():
        return F.cross_entropy(F.linear(x, weight).float(), targets, ignore_index=IGNORED)
    return _LinearCrossEntropy.apply(x, weight, targets)
