"""Chapter 5's exercises: wrong answers, and the words that each of them must meet."""

import math
import statistics
from collections.abc import Callable

import torch
from graded import prove
from torch import Tensor

RIGHT = {"momentum": [-0.4, -0.8], "nesterov": [-0.6, -1.0], "adam": [-0.1, -0.188]}


def adamw(
    fades: bool = True,
    corrected: bool = True,
    l2: bool = False,
    inside: bool = False,
    first: int = 1,
    shrinks: Callable = lambda rate, decay: 1 - rate * decay,
) -> Callable:
    """AdamW that goes wrong where its arguments say so."""

    def answer(
        theta: Tensor, gradients: Tensor, rate: float, decay: float, eps: float = 1e-8
    ) -> Tensor:
        m, s, path = torch.zeros_like(theta), torch.zeros_like(theta), []
        for t, g in enumerate(gradients, first):
            g = g + decay * theta if l2 else g
            m, s = 0.9 * m + 0.1 * g, 0.95 * s + 0.05 * g**2
            power = (t if fades else 1) if corrected else math.inf
            m_hat, s_hat = m / (1 - 0.9**power), s / (1 - 0.95**power)
            root = (s_hat + eps).sqrt() if inside else s_hat.sqrt() + eps
            theta = (1 if l2 else shrinks(rate, decay)) * theta - rate * m_hat / root
            path.append(theta)
        return torch.stack(path)

    return answer


def tuned(beta: float, mu: float, top: float) -> tuple[float, float]:
    """The radius of (5.5) at the rate of (5.12), whatever beta is."""
    rate = 4 / (math.sqrt(top) + math.sqrt(mu)) ** 2
    s = max(abs(1 + beta - rate * each) for each in (mu, top))
    return rate, max(math.sqrt(beta), (s + math.sqrt(max(s * s - 4 * beta, 0))) / 2)


def whole_polar(G: Tensor, alpha: float) -> tuple[Tensor, float]:
    """The steepest step by the spectral norm (5.46)."""
    u, values, v = torch.linalg.svd(G, full_matrices=False)
    return -alpha * u @ v, -alpha * values.sum().item()


def rows(length: Callable, fall: Callable = lambda G, x: (G * x).sum().item()) -> Callable:
    """Each row of G over `length(G)`, and the fall that `fall(G, step)` claims."""

    def answer(G: Tensor, alpha: float) -> tuple[Tensor, float]:
        step = -alpha * G / length(G)
        return step, fall(G, step)

    return answer


def lengths(G: Tensor) -> Tensor:
    """Those of the rows, and 1 where a row is 0."""
    found = G.norm(dim=1, keepdim=True)
    return torch.where(found > 0, found, 1.0)


def excess(
    slope: Callable = lambda p, q: p - q,
    bits: float = math.log(2),
    entropy: bool = True,
    counts: bool = False,
    corrected: bool = True,
    zero: Callable = torch.nansum,
) -> Callable:
    """Bits above the entropy that go wrong where the arguments say so."""

    def answer(text: bytes, method: str, rate: float, steps: int) -> float:
        q = torch.bincount(torch.tensor(list(text)), minlength=256).double() / len(text)
        z = m = s = torch.zeros_like(q)
        for t in range(1, steps + 1):
            g = slope(z.softmax(0), q) * (len(text) if counts else 1)
            m, s = 0.9 * m + 0.1 * g, 0.95 * s + 0.05 * g**2
            power = t if corrected else math.inf
            adams = m / (1 - 0.9**power) / ((s / (1 - 0.95**power)).sqrt() + 1e-8)
            z = z - rate * (adams if method == "adam" else g)
        least = -zero(q * q.log()) if entropy else 0
        return ((-(q * z.log_softmax(0)).sum() - least) / bits).item()

    return answer


def mean(train: Callable, method: str, rate: float, seeds: list[int]) -> float:
    found = sum(train(method, rate, seed) for seed in seeds) / len(seeds)
    return found if math.isfinite(found) else math.inf


def protocol(
    score: Callable = mean,
    on: Callable = lambda search, seeds: search,
    shared: bool = False,
    edge: Callable = lambda best, rates: best in (min(rates), max(rates)),
    report: Callable = lambda losses: losses,
) -> Callable:
    """A comparison that goes wrong where its arguments say so."""

    def answer(
        train: Callable, methods: list[str], rates: list[float], search: list[int], seeds: list[int]
    ) -> dict[str, dict]:
        found = {}
        for method in methods:
            tried = {rate: score(train, method, rate, on(search, seeds)) for rate in rates}
            best = min(tried, key=tried.get)
            if shared and found:
                best = found[methods[0]]["rate"]
            losses = report([train(method, best, seed) for seed in seeds])
            found[method] = {"rate": best, "edge": edge(best, rates), "losses": losses}
        return found

    return answer


WRONG = {
    "05.1": {
        "an average": ({**RIGHT, "momentum": [-0.2, -0.4]}, "this velocity is an average"),
        "forgotten": ({**RIGHT, "momentum": [-0.4, -0.6]}, "not the gradient alone"),
        "uphill": ({**RIGHT, "momentum": [0.4, 0.8]}, "this goes uphill"),
        "momentum again": ({**RIGHT, "nesterov": [-0.4, -0.8]}, "this is momentum's path"),
        "the whole velocity": ({**RIGHT, "nesterov": [-0.8, -1.4]}, "counts β times"),
        "not corrected": ({**RIGHT, "adam": [-0.1, -0.2]}, "right by accident"),
        "no root": ({**RIGHT, "adam": [-0.025, -0.054]}, "the square root is missing"),
        "the gradient's size": ({**RIGHT, "adam": [-0.4, -0.6]}, "as long as the rate"),
        "half done": ({**RIGHT, "adam": None}, "there is no number yet"),
    },
    "05.2": {
        "as handed out": (adamw(fades=False, l2=True), "went through the averages"),
        "still L2": (adamw(l2=True), "went through the averages"),
        "still the first correction": (adamw(fades=False), "the corrections must fade"),
        "no correction": (adamw(corrected=False), "the correction is missing"),
        "inside": (adamw(inside=True), "ε stands inside the root"),
        "without the rate": (adamw(shrinks=lambda rate, decay: 1 - decay), "not by the decay"),
        "from step 0": (adamw(first=0), "step 1 is the first wrong one"),
        "no decay": (adamw(shrinks=lambda rate, decay: 1), "nothing decays"),
    },
    "05.3": {
        "gradient descent's": (
            lambda beta, mu, top: (2 / (top + mu), math.sqrt(beta) or (top - mu) / (top + mu)),
            "gradient descent's best rate",
        ),
        "that of the best momentum": (tuned, "leaves a greater one"),
        "the edge": (lambda beta, mu, top: (2 * (1 + beta) / top, 1.0), "not even stable"),
        "the pair's radius": (
            lambda beta, mu, top: (2 * (1 + beta) / (top + mu), math.sqrt(beta)),
            "its roots are real",
        ),
        "the best radius of all": (
            lambda beta, mu, top: (2 * (1 + beta) / (top + mu), 1 - 2 / (1 + math.sqrt(top / mu))),
            "the radius at your rate is",
        ),
    },
    "05.4": {
        "by the largest entry": (lambda G, alpha: (-alpha * G.sign(), 0.0), "its rows are too"),
        "one vector": (rows(torch.linalg.norm), "makes the whole of G one vector"),
        "no care of 0": (rows(lambda G: G.norm(dim=1, keepdim=True)), "0/0"),
        "a small number added": (
            rows(lambda G: G.norm(dim=1, keepdim=True) + 1e-8),
            "be it ever so small",
        ),
        "uphill": (rows(lambda G: -lengths(G)), "uphill"),
        "columns": (rows(lambda G: G.norm(dim=0)), "as long as allowed"),
        "Muon's": (whole_polar, "may go the whole length"),
        "the mean": (rows(lengths, lambda G, x: (G * x).sum(1).mean().item()), "the step is right"),
    },
    "05.5": {
        "nats": (excess(bits=1.0), "these are nats"),
        "the whole loss": (excess(entropy=False), "take it off"),
        "uphill": (excess(slope=lambda p, q: q - p), "this goes uphill"),
        "no p": (excess(slope=lambda p, q: -q), "nothing ever stops"),
        "counts": (excess(counts=True), "q are shares, not counts"),
        "not corrected": (excess(corrected=False), "bits too many"),
        "0 log 0": (excess(zero=torch.sum), "0 · log 0 counted as 0"),
    },
    "05.6": {
        "one rate for all": (protocol(shared=True), "that compares the rate"),
        "searched on the report": (
            protocol(on=lambda search, seeds: seeds),
            "the choice has seen the examination",
        ),
        "one seed": (protocol(on=lambda search, seeds: search[:1]), "searching runs are missing"),
        "the luckiest seed": (
            protocol(score=lambda train, m, r, seeds: min(mean(train, m, r, [s]) for s in seeds)),
            "was lucky with one seed",
        ),
        "the median": (
            protocol(
                score=lambda train, m, r, seeds: statistics.median(train(m, r, s) for s in seeds)
            ),
            "their mean decides",
        ),
        "the worst seed": (
            protocol(score=lambda train, m, r, seeds: max(mean(train, m, r, [s]) for s in seeds)),
            "their mean decides",
        ),
        "NaN compared": (
            protocol(score=lambda train, m, r, seeds: sum(train(m, r, s) for s in seeds)),
            "no comparison with NaN is true",
        ),
        "the last in the list": (
            protocol(edge=lambda best, rates: best in (rates[0], rates[-1])),
            "edge should be",
        ),
        "only the mean": (protocol(report=lambda losses: sum(losses) / 2), "hides the spread"),
    },
}
GREATER = "return rate, max(beta**0.5, (s + max(s * s - 4 * beta, 0) ** 0.5) / 2)"
ADAMS = "adams = m / (1 - 0.9**t) / ((s / (1 - 0.95**t)).sqrt() + 1e-8)"
MEAN = "mean = sum(train(method, rate, seed) for seed in search) / len(search)"
SURVIVORS = {
    f"05.3: arguments swapped in `{GREATER}`": "the greater of two in any order",
    f"05.3: arguments swapped in `{GREATER}` again": "the greater of two in any order",
    f"05.5: Add → Sub in `{ADAMS}`": "no gradient here is so small that ε counts",
    f"05.5: 1e-08 → 2e-08 in `{ADAMS}`": "no gradient here is so small that ε counts",
    f"05.6: Div → Mult in `{MEAN}`": "sums over the same seeds have the order of their means",
}

TestSet = prove("05", WRONG, SURVIVORS)
