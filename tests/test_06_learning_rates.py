"""Every numbered equation of chapter 6 holds in float64, and its wrong versions do not."""

import functools
import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from ledger import Definition, Formula, Property, prove
from scipy import integrate, stats
from torch import Tensor
from torch.optim import lr_scheduler as torchs

from mslearn import rates, schedules
from mslearn.device import pick
from mslearn.experiments import load_result

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "06_learning_rates.ipynb"


def uniform(g: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=g, dtype=torch.float64).item()


def whole(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def several(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def truly(*_: object) -> float:
    """The oracle of a statement that is either true, 1, or false, 0."""
    return 1.0


# One direction of a quadratic: (6.1) to (6.20)


def a_step(g: torch.Generator) -> tuple[float, float, float, float]:
    """A rate, a curvature, a variance and a mean square."""
    curvature = uniform(g, 0.3, 3)
    return uniform(g, 0.05, 1.9) / curvature, curvature, uniform(g, 0.2, 2), uniform(g, 0.2, 5)


def after(rate: float, curvature: float, variance: float, s: float) -> float:
    return (1 - rate * curvature) ** 2 * s + rate**2 * variance


def by_all_signs(rate: float, curvature: float, variance: float, s: float) -> float:
    """The mean of c' squared over the four equally likely signs of distance and deviation."""
    ends = [
        ((1 - rate * curvature) * c - rate * xi) ** 2
        for c in (-math.sqrt(s), math.sqrt(s))
        for xi in (-math.sqrt(variance), math.sqrt(variance))
    ]
    return sum(ends) / 4


def repeat(rate: float, curvature: float, variance: float, s: float, steps: int) -> float:
    for _ in range(steps):
        s = after(rate, curvature, variance, s)
    return s


def fixed(rate: float, curvature: float, variance: float, s: float, power: int = 2) -> Tensor:
    end = rate * variance / (curvature * (2 - rate * curvature))
    return several(end + (1 - rate * curvature) ** (power * 7) * (s - end), end)


def memory(rate: float, curvature: float, variance: float, times: float = 2) -> Tensor:
    """What (6.3) says of a small rate: a share left after tau steps, and both limits over 1."""
    tau = 1 / (-times * math.log1p(-rate * curvature))
    end = rate * variance / (curvature * (2 - rate * curvature))
    share = math.exp(2 * tau * math.log1p(-rate * curvature))
    return several(share, tau * 2 * rate * curvature, tau * end * 4 * curvature**2 / variance)


def slope_at(rate: Callable[..., float]) -> Callable[..., Tensor]:
    """The derivative of (6.1) by the rate, at the rate that a formula gives."""

    def slope(curvature: float, variance: float, s: float) -> Tensor:
        at = torch.tensor(rate(curvature, variance, s), dtype=torch.float64, requires_grad=True)
        after(at, curvature, variance, s).backward()
        return at.grad

    return slope


def vertex(curvature: float, variance: float, s: float) -> tuple[float, float]:
    """The least point of the parabola in the rate, from three of its values."""
    y = [after(rate, curvature, variance, s) for rate in (0.0, 1.0, 2.0)]
    bend, rise = (y[2] - 2 * y[1] + y[0]) / 2, (4 * y[1] - y[2] - 3 * y[0]) / 2
    return -rise / (2 * bend), y[0] - rise**2 / (4 * bend)


def best_path(curvature: float, variance: float, s: float, steps: int) -> tuple[float, float]:
    """Mean square after so many best steps, and the rate of the next one."""
    for _ in range(steps):
        s = vertex(curvature, variance, s)[1]
    return s, vertex(curvature, variance, s)[0]


def start(g: torch.Generator) -> tuple[float, float, float]:
    return uniform(g, 0.3, 3), uniform(g, 0.2, 2), uniform(g, 0.2, 5)


def lead(curvature: float, variance: float, s: float) -> float:
    return variance / (curvature**2 * s)


def examples(g: torch.Generator) -> tuple[Tensor, float]:
    return normal(g, 9), uniform(g, -2, 2)


def search(y: Tensor, theta: float, rate: Callable[[int], float]) -> Tensor:
    theta = torch.tensor(theta, dtype=torch.float64)
    for t, each in enumerate(y):
        theta = theta - rate(t) * (theta - each)
    return theta


def forgetting(y: Tensor, theta: float, late: int = 1) -> Tensor:
    t = len(y)
    weights = 0.3 * 0.7 ** (t - late - torch.arange(t, dtype=torch.float64))
    return 0.7**t * theta + (weights * y).sum()


def meets_robbins_and_monro(allowed: Callable[[float], bool]) -> None:
    """Blocks of the sums from n to 2n shrink, or not, as a formula for the powers says."""

    def diverges(power: float, n: int = 2**17) -> bool:
        terms = np.arange(n, 4 * n, dtype=float) ** -power
        return bool(terms[n:].sum() > (1 - 1e-4) * terms[:n].sum())

    for power in (0.25, 0.5, 0.51, 0.75, 0.99, 1.0, 1.01, 1.5):
        assert allowed(power) == (diverges(power) and not diverges(2 * power))


def some_rates(g: torch.Generator) -> tuple[Tensor, float, float]:
    """Rates with products up to one half, one of them at it; a curvature; a variance."""
    products = torch.rand(12, generator=g, dtype=torch.float64) / 2
    products[3] = 0.5
    curvature = uniform(g, 0.3, 3)
    return products / curvature, curvature, uniform(g, 0.0, 2)


def never_forgets(factor: float) -> Callable[..., bool]:
    def holds(path: Tensor, curvature: float, variance: float) -> bool:
        s, product = 1.0, 1.0
        for rate in path.tolist():
            s, product = after(rate, curvature, variance, s), product * (1 - rate * curvature) ** 2
        bound = math.exp(-factor * curvature * path.sum().item())
        return s >= product >= bound

    return holds


def on_a_grid(statement: Callable[[float, float, float, float], bool]) -> Callable[..., bool]:
    """A statement of one step for every s of a grid, 0 among them."""

    def holds(path: Tensor, curvature: float, variance: float) -> bool:
        variance += 0.1  # not 0, or nothing is let in
        return all(
            statement(rate, curvature, variance, s)
            for rate in path.tolist()
            for s in (0.0, 0.01, 0.5, 3.0)
        )

    return holds


def two_cases(above: float = 0.5, below: float = 1.0) -> Callable[..., bool]:
    def holds(path: Tensor, curvature: float, variance: float) -> bool:
        epsilon = 0.7
        for rate in path.tolist():
            rate = min(rate, 0.5 * curvature * epsilon / (variance + 0.1))
            for s in (0.0, 0.3, 0.69999, 0.7, 0.9, 4.0):
                end = after(rate, curvature, variance + 0.1, s)
                limit = s - above * curvature * epsilon * rate if s >= epsilon else below * epsilon
                if end > limit + 1e-12:
                    return False
        return True

    return holds


@functools.cache
def harmonic_end(a: float, curvature: float, variance: float, steps: int = 200_000) -> float:
    """s times t at the end of a run with rates a / (t + 1)."""
    s = 0.3
    for t in range(steps):
        s = after(a / (t + 1), curvature, variance, s)
    return s * steps


def constant_of_a_harmonic_rate(formula: Callable[[float, float, float], float]) -> None:
    for a, curvature, variance in ((1.0, 1.5, 0.7), (0.9, 2.5, 1.3)):
        expected = formula(a, curvature, variance)
        assert harmonic_end(a, curvature, variance) == pytest.approx(expected, rel=1e-3)


def decay_of_the_start(power: Callable[[float], float]) -> None:
    """Twice the steps multiply what is left of the start by 2 to that power."""
    u = np.arange(1, 2_000_001)
    for product in (0.05, 0.3, 0.8):
        logs = 2 * np.log1p(-product / u)
        assert logs[1_000_000:].sum() / math.log(2) == pytest.approx(power(product), abs=1e-5)


@functools.cache
def fallen(rate: float, curvature: float, variance: float, steps: int) -> float:
    """s after a linear fall of so many steps from the floor of a rate."""
    s = rate * variance / (curvature * (2 - rate * curvature))
    for left in range(steps, 0, -1):
        s = after(rate * left / steps, curvature, variance, s)
    return s


def a_fall(formula: Callable[..., float], rel: float = 0.01) -> None:
    for case in ((1e-3, 1.3, 0.8, 3000), (2e-3, 0.5, 1.4, 4000)):
        assert fallen(*case) == pytest.approx(formula(*case), rel=rel)


def fall_integral(floor: float = 1.0, power: int = 2, speed: float = 1.0) -> Callable[..., float]:
    def formula(rate: float, curvature: float, variance: float, d: int) -> float:
        inner, _ = integrate.quad(
            lambda r: (rate * r / d) ** power * math.exp(-speed * curvature * rate * r**2 / d), 0, d
        )
        end = rate * variance / (curvature * (2 - rate * curvature))
        return variance * inner + floor * end * math.exp(-speed * curvature * rate * d)

    return formula


def a_long_fall(formula: Callable[..., tuple[float, float]]) -> None:
    for case in ((1e-3, 1.3, 0.8, 300_000), (3e-3, 2.0, 1.4, 100_000)):
        rate, curvature, variance, _ = case
        floor = rate * variance / (curvature * (2 - rate * curvature))
        end, ratio = formula(*case)
        assert fallen(*case) == pytest.approx(end, rel=0.01)
        assert fallen(*case) / floor == pytest.approx(ratio, rel=0.01)


def long_fall(times: float = 1.0, power: float = 0.5) -> Callable[..., tuple[float, float]]:
    def formula(rate: float, curvature: float, variance: float, d: int) -> tuple[float, float]:
        end = math.sqrt(math.pi) / 4 * variance * math.sqrt(rate) / (curvature**1.5 * d**power)
        return times * end, times * math.sqrt(math.pi) / (2 * (rate * curvature * d) ** power)

    return formula


# Schedules: (6.21) to (6.30)


def a_plan(g: torch.Generator) -> tuple[float, int, int]:
    """A peak, a warm-up of two steps or more, and the steps of the run."""
    steps = whole(g, 12, 60)
    return uniform(g, 0.01, 3), whole(g, 2, steps - 5), steps


def torch_rates(peak: float, steps: int, make: Callable) -> Tensor:
    """The rates that torch's schedulers give."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler, seen = make(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return several(*seen)


def rising(o: torch.optim.Optimizer, warmup: int) -> torchs.LRScheduler:
    return torchs.LinearLR(o, 1 / warmup, 1.0, total_iters=warmup - 1)


def rising_then(rest: Callable) -> Callable:
    """Torch's rates after its warm-up, `rest(optimizer, steps left)` from there."""

    def oracle(peak: float, warmup: int, steps: int) -> Tensor:
        def make(o: torch.optim.Optimizer) -> torchs.LRScheduler:
            both = [rising(o, warmup), rest(o, steps - warmup, peak)]
            return torchs.SequentialLR(o, both, milestones=[warmup])

        return torch_rates(peak, steps, make)[warmup:]

    return oracle


def each(at: Callable[[float, int, int, int], float], late: bool = True) -> Callable:
    """A formula's rates, after the warm-up or in it."""

    def page(peak: float, warmup: int, steps: int) -> Tensor:
        chosen = range(warmup, steps) if late else range(warmup)
        return several(*(at(t, peak, warmup, steps) for t in chosen))

    return page


SHARE, FALL = 0.2, 4


def cosine(
    t: int, peak: float, warmup: int, steps: int, last: int = 1, share: float = SHARE
) -> float:
    x = (t - warmup) / (steps - last - warmup)
    return peak * (share + (1 - share) * (1 + math.cos(math.pi * x)) / 2)


def three_parts(peak: float, warmup: int, steps: int) -> Tensor:
    """Torch's warm-up, constant and linear fall, one after the other."""

    def make(o: torch.optim.Optimizer) -> torchs.LRScheduler:
        flat = torchs.ConstantLR(o, 1.0, total_iters=steps)
        falling = torchs.LinearLR(o, 1.0, 0.0, total_iters=FALL)
        parts, ends = [rising(o, warmup), flat, falling], [warmup, steps - FALL]
        return torchs.SequentialLR(o, parts, milestones=ends)

    return torch_rates(peak, steps, make)


def from_the_start(at: Callable) -> Callable:
    return lambda peak, warmup, steps: several(*(at(t, peak, warmup, steps) for t in range(steps)))


def paper_of_the_transformer(peak: float, warmup: int, steps: int) -> Tensor:
    """Vaswani et al. 2017, equation 3, scaled so that its peak is `peak`."""
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    rate = torch.minimum(t**-0.5, t * warmup**-1.5)
    return peak * rate / rate[warmup - 1]


def mean_rates(linear: float, wave: Callable[[float], float], flat: Callable) -> None:
    steps = 20_000
    for share, fall in ((0.0, 0.3), (0.1, 0.6)):
        made = {
            linear: schedules.warmup_linear(1.0, 0, steps),
            wave(share): schedules.warmup_cosine(1.0, 0, steps, share),
            flat(fall): schedules.warmup_stable_decay(1.0, 0, steps, fall),
        }
        for expected, schedule in made.items():
            mean = sum(schedule(t) for t in range(steps)) / steps
            assert mean == pytest.approx(expected, abs=1e-4)


THRESHOLD, PATIENCE, FACTOR, LEAST, COOLDOWN = 0.02, 1, 0.5, 0.1, 2
State = tuple[float, float, int, int]


def look(state: State, z: float, better: Callable = lambda z, b: z < (1 - THRESHOLD) * b) -> State:
    rate, best, waited, cooling = state
    return (rate, z, 0, cooling) if better(z, best) else (rate, best, waited + 1, cooling)


def cool(state: State, reset: bool = True) -> State:
    rate, best, waited, cooling = state
    return (rate, best, 0 if reset else waited, cooling - 1) if cooling > 0 else state


def reduce(
    state: State, due: Callable = lambda n: n > PATIENCE, least: float = LEAST, q: int = COOLDOWN
) -> State:
    rate, best, waited, _ = state
    return (max(FACTOR * rate, least), best, 0, q) if due(waited) else state


def machine(first: Callable = look, second: Callable = cool, third: Callable = reduce) -> Callable:
    """The rates after each score, by the three lines in their order."""

    def rates_of(scores: list[float]) -> Tensor:
        state, seen = (1.0, math.inf, 0, 0), []
        for z in scores:
            state = third(second(first(state, z)))
            seen.append(state[0])
        return several(*seen)

    return rates_of


def torchs_plateau(scores: list[float]) -> Tensor:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    settings = (FACTOR, PATIENCE, THRESHOLD, "rel", COOLDOWN, LEAST)
    scheduler, seen = torchs.ReduceLROnPlateau(optimizer, "min", *settings), []
    for score in scores:
        scheduler.step(score)
        seen.append(optimizer.param_groups[0]["lr"])
    return several(*seen)


def scores(g: torch.Generator) -> tuple[list[float]]:
    """Falling and noisy, with gains near the threshold."""
    trend = torch.linspace(2, 1, 30, dtype=torch.float64)
    return ((trend + 0.03 * normal(g, 30)).tolist(),)


def by_every_order(n: int, p: int) -> float:
    """Share of the orders of n + p + 1 scores in which the best is among the first n."""
    orders = list(itertools.permutations(range(n + p + 1)))
    return float(Fraction(sum(min(o) in o[:n] for o in orders), len(orders)))


# Curvature, Adam, batch, over-fitting: (6.31) to (6.44)


def curved(theta: Tensor) -> Tensor:
    a = torch.linspace(-1, 2, 12, dtype=torch.float64).view(4, 3)
    return (a @ theta).logsumexp(0) + (theta**3).sum() / 5


def third_order(expansion: Callable[..., Tensor]) -> None:
    """A tenth of the rate leaves a thousandth of the error."""
    theta = several(0.3, -0.5, 0.8)
    g = torch.func.grad(curved)(theta)
    bend = g @ torch.func.hessian(curved)(theta) @ g
    error = [
        abs(curved(theta - rate * g) - expansion(curved(theta), rate, g, bend)).item()
        for rate in (1e-2, 1e-3)
    ]
    assert 700 < error[0] / error[1] < 1300


def symmetric(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A symmetric matrix, not always definite, and a vector along which it curves upwards."""
    while True:
        a, v = normal(g, 4, 4), normal(g, 4)
        h = a + a.T
        if v @ h @ v > 0.1:
            return h, v


def allowed(h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * v @ v / (v @ h @ v), torch.linalg.eigvalsh(h)[-1]


def adams_first_step(gradient: Tensor) -> Tensor:
    """Torch's, in units of the rate."""
    parameter = torch.zeros_like(gradient, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=0.5, eps=0.0)
    parameter.grad = gradient
    optimizer.step()
    return -parameter.detach() / 0.5


def weights(beta: float, t: int) -> Tensor:
    """Of t gradients in the corrected average, from the recursion: each in turn is 1."""
    found = []
    for u in range(t):
        m = 0.0
        for step in range(t):
            m = beta * m + (1 - beta) * (step == u)
        found.append(m / (1 - beta**t))
    return several(*found)


def effective(beta: float, t: int) -> float:
    return (1 + beta) * (1 - beta**t) / ((1 - beta) * (1 + beta**t))


def averaging(g: torch.Generator) -> tuple[float, int]:
    return uniform(g, 0.5, 0.99), whole(g, 1, 12)


def moments(beta: float, t: int, values: np.ndarray, chances: np.ndarray) -> tuple:
    """E m², E v, E v² over every sequence of t independent draws, exactly."""
    w, total = weights(beta, t).numpy(), np.zeros(3)
    for chosen in itertools.product(range(len(values)), repeat=t):
        chance, drawn = chances[list(chosen)].prod(), values[list(chosen)]
        m, v = w @ drawn, w @ drawn**2
        total += chance * np.array([m * m, v, v * v])
    return tuple(total)


def noise_to_size(beta: float, t: int) -> float:
    m2, v, _ = moments(beta, t, np.array([-3.0, -1.0, 1.0, 3.0]), np.array([0.1, 0.4, 0.4, 0.1]))
    return m2 / v


def spread_of_v(beta: float, t: int) -> float:
    """For Gaussian gradients: five nodes of Gauss and Hermite are exact up to the ninth power."""
    nodes, chances = np.polynomial.hermite.hermgauss(5)
    _, v, v2 = moments(beta, t, math.sqrt(2) * nodes, chances / math.sqrt(math.pi))
    return (v2 - v * v) / v**2


def few(g: torch.Generator) -> tuple[float, int]:
    return uniform(g, 0.5, 0.99), whole(g, 1, 4)


def j(n: float) -> float:
    return 2 ** (n / 2) * math.gamma(n / 2)


def batches(g: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """A place, five gradients that do not depend on it, a rate."""
    return normal(g, 3), normal(g, 5, 3), uniform(g, 0.01, 1)


def small_steps(theta: Tensor, gradients: Tensor, rate: float) -> Tensor:
    parameter = theta.clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], lr=rate)
    for gradient in gradients:
        optimizer.zero_grad()
        (gradient @ parameter).backward()
        optimizer.step()
    return parameter.detach()


def large_step(bound: Callable[[float], float], low: float = 0.0) -> bool:
    for k in (1, 2, 5, 40):
        for u in np.linspace(0, 1, 101):
            if k * u > 3:
                continue
            gap = (1 - u) ** k - (1 - k * u)
            if not low - 1e-12 <= gap <= bound(k * u) + 1e-12:
                return False
    return True


def a_small_rate(g: torch.Generator) -> tuple[float, float, Tensor, int]:
    """A rate, the deviation of one example's gradient, curvatures, a batch."""
    return 1e-10, uniform(g, 0.5, 3), uniform(g, 0.1, 1) * torch.ones(4).double(), whole(g, 2, 64)


def floors(rate: float, sigma: float, curvatures: Tensor, batch: int) -> Tensor:
    """The sum in (4.47), in units of the rate, over directions that share the noise out."""
    shares = torch.softmax(torch.arange(4.0).double(), 0)
    return (shares * sigma**2 / batch / (2 * (2 - rate * curvatures))).sum()


def promise(g: torch.Generator) -> tuple[float, float, float, float]:
    """L, squared gradient, variance of one example, batch."""
    return uniform(g, 0.5, 4), uniform(g, 0.1, 2), uniform(g, 0.5, 30), uniform(g, 1, 64)


def slope_of_promise(rate: Callable[..., float]) -> Callable[..., Tensor]:
    def slope(curvature: float, square: float, variance: float, batch: float) -> Tensor:
        at = torch.tensor(
            rate(curvature, square, variance, batch), dtype=torch.float64, requires_grad=True
        )
        fall = at * (1 - at * curvature / 2) * square - at**2 * curvature / 2 * variance / batch
        fall.backward()
        return at.grad

    return slope


def adam_in_noise(rate: float, sigma: float, batch: float) -> Tensor:
    """How far Adam's step answers to its mean gradient, where the mean square is the noise's."""
    mean = several(0.01).requires_grad_()
    step = rate * mean / torch.sqrt(several(sigma**2 / batch))
    step.backward()
    return torch.stack([mean.grad[0], mean.grad[0] / batch])


def between(second: float = 1.0, upper: float = 1.0) -> bool:
    for u in np.linspace(0, 0.5, 51):
        for steps in (1, 3, 50):
            left = (1 - u) ** steps
            low, high = math.exp(-u * steps * (1 + second * u)), math.exp(-upper * u * steps)
            if not low <= left * (1 + 1e-12) or not left <= high * (1 + 1e-12):
                return False
    return True


LEDGER = {
    "6.1": Formula(
        a_step,
        after,
        by_all_signs,
        {
            "noise not squared": lambda a, k, v, s: (1 - a * k) ** 2 * s + a * v,
            "share not squared": lambda a, k, v, s: (1 - a * k) * s + a**2 * v,
        },
    ),
    "6.2": Formula(
        a_step,
        fixed,
        lambda *case: several(repeat(*case, 7), repeat(*case, 6000)),
        {
            "power t": lambda *case: fixed(*case, power=1),
            "factor 2 for the difference": lambda a, k, v, s: fixed(a, k, v, s) * (2 - a * k) / 2,
        },
    ),
    "6.3": Formula(
        lambda g: (1e-11, uniform(g, 0.3, 3), uniform(g, 0.2, 2)),
        memory,
        lambda *_: several(math.exp(-1), 1, 1),
        {"factor 2 lost": lambda *case: memory(*case, times=1)},
    ),
    "6.4": Formula(
        start,
        slope_at(lambda k, v, s: k * s / (k**2 * s + v)),
        lambda *_: 0.0,
        {
            "without noise": slope_at(lambda k, v, s: 1 / k),
            "curvature not squared": slope_at(lambda k, v, s: k * s / (k * s + v)),
        },
    ),
    "6.5": Formula(
        start,
        lambda k, v, s: several(v * s / (k**2 * s + v), 1 / (1 / s + k**2 / v)),
        lambda *case: several(vertex(*case)[1], vertex(*case)[1]),
        {
            "curvature not squared": lambda k, v, s: several(v * s / (k * s + v)).expand(2),
            "minus": lambda k, v, s: several(1 / (1 / s - k**2 / v)).expand(2),
        },
    ),
    "6.6": Formula(
        start,
        lambda k, v, s: v / (k**2 * (9 + lead(k, v, s))),
        lambda *case: best_path(*case, 9)[0],
        {
            "start forgotten": lambda k, v, s: v / (k**2 * 9),
            "a step more": lambda k, v, s: v / (k**2 * (10 + lead(k, v, s))),
        },
    ),
    "6.7": Formula(
        start,
        lambda k, v, s: 1 / (k * (9 + lead(k, v, s) + 1)),
        lambda *case: best_path(*case, 9)[1],
        {
            "a step less": lambda k, v, s: 1 / (k * (9 + lead(k, v, s))),
            "root": lambda k, v, s: 1 / (k * (9 + lead(k, v, s) + 1)) ** 0.5,
        },
    ),
    "6.8": Formula(
        examples,
        lambda y, theta: search(y, theta, lambda t: 1 / (t + 1)),
        lambda y, theta: y.mean(),
        {
            "a step late": lambda y, theta: search(y, theta, lambda t: 1 / (t + 2)),
            "fixed": lambda y, theta: search(y, theta, lambda t: 0.3),
        },
    ),
    "6.9": Formula(
        examples,
        forgetting,
        lambda y, theta: search(y, theta, lambda t: 0.3),
        {
            "exponent one more": lambda y, theta: forgetting(y, theta, late=0),
            "start forgotten": lambda y, theta: forgetting(y, 0.0),
        },
    ),
    "6.10": Definition("two conditions that a sequence of rates meets or does not meet"),
    "6.11": Property(
        meets_robbins_and_monro,
        lambda a: 0.5 < a <= 1,
        {
            "with one half": lambda a: 0.5 <= a <= 1,
            "without one": lambda a: 0.5 < a < 1,
            "any power above": lambda a: a > 0.5,
        },
    ),
    "6.12": Formula(
        some_rates,
        never_forgets(4),
        truly,
        {"factor 2": never_forgets(2), "half": never_forgets(1)},
    ),
    "6.13": Formula(
        some_rates,
        on_a_grid(lambda a, k, v, s: after(a, k, v, s) >= a**2 * v),
        truly,
        {"twice": on_a_grid(lambda a, k, v, s: after(a, k, v, s) >= 2 * a**2 * v)},
    ),
    "6.14": Formula(
        some_rates,
        on_a_grid(lambda a, k, v, s: after(a, k, v, s) <= s - a * (k * s - a * v) + 1e-12),
        truly,
        {
            "twice as steep": on_a_grid(
                lambda a, k, v, s: after(a, k, v, s) <= s - a * (2 * k * s - a * v) + 1e-12
            ),
            "half the noise": on_a_grid(
                lambda a, k, v, s: after(a, k, v, s) <= s - a * (k * s - a * v / 2) + 1e-12
            ),
        },
    ),
    "6.15": Formula(
        some_rates,
        two_cases(),
        truly,
        {"falls four times as fast": two_cases(above=2.0), "half": two_cases(below=0.5)},
    ),
    "6.16": Property(
        constant_of_a_harmonic_rate,
        lambda a, k, v: a**2 * v / (2 * a * k - 1),
        {
            "plus": lambda a, k, v: a**2 * v / (2 * a * k + 1),
            "factor 2 lost": lambda a, k, v: a**2 * v / (a * k - 1),
            "rate not squared": lambda a, k, v: a * v / (2 * a * k - 1),
        },
    ),
    "6.17": Property(
        decay_of_the_start,
        lambda product: -2 * product,
        {"factor 2 lost": lambda product: -product},
    ),
    "6.18": Property(
        a_fall,
        fall_integral(),
        {
            "floor forgotten": fall_integral(floor=0.0),
            "rate not squared": fall_integral(power=1),
            "half as fast": fall_integral(speed=0.5),
        },
    ),
    "6.19": Formula(
        lambda g: (uniform(g, 0.5, 4),),
        lambda b: math.sqrt(math.pi) / (4 * b**1.5),
        lambda b: integrate.quad(lambda r: r**2 * math.exp(-b * r**2), 0, 12, epsabs=1e-13)[0],
        {
            "half": lambda b: math.sqrt(math.pi) / (2 * b**1.5),
            "root of b": lambda b: math.sqrt(math.pi) / (4 * b**0.5),
        },
    ),
    "6.20": Property(
        a_long_fall,
        long_fall(),
        {"half": long_fall(times=0.5), "proportional to 1/d": long_fall(power=1.0)},
    ),
    "6.21": Formula(
        a_plan,
        each(lambda t, peak, w, n: peak * (t + 1) / w, late=False),
        lambda peak, w, n: torch_rates(peak, w, lambda o: rising(o, w)),
        {"from zero": each(lambda t, peak, w, n: peak * t / w, late=False)},
    ),
    "6.22": Formula(
        a_plan,
        each(lambda t, peak, w, n: peak * (n - t) / (n - w)),
        rising_then(lambda o, left, _: torchs.LinearLR(o, 1.0, 0.0, total_iters=left)),
        {
            "to zero at the last step": each(
                lambda t, peak, w, n: peak * (n - 1 - t) / (n - 1 - w)
            ),
            "warm-up not counted": each(lambda t, peak, w, n: peak * (n - t) / n),
        },
    ),
    "6.23": Formula(
        a_plan,
        each(cosine),
        rising_then(
            lambda o, left, peak: torchs.CosineAnnealingLR(o, left - 1, eta_min=SHARE * peak)
        ),
        {
            "a step longer": each(lambda *case: cosine(*case, last=0)),
            "to zero": each(lambda *case: cosine(*case, share=0)),
        },
    ),
    "6.24": Formula(
        a_plan,
        from_the_start(lambda t, peak, w, n: peak * min(1, (t + 1) / w, (n - t) / FALL)),
        three_parts,
        {
            "greatest": from_the_start(
                lambda t, peak, w, n: peak * max((t + 1) / w, (n - t) / FALL)
            ),
            "a step early": from_the_start(
                lambda t, peak, w, n: peak * min(1, (t + 1) / w, (n - 1 - t) / FALL)
            ),
        },
    ),
    "6.25": Formula(
        a_plan,
        from_the_start(lambda t, peak, w, n: peak * min((t + 1) / w, math.sqrt(w / (t + 1)))),
        paper_of_the_transformer,
        {
            "root lost": from_the_start(lambda t, peak, w, n: peak * min((t + 1) / w, w / (t + 1))),
            "a step early": from_the_start(
                lambda t, peak, w, n: peak * min((t + 1) / w, math.sqrt(w / (t + 2)))
            ),
        },
    ),
    "6.26": Property(
        lambda means: mean_rates(*means),
        (0.5, lambda share: (1 + share) / 2, lambda fall: 1 - fall / 2),
        {
            "share not added": (0.5, lambda share: 0.5, lambda fall: 1 - fall / 2),
            "whole fall": (0.5, lambda share: (1 + share) / 2, lambda fall: 1 - fall),
        },
    ),
    "6.27": Formula(
        scores,
        machine(),
        torchs_plateau,
        {
            "any gain will do": machine(first=lambda *a: look(*a, better=lambda z, b: z < b)),
            "threshold added": machine(
                first=lambda *a: look(*a, better=lambda z, b: z < (1 + THRESHOLD) * b)
            ),
        },
    ),
    "6.28": Formula(
        scores,
        machine(),
        torchs_plateau,
        {
            "counts while cooling": machine(second=lambda s: cool(s, reset=False)),
            "never cools": machine(second=lambda s: s),
        },
    ),
    "6.29": Formula(
        scores,
        machine(),
        torchs_plateau,
        {
            "one early": machine(third=lambda s: reduce(s, due=lambda n: n >= PATIENCE)),
            "no least rate": machine(third=lambda s: reduce(s, least=0)),
            "no cooldown": machine(third=lambda s: reduce(s, q=0)),
        },
    ),
    "6.30": Formula(
        lambda g: (whole(g, 1, 4), whole(g, 0, 2)),
        lambda n, p: n / (n + p + 1),
        by_every_order,
        {"one less": lambda n, p: n / (n + p), "the other": lambda n, p: (p + 1) / (n + p + 1)},
    ),
    "6.31": Property(
        third_order,
        lambda f, rate, g, bend: f - rate * g @ g + rate**2 / 2 * bend,
        {
            "half lost": lambda f, rate, g, bend: f - rate * g @ g + rate**2 * bend,
            "sign": lambda f, rate, g, bend: f - rate * g @ g - rate**2 / 2 * bend,
        },
    ),
    "6.32": Formula(
        symmetric,
        lambda h, v: allowed(h, v)[0] >= 2 / allowed(h, v)[1],
        truly,
        {
            "reversed": lambda h, v: allowed(h, v)[0] <= 2 / allowed(h, v)[1],
            "twice": lambda h, v: allowed(h, v)[0] >= 20 / allowed(h, v)[1],
        },
    ),
    "6.33": Formula(
        lambda g: (normal(g, 6),),
        lambda gradient: gradient / gradient.abs(),
        adams_first_step,
        {"the gradient": lambda gradient: gradient, "inverse": lambda gradient: 1 / gradient},
    ),
    "6.34": Formula(
        averaging,
        effective,
        lambda beta, t: 1 / weights(beta, t).square().sum(),
        {
            "not corrected": lambda beta, t: (1 + beta) / (1 - beta) / (1 - beta ** (2 * t)),
            "signs exchanged": lambda beta, t: (
                (1 + beta) * (1 + beta**t) / ((1 - beta) * (1 - beta**t))
            ),
        },
    ),
    "6.35": Formula(
        few,
        lambda beta, t: 1 / effective(beta, t),
        noise_to_size,
        {
            "root": lambda beta, t: effective(beta, t) ** -0.5,
            "always 1": lambda beta, t: 1.001,
        },
    ),
    "6.36": Formula(
        few,
        lambda beta, t: 2 / effective(beta, t),
        spread_of_v,
        {"of a mean": lambda beta, t: 1 / effective(beta, t)},
    ),
    "6.37": Formula(
        lambda g: (uniform(g, 0.5, 2), uniform(g, 2.5, 40)),
        lambda sigma, n: several(n / sigma**2 * j(n - 2) / j(n), n / (n - 2) / sigma**2),
        lambda sigma, n: several(n / sigma**2 * stats.invgamma(n / 2, scale=0.5).mean()).expand(2),
        {
            "n − 1": lambda sigma, n: several(n / (n - 1) / sigma**2).expand(2),
            "the mean's inverse": lambda sigma, n: several(1 / sigma**2).expand(2),
        },
    ),
    "6.38": Formula(
        lambda g: (uniform(g, 1e-5, 1e-3), uniform(g, 0.1, 10)),
        lambda low, high: several(*(low * (high / low) ** (k / 19) for k in range(20))),
        lambda low, high: torch.tensor(np.geomspace(low, high, 20)),
        {"never at the end": lambda a, b: several(*(a * (b / a) ** (k / 20) for k in range(20)))},
    ),
    "6.39": Formula(
        batches,
        lambda theta, gradients, rate: theta - 5 * rate * gradients.mean(0),
        small_steps,
        {
            "rate not scaled": lambda theta, gradients, rate: theta - rate * gradients.mean(0),
            "root": lambda theta, gradients, rate: theta - 5**0.5 * rate * gradients.mean(0),
        },
    ),
    "6.40": Formula(
        lambda g: (),
        lambda: large_step(lambda ku: ku**2 / 2),
        truly,
        {
            "quarter": lambda: large_step(lambda ku: ku**2 / 4),
            "not squared": lambda: large_step(lambda ku: ku / 5),
        },
    ),
    "6.41": Formula(
        a_small_rate,
        lambda rate, sigma, curvatures, batch: sigma**2 / 4 / batch,
        floors,
        {
            "root of the batch": lambda rate, sigma, k, batch: sigma**2 / 4 / batch**0.5,
            "half": lambda rate, sigma, k, batch: sigma**2 / 2 / batch,
        },
    ),
    "6.42": Formula(
        promise,
        slope_of_promise(lambda k, square, v, batch: 1 / k / (1 + v / square / batch)),
        lambda *_: 0.0,
        {
            "without noise": slope_of_promise(lambda k, square, v, batch: 1 / k),
            "root of the batch": slope_of_promise(
                lambda k, square, v, batch: 1 / k / (1 + v / square / batch**0.5)
            ),
        },
    ),
    "6.43": Formula(
        lambda g: (uniform(g, 1e-3, 1), uniform(g, 0.5, 3), uniform(g, 2, 64)),
        lambda rate, sigma, b: several(rate * b**0.5 / sigma, rate / (sigma * b**0.5)),
        adam_in_noise,
        {
            "linear": lambda rate, sigma, b: several(rate * b / sigma, rate / sigma),
            "divided": lambda rate, sigma, b: several(rate / b**0.5, rate / b**1.5) / sigma,
        },
    ),
    "6.44": Formula(
        lambda g: (),
        between,
        truly,
        {
            "half": lambda: between(second=0.5),
            "faster": lambda: between(upper=1.2),
        },
    ),
}


TestLedger = prove(PAGE, LEDGER)


class TestTheExperiment:
    def test_every_shape_is_stored_with_three_seeds_at_its_best_peak(self):
        cells = load_result("rates")["cells"]
        for shape in rates.SHAPES:
            peak = rates.best_peak(cells, shape)
            for seed in (0, 1, 2):
                assert cells[f"schedule/{shape}/{seed}"]["settings"]["peak"] == peak

    def test_a_seed_run_again_gives_what_is_stored(self):
        stored = load_result("rates")["cells"]["schedule/linear/0"]
        peak = stored["settings"]["peak"]
        again = rates.by_shape(rates.texts(), "linear", peak, 0, "test", pick())
        assert again["bits_per_byte"] == pytest.approx(stored["bits_per_byte"], abs=0.03)
