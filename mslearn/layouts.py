"""To and from the models of the `transformers` library: where each of their weights goes.

A layout is a list of entries, one for each of their tensors. The same list is read in both
directions, so that neither can be right alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mslearn.blocks import Design, halves, neighbours

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """One tensor of theirs: the tensors of ours that it holds, one below the other.

    `transposed` where theirs is inputs by outputs. `rows` says how the rows of each head are
    ordered: `neighbours` where ours turns pairs of neighbours, `swapped` where theirs turns the
    other way round.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    rows: str = ""


def take(weights: Weights, entries: list[Entry], design: Design, like: Weights) -> Weights:
    """Their weights under our names; `like` has the sizes of ours.

    Raises ValueError for a tensor that is missing or has another size.
    """
    found = {}
    for entry in entries:
        whole = named(weights, entry.theirs)
        whole = whole.T if entry.transposed else whole
        sizes = [len(like[name]) for name in entry.ours]
        if len(whole) != sum(sizes):
            raise ValueError(
                f"{entry.theirs} should have {sum(sizes)} rows for {', '.join(entry.ours)}, got "
                f"{len(whole)}; is this the configuration that the weights were saved with?"
            )
        for name, part in zip(entry.ours, whole.split(sizes), strict=True):
            found[name] = ordered(part, entry.rows, design.head_width, back=False).contiguous()
    return found


def named(weights: Weights, name: str) -> Tensor:
    """A tensor of theirs, with or without the model's own name in front."""
    for each in (name, name.partition(".")[2]):
        if each in weights:
            return weights[each]
    raise ValueError(f"no tensor {name} among {len(weights)}: is this another layout?")


def give(weights: Weights, entries: list[Entry], design: Design) -> Weights:
    """Our weights under their names."""
    found = {}
    for entry in entries:
        parts = [
            ordered(weights[name], entry.rows, design.head_width, back=True) for name in entry.ours
        ]
        whole = torch.cat(parts)
        found[entry.theirs] = (whole.T if entry.transposed else whole).contiguous()
    return found


def ordered(weight: Tensor, rows: str, width: int, back: bool) -> Tensor:
    """The rows of each head in our order; `back`, in theirs."""
    if not rows:
        return weight
    heads = weight.unflatten(0, (-1, width)).transpose(1, -1)  # the rows of a head come last
    if rows == "swapped":
        turned = heads.roll(width // 2, -1)
    else:
        turned = halves(heads) if back else neighbours(heads)
    return turned.transpose(1, -1).flatten(0, 1)


def pair(
    theirs: str, *ours: str, kinds: tuple[str, ...] = ("weight", "bias"), **how
) -> list[Entry]:
    """The entries of a layer: its weight and its bias."""
    return [Entry(f"{theirs}.{k}", tuple(f"{each}.{k}" for each in ours), **how) for k in kinds]


WEIGHT = ("weight",)


def gpt2(design: Design) -> list[Entry]:
    """GPT-2: a packed query, key and value, and every matrix stored as inputs by outputs."""
    entries = pair("transformer.wte", "embedding", kinds=WEIGHT)
    entries += pair("transformer.wpe", "position", kinds=WEIGHT)
    for i in range(design.n_layers):
        a, b = f"transformer.h.{i}", f"blocks.{i}"
        entries += pair(f"{a}.ln_1", f"{b}.attention_norm")
        qkv = [f"{b}.attention.{name}" for name in "qkv"]
        for theirs, ours in (
            ("attn.c_attn", qkv),
            ("attn.c_proj", [f"{b}.attention.out"]),
            ("mlp.c_fc", [f"{b}.feed_forward.up"]),
            ("mlp.c_proj", [f"{b}.feed_forward.down"]),
        ):
            entries += pair(f"{a}.{theirs}", *ours, kinds=WEIGHT, transposed=True)
            entries += pair(f"{a}.{theirs}", *ours, kinds=("bias",))
        entries += pair(f"{a}.ln_2", f"{b}.feed_forward_norm")
    entries += pair("transformer.ln_f", "final_norm")
    return entries if design.tied else entries + pair("lm_head", "head", kinds=WEIGHT)


def llama(design: Design) -> list[Entry]:
    """Llama: one matrix each, no biases. Its pairs are number i and number i + width/2."""
    rows = "neighbours" if design.positions == "rotary_pairs" else ""
    entries = pair("model.embed_tokens", "embedding", kinds=WEIGHT)
    for i in range(design.n_layers):
        a, b = f"model.layers.{i}", f"blocks.{i}"
        for theirs, ours, order in (
            ("input_layernorm", "attention_norm", ""),
            ("self_attn.q_proj", "attention.q", rows),
            ("self_attn.k_proj", "attention.k", rows),
            ("self_attn.v_proj", "attention.v", ""),
            ("self_attn.o_proj", "attention.out", ""),
            ("post_attention_layernorm", "feed_forward_norm", ""),
            ("mlp.gate_proj", "feed_forward.gate", ""),
            ("mlp.up_proj", "feed_forward.up", ""),
            ("mlp.down_proj", "feed_forward.down", ""),
        ):
            entries += pair(f"{a}.{theirs}", f"{b}.{ours}", kinds=WEIGHT, rows=order)
    entries += pair("model.norm", "final_norm", kinds=WEIGHT)
    return entries if design.tied else entries + pair("lm_head", "head", kinds=WEIGHT)


def nanochat(design: Design) -> list[Entry]:
    """nanochat: norms without weights. Its angles are negative, as if halves were swapped."""
    entries = pair("model.embed_tokens", "embedding", kinds=WEIGHT)
    for i in range(design.n_layers):
        a, b = f"model.layers.{i}", f"blocks.{i}"
        for theirs, ours in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("o_proj", "out")):
            rows = "swapped" if ours in "qk" else ""
            mine = f"{b}.attention.{ours}"
            entries += pair(f"{a}.self_attn.{theirs}", mine, kinds=WEIGHT, rows=rows)
        entries += pair(f"{a}.mlp.fc1", f"{b}.feed_forward.up", kinds=WEIGHT)
        entries += pair(f"{a}.mlp.fc2", f"{b}.feed_forward.down", kinds=WEIGHT)
    return entries + pair("lm_head", "head", kinds=WEIGHT)


def bert(design: Design) -> list[Entry]:
    """BERT: the norm after each addition, three embeddings, and a head of its own if it has one."""
    start = "bert." if design.head == "masked" else ""
    entries = []
    for theirs, ours in (
        ("word", "embedding"),
        ("position", "position"),
        ("token_type", "segment"),
    ):
        entries += pair(f"{start}embeddings.{theirs}_embeddings", ours, kinds=WEIGHT)
    entries += pair(f"{start}embeddings.LayerNorm", "embed_norm")
    for i in range(design.n_layers):
        a, b = f"{start}encoder.layer.{i}", f"blocks.{i}"
        for theirs, ours in (
            ("attention.self.query", "attention.q"),
            ("attention.self.key", "attention.k"),
            ("attention.self.value", "attention.v"),
            ("attention.output.dense", "attention.out"),
            ("attention.output.LayerNorm", "attention_norm"),
            ("intermediate.dense", "feed_forward.up"),
            ("output.dense", "feed_forward.down"),
            ("output.LayerNorm", "feed_forward_norm"),
        ):
            entries += pair(f"{a}.{theirs}", f"{b}.{ours}")
    if design.head == "masked":
        entries += pair("cls.predictions.transform.dense", "head.dense")
        entries += pair("cls.predictions.transform.LayerNorm", "head.norm")
        entries.append(Entry("cls.predictions.bias", ("head.words.bias",)))
    return entries


def fast(design: Design) -> list[Entry]:
    """The decoder of `transformer.py`: queries, keys and values in one packed matrix."""
    entries = pair("embedding", "embedding", kinds=WEIGHT)
    for i in range(design.n_layers):
        a = f"blocks.{i}"
        qkv = [f"{a}.attention.{name}" for name in "qkv"]
        entries += pair(f"{a}.attention.qkv", *qkv, kinds=WEIGHT)
        for name in ("attention.out", "feed_forward.up", "feed_forward.down"):
            entries += pair(f"{a}.{name}", f"{a}.{name}", kinds=WEIGHT)
    return entries + pair("head", "head", kinds=WEIGHT)


LAYOUTS: dict[str, Callable[[Design], list[Entry]]] = {
    "gpt2": gpt2,
    "llama": llama,
    "nanochat": nanochat,
    "bert": bert,
}
