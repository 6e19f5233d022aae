"""What a tokeniser costs to train and to use, here and in the Rust of the `tokenizers` library."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mslearn import data
from mslearn.bpe import BPE
from mslearn.pairs import Paired, measure_pairs

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def megabyte(n_bytes: int = 1_000_000) -> list[str]:
    """Wikipedia leads from the beginning of the training split, `n_bytes` of them or a little more.

    Raises ValueError where the split holds less.
    """
    texts: list[str] = []
    for document in data.load("wiki").split("train"):
        if n_bytes <= 0:
            return texts
        texts.append(document.text)
        n_bytes -= len(document.text.encode())
    raise ValueError(f"the training split is {n_bytes:,} bytes short; ask for fewer")


@contextmanager
def one_thread() -> Iterator[None]:
    """The library on one thread, as ours is."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        os.environ.pop("TOKENIZERS_PARALLELISM")
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def trained_by_the_library(
    texts: list[str], vocab_size: int, special: tuple[str, ...] = ("<|end|>",)
) -> "Tokenizer":
    """A byte-level BPE of the `tokenizers` library with the settings that ours has built in."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def bpe(pairs: int = 5, n_bytes: int = 1_000_000, vocab_size: int = 2048) -> dict[str, Any]:
    """How many times the library's time ours takes: to train, and to encode the same text.

    Both on one thread, in turn, by the processor's own time. Every encoding of ours starts with an
    empty memory of words.
    """
    texts = megabyte(n_bytes)
    ours, theirs = BPE.train(texts, vocab_size), trained_by_the_library(texts, vocab_size)
    with one_thread():
        training = measure_pairs(
            lambda: trained_by_the_library(texts, vocab_size),
            lambda: BPE.train(texts, vocab_size),
            pairs,
            time.process_time,
        )
        encoding = measure_pairs(
            lambda: theirs.encode_batch(texts),
            lambda: BPE(ours.tokens, ours.merges, ours.special).encode_batch(texts),
            pairs,
            time.process_time,
        )
    return {
        **_summary("training", training),
        **_summary("encoding", encoding),
        "bytes": sum(len(text.encode()) for text in texts),
        "vocabulary": vocab_size,
        "runs": f"median of {pairs} pairs, in turn, processor time of one thread",
    }


def _summary(what: str, paired: Paired) -> dict[str, Any]:
    """Ours in times of the library's: `Paired.ratio` is how many times faster the second is."""
    low, high = paired.spread
    return {
        f"{what}_ratio": 1 / paired.ratio,
        f"{what}_spread": (1 / high, 1 / low),
        f"{what}_seconds": statistics.median(paired.second),
        f"{what}_seconds_library": statistics.median(paired.first),
    }
