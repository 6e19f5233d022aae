"""Every numbered equation of chapter 5 holds in float64, and its wrong versions do not."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from ledger import Definition, Formula, Property, prove
from scipy.linalg import polar
from scipy.optimize import brentq, differential_evolution, linprog, minimize_scalar
from scipy.signal import lfilter
from torch import Tensor

from mslearn import data, optim
from mslearn.account import smooth
from mslearn.device import pick
from mslearn.experiments import load_result
from mslearn.optimizers import (
    EVERY,
    RATES,
    SEARCH_SEED,
    SEEDS,
    best_rate,
    make_run,
    tiny_corpus,
)

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "05_adaptive_optimizers.ipynb"
N = 5


# Inputs


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def uniform(g: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=g, dtype=torch.float64).item()


def gradients(g: torch.Generator) -> tuple[Tensor]:
    """Twelve gradients of N coordinates, of very different sizes."""
    return (normal(g, 12, N) * torch.logspace(-3, 2, N, dtype=torch.float64),)


def with_share(g: torch.Generator) -> tuple[Tensor, float]:
    """Gradients, and the share of the past that an average keeps."""
    return *gradients(g), uniform(g, 0.3, 0.98)


def curvatures(g: torch.Generator) -> tuple[float, float]:
    """The least and the greatest eigenvalue of a Hessian."""
    mu = uniform(g, 0.01, 2)
    return mu, mu * uniform(g, 3, 300)


def settings(g: torch.Generator) -> tuple[float, float, float]:
    """Rate, momentum, curvature: stable for momentum, and below 1 for Nesterov."""
    beta, curvature = uniform(g, 0.2, 0.95), uniform(g, 0.1, 3)
    return uniform(g, 0.02, 0.95) / curvature, beta, curvature


def betas(g: torch.Generator) -> tuple[float, float, int]:
    """beta_1, beta_2 with beta_1^2 below it, and a number of steps."""
    beta1 = uniform(g, 0.3, 0.95)
    return beta1, uniform(g, beta1**2 + 0.02, 0.999), int(torch.randint(1, 30, (), generator=g))


def matrices(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return normal(g, 7, 4), normal(g, 7, 4)


# Oracles


def precisely(*numbers: float) -> Tensor:
    """Python's numbers in their own 64 bits, which torch would round to 32."""
    return torch.tensor(numbers, dtype=torch.float64)


def moves(optimizer: type, every: Tensor, start: float = 0.0, **options: object) -> Tensor:
    """Where an optimiser of torch goes when it is given these gradients one after the other."""
    parameter = torch.nn.Parameter(torch.full_like(every[0], start))
    stepper, path = optimizer([parameter], **options), [parameter.detach().clone()]
    for gradient in every:
        parameter.grad = gradient.clone()
        stepper.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def descend(
    curvature: float, rate: float, beta: float, steps: int = 30, nesterov: bool = False
) -> Tensor:
    """One coordinate of a quadratic from 1, by torch's SGD with momentum."""
    parameter = torch.nn.Parameter(precisely(1.0))
    stepper = torch.optim.SGD([parameter], lr=rate, momentum=beta, nesterov=nesterov)
    path = [1.0]
    for _ in range(steps):
        parameter.grad = curvature * parameter.detach()
        stepper.step()
        path.append(parameter.item())
    return precisely(*path)


def sizes(rate: float, beta: float, curvature: float, nesterov: bool = False) -> Tensor:
    """Eigenvalues, in size, of the matrix that takes velocity and coordinate one step on."""
    columns = []
    for v, c in ((1.0, 0.0), (0.0, 1.0)):
        slope = curvature * (c - rate * beta * v if nesterov else c)
        columns.append(precisely(beta * v + slope, c - rate * (beta * v + slope)))
    return torch.linalg.eigvals(torch.stack(columns, 1)).abs()


def radius(rate: float, beta: float, *every: float, nesterov: bool = False) -> float:
    return max(sizes(rate, beta, each, nesterov).max().item() for each in every)


def average(every: Tensor, share: float) -> Tensor:
    """The running mean as scipy's filter makes it."""
    return torch.from_numpy(lfilter([1 - share], [1, -share], every.numpy(), axis=0))


def recursion(weight: Callable, steps: int = 30) -> Callable:
    """A path by a recursion over its last two places, from rest at 1."""

    def path(rate: float, beta: float, curvature: float) -> Tensor:
        c = [1.0, 1.0]
        for _ in range(steps):
            c.append(weight(rate * curvature, beta, c[-1], c[-2]))
        return precisely(*c[1:])

    return path


def close(ours: Tensor | float, theirs: Tensor | float, tolerance: float = 1e-9) -> None:
    ours, theirs = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, theirs))
    assert ours.shape == theirs.shape and torch.allclose(ours, theirs, tolerance, tolerance)


def generators(count: int = 20) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


# What the page says of momentum


def conjugate(low: Callable[[float], float], high: Callable[[float], float]) -> None:
    """(5.6): between `low` and `high` both roots have the size √β; just outside one is greater."""
    for g in generators():
        beta = uniform(g, 0.05, 0.95)
        ends = low(beta), high(beta)
        assert ends[0] < ends[1]
        inside = ends[0] + (ends[1] - ends[0]) * uniform(g, 0.001, 0.999)
        close(sizes(inside, beta, 1.0), precisely(1, 1) * math.sqrt(beta), 1e-6)
        for outside in (0.99 * ends[0], 1.01 * ends[1]):
            assert radius(outside, beta, 1.0) > 1.0001 * math.sqrt(beta)


def within(condition: Callable[[float, float, float], bool]) -> None:
    """(5.7): the condition on (s, β, ρ) says whether no root is greater than ρ."""
    seen = set()
    for g in generators(400):
        beta, rho, s = uniform(g, 0, 1), uniform(g, 0.05, 1.5), uniform(g, -2.5, 2.5)
        roots = torch.linalg.eigvals(precisely(s, -beta, 1, 0).view(2, 2)).abs().max().item()
        if abs(roots - rho) > 1e-6:
            assert condition(s, beta, rho) == (roots <= rho)
            seen.add(roots <= rho)
    assert seen == {True, False}


def stable(limit: Callable[[float], float]) -> None:
    """(5.8): torch's momentum dies out below the limit and grows above it, and below 0.

    A negative curvature stands for a negative rate, which torch refuses.
    """
    for g in generators(5):
        beta = uniform(g, 0.1, 0.9)
        for product, dies in ((0.99, True), (1.01, False), (-0.01, False)):
            path = descend(math.copysign(1, product), abs(product) * limit(beta), beta, 2000)
            assert (path[-1].abs() < 1e-3) == dies


def needed(bounds: Callable[[float, float], tuple[float, float]]) -> None:
    """(5.9): where the radius is ρ, αμ and αL lie on the far sides of the bounds; at times on."""
    tight = [math.inf, math.inf]
    for g in generators(500):
        mu, top = curvatures(g)
        beta, rate = uniform(g, 0.0, 0.95), uniform(g, 0.05, 3.8) / top
        rho = radius(rate, beta, mu, top)
        if rho < 1:
            low, high = bounds(rho, beta)
            assert rate * mu >= low - 1e-7 and rate * top <= high + 1e-7
            tight = [min(tight[0], rate * mu - low), min(tight[1], high - rate * top)]
    assert max(tight) < 1e-6


def condition_number(bound: Callable[[float, float], tuple[float, float]]) -> None:
    """(5.10): κ is below both bounds wherever the radius is below 1, and the second the wider."""
    nearest = math.inf
    for g in generators(300):
        mu, top = curvatures(g)
        beta, rate = uniform(g, 0.0, 0.95), uniform(g, 0.05, 3.8) / top
        rho = radius(rate, beta, mu, top)
        if rho < 1 and beta < rho:
            first, second = bound(rho, beta)
            assert top / mu <= first * (1 + 1e-6) and first <= second * (1 + 1e-12)
            nearest = min(nearest, first / (top / mu))
    assert nearest < 1.2


def lowest(bound: Callable[[float], float]) -> None:
    """(5.11): a search over all rates and momenta finds the bound, and nothing below it."""
    for kappa in (4.0, 60.0):
        found = differential_evolution(
            lambda x, kappa=kappa: radius(x[0], x[1], 1 / kappa, 1.0),
            [(0.01, 4), (0, 0.99)],
            seed=0,
            tol=1e-10,
            popsize=20,
            maxiter=300,
        )
        assert bound(kappa) - 1e-6 <= found.fun <= bound(kappa) + 5e-3


def best(formula: Callable[[float, float], tuple[float, float, float]]) -> None:
    """(5.12): the settings have the radius that (5.11) says is least, and every change is worse."""
    for g in generators():
        mu, top = curvatures(g)
        rate, beta, rho = formula(mu, top)
        close(
            radius(rate, beta, mu, top), (math.sqrt(top / mu) - 1) / (math.sqrt(top / mu) + 1), 1e-6
        )
        close(rho, radius(rate, beta, mu, top), 1e-6)
        for a, b in ((0.97, 1), (1.03, 1), (1, 0.97), (1, 1.03)):
            assert radius(rate * a, beta * b, mu, top) > rho * (1 + 1e-4)


def promise(bound: Callable[[float, int], float]) -> None:
    """(5.13): the power of the radius stays below the bound, and not far below for large κ."""
    for kappa in (1.5, 10.0, 1e3, 1e5):
        rho = (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)
        for t in (1, 10, 100):
            assert rho**t <= bound(kappa, t) * (1 + 1e-12)
    assert ((math.sqrt(1e6) - 1) / (math.sqrt(1e6) + 1)) ** 500 > 0.999 * bound(1e6, 500)


def best_settings(mu: float, top: float) -> tuple[float, float]:
    root = math.sqrt(top / mu)
    return 4 / (math.sqrt(mu) + math.sqrt(top)) ** 2, ((root - 1) / (root + 1)) ** 2


def at_the_ends(mu: float, top: float) -> Tensor:
    """The oracle of (5.14): torch's momentum at both ends, with the best settings."""
    settings = best_settings(mu, top)
    return torch.stack([descend(each, *settings) for each in (mu, top)])


def double_roots(first: Callable, second: Callable) -> Callable:
    def path(mu: float, top: float) -> Tensor:
        rho, t = math.sqrt(best_settings(mu, top)[1]), torch.arange(31, dtype=torch.float64)
        return torch.stack([first(rho, t) * rho**t, second(rho, t) * (-rho) ** t])

    return path


def swing(period: Callable[[float], float]) -> None:
    """(5.15): the signs of a long path change twice a period."""
    for g in generators(8):
        beta, product = uniform(g, 0.98, 0.999), uniform(g, 0.003, 1.5)
        path = descend(1.0, product, beta, 3000) * beta ** (-torch.arange(3001).double() / 2)
        changes = (path[1:] * path[:-1] < 0).nonzero()[:, 0]
        measured = 2 * (changes[-1] - changes[0]).item() / (len(changes) - 1)
        close(period((1 + beta - product) / (2 * math.sqrt(beta))), measured, 0.02)


# ... and of Nesterov


def looked_ahead(every: Callable, slope: Callable[[Tensor], Tensor], steps: int = 12) -> Tensor:
    """The points x_t of (5.16), in which it takes gradients."""
    theta, v, points = torch.ones(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64), []
    for _ in range(steps):
        theta, v, x = every(theta, v, slope)
        points.append(x)
    return torch.stack(points)


def nesterov(theta: Tensor, v: Tensor, slope: Callable, alpha: float = 0.1, beta: float = 0.8):
    x = theta - alpha * beta * v
    v = beta * v + slope(x)
    return theta - alpha * v, v, x


def heavy(theta: Tensor, v: Tensor, slope: Callable, alpha: float = 0.1, beta: float = 0.8):
    v = beta * v + slope(theta)
    return theta - alpha * v, v, theta


def bent(g: torch.Generator) -> tuple[Callable[[Tensor], Tensor]]:
    """The gradient of a curved loss that is no quadratic."""
    tilt = normal(g, N)
    return (lambda x: torch.tanh(x - tilt) + 0.1 * x**3,)


def by_torch(slope: Callable[[Tensor], Tensor], steps: int = 12) -> Tensor:
    """The points in which torch's Nesterov takes gradients."""
    parameter = torch.nn.Parameter(torch.ones(N, dtype=torch.float64))
    stepper = torch.optim.SGD([parameter], lr=0.1, momentum=0.8, nesterov=True)
    points = []
    for _ in range(steps):
        points.append(parameter.detach().clone())
        parameter.grad = slope(parameter.detach())
        stepper.step()
    return torch.stack(points)


def torchs_form(direction: Callable[[Tensor, Tensor, float], Tensor]) -> Callable:
    """(5.17) with a choice of what the step takes."""

    def points(slope: Callable[[Tensor], Tensor], steps: int = 12) -> Tensor:
        x, v = torch.ones(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
        found = []
        for _ in range(steps):
            found.append(x)
            gradient = slope(x)
            v = 0.8 * v + gradient
            x = x - 0.1 * direction(gradient, v, 0.8)
        return torch.stack(found)

    return points


def nesterovs_theta(rate: float, beta: float, curvature: float) -> Tensor:
    """θ_t of (5.16) from 1: torch's points x_t, less the look ahead αβ v_t = x_t - θ_t undone."""
    c, v, path = 1.0, 0.0, [1.0]
    for _ in range(30):
        v = beta * v + curvature * (c - rate * beta * v)
        c = c - rate * v
        path.append(c)
    return precisely(*path)


def braked(formula: Callable[[float, float], float], low: Callable[[float], float]) -> None:
    """(5.19): both roots have this size above `low`, and other sizes just below it."""
    for g in generators():
        beta = uniform(g, 0.1, 0.95)
        product = low(beta) + (1 - low(beta)) * uniform(g, 0.001, 0.999)
        close(sizes(product, beta, 1.0, True), precisely(1, 1) * formula(beta, product), 1e-6)
        outside = sizes(0.99 * low(beta), beta, 1.0, True)
        assert outside.max() > 1.0001 * outside.min()


def safe(formula: Callable[[float, float], tuple[float, float, float]]) -> None:
    """(5.20): this radius at μ, nothing greater up to L, and no other β is better at 1/L."""
    for g in generators():
        mu, top = curvatures(g)
        rate, beta, rho = formula(mu, top)
        close(rate * top, 1.0)
        close(radius(rate, beta, mu, nesterov=True), rho, 1e-6)
        between = torch.linspace(mu, top, 50, dtype=torch.float64).tolist()
        assert radius(rate, beta, *between, nesterov=True) <= rho * (1 + 1e-6)
        for other in (0.97 * beta, min(1.03 * beta, 0.5 + beta / 2)):
            assert radius(rate, other, mu, nesterov=True) > rho * (1 + 1e-5)


# What it says of adaptive steps


def rms_path(every: Tensor, share: float, inside: bool = False, squared: bool = True) -> Tensor:
    s, theta, path = torch.zeros(N).double(), torch.zeros(N).double(), [torch.zeros(N).double()]
    for gradient in every:
        s = share * s + (1 - share) * (gradient**2 if squared else gradient.abs())
        theta = theta - 0.1 * gradient / ((s + 1e-3).sqrt() if inside else s.sqrt() + 1e-3)
        path.append(theta)
    return torch.stack(path)


def rms_torch(every: Tensor, share: float) -> Tensor:
    return moves(torch.optim.RMSprop, every, lr=0.1, alpha=share, eps=1e-3)


def constant_steps(exponent: Callable[[int], float]) -> Callable:
    """(5.22) for twelve steps with the same gradient."""

    def steps(gradient: Tensor, share: float) -> Tensor:
        rows = [-0.1 / math.sqrt(1 - share ** exponent(t)) * gradient.sign() for t in range(1, 13)]
        return torch.stack(rows)

    return steps


def constant_torch(gradient: Tensor, share: float) -> Tensor:
    every = gradient.expand(12, -1)
    return moves(torch.optim.RMSprop, every, lr=0.1, alpha=share, eps=0.0).diff(dim=0)


def adam_path(
    every: Tensor,
    correct: bool = True,
    eps: float = 1e-3,
    place: str = "outside",
    decay: float = 0.0,
    start: float = 0.0,
) -> Tensor:
    """(5.24), (5.28), (5.29), (5.39) for β of 0.9 and 0.95 and the rate 0.1."""
    m, s, theta = (torch.zeros(N).double() for _ in range(3))
    theta += start
    path = [theta]
    for t, gradient in enumerate(every, 1):
        m, s = 0.9 * m + 0.1 * gradient, 0.95 * s + 0.05 * gradient**2
        m_hat, s_hat = (m / (1 - 0.9**t), s / (1 - 0.95**t)) if correct else (m, s)
        if place == "outside":
            step = m_hat / (s_hat.sqrt() + eps)
        elif place == "inside":
            step = m_hat / (s_hat + eps).sqrt()
        else:
            step = m_hat / s_hat.sqrt() - eps / 0.1
        theta = (1 - 0.1 * decay) * theta - 0.1 * step
        path.append(theta)
    return torch.stack(path)


def adam_torch(every: Tensor) -> Tensor:
    return moves(torch.optim.Adam, every, lr=0.1, betas=(0.9, 0.95), eps=1e-3)


def adams_step(every: Tensor, beta1: float, beta2: float) -> Tensor:
    """The last step of torch's Adam at rate 1 and with no ε, on one coordinate."""
    path = moves(torch.optim.Adam, every[:, None], lr=1.0, betas=(beta1, beta2), eps=0.0)
    return path[-1] - path[-2]


def uncorrected(ratio: Callable[[float, float, int], float]) -> None:
    """(5.31): m_t/√s_t from scipy's filter, over the step of torch's Adam."""
    for g in generators():
        beta1, beta2, t = betas(g)
        every = normal(g, t)
        plain = average(every, beta1)[-1] / average(every**2, beta2)[-1].sqrt()
        close(-plain / adams_step(every, beta1, beta2)[0], ratio(beta1, beta2, t), 1e-8)


def signal(formula: Callable[[float, float], float]) -> None:
    """(5.32) on gradients that are +1 or -1 times σ from γ in every one of all orders alike."""
    for g in generators(5):
        gamma, sigma = uniform(g, -2, 2), uniform(g, 0.1, 3)
        signs = torch.cartesian_prod(*[precisely(-1, 1)] * 8)  # all 256 runs of eight steps
        m = average((gamma + sigma * signs).T, 0.9)[-1].mean() / (1 - 0.9**8)
        s = average((gamma + sigma * signs).T ** 2, 0.95)[-1].mean() / (1 - 0.95**8)
        close(m / s.sqrt(), formula(gamma, sigma))


def expectation(weight: Callable[[float, int], float]) -> Callable:
    """(5.27): the factor of the last expected gradient, and the rest."""

    def mean(every: Tensor, share: float) -> Tensor:
        t = len(every)
        past = precisely(*(share ** (t - j) for j in range(1, t + 1)))
        rest = (1 - share) * (past[:, None] * (every - every[-1])).sum(0)
        return weight(share, t) * every[-1] + rest

    return mean


def average_of_means(every: Tensor, share: float) -> Tensor:
    """E m_t, exactly: the mean over all 4096 choices of signs of a noise around the means."""
    signs = torch.cartesian_prod(*[precisely(-1, 1)] * len(every))  # (4096, 12)
    noisy = every[None] + 3 * signs[:, :, None]  # (4096, 12, N)
    return average(noisy.transpose(0, 1), share)[-1].mean(0)


def bound(beta1: float, beta2: float, t: int, corrected: bool = True) -> float:
    k = torch.arange(t, dtype=torch.float64)
    total = ((beta1**2 / beta2) ** k).sum().sqrt().item()
    factor = (1 - beta1) / math.sqrt(1 - beta2) * total
    return factor * (math.sqrt(1 - beta2**t) / (1 - beta1**t) if corrected else 1)


def never_above(limit: Callable[[float, float, int], float], corrected: bool) -> None:
    """(5.33), (5.34): no gradients pass the limit, and growing ones reach it."""
    for g in generators():
        beta1, beta2, t = betas(g)
        growing = precisely(*((beta2 / beta1) ** j for j in range(t)))
        for every, reaches in ((normal(g, t), False), (normal(g, t) ** 9, False), (growing, True)):
            if corrected:
                step = adams_step(every, beta1, beta2).abs()[0].item()
            else:
                step = average(every, beta1)[-1].abs() / average(every**2, beta2)[-1].sqrt()
            assert step <= limit(beta1, beta2, t) * (1 + 1e-9)
            assert not reaches or step >= limit(beta1, beta2, t) * (1 - 1e-9)


def half(epsilon: float, inside: bool) -> float:
    """The gradient whose step is halved by ε, from torch's Adam or by its own definition."""
    optimizer = torch.optim.Adagrad  # outside the root, as in torch; inside by hand

    def share(log_gradient: float) -> float:
        gradient = precisely(10**log_gradient)
        if inside:
            return (gradient / (gradient**2 + epsilon).sqrt()).item() - 0.5
        step = moves(optimizer, gradient[None], lr=1.0, eps=epsilon)[-1]
        return step.abs().item() - 0.5

    return 10 ** brentq(share, -20, 5, xtol=1e-13)


def penalised(every: Tensor, optimizer: type, scale: float, omega: float, **more: object) -> Tensor:
    """A path of torch's optimiser on gradients that are scaled, with its weight decay."""
    options = dict(lr=0.01, eps=0.0, weight_decay=omega, **more)
    return moves(optimizer, scale * every, start=1.0, **options)


def small_penalty(formula: Callable[[float, float, float], tuple[float, float]]) -> None:
    """(5.38) over all 256 runs of eight signs: exact, and near its second form for large σ.

    The averages are those of torch's Adam with its L2 penalty, at the rate 0, so that θ stays.
    """
    signs = torch.cartesian_prod(*[precisely(-1, 1)] * 8)  # (256, 8)
    for theta, omega, sigma in ((1.0, 0.01, 1.0), (-2.0, 0.1, 5.0), (0.5, 0.004, 0.2)):
        parameter = torch.nn.Parameter(torch.full((256,), theta, dtype=torch.float64))
        stepper = torch.optim.Adam([parameter], lr=0.0, weight_decay=omega)
        for column in signs.T:
            parameter.grad = sigma * column
            stepper.step()
        m, s = (stepper.state[parameter][name].mean() for name in ("exp_avg", "exp_avg_sq"))
        expected = -(m / (1 - 0.9**8)) / (s / (1 - 0.999**8)).sqrt()
        exact, nearly = formula(theta, omega, sigma)
        close(exact, expected)
        assert abs(nearly / exact - 1) < (omega * theta / sigma) ** 2


def heavy_ball(
    rate: float, beta: float, curvature: float, weight: float = 1.0, late: bool = False
) -> list[Tensor]:
    """(5.1) on one coordinate of a quadratic, from 1."""
    c, v = precisely(1)[0], precisely(0)[0]
    path = [c]
    for _ in range(30):
        old, v = v, beta * v + weight * curvature * c
        c = c - rate * (old if late else v)
        path.append(c)
    return path


def descend_by(rate: float, beta: float, curvature: float) -> Tensor:
    return descend(curvature, rate, beta)


def velocity_torch(every: Tensor, beta: float) -> Tensor:
    """torch's velocity after all gradients: its last step at rate 1, turned round."""
    path = moves(torch.optim.SGD, every, lr=1.0, momentum=beta)
    return path[-2] - path[-1]


def sums(beta: float, t: int, sign: int) -> float:
    """torch's velocity after t + 1 gradients, each 1 or of changing sign with 1 the last."""
    every = precisely(*(sign ** (t - j) for j in range(t + 1)))
    return velocity_torch(every[:, None], beta).item()


def roots(s: float, beta: float) -> Tensor:
    """The sizes of the roots of r² - s r + β, the smaller first."""
    return torch.from_numpy(np.abs(np.roots([1, -s, beta]))).sort().values


def both_averages(every: Tensor, weigh: bool = True, power: int = 2) -> list[Tensor]:
    """(5.24) for β of 0.9 and 0.95."""
    m = s = torch.zeros(N).double()
    for gradient in every:
        m = 0.9 * m + (0.1 if weigh else 1) * gradient
        s = 0.95 * s + (0.05 if weigh else 1) * gradient**power
    return [m, s]


def adams_memory(every: Tensor) -> Tensor:
    """The two averages that torch's Adam keeps."""
    parameter = torch.nn.Parameter(torch.zeros(N, dtype=torch.float64))
    stepper = torch.optim.Adam([parameter], betas=(0.9, 0.95))
    for gradient in every:
        parameter.grad = gradient.clone()
        stepper.step()
    return torch.stack([stepper.state[parameter][name] for name in ("exp_avg", "exp_avg_sq")])


def decayed_torch(theta: Tensor, gradient: Tensor, rate: float, omega: float) -> Tensor:
    parameter = torch.nn.Parameter(theta.clone())
    parameter.grad = gradient
    torch.optim.SGD([parameter], lr=rate, weight_decay=omega).step()
    return parameter.detach()


def by_linear_program(gradient: Tensor) -> Tensor:
    """The least of gᵀv with all entries between -0.3 and 0.3, by scipy's simplex method."""
    return torch.from_numpy(linprog(gradient.numpy(), bounds=(-0.3, 0.3)).x)


# What it says of matrices


def spectral(every: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """The greatest value of `every(X, x)` over directions x in the plane, refined."""

    def norm(X: Tensor) -> Tensor:
        def value(angle: float) -> float:
            return -every(X, precisely(math.cos(angle), math.sin(angle))).item()

        angles = torch.linspace(0, math.pi, 400).tolist()
        start = min(angles, key=value)
        found = minimize_scalar(value, bounds=(start - 0.01, start + 0.01), method="bounded")
        found = minimize_scalar(value, bracket=(start - 0.01, found.x, start + 0.01), tol=1e-14)
        return precisely(-found.fun)[0]

    return norm


def by_eigenvectors(root: Callable[[Tensor], Tensor]) -> Callable:
    """(5.44): G from the eigenvectors of GᵀG, UᵀU, and the singular values."""

    def parts(G: Tensor, _: Tensor) -> Tensor:
        squares, V = torch.linalg.eigh(G.T @ G)
        sigma = root(squares)
        U = G @ V / sigma
        return torch.cat([(U * sigma) @ V.T, U.T @ U, sigma.flip(0)[None]])

    return parts


def rebuilt(G: Tensor, _: Tensor) -> Tensor:
    values = torch.linalg.svdvals(G)
    return torch.cat([G, torch.eye(G.shape[1], dtype=G.dtype), values[None]])


def never_below(bound: Callable[[Tensor, Tensor], Tensor]) -> None:
    """(5.45): ⟨G, X⟩ is never below the bound, and meets it for minus scipy's polar factor."""
    for g in generators():
        G, X = matrices(g)
        assert (G * X).sum() >= bound(G, X) - 1e-12
        X = -2.5 * torch.from_numpy(polar(G.numpy())[0])
        close((G * X).sum(), bound(G, X))


def identity(G: Tensor, X: Tensor) -> Tensor:
    """The middle of (5.45)."""
    U, sigma, Vt = torch.linalg.svd(G, full_matrices=False)
    return (sigma * torch.einsum("ni,nm,im->i", U, X, Vt)).sum()


def lower(G: Tensor, X: Tensor, norm: str | int = 2, of: Callable = torch.sum) -> Tensor:
    close(identity(G, X), (G * X).sum())
    return -torch.linalg.matrix_norm(X, norm) * of(torch.linalg.svdvals(G))


def polar_step(G: Tensor, _: Tensor) -> Tensor:
    return -0.3 * torch.from_numpy(polar(G.numpy())[0])


def flattened(sign: float, power: float) -> Callable:
    def step(G: Tensor, _: Tensor) -> Tensor:
        U, sigma, Vt = torch.linalg.svd(G, full_matrices=False)
        return sign * 0.3 * (U * sigma**power) @ Vt

    return step


def typical(factor: Callable[[int, int], float]) -> None:
    """(5.47): rms(Xx) stays below, and the first singular vector reaches it, tall and wide."""
    for g in generators(10):
        for n, m in ((7, 3), (3, 7)):
            X = normal(g, n, m)
            x = torch.cat([normal(g, m, 50), torch.linalg.svd(X).Vh[0][:, None]], dim=1)
            ratio = (X @ x).square().mean(0).sqrt() / x.square().mean(0).sqrt()
            limit = factor(n, m) * torch.linalg.matrix_norm(X, 2)
            assert (ratio <= limit * (1 + 1e-12)).all()
            close(ratio[-1], limit)


def quintic(a: float, b: float, c: float) -> Callable:
    return lambda G, _: a * G + b * (G @ G.T) @ G + c * (G @ G.T) @ (G @ G.T) @ G


def on_values(G: Tensor, _: Tensor) -> Tensor:
    U, sigma, Vt = torch.linalg.svd(G, full_matrices=False)
    return (U * (1.5 * sigma - 0.7 * sigma**3 + 0.2 * sigma**5)) @ Vt


def normalised(values: Callable[[Tensor], Tensor]) -> None:
    """(5.49): within (0, 1], and squares that sum to 1, which no other norm can promise."""
    for g in generators():
        found = values(matrices(g)[0])
        assert (found > 0).all() and (found <= 1).all()
        close(found.square().sum(), 1.0)


COEFFICIENTS = inspect.signature(torch.optim.Muon).parameters["ns_coefficients"].default


def phi(x: Tensor | float) -> Tensor | float:
    return 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5


def turning_points() -> Tensor:
    found = []
    for sign, low, high in ((-1, 0.3, 0.8), (1, 0.8, 1.3)):
        x = minimize_scalar(
            lambda x, sign=sign: sign * phi(x),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-10},
        ).x
        found += [round(x, 4), round(phi(x), 4)]
    return precisely(*found)


def stays(interval: tuple[float, float]) -> None:
    """(5.53): φ maps I onto this interval, to four digits, and it lies in I."""
    values = phi(torch.linspace(0.6818, 1.2024, 1_000_001, dtype=torch.float64))
    close(precisely(*interval), torch.stack([values.min(), values.max()]), 6e-5)
    assert interval[0] >= 0.6818 and interval[1] <= 1.2024


def thresholds(tau: tuple[float, float]) -> None:
    """(5.54): by the package's rounds of matrix products, and as near as four digits can be."""
    for steps, least in zip((4, 5), tau, strict=True):
        for start, inside in ((least + 5e-5, True), (least - 5e-5, False)):
            x = torch.linspace(start, 1, 20_000, dtype=torch.float64)
            pairs = torch.diag_embed(torch.stack([x, (1 - x**2).sqrt()], dim=-1))
            values = optim.orthogonalize(pairs, steps)[:, 0, 0]
            assert (values.min() >= 0.68182) == inside and values.max() <= 1.20237


def muon_path(
    shape: tuple[int, int], every: Tensor, share: float = 0.9, fresh: bool = True, tall: bool = True
) -> Tensor:
    """(5.55) from zero, five rounds, rate 0.1, decay 0.5."""
    B, W, path = torch.zeros(shape).double(), torch.ones(shape).double(), []
    for G in every:
        B = share * B + (1 - share) * G
        D = share * B + (1 - share) * G if fresh else B
        U, sigma, Vt = torch.linalg.svd(D / D.norm(), full_matrices=False)
        for _ in range(5):
            sigma = phi(sigma)
        size = math.sqrt(max(1, shape[0] / shape[1])) if tall else 1
        W = (1 - 0.1 * 0.5) * W - 0.1 * size * (U * sigma) @ Vt
        path.append(W)
    return torch.stack(path)


def muon_torch(shape: tuple[int, int], every: Tensor) -> Tensor:
    """torch's Muon, its rounding to bfloat16 taken out."""
    parameter, path = torch.nn.Parameter(torch.ones(shape).double()), []
    stepper = torch.optim.Muon([parameter], lr=0.1, weight_decay=0.5, momentum=0.9)
    with mock.patch.object(torch.Tensor, "bfloat16", lambda x: x.clone()):
        for G in every:
            parameter.grad = G.clone()
            stepper.step()
            path.append(parameter.detach().clone())
    return torch.stack(path)


LEDGER = {
    "5.1": Formula(
        settings,
        lambda a, b, c: torch.stack(heavy_ball(a, b, c)),
        descend_by,
        {
            "plus": lambda a, b, c: torch.stack(heavy_ball(-a, b, c)),
            "an average": lambda a, b, c: torch.stack(heavy_ball(a, b, c, 1 - b)),
            "the old velocity": lambda a, b, c: torch.stack(heavy_ball(a, b, c, late=True)),
        },
    ),
    "5.2": Formula(
        with_share,
        lambda every, b: sum(b**k * every[-1 - k] for k in range(len(every))),
        velocity_torch,
        {
            "oldest most": lambda every, b: sum(b**k * every[k] for k in range(len(every))),
            "an average": lambda every, b: (
                (1 - b) * sum(b**k * every[-1 - k] for k in range(len(every)))
            ),
        },
    ),
    "5.3": Formula(
        lambda g: (uniform(g, 0.1, 0.95), int(torch.randint(1, 20, (), generator=g))),
        lambda b, t: precisely(
            (1 - b ** (t + 1)) / (1 - b), 1 / (1 - b), (1 - (-b) ** (t + 1)) / (1 + b), 1 / (1 + b)
        ),
        lambda b, t: precisely(*(sums(b, n, sign) for sign in (1, -1) for n in (t, 3000))),
        {
            "one power less": lambda b, t: precisely(
                (1 - b**t) / (1 - b), 1 / (1 - b), (1 - (-b) ** t) / (1 + b), 1 / (1 + b)
            ),
            "exchanged": lambda b, t: precisely(
                (1 - b ** (t + 1)) / (1 + b),
                1 / (1 + b),
                (1 - (-b) ** (t + 1)) / (1 - b),
                1 / (1 - b),
            ),
        },
    ),
    "5.4": Formula(
        settings,
        recursion(lambda x, b, c, old: (1 + b - x) * c - b * old),
        descend_by,
        {
            "plus": recursion(lambda x, b, c, old: (1 + b - x) * c + b * old),
            "1 lost": recursion(lambda x, b, c, old: (b - x) * c - b * old),
        },
    ),
    "5.5": Formula(
        settings,
        lambda a, b, c: roots(1 + b - a * c, b),
        lambda a, b, c: sizes(a, b, c).sort().values,
        {
            "sign of β": lambda a, b, c: roots(1 + b - a * c, -b),
            "sign of αλ": lambda a, b, c: roots(1 + b + a * c, b),
        },
    ),
    "5.6": Property(
        lambda ends: conjugate(*ends),
        (lambda b: (1 - math.sqrt(b)) ** 2, lambda b: (1 + math.sqrt(b)) ** 2),
        {
            "not squared": (lambda b: 1 - math.sqrt(b), lambda b: 1 + math.sqrt(b)),
            "without roots": (lambda b: (1 - b) ** 2, lambda b: (1 + b) ** 2),
        },
    ),
    "5.7": Property(
        within,
        lambda s, b, rho: b <= rho**2 and abs(s) <= rho + b / rho,
        {
            "first alone": lambda s, b, rho: b <= rho**2,
            "second alone": lambda s, b, rho: abs(s) <= rho + b / rho,
            "β not divided": lambda s, b, rho: b <= rho**2 and abs(s) <= rho + b,
        },
    ),
    "5.8": Property(
        stable,
        lambda b: 2 * (1 + b),
        {"as without momentum": lambda b: 2.0, "narrowed": lambda b: 2 * (1 - b)},
    ),
    "5.9": Property(
        needed,
        lambda rho, b: ((1 - rho) * (1 - b / rho), (1 + rho) * (1 + b / rho)),
        {
            "β not divided": lambda rho, b: ((1 - rho) * (1 - b), (1 + rho) * (1 + b)),
            "signs exchanged": lambda rho, b: (
                (1 + rho) * (1 + b / rho),
                (1 - rho) * (1 - b / rho),
            ),
            "loose": lambda rho, b: ((1 - rho) * (1 - b / rho) / 2, 2 * (1 + rho) * (1 + b / rho)),
        },
    ),
    "5.10": Property(
        condition_number,
        lambda rho, b: (
            (1 + rho) / (1 - rho) * (1 + b / rho) / (1 - b / rho),
            ((1 + rho) / (1 - rho)) ** 2,
        ),
        {
            "square lost": lambda rho, b: (
                (1 + rho) / (1 - rho) * (1 + b / rho) / (1 - b / rho),
                (1 + rho) / (1 - rho),
            ),
            "without momentum": lambda rho, b: ((1 + rho) / (1 - rho),) * 2,
        },
    ),
    "5.11": Property(
        lowest,
        lambda kappa: (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1),
        {
            "root lost": lambda kappa: (kappa - 1) / (kappa + 1),
            "squared": lambda kappa: ((math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)) ** 2,
        },
    ),
    "5.12": Property(
        best,
        lambda mu, top: (*best_settings(mu, top), math.sqrt(best_settings(mu, top)[1])),
        {
            "gradient descent's rate": lambda mu, top: (
                2 / (mu + top),
                best_settings(mu, top)[1],
                math.sqrt(best_settings(mu, top)[1]),
            ),
            "β not squared": lambda mu, top: (
                best_settings(mu, top)[0],
                math.sqrt(best_settings(mu, top)[1]),
                math.sqrt(best_settings(mu, top)[1]),
            ),
        },
    ),
    "5.13": Property(
        promise,
        lambda kappa, t: math.exp(-2 * t / (math.sqrt(kappa) + 1)),
        {
            "root lost": lambda kappa, t: math.exp(-2 * t / (kappa + 1)),
            "factor lost": lambda kappa, t: math.exp(-t / (math.sqrt(kappa) + 1)),
            "minus 1": lambda kappa, t: math.exp(-2 * t / (math.sqrt(kappa) - 1)),
        },
    ),
    "5.14": Formula(
        curvatures,
        double_roots(lambda rho, t: 1 + (1 - rho) * t, lambda rho, t: 1 + (1 + rho) * t),
        at_the_ends,
        {
            "no double root": double_roots(lambda rho, t: 1 + 0 * t, lambda rho, t: 1 + 0 * t),
            "exchanged": double_roots(
                lambda rho, t: 1 + (1 + rho) * t, lambda rho, t: 1 + (1 - rho) * t
            ),
        },
    ),
    "5.15": Property(
        swing,
        lambda cosine: 2 * math.pi / math.acos(cosine),
        {
            "half": lambda cosine: math.pi / math.acos(cosine),
            "sine": lambda cosine: 2 * math.pi / math.asin(cosine),
        },
    ),
    "5.16": Formula(
        bent,
        lambda slope: looked_ahead(nesterov, slope),
        by_torch,
        {
            "no look ahead": lambda slope: looked_ahead(heavy, slope),
            "looks back": lambda slope: looked_ahead(
                lambda theta, v, slope: nesterov(theta, v, slope, beta=-0.8), slope
            ),
        },
    ),
    "5.17": Formula(
        bent,
        torchs_form(lambda gradient, v, beta: gradient + beta * v),
        lambda slope: looked_ahead(nesterov, slope),
        {
            "gradient lost": torchs_form(lambda gradient, v, beta: v),
            "β lost": torchs_form(lambda gradient, v, beta: gradient + v),
        },
    ),
    "5.18": Formula(
        settings,
        recursion(lambda x, b, c, old: (1 - x) * ((1 + b) * c - b * old)),
        nesterovs_theta,
        {
            "momentum's": recursion(lambda x, b, c, old: (1 + b - x) * c - b * old),
            "1 + β lost": recursion(lambda x, b, c, old: (1 - x) * (c - b * old)),
        },
    ),
    "5.19": Property(
        lambda both: braked(*both),
        (lambda b, x: math.sqrt(b * (1 - x)), lambda b: ((1 - b) / (1 + b)) ** 2),
        {
            "momentum's": (lambda b, x: math.sqrt(b), lambda b: (1 - math.sqrt(b)) ** 2),
            "not squared": (lambda b, x: math.sqrt(b * (1 - x)), lambda b: (1 - b) / (1 + b)),
        },
    ),
    "5.20": Property(
        safe,
        lambda mu, top: (
            1 / top,
            (math.sqrt(top / mu) - 1) / (math.sqrt(top / mu) + 1),
            1 - math.sqrt(mu / top),
        ),
        {
            "β squared": lambda mu, top: (
                1 / top,
                ((math.sqrt(top / mu) - 1) / (math.sqrt(top / mu) + 1)) ** 2,
                1 - math.sqrt(mu / top),
            ),
            "root lost": lambda mu, top: (
                1 / top,
                (math.sqrt(top / mu) - 1) / (math.sqrt(top / mu) + 1),
                1 - mu / top,
            ),
        },
    ),
    "5.21": Formula(
        with_share,
        rms_path,
        rms_torch,
        {
            "ε inside": lambda every, b: rms_path(every, b, inside=True),
            "not squared": lambda every, b: rms_path(every, b, squared=False),
        },
    ),
    "5.22": Formula(
        lambda g: (normal(g, N), uniform(g, 0.5, 0.99)),
        constant_steps(lambda t: t),
        constant_torch,
        {
            "one step late": constant_steps(lambda t: t + 1),
            "corrected": constant_steps(lambda t: 1e9),
        },
    ),
    "5.23": Formula(
        lambda g: (*with_share(g), uniform(g, 0.01, 50)),
        lambda every, b, c: moves(torch.optim.RMSprop, c * every, alpha=b, eps=c * 1e-2),
        lambda every, b, c: moves(torch.optim.RMSprop, every, alpha=b, eps=1e-2),
        {
            "ε as it was": lambda every, b, c: moves(
                torch.optim.RMSprop, c * every, alpha=b, eps=1e-2
            ),
            "SGD": lambda every, b, c: moves(torch.optim.SGD, c * every, lr=0.01),
        },
    ),
    "5.24": Formula(
        gradients,
        lambda every: torch.stack(both_averages(every)),
        adams_memory,
        {
            "not weighted": lambda every: torch.stack(both_averages(every, weigh=False)),
            "not squared": lambda every: torch.stack(both_averages(every, power=1)),
        },
    ),
    "5.25": Formula(
        with_share,
        lambda every, b: (1 - b) * sum(b ** (len(every) - j) * every[j - 1] for j in range(1, 13)),
        lambda every, b: average(every, b)[-1],
        {
            "weight lost": lambda every, b: sum(b ** (12 - j) * every[j - 1] for j in range(1, 13)),
            "in reverse": lambda every, b: (1 - b) * sum(b**j * every[j - 1] for j in range(1, 13)),
        },
    ),
    "5.26": Formula(
        betas,
        lambda b, _, t: precisely(1 - b**t),
        lambda b, _, t: average(torch.ones(t).double(), b)[-1:],
        {
            "1": lambda b, _, t: precisely(1),
            "one less": lambda b, _, t: precisely(1 - b ** (t - 1)),
        },
    ),
    "5.27": Formula(
        lambda g: (normal(g, 12, N), uniform(g, 0.3, 0.98)),
        expectation(lambda b, t: 1 - b**t),
        average_of_means,
        {"no bias": expectation(lambda b, t: 1), "upside down": expectation(lambda b, t: b**t)},
    ),
    "5.28": Formula(
        with_share,
        lambda every, b: average(every, b)[-1] / (1 - b ** len(every)),
        lambda every, b: torch.from_numpy(
            np.average(every, axis=0, weights=b ** np.arange(len(every))[::-1])
        ),
        {
            "one less": lambda every, b: average(every, b)[-1] / (1 - b ** (len(every) - 1)),
            "root": lambda every, b: average(every, b)[-1] / math.sqrt(1 - b ** len(every)),
        },
    ),
    "5.29": Formula(
        gradients,
        adam_path,
        adam_torch,
        {
            "uncorrected": lambda every: adam_path(every, correct=False),
            "ε inside": lambda every: adam_path(every, place="inside"),
            "ε added to the parameter": lambda every: adam_path(every, place="parameter"),
        },
    ),
    "5.30": Formula(
        gradients,
        lambda every: -0.1 * every[0] / (every[0].abs() + 1e-3),
        lambda every: adam_torch(every[:1])[-1],
        {
            "the gradient": lambda every: -0.1 * every[0],
            "the sign": lambda every: -0.1 * every[0].sign(),
        },
    ),
    "5.31": Property(
        uncorrected,
        lambda b1, b2, t: (1 - b1**t) / math.sqrt(1 - b2**t),
        {
            "root lost": lambda b1, b2, t: (1 - b1**t) / (1 - b2**t),
            "upside down": lambda b1, b2, t: math.sqrt(1 - b2**t) / (1 - b1**t),
        },
    ),
    "5.32": Property(
        signal,
        lambda gamma, sigma: math.copysign(1, gamma) / math.sqrt(1 + sigma**2 / gamma**2),
        {
            "upside down": lambda gamma, sigma: (
                math.copysign(1, gamma) / math.sqrt(1 + gamma**2 / sigma**2)
            ),
            "over the noise": lambda gamma, sigma: gamma / sigma,
        },
    ),
    "5.33": Property(
        lambda limit: never_above(limit, corrected=False),
        lambda b1, b2, t: bound(b1, b2, t, corrected=False),
        {
            "1": lambda b1, b2, t: 1.0,
            "loose": lambda b1, b2, t: 1.01 * bound(b1, b2, t, corrected=False),
            "root lost": lambda b1, b2, t: (1 - b1) / (1 - b2),
        },
    ),
    "5.34": Property(
        lambda limit: never_above(limit, corrected=True),
        bound,
        {
            "1": lambda b1, b2, t: 1.0,
            "uncorrected": lambda b1, b2, t: bound(b1, b2, t, corrected=False),
        },
    ),
    "5.35": Formula(
        betas,
        lambda b1, b2, _: precisely((1 - b1) / math.sqrt((1 - b2) * (1 - b1**2 / b2))),
        lambda b1, b2, _: precisely(bound(b1, b2, 100_000)),
        {
            "root lost": lambda b1, b2, _: precisely((1 - b1) / ((1 - b2) * (1 - b1**2 / b2))),
            "not squared": lambda b1, b2, _: precisely(
                (1 - b1) / math.sqrt((1 - b2) * abs(1 - b1 / b2))
            ),
        },
    ),
    "5.36": Formula(
        lambda g: (10 ** uniform(g, -9, -4),),
        lambda e: precisely(e, math.sqrt(e / 3)),
        lambda e: precisely(half(e, inside=False), half(e, inside=True)),
        {"the same": lambda e: precisely(e, e), "3 lost": lambda e: precisely(e, math.sqrt(e))},
    ),
    "5.37": Formula(
        lambda g: (normal(g, N), normal(g, N), uniform(g, 0.01, 1), uniform(g, 0.01, 1)),
        lambda theta, gradient, a, w: (1 - a * w) * theta - a * gradient,
        decayed_torch,
        {
            "α lost": lambda theta, gradient, a, w: (1 - w) * theta - a * gradient,
            "shrunk after": lambda theta, gradient, a, w: (1 - a * w) * (theta - a * gradient),
        },
    ),
    "5.38": Property(
        small_penalty,
        lambda theta, w, sigma: (
            -w * theta / math.sqrt(w**2 * theta**2 + sigma**2),
            -w / sigma * theta,
        ),
        {
            "not divided": lambda theta, w, sigma: (-w * theta, -w * theta),
            "times σ": lambda theta, w, sigma: (
                -w * theta / math.sqrt(w**2 * theta**2 + sigma**2),
                -w * sigma * theta,
            ),
        },
    ),
    "5.39": Formula(
        gradients,
        lambda every: adam_path(every, decay=0.3, start=2.0),
        lambda every: moves(
            torch.optim.AdamW, every, 2.0, lr=0.1, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.3
        ),
        {
            "L2": lambda every: moves(
                torch.optim.Adam, every, 2.0, lr=0.1, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.3
            ),
            "α lost": lambda every: adam_path(every, decay=3.0, start=2.0),
        },
    ),
    "5.40": Formula(
        lambda g: (normal(g, 12, N), uniform(g, 2, 50), uniform(g, 0.1, 2)),
        lambda every, c, w: penalised(every, torch.optim.Adam, 1, w / c),
        lambda every, c, w: penalised(every, torch.optim.Adam, c, w),
        {
            "as it was": lambda every, c, w: penalised(every, torch.optim.Adam, 1, w),
            "times c": lambda every, c, w: penalised(every, torch.optim.Adam, 1, w * c),
            "decoupled": lambda every, c, w: penalised(every, torch.optim.AdamW, 1, w / c),
        },
    ),
    "5.41": Definition("it names the steepest step under a norm; (5.42) and (5.46) find two"),
    "5.42": Formula(
        lambda g: (normal(g, N),),
        lambda gradient: -0.3 * gradient.sign(),
        by_linear_program,
        {
            "Euclid's": lambda gradient: -0.3 * gradient / gradient.norm(),
            "sign": lambda gradient: 0.3 * gradient.sign(),
        },
    ),
    "5.43": Formula(
        lambda g: (normal(g, 5, 2),),
        spectral(lambda X, x: (X @ x).norm() / x.norm()),
        lambda X: torch.linalg.matrix_norm(X, 2),
        {
            "largest entry": spectral(lambda X, x: (X @ x).abs().max()),
            "squared": spectral(lambda X, x: (X @ x).square().sum()),
            "Frobenius": lambda X: X.norm(),
        },
    ),
    "5.44": Formula(
        matrices,
        by_eigenvectors(torch.sqrt),
        rebuilt,
        {"not rooted": by_eigenvectors(lambda x: x)},
    ),
    "5.45": Property(
        never_below,
        lower,
        {
            "Frobenius": lambda G, X: lower(G, X, "fro"),
            "greatest only": lambda G, X: lower(G, X, of=torch.max),
        },
    ),
    "5.46": Formula(
        matrices,
        flattened(-1, 0),
        polar_step,
        {
            "sign": flattened(1, 0),
            "the gradient": flattened(-1, 1),
            "its root": flattened(-1, 0.5),
        },
    ),
    "5.47": Property(
        typical,
        lambda n, m: math.sqrt(m / n),
        {
            "upside down": lambda n, m: math.sqrt(n / m),
            "root lost": lambda n, m: m / n,
            "1": lambda n, m: 1.0,
        },
    ),
    "5.48": Formula(
        matrices,
        quintic(1.5, -0.7, 0.2),
        on_values,
        {"exchanged": quintic(1.5, 0.2, -0.7), "cubic": quintic(1.5, -0.7, 0)},
    ),
    "5.49": Property(
        normalised,
        lambda G: torch.linalg.svdvals(G) / G.square().sum().sqrt(),
        {
            "spectral": lambda G: torch.linalg.svdvals(G) / torch.linalg.matrix_norm(G, 2),
            "root lost": lambda G: torch.linalg.svdvals(G) / G.square().sum(),
            "largest entry": lambda G: torch.linalg.svdvals(G) / G.abs().max(),
        },
    ),
    "5.50": Formula(
        lambda g: (normal(g, 9),),
        lambda x: (1 - x) ** 2 * (2 + x) / 2,
        lambda x: 1 - (3 * x - x**3) / 2,
        {
            "not squared": lambda x: (1 - x) * (2 + x) / 2,
            "sign": lambda x: (1 - x) ** 2 * (2 - x) / 2,
        },
    ),
    "5.51": Formula(
        lambda g: (normal(g, 9),),
        phi,
        lambda x: sum(c * x**k for c, k in zip(COEFFICIENTS, (1, 3, 5), strict=True)),
        {
            "sign": lambda x: 3.4445 * x + 4.7750 * x**3 + 2.0315 * x**5,
            "even": lambda x: 3.4445 * x - 4.7750 * x**2 + 2.0315 * x**4,
        },
    ),
    "5.52": Formula(
        lambda g: (),
        lambda: precisely(0.5545, 1.2024, 1.0501, 0.6818),
        turning_points,
        {"exchanged": lambda: precisely(1.0501, 1.2024, 0.5545, 0.6818)},
    ),
    "5.53": Property(
        stays,
        (0.6818, 1.1344),
        {"too wide": (0.6818, 1.2024), "too narrow": (0.7, 1.1344)},
    ),
    "5.54": Property(
        thresholds,
        (0.0052, 0.0015),
        {"a step too early": (0.0015, 0.0004), "a step too late": (0.0179, 0.0052)},
    ),
    "5.55": Formula(
        lambda g: ((7, 4), normal(g, 6, 7, 4)),
        muon_path,
        muon_torch,
        {
            "no second use": lambda shape, every: muon_path(shape, every, fresh=False),
            "size lost": lambda shape, every: muon_path(shape, every, tall=False),
            "other momentum": lambda shape, every: muon_path(shape, every, share=0.8),
        },
    ),
}

TestLedger = prove(PAGE, LEDGER)


class TestTheExperiment:
    def test_every_optimiser_has_five_searched_rates_and_five_fresh_seeds_at_the_best_of_them(self):
        cells = load_result("optimizers")["cells"]
        assert len(cells) == len(RATES) * (5 + len(SEEDS)) and SEARCH_SEED not in SEEDS
        for method, rates in RATES.items():
            assert all(cells[f"search/{method}/{lr}"]["settings"]["lr"] == lr for lr in rates)
            for seed in SEEDS:
                settings = cells[f"{method}/{seed}"]["settings"]
                assert (settings["lr"], settings["seed"]) == (best_rate(cells, method), seed)

    @pytest.mark.parametrize("method", [method for method in RATES if method != "Adam with L2"])
    def test_the_best_rate_is_no_end_of_the_search(self, method):
        chosen = best_rate(load_result("optimizers")["cells"], method)
        assert RATES[method][0] < chosen < RATES[method][-1]

    def test_it_was_made_from_the_texts_that_are_here(self):
        texts = {c["settings"]["texts"] for c in load_result("optimizers")["cells"].values()}
        assert texts == {data.load("wiki").sha256[:16]}

    def test_a_rate_that_was_not_searched_is_an_error_in_words(self):
        with pytest.raises(ValueError, match="no rate was searched for Lion"):
            best_rate({}, "Lion")

    @pytest.mark.parametrize("method", ["momentum", "AdamW", "Muon"])
    def test_the_first_steps_of_a_seed_run_again_are_those_stored(self, method):
        stored = load_result("optimizers")["cells"][f"{method}/0"]
        run = make_run(method, stored["settings"]["lr"], 0, tiny_corpus(), pick(amp=False))
        losses = smooth([record.loss for record in run.train(30)])
        assert losses[EVERY - 1 :: EVERY] == pytest.approx(stored["loss"][:3], abs=0.03)
