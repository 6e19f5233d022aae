"""Designs and the `config.json` of the `transformers` library: one described by the other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mslearn.blocks import Design

GELUS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def design_of(config: Mapping[str, Any]) -> Design:
    """What a `config.json` describes. Raises ValueError for what our blocks cannot be."""
    kind = config.get("model_type")
    if kind not in CONFIGS:
        raise ValueError(f"no layout {kind!r}: choose a model of type {', '.join(CONFIGS)}")
    if kind == "gpt2":
        sizes = ("vocab_size", "n_positions", "n_layer", "n_head", "n_embd")
        _expect(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
        return Design(
            *(config[name] for name in sizes),
            hidden=config.get("n_inner") or 0,
            eps=config["layer_norm_epsilon"],
            activation=_gelu(config["activation_function"]),
            tied=config.get("tie_word_embeddings", True),
        )
    sizes = ("vocab_size", "max_position_embeddings", "num_hidden_layers", "num_attention_heads")
    sizes = [config[name] for name in (*sizes, "hidden_size")]
    hidden = config["intermediate_size"]
    if kind == "bert":
        bare = (config.get("architectures") or [""])[0] == "BertModel"
        return Design(
            *sizes,
            hidden=hidden,
            mask="none",
            place="post",
            eps=config["layer_norm_eps"],
            embed_norm=True,
            final_norm=False,
            activation=_gelu(config["hidden_act"]),
            n_types=config["type_vocab_size"],
            head="none" if bare else "masked",
        )
    rope = config.get("rope_parameters") or {}
    _expect(config, attention_bias=False, mlp_bias=False)
    _expect(rope, rope_type="default")
    shared = {
        "hidden": hidden,
        "kv_heads": config.get("num_key_value_heads") or 0,
        "eps": config["rms_norm_eps"],
        "positions": "rotary",
        "base": rope.get("rope_theta", config.get("rope_theta", 10000.0)),
        "bias": False,
        "tied": config.get("tie_word_embeddings", False),
    }
    if kind == "llama":
        _expect(config, hidden_act="silu", head_dim=sizes[4] // sizes[3])
        return Design(*sizes, norm="rms", activation="swiglu", **shared)
    _expect(config, hidden_act="relu2", final_logit_softcapping=None, tie_word_embeddings=False)
    plain = {"norm": "plain", "activation": "relu2", "embed_norm": True, "qk_norm": True}
    return Design(*sizes, **plain, **shared)


def _gelu(name: str) -> str:
    if name not in GELUS:
        raise ValueError(f"activation {name!r} is none of {', '.join(GELUS)}")
    return GELUS[name]


def _expect(config: Mapping[str, Any], **expected: Any) -> None:
    for name, value in expected.items():
        if config.get(name, value) not in (value, None):
            raise ValueError(f"our blocks have {name}={value}, this model {config[name]}")


def config_of(design: Design) -> dict[str, Any]:
    """The entries of a `config.json` that describe a design; ValueError where none can."""
    wanted = settled(design)
    if wanted.rotary:  # theirs turns across the halves; the layout puts the rows in order
        wanted = replace(wanted, positions="rotary")
    for kind, make in CONFIGS.items():
        config = {"model_type": kind, **make(wanted)}
        if settled(design_of(config)) == wanted:
            return config
    raise ValueError(f"none of {', '.join(CONFIGS)} is like {design}")


def settled(design: Design) -> Design:
    """The same design with the sizes that were left open filled in."""
    return replace(design, hidden=design.width, kv_heads=design.n_kv_heads)


def _common(design: Design) -> dict[str, Any]:
    return {
        "vocab_size": design.vocab_size,
        "max_position_embeddings": design.context,
        "num_hidden_layers": design.n_layers,
        "num_attention_heads": design.n_heads,
        "hidden_size": design.d_model,
        "intermediate_size": design.width,
        "tie_word_embeddings": design.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _their_gelu(design: Design) -> str:
    return "gelu_new" if design.activation == "gelu_tanh" else "gelu"


def _gpt2(design: Design) -> dict[str, Any]:
    return {
        "vocab_size": design.vocab_size,
        "n_positions": design.context,
        "n_layer": design.n_layers,
        "n_head": design.n_heads,
        "n_embd": design.d_model,
        "n_inner": design.width,
        "layer_norm_epsilon": design.eps,
        "activation_function": _their_gelu(design),
        "tie_word_embeddings": design.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _rotary(design: Design) -> dict[str, Any]:
    return {
        **_common(design),
        "num_key_value_heads": design.n_kv_heads,
        "rms_norm_eps": design.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": design.base},
    }


def _nanochat(design: Design) -> dict[str, Any]:
    return {**_rotary(design), "final_logit_softcapping": None, "tie_word_embeddings": False}


def _bert(design: Design) -> dict[str, Any]:
    return {
        **_common(design),
        "hidden_act": _their_gelu(design),
        "layer_norm_eps": design.eps,
        "type_vocab_size": design.n_types,
        "architectures": ["BertModel" if design.head == "none" else "BertForMaskedLM"],
    }


CONFIGS = {"gpt2": _gpt2, "llama": _rotary, "nanochat": _nanochat, "bert": _bert}
