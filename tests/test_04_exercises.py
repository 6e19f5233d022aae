"""Chapter 4's exercises: wrong answers, and the words that each of them must meet."""

from collections.abc import Callable

import torch
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {"step": [-0.2, 0.7], "limit": 0.5, "best": 0.4, "factor": 0.6}


def fit(
    sign: int = 1, keep: bool = False, mean: bool = True, in_place: bool = False, start: bool = True
) -> Callable:
    """A fit by descent that goes wrong where its arguments say so."""

    def answer(x: Tensor, y: Tensor, rate: float, steps: int) -> Tensor:
        theta = torch.zeros(x.shape[1], dtype=x.dtype)
        path, slope = [theta], torch.zeros_like(theta)
        for _ in range(steps):
            new = -(y - x @ theta) @ x / (len(x) if mean else 1)
            slope = slope + new if keep else new
            theta = theta.sub_(rate * slope) if in_place else theta - sign * rate * slope
            path.append(theta)
        return torch.stack(path if start else path[1:])

    return answer


def shared(change: Callable) -> Callable:
    """The gradient of the shared matrix as `change(x, a, r, w)` makes it, r not yet divided."""

    def answer(x: Tensor, t: Tensor, w: Tensor) -> Tensor:
        a = (x @ w).tanh()
        return change(x, a, a @ w - t, w)

    return answer


def curvature(
    weight: Callable = lambda p: p * (1 - p),
    products: int = 300,
    mean: bool = True,
    start: Callable = lambda d: torch.randn(d, generator=torch.Generator().manual_seed(1)),
    penalised: bool = True,
) -> Callable:
    """Power iteration that goes wrong where its arguments say so."""

    def answer(x: Tensor, w: Tensor, penalty: float) -> float:
        rows = weight((x @ w).sigmoid()) / (len(x) if mean else 1)
        v = start(len(w)).to(x)
        for _ in range(products):
            v = v / v.norm()
            v = x.T @ (rows * (x @ v)) + penalised * penalty * v
        return v.norm().item()

    return answer


def deviation(
    kind: Callable = lambda replacement: replacement,
    right: Callable = lambda slopes: slopes.mean(0),
    size: Callable = lambda off: off.square().sum(),
    divide: bool = True,
    again: bool = False,
    seeded: bool = True,
) -> Callable:
    """A measured deviation that goes wrong where its arguments say so."""

    def answer(slopes: Tensor, batch: int, replacement: bool, draws: int, seed: int) -> float:
        g, total = torch.Generator(), 0.0
        g.manual_seed(seed if seeded else torch.seed() % 999)
        for _ in range(draws):
            if again:
                g.manual_seed(seed)
            drawn = torch.randint(len(slopes), (batch,), generator=g)
            once = torch.randperm(len(slopes), generator=g)[:batch]
            rows = drawn if kind(replacement) else once
            total += size(slopes[rows].mean(0) - right(slopes)).item()
        return total / draws if divide else total

    return answer


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(reference, rate, seed, number of the run)`."""

    def answer(rates: list[float], seeds: list[int]) -> dict[float, list[float]]:
        reference = grade.load("04")["04.6"].reference

        def one(rate: float, seed: int) -> float:
            return reference([rate], [seed])[rate][0]

        runs = iter(range(len(rates) * len(seeds)))
        return {r: [change(one, r, s, next(runs)) for s in seeds] for r in rates}

    return answer


def trained(
    once: bool = False, start: float | None = None, least: bool = True, batch: int = 4
) -> Callable:
    """A training of one's own: points drawn once for all rates, from afar, or the whole loss."""

    def answer(rates: list[float], seeds: list[int]) -> dict[float, list[float]]:
        points = grade.load("04")["04.6"].reference.__globals__["points"]
        made = {seed: points(seed) for seed in seeds}

        def run(rate: float, seed: int) -> float:
            x, y, g = made[seed] if once else points(seed)
            best = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
            theta = best if start is None else torch.full((2,), start)
            losses = []
            for _ in range(400):
                rows = torch.randint(200, (batch,), generator=g)
                theta = theta - rate * (x[rows] @ theta - y[rows]) @ x[rows] / batch
                losses.append((y - x @ theta).square().mean() / 2)
            floor = (y - x @ best).square().mean() / 2
            return (torch.stack(losses).mean() - least * floor).item()

        return {rate: [run(rate, seed) for seed in seeds] for rate in rates}

    return answer


def only_the_mean(rates: list[float], seeds: list[int]) -> dict[float, float]:
    return {each: each / 7 for each in rates}


WRONG = {
    "04.1": {
        "uphill": ({**RIGHT, "step": [2.2, 1.3]}, "this goes uphill"),
        "coefficients": ({**RIGHT, "step": [0.4, 0.85], "limit": 1.0}, "derivative of 2a² is 4a"),
        "coefficient for curvature": ({**RIGHT, "limit": 1.0}, "the second derivative"),
        "one over L": ({**RIGHT, "limit": 0.25}, "the range goes on beyond it"),
        "the flat direction": ({**RIGHT, "limit": 2.0}, "the steepest direction asks most"),
        "best for a alone": ({**RIGHT, "best": 0.25, "factor": 0.75}, "the balance of the two"),
        "of the loss": ({**RIGHT, "factor": 0.36}, "the distance by its root"),
        "half done": ({**RIGHT, "best": None}, "there is no number yet"),
    },
    "04.2": {
        "as handed out": (fit(keep=True, mean=False), "it still holds the first gradient"),
        "still forgotten": (fit(keep=True), "it still holds the first gradient"),
        "still a sum": (fit(mean=False), "sum or mean?"),
        "uphill": (fit(sign=-1), "this goes uphill"),
        "in place": (fit(in_place=True), "changed in place"),
        "no start": (fit(start=False), "41 points"),
    },
    "04.3": {
        "second layer": (shared(lambda x, a, r, w: a.T @ r / len(x)), "second layer alone"),
        "first layer": (
            shared(lambda x, a, r, w: x.T @ ((r @ w.T) * (1 - a**2)) / len(x)),
            "first layer alone",
        ),
        "sum": (
            shared(lambda x, a, r, w: a.T @ r + x.T @ ((r @ w.T) * (1 - a**2))),
            "a mean over the rows",
        ),
        "not transposed": (
            shared(lambda x, a, r, w: (a.T @ r + x.T @ ((r @ w) * (1 - a**2))) / len(x)),
            "stands w.T, not w",
        ),
        "tanh forgotten": (
            shared(lambda x, a, r, w: (a.T @ r + x.T @ (r @ w.T)) / len(x)),
            "its derivative 1 − a²",
        ),
    },
    "04.4": {
        "sum": (curvature(mean=False), "divide by the messages"),
        "no penalty": (curvature(penalised=False), "the penalty has a curvature"),
        "p": (curvature(weight=lambda p: p), "p(1 − p), not p"),
        "linear": (curvature(weight=torch.ones_like), "each row counts by its p(1 − p)"),
        "bound": (curvature(weight=lambda p: torch.full_like(p, 0.25)), "this is the bound"),
        "three products": (curvature(products=3), "more products with H"),
        "from ones": (curvature(start=torch.ones), "draw it at random"),
    },
    "04.5": {
        "sum": (deviation(divide=False), "divide by their number"),
        "from 0": (deviation(right=lambda slopes: 0), "and not 0"),
        "length": (deviation(size=lambda off: off.square().sum().sqrt()), "promise about"),
        "always with": (deviation(kind=lambda replacement: True), "was a row drawn twice?"),
        "always without": (deviation(kind=lambda replacement: False), "can a row be drawn twice?"),
        "one batch": (deviation(again=True), "every draw gave the same batch"),
        "not seeded": (deviation(seeded=False), "the same seed gave two results"),
    },
    "04.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "not seeded": (experiment(lambda f, r, s, n: f(r, torch.seed() % 999)), "two calls differ"),
        "no seed": (experiment(lambda f, r, s, n: f(r, 0)), "the seed changes nothing"),
        "no rate": (experiment(lambda f, r, s, n: f(0.1, s)), "the rate changes nothing"),
        "shared batches": (trained(once=True), "the order of rates or seeds"),
        "the whole loss": (trained(least=False), "take it off"),
        "the way down": (trained(start=0.0), "is the way down in it?"),
        "single points": (trained(batch=1), "batches of 4"),
    },
}
DRAW = "rows = torch.randint(200, (4,), generator=g)"
STEP = "theta = theta - rate * (x[rows] @ theta - y[rows]) @ x[rows] / 4"
MEASURE = "return (torch.stack(path[100:]) @ x.T).square().mean().item() / 2"
SURVIVORS = {
    "04.4: 300 → 301 in `for _ in range(300):`": "a product more changes nothing that is left",
    "04.6: 500 → 501 in `for _ in range(500):`": "a step more is lost in the noise",
    f"04.6: 4 → 5 in `{DRAW}`": "a sum of five over four moves the floor less than seeds do",
    f"04.6: 4 → 5 in `{STEP}`": "a rate lower by a fifth moves the floor less than seeds do",
    f"04.6: no lower bound in `{MEASURE}`": "from the best point the floor is near at once",
    f"04.6: 100 → 101 in `{MEASURE}`": "399 steps are as good as 400",
}

TestSet = prove("04", WRONG, SURVIVORS)
