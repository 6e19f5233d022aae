"""One set of blocks: what each mask lets through, what a cache keeps, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mslearn import diagram
from mslearn.blocks import ACTIVATIONS, Block, Design, halves, may_look, neighbours
from mslearn.models import Model

DESIGN = Design(40, 16, 2, 4, 16)
TOKENS = torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(1))
KINDS = {
    "gpt2": {},
    "llama": {"norm": "rms", "positions": "rotary", "activation": "swiglu", "kv_heads": 2},
    "pairs": {"positions": "rotary_pairs", "bias": False},
    "ours": {"norm": "plain", "positions": "rotary", "qk_norm": True, "activation": "relu2"},
}


def model(**changes) -> Model:
    """In float64, every weight at work."""
    torch.manual_seed(0)
    made = Model(replace(DESIGN, **changes)).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def changed_at(place: int) -> torch.Tensor:
    tokens = TOKENS.clone()
    tokens[:, place] = (tokens[:, place] + 1) % 40
    return tokens


def moved(made: Model, place: int, **more) -> torch.Tensor:
    """Which positions' logits move with the token at `place`, in every text: (T,)."""
    before, after = made(TOKENS, **more), made(changed_at(place), **more)
    return ((before - after).abs() > 1e-12).any(-1).all(0)


@pytest.mark.parametrize("kind", KINDS)
class TestMasks:
    def test_a_decoder_sees_nothing_later(self, kind):
        assert moved(model(**KINDS[kind]), 9).tolist() == [t >= 9 for t in range(16)]

    def test_an_encoder_sees_everything(self, kind):
        assert moved(model(mask="none", **KINDS[kind]), 9).all()

    def test_a_prefix_is_seen_whole_and_the_rest_backwards(self, kind):
        made, prefix = model(mask="prefix", **KINDS[kind]), {"prefix": torch.tensor([10, 10])}
        assert moved(made, 9, **prefix).all()
        assert moved(made, 12, **prefix).tolist() == [t >= 12 for t in range(16)]

    def test_padding_is_not_seen(self, kind):
        for mask in ("none", "causal"):
            made, lengths = model(mask=mask, **KINDS[kind]), torch.tensor([16, 9])
            short = made(TOKENS[1:, :9])
            assert (made(TOKENS, lengths=lengths)[1, :9] - short[0]).abs().max() < 1e-12

    @pytest.mark.parametrize("cuts", [[1] * 16, [7, 1, 8]])
    def test_a_cache_gives_the_same_logits(self, kind, cuts):
        made = model(**KINDS[kind])
        cache = made.new_cache(batch=2)
        pieces = [made(piece, cache) for piece in TOKENS.split(cuts, dim=1)]
        assert (torch.cat(pieces, 1) - made(TOKENS)).abs().max() < 1e-12

    def test_a_prefix_model_writes_with_a_cache(self, kind):
        made = model(mask="prefix", **KINDS[kind])
        cache = made.new_cache(batch=2)
        ten = torch.tensor([10, 10])
        pieces = [made(TOKENS[:, :10], cache, prefix=ten)]
        pieces += [made(piece, cache) for piece in TOKENS[:, 10:].split(1, 1)]
        assert (torch.cat(pieces, 1) - made(TOKENS, prefix=ten)).abs().max() < 1e-12


class TestRotary:
    def test_the_two_orders_of_a_head_undo_each_other(self):
        row = torch.arange(6)
        assert halves(row).tolist() == [0, 2, 4, 1, 3, 5]
        assert torch.equal(neighbours(halves(row)), row)

    @pytest.mark.parametrize("positions", ["rotary", "rotary_pairs"])
    def test_scores_know_distances_alone(self, positions):
        attention = model(positions=positions).blocks[0].attention
        table = Model(replace(DESIGN, positions=positions))._table(0, 12, torch.zeros(1).double())
        q = torch.randn(1, 1, 4, 4, dtype=torch.float64)
        k = torch.randn(1, 1, 4, 4, dtype=torch.float64)
        at = lambda x, t: attention._turn(x, table[:, t : t + 1])  # noqa: E731
        score = (at(q, 3) * at(k, 1)).sum(-1)
        assert torch.allclose(score, (at(q, 9) * at(k, 7)).sum(-1), atol=1e-12)
        assert not torch.allclose(score, (at(q, 9) * at(k, 6)).sum(-1), atol=1e-3)


class TestShapes:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_every_activation_learns_something(self, activation):
        made = Model(replace(DESIGN, activation=activation))
        made.loss(TOKENS, TOKENS).backward()
        assert all(p.grad is not None and p.grad.any() for p in made.blocks.parameters())

    def test_a_tied_table_counts_once(self):
        tied, own = Model(DESIGN), Model(replace(DESIGN, tied=False))
        assert own.n_params() - tied.n_params() == 40 * 16
        assert tied.head.weight is tied.embedding.weight

    def test_without_a_head_it_gives_the_stream(self):
        assert Model(replace(DESIGN, head="none"))(TOKENS).shape == (2, 16, 16)

    def test_types_are_nought_unless_they_are_given(self):
        made = model(n_types=2)
        assert torch.equal(made(TOKENS), made(TOKENS, types=torch.zeros_like(TOKENS)))
        assert not torch.equal(made(TOKENS), made(TOKENS, types=torch.ones_like(TOKENS)))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"n_heads": 5}, "d_model must be a multiple of n_heads, got 16 and 5"),
            ({"kv_heads": 3}, "n_heads must be a multiple of kv_heads, got 4 and 3: every"),
            (
                {"positions": "rotary", "d_model": 12},
                "head width must be even, got 3; choose d_model as an even multiple of n_heads",
            ),
            ({"activation": "tanh"}, "no activation 'tanh': choose one of gelu, gelu_tanh"),
            ({"n_layers": 0}, "every size of a model must be at least 1"),
            ({"kv_heads": -1}, "every size of a model must be at least 1"),
        ],
    )
    def test_sizes_that_do_not_fit(self, changes, said):
        with pytest.raises(ValueError, match=said):
            replace(DESIGN, **changes)

    def test_a_text_longer_than_the_model_reads(self):
        made = Model(DESIGN)
        with pytest.raises(ValueError, match="reads at most 16 tokens, got 17; shorten the text"):
            made(torch.zeros(1, 17, dtype=torch.int64))
        cache = made.new_cache()
        made(TOKENS[:1], cache)
        with pytest.raises(ValueError, match="got 17"):
            made(TOKENS[:1, :1], cache)

    @pytest.mark.parametrize("token", [-1, 40])
    def test_ids_out_of_range(self, token):
        with pytest.raises(ValueError, match=r"token ids must be 0 to 39, got .*use the tokeniser"):
            Model(DESIGN)(torch.tensor([[3, token]]))

    def test_types_out_of_range(self):
        made = Model(replace(DESIGN, n_types=2))
        with pytest.raises(ValueError, match=r"types must be 0 to 1, got 2 to 2; number"):
            made(TOKENS, types=torch.full_like(TOKENS, 2))

    def test_a_prefix_model_without_its_prefix(self):
        with pytest.raises(ValueError, match="a prefix model needs prefix="):
            may_look("prefix", 5)


class TestDiagram:
    def test_follows_the_block_itself(self):
        class Alone(nn.Module):
            def __init__(self, place: str) -> None:
                super().__init__()
                self.block = Block(replace(DESIGN, place=place))

            def forward(self, x):
                return self.block(x, None, {"is_causal": True})

        names = {}
        for place in ("pre", "post"):
            found = diagram.steps(Alone(place), torch.randn(2, 5, 16), deep=(Block,))
            names[place] = [step.name.rpartition(".")[2] for step in found]
            assert {step.shape for step in found} == {(2, 5, 16)}
            adds = [step for step in found if step.kind == "add"]
            assert [len(step.inputs) for step in adds] == [2, 2]
            assert sum(step.n_params for step in found) == 12 * 16**2 + 13 * 16
        norms = ("attention_norm", "feed_forward_norm")
        assert [names["pre"].index(name) for name in norms] == [1, 4]
        assert [names["post"].index(name) for name in norms] == [3, 6]
