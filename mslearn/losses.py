"""Losses in nats on logits, each with its gradient written by hand beside it."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def logsumexp(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """log Σ exp(zₖ) over the last axis, without overflow.

    The greatest logit m is taken out, log Σ exp(zₖ) = m + log Σ exp(zₖ − m), so that every
    exponent is at most 0. A row of −∞ gives −∞.
    """
    greatest = logits.detach().amax(-1, keepdim=True)  # it cancels, so no gradient flows through it
    greatest = torch.where(greatest.isfinite(), greatest, 0.0)  # ∞ − ∞ would be NaN
    return (logits - greatest).exp().sum(-1).log() + greatest.squeeze(-1)


def logsumexp_gradient(
    logits: Float[Tensor, "*batch classes"],
) -> Float[Tensor, "*batch classes"]:
    """∂ logsumexp / ∂ logits, which is the softmax."""
    return softmax(logits)


def log_softmax(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """log pₖ = zₖ − logsumexp(z): log-probabilities that are never log 0 for finite logits."""
    return logits - logsumexp(logits).unsqueeze(-1)


def log_softmax_gradient(
    logits: Float[Tensor, "*batch classes"], upstream: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch classes"]:
    """∂L/∂z from ∂L/∂ log p: gᵢ − pᵢ Σₖ gₖ."""
    return upstream - softmax(logits) * upstream.sum(-1, keepdim=True)


def softmax(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """pₖ = exp(zₖ) / Σⱼ exp(zⱼ) over the last axis; each row is positive and sums to 1."""
    return log_softmax(logits).exp()


def softmax_gradient(
    logits: Float[Tensor, "*batch classes"], upstream: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch classes"]:
    """∂L/∂z from ∂L/∂p: pᵢ (gᵢ − Σₖ pₖ gₖ). It vanishes where one p is near 1."""
    p = softmax(logits)
    return p * (upstream - (p * upstream).sum(-1, keepdim=True))


def cross_entropy(
    logits: Float[Tensor, "*batch classes"],
    targets: Int[Tensor, "*batch"],
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean of −Σₖ qₖ log pₖ in nats over the targets that are not `ignore_index`.

    q is 1 at the target, or (1 − ε) there plus ε/classes everywhere for `label_smoothing` ε
    (Szegedy et al., 2016, section 7). NaN when every target is ignored, as in torch.
    Raises ValueError or TypeError for targets of another shape, type or range.
    """
    check_targets(logits, targets, ignore_index, label_smoothing)
    log_p = log_softmax(logits)
    counted = targets != ignore_index
    index = torch.where(counted, targets, 0).long().unsqueeze(-1)  # (*batch) -> (*batch, 1)
    loss = -log_p.gather(-1, index).squeeze(-1)
    if label_smoothing:  # without smoothing a logit of −∞ off the target must not count
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(-1)
    return torch.where(counted, loss, 0.0).sum() / counted.sum()


def cross_entropy_gradient(
    logits: Float[Tensor, "*batch classes"],
    targets: Int[Tensor, "*batch"],
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Float[Tensor, "*batch classes"]:
    """∂ cross_entropy / ∂ logits = (p − q) / (targets counted), and 0 where ignored."""
    check_targets(logits, targets, ignore_index, label_smoothing)
    counted = targets != ignore_index
    index = torch.where(counted, targets, 0).long().unsqueeze(-1)
    q = torch.full_like(logits, label_smoothing / logits.shape[-1])
    q.scatter_add_(-1, index, torch.full_like(q[..., :1], 1 - label_smoothing))
    return torch.where(counted.unsqueeze(-1), softmax(logits) - q, 0.0) / counted.sum()


def binary_cross_entropy(
    logits: Float[Tensor, "*batch"], targets: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Mean of −y log p − (1 − y) log(1 − p) in nats, where p = 1 / (1 + exp(−logit)).

    Worked out on the logit z as log(1 + exp(z)) − y z. Targets lie in [0, 1].
    """
    check_shapes(logits, targets)
    # max(z, 0) is written (z + |z|) / 2, because autograd then gives its middle slope, 1/2, at
    # z = 0: the right slope of the whole, where a network with zero starting values begins.
    softplus = (logits + logits.abs()) / 2 + (-logits.abs()).exp().log1p()
    return (softplus - targets * logits).mean()


def binary_cross_entropy_gradient(
    logits: Float[Tensor, "*batch"], targets: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """∂ binary_cross_entropy / ∂ logits = (p − y) / N."""
    check_shapes(logits, targets)
    return (logits.sigmoid() - targets) / logits.numel()


def mse(
    predictions: Float[Tensor, "*batch"], targets: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Mean of (prediction − target)², in the square of their unit."""
    check_shapes(predictions, targets)
    return (predictions - targets).square().mean()


def mse_gradient(
    predictions: Float[Tensor, "*batch"], targets: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """∂ mse / ∂ predictions = 2 (prediction − target) / N."""
    check_shapes(predictions, targets)
    return 2 * (predictions - targets) / predictions.numel()


def perplexity(nats: float | Tensor) -> float:
    """exp of a mean cross-entropy in nats: as unsure as among this many equal choices."""
    nats = float(nats)
    return math.exp(nats) if nats < 709 else math.inf  # exp(710) overflows 64 bits


def bits_per_byte(nats_total: float | Tensor, n_bytes: int) -> float:
    """A text's total cross-entropy in nats as bits per UTF-8 byte, whatever its tokens were."""
    if n_bytes <= 0:
        raise ValueError(f"n_bytes must be positive, got {n_bytes}: count the text's UTF-8 bytes")
    return float(nats_total) / (math.log(2) * n_bytes)


def check_shapes(ours: Tensor, targets: Tensor) -> None:
    """Refuse shapes that differ: broadcasting would silently average every pair."""
    if ours.shape != targets.shape:
        raise ValueError(
            f"targets must have the shape {tuple(ours.shape)} of the predictions, got "
            f"{tuple(targets.shape)}: reshape one of them so that each prediction has one target"
        )


def check_targets(logits: Tensor, targets: Tensor, ignore_index: int, smoothing: float) -> None:
    """Refuse targets that name no class of `logits`, and a smoothing outside [0, 1]."""
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"targets must be class numbers, got {targets.dtype}: use targets.long()")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} need targets of shape "
            f"{tuple(logits.shape[:-1])}, got {tuple(targets.shape)}: classes come last in logits"
        )
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {smoothing}; 0.1 is usual")
    if targets.device.type != "cpu" or targets.numel() == 0:
        return  # looking at values would make the accelerator wait
    bad = (targets != ignore_index) & ((targets < 0) | (targets >= logits.shape[-1]))
    if bad.any():
        raise ValueError(
            f"targets must lie in 0..{logits.shape[-1] - 1} or be ignore_index={ignore_index}, "
            f"got {targets[bad][0].item()}: check the labels against the number of classes"
        )
