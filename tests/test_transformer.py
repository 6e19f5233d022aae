"""The transformer: causal, relative in position, the same with a cache, and as large as it says."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mslearn.attention import Attention, rotary_table, rotate
from mslearn.transformer import Config, Transformer, normalize

CONFIG = Config(vocab_size=40, context=16, n_layers=3, n_heads=2, d_model=16)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def model():
    """In float64, and with every weight at work: a fresh one adds nothing to its stream."""
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


@pytest.fixture
def tokens():
    return torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(1))


def test_a_token_changes_no_logit_before_it_and_all_after(model, tokens):
    before = model(tokens)
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 40
    same = (model(changed) == before).all(-1)
    assert same[:, :9].all() and not same[:, 9:].any()


def test_without_a_causal_mask_it_changes_every_logit(tokens):
    torch.manual_seed(0)
    model = Transformer(Config(40, 16, 1, 2, 16, causal=False))
    torch.nn.init.normal_(model.blocks[0].attention.out.weight)
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 40
    assert not (model(changed) == model(tokens)).all(-1).any()


@pytest.mark.parametrize("cuts", [[1] * 16, [16], [7, 1, 8], [3, 5, 1, 7]])
def test_reading_piece_by_piece_with_a_cache_gives_the_same_logits(model, tokens, cuts):
    cache = model.new_cache(batch=2)
    pieces = [model(piece, cache) for piece in tokens.split(cuts, dim=1)]
    assert (torch.cat(pieces, dim=1) - model(tokens)).abs().max() < 1e-12


def test_rotated_products_depend_on_the_distance_alone():
    table = rotary_table(8, 50).double()
    q, k = numbers(8), numbers(8, seed=1)

    def score(at, before):
        rows = rotate(torch.stack([q, k])[None, :, None], table[:, [at, before]])[0, :, 0]
        return rows[0] @ rows[1]

    assert score(10, 7) == pytest.approx(float(score(45, 42)), rel=1e-6)
    assert abs(score(10, 7) - score(10, 6)) > 1e-3
    assert torch.allclose(rotate(q.view(1, 1, 1, 8), table[:, 5:6]).norm(), q.norm())


def test_attention_is_the_definition_written_out():
    torch.manual_seed(0)
    layer, x, table = Attention(12, 3).double(), numbers(2, 7, 12), rotary_table(4, 7).double()
    q, k, v = layer.qkv(x).view(2, 7, 3, 3, 4).unbind(2)  # each (B, T, H, D)
    q, k = (rotate(F.rms_norm(part, (4,)), table) for part in (q, k))
    scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(4)
    scores = scores.masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), -math.inf)
    mixed = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).reshape(2, 7, 12)
    assert (layer(x, table) - layer.out(mixed)).abs().max() < 1e-12


def test_gradients_of_attention_and_normalisation_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer, table = Attention(8, 2).double(), rotary_table(4, 5).double()
    x = numbers(1, 5, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, table), x)
    assert torch.autograd.gradcheck(normalize, x)


def test_a_fresh_model_knows_nothing_and_its_blocks_are_the_identity(tokens):
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    assert loss.item() == pytest.approx(math.log(40), abs=0.01)
    assert torch.allclose(model.features(tokens), normalize(normalize(model.embedding(tokens))))


def test_the_same_seed_makes_the_same_model():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(Transformer(CONFIG).embedding.weight)
    assert torch.equal(models[0], models[1]) and not torch.equal(models[0], models[2])


def test_sizes_are_those_of_the_formula():
    c, model = CONFIG, Transformer(CONFIG)
    blocks = c.n_layers * (4 + 2 * c.mlp_ratio) * c.d_model**2
    assert model.n_params() == blocks + 2 * c.vocab_size * c.d_model
    matrices = blocks + c.vocab_size * c.d_model
    attention = 12 * c.n_layers * c.d_model * c.context
    assert model.flops_per_token() == 6 * matrices + attention


def test_flops_are_those_that_torch_counts(tokens):
    model = Transformer(CONFIG)
    plain = sdpa_kernel(SDPBackend.MATH)  # torch does not count inside its fused kernel
    with FlopCounterMode(display=False) as counter, plain:
        model(tokens).sum().backward()
    counted = counter.get_total_flops() / tokens.numel()
    assert counted == pytest.approx(model.flops_per_token(), rel=1e-9)


class TestBadInput:
    def test_more_tokens_than_the_context(self, model):
        with pytest.raises(ValueError, match="reads at most 16 tokens, got 17; shorten the text"):
            model(torch.zeros(1, 17, dtype=torch.int64))

    def test_a_full_cache(self, model, tokens):
        cache = model.new_cache(batch=2)
        model(tokens, cache)
        with pytest.raises(ValueError, match="at most 16 tokens, got 17"):
            model(tokens[:, :1], cache)

    @pytest.mark.parametrize("bad", [40, -1])
    def test_an_id_outside_the_vocabulary(self, model, bad):
        with pytest.raises(ValueError, match=f"must be 0 to 39, got .*{bad}.*; use the tokeniser"):
            model(torch.tensor([[1, bad]]))

    def test_sizes_that_make_no_model(self):
        with pytest.raises(ValueError, match="at least 1"):
            Config(vocab_size=0)
        with pytest.raises(ValueError, match="multiple of n_heads, got 16 and 3"):
            Config(40, d_model=16, n_heads=3)
        with pytest.raises(ValueError, match="head width must be even, got 3"):
            Transformer(Config(40, d_model=6, n_heads=2))
