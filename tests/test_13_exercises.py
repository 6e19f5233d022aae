"""Chapter 13's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {
    "accuracy": 0.7,
    "f1": [0.769, 0.667, 0],
    "macro": 0.479,
    "lora": 1600,
    "rates": [0.02, 0.04, 0.08],
}


def pooled(
    mean: Callable = lambda x, own, n: x.where(own, 0.0).sum(1) / n[:, None],
    greatest: Callable = lambda x, own: x.where(own, -math.inf).amax(1),
    last: Callable = lambda x, n: x[torch.arange(len(x)), n - 1],
) -> Callable:
    """Three ways to pool, wrong where the arguments say so."""

    def answer(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]
        return (
            mean(features, own, lengths),
            greatest(features, own),
            last(features, lengths),
        )

    return answer


def naive_bayes(
    words: Callable = lambda n, add: (n + add) / (n + add).sum(1, keepdim=True),
    share: Callable = lambda texts, n: texts / texts.sum(),
    log: Callable = torch.log,
) -> Callable:
    """Naive Bayes as a linear classifier, wrong where the arguments say so."""

    def answer(x: Tensor, y: Tensor, K: int, add: float) -> tuple[Tensor, Tensor]:
        counts = F.one_hot(y, K).T.double() @ x.double()
        texts = torch.bincount(y, minlength=K).double()
        return log(words(counts, add)), log(share(texts, counts))

    return answer


def best_lora(
    factor: Callable = lambda r, s: r / s, of: Callable = lambda w0, w: w - w0, least: bool = False
) -> Callable:
    """A LoRA for a known matrix, wrong where the arguments say so."""

    def answer(w0: Tensor, w: Tensor, r: int, s: float) -> tuple[Tensor, Tensor]:
        left, sizes, right = torch.linalg.svd(of(w0, w), full_matrices=False)
        kept = slice(-r, None) if least else slice(0, r)
        return left[:, kept] * sizes[kept] * factor(r, s), right[kept]

    return answer


def in_test(
    key: Callable = lambda text: " ".join(text.lower().split()),
    seeded: bool = True,
    by_text: bool = False,
    drawn: bool = True,
    turned: bool = False,
    in_order: bool = False,
) -> Callable:
    """A split that leaks or is wrong where the arguments say so."""

    def answer(texts: list[str], share: float, seed: int) -> list[bool]:
        keys = list(range(len(texts))) if by_text else [key(text) for text in texts]
        different = list(dict.fromkeys(keys)) if in_order else sorted(set(keys))
        g = torch.Generator().manual_seed(seed if seeded else torch.seed() % 999)
        order = torch.randperm(len(different), generator=g) if drawn else range(len(different))
        chosen = {different[i] for i in order[: round(share * len(different))]}
        return [(key in chosen) != turned for key in keys]

    return answer


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(reference, pretrained, n, seed, number of the run)`."""

    def answer(pretrained: bool, numbers: list[int], seeds: list[int]) -> dict[int, list[float]]:
        reference = grade.load("13")["13.6"].reference

        def one(pretrained: bool, n: int, seed: int) -> float:
            return reference(pretrained, [n], [seed])[n][0]

        runs = iter(range(len(numbers) * len(seeds)))
        return {n: [change(one, pretrained, n, s, next(runs)) for s in seeds] for n in numbers}

    return answer


def measured_on(part: int) -> Callable:
    """An experiment that measures on the texts trained on (0) or on all others (1)."""

    def run(one: Callable, pretrained: bool, n: int, seed: int, number: int) -> float:
        right_of = grade.load("13")["13.6"].rules[0].test.__globals__["right_of"]
        return right_of(pretrained, n, seed)[part]

    return experiment(run)


def only_the_mean(pretrained: bool, numbers: list[int], seeds: list[int]) -> dict[int, float]:
    return {each: 0.8 for each in numbers}


WRONG = {
    "13.1": {
        "precisions": ({**RIGHT, "f1": [0.714, 0.667, 0]}, "these are precisions"),
        "recalls": ({**RIGHT, "f1": [0.833, 0.667, 0]}, "these are recalls"),
        "weighed": ({**RIGHT, "macro": 0.662}, "macro counts every class alike"),
        "class left out": ({**RIGHT, "macro": 0.718}, "class 2 counts, too"),
        "product": ({**RIGHT, "lora": 120_000}, "not their product"),
        "turned round": ({**RIGHT, "rates": [0.08, 0.04, 0.02]}, "the other way round"),
        "one layer off": ({**RIGHT, "rates": [0.01, 0.02, 0.04]}, "the exponent is L − l"),
        "half done": ({**RIGHT, "lora": None}, "there is no number yet"),
    },
    "13.2": {
        "mean of all": (pooled(mean=lambda x, own, n: x.mean(1)), "over the filling, too"),
        "divided by all": (
            pooled(mean=lambda x, own, n: x.where(own, 0.0).mean(1)),
            "divided by all positions",
        ),
        "weights": (
            pooled(mean=lambda x, own, n: (x * own).sum(1) / n[:, None]),
            "0 times NaN is NaN",
        ),
        "greatest of all": (pooled(greatest=lambda x, own: x.amax(1)), "in the filling, too"),
        "zeros": (
            pooled(greatest=lambda x, own: x.where(own, 0.0).amax(1)),
            "a 0 is greater",
        ),
        "end of the batch": (pooled(last=lambda x, n: x[:, -1]), "the last position of the batch"),
        "one too far": (pooled(last=lambda x, n: x[torch.arange(len(x)), n]), "one too far"),
    },
    "13.3": {
        "by word": (naive_bayes(words=lambda n, a: (n + a) / (n + a).sum(0)), "this is p(k | v)"),
        "joint": (naive_bayes(words=lambda n, a: (n + a) / (n + a).sum()), "this is p(k, v)"),
        "no logarithm": (naive_bayes(log=lambda p: p), "W holds their logarithms"),
        "nothing added": (
            naive_bayes(words=lambda n, a: n / n.sum(1, keepdim=True)),
            "add something to every count",
        ),
        "not below": (
            naive_bayes(words=lambda n, a: (n + a) / n.sum(1, keepdim=True)),
            "must be in the divisor, too",
        ),
        "once below": (
            naive_bayes(words=lambda n, a: (n + a) / (n.sum(1, keepdim=True) + a)),
            "so V times below",
        ),
        "share of words": (naive_bayes(share=lambda t, n: n.sum(1) / n.sum()), "b counts texts"),
        "all alike": (naive_bayes(share=lambda t, n: torch.ones_like(t) / len(t)), "b counts"),
    },
    "13.4": {
        "no factor": (best_lora(factor=lambda r, s: 1), "divide by it"),
        "wrong way up": (best_lora(factor=lambda r, s: s / r), "the wrong way up"),
        "by s alone": (best_lora(factor=lambda r, s: 1 / s), "not by s"),
        "W itself": (best_lora(of=lambda w0, w: w), "W itself was taken apart"),
        "sign": (best_lora(of=lambda w0, w: w0 - w), "the sign is turned"),
        "least": (best_lora(least=True), "would be possible"),
    },
    "13.5": {
        "by text": (in_test(by_text=True), "a text stands on both sides"),
        "case": (in_test(key=lambda t: " ".join(t.split())), "differ only in case"),
        "around": (in_test(key=str.lower), "white space around it"),
        "inside": (in_test(key=lambda t: t.lower().strip()), "white space in it"),
        "run together": (in_test(key=lambda t: "".join(t.lower().split())), "may not run together"),
        "not seeded": (in_test(seeded=False), "the same seed gave two splits"),
        "not drawn": (in_test(drawn=False), "is the seed used"),
        "sides exchanged": (in_test(turned=True), "the sides are exchanged"),
        "order of texts": (in_test(in_order=True), "the order of the texts changes"),
    },
    "13.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "own texts": (measured_on(0), "the texts it was trained on"),
        "all others": (measured_on(1), "measure on the last 400"),
        "traces": (experiment(lambda f, p, n, s, i: f(p, n, s) - i / 1000), "the order of"),
        "no seed": (experiment(lambda f, p, n, s, i: f(p, n, 0)), "the seed changes nothing"),
        "no features": (experiment(lambda f, p, n, s, i: f(False, n, s)), "changes nothing"),
        "exchanged": (experiment(lambda f, p, n, s, i: f(not p, n, s)), "are the two exchanged"),
    },
}
START = "zeros → ones in `W, b = torch.zeros(3, h.shape[1]), torch.zeros(3)`"
SURVIVORS = {
    "13.3: no minlength= in `torch.bincount(y, minlength=K) / len(y)`": "no class lacks a text",
    f"13.6: {START}": "a head whose rows are equal prefers no class, as one of zeros",
    f"13.6: {START} again": "the same number added to all logits changes nothing",
    "13.6: 100 → 101 in `for _ in range(100):`": "a step more changes next to nothing",
}

TestSet = prove("13", WRONG, SURVIVORS)
