"""Chapter 2's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {"liking": 1.1, "avoiding": -0.69, "row": [0, 1.1, 0], "mean": 0.39, "optimum": -0.51}


def analogy(
    wanted: Callable = lambda a, b, c: b - a + c,
    rows: bool = True,
    before: bool = True,
    left_out: str = "abc",
    best: bool = True,
) -> Callable:
    """An analogy that is off where the arguments say so."""

    def answer(table: Tensor, a: int, b: int, c: int, n: int) -> list[int]:
        unit = F.normalize(table)
        scores = (unit if rows else table) @ wanted(*(unit if before else table)[[a, b, c]])
        scores = scores if best else -scores
        scores[[{"a": a, "b": b, "c": c}[each] for each in left_out]] = -math.inf
        return scores.topk(n).indices.tolist()

    return answer


def as_tensor(table: Tensor, a: int, b: int, c: int, n: int) -> Tensor:
    return torch.tensor(analogy()(table, a, b, c, n))


def gradients(
    sign: int = 1,
    mean: bool = False,
    adds: bool = True,
    collide: bool = False,
    push: Callable = lambda s: s,
    shape: Callable = lambda dW, dC: (dW, dC),
) -> Callable:
    """Gradients of negative sampling that are off where the arguments say so."""

    def answer(W: Tensor, C: Tensor, w: Tensor, c: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        v, u, x = W[w], C[c], C[n]
        pull = (v * u).sum(1, keepdim=True).sigmoid() - 1
        noise = push(torch.einsum("bkd,bd->bk", x, v).sigmoid())[..., None]
        if not collide:
            noise = noise * (n != c[:, None])[..., None]
        dv, du, dx = pull * u + (noise * x).sum(1), pull * v, noise * v[:, None]
        dW, dC = torch.zeros_like(W), torch.zeros_like(C)
        if adds:
            dW.index_add_(0, w, dv)
            dC.index_add_(0, c, du).index_add_(0, n.flatten(), dx.flatten(0, 1))
        else:
            dW[w], dC[c] = dv, du
            dC[n.flatten()] += dx.flatten(0, 1)
        scale = sign / len(w) if mean else sign
        return shape(scale * dW, scale * dC)

    return answer


def biases(
    factor: float = 2,
    power: float = 0.75,
    cap: Callable = lambda share: share.clamp(max=1),
    log: Callable = lambda counts, x_max: counts.clamp(min=1e-9).log(),
    best: Callable = lambda b, slope, f: torch.where(f > 0, b - slope / (2 * f), b),
) -> Callable:
    """GloVe's biases that are off where the arguments say so."""

    def answer(
        products: Tensor, b: Tensor, bias: Tensor, counts: Tensor, x_max: float
    ) -> tuple[Tensor, Tensor]:
        f = cap(counts / x_max) ** power
        rest = products + b[:, None] + bias - log(counts, x_max)
        slope = (f * rest).sum(1)
        return factor * slope, best(b, 2 * slope, f.sum(1))

    return answer


def plain_mean(products: Tensor, b: Tensor, bias: Tensor, counts: Tensor, x_max: float) -> tuple:
    rest = counts.clamp(min=1e-9).log() - products - bias
    met = (counts > 0).double()
    mean = (rest * met).sum(1) / met.sum(1).clamp(min=1)
    slope = biases()(products, b, bias, counts, x_max)[0]
    return slope, torch.where(met.sum(1) > 0, mean, b)


def noise(
    weight: Callable = lambda counts, power: counts**power * (counts > 0),
    right: bool = True,
    off: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Callable:
    """A draw of noise that is off where the arguments say so."""

    def answer(counts: Tensor, power: float, uniform: Tensor) -> Tensor:
        sums = weight(counts.to(dtype), power).cumsum(0)
        drawn = torch.searchsorted(sums, uniform.to(dtype) * sums[-1], right=right)
        return drawn.clamp(max=len(counts) - 1) + off

    return answer


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(purity, window, seed, number of the run)`, where
    purity(window, seed, shuffles, errors) is the measure of the checks."""
    names = grade.load("02")["02.6"].rules[0].test.__globals__

    def purity(m: int, seed: int, shuffles: bool = False, **errors: object) -> float:
        words = names["text"](seed)
        return names["purity_of"](
            names["shuffled"](words, seed) if shuffles else words, m, **errors
        )

    def answer(windows: list[int], seeds: list[int]) -> dict[int, list]:
        runs = iter(range(len(windows) * len(seeds)))
        return {m: [change(purity, m, s, next(runs)) for s in seeds] for m in windows}

    return answer


def both(**errors: object) -> Callable:
    """The experiment with one error in the measure, for text and control alike."""
    return experiment(lambda p, m, s, n: (p(m, s, **errors), p(m, s, True, **errors)))


def only_the_mean(windows: list[int], seeds: list[int]) -> dict[int, float]:
    return {m: 0.5 for m in windows}


WRONG = {
    "02.1": {
        "bits": ({**RIGHT, "liking": 1.585, "avoiding": -1}, "these are bits"),
        "ratios": ({**RIGHT, "liking": 3, "avoiding": 0.5}, "these are the ratios"),
        "not cut": ({**RIGHT, "row": [0, 1.1, -0.69]}, "PPMI has nothing below 0"),
        "plain mean": ({**RIGHT, "mean": -0.024}, "every cell was given the same weight"),
        "mean of PPMI": ({**RIGHT, "mean": 0.564}, "this is the mean of the PPMI"),
        "added": ({**RIGHT, "optimum": 2.71}, "here it was added"),
        "k itself": ({**RIGHT, "optimum": -3.9}, "it is the logarithm of k"),
        "half done": ({**RIGHT, "mean": None}, "there is no number yet"),
    },
    "02.2": {
        "backwards": (analogy(lambda a, b, c: a - b + c), "it is asked backwards"),
        "lazy": (analogy(lambda a, b, c: c), "this is the lazy baseline"),
        "only added": (analogy(lambda a, b, c: a + b + c), "nothing is taken away"),
        "product": (analogy(rows=False), "a product is no cosine"),
        "too late": (analogy(before=False), "before they are added"),
        "c left out alone": (analogy(left_out="c"), "came back as an answer"),
        "b left in": (analogy(left_out="ac"), "b of the question came back"),
        "worst first": (analogy(best=False), "best first"),
        "a tensor": (as_tensor, "expected a list of the words' numbers"),
    },
    "02.3": {
        "sign": (gradients(sign=-1), "the sign is turned"),
        "mean": (gradients(mean=True), "not their mean"),
        "no noise": (gradients(push=lambda s: 0 * s), "only the pull is there"),
        "noise pulled": (gradients(push=lambda s: -s), "noise is pulled too"),
        "noise averaged": (
            gradients(push=lambda s: s / s.shape[1]),
            "the noise words were averaged",
        ),
        "written over": (gradients(adds=False), "pairs that share a word do not add up"),
        "context as noise": (gradients(collide=True), "as noise of its own pair"),
        "only W": (gradients(shape=lambda dW, dC: dW), "expected two tables"),
        "transposed": (gradients(shape=lambda dW, dC: (dW.T, dC.T)), "expected the shape of W"),
    },
    "02.4": {
        "no factor": (biases(factor=1), "has a factor of 2"),
        "sign": (biases(factor=-2), "the sign is turned"),
        "power 1": (biases(power=1), "by the power 3/4"),
        "no cap": (biases(cap=lambda share: share), "weights above 1"),
        "counts capped": (
            biases(log=lambda counts, x_max: counts.clamp(min=1e-9, max=x_max).log()),
            "not the count that is fitted",
        ),
        "log of 0": (biases(log=lambda counts, x_max: counts.log()), "NaN or ∞"),
        "0/0": (biases(best=lambda b, slope, f: b - slope / (2 * f)), "NaN or ∞"),
        "plain mean": (plain_mean, "the best bias is a weighted mean"),
        "one step": (biases(best=lambda b, slope, f: b - slope), "this is one step of descent"),
        "0 for nobody": (
            biases(best=lambda b, slope, f: (b - slope / (2 * f)).nan_to_num(0.0)),
            "it must keep the bias that it has",
        ),
    },
    "02.5": {
        "no power": (noise(lambda counts, power: counts), "the power changes nothing"),
        "root": (
            noise(lambda counts, power: torch.where(counts > 0, counts ** (1 / (power or 1)), 0)),
            "the other way round",
        ),
        "always 3/4": (noise(lambda counts, power: counts**0.75), "whatever was asked for"),
        "sign": (
            noise(lambda counts, power: torch.where(counts > 0, counts**-power, 0)),
            "rare words are drawn most",
        ),
        "never drawn": (noise(lambda counts, power: counts**power), "0⁰ is 1"),
        "equal": (noise(right=False), "its sum must be greater, not equal"),
        "one before": (noise(off=-1), "got -1 to"),
        "one beyond": (noise(off=1), "expected 0 to 2, got 1 to 3"),
        "16 bits": (noise(dtype=torch.bfloat16), "are off among 10,000 words"),
        "the numbers": (lambda counts, power, uniform: uniform, "a tensor of whole numbers"),
    },
    "02.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "no control": (experiment(lambda p, m, s, n: p(m, s)), "the text's and the control's"),
        "not shuffled": (experiment(lambda p, m, s, n: (p(m, s),) * 2), "the text itself"),
        "itself": (experiment(lambda p, m, s, n: (1.0, 1.0)), "every word is its own nearest"),
        "counts": (both(table="counts"), "these are rows of counts"),
        "not cut": (both(table="pmi"), "PMI was not cut at 0"),
        "one side": (both(left=False), "to one side only"),
        "among all": (both(among=36), "among all words"),
        "off by one": (
            experiment(lambda p, m, s, n: (p(m + 1, s), p(m + 1, s, True))),
            "the window is off by one",
        ),
        "no window": (
            experiment(lambda p, m, s, n: (p(4, s), p(4, s, True))),
            "the window changes nothing",
        ),
        "no seed": (
            experiment(lambda p, m, s, n: (p(m, 0), p(m, 0, True))),
            "the seed changes nothing",
        ),
        "traces": (
            experiment(lambda p, m, s, n: (p(m, s) - n / 1000, p(m, s, True))),
            "a run leaves traces",
        ),
    },
}
REST = "in `rest = products + b[:, None] + bias - counts.where(counts > 0, 1).log()`"
RATIO = "in `ratio = counts * counts.sum() / counts.sum(0) / counts.sum(1, keepdim=True)`"
UNIT = "in `unit = F.normalize(ratio.log().clamp(min=0)[:24])`"
SURVIVORS = {
    f"02.4: 1 → 2 {REST}": "empty cells weigh 0, so any finite logarithm will do there",
    f"02.6: 0 → 1 {RATIO}": "the table of counts is symmetric: its rows and columns sum alike",
    f"02.6: log → log2 {UNIT}": "another base of the logarithm leaves every cosine as it is",
}

TestSet = prove("02", WRONG, SURVIVORS)
