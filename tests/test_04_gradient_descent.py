"""Every numbered equation of chapter 4 holds in float64, and its wrong versions do not."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ledger import Formula, Property, prove
from numpy.polynomial.legendre import leggauss
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import brentq
from torch import Tensor
from torch.func import grad, jacrev, vjp, vmap

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "04_gradient_descent.ipynb"
D = 4  # parameters
ZERO = torch.zeros((), dtype=torch.float64)
NODES, WEIGHTS = (torch.from_numpy(each) / 2 for each in leggauss(40))  # on an interval of length 1
EPSILON = 2.0**-52  # a value of a numpy function is off by at most this share of itself

Pairs = Iterator[tuple[Tensor, Tensor]]


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def uniform(g: torch.Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand((), generator=g, dtype=torch.float64)


def hessian(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Backward through backward."""
    return jacrev(jacrev(value))


def integral(integrand: Callable[[Tensor], Tensor]) -> Tensor:
    """From 0 to 1, by 40 points of Gauss and Legendre: exact to rounding for what is smooth."""
    return torch.tensordot(WEIGHTS, vmap(integrand)(NODES + 0.5), 1)


# Losses whose constants are known -----------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """A loss that is least, 0, at `best`, with no curvature above L or below mu anywhere.

    `steep` and `flat` are eigenvectors of its Hessian at `best`; L is reached there along `steep`.
    """

    value: Callable[[Tensor], Tensor]
    best: Tensor
    L: Tensor
    mu: Tensor
    steep: Tensor
    flat: Tensor

    def slope(self, theta: Tensor) -> Tensor:
        return grad(self.value)(theta)

    def curvature(self, theta: Tensor) -> Tensor:
        return hessian(self.value)(theta)

    def step(self, theta: Tensor, rate: Tensor) -> Tensor:
        """Gradient descent's, as torch makes it."""
        return sgd(self.value, theta, rate)[-1]


def sgd(
    value: Callable[[Tensor], Tensor],
    theta: Tensor,
    rate: Tensor | float,
    steps: int = 1,
    forget: bool = False,
) -> Tensor:
    """The path of `torch.optim.SGD`, (steps + 1, D); `forget` never sets the gradients back."""
    parameter = theta.clone().requires_grad_()
    optimiser, path = torch.optim.SGD([parameter], lr=float(rate)), [theta]
    for _ in range(steps):
        if not forget:
            optimiser.zero_grad()
        value(parameter).backward()
        optimiser.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def known(value: Callable, best: Tensor, at_best: Tensor, mu: Tensor | None = None) -> Loss:
    """A loss of the distance from `best`, whose Hessian is greatest there, `at_best`."""
    lam, q = torch.linalg.eigh(at_best)
    mu = lam[0] if mu is None else mu
    return Loss(lambda theta: value(theta - best), best, lam[-1], mu, q[:, -1], q[:, 0])


def log_cosh(z: Tensor) -> Tensor:
    """Its slope is tanh and its curvature 1 - tanh², at most 1."""
    return torch.logaddexp(z, -z) - math.log(2)


def bowl(g: torch.Generator) -> Loss:
    """A quadratic: every curvature is the same everywhere."""
    A = normal(g, D, D)
    H = A @ A.T / D + 0.1 * torch.eye(D, dtype=torch.float64)
    return known(lambda e: e @ H @ e / 2, normal(g, D), H)


def valley(g: torch.Generator) -> Loss:
    """Strongly convex and not a quadratic."""
    A, mu = normal(g, D + 1, D), torch.tensor(0.2, dtype=torch.float64)
    H = A.T @ A + mu * torch.eye(D, dtype=torch.float64)
    return known(lambda e: log_cosh(A @ e).sum() + mu / 2 * e @ e, normal(g, D), H, mu)


def trough(g: torch.Generator) -> Loss:
    """Convex only: it is level in some directions, and a straight slope far away in the others."""
    A = normal(g, D - 2, D)
    zero = torch.zeros((), dtype=torch.float64)
    return known(lambda e: log_cosh(A @ e).sum(), normal(g, D), A.T @ A, zero)


def waves(g: torch.Generator) -> Loss:
    """Smooth and not convex."""
    A, w = normal(g, D, D), normal(g, D).exp()
    H = A.T @ (w[:, None] * A)
    return known(
        lambda e: (w * (1 - (A @ e).cos())).sum(), normal(g, D), H, -torch.linalg.norm(H, 2)
    )


EVERY, CONVEX, STRONG = (bowl, trough, waves), (bowl, valley, trough), (bowl, valley)


def situations(*kinds: Callable, seeds: int = 3) -> Iterator[tuple[Loss, Tensor, Tensor]]:
    """A loss, a place and a step: anywhere, and along the directions in which bounds are tight."""
    for seed in range(seeds):
        g = torch.Generator().manual_seed(seed)
        for loss in (kind(g) for kind in kinds):
            for away in (2 * normal(g, D), loss.steep, loss.flat):
                for v in (normal(g, D), loss.steep, loss.flat):
                    yield loss, loss.best + away, v


def situation(kind: Callable) -> Callable[[torch.Generator], tuple]:
    """Inputs of a formula: a loss of this kind, a place and a step."""

    def inputs(g: torch.Generator) -> tuple:
        loss = kind(g)
        return loss, loss.best + normal(g, D), normal(g, D)

    return inputs


def never_above(
    pairs: Callable[[Any], Pairs], *, reached: bool = True
) -> Callable[[Callable], None]:
    """A check: of each pair that `pairs(formula)` gives, the first is not above the second.

    Where `reached`, they are equal in one pair at least, so that a looser bound fails as well.
    """

    def check(formula: Callable) -> None:
        rows = [[float(a), float(b)] for a, b in pairs(formula)]
        table = torch.tensor(rows, dtype=torch.float64)
        slack = (table[:, 1] - table[:, 0]) / (1 + table.abs().sum(1))
        assert slack.min() >= -1e-10, "the bound is broken"
        assert not reached or slack.min() < 1e-9, "the bound is never reached"

    return check


RATES = torch.linspace(-1, 5, 61, dtype=torch.float64) + 0.013  # times 1/L; on no border


# Which way is down, and how far -------------------------------------------------------------------


def rest(loss: Loss, theta: Tensor, v: Tensor) -> Tensor:
    """r(v) of (4.3), by its integral."""
    start = loss.slope(theta)
    return integral(lambda t: (loss.slope(theta + t * v) - start) @ v)


def steepest(step: Callable) -> None:
    """`step` is torch's, and no other step of its length makes the linear part less."""
    g = torch.Generator().manual_seed(0)
    for loss, theta, _ in situations(*EVERY, seeds=2):
        slope = loss.slope(theta)
        v = step(theta, slope, 0.3) - theta
        torch.testing.assert_close(theta + v, loss.step(theta, 0.3))
        others = F.normalize(normal(g, 500, D)) * v.norm()
        assert (others @ slope).min() >= v @ slope - 1e-12


def directions(bounds: Callable) -> Pairs:
    """The lower bound of a product against it, and it against the upper one, both reached."""
    g = torch.Generator().manual_seed(0)
    for a in normal(g, 40, D):
        for b in (normal(g, D), -2 * a, 0.7 * a, torch.zeros_like(a)):
            low, high = bounds(a, b)
            yield low, a @ b
            yield a @ b, high


def rest_bounds(formula: Callable) -> Pairs:
    for loss, theta, v in situations(*EVERY):
        slope = loss.slope(theta)
        middle, right = formula(loss, theta, v, slope)
        r = loss.value(theta + v) - loss.value(theta) - slope @ v
        yield r.abs(), middle
        yield middle, right


def length_of_change(loss: Loss, theta: Tensor, v: Tensor, slope: Tensor) -> Tensor:
    return integral(lambda t: (loss.slope(theta + t * v) - slope).norm())


def parabola(formula: Callable) -> Pairs:
    for loss, theta, v in situations(*EVERY):
        value, slope = loss.value(theta), loss.slope(theta)
        yield loss.value(theta + v), formula(value, slope, v, loss.L)


def one_step(formula: Callable, factors: tuple[float, ...] = (0.3, 1.0, 2.5)) -> Pairs:
    for loss, theta, _ in situations(*EVERY, seeds=2):
        value, squared = loss.value(theta), loss.slope(theta).square().sum()
        for rate in (factor / loss.L for factor in factors):
            yield loss.value(loss.step(theta, rate)), formula(value, squared, rate, loss.L)


def best_step(formula: Callable) -> Pairs:
    """(4.12) with its rate, and its promise against what (4.10) promises at any other rate."""
    for loss, theta, _ in situations(*EVERY, seeds=2):
        value, squared = loss.value(theta), loss.slope(theta).square().sum()
        rate, promise = formula(value, squared, loss.L)
        yield loss.value(loss.step(theta, rate)), promise
        others = RATES / loss.L
        yield promise, (value - others * (1 - others * loss.L / 2) * squared).min() + 1e-3 * squared


def long_walks(formula: Callable) -> Pairs:
    """Least squared gradient of T steps at 1/L; also down a slope that stays as steep for long."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    slide = known(lambda e: log_cosh(e).sum(), zero, one[None])
    cases = [(loss, theta) for loss, theta, _ in situations(*EVERY, seeds=2)]
    for steps in (1, 4, 15):
        for loss, theta in [*cases, (slide, (steps + 1) * one)]:
            path = sgd(loss.value, theta, 1 / loss.L, steps)
            least = min(loss.slope(each).square().sum() for each in path[:-1])
            yield least, formula(loss.L, loss.value(theta), steps)


# Quadratics ---------------------------------------------------------------------------------------


def symmetric(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A matrix whose eigenvalue of the greatest size is negative, and a vector."""
    A = normal(g, D, D)
    return A + A.T - 3 * torch.eye(D, dtype=torch.float64), normal(g, D)


def stretch(H: Tensor, v: Tensor, power: int = 2, size: Callable = torch.abs) -> Tensor:
    lam, q = torch.linalg.eigh(H)
    squared = (lam**power * (q.T @ v) ** 2).sum()
    return torch.stack([squared, squared <= size(lam).max() ** 2 * v.square().sum() + 1e-9])


def quadratic(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """H, the best point, a start, and a rate that may be too large."""
    loss = bowl(g)
    rate = uniform(g, 0.1, 2.5) / loss.L
    return loss.curvature(loss.best), loss.best, normal(g, D), rate


def half_square(H: Tensor, best: Tensor) -> Callable[[Tensor], Tensor]:
    """The page's loss, its double sum written out."""
    return lambda theta: sum(
        (theta[i] - best[i]) * H[i, j] * (theta[j] - best[j]) / 2
        for i, j in itertools.product(range(len(best)), repeat=2)
    )


def coordinates(H: Tensor, best: Tensor, start: Tensor, rate: Tensor) -> Tensor:
    """Along each eigenvector, at each of 30 steps that torch makes."""
    return (sgd(half_square(H, best), start, rate, 30) - best) @ torch.linalg.eigh(H)[1]


def shrinks(
    H: Tensor, best: Tensor, start: Tensor, rate: Tensor, ahead: int = 0, sign: int = 1
) -> Tensor:
    lam, q = torch.linalg.eigh(H)
    power = torch.arange(31)[:, None] + ahead
    return (1 - sign * rate * lam) ** power * ((start - best) @ q)


def comes_home(H: Tensor, best: Tensor, start: Tensor, _: Tensor) -> Tensor:
    """For each of many rates, whether 500 steps bring the start closer."""
    rates = RATES[:, None] / torch.linalg.eigvalsh(H)[-1]
    e = (start - best).expand(len(RATES), -1)
    for _ in range(500):
        e = e - rates * (e @ H)
    return e.norm(dim=1) < (start - best).norm()


def stable(H: Tensor, *_: Tensor, bound: Callable = lambda mu, L: 2 / L) -> Tensor:
    lam = torch.linalg.eigvalsh(H)
    rates = RATES / lam[-1]
    return (rates > 0) & (rates < bound(lam[0], lam[-1]))


def radius(H: Tensor, rate: Tensor) -> Tensor:
    """The greatest size of an eigenvalue of I - rate H, by the general solver."""
    return torch.linalg.eigvals(torch.eye(len(H), dtype=torch.float64) - rate * H).abs().max()


def ends(H: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    """What the least and the greatest curvature are multiplied by."""
    lam = torch.linalg.eigvalsh(H)
    return 1 - rest[-1] * lam[0], 1 - rest[-1] * lam[-1]


def no_rate_is_better(formula: Callable) -> None:
    """The radius at the best rate is as said, and at any other it is greater."""
    for seed in range(10):
        H = quadratic(torch.Generator().manual_seed(seed))[0]
        lam = torch.linalg.eigvalsh(H)
        rate, first, second = formula(lam[0], lam[-1])
        torch.testing.assert_close(torch.stack([first, second]), radius(H, rate).expand(2))
        assert all(radius(H, rate * (1 + off)) > first for off in (-0.3, -1e-4, 1e-4, 0.3))


def shares_left(formula: Callable) -> Pairs:
    for kappa, t in itertools.product((1.0, 1.5, 3.0, 22.0, 1e4), (1, 2, 10, 1000)):
        yield ((kappa - 1) / (kappa + 1)) ** t, formula(kappa, t)


# Convex losses ------------------------------------------------------------------------------------


def tangents(formula: Callable) -> None:
    """Convex losses lie above `formula`, and touch it; a loss that is not convex falls below."""

    def pairs(kinds: tuple) -> Pairs:
        for loss, a, v in situations(*kinds):
            for b in (a, a + v):
                yield formula(loss.value(a), loss.slope(a), a, b), loss.value(b)

    never_above(lambda _: pairs(CONVEX))(formula)
    assert any(low > high + 1e-3 for low, high in pairs((waves,)))


def double_integral(loss: Loss, a: Tensor, v: Tensor, weight: Callable = lambda t: t) -> Tensor:
    def inner(t: Tensor) -> Tensor:
        return integral(lambda s: weight(t) * (v @ loss.curvature(a + s * t * v) @ v))

    return loss.value(a) + loss.slope(a) @ v + integral(inner)


def gaps(formula: Callable) -> Pairs:
    for loss, theta, _ in situations(*CONVEX, seeds=2):
        g, e = loss.slope(theta), theta - loss.best
        for rate in (0.2 / loss.L, 1 / loss.L):
            yield loss.value(loss.step(theta, rate)), formula(g, e, rate)


def convex_step(g: torch.Generator) -> tuple[Loss, Tensor, Tensor]:
    loss = valley(g)
    return loss, loss.best + normal(g, D), uniform(g, 0.1, 1.0) / loss.L


def squares_of_distance(
    loss: Loss, theta: Tensor, rate: Tensor, factor: float = 2.0, sign: int = 1
) -> Tensor:
    before, after = theta - loss.best, loss.step(theta, rate) - loss.best
    right = sign * (before.square().sum() - after.square().sum()) / (factor * rate)
    return torch.stack([right, loss.value(loss.step(theta, rate)) <= right])


def after_many(formula: Callable) -> Pairs:
    """The gap after T steps, for three kinds and for the slowest convex loss of all.

    That one is a parabola near its minimum that goes on as a straight line from 1 / (2T + 1) on
    (Drori and Teboulle 2014).
    """
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for steps in (1, 5, 20):
        worst = known(
            lambda e, bend=1 / (2 * steps + 1): F.huber_loss(e, zero, delta=bend, reduction="sum"),
            zero,
            one[None],
        )
        cases = [(loss, theta) for loss, theta, _ in situations(*CONVEX, seeds=2)]
        for loss, theta in [*cases, (worst, one)]:
            end = sgd(loss.value, theta, 1 / loss.L, steps)[-1]
            far = (theta - loss.best).square().sum()
            yield loss.value(end), formula(far, 1 / loss.L, steps)


def parabola_below(formula: Callable) -> Pairs:
    for loss, a, v in situations(*STRONG):
        yield formula(loss.value(a), loss.slope(a), v, loss.mu), loss.value(a + v)


def long_gradients(formula: Callable) -> Pairs:
    for loss, theta, _ in situations(*STRONG):
        yield formula(loss.mu, loss.value(theta)), loss.slope(theta).square().sum()


def steady(formula: Callable, steps: int = 1) -> Pairs:
    for loss, theta, _ in situations(*STRONG, seeds=2):
        end = sgd(loss.value, theta, 1 / loss.L, steps)[-1]
        yield loss.value(end), formula(loss.mu / loss.L, steps) * loss.value(theta)


# Softmax regression -------------------------------------------------------------------------------

MU = 0.3


def classifier(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Seven examples of five features, three classes; weights and a direction."""
    X, t = normal(g, 7, 5), torch.randint(3, (7,), generator=g)
    return X, t, normal(g, 5, 3), normal(g, 5, 3)


def penalised(X: Tensor, t: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda W: F.cross_entropy(X @ W, t) + MU / 2 * W.square().sum()


def loss_and_slope(
    X: Tensor, t: Tensor, W: Tensor, V: Tensor, n: int = 7, mu: float = MU
) -> Tensor:
    P, Y = (X @ W).softmax(-1), F.one_hot(t, 3).double()
    value = -P[torch.arange(7), t].log().sum() / 7 + MU / 2 * (W**2).sum()
    return torch.cat([value[None], (X.T @ (P - Y) / n + mu * W).flatten()])


def times_hessian(
    X: Tensor, t: Tensor, W: Tensor, V: Tensor, average: float = 1.0, mu: float = MU
) -> Tensor:
    P, U = (X @ W).softmax(-1), X @ V
    return X.T @ (P * (U - average * (P * U).sum(1, keepdim=True))) / 7 + mu * V


def variances(X: Tensor, t: Tensor, W: Tensor, V: Tensor, power: int = 2, mu: float = MU) -> Tensor:
    P, U = (X @ W).softmax(-1), X @ V
    bracket = (P * U**2).sum(1) - (P * U).sum(1) ** power
    return bracket.sum() / 7 + mu * V.square().sum()


def full_hessian(X: Tensor, t: Tensor, W: Tensor) -> Tensor:
    size = W.numel()
    return hessian(penalised(X, t))(W).reshape(size, size)


def curvatures(formula: Callable) -> Pairs:
    """The greatest eigenvalue at many weights; with two classes and no weights it is the bound."""
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        X, t, _, _ = classifier(g)
        top = torch.linalg.eigvalsh(X.T @ X / 7)[-1]
        for W in (normal(g, 5, 3), 5 * normal(g, 5, 3), torch.zeros(5, 2, dtype=torch.float64)):
            H = full_hessian(X, t.clamp(max=W.shape[1] - 1), W)
            yield torch.linalg.eigvalsh(H)[-1], formula(top, 7)


def powers(H: Tensor, v: Tensor, t: int = 6, lead: int = 6) -> Tensor:
    lam, q = torch.linalg.eigh(H)
    order = lam.abs().argsort(descending=True)
    lam, c, q = lam[order], (q.T @ v)[order], q[:, order]
    others = ((lam[1:] / lam[0]) ** t * c[1:] * q[:, 1:]).sum(1)
    return lam[0] ** lead * (c[0] * q[:, 0] + others)


# Mini-batches -------------------------------------------------------------------------------------

N, B = 5, 3


def examples(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features and targets of five examples, and a place."""
    return normal(g, N, D), normal(g, N), normal(g, D)


def mean_loss(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda theta: log_cosh(x @ theta - y).mean()


def slopes(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    """One gradient for each example, (N, D), by hand: tanh is the derivative of log cosh."""
    return (x @ theta - y).tanh()[:, None] * x


def every_batch(replacement: bool) -> list[list[int]]:
    if replacement:
        return [list(rows) for rows in itertools.product(range(N), repeat=B)]
    return [list(rows) for rows in itertools.permutations(range(N), B)]


def mean_error(x: Tensor, y: Tensor, theta: Tensor, replacement: bool) -> Tensor:
    """The mean of |batch gradient - gradient|² over every batch that can be drawn."""
    whole = grad(mean_loss(x, y))(theta)
    found = [grad(mean_loss(x[rows], y[rows]))(theta) for rows in every_batch(replacement)]
    return torch.stack([(each - whole).square().sum() for each in found]).mean()


def spread(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    return torch.var(slopes(x, y, theta), dim=0, correction=0).sum()


def products(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    """The mean product of deviations over ordered pairs of different examples."""
    delta = slopes(x, y, theta) - slopes(x, y, theta).mean(0)
    return torch.stack([delta[i] @ delta[j] for i, j in itertools.permutations(range(N), 2)]).mean()


def noisy_steps(formula: Callable) -> Pairs:
    """The mean loss after a step over every batch of two; a round bowl reaches the bound."""
    g = torch.Generator().manual_seed(0)
    for H in (3 * torch.eye(D, dtype=torch.float64), bowl(g).curvature(torch.zeros(D).double())):
        centres, L = normal(g, 4, D), torch.linalg.eigvalsh(H)[-1]

        def loss(theta: Tensor, c: Tensor = centres, H: Tensor = H) -> Tensor:
            return ((theta - c) @ H * (theta - c)).sum(-1).mean() / 2

        for theta, factor in itertools.product(normal(g, 3, D), (0.3, 1.0, 1.9)):
            rate, slope = factor / L, grad(loss)(theta)
            found = [
                grad(loss)(theta, centres[list(rows)])
                for rows in itertools.product(range(4), repeat=2)
            ]
            after = torch.stack([loss(theta - rate * each) for each in found]).mean()
            V = torch.stack([(each - slope).square().sum() for each in found]).mean()
            yield after, formula(loss(theta), slope.square().sum(), rate, L, V)


def noisy_direction(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six equally likely coordinates, six equally likely deviations of mean 0, λ and a rate."""
    xi, lam = normal(g, 6), normal(g).exp()
    return normal(g, 6), xi - xi.mean(), lam, uniform(g, 0.1, 1.9) / lam


def second_moment(
    c: Tensor, xi: Tensor, lam: Tensor, rate: Tensor, sign: int = -1, power: int = 2
) -> Tensor:
    next_one = (1 - rate * lam) * c[0] + sign * rate * xi[0]
    moment = (1 - rate * lam) ** 2 * c.square().mean() + rate**power * xi.square().mean()
    return torch.stack([next_one, moment])


def simulated_moment(c: Tensor, xi: Tensor, lam: Tensor, rate: Tensor) -> Tensor:
    """Every coordinate with every deviation, one step each."""
    after = c[:, None] - rate * (lam * c[:, None] + xi)
    return torch.stack([after[0, 0], after.square().mean()])


def noisy_bowl(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """H, the covariance of the gradient's noise, and a stable rate."""
    H, A = quadratic(g)[0], normal(g, D, D)
    return H, A @ A.T, uniform(g, 0.1, 1.9) / torch.linalg.eigvalsh(H)[-1]


def stationary(H: Tensor, noise: Tensor, rate: Tensor) -> Tensor:
    """The covariance that a noisy step leaves as it is: Lyapunov's equation, by scipy."""
    step = torch.eye(D, dtype=torch.float64) - rate * H
    return torch.from_numpy(solve_discrete_lyapunov(step.numpy(), (rate**2 * noise).numpy()))


def along(H: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues of H, and a covariance's share in the direction of each eigenvector."""
    lam, q = torch.linalg.eigh(H)
    return lam, (q.T @ covariance @ q).diagonal()


def rests_at(H: Tensor, noise: Tensor, rate: Tensor, sign: int = 1, power: int = 1) -> Tensor:
    lam, V = along(H, noise)
    return rate * V / (lam**power * (2 - sign * rate * lam))


def floor(
    H: Tensor, noise: Tensor, rate: Tensor, half: float = 2, low: float = 4, rooms: float = 1
) -> Tensor:
    lam, V = along(H, noise)
    level = (rate * V / (half * (2 - rate * lam))).sum()
    high = rate * V.sum() / (2 * (2 - rooms * rate * lam[-1]))
    return torch.stack([level, rate * V.sum() / low <= level, level <= high])


# Backpropagation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """A computation of nine numbers: three are given, each later one has two parents."""

    parents: list[tuple[int, int]]
    weights: Tensor
    given: Tensor

    def step(self, k: int, v: Tensor) -> Tensor:
        """φ of value number `k` (from 0), from the values before it."""
        a, b = (v[p] for p in self.parents[k])
        return (self.weights[k, 0] * a + self.weights[k, 1] * b).sin() + a * b

    def loss(self, v: Tensor) -> Tensor:
        """F_k: the last value, from the first k as they are given."""
        while len(v) < len(self.parents):
            v = torch.cat([v, self.step(len(v), v)[None]])
        return v[-1]

    def values(self) -> Tensor:
        v = self.given
        while len(v) < len(self.parents):
            v = torch.cat([v, self.step(len(v), v)[None]])
        return v


def program(g: torch.Generator) -> tuple[Program]:
    parents = [(0, 0)] * 3
    for k in range(3, 9):  # the value just before, and any other
        parents.append((k - 1, int(torch.randint(k - 1, (), generator=g))))
    return (Program(parents, normal(g, 9, 2), normal(g, 3)),)


def each_k(one: Callable[[Program, int, Tensor], Tensor]) -> Callable[[Program], Tensor]:
    """`one` for k = 4, ..., 9, with first k - 1 values that need not fit together."""

    def all_of_them(p: Program) -> Tensor:
        v = p.weights.flatten()
        return torch.cat([one(p, k, v[: k - 1]).reshape(-1) for k in range(4, 10)])

    return all_of_them


def two_ways(direct: float = 1.0, through: float = 1.0) -> Callable[[Program], Tensor]:
    def one(p: Program, k: int, v: Tensor) -> Tensor:
        slope = grad(p.loss)(torch.cat([v, p.step(k - 1, v)[None]]))
        return direct * slope[:-1] + through * slope[-1] * grad(lambda u: p.step(k - 1, u))(v)

    return each_k(one)


def backpropagated(p: Program, keep: float = 1.0, handed: Callable = torch.mul) -> Tensor:
    """(4.50) as an algorithm; `keep` is the share of what was received before that stays."""
    v = p.values()
    bars = torch.zeros_like(v)
    bars[-1] = 1
    for k in range(8, 2, -1):
        local = grad(lambda u, k=k: p.step(k, u))(v[:k])
        for parent in set(p.parents[k]):
            bars[parent] = keep * bars[parent] + handed(bars[k], local[parent])
    return bars


def how_the_loss_answers(p: Program) -> Tensor:
    v = p.values()
    return torch.stack([grad(p.loss)(v[: max(i + 1, 3)])[i] for i in range(9)])


def pulled(function: Callable, n_inputs: int) -> Callable[..., Tensor]:
    """Autograd's shares of the inputs, one after the other, of the last argument."""

    def oracle(*args: Tensor) -> Tensor:
        shares = vjp(lambda *a: function(*a, *args[n_inputs:-1]), *args[:n_inputs])[1](args[-1])
        return torch.cat([share.flatten() for share in shares])

    return oracle


def matrices(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    return normal(g, 3, 3), normal(g, 3, 3), normal(g, 3, 3)


def flat(*parts: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


# Differences --------------------------------------------------------------------------------------


def differences(formula: Callable) -> Pairs:
    """The true error of a central difference; x and x ± h have no rounding of their own."""
    functions: list[tuple[Callable, Callable, Callable]] = [
        (lambda x: x**3, lambda x: 3 * x**2, lambda x, h: 6.0),
        (np.sin, np.cos, lambda x, h: 1.0),
        (np.exp, np.exp, lambda x, h: math.exp(x + h)),
        (np.tanh, lambda x: 1 - np.tanh(x) ** 2, lambda x, h: 2.0),
    ]
    for f, slope, third in functions:
        for x, power in itertools.product((-0.75, 0.375, 1.25), (-1, 1, 4, 10, 17, 25, 35, 40)):
            h = 2.0**-power
            error = abs((f(x + h) - f(x - h)) / (2 * h) - slope(x))
            size = max(abs(f(x + h)), abs(f(x - h)))
            yield error, formula(h, third(x, h), size) + EPSILON * abs(slope(x))


def best_difference(size: Tensor, M: Tensor) -> Tensor:
    """Where the derivative of the bound (4.56) by h is 0, by bisection."""

    def slope(log_h: float) -> float:
        h = torch.tensor(log_h, dtype=torch.float64).exp()
        return float(h * grad(lambda h: M * h**2 / 6 + EPSILON * size / h)(h)) * 1e9

    return torch.tensor(brentq(slope, -25, 0, xtol=1e-14), dtype=torch.float64).exp()


# The two mistakes ---------------------------------------------------------------------------------


def line(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x with a positive mean, y, θ and a rate."""
    x = normal(g, N).exp()
    return x, 2 * x + normal(g, N), normal(g), uniform(g, 0.01, 0.3)


def after_article(x: Tensor, y: Tensor, theta: Tensor, rate: Tensor) -> Tensor:
    """The mean error after torch's step with the article's derivative, and 1 for the inequality."""
    parameter = theta.clone().requires_grad_()
    parameter.grad = (2 * (y - theta * x)).mean()
    torch.optim.SGD([parameter], lr=float(rate)).step()
    return torch.stack([(y - parameter.detach() * x).mean(), torch.ones(()).double()])


def article(x: Tensor, y: Tensor, theta: Tensor, rate: Tensor, sign: int = 1) -> Tensor:
    error = (y - theta * x).mean()
    not_below = (y - theta * x).square().mean() >= error**2
    return torch.stack([(1 + sign * 2 * rate * x.mean()) * error, not_below])


def right_step(
    x: Tensor, y: Tensor, theta: Tensor, _: Tensor, double: float = 2.0, most: float = 1.0
) -> Tensor:
    s = x.square().mean()
    best, rates = (x * y).mean() / s, RATES / s
    return torch.cat([(1 - double * rates * s) * (theta - best), (rates > 0) & (rates < most / s)])


def torch_step(x: Tensor, y: Tensor, theta: Tensor, _: Tensor) -> Tensor:
    def loss(each: Tensor) -> Tensor:
        return (y - each * x).square().mean()

    best = torch.linalg.lstsq(x[:, None], y[:, None]).solution[0, 0]
    after = theta - RATES / x.square().mean() * grad(loss)(theta)
    return torch.cat([after - best, vmap(loss)(after) < loss(theta)])


def one_direction(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """λ and a rate below 4/λ."""
    lam = normal(g).exp()
    return lam, uniform(g, 0.05, 3.9) / lam


def remembered(lam: Tensor, rate: Tensor, two: float = 2.0, sign: int = -1) -> Tensor:
    c = [torch.ones(()).double(), 1 - rate * lam]
    for _ in range(29):
        c.append((two - rate * lam) * c[-1] + sign * c[-2])
    return torch.stack(c)


def roots(lam: Tensor, rate: Tensor, sign: int = 1, half: float = 2.0) -> Tensor:
    a = rate * lam
    real, imaginary = (2 - a) / half, (a * (4 - sign * a)).sqrt() / half
    pair = torch.stack([torch.complex(real, -imaginary), torch.complex(real, imaginary)])
    return torch.cat([torch.view_as_real(pair).flatten(), pair.abs()])


def numpy_roots(lam: Tensor, rate: Tensor) -> Tensor:
    pair = torch.from_numpy(np.roots([1, -(2 - float(rate * lam)), 1]))
    pair = pair[pair.imag.argsort()]
    return torch.cat([torch.view_as_real(pair).flatten(), torch.ones(2).double()])


LEDGER = {
    "4.1": Formula(
        situation(waves),
        lambda loss, theta, v: (loss.slope(theta + 0.3 * v) * v).sum(),
        lambda loss, theta, v: grad(lambda t: loss.value(theta + t * v))(ZERO + 0.3),
        {
            "slope at the start": lambda loss, theta, v: loss.slope(theta) @ v,
            "inner derivative lost": lambda loss, theta, v: loss.slope(theta + 0.3 * v).sum(),
        },
    ),
    "4.2": Formula(
        situation(waves),
        lambda loss, theta, v: (
            loss.value(theta) + integral(lambda t: loss.slope(theta + t * v) @ v)
        ),
        lambda loss, theta, v: loss.value(theta + v),
        {
            "slope at the start": lambda loss, theta, v: loss.value(theta) + loss.slope(theta) @ v,
            "start forgotten": lambda loss, theta, v: integral(
                lambda t: loss.slope(theta + t * v) @ v
            ),
        },
    ),
    "4.3": Formula(
        situation(waves),
        lambda loss, theta, v: loss.value(theta) + loss.slope(theta) @ v + rest(loss, theta, v),
        lambda loss, theta, v: loss.value(theta + v),
        {
            "no rest": lambda loss, theta, v: loss.value(theta) + loss.slope(theta) @ v,
            "slope at the end": lambda loss, theta, v: (
                loss.value(theta) + loss.slope(theta + v) @ v + rest(loss, theta, v)
            ),
        },
    ),
    "4.4": Formula(
        lambda g: (normal(g, D), normal(g, D)),
        lambda a, b: 2 * a.norm() ** 2 * b.norm() ** 2 + 2 * a.norm() * b.norm() * (a @ b),
        lambda a, b: (b.norm() * a + a.norm() * b).square().sum(),
        {
            "minus": lambda a, b: (
                2 * a.norm() ** 2 * b.norm() ** 2 - 2 * a.norm() * b.norm() * (a @ b)
            ),
            "mixed term once": lambda a, b: (
                2 * a.norm() ** 2 * b.norm() ** 2 + a.norm() * b.norm() * (a @ b)
            ),
        },
    ),
    "4.5": Property(
        never_above(directions),
        lambda a, b: (-a.norm() * b.norm(), a.norm() * b.norm()),
        {
            "too tight": lambda a, b: (-0.99 * a.norm() * b.norm(), a.norm() * b.norm()),
            "never negative": lambda a, b: (torch.zeros(()), a.norm() * b.norm()),
            "greatest entry": lambda a, b: (-a.norm() * b.abs().max(), a.norm() * b.abs().max()),
        },
    ),
    "4.6": Property(
        steepest,
        lambda theta, slope, rate: theta - rate * slope,
        {
            "sign": lambda theta, slope, rate: theta + rate * slope,
            "of length one": lambda theta, slope, rate: theta - rate * F.normalize(slope, dim=0),
            "signs only": lambda theta, slope, rate: theta - rate * slope.sign(),
        },
    ),
    "4.7": Property(
        never_above(
            lambda formula: (
                ((loss.slope(a) - loss.slope(a + v)).norm(), formula(loss.L, a, a + v))
                for loss, a, v in situations(*EVERY)
            )
        ),
        lambda L, a, b: L * (a - b).norm(),
        {
            "too tight": lambda L, a, b: 0.95 * L * (a - b).norm(),
            "largest entry": lambda L, a, b: L * (a - b).abs().max(),
        },
    ),
    "4.8": Property(
        never_above(rest_bounds),
        lambda loss, theta, v, slope: (
            length_of_change(loss, theta, v, slope) * v.norm(),
            loss.L / 2 * v.square().sum(),
        ),
        {
            "too tight": lambda loss, theta, v, slope: (
                length_of_change(loss, theta, v, slope) * v.norm(),
                0.45 * loss.L * v.square().sum(),
            ),
            "length of v lost": lambda loss, theta, v, slope: (
                length_of_change(loss, theta, v, slope),
                loss.L / 2 * v.square().sum(),
            ),
        },
    ),
    "4.9": Property(
        never_above(parabola),
        lambda value, slope, v, L: value + slope @ v + L / 2 * v @ v,
        {
            "too tight": lambda value, slope, v, L: value + slope @ v + 0.45 * L * v @ v,
            "sign": lambda value, slope, v, L: value - slope @ v + L / 2 * v @ v,
        },
    ),
    "4.10": Property(
        never_above(one_step),
        lambda value, squared, rate, L: value - rate * (1 - rate * L / 2) * squared,
        {
            "too tight": lambda value, squared, rate, L: (
                value - rate * (1 - 0.45 * rate * L) * squared
            ),
            "rate lost": lambda value, squared, rate, L: value - (1 - rate * L / 2) * squared,
            "sign": lambda value, squared, rate, L: value + rate * (1 - rate * L / 2) * squared,
        },
    ),
    "4.11": Formula(
        lambda g: (normal(g).exp(),),
        lambda L: torch.stack(
            [
                RATES / L * (1 - RATES / L * L / 2) > 0,
                (RATES / L > 0) & (RATES / L < 2 / L),
            ]
        ),
        lambda L: ((1 - RATES / L * L).square() * L / 2 < L / 2).expand(2, -1),
        {
            "half the range": lambda L: ((RATES > 0) & (RATES < 1)).expand(2, -1),
            "twice the range": lambda L: ((RATES > 0) & (RATES < 4)).expand(2, -1),
            "negative rates": lambda L: (RATES < 2).expand(2, -1),
        },
    ),
    "4.12": Property(
        never_above(best_step),
        lambda value, squared, L: (1 / L, value - squared / (2 * L)),
        {
            "half lost": lambda value, squared, L: (1 / L, value - squared / L),
            "at the edge": lambda value, squared, L: (2 / L, value - squared / (2 * L)),
            "half the rate": lambda value, squared, L: (0.5 / L, value - 3 * squared / (8 * L)),
        },
    ),
    "4.13": Property(
        never_above(long_walks),
        lambda L, gap, T: 2 * L * gap / T,
        {
            "half": lambda L, gap, T: L * gap / T,
            "square of T": lambda L, gap, T: 2 * L * gap / T**2,
        },
    ),
    "4.14": Formula(
        situation(waves),
        lambda loss, theta, v: integral(lambda t: loss.curvature(theta + t * v) @ v),
        lambda loss, theta, v: loss.slope(theta + v) - loss.slope(theta),
        {
            "curvature at the start": lambda loss, theta, v: loss.curvature(theta) @ v,
            "half": lambda loss, theta, v: integral(
                lambda t: t * loss.curvature(theta + t * v) @ v
            ),
        },
    ),
    "4.15": Formula(
        symmetric,
        stretch,
        lambda H, v: torch.stack([(H @ v).square().sum(), torch.ones(()).double()]),
        {
            "not squared": lambda H, v: stretch(H, v, power=1),
            "greatest, not greatest in size": lambda H, v: stretch(H, v, size=lambda lam: lam),
        },
    ),
    "4.16": Formula(
        situation(waves),
        lambda loss, theta, v: torch.stack(
            [
                v @ loss.curvature(theta) @ v,
                stretch(loss.curvature(theta), v, power=1)[0],
            ]
        ),
        lambda loss, theta, v: hessian(lambda t: loss.value(theta + t * v))(ZERO).expand(2),
        {
            "eigenvalues squared": lambda loss, theta, v: stretch(loss.curvature(theta), v)[
                :1
            ].expand(2),
            "length of Hv": lambda loss, theta, v: (loss.curvature(theta) @ v).norm().expand(2),
        },
    ),
    "4.17": Formula(
        quadratic,
        lambda H, best, theta, rate: H @ (theta - best),
        lambda H, best, theta, rate: grad(half_square(H, best))(theta),
        {
            "half lost": lambda H, best, theta, rate: 2 * H @ (theta - best),
            "not from the best": lambda H, best, theta, rate: H @ theta,
        },
    ),
    "4.18": Formula(
        quadratic,
        lambda H, best, theta, rate: (torch.eye(D) - rate * H) @ (theta - best),
        lambda H, best, theta, rate: sgd(half_square(H, best), theta, rate)[-1] - best,
        {
            "plus": lambda H, best, theta, rate: (torch.eye(D) + rate * H) @ (theta - best),
            "rate lost": lambda H, best, theta, rate: (torch.eye(D) - H) @ (theta - best),
        },
    ),
    "4.19": Formula(
        quadratic,
        shrinks,
        coordinates,
        {
            "plus": lambda *args: shrinks(*args, sign=-1),
            "one step ahead": lambda *args: shrinks(*args, ahead=1),
        },
    ),
    "4.20": Formula(
        quadratic,
        stable,
        comes_home,
        {
            "by the least curvature": lambda *args: stable(*args, bound=lambda mu, L: 2 / mu),
            "half the range": lambda *args: stable(*args, bound=lambda mu, L: 1 / L),
            "a little too wide": lambda *args: stable(*args, bound=lambda mu, L: 2.1 / L),
        },
    ),
    "4.21": Formula(
        quadratic,
        lambda *args: torch.stack(ends(*args)).abs().max(),
        lambda H, best, theta, rate: radius(H, rate),
        {
            "least curvature only": lambda *args: ends(*args)[0].abs(),
            "greatest curvature only": lambda *args: ends(*args)[1].abs(),
            "without sizes": lambda *args: torch.stack(ends(*args)).max(),
        },
    ),
    "4.22": Property(
        no_rate_is_better,
        lambda mu, L: (2 / (L + mu), (L - mu) / (L + mu), (L / mu - 1) / (L / mu + 1)),
        {
            "safe but slower": lambda mu, L: (1 / L, 1 - mu / L, (L / mu - 1) / (L / mu)),
            "at the edge": lambda mu, L: (2 / L, torch.ones(()).double(), torch.ones(()).double()),
            "kappa upside down": lambda mu, L: (
                2 / (L + mu),
                (L - mu) / (L + mu),
                (mu / L - 1) / (mu / L + 1),
            ),
        },
    ),
    "4.23": Property(
        never_above(shares_left),
        lambda kappa, t: math.exp(-2 * t / (kappa + 1)),
        {
            "minus 1": lambda kappa, t: math.exp(-2 * t / max(kappa - 1, 1e-3)),
            "twice as fast": lambda kappa, t: math.exp(-4 * t / (kappa + 1)),
        },
    ),
    "4.24": Property(
        tangents,
        lambda value, slope, a, b: value + slope @ (b - a),
        {
            "sign": lambda value, slope, a, b: value - slope @ (b - a),
            "twice as steep": lambda value, slope, a, b: value + 2 * slope @ (b - a),
            "level": lambda value, slope, a, b: value,
        },
    ),
    "4.25": Formula(
        situation(waves),
        double_integral,
        lambda loss, a, v: loss.value(a + v),
        {
            "t lost": lambda *args: double_integral(*args, weight=lambda t: 1.0),
            "t squared": lambda *args: double_integral(*args, weight=lambda t: t**2),
            "as a quadratic": lambda loss, a, v: (
                loss.value(a) + loss.slope(a) @ v + v @ loss.curvature(a) @ v / 2
            ),
        },
    ),
    "4.26": Property(
        never_above(gaps, reached=False),
        lambda g, e, rate: g @ e - rate / 2 * g @ g,
        {
            "too tight": lambda g, e, rate: g @ e - 1.1 * rate * g @ g,
            "sign": lambda g, e, rate: -g @ e - rate / 2 * g @ g,
        },
    ),
    "4.27": Formula(
        convex_step,
        squares_of_distance,
        lambda loss, theta, rate: torch.stack(
            [
                loss.slope(theta) @ (theta - loss.best)
                - rate / 2 * loss.slope(theta).square().sum(),
                torch.ones(()).double(),
            ]
        ),
        {
            "half lost": lambda *args: squares_of_distance(*args, factor=1),
            "exchanged": lambda *args: squares_of_distance(*args, sign=-1),
        },
    ),
    "4.28": Property(
        never_above(after_many, reached=False),
        lambda far, rate, T: far / (2 * rate * T),
        {
            "too tight": lambda far, rate, T: far / (5 * rate * T),
            "square of T": lambda far, rate, T: far / (2 * rate * T**2),
        },
    ),
    "4.29": Property(
        never_above(parabola_below),
        lambda value, slope, v, mu: value + slope @ v + mu / 2 * v @ v,
        {
            "too tight": lambda value, slope, v, mu: value + slope @ v + 0.55 * mu * v @ v,
            "half lost": lambda value, slope, v, mu: value + slope @ v + mu * v @ v,
            "a tangent only": lambda value, slope, v, mu: value + slope @ v - 0.1,
        },
    ),
    "4.30": Property(
        never_above(long_gradients),
        lambda mu, gap: 2 * mu * gap,
        {
            "too tight": lambda mu, gap: 2.1 * mu * gap,
            "half": lambda mu, gap: mu * gap,
        },
    ),
    "4.31": Property(
        never_above(steady, reached=False),
        lambda ratio, steps: 1 - ratio,
        {
            "too tight": lambda ratio, steps: 1 - 2 * ratio,
            "cubed": lambda ratio, steps: (1 - ratio) ** 3,
        },
    ),
    "4.32": Property(
        never_above(lambda formula: steady(formula, steps=12), reached=False),
        lambda ratio, steps: (1 - ratio) ** steps,
        {
            "too tight": lambda ratio, steps: (1 - 2 * ratio).clamp(min=0) ** steps,
            "three times the steps": lambda ratio, steps: (1 - ratio) ** (3 * steps),
        },
    ),
    "4.33": Formula(
        classifier,
        loss_and_slope,
        lambda X, t, W, V: torch.cat(
            [penalised(X, t)(W)[None], grad(penalised(X, t))(W).flatten()]
        ),
        {
            "penalty lost": lambda *args: loss_and_slope(*args, mu=0.0),
            "penalty doubled": lambda *args: loss_and_slope(*args, mu=2 * MU),
            "not divided by n": lambda *args: loss_and_slope(*args, n=1),
        },
    ),
    "4.34": Formula(
        classifier,
        times_hessian,
        lambda X, t, W, V: jacrev(lambda s: grad(penalised(X, t))(W + s * V))(ZERO),
        {
            "average lost": lambda *args: times_hessian(*args, average=0.0),
            "penalty lost": lambda *args: times_hessian(*args, mu=0.0),
        },
    ),
    "4.35": Formula(
        classifier,
        variances,
        lambda X, t, W, V: V.flatten() @ full_hessian(X, t, W) @ V.flatten(),
        {
            "mean not squared": lambda *args: variances(*args, power=1),
            "half the penalty": lambda *args: variances(*args, mu=MU / 2),
        },
    ),
    "4.36": Property(
        never_above(curvatures),
        lambda top, n: top / 2 + MU,
        {
            "too tight": lambda top, n: 0.45 * top + MU,
            "penalty lost": lambda top, n: top / 2,
            "not divided by n": lambda top, n: n * top / 2 + MU,
        },
    ),
    "4.37": Formula(
        symmetric,
        powers,
        lambda H, v: torch.linalg.matrix_power(H, 6) @ v,
        {
            "a power too few": lambda H, v: powers(H, v, lead=5),
            "one power for all": lambda H, v: powers(H, v, t=1),
        },
    ),
    "4.38": Formula(
        examples,
        lambda x, y, theta: torch.stack(
            [slopes(x, y, theta).mean(0), slopes(x, y, theta)[[1, 3, 1]].mean(0)]
        ),
        lambda x, y, theta: torch.stack(
            [grad(mean_loss(x[rows], y[rows]))(theta) for rows in (slice(None), [1, 3, 1])]
        ),
        {
            "batch divided by n": lambda x, y, theta: torch.stack(
                [slopes(x, y, theta).mean(0), slopes(x, y, theta)[[1, 3, 1]].sum(0) / N]
            ),
            "each example once": lambda x, y, theta: torch.stack(
                [slopes(x, y, theta).mean(0), slopes(x, y, theta)[[1, 3]].mean(0)]
            ),
        },
    ),
    "4.39": Formula(
        examples,
        lambda x, y, theta: grad(mean_loss(x, y))(theta),
        lambda x, y, theta: torch.stack(
            [slopes(x, y, theta)[rows].mean(0) for rows in every_batch(True)]
        ).mean(0),
        {
            "of the sum": lambda x, y, theta: N * grad(mean_loss(x, y))(theta),
            "smaller by B/n": lambda x, y, theta: B / N * grad(mean_loss(x, y))(theta),
        },
    ),
    "4.40": Formula(
        examples,
        lambda x, y, theta: (slopes(x, y, theta) - slopes(x, y, theta).mean(0)).square().sum() / N,
        spread,
        {
            "n - 1": lambda x, y, theta: torch.var(slopes(x, y, theta), dim=0).sum(),
            "not from the mean": lambda x, y, theta: slopes(x, y, theta).square().sum() / N,
        },
    ),
    "4.41": Formula(
        examples,
        lambda x, y, theta: spread(x, y, theta) / B,
        lambda x, y, theta: mean_error(x, y, theta, replacement=True),
        {
            "square of B": lambda x, y, theta: spread(x, y, theta) / B**2,
            "as without replacement": lambda x, y, theta: (
                spread(x, y, theta) / B * (N - B) / (N - 1)
            ),
        },
    ),
    "4.42": Formula(
        examples,
        lambda x, y, theta: -spread(x, y, theta) / (N - 1),
        products,
        {
            "sign": lambda x, y, theta: spread(x, y, theta) / (N - 1),
            "n": lambda x, y, theta: -spread(x, y, theta) / N,
            "independent": lambda x, y, theta: torch.zeros(()),
        },
    ),
    "4.43": Formula(
        examples,
        lambda x, y, theta: torch.stack(
            [
                spread(x, y, theta) / B * (1 - (B - 1) / (N - 1)),
                spread(x, y, theta) / B * (N - B) / (N - 1),
            ]
        ),
        lambda x, y, theta: mean_error(x, y, theta, replacement=False).expand(2),
        {
            "n below": lambda x, y, theta: (spread(x, y, theta) / B * (N - B) / N).expand(2),
            "as with replacement": lambda x, y, theta: (spread(x, y, theta) / B).expand(2),
        },
    ),
    "4.44": Property(
        never_above(noisy_steps),
        lambda value, squared, rate, L, V: (
            value - rate * (1 - rate * L / 2) * squared + rate**2 * L / 2 * V
        ),
        {
            "noise forgotten": lambda value, squared, rate, L, V: (
                value - rate * (1 - rate * L / 2) * squared
            ),
            "noise too small": lambda value, squared, rate, L, V: (
                value - rate * (1 - rate * L / 2) * squared + 0.45 * rate**2 * L * V
            ),
            "noise of the rate, not its square": lambda value, squared, rate, L, V: (
                value - rate * (1 - rate * L / 2) * squared + 0.1 * rate * L / 2 * V
            ),
        },
    ),
    "4.45": Formula(
        noisy_direction,
        second_moment,
        simulated_moment,
        {
            "sign of the noise": lambda *args: second_moment(*args, sign=1),
            "rate not squared": lambda *args: second_moment(*args, power=1),
        },
    ),
    "4.46": Formula(
        noisy_bowl,
        rests_at,
        lambda H, noise, rate: along(H, stationary(H, noise, rate))[1],
        {
            "plus": lambda *args: rests_at(*args, sign=-1),
            "as if the rate were small": lambda *args: rests_at(*args, sign=0),
            "curvature lost": lambda *args: rests_at(*args, power=0),
        },
    ),
    "4.47": Formula(
        noisy_bowl,
        floor,
        lambda H, noise, rate: torch.stack(
            [
                (H @ stationary(H, noise, rate)).trace() / 2,
                torch.ones(()).double(),
                torch.ones(()).double(),
            ]
        ),
        {
            "half lost": lambda *args: floor(*args, half=1),
            "lower bound too tight": lambda *args: floor(*args, low=2),
            "upper bound too tight": lambda *args: floor(*args, rooms=0),
        },
    ),
    "4.48": Formula(
        program,
        each_k(lambda p, k, v: p.loss(torch.cat([v, p.step(k - 1, v)[None]]))),
        each_k(lambda p, k, v: p.loss(v)),
        {
            "the value before again": each_k(lambda p, k, v: p.loss(torch.cat([v, v[-1:]]))),
            "nothing": each_k(lambda p, k, v: p.loss(torch.cat([v, torch.zeros(1)]))),
        },
    ),
    "4.49": Formula(
        program,
        two_ways(),
        each_k(lambda p, k, v: grad(p.loss)(v)),
        {
            "not directly": two_ways(direct=0),
            "not through": two_ways(through=0),
            "difference": two_ways(through=-1),
        },
    ),
    "4.50": Formula(
        program,
        backpropagated,
        how_the_loss_answers,
        {
            "= for +=": lambda p: backpropagated(p, keep=0),
            "local derivative lost": lambda p: backpropagated(p, handed=lambda bar, local: bar),
            "sum for product": lambda p: backpropagated(p, handed=torch.add),
        },
    ),
    "4.51": Formula(
        matrices,
        lambda A, B, C: flat(C @ B.T, A.T @ C),
        pulled(torch.matmul, 2),
        {
            "transposes lost": lambda A, B, C: flat(C @ B, A @ C),
            "order exchanged": lambda A, B, C: flat(B.T @ C, C @ A.T),
        },
    ),
    "4.52": Formula(
        lambda g: (normal(g, 3, 3), normal(g, 3), normal(g, 3, 3)),
        lambda A, b, C: flat(C, C.sum(0)),
        pulled(torch.add, 2),
        {
            "sum over columns": lambda A, b, C: flat(C, C.sum(1)),
            "mean": lambda A, b, C: flat(C, C.mean(0)),
        },
    ),
    "4.53": Formula(
        lambda g: (normal(g, 3, 3), normal(g, 3, 3)),
        lambda A, C: flat(C * (1 - A.tanh() ** 2)),
        pulled(torch.tanh, 1),
        {
            "of the input": lambda A, C: flat(C * (1 - A**2)),
            "not squared": lambda A, C: flat(C * (1 - A.tanh())),
        },
    ),
    "4.54": Formula(
        lambda g: (normal(g, 4, 3), torch.randint(3, (4,), generator=g), normal(g)),
        lambda Z, t, bar: flat(bar * (Z.softmax(-1) - F.one_hot(t, 3)) / 4),
        pulled(F.cross_entropy, 1),
        {
            "not divided by n": lambda Z, t, bar: flat(bar * (Z.softmax(-1) - F.one_hot(t, 3))),
            "sign": lambda Z, t, bar: flat(bar * (F.one_hot(t, 3) - Z.softmax(-1)) / 4),
            "upstream lost": lambda Z, t, bar: flat((Z.softmax(-1) - F.one_hot(t, 3)) / 4),
        },
    ),
    "4.55": Formula(
        lambda g: (normal(g), normal(g, 3, 3), normal(g)),
        lambda c, W, bar: flat(bar, bar * MU * W),
        pulled(lambda c, W: c + MU / 2 * torch.linalg.norm(W) ** 2, 2),
        {
            "half lost": lambda c, W, bar: flat(bar, 2 * bar * MU * W),
            "upstream lost": lambda c, W, bar: flat(bar, MU * W),
        },
    ),
    "4.56": Property(
        never_above(differences),
        lambda h, M, size: M * h**2 / 6 + EPSILON * size / h,
        {
            "too tight": lambda h, M, size: 0.95 * M * h**2 / 6 + EPSILON * size / h,
            "h not squared": lambda h, M, size: M * h / 6 + EPSILON * size / h,
            "rounding forgotten": lambda h, M, size: M * h**2 / 6,
        },
    ),
    "4.57": Formula(
        lambda g: (normal(g).exp(), normal(g).exp()),
        lambda size, M: (3 * EPSILON * size / M) ** (1 / 3),
        best_difference,
        {
            "square root": lambda size, M: (3 * EPSILON * size / M) ** 0.5,
            "factor 3 lost": lambda size, M: (EPSILON * size / M) ** (1 / 3),
            "upside down": lambda size, M: (3 * EPSILON * M / size) ** (1 / 3),
        },
    ),
    "4.58": Formula(
        lambda g: (normal(g), normal(g), normal(g)),
        lambda x, y, theta: -2 * x * (y - theta * x),
        lambda x, y, theta: grad(lambda theta: (y - theta * x) ** 2)(theta),
        {
            "the article's": lambda x, y, theta: 2 * (y - theta * x),
            "sign": lambda x, y, theta: 2 * x * (y - theta * x),
        },
    ),
    "4.59": Formula(
        line,
        article,
        after_article,
        {"minus, as it should be": lambda *args: article(*args, sign=-1)},
    ),
    "4.60": Formula(
        line,
        right_step,
        torch_step,
        {
            "factor 2 lost": lambda *args: right_step(*args, double=1),
            "twice the range": lambda *args: right_step(*args, most=2),
        },
    ),
    "4.61": Formula(
        one_direction,
        remembered,
        lambda lam, rate: sgd(
            lambda c: lam * c**2 / 2, torch.ones((), dtype=torch.float64), rate, 30, forget=True
        ),
        {
            "as if set back": lambda lam, rate: (1 - rate * lam) ** torch.arange(31),
            "plus": lambda lam, rate: remembered(lam, rate, sign=1),
            "one for two": lambda lam, rate: remembered(lam, rate, two=1),
        },
    ),
    "4.62": Formula(
        one_direction,
        roots,
        numpy_roots,
        {
            "plus under the root": lambda *args: roots(*args, sign=-1),
            "not halved": lambda *args: roots(*args, half=1),
        },
    ),
}

TestLedger = prove(PAGE, LEDGER)
