"""The experiment `cleaning`: stop words and stemming, for a language model and a bag of words.

A language model on a reduced text is charged for the whole: the bits of what is left, and the bits
that bring back what was dropped.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from mslearn import data
from mslearn.batches import Batches, Corpus, HeldOut
from mslearn.bpe import BPE
from mslearn.device import Device
from mslearn.generate import sample_text
from mslearn.labelled import Texts, bag_of_words, load_task
from mslearn.merges import WORDS
from mslearn.metrics import accuracy
from mslearn.optim import muon_and_adamw
from mslearn.restorer import Restorer
from mslearn.run import Run
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store
from mslearn.text import Reduced, is_stop_word, reduce, stop_words
from mslearn.transformer import Config, Transformer

VARIANTS = ("plain", "stemmed", "no stop words", "both")
VOCAB, CONTEXT, BATCH = 1024, 64, 16
WIDTH, LAYERS, LR, ADAM_LR = 96, 2, 0.04, 0.01
STEPS = 300
READ_PER_STEP = 5  # documents for a restorer, so that it reads about as much as the network
HELD_OUT = 200  # documents of the validation split
LABELS, DRAWS = (100, 400, 1600), 6
PROMPT = "London\nLondon"


@functools.cache
def common_words() -> frozenset[str]:
    """The stop words: what is common in an encyclopaedia, the Bible and film reviews alike."""
    sets = [data.load(name).split("train") for name in ("wiki", "bible", "movies")]
    return stop_words(*([each.text for each in documents] for documents in sets))


def places_of(variant: str, text: str) -> list[Reduced]:
    """The text as one variant sees it. Raises ValueError for an unknown variant."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    stop = common_words() if variant in ("no stop words", "both") else ()
    return reduce(text, stop, stemmed=variant in ("stemmed", "both"))


def kept_text(places: Iterable[Reduced]) -> str:
    """What is left of a text."""
    return "".join(place.kept for place in places)


@dataclass(frozen=True)
class Charge:
    """What a text of `n_bytes` lost, in `bits`."""

    bits: float
    n_bytes: int


@functools.cache
def restoring(variant: str, steps: int) -> Charge:
    """What the held-out texts lost in a variant; nothing where nothing was taken."""
    wiki = data.load("wiki")
    held_out = wiki.split("valid")[:HELD_OUT]
    n_bytes = sum(len(document.text.encode()) for document in held_out)
    if variant == "plain":
        return Charge(0.0, n_bytes)
    read = wiki.split("train")[: READ_PER_STEP * steps]
    restorer = Restorer(places_of(variant, document.text) for document in read)
    bits = sum(restorer.charge(places_of(variant, document.text)) for document in held_out)
    return Charge(bits, n_bytes)


@functools.cache
def corpus(variant: str) -> Corpus:
    """The Wikipedia leads of a variant as tokens of its own tokeniser."""
    wiki = data.load("wiki")
    texts = {
        split: [kept_text(places_of(variant, each.text)) for each in wiki.split(split)[:most]]
        for split, most in (("train", None), ("valid", HELD_OUT))
    }
    return Corpus.build(f"cleaning-{variant}", texts, BPE.train(texts["train"], VOCAB))


def language(variant: str, seed: int, steps: int, device: Device) -> dict:
    """One small transformer on one variant; bits per byte of what was left, and of the whole."""
    torch.manual_seed(seed)
    model = Transformer(Config(VOCAB, CONTEXT, LAYERS, n_heads=4, d_model=WIDTH))
    text = corpus(variant)
    run = Run(
        model,
        Batches(text.train, CONTEXT, BATCH, seed),
        muon_and_adamw(model, LR, ADAM_LR),
        schedule=warmup_stable_decay(LR, steps // 40, steps, 0.6),
        device=replace(device, amp_dtype=None),
    )
    for _ in run.train(steps):
        pass
    scores = charged(model.eval(), variant, steps, run.device)
    sample = sample_text(model, text.tokenizer, PROMPT, 60, temperature=0.7, seed=seed)
    return {**{name: round(value, 4) for name, value in scores.items()}, "sample": sample}


def charged(model: Transformer, variant: str, steps: int, device: Device) -> dict[str, float]:
    """Bits per byte: of what was `left` by its own bytes; the rest by those of the whole text.

    `kept` is what is left, `lost` what brings the rest back, `whole` their sum; `content` is the
    part of `kept` that goes to words that no variant drops.
    """
    text, lost = corpus(variant), restoring(variant, steps)
    held_out = HeldOut(text.valid, CONTEXT)
    with torch.no_grad():
        log_p = [
            model(device.to(x)).log_softmax(-1).gather(-1, device.to(y)[..., None]).flatten()
            for x, y in held_out.batches
        ]
    bits = -torch.cat(log_p).double().cpu() / math.log(2)  # of every token but the first
    content = ~stop_tokens(variant)[1 : len(bits) + 1]
    scale = text.valid.n_bytes / held_out.n_bytes / lost.n_bytes  # a rest shorter than a window
    kept, lost_each = float(bits.sum()) * scale, lost.bits / lost.n_bytes
    return {
        "left": float(bits.sum()) / held_out.n_bytes,
        "kept": kept,
        "content": float(bits[content].sum()) * scale,
        "lost": lost_each,
        "whole": kept + lost_each,
    }


def stop_tokens(variant: str) -> Bool[Tensor, " tokens"]:
    """For every token of the held-out text, whether it is one of a stop word."""
    tokenizer, stop, marks = corpus(variant).tokenizer, common_words(), []
    for document in data.load("wiki").split("valid")[:HELD_OUT]:
        for form in WORDS.findall(kept_text(places_of(variant, document.text))):
            marks += [is_stop_word(form, stop)] * len(tokenizer.encode(form))
        marks.append(False)  # the end of the document
    return torch.tensor(marks)


@functools.cache
def topic_texts(variant: str, split: str) -> Texts:
    """The labelled Wikipedia leads of a split, as a variant sees them."""
    texts = getattr(load_task("topics"), split)
    return replace(texts, texts=tuple(kept_text(places_of(variant, t)) for t in texts.texts))


def topics(variant: str, labels: int, seed: int) -> dict:
    """A bag of words on one variant, learnt from `labels` texts: share of test texts right."""
    train, valid, test = (topic_texts(variant, split) for split in data.SPLITS)
    found = bag_of_words("naive bayes", train.take(labels, seed), valid)
    return {"accuracy": round(accuracy(found.predict(test.texts), test.labels), 4)}


def experiment(store: Store, base: Path | None = None) -> None:
    """Every variant: a language model for each seed, and six draws of each number of labels.

    `base` is not used.
    """
    store.device = replace(store.device, amp_dtype=None)  # so small a product gains nothing by less
    texts = {name: data.load(name).sha256[:16] for name in ("wiki", "bible", "movies")}
    sizes = {"batch": BATCH, "vocab": VOCAB, "width": WIDTH, "layers": LAYERS}
    for variant in VARIANTS:
        for seed in store.seeds:
            work = functools.partial(language, variant, seed, STEPS, store.device)
            settings = {"texts": texts, "steps": STEPS, **sizes}
            store.cell(f"language/{variant}/{seed}", settings, work)
    for labels in LABELS:
        for variant in VARIANTS:
            for seed in range(DRAWS):
                work = functools.partial(topics, variant, labels, seed)
                store.cell(f"topics/{labels}/{variant}/{seed}", {"texts": texts}, work)
