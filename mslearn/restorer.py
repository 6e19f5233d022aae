"""What brings a reduced text back: counted probabilities of its dropped words and lost endings."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from mslearn.text import Reduced

# Imagined observations that a more general count is worth to a more special one: a stem has few
# forms, so that its own count soon says most.
STRENGTHS = {"word": 10.0, "form": 2.0}
END = ""  # no further word was dropped here


class Backoff:
    """Counted probabilities of a symbol in contexts from general to special.

    p(x | c) = (n(c, x) + k p(x | the next more general c)) / (n(c) + k), and before all contexts
    a probability for symbols never met: one imagined observation, spelled with 8 bits a byte.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.pairs: Counter[tuple] = Counter()
        self.totals: Counter[tuple] = Counter()
        self.symbols: Counter[str] = Counter()

    def learn(self, symbol: str, contexts: tuple[tuple, ...]) -> None:
        """One more observation of `symbol` in all of its contexts."""
        self.symbols[symbol] += 1
        for context in contexts:
            self.pairs[context, symbol] += 1
            self.totals[context] += 1

    def p(self, symbol: str, contexts: tuple[tuple, ...]) -> float:
        """The probability of a symbol; over all strings these sum to at most 1."""
        total = self.symbols.total() + 1
        spelled = 2.0 ** (-8 * (len(symbol.encode()) + 1))  # its bytes and the sign of their end
        p = (self.symbols[symbol] + spelled) / total
        for context in contexts:
            counted = self.pairs[context, symbol] + self.strength * p
            p = counted / (self.totals[context] + self.strength)
        return p


def questions(places: Iterable[Reduced]) -> Iterator[tuple[str, str, tuple[tuple, ...]]]:
    """What has to be guessed to bring a text back, in order: kind, answer, contexts.

    Before each place, the dropped words one by one and an end; then the form of what was kept.
    The unit before is known by then, and what was kept next.
    """
    before = END
    for place in places:
        for dropped in (*place.dropped, END):
            yield "word", dropped, ((), (before,), (place.kept,), (before, place.kept))
            before = dropped or before
        if place.kept:
            stem, common = place.kept, len(place.kept)
            while not place.form.startswith(stem[:common]):
                common -= 1
            ending = f"{len(stem) - common}{place.form[common:]}"  # letters off, letters on
            yield "form", ending, ((), (before,), (stem,), (before, stem))
            before = place.form


class Restorer:
    """A counted model of the whole text given the reduced one."""

    def __init__(self, texts: Iterable[list[Reduced]]) -> None:
        self.models = {kind: Backoff(strength) for kind, strength in STRENGTHS.items()}
        for places in texts:
            for kind, answer, contexts in questions(places):
                self.models[kind].learn(answer, contexts)

    def charge(self, places: list[Reduced]) -> float:
        """Bits to bring one text back."""
        found = (self.models[kind].p(answer, c) for kind, answer, c in questions(places))
        return -sum(math.log2(p) for p in found)
