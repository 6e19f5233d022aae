"""Initialisers: weights drawn so that signals and gradients keep their size through a network.

All fill a tensor of shape (outputs, inputs, *kernel) in place and return it. They draw in the order
of `torch.nn.init`, so that the same seed gives the same weights. Biases start at zero.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

GAINS = {"linear": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """What the deviation is multiplied by to make good for a nonlinearity, as torch has it.

    `slope` is that of a leaky ReLU below zero. ReLU: He et al. 2015, equation 10. Tanh: a
    convention, near the 1.59 that keeps a variance of 1.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in GAINS:
        names = ", ".join([*GAINS, "leaky_relu"])
        raise ValueError(f"no gain for {nonlinearity!r}: choose one of {names}")
    return GAINS[nonlinearity]


def fans(weight: Float[Tensor, "outputs inputs *kernel"]) -> tuple[int, int]:
    """How many inputs an output sums, and how many outputs an input reaches."""
    if weight.ndim < 2:
        raise ValueError(
            f"only a matrix has fans, got shape {tuple(weight.shape)}; start a bias with zeros_()"
        )
    outputs, inputs, *kernel = weight.shape
    return inputs * math.prod(kernel), outputs * math.prod(kernel)


def xavier_normal_(weight: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with variance gain² · 2 / (fan in + fan out). Source: Glorot and Bengio 2010, 12."""
    return _normal(weight, _xavier(weight, gain), generator)


def xavier_uniform_(
    weight: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """The variance of `xavier_normal_`, uniform. Source: Glorot and Bengio 2010, equation 16."""
    return _uniform(weight, _xavier(weight, gain), generator)


def kaiming_normal_(
    weight: Tensor,
    nonlinearity: str = "relu",
    mode: str = "fan_in",
    slope: float = 0.01,
    generator: Generator | None = None,
) -> Tensor:
    """Normal with variance gain² / fan: "fan_in" keeps signals, "fan_out" gradients.

    Source: He et al. 2015, equations 10 and 14.
    """
    return _normal(weight, _kaiming(weight, nonlinearity, mode, slope), generator)


def kaiming_uniform_(
    weight: Tensor,
    nonlinearity: str = "relu",
    mode: str = "fan_in",
    slope: float = 0.01,
    generator: Generator | None = None,
) -> Tensor:
    """The variance of `kaiming_normal_`, uniform."""
    return _uniform(weight, _kaiming(weight, nonlinearity, mode, slope), generator)


@torch.no_grad()
def orthogonal_(weight: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """A random matrix whose singular values are all `gain`; kernels count as inputs.

    Normal numbers made orthogonal by QR; signs are fixed so that no direction is preferred.
    Source: Saxe et al. 2014, section 3; Mezzadri 2007 for the signs.
    """
    fans(weight)
    flat = weight.new_empty(weight.shape[0], weight[0].numel()).normal_(0, 1, generator=generator)
    wide = flat.shape[0] < flat.shape[1]
    q, r = torch.linalg.qr(flat.T if wide else flat)
    q = q * r.diagonal().sign()
    return weight.copy_(gain * (q.T if wide else q).view_as(weight))


def residual_outputs_(
    weights: Sequence[Tensor], how: str = "scaled", generator: Generator | None = None
) -> None:
    """Fill the last matrix of each branch of a residual stream: `weights`, one for each branch.

    "plain": variance 1 / fan in. "scaled": that divided by the number of branches, so that all
    together add as much as one (Radford et al. 2019, section 2.3). "zero": every branch adds
    nothing at first, and the network starts as the identity (Goyal et al. 2017, section 5.1;
    Zhang et al. 2019).
    """
    shares = {"plain": 1.0, "scaled": 1 / max(1, len(weights)), "zero": 0.0}  # of 1 / fan in
    if how not in shares:
        raise ValueError(f"no way {how!r} to start a branch: choose one of {', '.join(shares)}")
    for weight in weights:
        if how == "zero":
            nn.init.zeros_(weight)
        else:
            _normal(weight, math.sqrt(shares[how] / fans(weight)[0]), generator)


def _xavier(weight: Tensor, gain: float) -> float:
    return gain * math.sqrt(2 / sum(fans(weight)))


def _kaiming(weight: Tensor, nonlinearity: str, mode: str, slope: float) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return gain(nonlinearity, slope) / math.sqrt(fans(weight)[mode == "fan_out"])


@torch.no_grad()
def _normal(weight: Tensor, deviation: float, generator: Generator | None) -> Tensor:
    return weight.normal_(0, deviation, generator=generator)


@torch.no_grad()
def _uniform(weight: Tensor, deviation: float, generator: Generator | None) -> Tensor:
    """Between −a and a, which has the variance a² / 3."""
    bound = math.sqrt(3.0) * deviation
    return weight.uniform_(-bound, bound, generator=generator)
