"""Chapter 9's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable

import torch
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {"shares": [0.25, 0.75], "answer": 5, "slopes": [0.75, -0.75], "causal": [1, 1.5, 3]}


def backward(
    scale: float = 0.5,
    once: bool = False,
    masked: bool = True,
    mean: bool = True,
    own: bool = True,
) -> Callable:
    """The gradients of attention, wrong where the arguments say so."""

    def answer(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, u: Tensor) -> tuple:
        beta = q.shape[1] ** -scale
        scores = beta * q @ k.T
        shares = (scores.masked_fill(~allowed, -math.inf) if masked else scores).softmax(1)
        slope = beta * shares * (u @ v.T - mean * (shares @ v * u).sum(1, keepdim=True))
        slope = slope / beta if once else slope
        return slope @ k, slope.T @ q, shares.T @ u if own else u.sum(0).expand_as(v)

    return answer


def padded(
    columns: bool = True, width: bool = True, blank: bool = True, causal: bool = True, low=-math.inf
) -> Callable:
    """Attention of padded prompts, wrong where the arguments say so."""

    def answer(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        T = q.shape[1]
        scores = q @ k.mT / math.sqrt(q.shape[-1] if width else T)
        allowed = torch.ones(T, T, dtype=torch.bool).tril(0 if causal else T)
        allowed = allowed & (real[:, None, :] if columns else real[:, :, None])
        shares = scores.masked_fill(~allowed, low).softmax(-1)
        return (shares.nan_to_num(0.0) if blank else shares) @ v

    return answer


def as_handed_out(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
    return grade.load("09")["09.3"].stub(q, k, v, real)


def merge(
    weights: Callable = lambda lam: lam.softmax(0),
    joint: Callable = lambda lam: lam.logsumexp(0),
    clear: bool = True,
) -> Callable:
    """Answers of several machines made one, wrong where the arguments say so."""

    def answer(o: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        o = o.masked_fill(lam.isneginf()[..., None], 0.0) if clear else o
        return (weights(lam)[..., None] * o).sum(0), joint(lam)

    return answer


def by_definition(lam: Tensor) -> Tensor:
    return lam.exp() / lam.exp().sum(0)


def in_use(
    entropy: Callable = torch.special.entr,
    count: Callable = lambda h: h.exp().mean(),
    masked: bool = True,
    scaled: bool = True,
) -> Callable:
    """Keys in use, wrong where the arguments say so."""

    def answer(q: Tensor, k: Tensor, beta: float, causal: bool = False) -> float:
        scores = (beta if scaled else 1) * q @ k.T
        if causal and masked:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
        return count(entropy(scores.softmax(1)).sum(1)).item()

    return answer


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(reference, kind, seed, number of the run)`."""

    def answer(kinds: list[str], seeds: list[int]) -> dict[str, list[float]]:
        reference = grade.load("09")["09.6"].reference

        def one(kind: str, seed: int) -> float:
            return reference([kind], [seed])[kind][0]

        runs = iter(range(len(kinds) * len(seeds)))
        return {kind: [change(one, kind, s, next(runs)) for s in seeds] for kind in kinds}

    return answer


def on_its_own_texts(kinds: list[str], seeds: list[int]) -> dict[str, list[float]]:
    losses_of = grade.load("09")["09.6"].rules[0].test.__globals__["losses_of"]
    return {kind: [losses_of(kind, seed)[0] for seed in seeds] for kind in kinds}


def only_the_mean(kinds: list[str], seeds: list[int]) -> dict[str, float]:
    return {kind: 1.0 for kind in kinds}


def exchanged(one: Callable, kind: str, seed: int, run: int) -> float:
    return one({"rotary": "none", "none": "rotary"}[kind], seed)


WRONG = {
    "09.1": {
        "not scaled": ({**RIGHT, "shares": [0.1, 0.9]}, "not divided by √d"),
        "divided by d": ({**RIGHT, "shares": [0.366, 0.634]}, "not by its root"),
        "hard": ({**RIGHT, "answer": 4}, "the hard look-up"),
        "mean": ({**RIGHT, "answer": 6}, "the plain mean"),
        "other shares fixed": ({**RIGHT, "slopes": [2, 3]}, "a (v − o), not a v"),
        "sign": ({**RIGHT, "slopes": [-0.75, 0.75]}, "the sign is turned"),
        "no mask": ({**RIGHT, "causal": [3, 3, 3]}, "what may the first see"),
        "mask turned": ({**RIGHT, "causal": [3, 4, 6]}, "the mask is turned round"),
        "half done": ({**RIGHT, "causal": None}, "there is no number yet"),
    },
    "09.2": {
        "no mask": (backward(masked=False), "the mask was not heeded"),
        "not scaled": (backward(scale=0.0), "the scores were not divided by √d"),
        "other shares fixed": (backward(mean=False), "it is v − o, not v"),
        "beta once": (backward(once=True), "β = 1/√d is missing once"),
        "shares forgotten": (backward(own=False), "a value's gradient is its share times u"),
    },
    "09.3": {
        "as handed out": (as_handed_out, "it is the width 3 that counts"),
        "rows": (padded(columns=False), "`real` belongs to the columns"),
        "NaN": (padded(blank=False), "softmax over −∞ alone is 0/0"),
        "a great number": (padded(low=-1e9), "not a mean over padding"),
        "no causal mask": (padded(causal=False), "the causal mask is lost"),
        "by length": (padded(width=False), "the root of the length 7"),
    },
    "09.4": {
        "mean": (merge(weights=lambda lam: torch.ones_like(lam) / len(lam)), "count alike"),
        "sum": (merge(weights=torch.ones_like), "they are to be averaged"),
        "not divided": (merge(weights=torch.exp), "the weights do not sum to 1"),
        "logarithms": (merge(weights=lambda lam: lam / lam.sum(0)), "λ is a logarithm"),
        "greatest": (merge(joint=lambda lam: lam.amax(0)), "not the greatest"),
        "logarithms added": (merge(joint=lambda lam: lam.sum(0)), "exponentials add up"),
        "by definition": (merge(weights=by_definition), "take the greatest λ off first"),
        "NaN kept": (merge(clear=False), "0 times NaN is NaN"),
    },
    "09.5": {
        "entropy": (in_use(count=lambda h: h.mean()), "this is the entropy"),
        "bits": (in_use(count=lambda h: (h / math.log(2)).exp().mean()), "one base for both"),
        "mean first": (in_use(count=lambda h: h.mean().exp()), "first e to each, then the mean"),
        "no beta": (in_use(scaled=False), "beta=0.5 was not heeded"),
        "no mask": (in_use(masked=False), "the first position has one key in use"),
        "NaN": (in_use(entropy=lambda a: -a * a.log()), "a share of 0 adds nothing"),
    },
    "09.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "own texts": (on_its_own_texts, "the texts it was trained on"),
        "traces": (experiment(lambda f, k, s, n: f(k, s) - n / 1000), "the order of kinds"),
        "no kind": (experiment(lambda f, k, s, n: f("rotary", s)), "the kind changes nothing"),
        "no seed": (experiment(lambda f, k, s, n: f(k, 0)), "the seed changes nothing"),
        "exchanged": (experiment(exchanged), "are the two kinds exchanged"),
        "no mask": (experiment(lambda f, k, s, n: f(k, s) / 5), "does a position see its answer"),
    },
}
STEP = "10 → 11 in `both = w_q - 10 * by_q, w_k - 10 * by_k`"
SHARES = "`p = scores.masked_fill(ahead, -math.inf).softmax(-1) @ F.one_hot(tokens, 6).float()`"
SURVIVORS = {
    "09.4: 0.0 → 1.0 in `o = o.masked_fill(lam.isneginf()[..., None], 0.0)`": (
        "what has no share may be any finite number"
    ),
    f"09.6: 6 → 7 in {SHARES}": "a seventh token that never occurs has no share",
    "09.6: 30 → 31 in `for _ in range(30):`": "a step more changes next to nothing",
    f"09.6: {STEP}": "a tenth more of the rate on one matrix changes next to nothing",
    f"09.6: {STEP} again": "the same on the other matrix",
}

TestSet = prove("09", WRONG, SURVIVORS)
