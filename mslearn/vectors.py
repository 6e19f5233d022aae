"""Words as vectors: counts of what stands together, skip-gram and GloVe with gradients by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mslearn.vocabulary import Text, check_window

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def cooccurrence(
    text: Text, window: int, weight: Callable[[int], float] = lambda distance: 1.0
) -> "csr_array":
    """How often each word (row) stands near each other one (column), a pair counting
    `weight(distance)`; symmetric. Raises ValueError for a window below 1."""
    from scipy.sparse import coo_array, csr_array

    check_window(window)
    ids, documents, n = text.ids.numpy(), text.documents.numpy(), len(text.vocabulary)
    total = csr_array((n, n), dtype=np.float32)
    for j in range(1, min(window, len(ids) - 1) + 1):
        together = documents[:-j] == documents[j:]
        values = np.full(together.sum(), weight(j), dtype=np.float32)
        places = (ids[:-j][together], ids[j:][together])
        total = total + coo_array((values, places), shape=(n, n)).tocsr()
    return csr_array(total + total.T)


def ppmi(counts: "csr_array", power: float = 1.0) -> "csr_array":
    """Positive pointwise mutual information, with the contexts' shares raised to `power`.

    Sources: Church and Hanks 1990; Levy, Goldberg and Dagan 2015 for the power.
    """
    table = counts.tocoo()
    rows = np.asarray(counts.sum(1)).ravel()
    columns = np.asarray(counts.sum(0)).ravel() ** power
    columns = columns / columns.sum()
    information = np.log(table.data / (rows[table.row] * columns[table.col]))
    table.data = np.maximum(information, 0).astype(np.float32)
    return table.tocsr()


def factor(table: "csr_array", d: int = 64, seed: int = 0) -> Float[Tensor, "words d"]:
    """The left half U√S of the best approximation of rank `d`, by a randomised SVD."""
    _width(d, table.shape[0])
    dense = torch.from_numpy(table.toarray())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, _ = torch.svd_lowrank(dense, min(d + 10, table.shape[0]), niter=3)
    return u[:, :d] * s[:d].sqrt()


def _width(d: int, n: int) -> None:
    if not 1 <= d <= n:
        raise ValueError(f"vectors of {n} words have 1 to {n} numbers each, got d={d}")


class AdaGrad:
    """θ ← θ − α g/√G with G the sum of all squared gradients; sums start at `start`."""

    def __init__(self, *parameters: Tensor, start: float = 0.01) -> None:
        self.parameters = parameters
        self.sums = [torch.full_like(each, start) for each in parameters]

    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        for parameter, total, gradient in zip(self.parameters, self.sums, gradients, strict=True):
            total.addcmul_(gradient, gradient)
            parameter.addcdiv_(gradient, total.sqrt(), value=-lr)


def negative_sampling(
    v: Float[Tensor, "batch d"], u: Float[Tensor, "batch d"], x: Float[Tensor, "noise d"], k: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss summed over a batch of words `v` with contexts `u` and shared noise `x`, and its
    gradients by v, u and x. Each noise word weighs k/noise, so that k count for each pair."""
    right, wrong, share = (v * u).sum(1), v @ x.T, k / len(x)
    loss = -F.logsigmoid(right).sum() - share * F.logsigmoid(-wrong).sum()
    pull = (right.sigmoid() - 1)[:, None]  # (batch, 1)
    push = share * wrong.sigmoid()  # (batch, noise)
    return loss, pull * u + push @ x, pull * v, push.T @ v


@dataclass(frozen=True)
class SkipGram:
    """What skip-gram with negative sampling may be told; `passes` over the text."""

    d: int = 64
    window: int = 5
    k: int = 5
    noise: int = 64
    threshold: float = 1e-3
    power: float = 0.75
    passes: int = 4
    batch: int = 4096
    lr: float = 0.3

    def train(self, text: Text, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The vectors of words and those of contexts, (words, d) each."""
        n, g = len(text.vocabulary), torch.Generator().manual_seed(seed)
        _width(self.d, n)
        W, C = (0.1 * torch.randn(n, self.d, generator=g) for _ in range(2))
        optimizer = AdaGrad(W, C)
        sums = (text.vocabulary.counts**self.power).cumsum(0)
        for a_pass in range(self.passes):
            pairs = torch.stack(text.thinned(self.threshold, g).pairs(self.window, g))
            batches = pairs[:, torch.randperm(pairs.shape[1], generator=g)].split(self.batch, 1)
            for step, (w, c) in enumerate(batches):
                drawn = torch.rand(self.noise, generator=g) * sums[-1]
                z = torch.searchsorted(sums, drawn).clamp(max=n - 1)
                _, dv, du, dx = negative_sampling(W[w], C[c], C[z], self.k)
                dW = torch.zeros_like(W).index_add_(0, w, dv)
                dC = torch.zeros_like(C).index_add_(0, c, du).index_add_(0, z, dx)
                done = (a_pass + step / len(batches)) / self.passes
                optimizer.step((dW, dC), self.lr * (1 - done))
        return W, C


def glove_loss(
    v: Float[Tensor, "rows d"],
    C: Float[Tensor, "words d"],
    b: Float[Tensor, " rows"],
    bias: Float[Tensor, " words"],
    counts: Float[Tensor, "rows words"],
    x_max: float,
    power: float = 0.75,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss of some rows of the table of counts, and its gradients by v, C, b and bias.

    Pairs that never meet weigh nothing. Source: Pennington, Socher and Manning 2014, eq. 8.
    """
    weight = (counts / x_max).clamp(max=1) ** power
    rest = v @ C.T + b[:, None] + bias - counts.clamp(min=1e-9).log()
    slope = 2 * weight * rest
    return (slope * rest).sum() / 2, slope @ C, slope.T @ v, slope.sum(1), slope.sum(0)


@dataclass(frozen=True)
class GloVe:
    """What GloVe may be told; each pass goes through the table of counts, `rows` at a time."""

    d: int = 64
    x_max: float = 10.0
    power: float = 0.75
    passes: int = 10
    rows: int = 256
    lr: float = 0.1

    def train(self, counts: "csr_array", seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vectors of words and of contexts, (words, d) each, and the biases of both, (words,)."""
        n, g = counts.shape[0], torch.Generator().manual_seed(seed)
        _width(self.d, n)
        W, C = (0.1 * torch.randn(n, self.d, generator=g) for _ in range(2))
        b, bias = torch.zeros(n), torch.zeros(n)
        optimizer = AdaGrad(W, C, b, bias, start=1.0)
        for _ in range(self.passes):
            for chosen in torch.randperm(n, generator=g).split(self.rows):
                block = torch.from_numpy(counts[chosen.numpy()].toarray())
                given = (W[chosen], C, b[chosen], bias, block, self.x_max, self.power)
                _, dv, dC, db, dbias = glove_loss(*given)
                dW = torch.zeros_like(W).index_copy_(0, chosen, dv)
                db = torch.zeros_like(b).index_copy_(0, chosen, db)
                optimizer.step((dW, dC, db, dbias), self.lr)
        return W, C, b, bias
