"""Chapter 3's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from graded import prove
from torch import Tensor

from mslearn import grade, losses

RIGHT = {"each": [0.693, 1.386, 2.079], "mean": 1.386, "perplexity": 4.0}


def shifted_by_the_whole_batch(z: Tensor) -> Tensor:
    z = z - z.max()
    return z - z.exp().sum(-1, keepdim=True).log()


def gradient_of(scale: Callable[[Tensor], Any], blank: bool = True) -> Callable:
    """p − y with the ignored rows blanked, or not, over `scale(which targets count)`."""

    def gradient(z: Tensor, y: Tensor, ignore_index: int = -100) -> Tensor:
        counted = y != ignore_index
        slope = z.softmax(-1) - F.one_hot(y.where(counted, 0), z.shape[-1])
        return (slope * counted[:, None] if blank else slope) / scale(counted)

    return gradient


def blind_to_the_index(z: Tensor, y: Tensor, ignore_index: int = -100) -> Tensor:
    return losses.cross_entropy_gradient(z, y)


def clamped(z: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(z.sigmoid().clamp(1e-7, 1 - 1e-7), y)


def by_definition(z: Tensor, y: Tensor) -> Tensor:
    p = z.sigmoid()
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def unigram(
    bits: Callable = lambda b, n: b, choices: Callable = lambda b: 2**b, add: int = 1, own=False
) -> Callable:
    """A unigram model that goes wrong where its arguments say so."""

    def answer(train: bytes, test: bytes) -> tuple[float, float]:
        source = test if own else train
        counts = torch.bincount(torch.tensor(list(source), dtype=torch.long), minlength=256) + add
        surprise = -(counts.double() / counts.sum()).log2()[list(test)].mean().item()
        return bits(surprise, len(test)), choices(surprise)

    return answer


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(reference, smoothing, seed, number of the run)`."""

    def answer(smoothings: list[float], seeds: list[int]) -> dict[float, list[float]]:
        reference = grade.load("03")["03.6"].reference

        def one(smoothing: float, seed: int) -> float:
            return reference([smoothing], [seed])[smoothing][0]

        runs = iter(range(len(smoothings) * len(seeds)))
        return {e: [change(one, e, s, next(runs)) for s in seeds] for e in smoothings}

    return answer


def only_the_mean(smoothings: list[float], seeds: list[int]) -> dict[float, float]:
    return {each: 0.9 - each for each in smoothings}


WRONG = {
    "03.1": {
        "bits": ({**RIGHT, "each": [1, 2, 3]}, "these are bits"),
        "minus forgotten": ({**RIGHT, "each": [-0.693, -1.386, -2.079]}, "minus sign is missing"),
        "sum": ({**RIGHT, "mean": 4.159}, "this is the sum"),
        "base 2": ({**RIGHT, "perplexity": 2.614}, "the base is e"),
        "half done": ({**RIGHT, "mean": None}, "there is no number yet"),
    },
    "03.2": {
        "by definition": (lambda z: z - z.exp().sum(-1, keepdim=True).log(), "exp overflows"),
        "log of softmax": (lambda z: z.softmax(-1).log(), "log 0"),
        "one shift for all": (shifted_by_the_whole_batch, "each row's own greatest"),
        "first axis": (lambda z: z.log_softmax(0), "over the last axis"),
        "softmax": (lambda z: z.softmax(-1), "these are probabilities"),
    },
    "03.3": {
        "sum": (gradient_of(lambda counted: 1), "this is the sum's gradient"),
        "all targets": (gradient_of(len), "divide by the targets that count"),
        "ignored rows kept": (gradient_of(torch.sum, blank=False), "must be zero"),
        "ascent": (lambda *a: -gradient_of(torch.sum)(*a), "the sign is turned"),
        "index not heeded": (blind_to_the_index, "ignore_index=2 was not heeded"),
    },
    "03.4": {
        "as handed out": (lambda z, y: -(y * z.sigmoid().log()).mean(), "its term was dropped"),
        "by definition": (by_definition, "work on the logit"),
        "clamped": (clamped, "the loss stops at"),
        "sum": (lambda z, y: (F.softplus(z) - y * z).sum(), "the sum over the batch"),
    },
    "03.5": {
        "nats": (unigram(bits=lambda b, n: b * math.log(2)), "these are nats"),
        "whole text": (unigram(bits=lambda b, n: b * n), "divide by its bytes"),
        "nothing added": (unigram(add=0), "given probability 0"),
        "exp of bits": (unigram(choices=math.exp), "not exp(bits)"),
        "test's own counts": (unigram(own=True), "taken from the test text"),
    },
    "03.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "not seeded": (experiment(lambda f, e, s, n: f(e, torch.seed() % 999)), "two calls differ"),
        "traces": (experiment(lambda f, e, s, n: f(e, s) - n / 1000), "the order of smoothings"),
        "no smoothing": (experiment(lambda f, e, s, n: f(0.0, s)), "the smoothing changes nothing"),
        "no seed": (experiment(lambda f, e, s, n: f(e, 0)), "the seed changes nothing"),
        "over the points": (experiment(lambda f, e, s, n: 0.5 + f(e, s) / 2), "over the classes"),
    },
}
MEASURE = "return (x[200:] @ weights).softmax(-1).amax(-1).mean().item()"
TARGETS = "y = torch.nn.functional.one_hot(targets.where(counted, 0), logits.shape[-1])"
SURVIVORS = {
    f"03.3: 0 → 1 in `{TARGETS}`": "any class may stand in for an ignored target",
    "03.6: zeros → ones in `weights = torch.zeros(3, 3)`": "equal weights give equal shares",
    "03.6: 3 → 4 in `weights = torch.zeros(3, 3)` again": "a fourth class that never occurs fades",
    "03.6: 100 → 101 in `for _ in range(100):`": "a step more changes next to nothing",
    f"03.6: 200 → 201 in `{MEASURE}`": "199 points are as good as 200",
    f"03.6: no lower bound in `{MEASURE}`": "nine weights are as sure of the points they have seen",
}

TestSet = prove("03", WRONG, SURVIVORS)
