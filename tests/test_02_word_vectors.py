"""Every numbered equation of chapter 2 holds in float64, and its wrong versions do not."""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from ledger import Formula, prove
from scipy.optimize import brentq
from sklearn.metrics import mutual_info_score
from torch import Tensor

from mslearn.vectors import cooccurrence
from mslearn.vocabulary import Text, Vocabulary

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "02_word_vectors.ipynb"
K, D, NOISE, T = 5, 3, 4, 0.05  # words, numbers of a vector, noise words of a pair, threshold


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def counts(g: torch.Generator) -> tuple[Tensor]:
    """A table of counts without an empty cell, and not symmetric."""
    return (torch.randint(1, 30, (K, K), generator=g).double(),)


def sparse_counts(g: torch.Generator) -> tuple[Tensor]:
    table = torch.poisson(torch.full((K, K), 1.0, dtype=torch.float64), generator=g)
    return (table + torch.eye(K),)  # no row is empty


def products(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Products x of vectors, counts, and the shares of noise q."""
    return normal(g, K, K), *counts(g), normal(g, K).softmax(0)


def pair(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The vectors of a word, its context and its noise."""
    return normal(g, D), normal(g, D), normal(g, NOISE, D)


def table_and_basis(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return normal(g, 6, 5), torch.linalg.qr(normal(g, 6, 2)).Q


def glove_inputs(g: torch.Generator) -> tuple[Tensor, ...]:
    """Counts, vectors of words and contexts, and both biases."""
    return *counts(g), normal(g, K, D), normal(g, K, D), normal(g, K), normal(g, K)


def slope(function: Callable, at: int = 0) -> Callable:
    """Autograd's derivative of `function` by its argument number `at`."""
    return lambda *args: torch.func.jacrev(function, argnums=at)(*args)


def text_of_numbers(g: torch.Generator) -> tuple[Tensor, int]:
    return torch.randint(K, (12,), generator=g), 3


def count_by_places(t: Tensor, m: int, reach: Callable) -> Tensor:
    """(2.1) as it stands: a loop over places, distances, words and contexts."""
    table = torch.zeros(K, K)
    for i, j in product(range(len(t)), reach(m)):
        if 0 <= i + j < len(t):
            table[t[i], t[i + j]] += 1
    return table


def package_counts(t: Tensor, m: int) -> Tensor:
    vocabulary = Vocabulary(tuple("abcde"), torch.ones(K, dtype=torch.int64))
    text = Text(vocabulary, t, torch.zeros(len(t)))
    return torch.from_numpy(cooccurrence(text, m).toarray())


def pmi(N: Tensor) -> Tensor:
    return (N * N.sum() / (N.sum(1, keepdim=True) * N.sum(0))).log()


def ppmi_by_cell(N: Tensor) -> Tensor:
    rows, columns, total = N.sum(1).tolist(), N.sum(0).tolist(), N.sum().item()
    table = torch.zeros_like(N)
    for w, c in product(range(K), range(K)):
        if N[w, c] > 0 and N[w, c] * total > rows[w] * columns[c]:
            table[w, c] = math.log(N[w, c].item() * total / (rows[w] * columns[c]))
    return table


def conditional(N: Tensor) -> Tensor:
    """log p(c | w) − log p(c), by normalising rows."""
    return (N / N.sum(1, keepdim=True)).log() - F.normalize(N.sum(0), p=1, dim=0).log()


def squares(x: Tensor) -> Tensor:
    return x.square().sum()


def bound_by_singular_values(M: Tensor, Q: Tensor, used: int = 2) -> Tensor:
    """Whether (2.8) holds for a basis of two vectors, and with equality for the first two u."""
    u, s, _ = torch.linalg.svd(M)
    most = s[:used].square().sum()
    return torch.stack([squares(Q.T @ M) <= most, torch.isclose(squares(u[:, :2].T @ M), most)])


def halves(M: Tensor, power: float = 0.5) -> Tensor:
    u, s, vt = torch.linalg.svd(M, full_matrices=False)
    return (u[:, :2] * s[:2] ** power) @ (vt[:2].T * s[:2] ** power).T


def by_eigenvectors(M: Tensor) -> Tensor:
    """The best table of rank 2, from the greatest eigenvectors of M Mᵀ."""
    q = torch.linalg.eigh(M @ M.T).eigenvectors[:, -2:]
    return q @ q.T @ M


def true_or_noise(v: Tensor, u: Tensor, x: Tensor) -> Tensor:
    """The binary cross-entropy of a true context and its noise."""
    logits, labels = torch.stack([u, *x]) @ v, torch.zeros(len(x) + 1, dtype=v.dtype)
    labels[0] = 1
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def by_drawing(q: Tensor, g: Tensor, k: int, R: int) -> Tensor:
    """The left side of (2.17), over all the ways in which R noise words may be drawn."""
    total = torch.zeros((), dtype=torch.float64)
    for drawn in product(range(K), repeat=R):
        chosen = list(drawn)
        total += q[chosen].prod() * k / R * g[chosen].sum()
    return total


def expected_loss(x: Tensor, N: Tensor, q: Tensor) -> Tensor:
    """The loss of all pairs as a weighted binary cross-entropy with soft labels."""
    weight = N + NOISE * N.sum(1, keepdim=True) * q
    return F.binary_cross_entropy_with_logits(x, N / weight, weight, reduction="sum")


def noise(N: Tensor, q: Tensor) -> Tensor:
    return NOISE * N.sum(1, keepdim=True) * q


def least(N: Tensor, q: Tensor) -> Tensor:
    """Where the derivative of the expected loss is 0, cell by cell, by bisection."""
    found = torch.zeros_like(N)
    for w, c in product(range(K), range(K)):
        true, false = N[w, c].item(), noise(N, q)[w, c].item()
        found[w, c] = brentq(
            lambda x, a=true, b=false: (a + b) / (1 + math.exp(-x)) - a, -30, 30, xtol=1e-13
        )
    return found


def kept_as_published(f: Tensor) -> Tensor:
    """The paper's form: a place is *discarded* with probability 1 − √(t/f), if that is positive."""
    return 1 - (1 - (T / f).sqrt()).clamp(min=0)


def shares(g: torch.Generator) -> tuple[Tensor]:
    return (torch.cat([normal(g, 20).exp() * T, torch.tensor([T])]),)


def double_ratio(N: Tensor) -> Tensor:
    return N[0, 0] * N[1, 1] / (N[0, 1] * N[1, 0])


def fit(N: Tensor, a: Tensor) -> Tensor:
    """Products that fit (2.28): the log counts, less the log of each row's sum, plus any a_c."""
    return N.log() - N.sum(1, keepdim=True).log() + a


def weight(N: Tensor) -> Tensor:
    return torch.where(N < 20, (N / 20) ** 0.75, 1.0)


def rest(N: Tensor, v: Tensor, u: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("wd,cd->wc", v, u) + b[:, None] + bias - N.log()


def glove(N: Tensor, v: Tensor, u: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    target = torch.zeros_like(N)
    each = F.mse_loss(rest(N, v, u, b, bias), target, reduction="none")
    return (weight(N) * each).sum()


def delta(*given: Tensor) -> Tensor:
    return 2 * weight(given[0]) * rest(*given)


def both_slopes(*given: Tensor, of: tuple[int, int]) -> Tensor:
    return torch.cat([slope(glove, at)(*given).flatten() for at in of])


def adagrad(g: Tensor, power: float = 0.5, summed: bool = True) -> Tensor:
    """(2.37) for three steps of one number from 0, with G₀ = 0.1 and α = 0.3."""
    theta, total = torch.zeros((), dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    for each in g:
        total = total + each**2 if summed else 0.1 + each**2
        theta = theta - 0.3 * each / total**power
    return theta


def adagrad_of_torch(g: Tensor) -> Tensor:
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adagrad([theta], lr=0.3, initial_accumulator_value=0.1, eps=0)
    for each in g:
        theta.grad = each.clone()
        optimizer.step()
    return theta.detach()


def table_of(p: Tensor) -> Tensor:
    """The counts of pairs, (2, pairs)."""
    return torch.zeros(K, K).index_put_((p[0], p[1]), torch.ones(()), accumulate=True)


def squares_of_columns(x: Tensor) -> Tensor:
    return x.square().sum(0)


def precisely(*numbers: float) -> Tensor:
    """Python's numbers in their own 64 bits, which torch would round to 32."""
    return torch.tensor(numbers, dtype=torch.float64)


def labels(g: torch.Generator) -> tuple[Tensor]:
    return (torch.randint(3, (11,), generator=g),)


def same_label(y: Tensor) -> float:
    ordered = [(i, j) for i, j in product(range(len(y)), repeat=2) if i != j]
    return sum(bool(y[i] == y[j]) for i, j in ordered) / len(ordered)


def chance(y: Tensor, less: int = 1) -> Tensor:
    n = torch.bincount(y).double()
    return (n / len(y) * (n - less) / (len(y) - less)).sum()


def root_of(s: Tensor, bound: float = 128 / 9, sign: int = -1) -> Tensor:
    """The right side of (2.32) before the bound, and whether the bound holds."""
    value = s**2 * (sign * 3 * s / 4).exp()
    return torch.stack([value, (value <= bound / s).double()])


LEDGER = {
    "2.1": Formula(
        text_of_numbers,
        lambda t, m: count_by_places(t, m, lambda m: [*range(-m, 0), *range(1, m + 1)]),
        package_counts,
        {
            "one side": lambda t, m: count_by_places(t, m, lambda m: range(1, m + 1)),
            "itself too": lambda t, m: count_by_places(t, m, lambda m: range(-m, m + 1)),
        },
    ),
    "2.2": Formula(
        lambda g: (torch.randint(K, (2, 40), generator=g),),
        lambda p: torch.cat([table_of(p).sum(1), table_of(p).sum(0), table_of(p).sum()[None]]),
        lambda p: torch.tensor(
            [(p[0] == w).sum() for w in range(K)] + [(p[1] == c).sum() for c in range(K)] + [40]
        ),
        {
            "exchanged": lambda p: torch.cat(
                [table_of(p).sum(0), table_of(p).sum(1), table_of(p).sum()[None]]
            )
        },
    ),
    "2.3": Formula(
        counts,
        pmi,
        conditional,
        {
            "sign": lambda N: -pmi(N),
            "N forgotten": lambda N: (N / (N.sum(1, keepdim=True) * N.sum(0))).log(),
            "the conditional": lambda N: (N / N.sum(1, keepdim=True)).log(),
        },
    ),
    "2.4": Formula(
        counts,
        lambda N: torch.stack([(N / N.sum() * pmi(N)).sum(), ((N * pmi(N)).sum() >= 0).double()]),
        lambda N: precisely(mutual_info_score(None, None, contingency=N.numpy()), 1.0),
        {"plain mean": lambda N: torch.stack([pmi(N).mean(), torch.ones(()).double()])},
    ),
    "2.5": Formula(
        sparse_counts,
        lambda N: torch.where(N > 0, pmi(N).clamp(min=0), 0.0),
        ppmi_by_cell,
        {
            "not cut": lambda N: torch.where(N > 0, pmi(N), 0.0),
            "size": lambda N: torch.where(N > 0, pmi(N).abs(), 0.0),
        },
    ),
    "2.6": Formula(
        table_and_basis,
        lambda M, Q: squares(M) - squares(Q.T @ M),
        lambda M, Q: torch.linalg.matrix_norm(M - Q @ Q.T @ M) ** 2,
        {
            "plus": lambda M, Q: squares(M) + squares(Q.T @ M),
            "not squared": lambda M, Q: squares(M).sqrt() - squares(Q.T @ M).sqrt(),
        },
    ),
    "2.7": Formula(
        table_and_basis,
        lambda M, Q: (
            torch.linalg.svdvals(M) ** 2 * squares_of_columns(Q.T @ torch.linalg.svd(M)[0][:, :5])
        ).sum(),
        lambda M, Q: torch.linalg.matrix_norm(Q.T @ M) ** 2,
        {
            "s once": lambda M, Q: (
                torch.linalg.svdvals(M) * squares_of_columns(Q.T @ torch.linalg.svd(M)[0][:, :5])
            ).sum()
        },
    ),
    "2.8": Formula(
        table_and_basis,
        bound_by_singular_values,
        lambda M, Q: torch.ones(2),
        {
            "one fewer": lambda M, Q: bound_by_singular_values(M, Q, 1),
            "one more": lambda M, Q: bound_by_singular_values(M, Q, 3),
        },
    ),
    "2.9": Formula(
        lambda g: (normal(g, 6, 5),),
        halves,
        by_eigenvectors,
        {"S twice": lambda M: halves(M, 1.0), "S left out": lambda M: halves(M, 0.0)},
    ),
    "2.10": Formula(
        lambda g: (normal(g, D), normal(g, K, D)),
        lambda v, u: (u @ v).exp() / (u @ v).exp().sum(),
        lambda v, u: torch.einsum("kd,d->k", u, v).softmax(0),
        {"each for itself": lambda v, u: (u @ v).sigmoid()},
    ),
    "2.11": Formula(
        lambda g: (normal(g, D), normal(g, K, D)),
        lambda v, u: (u @ v).softmax(0) @ u - u[2],
        slope(lambda v, u: F.cross_entropy((u @ v)[None], torch.tensor([2]))),
        {
            "sign": lambda v, u: u[2] - (u @ v).softmax(0) @ u,
            "plain mean": lambda v, u: u.mean(0) - u[2],
        },
    ),
    "2.12": Formula(
        lambda g: (normal(g, K).softmax(0), normal(g, K).softmax(0)),
        lambda p, q: torch.stack([p / (p + NOISE * q), (p / (NOISE * q)).log().sigmoid()]),
        lambda p, q: (p / (NOISE + 1) / (p / (NOISE + 1) + NOISE / (NOISE + 1) * q)).expand(2, K),
        {
            "k forgotten": lambda p, q: (p / (p + q)).expand(2, K),
            "of noise": lambda p, q: (NOISE * q / (p + NOISE * q)).expand(2, K),
        },
    ),
    "2.13": Formula(
        pair,
        lambda v, u, x: -(u @ v).sigmoid().log() - (-(x @ v)).sigmoid().log().sum(),
        true_or_noise,
        {
            "noise as true": lambda v, u, x: (
                -(u @ v).sigmoid().log() - (x @ v).sigmoid().log().sum()
            ),
            "mean of noise": lambda v, u, x: (
                -(u @ v).sigmoid().log() - (-(x @ v)).sigmoid().log().mean()
            ),
        },
    ),
    "2.14": Formula(
        pair,
        lambda v, u, x: ((u @ v).sigmoid() - 1) * u + (x @ v).sigmoid() @ x,
        slope(true_or_noise),
        {
            "no push": lambda v, u, x: ((u @ v).sigmoid() - 1) * u,
            "sign": lambda v, u, x: (1 - (u @ v).sigmoid()) * u + (x @ v).sigmoid() @ x,
        },
    ),
    "2.15": Formula(
        pair,
        lambda v, u, x: ((u @ v).sigmoid() - 1) * v,
        slope(true_or_noise, 1),
        {"of noise": lambda v, u, x: (u @ v).sigmoid() * v},
    ),
    "2.16": Formula(
        pair,
        lambda v, u, x: (x @ v).sigmoid()[:, None] * v,
        slope(true_or_noise, 2),
        {"of a true one": lambda v, u, x: ((x @ v).sigmoid() - 1)[:, None] * v},
    ),
    "2.17": Formula(
        lambda g: (normal(g, K).softmax(0), normal(g, K), 3, 2),
        lambda q, g, k, R: k * (q * g).sum(),
        by_drawing,
        {
            "not weighted": lambda q, g, k, R: R * (q * g).sum(),
            "uniform": lambda q, g, k, R: k * g.mean(),
        },
    ),
    "2.18": Formula(
        products,
        lambda x, N, q: -(N * F.logsigmoid(x) + noise(N, q) * F.logsigmoid(-x)).sum(),
        expected_loss,
        {
            "k lost": lambda x, N, q: (
                -(N * F.logsigmoid(x) + noise(N, q) / NOISE * F.logsigmoid(-x)).sum()
            )
        },
    ),
    "2.19": Formula(
        products,
        lambda x, N, q: N * (x.sigmoid() - 1) + noise(N, q) * x.sigmoid(),
        slope(expected_loss),
        {
            "sign": lambda x, N, q: N * (1 - x.sigmoid()) + noise(N, q) * x.sigmoid(),
            "row forgotten": lambda x, N, q: N * (x.sigmoid() - 1) + NOISE * q * x.sigmoid(),
        },
    ),
    "2.20": Formula(
        products,
        lambda x, N, q: (N + noise(N, q)) * x.sigmoid() * (1 - x.sigmoid()),
        lambda x, N, q: slope(lambda y: slope(expected_loss)(y, N, q).sum())(x),
        {"true pairs only": lambda x, N, q: N * x.sigmoid() * (1 - x.sigmoid())},
    ),
    "2.21": Formula(
        lambda g: (*counts(g), normal(g, K).softmax(0)),
        lambda N, q: torch.stack([(N / (N + noise(N, q))).logit(), (N / noise(N, q)).log()]),
        lambda N, q: least(N, q).expand(2, K, K),
        {"upside down": lambda N, q: (noise(N, q) / N).log().expand(2, K, K)},
    ),
    "2.22": Formula(
        counts,
        lambda N: pmi(N) - math.log(NOISE),
        lambda N: least(N, N.sum(0) / N.sum()),
        {
            "plus": lambda N: pmi(N) + math.log(NOISE),
            "not shifted": pmi,
        },
    ),
    "2.23": Formula(
        shares,
        lambda f: (T / f).sqrt().clamp(max=1),
        kept_as_published,
        {"no root": lambda f: (T / f).clamp(max=1), "no limit": lambda f: (T / f).sqrt()},
    ),
    "2.24": Formula(
        lambda g: (T + torch.rand(9, generator=g, dtype=torch.float64),),
        lambda f: 1000 * (T * f).sqrt(),
        lambda f: 1000 * f * kept_as_published(f),
        {"no root": lambda f: 1000 * T * f, "t alone": lambda f: 1000 * T + 0 * f},
    ),
    "2.25": Formula(
        lambda g: (*counts(g), torch.rand(K, generator=g, dtype=torch.float64)),
        lambda N, r: double_ratio(r[:, None] * r * N),
        lambda N, r: double_ratio(N),
        {"added": lambda N, r: double_ratio((r[:, None] + r) * N)},
    ),
    "2.26": Formula(
        lambda g: (torch.randint(1, 99, (K,), generator=g).double(),),
        lambda n: n**0.75 / (n**0.75).sum(),
        lambda n: (0.75 * n.log()).softmax(0),
        {"power 1": lambda n: n / n.sum(), "root": lambda n: n**0.5 / (n**0.5).sum()},
    ),
    "2.27": Formula(
        lambda g: (*counts(g), normal(g, K).softmax(0)),
        lambda N, q: pmi(N) - math.log(NOISE) + (N.sum(0) / N.sum() / q).log(),
        least,
        {"upside down": lambda N, q: pmi(N) - math.log(NOISE) - (N.sum(0) / N.sum() / q).log()},
    ),
    "2.28": Formula(
        lambda g: (*counts(g), normal(g, K)),
        lambda N, a: (N[0] / N[0].sum() / (N[1] / N[1].sum())).log(),
        lambda N, a: fit(N, a)[0] - fit(N, a)[1],
        {
            "counts, not shares": lambda N, a: (N[0] / N[1]).log(),
            "exchanged": lambda N, a: (N[1] / N[1].sum() / (N[0] / N[0].sum())).log(),
        },
    ),
    "2.29": Formula(
        lambda g: (*counts(g), normal(g, K)),
        lambda N, a: fit(N, a) + N.sum(1, keepdim=True).log() - a,
        lambda N, a: N.log(),
        {"bias with the wrong sign": lambda N, a: fit(N, a) - N.sum(1, keepdim=True).log() - a},
    ),
    "2.30": Formula(
        glove_inputs,
        lambda *given: (weight(given[0]) * rest(*given) ** 2).sum(),
        glove,
        {
            "weight squared": lambda *given: (weight(given[0]) * rest(*given)).square().sum(),
            "bias forgotten": lambda N, v, u, b, bias: (
                weight(N) * rest(N, v, u, b, 0 * bias) ** 2
            ).sum(),
        },
    ),
    "2.31": Formula(
        counts,
        lambda N: torch.minimum(torch.ones(()), (N / 20) ** 0.75),
        weight,
        {
            "maximum": lambda N: torch.maximum(torch.ones(()), (N / 20) ** 0.75),
            "power 1": lambda N: (N / 20).clamp(max=1),
        },
    ),
    "2.32": Formula(
        lambda g: (torch.cat([20 * torch.rand(9, generator=g).double(), torch.tensor([4.0])]),),
        root_of,
        lambda s: torch.stack([(-s).exp() ** 0.75 * (-s).exp().log() ** 2, torch.ones_like(s)]),
        {
            "a bound too low": lambda s: root_of(s, 3.0),
            "growing": lambda s: root_of(s, sign=1),
        },
    ),
    "2.33": Formula(
        lambda g: (normal(g, K, K), *counts(g)),
        lambda r, N: 2 * weight(N) * r,
        slope(lambda r, N: (weight(N) * F.mse_loss(r, 0 * r, reduction="none")).sum()),
        {"factor 2 lost": lambda r, N: weight(N) * r, "weight lost": lambda r, N: 2 * r},
    ),
    "2.34": Formula(
        glove_inputs,
        lambda *given: torch.cat([(delta(*given) @ given[2]).flatten(), delta(*given).sum(1)]),
        lambda *given: both_slopes(*given, of=(1, 3)),
        {
            "over words": lambda *given: torch.cat(
                [(delta(*given).T @ given[2]).flatten(), delta(*given).sum(0)]
            )
        },
    ),
    "2.35": Formula(
        glove_inputs,
        lambda *given: torch.cat([(delta(*given).T @ given[1]).flatten(), delta(*given).sum(0)]),
        lambda *given: both_slopes(*given, of=(2, 4)),
        {
            "contexts' own": lambda *given: torch.cat(
                [(delta(*given).T @ given[2]).flatten(), delta(*given).sum(0)]
            )
        },
    ),
    "2.36": Formula(
        counts,
        pmi,
        lambda N: (
            N.log()
            - (N.sum(1, keepdim=True) / N.sum().sqrt()).log()
            - (N.sum(0) / N.sum().sqrt()).log()
        ),
        {"shifted": lambda N: pmi(N) - N.sum().log() / 2},
    ),
    "2.37": Formula(
        lambda g: (normal(g, 3),),
        adagrad,
        adagrad_of_torch,
        {
            "no root": lambda g: adagrad(g, power=1.0),
            "last square only": lambda g: adagrad(g, summed=False),
        },
    ),
    "2.38": Formula(
        lambda g: (normal(g, D), normal(g, D)),
        lambda a, b: a @ b / (a.norm() * b.norm()),
        lambda a, b: F.cosine_similarity(a, b, dim=0),
        {"product": lambda a, b: a @ b, "one length": lambda a, b: a @ b / a.norm() ** 2},
    ),
    "2.39": Formula(
        counts,
        lambda N: (N[1] / N[1].sum() / (N[0] / N[0].sum())).log(),
        lambda N: conditional(N)[1] - conditional(N)[0],
        {"rows' sums forgotten": lambda N: (N[1] / N[0]).log()},
    ),
    "2.40": Formula(
        labels,
        chance,
        same_label,
        {"with replacement": lambda y: chance(y, less=0)},
    ),
}

TestLedger = prove(PAGE, LEDGER)
