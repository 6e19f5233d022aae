"""Normalisation of activations and of weights, each with its gradient written by hand beside it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

Slopes = tuple[Tensor, Tensor, Tensor]


def standardize(
    x: Float[Tensor, "*axes"], dims: tuple[int, ...], eps: float = 1e-5
) -> tuple[Float[Tensor, "*axes"], Tensor, Tensor]:
    """x̂ = (x − μ) / √(σ² + ε) with mean and biased variance over `dims`; also gives μ and σ²."""
    mean = x.mean(dims, keepdim=True)
    variance = (x - mean).square().mean(dims, keepdim=True)
    return (x - mean) / (variance + eps).sqrt(), mean, variance


def standardize_gradient(
    x: Float[Tensor, "*axes"],
    upstream: Float[Tensor, "*axes"],
    dims: tuple[int, ...],
    eps: float = 1e-5,
) -> Float[Tensor, "*axes"]:
    """∂L/∂x from h = ∂L/∂x̂: (h − mean h − x̂ · mean(h x̂)) / √(σ² + ε).

    The two means carry what x does through μ and through σ. Source: Ioffe and Szegedy 2015, 3.
    """
    x_hat, _, variance = standardize(x, dims, eps)
    through_mean = upstream.mean(dims, keepdim=True)
    through_variance = x_hat * (upstream * x_hat).mean(dims, keepdim=True)
    return (upstream - through_mean - through_variance) / (variance + eps).sqrt()


def batch_norm(
    x: Float[Tensor, "batch width *time"], weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Float[Tensor, "batch width *time"]:
    """γ x̂ + β for each feature, standardised over the batch (and the positions, if any)."""
    x_hat, _, _ = standardize(x, over_batch(x), eps)
    return along(weight, x) * x_hat + along(bias, x)


def batch_norm_gradient(
    x: Float[Tensor, "batch width *time"], weight: Tensor, upstream: Tensor, eps: float = 1e-5
) -> Slopes:
    """∂L/∂x, ∂L/∂γ and ∂L/∂β from ∂L/∂y."""
    dims = over_batch(x)
    x_hat, _, _ = standardize(x, dims, eps)
    slope = standardize_gradient(x, along(weight, x) * upstream, dims, eps)
    return slope, (upstream * x_hat).sum(dims), upstream.sum(dims)


def layer_norm(
    x: Float[Tensor, "*batch width"], weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Float[Tensor, "*batch width"]:
    """γ x̂ + β for each vector by itself, standardised over its features (Ba et al. 2016)."""
    return weight * standardize(x, (-1,), eps)[0] + bias


def layer_norm_gradient(
    x: Float[Tensor, "*batch width"], weight: Tensor, upstream: Tensor, eps: float = 1e-5
) -> Slopes:
    """∂L/∂x, ∂L/∂γ and ∂L/∂β from ∂L/∂y."""
    x_hat, _, _ = standardize(x, (-1,), eps)
    others = tuple(range(x.dim() - 1))
    slope = standardize_gradient(x, weight * upstream, (-1,), eps)
    return slope, total(upstream * x_hat, others), total(upstream, others)


def rms_norm(
    x: Float[Tensor, "*batch width"], weight: Tensor, eps: float = 1e-5
) -> Float[Tensor, "*batch width"]:
    """γ x / √(mean x² + ε) for each vector by itself (Zhang and Sennrich 2019)."""
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def rms_norm_gradient(
    x: Float[Tensor, "*batch width"], weight: Tensor, upstream: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """∂L/∂x and ∂L/∂γ from ∂L/∂y."""
    root = (x.square().mean(-1, keepdim=True) + eps).sqrt()
    x_hat, h = x / root, weight * upstream
    slope = (h - x_hat * (h * x_hat).mean(-1, keepdim=True)) / root
    return slope, total(upstream * x_hat, tuple(range(x.dim() - 1)))


def weight_norm(v: Float[Tensor, "out in"], g: Float[Tensor, "out"]) -> Float[Tensor, "out in"]:
    """w = g v / ‖v‖ for each row, so that g is its length (Salimans and Kingma 2016)."""
    return (g / v.norm(dim=-1))[:, None] * v


def weight_norm_gradient(
    v: Float[Tensor, "out in"], g: Float[Tensor, "out"], upstream: Float[Tensor, "out in"]
) -> tuple[Float[Tensor, "out in"], Float[Tensor, "out"]]:
    """∂L/∂v and ∂L/∂g from ∂L/∂w: the part along v goes to g, the rest to v."""
    length = v.norm(dim=-1, keepdim=True)
    unit = v / length
    along_v = (upstream * unit).sum(-1, keepdim=True)
    return g[:, None] / length * (upstream - along_v * unit), along_v.squeeze(-1)


def over_batch(x: Tensor) -> tuple[int, ...]:
    """Every axis but that of the features, which is number 1."""
    return tuple(axis for axis in range(x.dim()) if axis != 1)


def along(values: Float[Tensor, "width"], x: Float[Tensor, "batch width *time"]) -> Tensor:
    """One number for each feature, shaped to spread over batch and positions."""
    return values.view(-1, *[1] * (x.dim() - 2))


def total(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sum over `dims`; over none it changes nothing, where torch would sum over all."""
    return x.sum(dims) if dims else x


def fitting(x: Tensor, axis: int, weight: Float[Tensor, "width"]) -> Tensor:
    """`x` in at least the precision of `weight`; ValueError unless `axis` has its features."""
    if x.dim() <= axis or x.shape[axis] != len(weight):
        raise ValueError(
            f"this layer normalises {len(weight)} features on axis {axis}, got shape "
            f"{tuple(x.shape)}: move the features there, or make a layer of that width"
        )
    return x.to(torch.promote_types(x.dtype, weight.dtype))


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return batch_norm(x, weight, bias, eps)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *batch_norm_gradient(*ctx.saved_tensors, upstream, ctx.eps), None


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return layer_norm(x, weight, bias, eps)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *layer_norm_gradient(*ctx.saved_tensors, upstream, ctx.eps), None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return rms_norm(x, weight, eps)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *rms_norm_gradient(*ctx.saved_tensors, upstream, ctx.eps), None


class _WeightNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(v, g)
        return weight_norm(v, g)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor]:
        return weight_norm_gradient(*ctx.saved_tensors, upstream)


class BatchNorm1d(nn.Module):
    """Batch normalisation of (batch, width) or (batch, width, time), with running statistics.

    Training uses the batch's statistics and moves the running ones by `momentum` towards them;
    evaluation uses the running ones. Raises ValueError for a training batch of one value a feature.
    Source: Ioffe and Szegedy 2015.
    """

    def __init__(self, width: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Float[Tensor, "batch width *time"]) -> Float[Tensor, "batch width *time"]:
        x = fitting(x, 1, self.weight)
        if not self.training:
            factor = self.weight / (self.running_var + self.eps).sqrt()
            return along(factor, x) * (x - along(self.running_mean, x)) + along(self.bias, x)
        self._update(x.detach())
        return _BatchNorm.apply(x, self.weight, self.bias, self.eps)

    def _update(self, x: Tensor) -> None:
        n = x.numel() // x.shape[1]
        if n < 2:
            raise ValueError(
                f"batch statistics need two or more values of each feature, got shape "
                f"{tuple(x.shape)}: take a larger batch, or call .eval() first"
            )
        _, mean, variance = standardize(x, over_batch(x), self.eps)
        unbiased = variance.flatten() * n / (n - 1)
        self.running_mean.lerp_(mean.flatten(), self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, the same in training and evaluation."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        x = fitting(x, -1, self.weight)
        return _LayerNorm.apply(x, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis: no mean, no β."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        x = fitting(x, -1, self.weight)
        return _RMSNorm.apply(x, self.weight, self.eps)


class WeightNormLinear(nn.Module):
    """A linear layer whose rows have a length g and a direction v; it starts as `linear` is."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.v = nn.Parameter(linear.weight.detach().clone())
        self.g = nn.Parameter(self.v.detach().norm(dim=-1))
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return nn.functional.linear(x, _WeightNorm.apply(self.v, self.g), self.bias)
