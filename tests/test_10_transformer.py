"""Every numbered equation of chapter 10 holds in float64, and its wrong versions do not."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from ledger import Formula, prove
from torch import Tensor, nn
from torch.func import jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP

from mslearn import depths
from mslearn.blocks import Block, Design, FeedForward
from mslearn.experiments import load_result
from mslearn.models import Model

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "10_transformer.ipynb"
D, T, LAYERS = 6, 5, 3


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def embedded(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    return normal(g, 9, D), normal(g, 12, D), torch.randint(9, (T,), generator=g)


def branches(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A start and the matrices of three branches tanh(W x)."""
    return normal(g, D), normal(g, LAYERS, D, D)


def through(x: Tensor, weights: Tensor) -> list[Tensor]:
    """The stream after each branch, its start first."""
    streams = [x]
    for w in weights:
        streams.append(streams[-1] + (w @ streams[-1]).tanh())
    return streams


def all_ways(x: Tensor, weights: Tensor, shortest: int = 0, order: int = -1) -> Tensor:
    """The sum of (10.3) over its 2^n ways, from those of a given length on."""
    points = through(x, weights)
    slopes = [
        jacrev(lambda x, w=w: (w @ x).tanh())(p) for w, p in zip(weights, points, strict=False)
    ]
    total = torch.zeros(D, D, dtype=torch.float64)
    for length in range(shortest, LAYERS + 1):
        for chosen in itertools.combinations(range(LAYERS), length):
            way = torch.eye(D, dtype=torch.float64)
            for layer in chosen:
                way = slopes[layer] @ way if order < 0 else way @ slopes[layer]
            total += way
    return total


def encoder(g: torch.Generator) -> tuple[Tensor, nn.TransformerEncoderLayer]:
    """Inputs and PyTorch's own layer, its norms far from doing nothing."""
    torch.manual_seed(int(torch.randint(99, (), generator=g)))
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, F.gelu, batch_first=True).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return normal(g, 1, T, 8), layer


def torchs_own(first: bool) -> Callable:
    def run(x: Tensor, layer: nn.TransformerEncoderLayer) -> Tensor:
        layer.norm_first = first
        return layer(x)

    return run


def attend(x: Tensor, layer: nn.TransformerEncoderLayer) -> Tensor:
    return layer.self_attn(x, x, x, need_weights=False)[0]


def feed(x: Tensor, layer: nn.TransformerEncoderLayer) -> Tensor:
    return layer.linear2(F.gelu(layer.linear1(x)))


def pre_norm(x: Tensor, layer: nn.TransformerEncoderLayer, second: bool = True) -> Tensor:
    y = x + attend(layer.norm1(x), layer)
    return y + feed(layer.norm2(y) if second else y, layer)


def post_norm(x: Tensor, layer: nn.TransformerEncoderLayer, twice: bool = True) -> Tensor:
    y = layer.norm1(x + attend(x, layer))
    z = y + feed(y, layer)
    return layer.norm2(z) if twice else z


def norm_slope(x: Tensor, along: float = 1.0, over: float = 1.0) -> Tensor:
    hat, sigma = F.layer_norm(x, (D,), eps=0.0), x.std(correction=0)
    eye, ones = torch.eye(D).double(), torch.ones(D, D).double()
    return (eye - ones / D - along * torch.outer(hat, hat) / D) / sigma**over


def voices(n: int, width: int = 64) -> Tensor:
    """`n` vectors of mean 0 and variance 1, at right angles to each other."""
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.cat([torch.ones(width, 1).double(), normal(g, width, n)], 1))[0]
    return basis[:, 1:].T * width**0.5


def share(x: Tensor, voice: Tensor) -> Tensor:
    return x @ voice / (voice @ voice)


def left_post(s2: float, n: int) -> Tensor:
    """What is left of the first voice when each sum is normalised."""
    first, *others = voices(n + 1)
    x = first
    for other in others:
        x = F.layer_norm(x + s2**0.5 * other, x.shape, eps=0.0)
    return share(x, first)


def left_pre(s2: float, n: int) -> Tensor:
    """What is left of it when the sum is normalised once, at its end."""
    first, *others = voices(n + 1)
    total = first + s2**0.5 * torch.stack(others).sum(0)
    return share(F.layer_norm(total, total.shape, eps=0.0), first)


def two_layers(g: torch.Generator) -> tuple[Tensor, ...]:
    return normal(g, D), normal(g, 8, D), normal(g, 8), normal(g, D, 8), normal(g, D)


def third_slope(f: Callable) -> Tensor:
    return jacrev(jacrev(jacrev(f)))(torch.zeros((), dtype=torch.float64))


def fitted_cubic() -> Tensor:
    """The c at which both sides of (10.11) have the same third derivative, found numerically."""

    def side(c: float) -> Tensor:
        return third_slope(lambda x: torch.tanh((2 / math.pi) ** 0.5 * (x + c * x**3)))

    wanted = third_slope(lambda x: torch.erf(x / 2**0.5))
    return (wanted - side(0.0)) / (side(1.0) - side(0.0))


def their_swiglu(x: Tensor, up: Tensor, gate: Tensor, down: Tensor) -> Tensor:
    config = transformers.LlamaConfig(
        hidden_size=D, intermediate_size=8, num_attention_heads=2, hidden_act="silu"
    )
    layer = LlamaMLP(config).double()
    for part, weight in ((layer.up_proj, up), (layer.gate_proj, gate), (layer.down_proj, down)):
        part.weight = nn.Parameter(weight)
    return layer(x).detach()


def silu(u: Tensor) -> Tensor:
    return u / (1 + (-u).exp())


def grouped(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Six query heads, two of keys and values, each (heads, T, 4)."""
    return normal(g, 6, T, 4), normal(g, 2, T, 4), normal(g, 2, T, 4)


def by_heads(which: Callable[[int], int]) -> Callable:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = [(q[i] @ k[which(i)].T / 2).softmax(-1) @ v[which(i)] for i in range(6)]
        return torch.stack(heads)

    return run


def mask(p: int, allowed: Callable[[int, int, int], bool]) -> Tensor:
    rows = [[float(allowed(t, s, p)) for s in range(T)] for t in range(T)]
    return torch.tensor(rows, dtype=torch.float64)


def prefixed(p: int) -> Tensor:
    whole = torch.ones(T, T, dtype=torch.float64)
    return torch.cat([whole[:, :p], whole.tril()[:, p:]], 1)


def masks(allowed: Callable) -> Callable:
    return lambda: torch.stack([mask(p, allowed) for p in (0, 2, T)])


def small(**other) -> Model:
    torch.manual_seed(0)
    model = Model(Design(9, 8, 2, 2, 12, **other)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def logits_by_page(normed: bool = True) -> Tensor:
    model, tokens = small(), torch.arange(8)[None]
    streams = []
    model.blocks[-1].register_forward_hook(lambda *taken: streams.append(taken[2]))
    model(tokens)
    x = model.final_norm(streams[0]) if normed else streams[0]
    return (x @ model.embedding.weight.T).detach()


def tied(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    return normal(g, 9, D), normal(g, D, D), torch.randint(9, (T,), generator=g)


def word_loss(table_in: Tensor, table_out: Tensor, w: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy((table_in[ids] @ w).tanh() @ table_out.T, ids.roll(1))


def apart(e: Tensor, w: Tensor, ids: Tensor, both: bool = True) -> Tensor:
    by_in, by_out = jacrev(word_loss, argnums=(0, 1))(e, e, w, ids)
    return by_in + by_out if both else by_in


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def llama_layer(heads: int, groups: int, d: int, h: int) -> int:
    config = transformers.LlamaConfig(
        hidden_size=d, intermediate_size=h, num_attention_heads=heads, num_key_value_heads=groups
    )
    with torch.device("meta"):
        return size(LlamaDecoderLayer(config, 0))


def their_gpt2(v: int, t: int, n_layers: int, d: int) -> int:
    config = transformers.GPT2Config(
        vocab_size=v, n_positions=t, n_layer=n_layers, n_embd=d, n_head=2
    )
    with torch.device("meta"):
        return size(transformers.GPT2LMHeadModel(config))


def gpt2(v: int, t: int, n_layers: int, d: int, tables: int = 1, last: int = 2) -> int:
    return (tables * v + t) * d + n_layers * (12 * d * d + 13 * d) + last * d


def kept_bytes(n: int) -> int:
    weight = nn.Parameter(torch.randn(n))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    kept = (weight, weight.grad, *optimizer.state[weight].values())
    return sum(t.numel() * t.element_size() for t in kept if t.dim())


COUNTED = Design(40, 16, 3, 2, 12, activation="gelu_tanh")


def flops(backwards: bool) -> int:
    """What PyTorch counts for each token of a batch."""
    model, tokens = Model(COUNTED), torch.randint(40, (2, 16))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = model.loss(tokens, tokens)
        if backwards:
            loss.backward()
    return counter.get_total_flops() // tokens.numel()


def matrix_weights(head: bool = True) -> int:
    return 3 * 12 * 12**2 + head * 40 * 12


def kept_a_position(module: nn.Module, forward: Callable, positions: int) -> float:
    """Numbers that PyTorch puts aside for the way back, but for weights, each counted once."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    aside = {}

    def put_aside(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if tensor.is_floating_point() and tensor.dim() and place not in weights:
            aside[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(put_aside, lambda t: t):
        result = forward()
    assert result.requires_grad
    sizes = [t.untyped_storage().nbytes() // t.element_size() for t in aside.values()]
    return sum(sizes) / positions


def kept_of_a_block(d: int) -> float:
    block, x = Block(Design(9, 8, 1, 2, d)), torch.randn(3, 8, d, requires_grad=True)
    return kept_a_position(block, lambda: block(x, None, {"is_causal": True}), 3 * 8)


def kept_of_a_model() -> float:
    model, tokens = Model(Design(40, 16, 3, 2, 12)), torch.randint(40, (2, 16))
    return kept_a_position(model, lambda: model.loss(tokens, tokens), tokens.numel())


NOTHING: Callable = lambda g: ()  # noqa: E731

LEDGER = {
    "10.1": Formula(
        embedded,
        lambda e, p, w: e[w] + p[:T],
        lambda e, p, w: F.one_hot(w, 9).double() @ e + torch.eye(T, 12).double() @ p,
        {"no positions": lambda e, p, w: e[w], "tokens in order": lambda e, p, w: e[:T] + p[:T]},
    ),
    "10.2": Formula(
        branches,
        lambda x, ws: x + sum((w @ s).tanh() for w, s in zip(ws, through(x, ws), strict=False)),
        lambda x, ws: through(x, ws)[-1],
        {"all read the embedding": lambda x, ws: x + sum((w @ x).tanh() for w in ws)},
    ),
    "10.3": Formula(
        branches,
        all_ways,
        lambda x, ws: jacrev(lambda x: through(x, ws)[-1])(x),
        {
            "no straight way": lambda x, ws: all_ways(x, ws, shortest=1),
            "layers in the other order": lambda x, ws: all_ways(x, ws, order=1),
        },
    ),
    "10.4": Formula(
        encoder,
        pre_norm,
        torchs_own(True),
        {"post": post_norm, "one norm": lambda x, layer: pre_norm(x, layer, second=False)},
    ),
    "10.5": Formula(
        encoder,
        post_norm,
        torchs_own(False),
        {"pre": pre_norm, "one norm": lambda x, layer: post_norm(x, layer, twice=False)},
    ),
    "10.6": Formula(
        lambda g: (normal(g, D),),
        norm_slope,
        lambda x: jacrev(lambda x: F.layer_norm(x, (D,), eps=0.0))(x),
        {
            "σ taken for a constant": lambda x: norm_slope(x, along=0.0),
            "divided by the variance": lambda x: norm_slope(x, over=2.0),
        },
    ),
    "10.7": Formula(
        lambda g: (0.25 + float(normal(g).abs()), 6),
        lambda s2, n: (1 + s2) ** (-n / 2),
        left_post,
        {
            "no root": lambda s2, n: (1 + s2) ** -n,
            "as under pre-norm": lambda s2, n: (1 + n * s2) ** -0.5,
        },
    ),
    "10.8": Formula(
        lambda g: (0.25 + float(normal(g).abs()), 6),
        lambda s2, n: (1 + n * s2) ** -0.5,
        left_pre,
        {
            "no root": lambda s2, n: 1 / (1 + n * s2),
            "as under post-norm": lambda s2, n: (1 + s2) ** (-n / 2),
        },
    ),
    "10.9": Formula(
        two_layers,
        lambda x, w1, b1, w2, b2: w2 @ F.gelu(w1 @ x + b1) + b2,
        lambda x, w1, b1, w2, b2: F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2),
        {"bias after the bend": lambda x, w1, b1, w2, b2: w2 @ (F.gelu(w1 @ x) + b1) + b2},
    ),
    "10.10": Formula(
        lambda g: (normal(g, 20),),
        lambda x: x / 2 * (1 + torch.erf(x / 2**0.5)),
        lambda x: x * torch.distributions.Normal(0.0, 1.0).cdf(x),
        {
            "no root of 2": lambda x: x / 2 * (1 + torch.erf(x)),
            "the other GELU": lambda x: F.gelu(x, approximate="tanh"),
        },
    ),
    "10.11": Formula(
        lambda g: (normal(g, 20),),
        lambda x: x / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
        lambda x: F.gelu(x, approximate="tanh"),
        {
            "square": lambda x: (
                x / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.0447 * x**2)))
            ),
            "the other GELU": F.gelu,
        },
    ),
    "10.12": Formula(
        NOTHING,
        lambda: 2 / (3 * math.pi) - 1 / 6,
        fitted_cubic,
        {"as used": lambda: 0.044715, "erf's cubic alone": lambda: -1 / 6},
    ),
    "10.13": Formula(
        lambda g: (normal(g, D), normal(g, 8, D), normal(g, 8, D), normal(g, D, 8)),
        lambda x, up, gate, down: down @ (silu(gate @ x) * (up @ x)),
        their_swiglu,
        {
            "gate and up exchanged": lambda x, up, gate, down: down @ (silu(up @ x) * (gate @ x)),
            "sigmoid": lambda x, up, gate, down: down @ ((gate @ x).sigmoid() * (up @ x)),
        },
    ),
    "10.14": Formula(
        lambda g: (24,),
        lambda d: 2 / 3 * 4 * d,
        lambda d: size(FeedForward(Design(9, 8, 1, 2, d, bias=False))) / (3 * d),
        {"a half": lambda d: 1 / 2 * 4 * d, "the same": lambda d: 4 * d},
    ),
    "10.15": Formula(
        grouped,
        by_heads(lambda i: i * 2 // 6),
        lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None], enable_gqa=True)[
            0
        ],
        {"in turn": by_heads(lambda i: i % 2)},
    ),
    "10.16": Formula(
        NOTHING,
        lambda: 2 * 2 * 8 * 2 * 3,
        lambda: sum(
            part.numel()
            for cache in (Model(Design(9, 8, 2, 4, 12, kv_heads=2)).new_cache(),)
            for part in (cache.keys, cache.values)
        ),
        {"every head": lambda: 2 * 2 * 8 * 4 * 3, "keys alone": lambda: 2 * 8 * 2 * 3},
    ),
    "10.17": Formula(
        NOTHING,
        masks(lambda t, s, p: s <= t or s < p),
        lambda: torch.stack([prefixed(p) for p in (0, 2, T)]),
        {
            "not itself": masks(lambda t, s, p: s < t or s < p),
            "one too many": masks(lambda t, s, p: s <= t or s <= p),
            "no prefix": masks(lambda t, s, p: s <= t),
        },
    ),
    "10.18": Formula(
        NOTHING,
        logits_by_page,
        lambda: small()(torch.arange(8)[None]).detach(),
        {"no norm": lambda: logits_by_page(normed=False)},
    ),
    "10.19": Formula(
        tied,
        apart,
        lambda e, w, ids: jacrev(lambda e: word_loss(e, e, w, ids))(e),
        {"as embedding alone": lambda e, w, ids: apart(e, w, ids, both=False)},
    ),
    "10.20": Formula(
        lambda g: (2 * int(torch.randint(2, 9, (), generator=g)),),
        lambda d: 12 * d * d + 13 * d,
        lambda d: size(Block(Design(9, 8, 1, 2, d))),
        {"no norms": lambda d: 12 * d * d + 9 * d, "no biases": lambda d: 12 * d * d + 4 * d},
    ),
    "10.21": Formula(
        lambda g: (6, 2, 24, 40),
        lambda heads, groups, d, h: (2 + 2 * groups / heads) * d * d + 3 * d * h + 2 * d,
        llama_layer,
        {
            "not grouped": lambda heads, groups, d, h: 4 * d * d + 3 * d * h + 2 * d,
            "two matrices": lambda heads, groups, d, h: (
                (2 + 2 * groups / heads) * d * d + 2 * d * h + 2 * d
            ),
        },
    ),
    "10.22": Formula(
        lambda g: (50257, 1024, int(torch.randint(1, 4, (), generator=g)), 64),
        gpt2,
        their_gpt2,
        {
            "two tables": lambda *sizes: gpt2(*sizes, tables=2),
            "no last norm": lambda *sizes: gpt2(*sizes, last=0),
        },
    ),
    "10.23": Formula(
        lambda g: (int(torch.randint(10, 90, (), generator=g)),),
        lambda p: 16 * p,
        kept_bytes,
        {"one mean": lambda p: 12 * p, "weights alone": lambda p: 4 * p},
    ),
    "10.24": Formula(
        NOTHING,
        lambda: 2 * matrix_weights() + 4 * 3 * 16 * 12,
        lambda: flops(backwards=False),
        {
            "no head": lambda: 2 * matrix_weights(head=False) + 4 * 3 * 16 * 12,
            "scores alone": lambda: 2 * matrix_weights() + 2 * 3 * 16 * 12,
        },
    ),
    "10.25": Formula(
        NOTHING,
        lambda: 6 * matrix_weights() + 12 * 3 * 16 * 12,
        lambda: flops(backwards=True),
        {
            "backwards as forwards": lambda: 4 * matrix_weights() + 8 * 3 * 16 * 12,
            "6 N alone": lambda: 6 * matrix_weights(),
        },
    ),
    "10.26": Formula(
        lambda g: (2 * int(torch.randint(2, 9, (), generator=g)),),
        lambda d: 16 * d + 2 + 4,
        kept_of_a_block,
        {
            "before GELU alone": lambda d: 12 * d + 2 + 4,
            "norms keep their input alone": lambda d: 16 * d + 2,
            "shares held": lambda d: 16 * d + 2 * 8 + 4,
        },
    ),
    "10.27": Formula(
        NOTHING,
        lambda: 3 * (16 * 12 + 2 + 4) + 2 * 12 + 2 + 40,
        kept_of_a_model,
        {
            "no last norm": lambda: 3 * (16 * 12 + 2 + 4) + 40,
            "no probabilities": lambda: 3 * (16 * 12 + 2 + 4) + 2 * 12 + 2,
        },
    ),
}

TestLedger = prove(PAGE, LEDGER)


def test_the_two_gelus_are_never_further_apart_than_the_page_says():
    x = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    gap = (F.gelu(x) - F.gelu(x, approximate="tanh")).abs().max()
    assert 4e-4 < gap < 5e-4


class TestTheExperiment:
    def test_every_cell_is_stored_with_three_seeds(self):
        cells = load_result("depths")["cells"]
        wanted = {
            f"{depth}/{place}/{lr:g}/{seed}"
            for depth in depths.DEPTHS
            for place in depths.PLACES
            for lr in depths.RATES
            for seed in range(3)
        }
        assert wanted | {"counting"} == set(cells)

    def test_the_two_places_start_from_the_same_weights(self):
        pre, post = (depths.network(2, place, 0) for place in depths.PLACES)
        for name, weight in pre.blocks.state_dict().items():
            assert torch.equal(weight, post.blocks.state_dict()[name])

    def test_the_baseline_run_again_gives_what_is_stored(self):
        stored = load_result("depths")["cells"]["counting"]["bits_per_byte"]
        assert depths.counting_bytes()["bits_per_byte"] == pytest.approx(stored, abs=1e-3)

    def test_a_seed_run_again_gives_what_is_stored_up_to_rounding(self):
        stored = load_result("depths")["cells"]["2/pre/0.01/0"]["bits_per_byte"]
        again = depths.measure(2, "pre", 0.01, 0)["bits_per_byte"]
        assert again == pytest.approx(stored, abs=0.05), "bfloat16 rounds differently elsewhere"
