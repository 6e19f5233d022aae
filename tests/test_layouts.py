"""Our blocks give the logits of `transformers` for the same weights, in both directions."""

import json
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.llama import modeling_llama
from transformers.models.nanochat import modeling_nanochat

from mslearn import convert
from mslearn.blocks import Design
from mslearn.convert import (
    built,
    from_decoder,
    from_transformers,
    load_folder,
    save_folder,
    to_transformers,
)
from mslearn.designs import config_of, design_of, settled
from mslearn.layouts import LAYOUTS, Entry
from mslearn.models import Model
from mslearn.transformer import Config, Transformer

CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "pad_token_id": None,
}
NO_MARKS = {"bos_token_id": None, "eos_token_id": None}
TOKENS = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(1))
TYPES = (torch.arange(20) > 8).long().expand(2, 20)


def reference(kind: str, **other) -> nn.Module:
    """A small model of theirs with random weights, all of them far from nought."""
    torch.manual_seed(0)
    if kind == "gpt2":
        sizes = {"vocab_size": 50, "n_positions": 24, "n_embd": 32, "n_layer": 3, "n_head": 4}
        config = transformers.GPT2Config(**{**sizes, **NO_MARKS, **other})
        model = transformers.GPT2LMHeadModel(config)
    elif kind == "llama":
        config = transformers.LlamaConfig(
            **{**SIZES, **NO_MARKS, "num_key_value_heads": 2, **other}
        )
        model = transformers.LlamaForCausalLM(config)
    elif kind == "nanochat":
        config = transformers.NanoChatConfig(
            **{**SIZES, **NO_MARKS, "final_logit_softcapping": None, **other}
        )
        model = transformers.NanoChatForCausalLM(config)
    else:
        config = transformers.BertConfig(**{**SIZES, **other})
        bare = kind == "bare bert"
        model = (transformers.BertModel if bare else transformers.BertForMaskedLM)(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def answer(model: nn.Module, tokens: Tensor = TOKENS, **more: Tensor) -> Tensor:
    """Their logits, or the last stream of a model without a head."""
    found = model(tokens, **more)
    return found.logits if "logits" in found else found.last_hidden_state


def apart(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


class Float64(ModuleType):
    """torch, with float64 where a module says float32."""

    float = float32 = torch.float64

    def __getattr__(self, name: str):
        return getattr(torch, name)


@pytest.fixture
def lifted(monkeypatch) -> Callable[[nn.Module], nn.Module]:
    """Their norms and angles in float64 too: in their code both are float32 whatever comes in."""

    def lift(model: nn.Module) -> nn.Module:
        for module in (modeling_llama, modeling_nanochat):
            monkeypatch.setattr(module, "torch", Float64("torch"))
        monkeypatch.setattr(Tensor, "float", Tensor.double)
        rotary = getattr(getattr(model, "model", None), "rotary_emb", None)
        if rotary is not None:
            width = model.config.hidden_size // model.config.num_attention_heads
            base = model.config.rope_parameters["rope_theta"]
            places = torch.arange(0, width, 2, dtype=torch.float64)
            rotary.inv_freq = base ** (-places / width)
        return model

    return lift


KINDS = ("gpt2", "llama", "nanochat", "bert", "bare bert")


class TestLogits:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_theirs_in_float32(self, kind):
        theirs = reference(kind)
        assert apart(from_transformers(theirs)(TOKENS), answer(theirs)) <= 1e-5

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_theirs_in_float64_where_theirs_computes_in_it(self, kind, lifted):
        theirs = reference(kind).double()
        ours = from_transformers(theirs)
        assert ours.embedding.weight.dtype == torch.float64
        assert apart(ours(TOKENS), answer(lifted(theirs))) <= 1e-12

    @pytest.mark.parametrize("dtype", CLOSE)
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_the_same_on_the_way_back(self, kind, dtype, lifted):
        ours = from_transformers(reference(kind).to(dtype))
        theirs = to_transformers(ours)
        theirs = lifted(theirs) if dtype == torch.float64 else theirs
        assert apart(ours(TOKENS), answer(theirs)) <= CLOSE[dtype]

    @pytest.mark.parametrize("dtype", CLOSE)
    def test_of_llama_with_pairs_of_neighbours_are_theirs_in_both_directions(self, dtype, lifted):
        theirs = reference("llama").to(dtype)
        ours = from_transformers(theirs, positions="rotary_pairs")
        back = to_transformers(ours)
        pairs = zip(theirs.parameters(), back.parameters(), strict=True)
        assert all(torch.equal(before, after) for before, after in pairs)
        theirs = lifted(theirs) if dtype == torch.float64 else theirs
        assert apart(ours(TOKENS), answer(theirs)) <= CLOSE[dtype]

    @pytest.mark.parametrize(
        ("kind", "other"),
        [
            ("gpt2", {"activation_function": "gelu", "n_inner": 40}),
            ("gpt2", {"layer_norm_epsilon": 1e-2, "tie_word_embeddings": False}),
            ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
            ("llama", {"num_key_value_heads": 1, "rms_norm_eps": 1e-2}),
            ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
            ("bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-2, "type_vocab_size": 3}),
        ],
    )
    def test_follow_what_the_configuration_says(self, kind, other):
        theirs = reference(kind, **other)
        ours = from_transformers(theirs)
        assert apart(ours(TOKENS), answer(theirs)) <= 1e-5
        assert apart(ours(TOKENS), answer(to_transformers(ours))) <= 1e-5

    @pytest.mark.parametrize("kind", ["bert", "bare bert"])
    def test_of_an_encoder_heed_segments_and_padding(self, kind):
        theirs = reference(kind)
        lengths = torch.tensor([20, 13])
        real = torch.arange(20) < lengths[:, None]
        expected = answer(theirs, token_type_ids=TYPES, attention_mask=real.long())
        ours = from_transformers(theirs)(TOKENS, types=TYPES, lengths=lengths)
        assert apart(ours[real], expected[real]) <= 1e-5
        assert apart(ours[real], answer(theirs)[real]) > 0.01, "both make a difference"

    def test_read_token_by_token_are_theirs(self):
        for kind in ("gpt2", "llama", "nanochat"):
            theirs = reference(kind)
            ours = from_transformers(theirs)
            cache = ours.new_cache(batch=2)
            pieces = [ours(piece, cache) for piece in TOKENS.split([6, 1, 1, 9, 3], dim=1)]
            assert apart(torch.cat(pieces, dim=1), answer(theirs)) <= 1e-5


def entries_of(kind: str, design: Design, **changed: dict) -> list[Entry]:
    """The layout with some entries changed, by the end of their name."""
    found = []
    for entry in LAYOUTS[kind](design):
        for end, change in changed.items():
            if entry.theirs.endswith(end.replace("__", ".")):
                entry = replace(entry, **change)
        found.append(entry)
    return found


class TestFaults:
    """Each is a plausible slip that loads without complaint and that the logits give away."""

    def difference(self, kind, design_changes=None, entry_changes=None, **more):
        theirs = reference(kind)
        config = theirs.config.to_dict()
        right = design_of(config)
        right = replace(right, positions=more.pop("positions", right.positions))
        design = replace(right, **(design_changes or {}))
        entries = entries_of(kind, right, **(entry_changes or {}))
        entries = [
            e for e in entries if not (design.n_types == 0 and e.ours == ("segment.weight",))
        ]
        wrong = built(design, theirs.state_dict(), entries)
        names = {"types": "token_type_ids"}
        expected = answer(theirs, **{names[k]: v for k, v in more.items()})
        more = more if design.n_types else {}
        return apart(wrong(TOKENS, **more), expected)

    @pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
    def test_without_a_fault_there_is_no_difference(self, kind):
        assert self.difference(kind) <= 1e-5

    @pytest.mark.parametrize("layer", ["0", "1", "2"])
    def test_a_projection_that_is_not_transposed(self, layer):
        fault = {f"h__{layer}__attn__c_proj__weight": {"transposed": False}}
        assert self.difference("gpt2", entry_changes=fault) > 0.1

    @pytest.mark.parametrize("name", ["q_proj", "k_proj"])
    def test_rows_that_are_not_permuted_for_pairs_of_neighbours(self, name):
        fault = {f"{name}__weight": {"rows": ""}}
        found = self.difference("llama", entry_changes=fault, positions="rotary_pairs")
        assert found > 0.1

    def test_rows_that_are_not_swapped_for_angles_the_other_way_round(self):
        fault = {"q_proj__weight": {"rows": ""}, "k_proj__weight": {"rows": ""}}
        theirs = reference("nanochat")
        design = design_of(theirs.config.to_dict())
        wrong = built(design, theirs.state_dict(), entries_of("nanochat", design, **fault))
        assert apart(wrong(TOKENS), answer(theirs)) > 0.1

    @pytest.mark.parametrize(
        ("kind", "other"), [("gpt2", "gelu"), ("bert", "gelu_tanh"), ("gpt2", "relu")]
    )
    def test_another_gelu(self, kind, other):
        assert self.difference(kind, {"activation": other}) > 1e-4

    @pytest.mark.parametrize(("kind", "eps"), [("gpt2", 1e-3), ("llama", 1e-3), ("bert", 1e-3)])
    def test_another_epsilon_in_the_norm(self, kind, eps):
        assert self.difference(kind, {"eps": eps}) > 1e-4

    def test_token_types_left_out(self):
        assert self.difference("bert", {"n_types": 0}, types=TYPES) > 0.01
        assert self.difference("bert", {"n_types": 0}) > 0.01, "type 0 has an embedding too"

    @pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
    def test_the_norm_in_the_other_place(self, kind):
        other = "post" if design_of(reference(kind).config.to_dict()).place == "pre" else "pre"
        assert self.difference(kind, {"place": other}) > 0.1

    def test_key_value_heads_in_another_order(self):
        theirs = reference("llama")
        ours = from_transformers(theirs)
        for block in ours.blocks:
            weight = block.attention.k.weight.data
            block.attention.k.weight.data = weight.unflatten(0, (2, 8)).flip(0).flatten(0, 1)
        assert apart(ours(TOKENS), answer(theirs)) > 0.1


class TestDecoder:
    @pytest.fixture
    def decoder(self):
        torch.manual_seed(0)
        decoder = Transformer(Config(50, context=24, n_layers=3, n_heads=4, d_model=32))
        for parameter in decoder.parameters():
            nn.init.normal_(parameter, std=0.3)
        return decoder.eval()

    def test_is_one_choice_of_the_blocks(self, decoder):
        decoder = decoder.double()
        decoder.table = convert.from_decoder(decoder)._table(0, 24, torch.zeros(1).double())
        assert apart(from_decoder(decoder)(TOKENS), decoder(TOKENS)) <= 1e-12

    def test_is_a_model_of_theirs(self, decoder):
        assert apart(answer(to_transformers(decoder)), decoder(TOKENS)) <= 1e-5

    def test_an_encoder_becomes_blocks_that_see_both_sides(self, decoder):
        encoder = Transformer(replace(decoder.config, causal=False))
        encoder.load_state_dict(decoder.state_dict())
        assert apart(from_decoder(encoder)(TOKENS), encoder(TOKENS)) <= 1e-5


class TestFolders:
    @pytest.mark.parametrize("kind", KINDS)
    def test_theirs_are_read_without_the_library(self, kind, tmp_path):
        theirs = reference(kind)
        theirs.save_pretrained(tmp_path)
        assert apart(load_folder(tmp_path)(TOKENS), answer(theirs)) <= 1e-5

    @pytest.mark.parametrize("kind", KINDS)
    def test_ours_are_loaded_by_the_library(self, kind, tmp_path):
        theirs = reference(kind)
        ours = from_transformers(theirs)
        save_folder(ours, tmp_path)
        assert apart(ours(TOKENS), answer(type(theirs).from_pretrained(tmp_path))) <= 1e-5

    def test_names_without_the_models_own_in_front_are_read(self, tmp_path):
        from safetensors.torch import save_file

        theirs = reference("gpt2")
        theirs.config.save_pretrained(tmp_path)  # as GPT-2's own file is: h.0.ln_1.weight
        save_file(theirs.transformer.state_dict(), tmp_path / "model.safetensors")
        assert apart(load_folder(tmp_path)(TOKENS), answer(theirs)) <= 1e-5

    def test_a_folder_without_a_model_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"should hold a config\.json and \*\.safetensors"):
            load_folder(tmp_path)

    def test_weights_of_another_layout_are_refused(self, tmp_path):
        reference("gpt2").save_pretrained(tmp_path)
        reference("llama").config.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"no tensor model\.embed_tokens\.weight"):
            load_folder(tmp_path)

    def test_weights_of_another_size_are_refused(self, tmp_path):
        theirs = reference("gpt2")
        theirs.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 60}))
        with pytest.raises(ValueError, match=r"wte\.weight should have 60 rows for"):
            load_folder(tmp_path)


class TestDesigns:
    @pytest.mark.parametrize("kind", KINDS)
    def test_come_back_from_their_configuration(self, kind):
        design = from_transformers(reference(kind)).design
        assert settled(design_of(config_of(design))) == settled(design)

    @pytest.mark.parametrize(
        ("kind", "entries", "said"),
        [
            ("mamba", {}, "no layout 'mamba': choose a model of type gpt2, llama"),
            ("gpt2", {"activation_function": "silu"}, "activation 'silu' is none of gelu_new"),
            ("llama", {"hidden_act": "gelu"}, "our blocks have hidden_act=silu, this model gelu"),
            ("llama", {"attention_bias": True}, "attention_bias=False, this model True"),
            ("llama", {"head_dim": 16}, "head_dim=8, this model 16"),
            ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type=default"),
            ("nanochat", {"final_logit_softcapping": 15.0}, "this model 15.0"),
        ],
    )
    def test_that_our_blocks_cannot_be_are_refused(self, kind, entries, said):
        known = kind if kind in LAYOUTS else "gpt2"
        config = {**reference(known).config.to_dict(), "model_type": kind, **entries}
        with pytest.raises(ValueError, match=said):
            design_of(config)

    def test_that_the_library_does_not_know_are_refused(self):
        with pytest.raises(ValueError, match="none of gpt2, llama, nanochat, bert is like"):
            to_transformers(Model(Design(50, 24, 1, 4, 32, place="post")))

    def test_an_older_configuration_says_its_base_elsewhere(self):
        config = reference("llama").config.to_dict()
        del config["rope_parameters"]
        assert design_of({**config, "rope_theta": 5e5}).base == 5e5
