"""Chapter 6's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable

import torch
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {"linear": [0.4, 0.5, 0.1], "stable": [0.8, 0.8, 0.4], "root": [0.8, 0.4, 0.267]}


def plateau(
    last: bool = False, anew: bool = True, equal: bool = False, early: bool = False
) -> Callable:
    """Reduce on plateau that goes wrong where its arguments say so."""

    def answer(scores: list[float], factor: float, patience: int) -> list[float]:
        rate, best, waited, rates = 1.0, math.inf, 0, []
        for z in scores:
            better = z <= best if equal else z < best
            waited = 0 if better else waited + 1
            best = z if better or last else best
            if waited >= patience + (not early):
                rate, waited = rate * factor, 0 if anew else waited
            rates.append(rate)
        return rates

    return answer


def late(scores: list[float], factor: float, patience: int) -> list[float]:
    """It waits for one score too many."""
    return plateau()(scores, factor, patience + 1)


def shares(later: Callable, start: Callable = lambda rates: torch.prod(1 - rates)) -> Callable:
    """Shares in which example t is shrunk by what `later(rates, t)` names."""

    def answer(rates: Tensor) -> Tensor:
        found = [rates[t] * torch.prod(1 - later(rates, t)) for t in range(len(rates))]
        return torch.stack([start(rates), *found])

    return answer


def after(rates: Tensor, t: int) -> Tensor:
    return rates[t + 1 :]


def by_division(rates: Tensor) -> Tensor:
    """Right where no rate is 1: the product of all over that of the first ones."""
    kept = torch.cumprod(1 - rates, 0)
    return torch.cat([kept[-1:], rates * kept[-1] / kept])


def factors(factor: Callable, more: int = 0, least: int = 0) -> Callable:
    """A list of `factor(beta ** t, beta)`, as long as is due, or `more`, or at `least`."""

    def answer(beta: float, share: float) -> list[float]:
        steps = math.ceil(math.log((1 - share**2) / (1 + share**2), beta)) + more
        return [factor(beta**t, beta) for t in range(1, max(steps, least) + 1)]

    return answer


def right_factor(power: float, beta: float) -> float:
    return math.sqrt((1 - power) / (1 + power))


def greedy(rate: Callable, half: bool = True, before: bool = False) -> Callable:
    """The rates `rate(lam, noise, s)`, and losses that may be doubled or a step old."""

    def answer(lam: Tensor, noise: Tensor, steps: int) -> tuple[list[float], list[float]]:
        s, rates, losses = torch.ones_like(lam), [], []
        for _ in range(steps):
            rates.append(float(rate(lam, noise, s)))
            old, s = s, (1 - rates[-1] * lam) ** 2 * s + rates[-1] ** 2 * noise
            losses.append(float((lam * (old if before else s)).sum()) / (2 if half else 1))
        return rates, losses

    return answer


def best(lam: Tensor, noise: Tensor, s: Tensor) -> Tensor:
    return (lam**2 * s).sum() / (lam * (lam**2 * s + noise)).sum()


def experiment(
    on_new: bool = True,
    half: bool = True,
    stop: bool = True,
    anew: bool = True,
    start: Callable = lambda seed: torch.zeros(20, dtype=torch.float64),
    mean: bool = True,
    data: Callable = lambda seed: seed,
    more: int = 0,
) -> Callable:
    """An experiment that goes wrong where its arguments say so."""

    def answer(rates: list[float], seeds: list[int], level: float) -> dict[float, list]:
        points = grade.load("06")["06.6"].reference.__globals__["points"]
        thetas = {seed: start(seed) for seed in seeds}

        def run(rate: float, seed: int) -> tuple[int, float]:
            x, y, x_new, y_new = points(data(seed))
            theta = start(seed) if anew else thetas[seed]
            steps = 0
            while (x @ theta - y).square().mean() / 2 > level if stop else steps < 100:
                theta = theta - rate * x.T @ (x @ theta - y) / (len(x) if mean else 10)
                steps += 1
            thetas[seed] = theta
            off = x_new @ theta - y_new if on_new else x @ theta - y
            return steps + more, off.square().mean().item() / (2 if half else 1)

        return {rate: [run(rate, seed) for seed in seeds] for rate in rates}

    return answer


def only_the_mean(rates: list[float], seeds: list[int], level: float) -> dict[float, float]:
    found = experiment()(rates, seeds, level)
    return {rate: sum(loss for _, loss in own) / len(own) for rate, own in found.items()}


def from_somewhere(seed: int) -> Tensor:
    return torch.randn(20, dtype=torch.float64)


WRONG = {
    "06.1": {
        "from 0": ({**RIGHT, "linear": [0.0, 0.5, 0.1]}, "would waste it"),
        "over all steps": ({**RIGHT, "linear": [0.4, 0.4, 0.08]}, "T − w steps, not T"),
        "to 0": ({**RIGHT, "linear": [0.4, 0.457, 0.0]}, "still moves"),
        "one step less": ({**RIGHT, "stable": [0.8, 0.8, 0.2]}, "two steps are left"),
        "above the peak": ({**RIGHT, "stable": [0.8, 1.0, 0.4]}, "nothing is above the peak"),
        "no root": ({**RIGHT, "root": [0.8, 0.2, 0.089]}, "the root is missing"),
        "no w": ({**RIGHT, "root": [0.8, 0.283, 0.189]}, "the rate must be the peak"),
        "half done": ({**RIGHT, "root": None}, "there is no number yet"),
    },
    "06.2": {
        "as handed out": (plateau(last=True, anew=False), "it has to beat the best of all"),
        "still the last": (plateau(last=True), "it has to beat the best of all"),
        "still no new beginning": (plateau(anew=False), "waiting begins anew"),
        "an equal score": (plateau(equal=True), "taken for an improvement"),
        "too early": (plateau(early=True), "reduced too early"),
        "too late": (late, "at the second, with 1"),
    },
    "06.3": {
        "the steps before": (shares(lambda rates, t: rates[:t]), "u > t"),
        "all other steps": (
            shares(lambda rates, t: torch.cat([rates[:t], rates[t + 1 :]])),
            "by the steps after it alone",
        ),
        "no start": (lambda rates: shares(after)(rates)[1:], "the start's first"),
        "the start last": (lambda rates: shares(after)(rates).roll(-1), "belongs first"),
        "the start whole": (shares(after, lambda rates: torch.ones(()).to(rates)), "not to 1"),
        "all alike": (lambda rates: torch.ones(len(rates) + 1) / (len(rates) + 1), "not those of"),
        "by division": (by_division, "do not divide by 1 − α"),
    },
    "06.4": {
        "no root": (factors(lambda p, beta: (1 - p) / (1 + p)), "the factor is a root"),
        "not over its end": (
            factors(lambda p, beta: right_factor(p, beta) / right_factor(beta, beta)),
            "f must go to 1",
        ),
        "turned over": (factors(lambda p, beta: 1 / right_factor(p, beta)), "has to be lower"),
        "bias correction": (factors(lambda p, beta: 1 - p), "is not √(n / n after long)"),
        "one more": (factors(right_factor, 1), "the first factor of at least"),
        "never at once": (factors(right_factor, least=2), "the first factor of at least"),
        "one less": (factors(right_factor, -1), "the first factor of at least"),
    },
    "06.5": {
        "no noise": (greedy(lambda lam, noise, s: 1 / lam.max()), "below the line"),
        "mean distance": (
            greedy(lambda lam, noise, s: (lam * s).sum() / (lam**2 * s + noise).sum()),
            "all directions count alike",
        ),
        "noise left out": (
            greedy(lambda lam, noise, s: (lam**2 * s).sum() / (lam**3 * s).sum()),
            "the noise is missing",
        ),
        "mean of best rates": (
            greedy(lambda lam, noise, s: (lam * s / (lam**2 * s + noise)).mean()),
            "the mean loss is least at the rate",
        ),
        "twice the loss": (greedy(best, half=False), "the mean loss is half of"),
        "before the step": (greedy(best, before=True), "the mean loss after it is"),
    },
    "06.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "training loss": (experiment(on_new=False), "points that were trained on"),
        "not half": (experiment(half=False), "half the mean squared error"),
        "a number of steps": (experiment(stop=False), "stop by the loss"),
        "traces": (experiment(anew=False), "two calls differ"),
        "a random start": (experiment(start=from_somewhere), "two calls differ"),
        "no seed": (experiment(data=lambda seed: 0), "the seed changes nothing"),
        "three times the rate": (experiment(mean=False), "bring the training loss to"),
        "one step more": (experiment(more=1), "bring the training loss to"),
    },
}
LOOP = "while steps < 3000 and (x @ theta - y).square().mean() / 2 > level:"
SURVIVORS = {
    "06.2: 0 → 1 in `rate, best, waited, rates = 1.0, math.inf, 0, []`": "the first score is best",
    "06.3: no dtype= in `found = torch.ones(1, dtype=rates.dtype)`": "cat takes the wider of two",
    f"06.6: Lt → LtE in `{LOOP}`": "every run ends long before",
    f"06.6: 3000 → 3001 in `{LOOP}`": "every run ends long before",
    f"06.6: Gt → GtE in `{LOOP}`": "no loss is equal to the level in every bit",
}

TestSet = prove("06", WRONG, SURVIVORS)
