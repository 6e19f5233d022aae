"""Every numbered equation of chapter 11 holds in float64, and its wrong versions do not."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ledger import Formula, Property, prove
from scipy.stats import t as student
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mslearn.band import (
    EVERY,
    SMALL,
    prediction_interval,
    reference_band,
    small_run,
    wiki_corpus,
)
from mslearn.batches import Batches, Tokens
from mslearn.device import pick
from mslearn.experiments import load_result
from mslearn.picture import smooth
from mslearn.transformer import Config, Transformer

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "11_pretraining.ipynb"
V, N, PARTS, WEIGHT = 5, 12, 3, 2.5
SIZES = Config(vocab_size=40, context=16, n_layers=2, n_heads=2, d_model=8)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def joint(g: torch.Generator) -> tuple[Tensor, tuple[int, int, int]]:
    """The probabilities of all texts of three tokens, and one text."""
    text = tuple(torch.randint(V, (3,), generator=g).tolist())
    return normal(g, V**3).softmax(0).view(V, V, V), text


def chain(p: Tensor, text: tuple[int, int, int]) -> Tensor:
    """The text's probability from that of each token, given those before it."""
    first, second = p.sum((1, 2)), p.sum(2)
    a, b, _ = text
    return first[a] * (second[a, b] / first[a]) * (p[text] / second[a, b])


def predictions(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits (N, V) and the tokens that came."""
    return normal(g, N, V), torch.randint(V, (N,), generator=g)


def log_p(z: Tensor, y: Tensor) -> Tensor:
    return z.log_softmax(-1)[torch.arange(len(y)), y]


def windows(g: torch.Generator) -> tuple[Transformer, Tensor]:
    """A small network that attends, in float64, and windows of nine tokens."""
    model = Transformer(SIZES).double()
    for parameter in model.parameters():
        parameter.data = 0.5 * normal(g, *parameter.shape)
    return model, torch.randint(SIZES.vocab_size, (2, 9), generator=g)


def one_pass(model: Transformer, x: Tensor, shift: int = 1, divisor: int = 16) -> Tensor:
    """(11.3) from all the outputs of one pass over the first eight tokens."""
    nats = -model(x[:, :-1]).log_softmax(-1)
    return nats.gather(-1, x[:, shift : 8 + shift, None]).sum().detach() / divisor


def one_by_one(model: Transformer, x: Tensor) -> Tensor:
    """The same mean, where the network never sees more than each prediction may use."""
    pairs = itertools.product(range(2), range(1, 9))
    terms = [F.cross_entropy(model(x[b : b + 1, :i])[:, -1], x[b, i : i + 1]) for b, i in pairs]
    return torch.stack(terms).mean().detach()


def peeking(model: Transformer, x: Tensor) -> Tensor:
    """(11.3) by a network that is not causal."""
    seeing = Transformer(replace(SIZES, causal=False)).double()
    seeing.load_state_dict(model.state_dict())
    return one_pass(seeing, x)


def of_third_order(formula: Callable[[Tensor], Tensor]) -> None:
    """Logits ten times smaller leave a thousandth of the error, or nearly so."""
    z = normal(torch.Generator().manual_seed(0), 64) + 0.3
    big, small = (
        float((torch.logsumexp(scale * z, 0) - formula(scale * z)).abs()) for scale in (0.1, 0.01)
    )
    assert 1e-12 < big < 1e-2
    assert small < big / 300


def text(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens of which one never occurs, and imagined observations k."""
    return torch.randint(V - 1, (40,), generator=g), torch.tensor(WEIGHT, dtype=torch.float64)


def counts(t: Tensor) -> Tensor:
    return torch.bincount(t, minlength=V).double()


def pairs(t: Tensor) -> Tensor:
    return torch.bincount(V * t[:-1] + t[1:], minlength=V * V).view(V, V).double()


def singles(t: Tensor, k: Tensor) -> Tensor:
    return (counts(t) + k / V) / (len(t) + k)


def followed(t: Tensor, k: Tensor, prior: Callable = singles) -> Tensor:
    n_ab = pairs(t)
    return (n_ab + k * prior(t, k)) / (n_ab.sum(1, keepdim=True) + k)


def mixture(observed: Tensor, seen: Tensor, prior: Tensor, k: Tensor) -> Tensor:
    """Frequencies and prior, mixed by how often something was observed."""
    share = seen / (seen + k)
    return share * torch.nan_to_num(observed / seen) + (1 - share) * prior


def mixed_pairs(t: Tensor, k: Tensor) -> Tensor:
    n_ab = pairs(t)
    uniform = torch.full((V,), 1 / V, dtype=torch.float64)
    prior = mixture(counts(t), torch.tensor(float(len(t))), uniform, k)
    return mixture(n_ab, n_ab.sum(1, keepdim=True), prior, k)


def regression(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of a linear classifier, inputs (N, 4) and classes (N,)."""
    return normal(g, 4, V), normal(g, N, 4), torch.randint(V, (N,), generator=g)


def gradient(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.func.grad(lambda w: F.cross_entropy(x @ w, y))(w)


def added(sizes: list[int], shares: list[float]) -> Callable[..., Tensor]:
    """Gradients of parts of the batch, added with these shares."""

    def total(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        parts = zip(shares, x.split(sizes), y.split(sizes), strict=True)
        return sum(share * gradient(w, *part) for share, *part in parts)

    return total


EQUAL, UNEQUAL = [N // PARTS] * PARTS, [2, 3, 7]


def gradients(g: torch.Generator) -> tuple[Tensor, float]:
    """A gradient and a greatest length, longer or shorter than it."""
    return normal(g, 30), float(torch.rand((), generator=g) * 10)


def torch_clip(gradient: Tensor, most: float) -> Tensor:
    parameter = torch.zeros_like(gradient).requires_grad_()
    parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([parameter], most)
    return parameter.grad


def sizes(g: torch.Generator) -> tuple[int, int, int, int]:
    """Vocabulary, context, layers, width."""
    V, T, L, half = (int(torch.randint(2, 9, (), generator=g)) for _ in range(4))
    return 10 * V, T, L, 4 * half


def counted_model(V: int, T: int, L: int, d: int) -> float:
    """Torch's own count of the operations of matrix products, for a token."""
    model = Transformer(Config(V, T, n_layers=L, n_heads=2, d_model=d))
    tokens = torch.randint(V, (3, T))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens).square().mean().backward()
    return counter.get_total_flops() / (3 * T)


def rounding_bound(bound: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    """Both bounds hold on random numbers and just above powers of two, and are nearly met.

    The numbers fit float32, by way of which torch rounds.
    """
    x = (
        normal(torch.Generator().manual_seed(0), 100_000).exp().float().double()
    )  # torch rounds twice
    x = torch.cat([x, -x, 1 + 2**-8 + 2.0 ** -torch.arange(10, 22, dtype=torch.float64)])
    error = (x.bfloat16().double() - x).abs()
    near, far = bound(x)
    assert (error <= near).all() and (near <= far).all()
    assert (error > 0.99 * near).any() and (error > 0.99 * far).any()


def lost(share: float) -> None:
    """Changes below `share` of a weight are lost, and some just above it are not."""
    w = normal(torch.Generator().manual_seed(0), 1000).exp().bfloat16().double()
    w = torch.cat([w, -w, torch.tensor([1.0, 4.0], dtype=torch.float64)])
    signs = [-1, 1]
    assert all(((w + 0.999 * s * share * w).bfloat16() == w.bfloat16()).all() for s in signs)
    assert any(((w + 1.01 * s * share * w).bfloat16() != w.bfloat16()).any() for s in signs)


def times_read(steps: Tensor, batch: int, context: int, length: int) -> float:
    """How often a token was an input on average, counted."""
    ids = np.arange(length, dtype=np.int64)
    batches = Batches(Tokens(ids, np.ones(length)), context, batch)
    read = np.zeros(length)
    for step in range(int(steps)):
        np.add.at(read, batches(step)[0].numpy(), 1)
    return read.mean()


LEDGER = {
    "11.1": Formula(
        joint,
        chain,
        lambda p, t: p[t],
        {
            "independent tokens": lambda p, t: (
                p.sum((1, 2))[t[0]] * p.sum((0, 2))[t[1]] * p.sum((0, 1))[t[2]]
            ),
            "only the last token before": lambda p, t: (
                p.sum(2)[t[:2]] * p.sum(0)[t[1:]] / p.sum((0, 2))[t[1]]
            ),
        },
    ),
    "11.2": Formula(
        predictions,
        lambda z, y: torch.stack([-log_p(z, y).exp().prod().log() / N, -log_p(z, y).sum() / N]),
        lambda z, y: F.cross_entropy(z, y).expand(2),
        {
            "not divided": lambda z, y: -log_p(z, y).sum().expand(2),
            "sign": lambda z, y: log_p(z, y).mean().expand(2),
            "mean before the logarithm": lambda z, y: -log_p(z, y).exp().mean().log().expand(2),
        },
    ),
    "11.3": Formula(
        windows,
        one_pass,
        one_by_one,
        {
            "targets not moved": lambda model, x: one_pass(model, x, shift=0),
            "divided by the windows only": lambda model, x: one_pass(model, x, divisor=2),
            "not causal": peeking,
        },
    ),
    "11.4": Formula(
        lambda g: (torch.randint(2, 99, (), generator=g),),
        lambda v: v.double().log(),
        lambda v: Categorical(torch.ones(v, dtype=torch.float64)).entropy(),
        {"in bits": lambda v: v.double().log2()},
    ),
    "11.5": Property(
        of_third_order,
        lambda z: math.log(len(z)) + z.mean() + z.var(correction=0) / 2,
        {
            "without the variance": lambda z: math.log(len(z)) + z.mean(),
            "variance not halved": lambda z: math.log(len(z)) + z.mean() + z.var(correction=0),
            "square for variance": lambda z: math.log(len(z)) + z.mean() + z.square().mean() / 2,
        },
    ),
    "11.6": Formula(
        predictions,
        lambda z, y: N / 37 * F.cross_entropy(z, y) / math.log(2),
        lambda z, y: -log_p(z, y).exp().log2().sum() / 37,
        {
            "per token": lambda z, y: F.cross_entropy(z, y) / math.log(2),
            "nats": lambda z, y: N / 37 * F.cross_entropy(z, y),
        },
    ),
    "11.7": Formula(
        text,
        singles,
        lambda t, k: mixture(
            counts(t), torch.tensor(40.0), torch.full((V,), 1 / V, dtype=torch.float64), k
        ),
        {"k for each token": lambda t, k: (counts(t) + k) / (len(t) + k)},
    ),
    "11.8": Formula(
        text,
        followed,
        mixed_pairs,
        {
            "backing off to equal tokens": lambda t, k: followed(t, k, lambda t, k: 1 / V),
            "not divided by V or p": lambda t, k: followed(t, k, lambda t, k: 1),
            "turned round": lambda t, k: followed(t.flip(0), k),
        },
    ),
    "11.9": Formula(
        regression,
        added(EQUAL, [1 / PARTS] * PARTS),
        gradient,
        {"not divided": added(EQUAL, [1.0] * PARTS)},
    ),
    "11.10": Formula(
        regression,
        added(UNEQUAL, [n / N for n in UNEQUAL]),
        gradient,
        {"plain mean": added(UNEQUAL, [1 / PARTS] * PARTS)},
    ),
    "11.11": Formula(
        gradients,
        lambda g, c: g * (c / (g.norm() + 1e-6)).clamp(max=1),
        torch_clip,
        {
            "each entry": lambda g, c: g.clamp(-c, c),
            "always that long": lambda g, c: g * c / (g.norm() + 1e-6),
            "squared length": lambda g, c: g * (c / (g.square().sum() + 1e-6)).clamp(max=1),
        },
    ),
    "11.12": Formula(
        sizes,
        lambda V, T, L, d: 6 * (12 * L * d**2 + d * V) + 12 * L * T * d,
        counted_model,
        {
            "forward only": lambda V, T, L, d: 2 * (12 * L * d**2 + d * V) + 4 * L * T * d,
            "embedding counted": lambda V, T, L, d: (
                6 * (12 * L * d**2 + 2 * d * V) + 12 * L * T * d
            ),
            "attention forgotten": lambda V, T, L, d: 6 * (12 * L * d**2 + d * V),
        },
    ),
    "11.13": Formula(
        lambda g: normal(g, 3).exp().unbind(),
        lambda C, r, P: C * r / P,
        lambda C, r, P: (1000 * C / P) / (1000 / r),  # least time for 1000 tokens over time taken
        {"upside down": lambda C, r, P: P / (C * r)},
    ),
    "11.14": Property(
        rounding_bound,
        lambda x: (2 ** (x.abs().log2().floor() - 8), 2**-8 * x.abs()),
        {
            "nine bits": lambda x: (2 ** (x.abs().log2().floor() - 9), 2**-9 * x.abs()),
            "seven bits": lambda x: (2 ** (x.abs().log2().floor() - 7), 2**-7 * x.abs()),
        },
    ),
    "11.15": Property(lost, 2**-9, {"twice that": 2**-8, "half of that": 2**-10}),
    "11.16": Formula(
        lambda g: (torch.randint(1, 40, (), generator=g).double(), 3, 4, 100),
        lambda S, B, T, n: S * B * T / n,
        times_read,
        {"windows, not tokens": lambda S, B, T, n: S * B / n},
    ),
}

TestChapter11 = prove(PAGE, LEDGER)


class TestTheReferenceBand:
    def test_it_is_where_one_more_of_five_gaussian_values_lies_19_times_in_20(self) -> None:
        values = np.random.default_rng(0).normal(3, 2, size=(6, 20_000))
        low, high = prediction_interval(values[:5])
        assert np.mean((low < values[5]) & (values[5] < high)) == pytest.approx(0.95, abs=0.005)
        half = student.ppf(0.975, 4) * values[:5].std(0, ddof=1) * math.sqrt(1.2)
        assert np.allclose(high - low, 2 * half)

    def test_one_curve_makes_no_band(self) -> None:
        with pytest.raises(ValueError, match="two seeds"):
            prediction_interval([[1.0, 2.0]])

    def test_what_is_stored_is_the_chapter_s_recipe_with_five_seeds_and_its_device(self) -> None:
        result = load_result("pretraining_band")
        assert len(result["cells"]) >= 5 and result["made"][0]["device"]
        for seed, cell in result["cells"].items():
            recipe = replace(SMALL, seed=int(seed))
            assert all(cell["settings"]["recipe"][k] == v for k, v in vars(recipe).items())
            assert abs(cell["first"] - math.log(recipe.vocab_size)) < 0.02

    def test_a_seed_run_again_follows_its_stored_curve(self) -> None:
        cell = load_result("pretraining_band")["cells"]["0"]
        run = small_run(SMALL, wiki_corpus(), pick("cpu"))
        run.evaluate = None
        losses = smooth([record.loss for record in run.train(30)])
        # Another processor rounds differently, which the first steps hardly magnify.
        assert losses[EVERY - 1 :: EVERY] == pytest.approx(cell["loss"][:3], abs=0.05)

    def test_its_steps_are_those_of_the_curve(self) -> None:
        band = reference_band(load_result("pretraining_band"))
        assert band.steps[-1] == SMALL.steps - 1 and len(band.steps) == len(band.low)
        assert all(low < high for low, high in zip(band.low, band.high, strict=True))
