"""Every numbered equation of chapter 3 holds in float64, and its wrong versions do not."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from ledger import Formula, prove
from scipy.optimize import brentq
from scipy.stats import gmean
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "03_cross_entropy.ipynb"
N, K, EPS = 6, 5, 0.1


def normal(g: torch.Generator, *shape: int, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(shape, generator=g, dtype=torch.float64)


def some_logits(g: torch.Generator) -> tuple[Tensor]:
    return (normal(g, K),)


def batch(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, K) and classes (N,)."""
    return normal(g, N, K).log_softmax(-1), torch.randint(K, (N,), generator=g)


def two(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Distributions q and p over K classes."""
    return normal(g, K).softmax(-1), normal(g, K).softmax(-1)


def example(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits (K,) and a target vector with one 1."""
    return normal(g, K), F.one_hot(torch.randint(K, (), generator=g), K).double()


def binary(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return normal(g, 8), torch.tensor([0.0, 1.0] * 4, dtype=torch.float64)


def regression(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, predictions and a positive deviation."""
    return normal(g, N), normal(g, N), normal(g).exp()


def text(g: torch.Generator) -> tuple[Tensor, int]:
    """Probabilities given to ten tokens, and the bytes that they cover."""
    return torch.rand(10, generator=g, dtype=torch.float64) * 0.9 + 0.05, 37


def slope(function: Callable, at: int = 0) -> Callable:
    """Autograd's derivative of `function` by its argument number `at`."""
    return lambda *args: torch.func.jacrev(function, argnums=at)(*args)


def lse(z: Tensor) -> Tensor:
    return z.exp().sum().log()


def squares(z: Tensor, y: Tensor) -> Tensor:
    return (z.softmax(-1) - y).square().sum()


def squares_slope(z: Tensor, y: Tensor, factor: float = 2.0, average: float = 1.0) -> Tensor:
    p = z.softmax(-1)
    return factor * p * ((p - y) - average * (p * (p - y)).sum())


def target(log_p: Tensor, t: Tensor) -> Tensor:
    return log_p[torch.arange(len(t)), t]


def smooth(y: Tensor) -> Tensor:
    return (1 - EPS) * y + EPS / K


def smoothed_torch(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z[None], y.argmax()[None], label_smoothing=EPS)


def certain(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits that are nearly sure of one class, and a target that may be another."""
    z, y = example(g)
    z[torch.randint(K, (), generator=g)] += 12
    return z, y


def precisely(*numbers: float) -> Tensor:
    """Python's numbers in their own 64 bits, which torch would round to 32."""
    return torch.tensor(numbers, dtype=torch.float64)


def lead_at_minimum(n_classes: int, share: float) -> Tensor:
    """The lead of the true logit where torch's smoothed loss has derivative 0, by bisection."""

    def loss(lead: Tensor) -> Tensor:
        z = torch.cat([lead[None], torch.zeros(n_classes - 1, dtype=torch.float64)])
        return F.cross_entropy(z[None], torch.tensor([0]), label_smoothing=share)

    def derivative(lead: float) -> float:
        return slope(loss)(torch.tensor(lead, dtype=torch.float64)).item()

    return torch.tensor(brentq(derivative, 0, 30, xtol=1e-13), dtype=torch.float64)


def partly(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Distributions q and p, where q leaves a class out."""
    q, p = two(g)
    q[0] = 0
    return q / q.sum(), p


def steps_to_gibbs(q: Tensor, p: Tensor) -> Tensor:
    """Whether each step of (3.9) holds, over the classes with q > 0."""
    divergence = kl_divergence(Categorical(q), Categorical(p))
    q, p = q[q > 0], p[q > 0]
    first, second, third = (q * (p / q).log()).sum(), (q * (p / q - 1)).sum(), p.sum() - q.sum()
    equal = [torch.isclose(first, -divergence), torch.isclose(second, third)]
    return torch.stack([*equal, first <= second, third <= 0])


def one(*_: object) -> float:
    """The oracle of a statement that is either true, 1, or false, 0."""
    return 1.0


LEDGER = {
    "3.1": Formula(
        batch,
        lambda log_p, t: target(log_p, t).exp().prod(),
        lambda log_p, t: Categorical(logits=log_p).log_prob(t).sum().exp(),
        {"sum for product": lambda log_p, t: target(log_p, t).exp().sum()},
    ),
    "3.2": Formula(
        batch,
        lambda log_p, t: -target(log_p, t).sum() / N,
        F.nll_loss,
        {
            "sign": lambda log_p, t: target(log_p, t).mean(),
            "not divided": lambda log_p, t: -target(log_p, t).sum(),
        },
    ),
    "3.3": Formula(
        batch,
        lambda log_p, t: -(F.one_hot(t, K) * log_p).sum() / N,
        F.cross_entropy,
        {"mean over classes too": lambda log_p, t: -(F.one_hot(t, K) * log_p).mean()},
    ),
    "3.4": Formula(
        two,
        lambda q, p: -(q * p.log()).sum(),
        lambda q, p: F.cross_entropy(p.log()[None], q[None]),
        {"exchanged": lambda q, p: -(p * q.log()).sum()},
    ),
    "3.5": Formula(
        two,
        lambda q, p: -(q * q.log()).sum(),
        lambda q, p: Categorical(q).entropy(),
        {"in bits": lambda q, p: -(q * q.log2()).sum()},
    ),
    "3.6": Formula(
        two,
        lambda q, p: (q * (q / p).log()).sum(),
        lambda q, p: kl_divergence(Categorical(q), Categorical(p)),
        {
            "exchanged": lambda q, p: (p * (p / q).log()).sum(),
            "upside down": lambda q, p: (q * (p / q).log()).sum(),
        },
    ),
    "3.7": Formula(
        two,
        lambda q, p: Categorical(q).entropy() + kl_divergence(Categorical(q), Categorical(p)),
        lambda q, p: F.cross_entropy(p.log()[None], q[None]),
        {"minus": lambda q, p: Categorical(q).entropy() - F.kl_div(p.log(), q, reduction="sum")},
    ),
    "3.8": Formula(
        lambda g: (torch.cat([normal(g, 99).exp(), torch.ones(1).double()]),),
        lambda u: torch.where(u == 1, u.log() == u - 1, u.log() < u - 1),
        lambda u: torch.ones_like(u),
        {"too tight": lambda u: u.log() <= 0.9 * (u - 1), "reversed": lambda u: u.log() >= u - 1},
    ),
    "3.9": Formula(
        partly,
        steps_to_gibbs,
        lambda q, p: torch.ones(4),
        {
            "upside down": lambda q, p: ((q * (q / p).log()).nansum() <= 0).expand(4),
            "all classes": lambda q, p: torch.isclose(p[q > 0].sum(), p.sum()).expand(4),
        },
    ),
    "3.10": Formula(
        lambda g: (torch.randint(1, 50, (K,), generator=g).double(),),
        lambda n: slope(lambda z: -(n / n.sum() * z.log_softmax(-1)).sum())((n / n.sum()).log()),
        lambda n: torch.zeros(K),
        {
            "one added": lambda n: slope(lambda z: -(n / n.sum() * z.log_softmax(-1)).sum())(
                (n + 1).log()
            )
        },
    ),
    "3.11": Formula(
        some_logits,
        lambda z: z.exp() / z.exp().sum(),
        lambda z: z.softmax(-1),
        {"base 2": lambda z: z.exp2() / z.exp2().sum(), "by the greatest": lambda z: z / z.max()},
    ),
    "3.12": Formula(
        some_logits,
        lambda z: z - lse(z),
        lambda z: z.log_softmax(-1),
        {"plus": lambda z: z + lse(z), "mean inside": lambda z: z - z.exp().mean().log()},
    ),
    "3.13": Formula(
        some_logits,
        lambda z: z.softmax(-1),
        slope(lse),
        {"log-softmax": lambda z: z.log_softmax(-1), "not divided": lambda z: z.exp()},
    ),
    "3.14": Formula(
        some_logits,
        lambda z: torch.eye(K) - z.softmax(-1),
        slope(lambda z: z.log_softmax(-1)),
        {"p of k": lambda z: torch.eye(K) - z.softmax(-1)[:, None]},
    ),
    "3.15": Formula(
        example,
        lambda z, y: z.softmax(-1) - y,
        slope(lambda z, y: F.cross_entropy(z[None], y[None])),
        {"sign": lambda z, y: y - z.softmax(-1), "logits": lambda z, y: z - y},
    ),
    "3.16": Formula(
        some_logits,
        lambda z: z.softmax(-1)[:, None] * (torch.eye(K) - z.softmax(-1)),
        slope(lambda z: z.softmax(-1)),
        {"diagonal only": lambda z: torch.diag(z.softmax(-1) * (1 - z.softmax(-1)))},
    ),
    "3.17": Formula(
        lambda g: (normal(g, K), normal(g)),
        lambda z, c: (z + c).exp() / (z + c).exp().sum(),
        lambda z, c: z.softmax(-1),
        {"factor": lambda z, c: (z * c).softmax(-1)},
    ),
    "3.18": Formula(
        lambda g: (normal(g, K) + 5000,),
        lambda z: z.max() + (z - z.max()).exp().sum().log(),
        lambda z: z.logsumexp(-1),
        {"overflow": lse, "forgotten": lambda z: (z - z.max()).exp().sum().log()},
    ),
    "3.19": Formula(
        lambda g: (torch.cat([normal(g, 9, K), torch.zeros(1, K).double()]),),
        lambda z: (
            (z.amax(-1) <= z.logsumexp(-1)) & (z.logsumexp(-1) <= z.amax(-1) + math.log(K) + 1e-12)
        ).all(),
        one,
        {"without log K": lambda z: (z.logsumexp(-1) <= z.amax(-1)).all()},
    ),
    "3.20": Formula(
        some_logits,
        lambda z: 1 / (1 + (-z).exp()),
        lambda z: torch.stack([torch.zeros_like(z), z]).softmax(0)[1],
        {"sign": lambda z: 1 / (1 + z.exp())},
    ),
    "3.21": Formula(
        some_logits,
        lambda z: 1 / (1 + z.exp()),
        lambda z: 1 - z.sigmoid(),
        {"sign": lambda z: 1 / (1 + (-z).exp())},
    ),
    "3.22": Formula(
        binary,
        lambda z, y: -y * z.sigmoid().log() - (1 - y) * (1 - z.sigmoid()).log(),
        lambda z, y: F.binary_cross_entropy(z.sigmoid(), y, reduction="none"),
        {"second term dropped": lambda z, y: -y * z.sigmoid().log()},
    ),
    "3.23": Formula(
        binary,
        lambda z, y: (1 + z.exp()).log() - y * z,
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none"),
        {"plus": lambda z, y: (1 + z.exp()).log() + y * z},
    ),
    "3.24": Formula(
        lambda g: (400 * binary(g)[0], binary(g)[1]),
        lambda z, y: z.clamp(min=0) + (1 + (-z.abs()).exp()).log() - y * z,
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none"),
        {
            "overflow": lambda z, y: (1 + z.exp()).log() - y * z,
            "size for maximum": lambda z, y: z.abs() + (1 + (-z.abs()).exp()).log() - y * z,
        },
    ),
    "3.25": Formula(
        binary,
        lambda z, y: z.sigmoid() - y,
        slope(lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="sum")),
        {
            "sign": lambda z, y: y - z.sigmoid(),
            "through the sigmoid twice": lambda z, y: (
                (z.sigmoid() - y) * z.sigmoid() * (1 - z.sigmoid())
            ),
        },
    ),
    "3.26": Formula(
        binary,
        lambda z, y: -y * (1 - z.sigmoid()),
        slope(lambda z, y: -(y * z.sigmoid().log()).sum()),
        {"the true loss's": lambda z, y: z.sigmoid() - y},
    ),
    "3.27": Formula(
        regression,
        lambda t, f, s: (-((t - f) ** 2) / (2 * s**2)).exp() / (s * math.sqrt(2 * math.pi)),
        lambda t, f, s: Normal(f, s).log_prob(t).exp(),
        {"s under the root": lambda t, f, s: (-((t - f) ** 2) / (2 * s**2)).exp() / s.sqrt()},
    ),
    "3.28": Formula(
        regression,
        lambda t, f, s: (t - f) ** 2 / (2 * s**2) + (s * math.sqrt(2 * math.pi)).log(),
        lambda t, f, s: -Normal(f, s).log_prob(t),
        {"factor 2 lost": lambda t, f, s: (t - f) ** 2 / s**2 + (s * math.sqrt(2 * math.pi)).log()},
    ),
    "3.29": Formula(
        regression,
        lambda t, f, s: ((t - f) ** 2).sum() / N,
        lambda t, f, s: F.mse_loss(f, t),
        {"halved": lambda t, f, s: ((t - f) ** 2).mean() / 2},
    ),
    "3.30": Formula(
        regression,
        lambda t, f, s: 2 / N * (f - t),
        slope(lambda t, f, s: F.mse_loss(f, t), at=1),
        {"sign": lambda t, f, s: 2 / N * (t - f), "factor 2 lost": lambda t, f, s: (f - t) / N},
    ),
    "3.31": Formula(
        example,
        lambda z, y: ((z.softmax(-1) - y) ** 2).sum(),
        lambda z, y: F.mse_loss(z.softmax(-1), y, reduction="sum"),
        {"of logits": lambda z, y: ((z - y) ** 2).sum()},
    ),
    "3.32": Formula(
        example,
        squares_slope,
        slope(squares),
        {
            "factor 2 lost": lambda z, y: squares_slope(z, y, factor=1),
            "average forgotten": lambda z, y: squares_slope(z, y, average=0),
            "p forgotten": lambda z, y: 2 * (z.softmax(-1) - y),
        },
    ),
    "3.33": Formula(
        certain,
        lambda z, y: slope(squares)(z, y).abs().max() <= 4 * (1 - z.softmax(-1).max()),
        one,
        {
            "square of the share": lambda z, y: (
                slope(squares)(z, y).abs().max() <= 4 * (1 - z.softmax(-1).max()) ** 2
            )
        },
    ),
    "3.34": Formula(
        some_logits,
        lambda z: torch.stack([-(1 - z.sigmoid()), -4 * z.sigmoid() * (1 - z.sigmoid()) ** 2]),
        lambda z: torch.stack(
            [
                slope(lambda z: -F.logsigmoid(z).sum())(z),
                slope(lambda z: 2 * (1 - z.sigmoid()).square().sum())(z),
            ]
        ),
        {
            "one factor lost": lambda z: torch.stack(
                [-(1 - z.sigmoid()), -4 * z.sigmoid() * (1 - z.sigmoid())]
            )
        },
    ),
    "3.35": Formula(
        text,
        lambda p, n_bytes: torch.stack([(-p.log().mean()).exp(), (1 / p).prod() ** (1 / len(p))]),
        lambda p, n_bytes: torch.tensor(gmean(1 / p.numpy())).expand(2),
        {"arithmetic mean": lambda p, n_bytes: (1 / p).mean().expand(2)},
    ),
    "3.36": Formula(
        lambda g: (torch.randint(2, 99, (), generator=g),),
        lambda k: k,
        lambda k: Categorical(torch.ones(k, dtype=torch.float64)).perplexity(),
        {"its logarithm": lambda k: k.log()},
    ),
    "3.37": Formula(
        text,
        lambda p, n_bytes: torch.stack(
            [
                -p.log().sum() / (n_bytes * math.log(2)),
                len(p) / n_bytes * (-p.log().mean()).exp().log2(),
            ]
        ),
        lambda p, n_bytes: (-p.log2().sum() / n_bytes).expand(2),
        {
            "nats": lambda p, n_bytes: (-p.log().sum() / n_bytes).expand(2),
            "per token": lambda p, n_bytes: (-p.log2().mean()).expand(2),
        },
    ),
    "3.38": Formula(
        example,
        lambda z, y: (1 - EPS) * y + EPS / K,
        lambda z, y: y.lerp(torch.full_like(y, 1 / K), EPS),
        {"not shared out": lambda z, y: (1 - EPS) * y + EPS},
    ),
    "3.39": Formula(
        example,
        lambda z, y: -(1 - EPS) * (y * z.log_softmax(-1)).sum() - EPS / K * z.log_softmax(-1).sum(),
        smoothed_torch,
        {"others only": lambda z, y: -((1 - EPS) * y + EPS / K * (1 - y)) @ z.log_softmax(-1)},
    ),
    "3.40": Formula(
        example,
        lambda z, y: z.softmax(-1) - smooth(y),
        slope(smoothed_torch),
        {"unsmoothed": lambda z, y: z.softmax(-1) - y},
    ),
    "3.41": Formula(
        lambda g: (int(torch.randint(2, 20, (), generator=g)), 0.05),
        lambda k, share: precisely(
            math.log((1 - share + share / k) / (share / k)),
            math.log(1 + k * (1 - share) / share),
        ),
        lambda k, share: lead_at_minimum(k, share).expand(2),
        {"1 forgotten": lambda k, share: precisely(*[math.log(k * (1 - share) / share)] * 2)},
    ),
}

TestChapter3 = prove(PAGE, LEDGER)
