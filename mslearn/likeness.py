"""Words by their vectors: neighbours, analogies, and whether neighbours share a topic."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mslearn.documents import Document
from mslearn.vocabulary import Vocabulary, words

# Pairs that an encyclopaedia may know, of our own making; those with a word that the vocabulary
# lacks are left out and counted.
PAIRS = {
    "capital": """france paris, germany berlin, italy rome, spain madrid, portugal lisbon,
        england london, russia moscow, china beijing, japan tokyo, egypt cairo, greece athens,
        turkey ankara, iran tehran, iraq baghdad, poland warsaw, austria vienna, hungary budapest,
        sweden stockholm, norway oslo, denmark copenhagen, ireland dublin, india delhi,
        cuba havana, syria damascus, lebanon beirut, ukraine kyiv, belgium brussels,
        netherlands amsterdam, canada ottawa, philippines manila, indonesia jakarta""",
    "nationality": """france french, germany german, italy italian, spain spanish,
        portugal portuguese, england english, russia russian, china chinese, japan japanese,
        egypt egyptian, greece greek, turkey turkish, iran iranian, poland polish,
        austria austrian, hungary hungarian, sweden swedish, norway norwegian, denmark danish,
        ireland irish, india indian, mexico mexican, brazil brazilian, canada canadian,
        australia australian, korea korean, scotland scottish, netherlands dutch, europe european,
        america american, africa african, asia asian""",
    "plural": """city cities, country countries, war wars, river rivers, animal animals,
        plant plants, king kings, book books, language languages, island islands, star stars,
        cell cells, number numbers, system systems, state states, film films, song songs,
        game games, player players, bird birds, mountain mountains, planet planets,
        church churches, element elements, acid acids, theory theories, artist artists,
        writer writers, school schools, metal metals, disease diseases""",
    "past": """is was, are were, has had, become became, begin began, write wrote, take took,
        give gave, lead led, win won, make made, find found, know knew, come came, see saw,
        build built, hold held, include included, use used, produce produced, play played""",
    "gender": """he she, his her, man woman, men women, king queen, father mother, son daughter,
        brother sister, husband wife, actor actress, god goddess, prince princess, male female,
        boy girl, boys girls, sons daughters, brothers sisters, himself herself, emperor empress""",
    "degree": """large larger, small smaller, great greater, high higher, low lower, long longer,
        short shorter, old older, young younger, early earlier, late later, strong stronger""",
}


@dataclass(frozen=True)
class Space:
    """The words of a vocabulary, each with its vector."""

    vocabulary: Vocabulary
    table: Float[Tensor, "words d"]

    @cached_property
    def unit(self) -> Float[Tensor, "words d"]:
        """The vectors at length 1: a product of two is the cosine of their angle."""
        return F.normalize(self.table.double())

    def neighbours(self, word: str, n: int = 8) -> list[tuple[str, float]]:
        """The n words with the greatest cosine to `word`, and these cosines."""
        number = self.vocabulary.number(word)
        return self._best(self.unit @ self.unit[number], [number], n)

    def analogy(self, a: str, b: str, c: str, n: int = 5) -> list[tuple[str, float]]:
        """What is to `c` as `b` is to `a`: the words nearest to b − a + c, the three left out."""
        numbers = [self.vocabulary.number(word) for word in (a, b, c)]
        first, second, third = self.unit[numbers]
        target = F.normalize(second - first + third, dim=0)
        return self._best(self.unit @ target, numbers, n)

    def _best(self, cosines: Tensor, left_out: list[int], n: int) -> list[tuple[str, float]]:
        cosines[left_out] = -torch.inf
        values, found = cosines.topk(min(n, len(cosines) - len(left_out)))
        names = [self.vocabulary.names[i] for i in found.tolist()]
        return list(zip(names, values.tolist(), strict=True))

    def analogies(self, kind: str, offset: bool = True) -> Float[np.ndarray, " pairs"]:
        """For each pair of a kind, the share of the other pairs from which it is found.

        Without the offset the answer is the word nearest to c: what the analogy has to beat.
        """
        pairs = torch.tensor([[self.vocabulary.number(w) for w in p] for p in self.pairs(kind)])
        a, b = (self.unit[column] for column in pairs.T)  # (P, d) each
        queries = a + offset * (b - a)[:, None]  # (P, P, d): pair i asked of pair j
        cosines = queries @ self.unit.T
        n = len(pairs)
        for i in range(n):  # none of the three words given may be the answer
            cosines[i, :, pairs[i]] = -torch.inf
            cosines[:, i, pairs[i, 0]] = -torch.inf
        right = (cosines.argmax(-1) == pairs[:, 1]).double().fill_diagonal_(0)
        return (right.sum(0) / (n - 1)).numpy()

    def pairs(self, kind: str) -> list[tuple[str, str]]:
        """The pairs of a kind with both words in the vocabulary."""
        if kind not in PAIRS:
            raise ValueError(f"no pairs {kind!r}: choose one of {', '.join(PAIRS)}")
        split = [tuple(pair.split()) for pair in PAIRS[kind].split(",")]
        return [pair for pair in split if all(word in self.vocabulary for word in pair)]

    def purity(self, topics: Mapping[str, str], n: int = 5) -> Float[np.ndarray, " words"]:
        """Of each word's n nearest among the words of `topics`, the share with its own topic."""
        chosen = self.unit[[self.vocabulary.number(word) for word in topics]]
        names = list(topics.values())
        numbers = torch.tensor([sorted(set(names)).index(name) for name in names])
        nearest = (chosen @ chosen.T).fill_diagonal_(-torch.inf).topk(n).indices  # (words, n)
        return (numbers[nearest] == numbers[:, None]).double().mean(1).numpy()


def titles(documents: Iterable[Document], vocabulary: Vocabulary) -> dict[str, str]:
    """Words that are the title of a labelled article, each with that article's topic."""
    found = {}
    for document in documents:
        name = (document.title or "").lower()
        if document.label and words(name) == [name] and name in vocabulary:
            found.setdefault(name, document.label)
    return found


def chance_purity(topics: Mapping[str, str]) -> float:
    """The purity of neighbours drawn at random."""
    names = list(topics.values())
    sizes = np.array([names.count(name) for name in set(names)])
    return float((sizes * (sizes - 1)).sum() / (len(names) * (len(names) - 1)))
