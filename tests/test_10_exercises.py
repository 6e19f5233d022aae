"""Chapter 10's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {"block": 121300, "whole": 362800, "bytes": 5804800, "forwards": 840000, "cache": 20000}


def costs(**wrong: int | None) -> dict[str, int | None]:
    return {**RIGHT, **wrong}


def shared(
    spread: Callable = lambda each, n: each.repeat_interleave(n, 0),
    allowed: Callable = lambda s, p: (s <= s[:, None]) | (s < p),
    scale: Callable = math.sqrt,
) -> Callable:
    """Grouped heads that are off where the arguments say so."""

    def answer(q: Tensor, k: Tensor, v: Tensor, prefix: int) -> Tensor:
        k, v = (spread(each, len(q) // len(each)) for each in (k, v))
        mask = allowed(torch.arange(q.shape[1]), prefix)
        scores = (q @ k.mT / scale(q.shape[-1])).masked_fill(~mask, -math.inf)
        return scores.softmax(-1) @ v

    return answer


def only_the_prefix(s: Tensor, p: int) -> Tensor:
    return (s < p) | (s <= s[:, None]) & (s[:, None] < p) | (s == 0) & (s[:, None] >= p)


def by_head(w: Tensor, n_heads: int) -> Tensor:
    return w.view(n_heads, -1, 2, w.shape[1]).transpose(1, 2).flatten(0, 2)


def across(w: Tensor, n_heads: int) -> Tensor:
    return by_head(w, 1)


def other_way(w: Tensor, n_heads: int) -> Tensor:
    return w.view(n_heads, 2, -1, w.shape[1]).transpose(1, 2).flatten(0, 2)


def stays(w: Tensor, n_heads: int) -> Tensor:
    return w


def converted(
    rows: Callable = by_head,
    values: Callable = stays,
    out: Callable = lambda w: w.T,
    head: Callable | None = lambda table: table,
) -> Callable:
    """A conversion with the slips that the arguments put in."""

    def answer(theirs: dict[str, Tensor], n_heads: int) -> dict[str, Tensor]:
        table = theirs["table"]
        q, k, v = theirs["qkv"].T.split(table.shape[1])
        ours = {"q": rows(q, n_heads), "k": rows(k, n_heads), "v": values(v, n_heads)}
        ours |= {"embedding": table, "out": out(theirs["out"])}
        return ours | ({"head": head(table)} if head else {})

    return answer


def layer(
    norm: Callable = lambda s, hat, sigma: (
        (s - s.mean(-1, keepdim=True) - hat * (s * hat).mean(-1, keepdim=True)) / sigma
    ),
    pre: Callable = lambda x, W, slope, N: slope + N(x, slope @ W),
    post: Callable = lambda x, W, slope, N: N(x + x @ W.T, slope) @ (torch.eye(len(W)).to(W) + W),
) -> Callable:
    """A gradient past a norm, wrong where the arguments say so."""

    def through(u: Tensor, s: Tensor) -> Tensor:
        hat = F.layer_norm(u, u.shape[-1:], eps=0.0)
        return norm(s, hat, u.std(-1, keepdim=True, correction=0))

    def answer(x: Tensor, W: Tensor, slope: Tensor, place: str) -> Tensor:
        return (pre if place == "pre" else post)(x, W, slope, through)

    return answer


def no_sigma(s: Tensor, hat: Tensor, sigma: Tensor) -> Tensor:
    return s - s.mean(-1, keepdim=True) - hat * (s * hat).mean(-1, keepdim=True)


def no_mean(s: Tensor, hat: Tensor, sigma: Tensor) -> Tensor:
    return (s - hat * (s * hat).mean(-1, keepdim=True)) / sigma


def no_stretch(s: Tensor, hat: Tensor, sigma: Tensor) -> Tensor:
    return (s - s.mean(-1, keepdim=True)) / sigma


def left(
    first: Callable = lambda start, streams: start,
    less: Callable = lambda x: x - x.mean(),
    skip: int = 0,
    pre: Callable = lambda n, s: (1 + n * s * s) ** -0.5,
    post: Callable = lambda n, s: (1 + s * s) ** (-n / 2),
    turned: bool = False,
) -> Callable:
    """What is left of the embedding, wrong where the arguments say so."""

    def answer(start: Tensor, branches: Tensor, place: str) -> tuple[float, float]:
        streams = [start]
        for each in branches[: len(branches) - skip]:
            x = streams[-1] + each
            norm = (place == "post") != turned
            streams.append(F.layer_norm(x, x.shape, eps=0.0) if norm else x)
        measured = F.cosine_similarity(first(start, streams), less(streams[-1]), dim=0).item()
        s = branches.var(-1, correction=0).mean().sqrt().item()
        return measured, (pre if place == "pre" else post)(len(branches), s)

    return answer


def deviations(start: Tensor, branches: Tensor, place: str) -> tuple[float, float]:
    s = branches.std(-1, correction=0).mean().item()
    pre, post = (lambda n, _: (1 + n * s) ** -0.5), (lambda n, _: (1 + s) ** (-n / 2))
    return left(pre=pre, post=post)(start, branches, place)


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(run of the reference, place, depth, seed, number)`."""

    def answer(depths: list[int], seeds: list[int]) -> dict[str, dict[int, list]]:
        reference = grade.load("10")["10.6"].reference

        def one(place: str, depth: int, seed: int) -> float:
            return reference([depth], [seed])[place][depth][0]

        def run(place: str, depth: int, seed: int) -> float:
            return change(one, place, depth, seed, next(runs))

        runs = iter(range(2 * len(depths) * len(seeds)))
        return {p: {n: [run(p, n, s) for s in seeds] for n in depths} for p in ("pre", "post")}

    return answer


def reads_itself(one: Callable, place: str, depth: int, seed: int, number: int) -> float:
    share_of = grade.load("10")["10.6"].rules[0].test.__globals__["share_of"]
    return share_of(place, depth, seed, reads=0)


def means(depths: list[int], seeds: list[int]) -> dict[str, dict[int, float]]:
    return {place: dict.fromkeys(depths, 1.0) for place in ("pre", "post")}


def pre_alone(depths: list[int], seeds: list[int]) -> dict[int, list[float]]:
    return grade.load("10")["10.6"].reference(depths, seeds)["pre"]


WRONG = {
    "10.1": {
        "no biases": (costs(block=120000), "the matrices alone"),
        "no norms": (costs(block=120900), "the norms are missing"),
        "one norm": (costs(block=121100), "there are two norms in a block"),
        "two tables": (costs(whole=462800), "the tables are tied"),
        "no last norm": (costs(whole=362600), "one more norm before the head"),
        "no positions": (costs(whole=342800), "positions have a table as well"),
        "weights alone": (costs(bytes=1451200), "the weights alone"),
        "three numbers": (costs(bytes=4353600), "four numbers for each parameter"),
        "no attention": (costs(forwards=680000), "attention itself is missing"),
        "no head": (costs(forwards=640000), "the head is a product too"),
        "training": (costs(forwards=2520000), "a third of it"),
        "every head": (costs(cache=80000), "G is 1"),
        "keys alone": (costs(cache=10000), "both keys and values are kept"),
        "something else": (costs(cache=5), "5 is not the exact number"),
        "half done": (costs(bytes=None), "there is no number yet"),
    },
    "10.2": {
        "alternating": (shared(spread=lambda x, n: x.repeat(n, 1, 1)), "the heads alternate"),
        "first head": (shared(spread=lambda x, n: x[[0] * n * len(x)]), "every head uses the"),
        "no root": (shared(scale=float), "divided by √d, not by d"),
        "no scale": (shared(scale=lambda d: 1.0), "divide the scores by √d"),
        "no mask": (shared(allowed=lambda s, p: s[:, None] >= 0 * s), "must not see what comes"),
        "no prefix": (shared(allowed=lambda s, p: s <= s[:, None]), "the prefix changes nothing"),
        "one more": (
            shared(allowed=lambda s, p: (s <= s[:, None]) | (s < p + (p > 0))),
            "one position too many",
        ),
        "prefix alone": (shared(allowed=only_the_prefix), "right inside the prefix"),
    },
    "10.3": {
        "not transposed": (converted(out=lambda w: w), "its shape fits and its numbers do not"),
        "rows as they were": (converted(rows=stays), "the rows are as they were"),
        "heads mixed": (converted(rows=across), "the heads are mixed"),
        "other way": (converted(rows=other_way), "the rows are moved the other way"),
        "values too": (converted(values=by_head), "the rows of the values were moved"),
        "no head": (converted(head=None), "ours would keep the random one"),
        "another head": (converted(head=torch.zeros_like), "the tables are tied"),
        "off": (converted(rows=stays), "the logits are off by up to"),
    },
    "10.4": {
        "no sigma": (layer(norm=no_sigma), "everything that is left is divided by σ"),
        "no mean": (layer(norm=no_mean), "a slope along 1 becomes 0"),
        "no stretch": (layer(norm=no_stretch), "a slope along x̂ becomes 0"),
        "norm left out": (layer(post=lambda x, W, s, N: s + N(x, s @ W)), "goes through it"),
        "branch alone": (layer(pre=lambda x, W, s, N: N(x, s @ W)), "straight line is missing"),
        "turned W": (layer(pre=lambda x, W, s, N: s + N(x, s @ W.T)), "where its transpose"),
        "no norm": (layer(pre=lambda x, W, s, N: s + s @ W), "the branch has a norm"),
        "one way": (layer(post=lambda x, W, s, N: N(x + x @ W.T, s)), "goes two ways"),
        "post, branch alone": (
            layer(post=lambda x, W, s, N: N(x + x @ W.T, s) @ W),
            "a summand under the norm",
        ),
        "at x": (
            layer(post=lambda x, W, s, N: N(x, s) + N(x, s) @ W),
            "at x + W x, not at x",
        ),
    },
    "10.5": {
        "turned round": (left(turned=True), "measures what"),
        "last one missing": (left(skip=1), "the last branch is missing"),
        "last step": (left(first=lambda start, xs: xs[-2] - xs[-2].mean()), "last addition left"),
        "with its mean": (left(less=lambda x: x), "take the mean off the stream"),
        "formulas swapped": (
            left(pre=lambda n, s: (1 + s * s) ** (-n / 2)),
            "(10.7) is post-norm's",
        ),
        "variance": (left(post=lambda n, s: (1 + s * s) ** -n), "by σ, not by σ²"),
        "no root": (left(pre=lambda n, s: 1 / (1 + n * s * s)), "the root of 1 + n s²"),
        "deviation": (deviations, "this took the deviation"),
    },
    "10.6": {
        "pre alone": (pre_alone, "expected what was found by place"),
        "means": (means, "a mean alone hides the spread"),
        "swapped": (
            experiment(lambda f, p, n, s, k: f("post" if p == "pre" else "pre", n, s)),
            "the places are swapped",
        ),
        "one place": (experiment(lambda f, p, n, s, k: f("pre", n, s)), "the place changes noth"),
        "one seed": (experiment(lambda f, p, n, s, k: f(p, n, 0)), "the seed changes nothing"),
        "one depth": (experiment(lambda f, p, n, s, k: f(p, min(n, 2), s)), "does the depth reach"),
        "reads itself": (experiment(reads_itself), "each position reads itself"),
        "a block too many": (experiment(lambda f, p, n, s, k: f(p, n + 1, s)), "expected ["),
        "traces": (experiment(lambda f, p, n, s, k: f(p, n, s) - k / 20), "leaves traces"),
        "no effect": (experiment(lambda f, p, n, s, k: f(p, 0, s)), "without a scratch"),
    },
}
ROWS = "in `q, k = (w.view(n_heads, -1, 2, D).transpose(1, 2).flatten(0, 2) for w in (q, k))`"
NORM = "in `x = (x - x.mean()) / x.std(correction=0)`"
ANGLE = "in `return F.cosine_similarity(start, x - x.mean(), dim=0).item(), predicted`"
SHIFT = "a shift of all numbers changes no deviation, and the mean goes before the measure"
SURVIVORS = {
    f"10.3: arguments swapped {ROWS} again": "two axes change places whichever is named first",
    f"10.5: Sub → Add {NORM}": SHIFT,
    f"10.5: mean → sum {NORM}": SHIFT,
    f"10.5: arguments swapped {ANGLE}": "the angle between two streams has no order",
}

TestSet = prove("10", WRONG, SURVIVORS)
