"""Chapter 7's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from graded import prove
from torch import Tensor

RIGHT = {"z": 0.5, "h": 0.25, "kaiming": 0.2, "bound": 0.25, "loss": 2.773}


def uniform(square: Callable, both_sides: bool = True) -> Callable:
    """Uniform weights whose bound has the square `square(rows, columns)`."""

    def answer(u: Tensor) -> Tensor:
        return math.sqrt(square(*u.shape)) * (2 * u - 1 if both_sides else 2 * u)

    return answer


def start(variance: Callable, change: Callable = lambda first, last, keep, layers: last / first):
    """Variances `variance(fan in, fan out, slope, keep)`, and what `change` says of gradients."""

    def answer(widths: list[int], slope: float, keep: float) -> tuple[list[float], float]:
        variances = [variance(*fans, slope, keep) for fans in pairwise(widths)]
        return variances, change(widths[0], widths[-1], keep, len(widths) - 1)

    return answer


def right_variance(before: int, after: int, slope: float, keep: float) -> float:
    return 2 * keep / ((1 + slope**2) * before)


def factor(change: Callable = math.sqrt, swapped: bool = False, take: float = 1.0) -> Callable:
    """`change(c²)`, where c² may be that of the other case, or without taking 1 off."""

    def answer(n_branches: int, v: float, growth: float, normalised: bool) -> float:
        if normalised != swapped:
            return change((growth - take) / (n_branches * v))
        return change((growth ** (1 / n_branches) - 1) / v)

    return answer


def no_share(n_branches: int, v: float, growth: float, normalised: bool) -> float:
    return factor()(n_branches, 1.0, growth, normalised)


def no_number(n_branches: int, v: float, growth: float, normalised: bool) -> float:
    return factor()(1 if normalised else n_branches, v, growth, normalised)


def firing(
    never: Callable, always: Callable = lambda z: (z > 0).all(0), how: Callable = torch.mean
) -> Callable:
    """Shares of what `never` and `always` say of z, in this order."""

    def answer(x: Tensor, W: Tensor) -> tuple[float, float]:
        z = x @ W.T
        return how(never(z).double()).item(), how(always(z).double()).item()

    return answer


def silent(z: Tensor) -> Tensor:
    return (z <= 0).all(0)


def experiment(
    phi: Callable = torch.relu,
    deviation: Callable = lambda width: 1 / math.sqrt(width),
    measure: Callable = lambda h: h.square().mean(),
    generator: Callable = lambda seed: torch.Generator().manual_seed(seed),
    anew: bool = True,
    first_only: bool = False,
    one_matrix: bool = False,
    divided: bool = True,
    gain_of: Callable = lambda gain: gain,
) -> Callable:
    """An experiment that goes wrong where its arguments say so."""

    def answer(
        gains: list[float], depth: int, width: int, seeds: list[int]
    ) -> dict[float, list[float]]:
        kept = {seed: generator(seed) for seed in seeds}

        def run(gain: float, seed: int) -> float:
            g = generator(seed) if anew else kept[seed]
            x = h = torch.randn(width, generator=g, dtype=torch.float64)
            for layer in range(depth):
                if not (layer and one_matrix):
                    W = torch.randn(width, width, generator=g, dtype=torch.float64)
                scale = math.sqrt(2) if first_only and layer else gain_of(gain)
                h = phi(scale * deviation(width) * W @ h)
            return (measure(h) / (measure(x) if divided else 1)).item()

        return {gain: [run(gain, seed) for seed in seeds] for gain in gains}

    return answer


def only_the_mean(
    gains: list[float], depth: int, width: int, seeds: list[int]
) -> dict[float, float]:
    found = experiment()(gains, depth, width, seeds)
    return {gain: sum(own) / len(own) for gain, own in found.items()}


WRONG = {
    "07.1": {
        "fan out": ({**RIGHT, "z": 0.46, "h": 0.23}, "the fan in is 50"),
        "deviation for variance": ({**RIGHT, "z": 0.005, "h": 0.0025}, "the variance already"),
        "no ReLU": ({**RIGHT, "h": 0.5}, "takes away half"),
        "the variance": ({**RIGHT, "kaiming": 0.04}, "the deviation is its root"),
        "without ReLU": ({**RIGHT, "kaiming": 0.141}, "2/50 and not 1/50"),
        "the deviation": ({**RIGHT, "bound": 0.144}, "reaches √3 deviations"),
        "bits": ({**RIGHT, "loss": 4.0}, "these are bits"),
        "half done": ({**RIGHT, "loss": None}, "there is no number yet"),
    },
    "07.2": {
        "as handed out": (uniform(lambda rows, columns: 2 / rows), "both are wrong"),
        "still the fan out": (uniform(lambda rows, columns: 6 / rows), "not of rows"),
        "still the deviation": (uniform(lambda rows, columns: 2 / columns), "√3 deviations"),
        "no ReLU": (uniform(lambda rows, columns: 3 / columns), "without the 2"),
        "Xavier's": (uniform(lambda rows, columns: 6 / (rows + columns)), "this is Xavier's"),
        "one side": (uniform(lambda rows, columns: 6 / columns, False), "both sides of 0"),
    },
    "07.3": {
        "no dropout": (
            start(lambda before, after, a, p: 2 / ((1 + a * a) * before)),
            "dropout is not counted",
        ),
        "dropout turned": (
            start(lambda before, after, a, p: 2 / (p * (1 + a * a) * before)),
            "dropout is turned",
        ),
        "all kept": (
            start(lambda before, after, a, p: 2 * p * p / ((1 + a * a) * before)),
            "only the share p is kept",
        ),
        "not leaky": (start(lambda before, after, a, p: 2 * p / before), "lets something through"),
        "no square": (
            start(lambda before, after, a, p: 2 * p / ((1 + a) * before)),
            "counts a², not a",
        ),
        "no ReLU": (start(lambda before, after, a, p: p / before), "half of the square"),
        "fan out": (
            start(lambda before, after, a, p: 2 * p / ((1 + a * a) * after)),
            "forward the fan in counts",
        ),
        "deviations": (
            start(lambda *layer: math.sqrt(right_variance(*layer))),
            "these are deviations",
        ),
        "gradient turned": (
            start(right_variance, lambda first, last, keep, layers: first / last),
            "n_out / n_in",
        ),
        "gradient with dropout": (
            start(right_variance, lambda first, last, p, layers: last / first / p**layers),
            "have paid for dropout already",
        ),
        "gradient kept": (start(right_variance, lambda *network: 1.0), "square matrices alone"),
    },
    "07.4": {
        "squared": (factor(lambda square: square), "this is c²"),
        "exchanged": (factor(swapped=True), "the two cases are exchanged"),
        "no v": (no_share, "c² is divided by v"),
        "no N": (no_number, "c² is divided by both"),
        "the start forgotten": (factor(take=0.0), "take it off"),
    },
    "07.5": {
        "exchanged": (firing(lambda z: (z > 0).all(0), silent), "exchanged"),
        "numbers": (firing(silent, how=torch.sum), "these are numbers of units"),
        "0 fires": (firing(lambda z: (z < 0).all(0)), "a unit with z = 0 does not fire"),
        "inputs": (
            firing(lambda z: (z <= 0).all(1), lambda z: (z > 0).all(1)),
            "ask it of each unit",
        ),
        "values": (firing(lambda z: z <= 0, lambda z: z > 0), "for every input"),
    },
    "07.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "no ReLU": (experiment(phi=lambda z: z), "the ReLU is missing"),
        "not seeded": (
            experiment(generator=lambda seed: torch.Generator().manual_seed(torch.seed() % 999)),
            "two calls differ",
        ),
        "no seed": (
            experiment(generator=lambda seed: torch.Generator().manual_seed(0)),
            "the seed changes nothing",
        ),
        "other weights": (experiment(anew=False), "were other weights or inputs drawn?"),
        "no gain": (experiment(gain_of=lambda gain: 1.0), "the gain changes nothing"),
        "one layer": (experiment(first_only=True), "reached one layer only"),
        "root mean squares": (
            experiment(measure=lambda h: h.square().mean().sqrt()),
            "the root of the mean square's ratio",
        ),
        "no fan in": (experiment(deviation=lambda width: 0.1), "deviation g over √n"),
        "not divided": (experiment(divided=False), "without a layer the ratio is 1"),
        "one matrix": (experiment(one_matrix=True), "a matrix for each layer"),
    },
}
INPUT = "x = torch.randn(width, generator=g, dtype=torch.float64)"
SURVIVORS = {
    f"07.6: randn → rand in `{INPUT}`": "the ratio does not depend on the input",
}

TestSet = prove("07", WRONG, SURVIVORS)
