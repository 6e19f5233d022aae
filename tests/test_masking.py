"""Masked language modelling: what is chosen, what stands there, and what the loss counts."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import CPU, finish, tokens

from mslearn.batches import Batches
from mslearn.bpe import BPE
from mslearn.fused import IGNORED
from mslearn.generate import generate
from mslearn.masking import (
    MASK,
    MaskedBatches,
    MaskedHeldOut,
    Masking,
    masked_loss,
    with_mask,
)
from mslearn.optim import muon_and_adamw
from mslearn.run import Run
from mslearn.schedules import constant
from mslearn.transformer import Config, Transformer

VOCAB = 40
TEXT = torch.randint(VOCAB, (300, 100), generator=torch.Generator().manual_seed(0))
SIZES = dict(context=16, n_layers=2, n_heads=2, d_model=16, causal=False)


def encoder(seed: int = 0) -> Transformer:
    """An encoder whose every weight matters: none is left at its zero start."""
    torch.manual_seed(seed)
    model = Transformer(Config(VOCAB + 1, **SIZES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


class TestMasking:
    def test_the_share_asked_for_is_the_rate_in_every_window(self):
        for rate, count in ((0.15, 15), (0.001, 1), (0.999, 99)):
            _, targets = Masking(VOCAB, rate)(TEXT, seed=1)
            assert ((targets != IGNORED).sum(1) == count).all()

    def test_every_position_is_chosen_equally_often(self):
        _, targets = Masking(VOCAB, 0.5)(TEXT.repeat(10, 1), seed=1)
        share = (targets != IGNORED).double().mean(0)
        assert share.min() > 0.44 and share.max() < 0.56  # 0.5 and six deviations

    def test_targets_are_the_tokens_and_the_rest_of_the_text_stays(self):
        inputs, targets = Masking(VOCAB)(TEXT, seed=1)
        chosen = targets != IGNORED
        assert torch.equal(targets[chosen], TEXT[chosen])
        assert torch.equal(inputs[~chosen], TEXT[~chosen])

    def test_eighty_ten_ten(self):
        inputs, targets = Masking(VOCAB)(TEXT, seed=1)
        chosen = targets != IGNORED  # 4,500 of them: a share's deviation is at most 0.006
        hidden = (inputs[chosen] == VOCAB).double().mean()
        kept = (inputs[chosen] == targets[chosen]).double().mean()
        assert abs(hidden - 0.8) < 0.03
        assert abs(kept - (0.1 + 0.1 / VOCAB)) < 0.025  # one in VOCAB is replaced by itself
        others = inputs[chosen & (inputs != VOCAB) & (inputs != targets)]
        assert len(others.unique()) == VOCAB

    def test_all_may_be_hidden(self):
        inputs, targets = Masking(VOCAB, hidden=1.0, replaced=0.0)(TEXT, seed=1)
        assert (inputs[targets != IGNORED] == VOCAB).all()

    def test_the_same_seed_and_step_choose_alike_and_others_do_not(self):
        masking = Masking(VOCAB)
        first, again = masking(TEXT, 3, 7), masking(TEXT, 3, 7)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        for seed, step in ((4, 7), (3, 8)):
            assert not torch.equal(masking(TEXT, seed, step)[0], first[0])

    def test_the_choice_does_not_depend_on_the_global_generators(self):
        first = Masking(VOCAB)(TEXT, 3)[0]
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002
        assert torch.equal(Masking(VOCAB)(TEXT, 3)[0], first)

    @pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan")])
    def test_a_rate_that_hides_nothing_or_all_is_refused(self, rate):
        with pytest.raises(ValueError, match="mask rate must lie between 0 and 1, got"):
            Masking(VOCAB, rate)

    @pytest.mark.parametrize("shares", [(0.8, 0.3), (-0.1, 0.5), (0.5, -0.1)])
    def test_shares_that_are_none_are_refused(self, shares):
        with pytest.raises(ValueError, match="add up to at most 1"):
            Masking(VOCAB, 0.15, *shares)

    def test_a_text_of_one_token_is_refused(self):
        with pytest.raises(ValueError, match="takes 2 tokens or more, got 1"):
            Masking(VOCAB)(TEXT[:, :1], seed=0)
        assert Masking(VOCAB).count(2) == 1

    @pytest.mark.parametrize("wrong", [-1, VOCAB])
    def test_ids_out_of_range_are_refused_the_mask_too(self, wrong):
        spoilt = TEXT.clone()
        spoilt[5, 5] = wrong
        with pytest.raises(ValueError, match=f"token ids must be 0 to {VOCAB - 1}, got"):
            Masking(VOCAB)(spoilt, seed=0)


class TestLoss:
    def test_it_is_the_cross_entropy_of_all_logits_at_the_chosen_positions(self):
        model = encoder()
        inputs, targets = Masking(VOCAB)(TEXT[:8, :16], seed=2)
        ours = masked_loss(model, (inputs, targets))
        whole = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        assert torch.allclose(ours, whole, rtol=1e-12)
        slopes = [torch.autograd.grad(loss, list(model.parameters())) for loss in (ours, whole)]
        for a, b in zip(*slopes, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)

    def test_the_encoder_sees_both_sides_and_the_decoder_only_the_left(self):
        model = encoder()
        text = TEXT[:1, :16]
        for position in (0, 15):
            other = text.clone()
            other[0, position] = (other[0, position] + 1) % VOCAB
            moved = (model(other) - model(text)).abs().amax(-1)[0]
            assert (moved > 1e-6).all()
        causal = Transformer(Config(VOCAB + 1, **(SIZES | {"causal": True}))).double()
        causal.load_state_dict(model.state_dict())
        moved = (causal(other) - causal(text)).abs().amax(-1)[0]
        assert (moved[:15] == 0).all() and moved[15] > 1e-6


def test_an_encoder_refuses_to_write_in_one_sentence():
    with pytest.raises(ValueError, match="cannot write from left to right; load a causal one"):
        generate(encoder(), [1, 2], 3)


class TestRun:
    def test_an_encoder_learns_a_text_that_can_be_learned(self):
        torch.manual_seed(0)
        model = Transformer(Config(VOCAB + 1, **(SIZES | {"d_model": 32})))
        masking = Masking(VOCAB, 0.3)
        batches = MaskedBatches(Batches(tokens(), 16, 16), masking)
        held_out = MaskedHeldOut(tokens(), 16, masking)
        before = held_out(model.eval(), CPU)
        optimizer = muon_and_adamw(model, 0.02, 0.01)
        finish(Run(model, batches, optimizer, schedule=constant(0.02), loss=masked_loss,
                   device=CPU), 150)  # fmt: skip
        after = held_out(model.eval(), CPU)
        assert before["bits_per_blank"] == pytest.approx(np.log2(VOCAB + 1), abs=0.05)
        assert after["bits_per_blank"] < 2 and after["accuracy"] > 0.4 > 4 * before["accuracy"]

    def test_a_window_is_masked_anew_in_each_pass(self):
        batches = MaskedBatches(Batches(tokens(), 16, 8), Masking(VOCAB))
        assert torch.equal(batches(3)[0], batches(3)[0])
        assert (batches(3)[1] != IGNORED).sum() == 8 * 2
        assert batches.tokens_per_step == 128

    def test_held_out_text_shorter_than_a_window_is_refused(self):
        with pytest.raises(ValueError, match="shorter than one window of 64"):
            MaskedHeldOut(tokens(60), 64, Masking(VOCAB))


class TestTokenizer:
    def test_one_id_more_and_no_other_changes(self, tmp_path):
        base = BPE.train(["the cat sat on the mat"] * 5, 270)
        more = with_mask(base)
        assert more.vocab_size == base.vocab_size + 1 and more.special[MASK] == base.vocab_size
        assert more.end == base.end
        text = "the cat sat on <|mask|>"
        assert more.encode(text) == base.encode(text)  # as ordinary text, unless allowed
        ids = more.encode(text, allow_special=True)
        assert ids[-1] == base.vocab_size and more.decode(ids) == text
        assert with_mask(more) is more
        more.save(tmp_path / "t.json")
        assert BPE.load(tmp_path / "t.json").encode(text, allow_special=True) == ids
