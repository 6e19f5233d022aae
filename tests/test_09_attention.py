"""Every numbered equation of chapter 9 holds in float64, and its wrong versions do not."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ledger import Formula, Property, prove
from torch import Tensor
from torch.func import jacrev

from mslearn import attention_ablation, attention_view
from mslearn.attention import Attention, rotary_table
from mslearn.experiments import load_result
from mslearn.transformer import Config, Transformer

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "09_attention.ipynb"
N, D, T, HEADS = 7, 6, 5, 3
KERNEL = F.scaled_dot_product_attention


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def lookup(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """A query (D,), keys (N, D), values (N, D) and a sharpness."""
    return normal(g, D), normal(g, N, D), normal(g, N, D), 0.7


def equally_long(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    q, k, v, beta = lookup(g)
    return q, 2 * F.normalize(k, dim=-1), v, beta


def text(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (T, D)."""
    return normal(g, T, D), normal(g, T, D), normal(g, T, D)


def angles(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two vectors of the plane and two positions with their frequency, as one tensor."""
    return normal(g, 2), normal(g, 2), normal(g, 3)


def attend(q: Tensor, k: Tensor, v: Tensor, beta: float) -> Tensor:
    return (beta * k @ q).softmax(0) @ v


def bell(q: Tensor, k: Tensor, beta: float, half: float = 0.5) -> Tensor:
    return (-half * beta * (q - k).square().sum(-1)).exp()


def turn(a: Tensor | float) -> Tensor:
    a = torch.as_tensor(a, dtype=torch.float64)
    return torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])])


def causal(t: int = T) -> Tensor:
    return torch.ones(t, t, dtype=torch.bool).tril()


def masked(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float = D**-0.5) -> Tensor:
    mask = torch.zeros(T, T, dtype=torch.float64).masked_fill(~allowed, -math.inf)
    return (q @ k.T * scale + mask).softmax(-1) @ v


def all_hold(*holds: Tensor | bool) -> Tensor:
    """The page's side of an inequality: whether each part of it holds."""
    return torch.stack([torch.as_tensor(each).all() for each in holds]).double()


def ones(n: int) -> Callable:
    return lambda *_: torch.ones(n, dtype=torch.float64)


def left_over(q: Tensor, k: Tensor, v: Tensor, beta: float, factor: float = N - 1) -> Tensor:
    """Whether the best share leaves no more than (9.3) allows; tight when all others tie."""
    scores = k @ q
    best = scores.argmax()
    tied = torch.where(torch.arange(N) == best, scores[best], scores[best] - 1.0)
    holds = []
    for z in (scores, tied):
        gap = z[best] - z[torch.arange(N) != best].max()
        sharp = 8.0 * beta  # where the bound is nearly reached
        rest = 1 - (sharp * z).softmax(0)[best]
        holds.append(rest <= factor * (-sharp * gap).exp() + 1e-15)
    return all_hold(*holds)


def softmax_slopes(z: Tensor) -> Tensor:
    return jacrev(lambda z: z.softmax(0))(z)


def lets_through(z: Tensor, factor: float = 4.0) -> Tensor:
    a, ahead = z.softmax(0), z.sort(descending=True).values
    total = (2 * a * (1 - a)).sum()
    bound = factor * (N - 1) * (ahead[1] - ahead[0]).exp()
    rest = 1 - a.max()
    return all_hold(total <= factor * rest + 1e-15, factor * rest <= bound + 1e-15)


def spread_out(g: torch.Generator) -> tuple[Tensor]:
    """Scores whose best is far ahead and whose others tie: where the bounds are tight."""
    z = torch.full((N,), -9.0, dtype=torch.float64)
    z[int(torch.randint(N, (), generator=g))] = 3.0
    return (z,)


SIGNS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64)


def exact_variance(scale: float = 1.0) -> Tensor:
    """The variance of q·k over all q, k in {-1, 1}^4: mean 0, variance 1, independent."""
    q, k = SIGNS[:, :4], SIGNS[:, 4:]
    return ((q * k).sum(1) * scale).var(correction=0)


def variance_by_terms(d: int = 4, off: float = 0.0) -> Tensor:
    terms = torch.eye(d, dtype=torch.float64) + off * (1 - torch.eye(d, dtype=torch.float64))
    return terms.sum()


def head_parts(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The heads' answers (HEADS, D) and an output matrix."""
    return normal(g, HEADS, D), normal(g, HEADS * D, HEADS * D)


def by_blocks(o: Tensor, w: Tensor) -> Tensor:
    return sum(block @ answer for block, answer in zip(w.split(D, 1), o, strict=True))


def layer_flops(d: int, t: int) -> int:
    """Two for each multiplication that the products of one position make."""
    projections = 4 * d * d
    return 2 * (projections + t * d + t * d)


def merge(q: Tensor, k: Tensor, v: Tensor, beta: float, weigh: bool = True) -> Tensor:
    parts = []
    for rows in (slice(0, 3), slice(3, N)):
        z = beta * k[rows] @ q
        parts.append((z.max(), (z - z.max()).exp().sum(), z.softmax(0) @ v[rows]))
    m = torch.maximum(parts[0][0], parts[1][0])
    c = [(mj - m).exp() * (sigma if weigh else 1.0) for mj, sigma, _ in parts]
    return (c[0] * parts[0][2] + c[1] * parts[1][2]) / (c[0] + c[1])


def halves(q: Tensor, t: float, sign: float = 1.0) -> Tensor:
    """(9.23) on one vector of D numbers."""
    omega = 10000.0 ** (-2 * torch.arange(D // 2, dtype=torch.float64) / D)
    first, second = q[: D // 2], q[D // 2 :]
    c, s = (t * omega).cos(), sign * (t * omega).sin()
    return torch.cat([first * c - second * s, second * c + first * s])


def by_matrices(q: Tensor, t: float) -> Tensor:
    out = torch.empty_like(q)
    for i in range(D // 2):
        pair = [i, i + D // 2]
        out[pair] = turn(t * 10000.0 ** (-2 * i / D)) @ q[pair]
    return out


def layer_slopes(allowed: Tensor) -> Tensor:
    """The size of each output's derivative by each input of an attention layer: (T, T)."""
    g = torch.Generator().manual_seed(0)
    w = [normal(g, D, D) for _ in range(3)]
    x = normal(g, T, D)
    slopes = jacrev(lambda x: masked(*(x @ each.T for each in w), allowed))(x)
    return slopes.abs().amax((1, 3))


def nothing_later(slopes: Tensor) -> None:
    assert slopes.triu(1).max() == 0
    assert slopes.tril().diagonal().min() > 0


def scores_through(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """The scores that PyTorch's kernel uses, read off the shares it gives one-hot values."""
    shares = KERNEL(q[None], k[None], torch.eye(T, dtype=torch.float64)[None], scale=scale)[0]
    logs = shares.log()
    return logs - logs[:, :1]


def bilinear(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (T, 9) and matrices (D, 9)."""
    return normal(g, T, 9), normal(g, D, 9), normal(g, D, 9)


def from_first(z: Tensor) -> Tensor:
    return z - z[:, :1]


def permuted(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (*text(g), torch.randperm(T, generator=g))


def turns_once(frequency: Callable[[int], float]) -> None:
    """The package's table, in 32 bits, is back where it began after 2π/ω positions, not before."""
    table = rotary_table(D, 70_000).double()
    for i in range(D // 2):
        turn_in = 2 * math.pi / frequency(i)
        assert 6 < turn_in < 69_000
        cos, sin = table[:, round(turn_in), D // 2 + i]
        missed = abs(turn_in - round(turn_in)) * frequency(i)
        assert abs(cos - math.cos(missed)) < 0.01 and abs(sin) < missed + 0.01
        assert table[0, round(turn_in / 2), i] < -0.9


LEDGER = {
    "9.1": Formula(
        lambda g: lookup(g)[:3],
        lambda q, k, v: v[(k @ q).argmax()],
        lambda q, k, v: attend(q, k, v, 1e9),
        {"worst key": lambda q, k, v: v[(k @ q).argmin()]},
    ),
    "9.2": Formula(
        lookup,
        lambda q, k, v, b: ((b * k @ q).exp()[:, None] * v).sum(0) / (b * k @ q).exp().sum(),
        lambda q, k, v, b: KERNEL(q[None], k, v, scale=b)[0],
        {
            "β forgotten": lambda q, k, v, b: attend(q, k, v, 1.0),
            "not divided": lambda q, k, v, b: (b * k @ q).exp() @ v,
        },
    ),
    "9.3": Formula(
        lookup,
        left_over,
        ones(2),
        {"half the others": lambda *args: left_over(*args, factor=(N - 1) / 2)},
    ),
    "9.4": Formula(
        equally_long,
        lambda q, k, v, b: bell(q, k, b) / bell(q, k, b).sum(),
        lambda q, k, v, b: KERNEL(q[None], k, torch.eye(N, dtype=torch.float64), scale=b)[0],
        {"no half": lambda q, k, v, b: bell(q, k, b, 1.0) / bell(q, k, b, 1.0).sum()},
    ),
    "9.5": Formula(
        lambda g: (normal(g, N), normal(g, N, D)),
        lambda z, v: (z.softmax(0)[:, None] * (v - z.softmax(0) @ v)).T,
        lambda z, v: jacrev(lambda z: z.softmax(0) @ v)(z),
        {
            "answer not taken off": lambda z, v: (z.softmax(0)[:, None] * v).T,
            "share left out": lambda z, v: (v - z.softmax(0) @ v).T,
        },
    ),
    "9.6": Formula(
        lambda g: (*lookup(g), normal(g, D)),
        lambda q, k, v, b, g: backward(q, k, v, b, g),
        lambda q, k, v, b, g: torch.cat(
            [
                each.flatten()
                for each in jacrev(lambda q, k, v: attend(q, k, v, b) @ g, argnums=(0, 1, 2))(
                    q, k, v
                )
            ]
        ),
        {
            "β forgotten": lambda q, k, v, b, g: backward(q, k, v, b, g, beta_back=1.0),
            "answer not taken off": lambda q, k, v, b, g: backward(q, k, v, b, g, centred=0.0),
        },
    ),
    "9.7": Formula(
        lambda g: (),
        lambda: variance_by_terms(),
        exact_variance,
        {"products that do not vanish": lambda: variance_by_terms(off=1.0)},
    ),
    "9.8": Formula(
        lambda g: (normal(g, N),),
        lambda z: 2 * z.softmax(0) * (1 - z.softmax(0)),
        lambda z: softmax_slopes(z).abs().sum(1),
        {"once": lambda z: z.softmax(0) * (1 - z.softmax(0))},
    ),
    "9.9": Formula(
        spread_out, lets_through, ones(2), {"half of it": lambda z: lets_through(z, factor=1.9)}
    ),
    "9.10": Formula(
        lambda g: (),
        lambda: torch.tensor(1.0),
        lambda: exact_variance(4**-0.5),
        {"divided by d": lambda: torch.tensor(1 / 4)},
    ),
    "9.11": Formula(
        lambda g: (*text(g), torch.rand(T, T, generator=g) < 0.5),
        lambda q, k, v, allowed: masked(q, k, v, allowed | torch.eye(T, dtype=torch.bool)),
        lambda q, k, v, allowed: KERNEL(
            q[None], k[None], v[None], attn_mask=allowed | torch.eye(T, dtype=torch.bool)
        )[0],
        {
            "divided by d": lambda q, k, v, allowed: masked(
                q, k, v, allowed | torch.eye(T, dtype=torch.bool), 1 / D
            ),
            "allowed and forbidden exchanged": lambda q, k, v, allowed: masked(
                q, k, v, ~allowed | torch.eye(T, dtype=torch.bool)
            ),
        },
    ),
    "9.12": Formula(
        text,
        lambda q, k, v: by_rows(q, k, lambda t: t + 1) @ v,
        lambda q, k, v: KERNEL(q[None], k[None], v[None], is_causal=True)[0],
        {"not itself": lambda q, k, v: by_rows(q, k, lambda t: max(t, 1)) @ v},
    ),
    "9.13": Property(
        nothing_later,
        layer_slopes(causal()),
        {"no mask": layer_slopes(torch.ones(T, T, dtype=torch.bool))},
    ),
    "9.14": Formula(
        bilinear,
        lambda x, wq, wk: from_first(x @ (wq.T @ wk) @ x.T / D**0.5),
        lambda x, wq, wk: scores_through(x @ wq.T, x @ wk.T, D**-0.5),
        {"exchanged": lambda x, wq, wk: from_first(x @ (wk.T @ wq) @ x.T / D**0.5)},
    ),
    "9.15": Formula(
        head_parts,
        by_blocks,
        lambda o, w: F.linear(o.flatten(), w),
        {"rows for columns": lambda o, w: by_blocks(o, w.T)},
    ),
    "9.16": Formula(
        lambda g: (48, 11),
        lambda d, t: 8 * d * d + 4 * t * d,
        lambda d, t: counted_flops(d, t),
        {"scores alone": lambda d, t: 8 * d * d + 2 * t * d},
    ),
    "9.17": Formula(
        permuted,
        lambda q, k, v, p: KERNEL(q[None], k[None], v[None])[0][p],
        lambda q, k, v, p: KERNEL(q[p][None], k[p][None], v[p][None])[0],
        {"with a mask": lambda q, k, v, p: KERNEL(q[None], k[None], v[None], is_causal=True)[0][p]},
    ),
    "9.18": Formula(
        lambda g: (normal(g), normal(g, 2)),
        lambda a, x: turn(a) @ x,
        lambda a, x: torch.view_as_real(
            torch.polar(torch.tensor(1.0).double(), a) * torch.view_as_complex(x)
        ),
        {"the other way": lambda a, x: turn(a).T @ x},
    ),
    "9.19": Formula(
        lambda g: (normal(g), normal(g)),
        lambda a, b: turn(b - a),
        lambda a, b: turn(a).T @ turn(b),
        {"sum": lambda a, b: turn(a + b)},
    ),
    "9.20": Formula(
        angles,
        lambda q, k, p: q @ turn((p[1] - p[0]) * p[2]) @ k,
        lambda q, k, p: (turn(p[0] * p[2]) @ q) @ (turn(p[1] * p[2]) @ k),
        {"distance the other way": lambda q, k, p: q @ turn((p[0] - p[1]) * p[2]) @ k},
    ),
    "9.21": Formula(
        angles,
        lambda q, k, p: q.norm(),
        lambda q, k, p: (turn(p[0] * p[2]) @ q).norm(),
        {"squared": lambda q, k, p: q.norm() ** 2},
    ),
    "9.22": Property(
        turns_once,
        lambda i: 10000.0 ** (-2 * i / D),
        {
            "no 2 in the exponent": lambda i: 10000.0 ** (-i / D),
            "the sign": lambda i: 1e4 ** (2 * i / D),
        },
    ),
    "9.23": Formula(
        lambda g: (normal(g, D), 5.0),
        halves,
        by_matrices,
        {"the other way": lambda q, t: halves(q, t, -1.0)},
    ),
    "9.24": Formula(
        lookup,
        merge,
        attend,
        {"sums forgotten": lambda *args: merge(*args, weigh=False)},
    ),
    "9.25": Formula(
        lambda g: (torch.arange(1, 30),),
        lambda n: (n + 1) / 2,
        lambda n: torch.tensor([sum(range(1, i + 1)) / i for i in n.tolist()], dtype=torch.float64),
        {"n/2": lambda n: n / 2},
    ),
    "9.26": Formula(
        lambda g: (),
        lambda: 2 * 3 * 40 * 24,
        lambda: cache_numbers(),
        {"keys alone": lambda: 3 * 40 * 24},
    ),
}


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: float,
    g: Tensor,
    beta_back: float | None = None,
    centred: float = 1.0,
) -> Tensor:
    """The gradients of (9.6) by q, k and v, end to end."""
    a = (b * k @ q).softmax(0)
    back = b if beta_back is None else beta_back
    to_scores = a * ((v - centred * (a @ v)) @ g)
    by_q, by_k, by_v = back * to_scores @ k, back * to_scores[:, None] * q, a[:, None] * g
    return torch.cat([by_q, by_k.flatten(), by_v.flatten()])


def by_rows(q: Tensor, k: Tensor, seen: Callable[[int], int]) -> Tensor:
    """The shares, each row over the first `seen(t)` keys."""
    shares = torch.zeros(T, T, dtype=torch.float64)
    for t in range(T):
        z = (k[: seen(t)] @ q[t] / D**0.5).exp()
        shares[t, : seen(t)] = z / z.sum()
    return shares


def counted_flops(d: int, t: int) -> int:
    """What PyTorch counts for one position of a layer whose texts have `t` tokens."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    layer = Attention(d, 4, causal=False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, t, d), rotary_table(d // 4, t))
    return counter.get_total_flops() // t


def cache_numbers() -> int:
    cache = Transformer(Config(10, context=40, n_layers=3, n_heads=4, d_model=24)).new_cache()
    return cache.keys.numel() + cache.values.numel()


TestLedger = prove(PAGE, LEDGER)


class TestTheView:
    def test_weights_of_another_length_are_refused_in_words(self):
        with pytest.raises(ValueError, match=r"shape \(layers, heads, 3, 3\) for 3 tokens, got"):
            attention_view.show_attention(["a", "b", "c"], torch.ones(2, 2, 4, 4))

    def test_a_head_that_is_not_there_is_refused(self):
        with pytest.raises(ValueError, match="layer 2, head 0 is not among 2 times 2"):
            attention_view.show_attention(["a", "b"], torch.ones(2, 2, 2, 2), layer=2)

    def test_a_text_too_long_for_a_page_is_refused(self):
        with pytest.raises(ValueError, match="room for 96 tokens, got 97"):
            attention_view.show_attention(["a"] * 97, torch.ones(1, 1, 97, 97))

    def test_the_picture_says_where_each_token_looks(self):
        weights = torch.tensor([[[[1.0, 0.0], [0.9, 0.1]]]])
        shown = attention_view.picture(["An", " ox"], weights, 0, 0)
        assert "␣ox at An" in shown.alt

    def test_the_page_gets_every_share_in_a_byte(self):
        weights = torch.rand(2, 3, 4, 4).softmax(-1)
        widget = attention_view._widget(list("abcd"), weights, 1, 2)
        sent = np.frombuffer(widget.shares, np.uint8).reshape(2, 3, 4, 4) / 255
        assert np.abs(sent - weights.numpy()).max() <= 0.5 / 255 + 1e-6


class TestTheExperiment:
    def test_every_cell_is_stored_with_three_seeds(self):
        cells = load_result("attention")["cells"]
        wanted = {f"{kind}/{seed}" for kind in attention_ablation.STORED for seed in range(3)}
        assert wanted | {"unigram"} == set(cells)

    def test_a_variant_differs_in_one_thing(self):
        whole, still = (attention_ablation.network(k, 0) for k in ("whole", "no_positions"))
        same = [
            torch.equal(a, b) for a, b in zip(whole.parameters(), still.parameters(), strict=True)
        ]
        assert all(same) and not torch.equal(whole.table, still.table)

    def test_without_positions_the_words_before_are_a_set(self):
        model = attention_ablation.network("no_positions", 0)
        torch.nn.init.normal_(model.blocks[0].attention.out.weight, std=0.1)
        model.blocks = model.blocks[:1]
        tokens = torch.randint(2048, (1, 12))
        order = torch.cat([torch.randperm(11), torch.tensor([11])])
        assert torch.allclose(model(tokens)[0, -1], model(tokens[:, order])[0, -1], atol=1e-4)

    def test_an_unknown_variant_names_those_there_are(self):
        with pytest.raises(ValueError, match="choose one of whole, one_head"):
            attention_ablation.network("none", 0)

    def test_the_baseline_run_again_gives_what_is_stored(self):
        stored = load_result("attention")["cells"]["unigram"]["bits_per_byte"]
        again = attention_ablation.counting_tokens()["bits_per_byte"]
        assert again == pytest.approx(stored, abs=1e-3)

    def test_a_seed_run_again_for_a_few_steps_is_on_its_way(self):
        unigram = load_result("attention")["cells"]["unigram"]["bits_per_byte"]
        short = attention_ablation.measure("whole", 0, steps=30)["bits_per_byte"]
        assert load_result("attention")["cells"]["whole/0"]["bits_per_byte"] < short < unigram + 1
