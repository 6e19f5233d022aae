"""Chapter 8's exercises: wrong answers, and the words that each of them must meet."""

from collections.abc import Callable

import torch
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {
    "batch": [[-1, 0], [1, 0]],
    "layer": [[-1, 1], [1, -1]],
    "rms": [[0, 1.414], [1.177, 0.784]],
    "running": 2.7,
}


def grouped(
    gamma: str = "before", mean: int = 1, along: int = 1, every: bool = False, fixed: bool = False
) -> Callable:
    """The gradient of group normalisation, wrong where its arguments say so."""

    def answer(x: Tensor, weight: Tensor, u: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
        h = weight * u if gamma == "before" else u
        parts, h = (each.view(len(x), 1 if every else groups, -1) for each in (x, h))
        d = parts - parts.mean(-1, keepdim=True)
        r = (d.square().mean(-1, keepdim=True) + (1e-5 if fixed else eps)).rsqrt()
        out = mean * h.mean(-1, keepdim=True) + along * r * d * (h * r * d).mean(-1, keepdim=True)
        slope = (r * (h - out)).view_as(x)
        return weight * slope if gamma == "after" else slope

    return answer


def fold(
    scale: Callable = lambda gamma, variance, eps: gamma / (variance + eps).sqrt(),
    weight: Callable = lambda w, scale: w * scale,
    bias: Callable = lambda w, b, moved, beta: b + w @ (moved + beta),
) -> Callable:
    """A layer that swallows a normaliser, wrong where its arguments say so."""

    def answer(w: Tensor, b: Tensor, mean: Tensor, variance: Tensor, *rest: Tensor) -> tuple:
        gamma, beta, eps = rest
        by = scale(gamma, variance, eps)
        return weight(w, by), bias(w, b, -by * mean, beta)

    return answer


def masked(
    blank: bool = False, all_places: bool = False, rho_of: Callable = lambda rho: rho, **change: int
) -> Callable:
    """Normalisation of padded sentences, wrong where its arguments say so."""

    def answer(
        x: Tensor, real: Tensor, mean: Tensor, variance: Tensor, rho: float = 0.1, eps: float = 1e-5
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = x[real]
        if blank or all_places:
            rows = (x * real[..., None] if blank else x).flatten(0, 1)
        n = len(rows) if not change.get("places") else real.numel()
        mu, sigma2 = rows.mean(0), rows.var(0, correction=0)
        unbiased = sigma2 if change.get("biased") else sigma2 * n / (n - 1)
        x_hat, rho = (x - mu) / (sigma2 + eps).sqrt(), rho_of(rho)
        return x_hat, (1 - rho) * mean + rho * mu, (1 - rho) * variance + rho * unbiased

    return answer


def rates(
    measure: Callable = lambda lr, w: lr / w.square().sum(),
    through: bool = True,
    decay_by: Callable = lambda lr, decay: lr * decay,
    sign: int = 1,
    first: int = 0,
) -> Callable:
    """Effective rates that go wrong where the arguments say so."""

    def answer(x: Tensor, t: Tensor, w: Tensor, lr: float, decay: float, steps: int) -> Tensor:
        h, found = -t / len(t), [measure(lr, w)]
        for _ in range(steps):
            d = x @ w - (x @ w).mean()
            r = 1 / d.square().mean().sqrt()
            slope = r * (h - through * (h.mean() + r * d * (h * r * d).mean()))
            w = (1 - decay_by(lr, decay)) * w - sign * lr * x.T @ slope
            found.append(measure(lr, w))
        return torch.stack(found[first:])

    return answer


def as_handed_out(x: Tensor, real: Tensor, mean: Tensor, variance: Tensor, *more: float) -> tuple:
    return grade.load("08")["08.4"].stub(x, real, mean, variance, *more)


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(reference, normalised, scale, seed, run's number)`."""

    def answer(normalised: bool, scales: list[float], seeds: list[int]) -> dict[float, list[float]]:
        reference = grade.load("08")["08.6"].reference

        def one(normalised: bool, scale: float, seed: int) -> float:
            return reference(normalised, [scale], [seed])[scale][0]

        runs = iter(range(len(scales) * len(seeds)))
        return {c: [change(one, normalised, c, s, next(runs)) for s in seeds] for c in scales}

    return answer


def on_its_own_points(normalised: bool, scales: list[float], seeds: list[int]) -> dict:
    losses_of = grade.load("08")["08.6"].rules[0].test.__globals__["losses_of"]
    return {c: [losses_of(normalised, c, s)[0] for s in seeds] for c in scales}


def only_the_mean(normalised: bool, scales: list[float], seeds: list[int]) -> dict[float, float]:
    return {each: 0.2 for each in scales}


WRONG = {
    "08.1": {
        "along the rows": ({**RIGHT, "batch": RIGHT["layer"]}, "this went along the rows"),
        "down the columns": ({**RIGHT, "layer": RIGHT["batch"]}, "this went down the columns"),
        "n − 1": ({**RIGHT, "batch": [[-0.707, 0], [0.707, 0]]}, "n − 1 is for the running one"),
        "mean off": ({**RIGHT, "rms": RIGHT["layer"]}, "this normaliser only scales"),
        "length 1": ({**RIGHT, "rms": [[0, 1], [0.832, 0.555]]}, "the mean square that must be 1"),
        "biased": ({**RIGHT, "running": 1.8}, "n/(n − 1) makes it right"),
        "weights exchanged": ({**RIGHT, "running": 16.3}, "the weights are exchanged"),
        "half done": ({**RIGHT, "rms": None}, "there is no number yet"),
    },
    "08.2": {
        "no gamma": (grouped(gamma="none"), "γ is missing"),
        "gamma after": (grouped(gamma="after"), "γ came after the means"),
        "statistics fixed": (grouped(mean=0, along=0), "μ and σ² depend on x"),
        "mean kept": (grouped(mean=0), "the mean of h is still in it"),
        "part along kept": (grouped(along=0), "the part of h along x̂ is still in it"),
        "layer norm": (grouped(every=True), "over all features, not over each group"),
        "eps not heeded": (grouped(fixed=True), "eps=0.01 was not heeded"),
    },
    "08.3": {
        "no root": (fold(scale=lambda g, v, e: g / (v + e)), "the root of the variance"),
        "own bias only": (fold(bias=lambda w, b, m, beta: b + m + beta), "comes through w, too"),
        "outputs": (fold(weight=lambda w, s: s[:, None] * w), "this scales the outputs"),
        "no gamma": (fold(scale=lambda g, v, e: 1 / (v + e).sqrt()), "γ is not in the weight"),
        "no mean": (fold(bias=lambda w, b, m, beta: b + w @ beta), "the running mean is not"),
        "no beta": (fold(bias=lambda w, b, m, beta: b + w @ m), "β is not in the bias"),
        "beta beside": (fold(bias=lambda w, b, m, beta: b + beta + w @ m), "β goes through W"),
        "bias lost": (fold(bias=lambda w, b, m, beta: w @ (m + beta)), "own bias is lost"),
        "no eps": (fold(scale=lambda g, v, e: g / v.sqrt()), "ε = 0.5 was left out"),
        "eps outside": (fold(scale=lambda g, v, e: g / (v.sqrt() + e)), "ε stands under the root"),
    },
    "08.4": {
        "as handed out": (as_handed_out, "it forgets"),
        "padding counts": (masked(all_places=True), "padded places are still among the numbers"),
        "padding blanked": (masked(blank=True), "padding set to 0 still counts"),
        "padded mean": (masked(all_places=True), "padding went into the running mean"),
        "still forgets": (masked(rho_of=lambda rho: 1 - rho), "what was before 0.8"),
        "biased": (masked(biased=True), "σ² is too small on average"),
        "all places in n": (masked(places=True), "n is the number of real places"),
        "a rate of its own": (masked(rho_of=lambda rho: 0.1), "rho=0.2 was not heeded"),
    },
    "08.5": {
        "length": (rates(measure=lambda lr, w: lr / w.norm()), "the length counts squared"),
        "no rate": (rates(measure=lambda lr, w: 1 / w.square().sum()), "the rate α is missing"),
        "statistics fixed": (rates(through=False), "μ and σ depend on w"),
        "no decay": (rates(decay_by=lambda lr, decay: 0), "the decay does nothing"),
        "decay by λ": (rates(decay_by=lambda lr, decay: decay), "the decay is α λ"),
        "no start": (rates(first=1), "the start's among them"),
        "no brake": (lambda x, t, w, lr, *rest: torch.full((3,), lr), "it may be at most 1/2G"),
    },
    "08.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "own points": (on_its_own_points, "the points it was trained on"),
        "traces": (experiment(lambda f, k, c, s, n: f(k, c, s) - n / 1000), "the order of scales"),
        "no scale": (experiment(lambda f, k, c, s, n: f(k, 1.0, s)), "the scale changes nothing"),
        "no seed": (experiment(lambda f, k, c, s, n: f(k, c, 0)), "the seed changes nothing"),
        "never normalised": (experiment(lambda f, k, c, s, n: f(False, c, s)), "still matters"),
        "always normalised": (experiment(lambda f, k, c, s, n: f(True, c, s)), "changes nothing"),
    },
}
SURVIVORS = {
    "08.4: 0.1 → 0.2 in `rho: float = 0.1,`": "it is given, and the checks hand ρ over",
    "08.6: 60 → 61 in `for _ in range(60):`": "a step more changes next to nothing",
}

TestSet = prove("08", WRONG, SURVIVORS)
