"""Words that are frequent enough, a text in their numbers, and which of them stand together."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor


def words(text: str) -> list[str]:
    """The words of a text: its runs of letters, in lower case."""
    return re.findall(r"[^\W\d_]+", text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """Words that are frequent enough, the most frequent first, and how often each occurs."""

    names: tuple[str, ...]
    counts: Int[Tensor, " words"]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], min_count: int = 8) -> "Vocabulary":
        """The words that occur `min_count` times or more. Raises ValueError if there are none."""
        if min_count < 1:
            raise ValueError(f"min_count must be at least 1, got {min_count}")
        found = Counter(word for text in texts for word in text)
        if not found:
            raise ValueError("the texts hold no words; give texts as lists of words")
        kept = [(word, count) for word, count in found.most_common() if count >= min_count]
        if len(kept) < 2:
            word, most = found.most_common(1)[0]
            raise ValueError(
                f"min_count={min_count} leaves {len(kept)} of {len(found)} words, and vectors need "
                f"two or more; the most frequent, {word!r}, occurs {most} times: lower min_count"
            )
        names, counts = zip(*kept, strict=True)
        return cls(names, torch.tensor(counts))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, word: object) -> bool:
        return word in self.numbers

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.names)}

    def number(self, word: str) -> int:
        """The number of one word. Raises KeyError with the nearest spellings if it has none."""
        if word in self.numbers:
            return self.numbers[word]
        near = difflib.get_close_matches(word, self.names, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "no word is spelt like it"
        raise KeyError(f"{word!r} is not among the {len(self)} words: {hint}")


@dataclass(frozen=True)
class Text:
    """A text in words of a vocabulary: their numbers, and the document that each stands in.

    Words that the vocabulary lacks are left out, and their neighbours move together.
    """

    vocabulary: Vocabulary
    ids: Int[Tensor, " places"]
    documents: Int[Tensor, " places"]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], vocabulary: Vocabulary) -> "Text":
        """Number the words. Raises ValueError if none of them is in the vocabulary."""
        numbers = vocabulary.numbers
        known = [[numbers[word] for word in text if word in numbers] for text in texts]
        lengths = torch.tensor([len(text) for text in known])
        if not lengths.sum():
            raise ValueError(f"the texts hold none of the {len(vocabulary)} words of the list")
        ids = torch.tensor([number for text in known for number in text])
        return cls(vocabulary, ids, torch.repeat_interleave(torch.arange(len(known)), lengths))

    def thinned(self, threshold: float, generator: torch.Generator) -> "Text":
        """Leave out a place with a word of share f > t with probability 1 − √(t/f).

        Source: Mikolov et al. 2013, Distributed Representations, section 2.3.
        """
        if threshold <= 0:
            raise ValueError(f"the threshold is a share of the text above 0, got {threshold}")
        share = self.vocabulary.counts / self.vocabulary.counts.sum()
        keep = (threshold / share).sqrt().clamp(max=1)[self.ids]
        kept = torch.rand(len(self.ids), generator=generator) < keep
        return Text(self.vocabulary, self.ids[kept], self.documents[kept])

    def pairs(
        self, window: int, generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Each word with each other one at most `window` places away in the same document.

        With a generator, each place draws its own reach from 1 to `window`, as word2vec does.
        """
        check_window(window)
        places = len(self.ids)
        reach = torch.full((places,), window)
        if generator is not None:
            reach = torch.randint(1, window + 1, (places,), generator=generator)
        found = []
        for j in range(1, min(window, places - 1) + 1):
            left, right = self.ids[:-j], self.ids[j:]
            together = self.documents[:-j] == self.documents[j:]
            forth, back = together & (reach[:-j] >= j), together & (reach[j:] >= j)
            found += [torch.stack([left, right])[:, forth], torch.stack([right, left])[:, back]]
        words, contexts = torch.cat(found, 1) if found else torch.empty(2, 0, dtype=torch.int64)
        return words, contexts


def check_window(window: int) -> None:
    """Raise ValueError for a window that holds no pair."""
    if window < 1:
        raise ValueError(f"a window reaches 1 place or more, got {window}: there are no pairs")
