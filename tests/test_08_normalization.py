"""Every numbered equation of chapter 8 holds in float64, and its wrong versions do not."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ledger import Formula, prove
from torch import Tensor, nn

from mslearn import data
from mslearn.device import pick
from mslearn.normalizers import DEPTHS, KINDS, RATES, make_run, texts, train
from mslearn.store import load_result

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "08_normalization.ipynb"
N, D, EPS = 7, 4, 0.1  # an epsilon this large shows where one is lost or moved
IDENTITY = torch.eye(D, dtype=torch.float64)
NO_EPS = 1e-30  # torch refuses 0; next to a variance this is none


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=g, dtype=torch.float64) + 1


def one(*_: object) -> float:
    """The oracle of a statement that is either true, 1, or false, 0."""
    return 1.0


def zero(*_: object) -> float:
    return 0.0


def feature(g: torch.Generator) -> tuple[Tensor]:
    """One feature over a batch."""
    return (normal(g, N),)


def affine(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A feature, γ, β, and what arrives from above."""
    return normal(g, N), normal(g), normal(g), normal(g, N)


def vectors(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch of vectors, γ and β for each of their features, and what arrives from above."""
    return normal(g, N, D), normal(g, D), normal(g, D), normal(g, N, D)


def bn(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, eps=EPS) -> Tensor:
    """Torch's batch normalisation of one feature in training."""
    weight, bias = (None if each is None else each.reshape(1) for each in (gamma, beta))
    return F.batch_norm(x[:, None], None, None, weight, bias, training=True, eps=eps)[:, 0]


def slope(function: Callable, *args: Tensor, at: int = 0) -> Tensor:
    """Autograd's derivative of `function` by its argument number `at`."""

    def of_one(x: Tensor) -> Tensor:
        return function(*args[:at], x, *args[at + 1 :])

    return torch.autograd.functional.jacobian(of_one, args[at])


def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The deviations, r and the normalised feature, as the page computes them."""
    d = x - x.mean()
    r = (d.square().mean() + EPS) ** -0.5
    return d, r, r * d


def scaled(d: Tensor) -> Tensor:
    """The normalised feature from its deviations."""
    return d * (d.square().mean() + EPS) ** -0.5


def scaled_each(d: Tensor) -> Tensor:
    """The right side of (8.8) for each deviation."""
    return d / (d**2 + EPS).sqrt()


def back(x: Tensor, h: Tensor, mean: float = 1, along: float = 1) -> Tensor:
    """The backward pass (8.24) over the last axis; `mean` and `along` can be lost."""
    d = x - x.mean(-1, keepdim=True)
    r = (d.square().mean(-1, keepdim=True) + EPS) ** -0.5
    x_hat = r * d
    through = mean * h.mean(-1, keepdim=True) + along * x_hat * (h * x_hat).mean(-1, keepdim=True)
    return r * (h - through)


def rms_back(x: Tensor, h: Tensor, along: float = 1) -> Tensor:
    """The backward pass (8.32) over the last axis."""
    r = (x.square().mean(-1, keepdim=True) + EPS) ** -0.5
    return r * (h - along * r * x * (h * r * x).mean(-1, keepdim=True))


def layer(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.layer_norm(x, (D,), gamma, beta, EPS)


def rms(x: Tensor, gamma: Tensor | None = None) -> Tensor:
    return F.rms_norm(x, (D,), gamma, EPS)


def draws(g: torch.Generator) -> tuple[Tensor, int]:
    """Three values, and how many of them a batch draws, each anew."""
    return normal(g, 3), 4


def batches_of(values: Tensor, n: int) -> Tensor:
    """Every batch that can be drawn, all equally probable: its mean over rows is exact."""
    return torch.stack([values[list(each)] for each in itertools.product(range(3), repeat=n)])


def several(g: torch.Generator) -> tuple[Tensor, float, float]:
    """Batches one after another, a momentum, and the running mean to start from."""
    return normal(g, 5, N), 0.05 + 0.8 * torch.rand((), generator=g).item(), 3.0


def running(batches: Tensor, rho: float, start: float) -> tuple[Tensor, Tensor]:
    """Torch's running mean and variance after all batches, from `start` and 1."""
    norm = nn.BatchNorm1d(1, momentum=rho).double()
    norm.running_mean.fill_(start)
    for batch in batches:
        norm(batch[:, None])
    return norm.running_mean[0], norm.running_var[0]


def in_use(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Inputs and weights of a linear output, its bias, γ, β, running mean and variance."""
    return normal(g, N, D), normal(g, D), *(normal(g) for _ in range(4)), normal(g).exp()


def evaluated(z, w, b, gamma, beta, m_run, v_run) -> Tensor:
    x = (z @ w + b)[:, None]
    return F.batch_norm(x, m_run[None], v_run[None], gamma[None], beta[None], eps=EPS)[:, 0]


def folded(z, w, b, gamma, beta, m_run, v_run, eps=EPS, lost: float = 1) -> Tensor:
    factor = gamma / (v_run + eps).sqrt()
    return z @ (factor * w) + factor * (b - lost * m_run) + beta


def weights(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A direction v, a length g, and the gradient that arrives at w."""
    return normal(g, D), normal(g), normal(g, D)


def weight(v: Tensor, g: Tensor) -> Tensor:
    """Torch's weight normalisation of one row."""
    return torch._weight_norm(v[None], g.reshape(1, 1))[0]


def sent(v: Tensor, g: Tensor, u: Tensor) -> Tensor:
    return (weight(v, g) * u).sum()


def direction_slope(v: Tensor, g: Tensor, u: Tensor, along: float = 1) -> Tensor:
    return g / v.norm() * (u - along * (v @ u) / (v @ v) * v)


def literal(g: torch.Generator) -> tuple[Tensor, float]:
    """A weight matrix with entries of mean 0 and variance 1, and a mean square of inputs."""
    W = normal(g, 3, 6)
    return (W - W.mean()) / W.std(correction=0), 1.7


def uncorrelated(d: int, q: float) -> Tensor:
    """Inputs whose entries are uncorrelated, with mean square q: every choice of signs once."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=d)), dtype=torch.float64)
    return math.sqrt(q) * signs


def neuron(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and bias of an output before a batch normalisation, its inputs, and targets."""
    return normal(g, D), normal(g), normal(g, N, D), normal(g, N)


def loss(w: Tensor, b: Tensor, z: Tensor, target: Tensor, eps: float = NO_EPS) -> Tensor:
    """A loss that sees the output through torch's batch normalisation only."""
    return (bn(z @ w + b, eps=eps).tanh() - target).square().sum()


def gradient(w: Tensor, *others: Tensor) -> Tensor:
    return slope(loss, w, *others)


def stepped(*args: Tensor, alpha: float = 0.3, decay: float = 0.0) -> Tensor:
    return (1 - alpha * decay) * args[0] - alpha * gradient(*args)


def steepness(w: Tensor, *others: Tensor) -> Tensor:
    """The page's G: the length of the gradient at weights of length 1."""
    return gradient(w / w.norm(), *others).norm()


def tangent(before: Tensor, after: Tensor) -> Tensor:
    """Of the angle between two vectors, from the cosine."""
    return (before @ after / before.norm() / after.norm()).acos().tan()


def with_epsilon(w, b, z, target) -> tuple[Tensor, Tensor, Tensor]:
    """(8.43)'s n⟨h x̂⟩, σ² and the oracle's wᵀ∇ℓ, all at the large epsilon."""
    a = z @ w + b
    x_hat = bn(a)
    h = slope(lambda x: (x.tanh() - target).square().sum(), x_hat)
    return (h * x_hat).sum(), a.var(correction=0), w @ slope(loss, w, b, z, target, EPS)


def steep_path(g: torch.Generator) -> tuple[float, Tensor]:
    """An effective rate to start from, and slopes of which the first is the least."""
    slopes = 0.5 + torch.rand(20, generator=g, dtype=torch.float64)
    return 10 * torch.rand((), generator=g).item(), slopes.sort().values


def effective(eta: float, slopes: Tensor) -> Tensor:
    """η after each step, from weights that really take the steps at right angles."""
    alpha, length, path = 2.0, math.sqrt(2.0 / eta), []
    for steep in slopes.tolist():
        length = math.hypot(length, alpha * steep / length)
        path.append(alpha / length**2)
    return torch.tensor(path, dtype=torch.float64)


def at_rest(alpha: float, decay: float, steep: float) -> float:
    """η G after many steps at one rate with weight decay."""
    length = 1.0
    for _ in range(20_000):
        length = math.hypot((1 - alpha * decay) * length, alpha * steep / length)
    return alpha / length**2 * steep


def sequences(g: torch.Generator) -> tuple[Tensor]:
    """One feature at each position of three sequences."""
    return (normal(g, 3, 5),)


def over_positions(x: Tensor) -> Tensor:
    """Torch's batch normalisation over sequences and positions."""
    return F.batch_norm(x[:, None], None, None, training=True, eps=EPS)[:, 0]


def off_diagonal(matrix: Tensor) -> Tensor:
    return matrix - torch.diag(matrix.diagonal())


def leaks(x: Tensor, product: float = 1) -> Tensor:
    """(8.51) for every pair of positions."""
    x_hat = over_positions(x).flatten()
    r = (x.var(correction=0) + EPS) ** -0.5
    return off_diagonal(-r / x.numel() * (1 + product * torch.outer(x_hat, x_hat)))


def with_padding(g: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Real values, the value of padding, and how many there are of it."""
    return normal(g, 9), normal(g), 5


def padded(x: Tensor, p: Tensor, count: int, cross: float = 1) -> Tensor:
    share, m, s2 = count / (count + len(x)), x.mean(), x.var(correction=0)
    mean = (1 - share) * m + share * p
    return torch.stack([mean, (1 - share) * s2 + cross * share * (1 - share) * (m - p) ** 2])


def between_positions(function: Callable, x: Tensor) -> Tensor:
    """The derivatives of `function` at one position by the inputs at others, 0 on the diagonal."""
    b, t, d = x.shape
    matrix = slope(function, x).reshape(b * t, d, b * t, d)
    same = torch.eye(b * t, dtype=torch.bool)[:, None, :, None]
    return torch.where(same, 0.0, matrix)


def batch_over_all(x: Tensor) -> Tensor:
    return F.batch_norm(x.mT, None, None, training=True, eps=EPS).mT


SOME_RATES = (0.01, 0.3, 3.0, 1000.0)


def settled_variance(rho: float, variance: float) -> float:
    """The variance of a running mean after very many batches, a batch at a time."""
    settled = 0.0
    for _ in range(5000):
        settled = (1 - rho) ** 2 * settled + rho**2 * variance
    return settled


def deviations_slope(d: Tensor, r: Tensor, x_hat: Tensor, h: Tensor) -> Tensor:
    """The three forms of (8.22)."""
    total = (h * d).sum()
    return torch.stack(
        [
            r * h + 2 * d / N * (-(r**3) / 2 * total),
            r * h - r**3 * d / N * total,
            r * (h - x_hat * (h * x_hat).mean()),
        ]
    )


def pairs_mean(x: Tensor) -> Tensor:
    """The mean product of different rows, pair by pair."""
    return torch.stack([a @ b for a, b in itertools.permutations(x, 2)]).mean()


def rate_of(w: Tensor, alpha: float = 0.3) -> Tensor:
    """The effective rate."""
    return alpha / (w @ w)


def after(*args: Tensor, alpha: float) -> Tensor:
    """The effective rate after a step at the rate alpha."""
    return rate_of(stepped(*args, alpha=alpha), alpha)


def bound(eta: float, slopes: Tensor) -> Tensor:
    """(8.48) after each step, with the first slope for G0; without a start for η = ∞."""
    t = torch.arange(1, len(slopes) + 1, dtype=torch.float64)
    return (1 / eta**2 + 2 * slopes[0] ** 2 * t) ** -0.5


def both_moments(x: Tensor) -> Tensor:
    return torch.stack([x.mean(), x.var(correction=0)])


LEDGER = {
    "8.1": Formula(
        feature,
        lambda x: torch.stack([x.sum() / N, ((x - x.sum() / N) ** 2).sum() / N]),
        lambda x: torch.stack([x.mean(), x.var(correction=0)]),
        {"divided by n - 1": lambda x: torch.stack([x.mean(), x.var(correction=1)])},
    ),
    "8.2": Formula(
        feature,
        lambda x: (x - x.mean()) / (x.var(correction=0) + EPS).sqrt(),
        bn,
        {
            "epsilon outside the root": lambda x: (x - x.mean()) / (x.std(correction=0) + EPS),
            "no epsilon": lambda x: (x - x.mean()) / x.std(correction=0),
            "unbiased": lambda x: (x - x.mean()) / (x.var() + EPS).sqrt(),
            "variance for root": lambda x: (x - x.mean()) / (x.var(correction=0) + EPS),
        },
    ),
    "8.3": Formula(
        affine,
        lambda x, gamma, beta, u: gamma * bn(x) + beta,
        lambda x, gamma, beta, u: bn(x, gamma, beta),
        {
            "exchanged": lambda x, gamma, beta, u: beta * bn(x) + gamma,
            "added first": lambda x, gamma, beta, u: gamma * (bn(x) + beta),
        },
    ),
    "8.4": Formula(
        feature,
        lambda x: torch.stack([0 * x.sum(), x.var(correction=0) / (x.var(correction=0) + EPS)]),
        lambda x: torch.stack([bn(x).mean(), bn(x).square().mean()]),
        {
            "exactly 1": lambda x: torch.tensor([0.0, 1.0]),
            "of the root": lambda x: torch.stack(
                [0 * x.sum(), (x.var(correction=0) / (x.var(correction=0) + EPS)).sqrt()]
            ),
        },
    ),
    "8.5": Formula(
        lambda g: (normal(g, N), normal(g).exp(), normal(g)),
        lambda x, c, d: torch.stack(
            [
                c * (x - x.mean()) / (c**2 * x.var(correction=0) + EPS).sqrt(),
                (x - x.mean()) / (x.var(correction=0) + EPS / c**2).sqrt(),
                bn(x, eps=(EPS / c**2).item()),
            ]
        ),
        lambda x, c, d: bn(c * x + d).expand(3, N),
        {
            "epsilon unscaled": lambda x, c, d: bn(x).expand(3, N),
            "divided by c": lambda x, c, d: bn(x, eps=(EPS / c).item()).expand(3, N),
            "multiplied": lambda x, c, d: bn(x, eps=(EPS * c**2).item()).expand(3, N),
        },
    ),
    "8.6": Formula(
        feature,
        lambda x: bn(x, (x.var(correction=0) + EPS).sqrt(), x.mean()),
        lambda x: x,
        {
            "epsilon lost": lambda x: bn(x, x.std(correction=0), x.mean()),
            "variance for root": lambda x: bn(x, x.var(correction=0) + EPS, x.mean()),
        },
    ),
    "8.7": Formula(
        lambda g: (torch.cat([normal(g, 9, N), 5 * torch.eye(N).double()]),),
        lambda x: all(
            (bn(row).abs() <= (row - row.mean()).abs() / row.std(correction=0) + 1e-12).all()
            and ((row - row.mean()).abs() / row.std(correction=0)).max() <= math.sqrt(N - 1) + 1e-12
            for row in x
        ),
        one,
        {
            "root of n - 2": lambda x: all(
                bn(row, eps=1e-9).abs().max() <= math.sqrt(N - 2) for row in x
            ),
            "1": lambda x: all(bn(row).abs().max() <= 1 for row in x),
        },
    ),
    "8.8": Formula(
        lambda g: (normal(g, 2),),
        lambda x: scaled_each(torch.stack([x[0] - x[1], x[1] - x[0]]) / 2),
        bn,
        {
            "not halved": lambda x: scaled_each(torch.stack([x[0] - x[1], x[1] - x[0]])),
            "signs alone": lambda x: (x - x.mean()).sign(),
        },
    ),
    "8.9": Formula(
        lambda g: (bn(normal(g, N), eps=NO_EPS), normal(g), 0.2 * normal(g).exp()),
        lambda z, a, delta: delta / (delta**2 + EPS).sqrt() * z,
        lambda z, a, delta: bn(a + delta * z),
        {
            "1 for every deviation": lambda z, a, delta: z,
            "epsilon outside the root": lambda z, a, delta: delta / (delta + EPS) * z,
        },
    ),
    "8.10": Formula(
        lambda g: (torch.cat([normal(g, 9) ** 2, torch.zeros(1).double()]),),
        lambda variance: (1 / (variance + EPS).sqrt() <= 1 / math.sqrt(EPS) + 1e-12).all(),
        one,
        {
            "without the root": lambda variance: (1 / (variance + EPS).sqrt() <= EPS).all(),
            "epsilon outside": lambda variance: (
                (1 / (variance.sqrt() + EPS)) <= 1 / math.sqrt(EPS)
            ).all(),
        },
    ),
    "8.11": Formula(
        draws,
        lambda values, n: torch.stack([values.mean(), values.var(correction=0) / n]),
        lambda values, n: torch.stack(
            [
                batches_of(values, n).mean(1).mean(),
                (batches_of(values, n).mean(1) - values.mean()).square().mean(),
            ]
        ),
        {"not divided": lambda values, n: torch.stack([values.mean(), values.var(correction=0)])},
    ),
    "8.12": Formula(
        lambda g: (normal(g, N), normal(g)),
        lambda x, m: ((x - m) ** 2).sum() - N * (x.mean() - m) ** 2,
        lambda x, m: N * x.var(correction=0),
        {
            "plus": lambda x, m: ((x - m) ** 2).sum() + N * (x.mean() - m) ** 2,
            "n lost": lambda x, m: ((x - m) ** 2).sum() - (x.mean() - m) ** 2,
        },
    ),
    "8.13": Formula(
        draws,
        lambda values, n: (n - 1) / n * values.var(correction=0),
        lambda values, n: batches_of(values, n).var(1, correction=0).mean(),
        {
            "right on average": lambda values, n: values.var(correction=0),
            "upside down": lambda values, n: n / (n - 1) * values.var(correction=0),
        },
    ),
    "8.14": Formula(
        several,
        lambda x, rho, start: torch.stack(
            [
                (1 - rho) * start + rho * x[0].mean(),
                (1 - rho) * 1 + rho * N / (N - 1) * x[0].var(correction=0),
            ]
        ),
        lambda x, rho, start: torch.stack(running(x[:1], rho, start)),
        {
            "biased": lambda x, rho, start: torch.stack(
                [
                    (1 - rho) * start + rho * x[0].mean(),
                    1 - rho + rho * x[0].var(correction=0),
                ]
            ),
            "the other convention": lambda x, rho, start: torch.stack(
                [rho * start + (1 - rho) * x[0].mean(), rho + (1 - rho) * x[0].var()]
            ),
        },
    ),
    "8.15": Formula(
        several,
        lambda x, rho, start: (
            (1 - rho) ** 5 * start
            + rho * sum((1 - rho) ** (5 - k) * x[k - 1].mean() for k in range(1, 6))
        ),
        lambda x, rho, start: running(x, rho, start)[0],
        {
            "oldest weighs most": lambda x, rho, start: (
                (1 - rho) ** 5 * start
                + rho * sum((1 - rho) ** (k - 1) * x[k - 1].mean() for k in range(1, 6))
            ),
            "start forgotten": lambda x, rho, start: (
                rho * sum((1 - rho) ** (5 - k) * x[k - 1].mean() for k in range(1, 6))
            ),
        },
    ),
    "8.16": Formula(
        lambda g: (0.05 + 0.9 * torch.rand((), generator=g).item(), normal(g).exp().item()),
        lambda rho, s2: torch.tensor(
            [
                s2 / N * rho**2 * sum((1 - rho) ** (2 * k) for k in range(2000)),
                s2 / N * rho**2 / (1 - (1 - rho) ** 2),
                s2 / N * rho / (2 - rho),
            ],
            dtype=torch.float64,
        ),
        lambda rho, s2: torch.full((3,), settled_variance(rho, s2 / N), dtype=torch.float64),
        {
            "not squared": lambda rho, s2: torch.tensor([s2 / N] * 3, dtype=torch.float64),
            "2 lost": lambda rho, s2: torch.tensor([s2 / N * rho] * 3, dtype=torch.float64),
        },
    ),
    "8.17": Formula(
        in_use,
        lambda z, w, b, gamma, beta, m, v: gamma * (z @ w + b - m) / (v + EPS).sqrt() + beta,
        evaluated,
        {
            "the batch's mean": lambda z, w, b, gamma, beta, m, v: (
                gamma * (z @ w + b - (z @ w + b).mean()) / (v + EPS).sqrt() + beta
            ),
            "no root": lambda z, w, b, gamma, beta, m, v: (
                gamma * (z @ w + b - m) / (v + EPS) + beta
            ),
        },
    ),
    "8.18": Formula(
        in_use,
        folded,
        evaluated,
        {
            "mean forgotten": lambda *args: folded(*args, lost=0),
            "epsilon lost": lambda *args: folded(*args, eps=0),
        },
    ),
    "8.19": Formula(
        affine,
        lambda x, gamma, beta, u: torch.cat([(u @ bn(x))[None], u.sum()[None], gamma * u]),
        lambda x, gamma, beta, u: torch.cat(
            [
                slope(lambda *a: u @ bn(*a), x, gamma, beta, at=1)[None],
                slope(lambda *a: u @ bn(*a), x, gamma, beta, at=2)[None],
                slope(lambda x_hat: u @ (gamma * x_hat + beta), bn(x)),
            ]
        ),
        {
            "x for its normalised": lambda x, gamma, beta, u: torch.cat(
                [(u @ x)[None], u.sum()[None], gamma * u]
            ),
            "mean for sum": lambda x, gamma, beta, u: torch.cat(
                [(u @ bn(x))[None] / N, u.mean()[None], gamma * u]
            ),
        },
    ),
    "8.20": Formula(
        affine,
        lambda x, gamma, beta, u: (u * parts(x)[0]).sum(),
        lambda x, gamma, beta, u: slope(lambda r: u @ (r * parts(x)[0]), parts(x)[1]),
        {"normalised": lambda x, gamma, beta, u: (u * parts(x)[2]).sum()},
    ),
    "8.21": Formula(
        affine,
        lambda x, gamma, beta, u: -(parts(x)[1] ** 3) / 2 * (u * parts(x)[0]).sum(),
        lambda x, gamma, beta, u: slope(
            lambda v: u @ (parts(x)[0] * (v + EPS) ** -0.5), x.var(correction=0)
        ),
        {
            "sign": lambda x, gamma, beta, u: parts(x)[1] ** 3 / 2 * (u * parts(x)[0]).sum(),
            "power": lambda x, gamma, beta, u: -(parts(x)[1] ** 2) / 2 * (u * parts(x)[0]).sum(),
            "half lost": lambda x, gamma, beta, u: -(parts(x)[1] ** 3) * (u * parts(x)[0]).sum(),
        },
    ),
    "8.22": Formula(
        affine,
        lambda x, gamma, beta, u: deviations_slope(*parts(x), u),
        lambda x, gamma, beta, u: slope(lambda d: u @ scaled(d), parts(x)[0]).expand(3, N),
        {
            "through the root only": lambda x, gamma, beta, u: (parts(x)[1] * u).expand(3, N),
            "n lost": lambda x, gamma, beta, u: (
                parts(x)[1] * (u - parts(x)[2] * (u @ parts(x)[2]))
            ).expand(3, N),
        },
    ),
    "8.23": Formula(
        affine,
        lambda x, gamma, beta, u: torch.stack(
            [
                -(parts(x)[1] * (u - parts(x)[2] * (u * parts(x)[2]).mean())).sum(),
                -N * parts(x)[1] * u.mean(),
            ]
        ),
        lambda x, gamma, beta, u: slope(lambda mu: u @ scaled(x - mu), x.mean()).expand(2),
        {
            "sign": lambda x, gamma, beta, u: (N * parts(x)[1] * u.mean()).expand(2),
            "n lost": lambda x, gamma, beta, u: (-parts(x)[1] * u.mean()).expand(2),
        },
    ),
    "8.24": Formula(
        affine,
        lambda x, gamma, beta, u: back(x, gamma * u),
        lambda x, gamma, beta, u: slope(lambda *a: u @ bn(*a), x, gamma, beta),
        {
            "not through the mean": lambda x, gamma, beta, u: back(x, gamma * u, mean=0),
            "not through the root": lambda x, gamma, beta, u: back(x, gamma * u, along=0),
            "gamma forgotten": lambda x, gamma, beta, u: back(x, u),
            "sign": lambda x, gamma, beta, u: back(x, gamma * u, along=-1),
        },
    ),
    "8.25": Formula(
        affine,
        lambda x, gamma, beta, u: torch.stack(
            [
                0 * u.sum(),
                N * parts(x)[1] * (u * bn(x)).mean() * EPS / (x.var(correction=0) + EPS),
            ]
        ),
        lambda x, gamma, beta, u: torch.stack(
            [
                slope(lambda x: u @ bn(x), x).sum(),
                bn(x) @ slope(lambda x: u @ bn(x), x),
            ]
        ),
        {
            "both 0": lambda x, gamma, beta, u: torch.zeros(2),
            "r lost": lambda x, gamma, beta, u: torch.stack(
                [0 * u.sum(), (u @ bn(x)) * EPS / (x.var(correction=0) + EPS)]
            ),
        },
    ),
    "8.26": Formula(
        feature,
        lambda x: parts(x)[1] * (torch.eye(N) - (1 + torch.outer(bn(x), bn(x))) / N),
        lambda x: slope(bn, x),
        {
            "each by itself": lambda x: parts(x)[1] * torch.eye(N),
            "n lost": lambda x: parts(x)[1] * (torch.eye(N) - 1 - torch.outer(bn(x), bn(x))),
            "mean forgotten": lambda x: (
                parts(x)[1] * (torch.eye(N) - torch.outer(bn(x), bn(x)) / N)
            ),
        },
    ),
    "8.27": Formula(
        vectors,
        lambda x, gamma, beta, u: (
            gamma
            * (x - x.mean(1, keepdim=True))
            / (x.var(1, correction=0, keepdim=True) + EPS).sqrt()
            + beta
        ),
        lambda x, gamma, beta, u: layer(x, gamma, beta),
        {
            "over the batch": lambda x, gamma, beta, u: (
                gamma * (x - x.mean(0)) / (x.var(0, correction=0) + EPS).sqrt() + beta
            ),
            "unbiased": lambda x, gamma, beta, u: (
                gamma * (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + EPS).sqrt() + beta
            ),
        },
    ),
    "8.28": Formula(
        vectors,
        lambda x, gamma, beta, u: back(x, gamma * u),
        lambda x, gamma, beta, u: slope(lambda *a: (u * layer(*a)).sum(), x, gamma, beta),
        {
            "gamma after the means": lambda x, gamma, beta, u: gamma * back(x, u),
            "not through the mean": lambda x, gamma, beta, u: back(x, gamma * u, mean=0),
            "not through the root": lambda x, gamma, beta, u: back(x, gamma * u, along=0),
        },
    ),
    "8.29": Formula(
        vectors,
        lambda x, gamma, beta, u: torch.stack(
            [(u * F.layer_norm(x, (D,), eps=EPS)).sum(0), u.sum(0)]
        ),
        lambda x, gamma, beta, u: torch.stack(
            [slope(lambda *a: (u * layer(*a)).sum(), x, gamma, beta, at=k) for k in (1, 2)]
        ),
        {
            "over the features": lambda x, gamma, beta, u: torch.stack(
                [(u * F.layer_norm(x, (D,), eps=EPS)).sum(1), u.sum(1)]
            ),
            "times gamma": lambda x, gamma, beta, u: torch.stack(
                [(gamma * u * F.layer_norm(x, (D,), eps=EPS)).sum(0), u.sum(0)]
            ),
        },
    ),
    "8.30": Formula(
        vectors,
        lambda x, *_: -F.batch_norm(x, None, None, training=True).square().sum(1).mean() / (N - 1),
        lambda x, *_: pairs_mean(F.batch_norm(x, None, None, training=True)),
        {
            "sign": lambda x, *_: (
                F.batch_norm(x, None, None, training=True).square().sum(1).mean() / (N - 1)
            ),
            "divided by n": lambda x, *_: (
                -F.batch_norm(x, None, None, training=True).square().sum(1).mean() / N
            ),
        },
    ),
    "8.31": Formula(
        vectors,
        lambda x, gamma, beta, u: gamma * x / (x.square().mean(1, keepdim=True) + EPS).sqrt(),
        lambda x, gamma, beta, u: rms(x, gamma),
        {
            "sum for mean": lambda x, gamma, beta, u: (
                gamma * x / (x.square().sum(1, keepdim=True) + EPS).sqrt()
            ),
            "epsilon outside the root": lambda x, gamma, beta, u: (
                gamma * x / (x.square().mean(1, keepdim=True).sqrt() + EPS)
            ),
        },
    ),
    "8.32": Formula(
        vectors,
        lambda x, gamma, beta, u: rms_back(x, gamma * u),
        lambda x, gamma, beta, u: slope(lambda *a: (u * rms(*a)).sum(), x, gamma),
        {
            "LayerNorm's": lambda x, gamma, beta, u: back(x, gamma * u),
            "not through the root": lambda x, gamma, beta, u: rms_back(x, gamma * u, along=0),
            "factor 2 left": lambda x, gamma, beta, u: rms_back(x, gamma * u, along=2),
        },
    ),
    "8.33": Formula(
        vectors,
        lambda x, *_: rms(x - x.mean(1, keepdim=True)),
        lambda x, *_: F.layer_norm(x, (D,), eps=EPS),
        {"centred after": lambda x, *_: rms(x) - rms(x).mean(1, keepdim=True)},
    ),
    "8.34": Formula(
        weights,
        lambda v, g, u: torch.cat([g * v / v.norm(), g.abs()[None]]),
        lambda v, g, u: torch.cat([weight(v, g), weight(v, g).norm()[None]]),
        {
            "squared length": lambda v, g, u: torch.cat([g * v / (v @ v), g.abs()[None]]),
            "sign of the length": lambda v, g, u: torch.cat([g * v / v.norm(), -g.abs()[None]]),
        },
    ),
    "8.35": Formula(
        weights,
        lambda v, g, u: v @ u / v.norm(),
        lambda v, g, u: slope(sent, v, g, u, at=1),
        {"not divided": lambda v, g, u: v @ u, "times g": lambda v, g, u: g * (v @ u) / v.norm()},
    ),
    "8.36": Formula(
        weights,
        lambda v, g, u: torch.stack(
            [
                g * (IDENTITY * v.norm() - torch.outer(v, v) / v.norm()) / v.norm() ** 2,
                g / v.norm() * (IDENTITY - torch.outer(v, v) / (v @ v)),
            ]
        ),
        lambda v, g, u: slope(weight, v, g).expand(2, D, D),
        {
            "length held fixed": lambda v, g, u: (g / v.norm() * IDENTITY).expand(2, D, D),
            "not squared": lambda v, g, u: (
                g / v.norm() * (IDENTITY - torch.outer(v, v) / v.norm())
            ).expand(2, D, D),
        },
    ),
    "8.37": Formula(
        weights,
        direction_slope,
        lambda v, g, u: slope(sent, v, g, u),
        {
            "part along kept": lambda v, g, u: direction_slope(v, g, u, along=0),
            "g lost": lambda v, g, u: direction_slope(v, torch.ones(()), u),
        },
    ),
    "8.38": Formula(
        weights,
        lambda v, g, u: v @ slope(sent, v, g, u),
        zero,
        {
            "gradient of w": lambda v, g, u: v @ u,
            "part along kept": lambda v, g, u: v @ direction_slope(v, g, u, along=0),
        },
    ),
    "8.39": Formula(
        literal,
        lambda W, q: torch.stack([q / 3 * (W**2).sum(), torch.tensor(6 * q, dtype=W.dtype)]),
        lambda W, q: (uncorrelated(6, q) @ W.T).square().mean(0).mean().expand(2),
        {
            "by the outputs": lambda W, q: torch.tensor([3 * q, 3 * q], dtype=W.dtype),
            "size kept": lambda W, q: torch.tensor([q, q], dtype=W.dtype),
        },
    ),
    "8.40": Formula(
        lambda g: (*neuron(g), normal(g).exp()),
        lambda w, b, z, t, c: loss(c * w, b, z, t),
        lambda w, b, z, t, c: loss(w, b, z, t),
        {
            "any sign": lambda w, b, z, t, c: loss(-c * w, b, z, t),
            "with epsilon": lambda w, b, z, t, c: loss(c * w, b, z, t, EPS),
        },
    ),
    "8.41": Formula(
        neuron,
        lambda w, *others: w @ gradient(w, *others),
        zero,
        {
            "with epsilon": lambda w, *others: w @ slope(loss, w, *others, EPS),
            "with a penalty": lambda w, *others: w @ (gradient(w, *others) + EPS * w),
        },
    ),
    "8.42": Formula(
        lambda g: (*neuron(g), normal(g).exp()),
        lambda w, b, z, t, c: gradient(w, b, z, t) / c,
        lambda w, b, z, t, c: gradient(c * w, b, z, t),
        {
            "the same": lambda w, b, z, t, c: gradient(w, b, z, t),
            "upside down": lambda w, b, z, t, c: gradient(w, b, z, t) * c,
        },
    ),
    "8.43": Formula(
        neuron,
        lambda *a: with_epsilon(*a)[0] * EPS / (with_epsilon(*a)[1] + EPS),
        lambda *a: with_epsilon(*a)[2],
        {
            "0": lambda *a: 0 * a[0].sum(),
            "r left": lambda *a: with_epsilon(*a)[0] * EPS / (with_epsilon(*a)[1] + EPS) ** 1.5,
        },
    ),
    "8.44": Formula(
        neuron,
        lambda *a: a[0] @ a[0] + 0.3**2 * gradient(*a).square().sum(),
        lambda *a: stepped(*a).square().sum(),
        {
            "minus": lambda *a: a[0] @ a[0] - 0.3**2 * gradient(*a).square().sum(),
            "rate not squared": lambda *a: a[0] @ a[0] + 0.3 * gradient(*a).square().sum(),
        },
    ),
    "8.45": Formula(
        neuron,
        lambda *a: torch.stack(
            [0.3 * gradient(*a).norm() / a[0].norm(), 0.3 / (a[0] @ a[0]) * steepness(*a)]
        ),
        lambda *a: tangent(a[0], stepped(*a)).expand(2),
        {"by the length": lambda *a: (0.3 / a[0].norm() * steepness(*a)).expand(2)},
    ),
    "8.46": Formula(
        neuron,
        lambda *a: torch.stack(
            [
                a[0] @ a[0] / 0.3 + 0.3 * steepness(*a) ** 2 / (a[0] @ a[0]),
                1 / rate_of(a[0]) + rate_of(a[0]) * steepness(*a) ** 2,
            ]
        ),
        lambda *a: (1 / rate_of(stepped(*a))).expand(2),
        {
            "not squared": lambda *a: (1 / rate_of(a[0]) + rate_of(a[0]) * steepness(*a)).expand(2),
            "rate kept": lambda *a: (1 / rate_of(a[0])).expand(2),
        },
    ),
    "8.47": Formula(
        neuron,
        lambda *a: all(after(*a, alpha=k) <= 1 / (2 * steepness(*a)) + 1e-12 for k in SOME_RATES),
        one,
        {
            "a quarter": lambda *a: all(
                after(*a, alpha=k) <= 1 / (4 * steepness(*a)) for k in SOME_RATES
            )
        },
    ),
    "8.48": Formula(
        steep_path,
        lambda eta, slopes: torch.stack(
            [
                (effective(eta, slopes) <= bound(eta, slopes) + 1e-12).all(),
                (bound(eta, slopes) <= bound(math.inf, slopes) + 1e-12).all(),
            ]
        ),
        lambda eta, slopes: torch.ones(2),
        {
            "the greatest slope": lambda eta, slopes: (
                (effective(eta, slopes) <= bound(eta, slopes.flip(0))).all().expand(2)
            ),
            "like 1/t": lambda eta, slopes: (
                (effective(eta, slopes) <= bound(eta, slopes) ** 2).all().expand(2)
            ),
        },
    ),
    "8.49": Formula(
        neuron,
        lambda *a: (1 - 0.3 * 0.2) ** 2 * a[0] @ a[0] + 0.3**2 * steepness(*a) ** 2 / (a[0] @ a[0]),
        lambda *a: stepped(*a, decay=0.2).square().sum(),
        {
            "decay not squared": lambda *a: (
                (1 - 0.3 * 0.2) * a[0] @ a[0] + 0.3**2 * steepness(*a) ** 2 / (a[0] @ a[0])
            ),
            "gradient decayed too": lambda *a: (1 - 0.3 * 0.2) ** 2 * stepped(*a).square().sum(),
        },
    ),
    "8.50": Formula(
        lambda g: (0.1 + torch.rand((), generator=g).item(), 0.1, 3.0),
        lambda alpha, decay, steep: torch.tensor(
            [
                math.sqrt(1 - (1 - alpha * decay) ** 2),
                math.sqrt(2 * alpha * decay - alpha**2 * decay**2),
                math.isclose(
                    at_rest(alpha, decay, steep),
                    math.sqrt(2 * alpha * decay),
                    rel_tol=alpha * decay,
                ),
            ],
            dtype=torch.float64,
        ),
        lambda alpha, decay, steep: torch.tensor(
            [at_rest(alpha, decay, steep)] * 2 + [1.0], dtype=torch.float64
        ),
        {
            "no root": lambda alpha, decay, steep: torch.tensor(
                [2 * alpha * decay] * 2 + [1.0], dtype=torch.float64
            ),
            "2 lost": lambda alpha, decay, steep: torch.tensor(
                [math.sqrt(alpha * decay)] * 2 + [1.0], dtype=torch.float64
            ),
        },
    ),
    "8.51": Formula(
        sequences,
        leaks,
        lambda x: off_diagonal(slope(over_positions, x).reshape(15, 15)),
        {
            "nothing leaks": lambda x: torch.zeros(15, 15),
            "mean only": lambda x: leaks(x, product=0),
            "earlier ones only": lambda x: leaks(x).tril(),
        },
    ),
    "8.52": Formula(
        with_padding,
        padded,
        lambda x, p, count: both_moments(torch.cat([x, p.expand(count)])),
        {
            "variances averaged": lambda x, p, count: padded(x, p, count, cross=0),
            "padding left out": lambda x, p, count: both_moments(x),
        },
    ),
    "8.53": Formula(
        lambda g: (normal(g, 2, 3, D),),
        lambda x: torch.zeros(2, 6, D, 6, D),
        lambda x: torch.stack(
            [
                between_positions(lambda x: F.layer_norm(x, (D,), eps=EPS), x),
                between_positions(rms, x),
            ]
        ),
        {
            "as in batch normalisation": lambda x: between_positions(batch_over_all, x).expand(
                2, 6, D, 6, D
            )
        },
    ),
}

TestChapter8 = prove(PAGE, LEDGER)


class TestExperiment:
    def test_every_cell_is_stored_with_three_seeds_and_made_from_the_texts_that_are_here(self):
        cells = load_result("normalizers")["cells"]
        for depth, kind, lr, seed in itertools.product(DEPTHS, KINDS, RATES, range(3)):
            cell = cells[f"{depth}/{kind}/{lr:g}/{seed}"]
            assert cell["settings"]["texts"] == data.load("wiki").sha256[:16]

    @pytest.mark.parametrize(("kind", "lr"), [("batch", 0.3162), ("none", 1.0)])
    def test_a_cell_run_again_gives_what_is_stored(self, kind, lr):
        stored = load_result("normalizers")["cells"][f"8/{kind}/{lr:g}/1"]
        text = texts()
        again = train(make_run(kind, lr, 1, text["train"], pick("cpu", amp=False)), text["valid"])
        if stored["bits"] is None:
            assert again["bits"] is None and again["steps"] < 20
        else:  # another CPU rounds otherwise, and 300 steps carry that along
            assert again["bits"] == pytest.approx(stored["bits"], abs=0.1)
