"""Chapter 7: every equation holds in float64, its wrong versions do not; stored runs come again."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ledger import Formula, Property, prove
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

from mslearn import data
from mslearn.device import Device, pick
from mslearn.initializers import (
    DEPTHS,
    RATES,
    STARTS,
    best_rate,
    make_run,
    named,
    network,
    scores,
)
from mslearn.normalizers import Windows, texts
from mslearn.resets import EVERY, LOOK, STEPS, WAYS, draw_anew
from mslearn.resets import make_run as reset_run
from mslearn.resets import train as reset_train
from mslearn.store import load_result

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "07_initialization.ipynb"

# Gauss's nodes: exact for the means of polynomials of a standard normal number, and to machine
# precision for what is as smooth as tanh.
NODES, WEIGHTS = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(150))
WEIGHTS = WEIGHTS / WEIGHTS.sum()
LINE, STEP = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(200))
HALF, HALF_WEIGHTS = 6 * (LINE + 1), 6 * STEP  # Legendre's nodes between 0 and 12
DENSITY = HALF_WEIGHTS * (-HALF.square() / 2).exp() / math.sqrt(2 * math.pi)


def normal(g: torch.Generator, *shape: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(shape, generator=g, dtype=torch.float64)


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)


def mean(function: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of a smooth function of a standard normal number."""
    return (WEIGHTS * function(NODES)).sum()


def mean_kinked(function: Callable[[Tensor], Tensor]) -> Tensor:
    """The same for a function with a kink at 0: each half for itself."""
    return (DENSITY * (function(HALF) + function(-HALF))).sum()


def signs(count: int) -> Tensor:
    """Every choice of `count` signs: weights of variance 1 whose means can be taken exactly."""
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=count)), dtype=torch.float64)


def a_layer(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (8,), none with mean 0, and the deviation of the weights."""
    return normal(g, 8).abs() + 0.2, uniform(g, 0.2, 2)


def through(h: Tensor, sigma: Tensor) -> Tensor:
    """One output of a linear layer for every sign pattern of its weights."""
    return signs(len(h)) @ h * sigma


def two(g: torch.Generator) -> tuple[Tensor, ...]:
    """Two independent variables by values and probabilities; the first has mean 0."""
    w, p = normal(g, 5), normal(g, 5).softmax(0)
    x, r = normal(g, 4) + 1, normal(g, 4).softmax(0)
    return w - (p * w).sum(), p, x, r


def variance(x: Tensor, p: Tensor) -> Tensor:
    return (p * (x - (p * x).sum()).square()).sum()


def dependent(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Outcomes (12, 3) of three dependent variables of mean 0, and their probabilities."""
    x, p = normal(g, 12, 3), normal(g, 12).softmax(0)
    return x - p @ x, p


def precisely(number: float) -> Tensor:
    """Python's number in its own 64 bits, which torch would round to 32."""
    return torch.tensor(number, dtype=torch.float64)


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def after_linear_layers(h: Tensor, sigma: Tensor) -> Tensor:
    """Mean square after three 2 × 2 matrices, over all 2¹² sign patterns."""
    matrices = sigma * signs(12).view(-1, 3, 2, 2)
    z = h.expand(len(matrices), 2)[..., None]
    for layer in range(3):
        z = matrices[:, layer] @ z
    return z.square().mean()


def tanh_map(s: float, g: float = 1.0) -> float:
    """The variance of the next pre-activations: g² E[tanh(√s u)²]."""
    return g**2 * float(mean(lambda u: torch.tanh(math.sqrt(s) * u).square()))


def follow(step: Callable[[float], float], x: float, steps: int) -> float:
    for _ in range(steps):
        x = step(x)
    return x


def third_order(claim: Callable[[float], float]) -> None:
    """Whether `claim(s)` meets the exact map to third order, as s goes to 0."""
    for s in (1e-1, 1e-2, 1e-3):
        assert abs(tanh_map(s) - claim(s)) < 10 * s**3


def decay(claim: Callable[[int], float]) -> None:
    """Whether `claim(l)` is the variance after l layers at gain 1, more nearly the larger l."""
    off, s, at = [], 1.0, 0
    for layers in (100, 1000, 10000):
        s, at = follow(tanh_map, s, layers - at), layers
        off.append(abs(s / claim(layers) - 1))
    assert off[0] > off[1] > off[2]
    assert off[2] < 0.005


def fixed_point(claim: Callable[[float], float]) -> None:
    """Whether `claim(g)` nears the variance that stays, as the gain nears 1."""
    off = []
    for g in (1.2, 1.05, 1.01):
        stays = brentq(lambda s, g=g: tanh_map(s, g) - s, 1e-4, 2, xtol=1e-14)
        off.append(abs(claim(g) / stays - 1))
    assert off[0] > off[1] > off[2]
    assert off[2] < 0.03


def a_network(g: torch.Generator) -> tuple[Tensor, ...]:
    """Input (4,), matrices (5, 4) and (3, 5), and how the loss weighs the three outputs."""
    return normal(g, 4), normal(g, 5, 4), normal(g, 3, 5), normal(g, 3)


def slopes(x: Tensor, w: Tensor, v: Tensor, c: Tensor) -> list[Tensor]:
    """Autograd's ∂ℓ/∂W, ∂ℓ/∂h and ∂ℓ/∂z of a tanh network whose last layer is linear."""
    w = w.clone().requires_grad_()
    z = w @ x
    h = z.tanh()
    return list(torch.autograd.grad(c @ (v @ h).sin(), [w, h, z]))


def by_hand(x: Tensor, w: Tensor, v: Tensor, c: Tensor) -> list[Tensor]:
    delta_out = c * (v @ (w @ x).tanh()).cos()
    gamma = v.T @ delta_out
    delta = (1 - (w @ x).tanh().square()) * gamma
    return [torch.outer(delta, x), gamma, delta]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([each.flatten() for each in tensors])


def a_gradient(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gradients of eight outputs, and the deviation of the weights."""
    return normal(g, 8), uniform(g, 0.2, 2)


def back(delta: Tensor, sigma: Tensor) -> Tensor:
    """∂ℓ/∂h of one input for every sign pattern of its eight weights."""
    return signs(len(delta)) @ delta * sigma


def some_sizes(g: torch.Generator) -> tuple[Tensor]:
    """Widths of five layers."""
    return (torch.randint(2, 500, (5,), generator=g).double(),)


def deep(g: torch.Generator) -> tuple[Tensor, Tensor, int, Tensor, Tensor]:
    """Weight variance and width of a layer, depth, q at the bottom and D at the top."""
    n = torch.randint(2, 99, (), generator=g).double()
    depth = int(torch.randint(3, 9, (), generator=g))
    return uniform(g, 0.5, 3) / n, n, depth, uniform(g, 0.5, 2), uniform(g, 0.5, 2)


def weight_gradients(
    variance: Tensor, n: Tensor, depth: int, q: Tensor, top: Tensor, half: float = 0.5
) -> Tensor:
    """E[δ²] E[h²] of each layer, following the two recursions a layer at a time."""
    signal, gradient = [q], [top]
    for _ in range(depth - 1):
        signal.append(half * n * variance * signal[-1])
        gradient.append(half * n * variance * gradient[-1])
    return torch.stack([a * b for a, b in zip(signal, reversed(gradient), strict=True)])


def on_a_sphere(n: Tensor) -> Tensor:
    """Var(2 Σ max(w, 0)²) for a random direction w of n numbers, by how many of them are positive.

    Given k positive ones, the share of their squares is a beta variable of k/2 and (n − k)/2.
    """
    total = int(n)
    positive = torch.arange(total + 1, dtype=torch.float64)
    chance = torch.tensor([math.comb(total, k) / 2**total for k in range(total + 1)]).double()
    second = positive / 2 * (positive / 2 + 1) / (n / 2 * (n / 2 + 1))
    return (chance * 4 * second).sum() - 1


def an_angle(g: torch.Generator) -> tuple[Tensor]:
    return (uniform(g, 0.05, 3.1),)


def both_positive(theta: Tensor) -> Tensor:
    """E[relu(u) relu(v)] at correlation cos θ: the mean over v in closed form, over u by Gauss."""
    c, s = theta.cos(), theta.sin()
    at = c * HALF / s
    rectified = c * HALF * torch.from_numpy(ndtr(at.numpy()))
    rectified = rectified + s * (-at.square() / 2).exp() / math.sqrt(2 * math.pi)
    return (DENSITY * HALF * rectified).sum()


def angle_decay(claim: Callable[[int], float]) -> None:
    """Whether `claim(l)` is the angle after l layers, more nearly the larger l."""

    def step(theta: float) -> float:
        # 1 − cos by half angles, and sin θ − θ cos θ by its series where both nearly cancel
        cube = theta**3 / 3 - theta**5 / 30 + theta**7 / 840
        rest = math.sin(theta) - theta * math.cos(theta) if theta > 0.1 else cube
        return 2 * math.asin(math.sqrt(max(0.0, math.sin(theta / 2) ** 2 - rest / (2 * math.pi))))

    off = []
    theta, at = 1.5, 0
    for layers in (100, 10_000, 1_000_000):
        theta, at = follow(step, theta, layers - at), layers
        off.append(abs(theta / claim(layers) - 1))
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-4


def a_branch(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A stream (3,), what goes into the last matrix (4,), the deviation of its weights."""
    return normal(g, 3), normal(g, 4), uniform(g, 0.2, 2)


def one_branch(x: Tensor, a: Tensor, sigma: Tensor) -> Tensor:
    """Mean squared length after x + W a, over every sign pattern of W."""
    w = sigma * signs(12).view(-1, 3, 4)
    return (x + w @ a).square().sum(1).mean()


def growth(g: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Share that a branch adds, the square at the bottom, the number of branches."""
    return uniform(g, 0.1, 2), uniform(g, 0.5, 2), int(torch.randint(2, 40, (), generator=g))


def grow(add: Callable[[Tensor], Tensor], q: Tensor, branches: int) -> Tensor:
    for _ in range(branches):
        q = q + add(q)
    return q


def bounded(claim: Callable[[float, int], float]) -> None:
    """Whether `claim(v, N)` is never below (1 + v/N)^N, nor far above it for many branches."""
    for v in (0.1, 0.5, 1.0, 2.0):
        for branches in (1, 2, 10, 100):
            assert (1 + v / branches) ** branches <= claim(v, branches)
        assert claim(v, 10_000) < 1.001 * (1 + v / 10_000) ** 10_000


def zero_branch(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stream, inner matrix of the branch, its last matrix at zero, and weights of the loss."""
    return normal(g, 4), normal(g, 5, 4), torch.zeros(4, 5, dtype=torch.float64), normal(g, 4)


def branch_slopes(x: Tensor, inner: Tensor, last: Tensor, c: Tensor) -> Tensor:
    """Autograd's gradients of the last matrix, of the inner one, and the network's output."""
    inner, last = inner.clone().requires_grad_(), last.clone().requires_grad_()
    y = x + last @ relu(inner @ x)
    return flat([*torch.autograd.grad(c @ y.sin(), [last, inner]), y.detach()])


def twins(g: torch.Generator) -> tuple[Tensor, ...]:
    """As `a_network`, with hidden units 0 and 3 equal in weights, incoming and outgoing."""
    x, w, v, c = a_network(g)
    w[3], v[:, 3] = w[0], v[:, 0]
    return x, w, v, c


def twin_slopes(x: Tensor, w: Tensor, v: Tensor, c: Tensor) -> Tensor:
    """Autograd's gradients of all that enters and leaves unit 3."""
    w, v = w.clone().requires_grad_(), v.clone().requires_grad_()
    by_w, by_v = torch.autograd.grad(c @ (v @ (w @ x).tanh()).sin(), [w, v])
    return torch.cat([by_w[3], by_v[:, 3]])


def slopes_of_unit_0(x: Tensor, w: Tensor, v: Tensor, c: Tensor) -> Tensor:
    h = (w @ x).tanh()
    delta_out = c * (v @ h).cos()
    delta = (1 - h[0].square()) * (v[:, 0] @ delta_out)
    return torch.cat([delta * x, delta_out * h[0]])


def dead_slopes(x: Tensor, c: Tensor) -> Tensor:
    """Autograd at zero weights: gradients of both matrices, of the first bias and of the last."""
    w, v = (torch.zeros(5, 4).double(), torch.zeros(3, 5).double())
    b, d = torch.zeros(5).double(), torch.zeros(3).double()
    parameters = [p.requires_grad_() for p in (w, v, b, d)]
    loss = torch.nn.functional.cross_entropy(v @ relu(w @ x + b) + d, c)
    return flat(list(torch.autograd.grad(loss, parameters)))


def with_bias(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two inputs (6,) of the same mean square, and the deviation of the bias."""
    a, b = normal(g, 6), normal(g, 6)
    return a, b * a.norm() / b.norm(), uniform(g, 0.2, 2)


def pairs_with_bias(a: Tensor, b: Tensor, sigma_b: Tensor) -> Tensor:
    """E[z z'], E[z²], E[z'²] over all signs of six weights with nσ² = 1 and of the bias."""
    pattern = signs(7)
    za, zb = (pattern[:, :6] @ each / math.sqrt(6) + sigma_b * pattern[:, 6] for each in (a, b))
    return torch.stack([(za * zb).mean(), za.square().mean(), zb.square().mean()])


def correlation_with_bias(a: Tensor, b: Tensor, sigma_b: Tensor) -> Tensor:
    both, first, second = pairs_with_bias(a, b, sigma_b)
    return both / (first * second).sqrt()


def expected_loss(s: float) -> float:
    """E[log Σ e^z − z_t] for three independent logits of deviation s, by a grid of nodes."""
    nodes, weights = NODES[::1][45:105], WEIGHTS[45:105]
    weights = weights / weights.sum()
    z = s * torch.stack(torch.meshgrid(nodes, nodes, nodes, indexing="ij"))
    product = torch.einsum("i,j,k->ijk", weights, weights, weights)
    return float((product * (z.logsumexp(0) - z[0])).sum())


def between(claim: Callable[[float], tuple[float, float]]) -> None:
    """Whether the expected loss lies between the two, and near both for small logits."""
    for s in (0.05, 0.3, 1.0, 2.0):
        low, high = claim(s)
        assert low <= expected_loss(s) <= high
    assert max(claim(0.001)) - expected_loss(0.001) < 1e-6


def a_head(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    return (*a_layer(g), torch.tensor(0.0, dtype=torch.float64))


def on_the_sphere(x: Tensor) -> Tensor:
    """A loss that sees its input's direction only, as behind a normaliser."""
    u = x / x.norm()
    return (u * torch.arange(1, 7)).sin().sum() + u.prod()


def slope_at(x: Tensor) -> Tensor:
    return torch.func.grad(on_the_sphere)(x)


LEDGER = {
    "7.1": Formula(
        lambda g: (normal(g, 4), normal(g, 5, 4), normal(g, 5)),
        lambda h, w, b: torch.stack(
            [relu(sum(w[i, j] * h[j] for j in range(4)) + b[i]) for i in range(5)]
        ),
        lambda h, w, b: torch.nn.functional.linear(h, w, b).relu(),
        {
            "bias after": lambda h, w, b: relu(w @ h) + b,
            "linear": lambda h, w, b: w @ h + b,
        },
    ),
    "7.2": Formula(
        lambda g: (normal(g, 6) + 1, normal(g, 6).softmax(0)),
        lambda x, p: (p * x.square()).sum() - (p * x).sum().square(),
        variance,
        {"plus": lambda x, p: (p * x.square()).sum() + (p * x).sum().square()},
    ),
    "7.3": Formula(
        two,
        lambda w, p, x, r: variance(w, p) * (r * x.square()).sum(),
        lambda w, p, x, r: variance(torch.outer(w, x).flatten(), torch.outer(p, r).flatten()),
        {"variance of the second": lambda w, p, x, r: variance(w, p) * variance(x, r)},
    ),
    "7.4": Formula(
        dependent,
        lambda x, p: (
            sum((p * x[:, j] * x[:, k]).sum() for j in range(3) for k in range(3) if j != k)
            + (p[:, None] * x.square()).sum()
        ),
        lambda x, p: (p * x.sum(1).square()).sum(),
        {"as if independent": lambda x, p: (p[:, None] * x.square()).sum()},
    ),
    "7.5": Formula(
        lambda g: (normal(g, 2), uniform(g, 0.2, 2)),
        lambda h, sigma: torch.zeros(()),
        lambda h, sigma: (signs(2).prod(1) * h.prod() * sigma**2).mean(),
        {"one weight for both": lambda h, sigma: sigma**2 * h.prod()},
    ),
    "7.6": Formula(
        a_layer,
        lambda h, sigma: len(h) * sigma**2 * h.square().mean(),
        lambda h, sigma: through(h, sigma).square().mean(),
        {
            "variance for mean square": lambda h, sigma: len(h) * sigma**2 * h.var(correction=0),
            "n lost": lambda h, sigma: sigma**2 * h.square().mean(),
        },
    ),
    "7.7": Formula(
        lambda g: (normal(g, 2), uniform(g, 0.2, 2)),
        lambda h, sigma: (2 * sigma**2) ** 3 * h.square().mean(),
        after_linear_layers,
        {
            "depth as a factor": lambda h, sigma: 3 * 2 * sigma**2 * h.square().mean(),
            "half": lambda h, sigma: sigma**6 * h.square().mean(),
        },
    ),
    "7.8": Formula(
        lambda g: (normal(g, 9),),
        lambda z: z.square().mean() / 2,
        lambda z: relu(torch.cat([z, -z])).square().mean(),
        {
            "not halved": lambda z: z.square().mean(),
            "its variance": lambda z: relu(torch.cat([z, -z])).var(correction=0),
        },
    ),
    "7.9": Formula(
        a_layer,
        lambda h, sigma: torch.stack(
            [len(h) * sigma**2 * h.square().mean() / 2, h.square().mean()]
        ),
        lambda h, sigma: torch.stack(
            [
                relu(through(h, sigma)).square().mean(),
                relu(through(h, precisely(2 / len(h)).sqrt())).square().mean(),
            ]
        ),
        {
            "linear": lambda h, sigma: torch.stack(
                [len(h) * sigma**2 * h.square().mean(), h.square().mean()]
            ),
            "gain 2": lambda h, sigma: torch.stack(
                [len(h) * sigma**2 * h.square().mean() / 2, 2 * h.square().mean()]
            ),
        },
    ),
    "7.10": Formula(
        lambda g: (*a_layer(g), uniform(g, 0, 1)),
        lambda h, sigma, a: (1 + a**2) / 2 * len(h) * sigma**2 * h.square().mean(),
        lambda h, sigma, a: torch.where((z := through(h, sigma)) > 0, z, a * z).square().mean(),
        {
            "slope not squared": lambda h, sigma, a: (
                (1 + a) / 2 * len(h) * sigma**2 * h.square().mean()
            )
        },
    ),
    "7.11": Formula(
        a_layer,
        lambda h, gain: through(h, gain / math.sqrt(len(h))).square().mean(),
        lambda h, gain: gain**2 * h.square().mean(),
        {
            "root lost": lambda h, gain: through(h, gain / len(h)).square().mean(),
            "variance": lambda h, gain: through(h, gain**2 / math.sqrt(len(h))).square().mean(),
        },
    ),
    "7.12": Formula(
        lambda g: (uniform(g, 0.3, 2),),
        lambda k: mean(lambda u: torch.tanh(k * u).square()) ** -0.5,
        lambda k: precisely(
            # the gain at which a pre-activation's variance of 1 stays where it is
            brentq(
                lambda gain: gain**2 * float(mean(lambda u: torch.tanh(k * u).square())) - 1,
                0.1,
                20,
                xtol=1e-14,
            )
        ),
        {
            "not the root": lambda k: mean(lambda u: torch.tanh(k * u).square()) ** -1,
            "mean size": lambda k: mean_kinked(lambda u: torch.tanh(k * u).abs()) ** -1,
        },
    ),
    "7.13": Formula(
        lambda g: (normal(g, 5), uniform(g, 0.2, 2)),
        lambda c, k: mean(lambda u: _polynomial(c, u, 1) * (k * u).cos() - _sine_part(c, k, u)),
        lambda c, k: mean(lambda u: u * _polynomial(c, u, 0) * (k * u).cos()),
        {"sign": lambda c, k: mean(lambda u: _sine_part(c, k, u) - _polynomial(c, u, 1))},
    ),
    "7.14": Formula(
        lambda g: (normal(g),),
        lambda a: 3 * a**4,
        lambda a: mean(lambda u: (a * u) ** 4),
        {"one": lambda a: a**4, "fifteen": lambda a: 15 * a**4},
    ),
    "7.15": Property(
        third_order,
        lambda s: s - 2 * s**2,
        {
            "fourth moment forgotten": lambda s: s - 2 / 3 * s**2,
            "one cross term": lambda s: s - s**2,
        },
    ),
    "7.16": Property(
        decay,
        lambda layers: 1 / (2 * layers),
        {"factor lost": lambda layers: 1 / layers, "a power": lambda layers: 0.99**layers},
    ),
    "7.17": Property(
        fixed_point,
        lambda g: (1 - 1 / g**2) / 2,
        {"factor lost": lambda g: 1 - 1 / g**2, "of the gain": lambda g: (g - 1) / 2},
    ),
    "7.18": Formula(
        a_network,
        lambda *net: flat(by_hand(*net)),
        lambda *net: flat(slopes(*net)),
        {
            "slope forgotten": lambda x, w, v, c: flat(
                [torch.outer(by_hand(x, w, v, c)[1], x), *[by_hand(x, w, v, c)[1]] * 2]
            ),
            "slope at h": lambda x, w, v, c: flat(
                [
                    torch.outer(d := (1 - (w @ x).tanh().tanh() ** 2) * by_hand(x, w, v, c)[1], x),
                    by_hand(x, w, v, c)[1],
                    d,
                ]
            ),
        },
    ),
    "7.19": Formula(
        a_gradient,
        lambda delta, sigma: len(delta) * sigma**2 * delta.square().mean(),
        lambda delta, sigma: back(delta, sigma).square().mean(),
        {"n lost": lambda delta, sigma: sigma**2 * delta.square().mean()},
    ),
    "7.20": Formula(
        lambda g: (normal(g, 9), normal(g, 7)),
        lambda z, gamma: gamma.square().mean() / 2,
        lambda z, gamma: ((torch.cat([z, -z]) > 0).double()[:, None] * gamma).square().mean(),
        {"a quarter": lambda z, gamma: gamma.square().mean() / 4},
    ),
    "7.21": Formula(
        a_gradient,
        lambda delta, sigma: torch.stack(
            [len(delta) * sigma**2 * delta.square().mean() / 2, delta.square().mean()]
        ),
        lambda delta, sigma: torch.stack(
            [
                # the slope of a ReLU is 0 as often as 1
                torch.stack([0 * back(delta, s), back(delta, s)]).square().mean()
                for s in (sigma, math.sqrt(2 / len(delta)))
            ]
        ),
        {
            "forward variance at four inputs": lambda delta, sigma: torch.stack(
                [4 * sigma**2 * delta.square().mean() / 2, delta.square().mean()]
            )
        },
    ),
    "7.22": Formula(
        deep,
        lambda s, n, depth, q, top: (q * top * (n * s / 2) ** (depth - 1)).expand(depth),
        weight_gradients,
        {
            "smaller towards the bottom": lambda s, n, depth, q, top: torch.stack(
                [q * top * (n * s / 2) ** (depth - 1 - layer) for layer in range(depth)]
            ),
            "one layer more": lambda s, n, depth, q, top: (q * top * (n * s / 2) ** depth).expand(
                depth
            ),
        },
    ),
    "7.23": Formula(
        lambda g: (uniform(g, 0.5, 2), uniform(g, 0.05, 2)),
        lambda gain, s: gain**2 * mean(lambda u: (1 - torch.tanh(s.sqrt() * u) ** 2) ** 2),
        lambda gain, s: (
            gain**2
            * mean(lambda u: torch.func.vmap(torch.func.grad(torch.tanh))(s.sqrt() * u).square())
        ),
        {
            "square of the mean": lambda gain, s: (
                gain**2 * mean(lambda u: 1 - torch.tanh(s.sqrt() * u) ** 2) ** 2
            )
        },
    ),
    "7.24": Formula(
        lambda g: (torch.randint(2, 500, (2,), generator=g).double(), uniform(g, 0.5, 2)),
        lambda n, gain: 2 * gain**2 / n.sum(),
        lambda n, gain: gain**2 / n.mean(),
        {
            "mean of the variances": lambda n, gain: (gain**2 / n).mean(),
            "one half": lambda n, gain: gain**2 / n.sum(),
        },
    ),
    "7.25": Formula(
        lambda g: (torch.randint(2, 500, (2,), generator=g).double(),),
        lambda n: torch.stack([2 * n[0] / n.sum(), 2 * n[1] / n.sum(), torch.tensor(2.0)]),
        lambda n: torch.stack(
            [n[0] / n.mean(), n[1] / n.mean(), n[0] / n.mean() + n[1] / n.mean()]
        ),
        {
            "product": lambda n: torch.stack(
                [2 * n[0] / n.sum(), 2 * n[1] / n.sum(), 4 * n.prod() / n.sum() ** 2]
            )
        },
    ),
    "7.26": Formula(
        some_sizes,
        lambda n: n[-1] / n[0],
        lambda n: (n[1:] / n[:-1]).prod(),
        {"upside down": lambda n: n[0] / n[-1], "widest": lambda n: n.max() / n[0]},
    ),
    "7.27": Formula(
        lambda g: (uniform(g, 0.1, 3),),
        lambda a: a**2 / 3,
        lambda a: (STEP / 2 * (a * LINE).square()).sum(),
        {"width of the interval": lambda a: (2 * a) ** 2 / 3, "twelfth": lambda a: a**2 / 12},
    ),
    "7.28": Formula(
        lambda g: (torch.randint(2, 500, (2,), generator=g).double(),),
        lambda n: (6 / n.sum()).sqrt(),
        lambda n: precisely(
            brentq(
                lambda a: float((STEP / 2 * (a * LINE).square()).sum() - 2 / n.sum()),
                0,
                9,
                xtol=1e-14,
            )
        ),
        {"deviation for bound": lambda n: (2 / n.sum()).sqrt()},
    ),
    "7.29": Formula(
        lambda g: (normal(g, 8),),
        lambda h: h.square().mean() / 6,
        lambda h: relu(through(h, precisely(1 / 24).sqrt())).square().mean(),
        {"a third": lambda h: h.square().mean() / 3},
    ),
    "7.30": Formula(
        lambda g: (torch.randint(2, 500, (), generator=g).double(),),
        lambda n: 5 / n,
        lambda n: mean_kinked(lambda u: (2 * relu(u) ** 2 - 1) ** 2) / n,
        {"linear": lambda n: 2 / n, "mean not taken off": lambda n: 6 / n},
    ),
    "7.31": Formula(
        lambda g: (torch.randint(2, 99, (), generator=g).double(), 7),
        lambda n, depth: (1 + 5 / n) ** depth,
        lambda n, depth: (
            (
                (
                    n * mean_kinked(lambda u: (2 * relu(u) ** 2) ** 2)
                    + n * (n - 1) * mean_kinked(lambda u: 2 * relu(u) ** 2) ** 2
                )
                / n**2
            )
            ** depth
        ),
        {"sum": lambda n, depth: 1 + 5 * depth / n},
    ),
    "7.32": Formula(
        lambda g: (normal(g, 5, 5), normal(g, 5)),
        lambda m, h: h.square().sum(),
        lambda m, h: (torch.linalg.qr(m).Q @ h).square().sum(),
        {"not orthogonal": lambda m, h: (m @ h).square().sum()},
    ),
    "7.33": Formula(
        lambda g: (torch.randint(2, 12, (), generator=g).double(),),
        lambda n: 3 / (n + 2),
        on_a_sphere,
        {
            "normal matrices": lambda n: 5 / n,
            "fourth moment as if independent": lambda n: 3 / n,
        },
    ),
    "7.34": Formula(
        an_angle,
        lambda t: (t.sin() + (math.pi - t) * t.cos()) / (2 * math.pi),
        both_positive,
        {
            "as if independent": lambda t: torch.tensor(1 / (2 * math.pi)),
            "angle for its rest": lambda t: (t.sin() + t * t.cos()) / (2 * math.pi),
        },
    ),
    "7.35": Formula(
        an_angle,
        lambda t: t.cos() + (t.sin() - t * t.cos()) / math.pi,
        lambda t: both_positive(t) / mean_kinked(lambda u: relu(u) ** 2),
        {
            "sign": lambda t: t.cos() - (t.sin() - t * t.cos()) / math.pi,
            "kept": lambda t: t.cos(),
        },
    ),
    "7.36": Property(
        angle_decay,
        lambda layers: 3 * math.pi / layers,
        {"factor lost": lambda layers: math.pi / layers, "root": lambda layers: layers**-0.5},
    ),
    "7.37": Formula(
        a_branch,
        lambda x, a, sigma: x.square().sum() + 3 * sigma**2 * a.square().sum(),
        one_branch,
        {
            "lengths added": lambda x, a, sigma: (
                (x.norm() + (3 * sigma**2 * a.square().sum()).sqrt()) ** 2
            ),
            "stream left out": lambda x, a, sigma: 3 * sigma**2 * a.square().sum(),
        },
    ),
    "7.38": Formula(
        growth,
        lambda v, q, branches: (1 + v) ** branches * q,
        lambda v, q, branches: grow(lambda x: v * x, q, branches),
        {"one less": lambda v, q, branches: (1 + v) ** (branches - 1) * q},
    ),
    "7.39": Formula(
        growth,
        lambda v, q, branches: q + branches * v,
        lambda v, q, branches: grow(lambda x: v, q, branches),
        {"one more": lambda v, q, branches: q + (branches + 1) * v},
    ),
    "7.40": Property(
        bounded,
        lambda v, branches: math.exp(v),
        {"first order": lambda v, branches: 1 + v, "unscaled": lambda v, branches: 2**branches},
    ),
    "7.41": Formula(
        lambda g: (normal(g, 6), 7),
        lambda a, blocks: a.square().mean(),
        lambda a, blocks: (
            # two branches for each of the blocks, each with its own weights
            2 * blocks * through(a, precisely(1 / (6 * 2 * blocks)).sqrt()).square().mean()
        ),
        {
            "branches counted once": lambda a, blocks: 2 * a.square().mean(),
            "root lost": lambda a, blocks: a.square().mean() / (2 * blocks),
        },
    ),
    "7.42": Formula(
        zero_branch,
        lambda x, inner, last, c: flat(
            [torch.outer(c * x.cos(), relu(inner @ x)), torch.zeros(5, 4), x]
        ),
        branch_slopes,
        {
            "both at rest": lambda x, inner, last, c: flat(
                [torch.zeros(4, 5), torch.zeros(5, 4), x]
            ),
            "both move": lambda x, inner, last, c: flat(
                [torch.outer(c * x.cos(), relu(inner @ x)), torch.ones(5, 4), x]
            ),
        },
    ),
    "7.43": Formula(
        twins,
        slopes_of_unit_0,
        twin_slopes,
        {
            "another unit's": lambda x, w, v, c: slopes_of_unit_0(
                x, w.roll(-1, 0), v.roll(-1, 1), c
            ),
            "outgoing weights differ": lambda x, w, v, c: slopes_of_unit_0(
                x, w, torch.cat([v[:, :1] + 1, v[:, 1:]], 1), c
            ),
        },
    ),
    "7.44": Formula(
        lambda g: (normal(g, 4), normal(g, 4), normal(g, 3), 6),
        lambda x, w, v, n: n * v * (w @ x).tanh(),
        lambda x, w, v, n: v[:, None].expand(3, n) @ (w.expand(n, 4) @ x).tanh(),
        {"root": lambda x, w, v, n: math.sqrt(n) * v * (w @ x).tanh()},
    ),
    "7.45": Formula(
        lambda g: (normal(g, 4), torch.randint(3, (), generator=g)),
        lambda x, t: torch.cat([torch.zeros(20 + 15 + 5), 1 / 3 - torch.eye(3).double()[t]]),
        dead_slopes,
        {
            "last matrix moves too": lambda x, t: torch.cat(
                [torch.zeros(20), torch.ones(15), torch.zeros(5), 1 / 3 - torch.eye(3)[t]]
            ),
            "nothing moves": lambda x, t: torch.zeros(43),
        },
    ),
    "7.46": Formula(
        with_bias,
        lambda a, b, sigma_b: a.square().mean() + sigma_b**2,
        lambda a, b, sigma_b: pairs_with_bias(a, b, sigma_b)[1],
        {"deviation": lambda a, b, sigma_b: a.square().mean() + sigma_b},
    ),
    "7.47": Formula(
        with_bias,
        lambda a, b, sigma_b: (
            (c := a @ b / (a.norm() * b.norm()))
            + (1 - c) * sigma_b**2 / (a.square().mean() + sigma_b**2)
        ),
        correlation_with_bias,
        {
            "kept": lambda a, b, sigma_b: a @ b / (a.norm() * b.norm()),
            "towards 0": lambda a, b, sigma_b: (
                (c := a @ b / (a.norm() * b.norm()))
                - c * sigma_b**2 / (a.square().mean() + sigma_b**2)
            ),
        },
    ),
    "7.48": Formula(
        lambda g: (torch.randint(2, 500, (), generator=g),),
        lambda V: V.double().log(),
        lambda V: torch.nn.functional.cross_entropy(torch.zeros(1, V).double(), V[None] - 1),
        {"in bits": lambda V: V.double().log2()},
    ),
    "7.49": Formula(
        lambda g: (uniform(g, 0.1, 2),),
        lambda s: (s**2 / 2).exp(),
        lambda s: mean(lambda u: (s * u).exp()),
        {"factor lost": lambda s: (s**2).exp(), "first order": lambda s: 1 + s**2 / 2},
    ),
    "7.50": Property(
        between,
        lambda s: (math.log(3), math.log(3) + s**2 / 2),
        {
            "half of it": lambda s: (math.log(3), math.log(3) + s**2 / 4),
            "below ln V": lambda s: (math.log(3) + s**2 / 2, math.log(3) + s**2),
        },
    ),
    "7.51": Formula(
        a_layer,
        lambda h, sigma: len(h) * sigma**2 * h.square().mean(),
        lambda h, sigma: through(h, sigma).var(correction=0),
        {"halved": lambda h, sigma: len(h) * sigma**2 * h.square().mean() / 2},
    ),
    "7.52": Formula(
        lambda g: (8, uniform(g, 0.2, 2)),
        lambda n, sigma: torch.stack([n * sigma**2, n * sigma**4]),
        lambda n, sigma: torch.stack(
            [
                (sigma * signs(n)).square().sum(1).mean(),
                (sigma * signs(n) @ (sigma * signs(n)).T).square().mean(),
            ]
        ),
        {
            "own logit as small as others": lambda n, sigma: (n * sigma**4).expand(2),
            "squares lost": lambda n, sigma: torch.stack([n * sigma**2, n * sigma**2]),
        },
    ),
    "7.53": Formula(
        lambda g: (normal(g, 6), uniform(g, 0.05, 0.9)),
        lambda x, c: slope_at(x) / c,
        lambda x, c: slope_at(c * x),
        {"times": lambda x, c: slope_at(x) * c, "the same": lambda x, c: slope_at(x)},
    ),
}


def _polynomial(c: Tensor, u: Tensor, derivative: int) -> Tensor:
    """Σ c_i u^i, or its derivative."""
    if derivative:
        return sum(i * c[i] * u ** (i - 1) for i in range(1, len(c)))
    return sum(c[i] * u**i for i in range(len(c)))


def _sine_part(c: Tensor, k: Tensor, u: Tensor) -> Tensor:
    """What differentiating cos(k u) adds to the derivative of polynomial · cos(k u)."""
    return _polynomial(c, u, 0) * k * (k * u).sin()


TestLedger = prove(PAGE, LEDGER)


@pytest.fixture(scope="module")
def text() -> dict[str, Tensor]:
    return texts()


@pytest.fixture(scope="module")
def cpu() -> Device:
    return pick("cpu", amp=False)


class TestNetworks:
    @pytest.mark.parametrize("start", STARTS)
    def test_a_seed_decides_every_weight(self, start):
        first, again, other = (network(start, 8, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["embedding.weight"], other["embedding.weight"])

    @pytest.mark.parametrize("depth", DEPTHS)
    def test_streams_have_as_many_matrices_in_their_branches_as_chains(self, depth):
        assert len(network("kaiming", depth).linears) == depth
        assert 2 * len(network("scaled", depth).branches) == depth

    @pytest.mark.parametrize(
        ("start", "factor"),
        [("default", 1 / 6), ("xavier", 1 / 2), ("kaiming", 1), ("orthogonal", 1), ("doubled", 4)],
    )
    @torch.no_grad()
    def test_a_layer_of_a_chain_multiplies_the_mean_square_as_derived(self, start, factor, text):
        tokens = Windows(text["train"])(0)[0]
        ratios = []
        for seed in range(12):
            hidden = network(start, 6, seed).hidden(tokens)
            ratios.append((hidden[5].square().mean() / hidden[1].square().mean()).log())
        ratio = torch.stack(ratios).mean().exp() ** (1 / 4)
        assert ratio.item() == pytest.approx(factor, rel=0.1)

    @pytest.mark.parametrize(
        ("start", "factor"), [("stream", 2.0), ("scaled", 9 / 8), ("zero", 1.0)]
    )
    @torch.no_grad()
    def test_a_branch_multiplies_the_mean_square_of_its_stream_as_derived(
        self, start, factor, text
    ):
        tokens = Windows(text["train"])(0)[0]
        ratios = []
        for seed in range(8):
            stream = network(start, 16, seed).hidden(tokens)
            ratios.append((stream[-1].square().mean() / stream[0].square().mean()).log())
        assert torch.stack(ratios).mean().exp().item() ** (1 / 8) == pytest.approx(factor, rel=0.05)

    def test_an_unknown_start_is_answered_with_the_known_ones(self):
        with pytest.raises(ValueError, match="no start 'tiny': choose one of default, xavier"):
            network("tiny", 4)


class TestInitializers:
    def test_every_rate_has_one_seed_and_the_best_three(self):
        cells = load_result("initializers")["cells"]
        for key in itertools.product(RATES, DEPTHS, STARTS):
            assert all(named(*key, lr, 0) in cells for lr in RATES[key[0]])
            assert all(named(*key, best_rate(cells, *key), seed) in cells for seed in (1, 2))

    def test_the_best_rate_is_that_of_the_fewest_bits_in_all_its_seeds(self):
        found = {(0.003, 0): 5.0, (0.03, 0): 4.2, (0.1, 0): 4.1, (0.3, 0): 4.0}
        key = ("sgd", 4, "kaiming")

        def best() -> float:
            return best_rate({named(*key, *k): {"valid": v} for k, v in found.items()}, *key)

        assert best() == 0.3
        found[0.3, 1] = None
        assert best() == 0.1
        found[0.1, 1] = 4.5
        assert best() == 0.03
        assert best_rate({}, *key) == 0.003

    def test_it_was_made_from_the_texts_that_are_here(self):
        sha = data.load("wiki").sha256
        assert all(
            cell["settings"]["texts"]["wiki"] == sha
            for name in ("initializers", "resets")
            for cell in load_result(name)["cells"].values()
        )

    @pytest.mark.parametrize("key", [("sgd", 4, "kaiming"), ("adamw", 8, "zero")])
    def test_a_cell_run_again_gives_what_is_stored(self, key, text, cpu):
        cells = load_result("initializers")["cells"]
        lr = best_rate(cells, *key)
        again = scores(make_run(*key, lr, 1, text["train"], cpu), text["valid"])
        for part in ("valid", "test"):
            assert again[part] == pytest.approx(cells[named(*key, lr, 1)][part], abs=0.05)

    def test_what_explodes_is_stored_as_not_finite(self, text, cpu):
        run = make_run("sgd", 32, "doubled", 0.3, 0, text["train"], cpu)
        assert scores(run, text["valid"]) == {"valid": None, "test": None}
        assert load_result("initializers")["cells"]["sgd/32/doubled/0.3/0"]["test"] is None


class TestResets:
    def test_every_way_has_three_seeds_and_whole_curves(self):
        cells = load_result("resets")["cells"]
        assert set(cells) == {f"{way}/{seed}" for way in WAYS for seed in (0, 1, 2)}
        assert all(len(cell["test"]) == STEPS // LOOK for cell in cells.values())

    def test_a_cell_run_again_gives_what_is_stored(self, text, cpu):
        way, stored = WAYS["all anew"], load_result("resets")["cells"]["all anew/1"]
        run = reset_run(way, 1, text["train"], cpu)
        curves = reset_train(run, way, 1, text["valid"], steps=EVERY + LOOK)
        for part, values in curves.items():
            assert values == pytest.approx(stored[part][: len(values)], abs=0.1)
        assert curves["train"][-1] > curves["train"][-2] + 0.3  # what it knew is gone

    @pytest.mark.parametrize("part", ["all", "head", "half"])
    def test_what_is_drawn_anew_is_what_it_says(self, part, text, cpu):
        run = reset_run(WAYS["plain"], 0, text["train"], cpu)
        for _ in run.train(2):
            pass
        before = {name: p.clone() for name, p in run.model.state_dict().items()}
        draw_anew(run, part, seed=9)
        fresh = network("kaiming", 2, 9).state_dict()
        for name, now in run.model.state_dict().items():
            wanted = {"all": fresh[name], "half": (before[name] + fresh[name]) / 2}
            head = fresh[name] if name.startswith("head") else before[name]
            assert torch.allclose(now, wanted.get(part, head), atol=1e-7)
        assert not run.optimizer.state
