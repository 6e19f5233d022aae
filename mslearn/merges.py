"""What byte-level BPE learns: words are counted, then the commonest pair merges, again and again.

Sennrich et al. 2016 (1508.07909), on bytes as in GPT-2 (Radford et al. 2019).
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

import regex

# GPT-2's cut into words: English endings; letters, digits or signs, with the one space before
# them; white space. What it finds, put end to end, is the text.
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

Pair = tuple[int, int]


def to_bytes(word: str) -> bytes:
    """UTF-8, where U+DC80 to U+DCFF stand for single bytes that are none (Python's PEP 383).

    Half a surrogate pair besides these is no character and raises ValueError.
    """
    try:
        return word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{word[error.start]!a} is half a surrogate pair and no character; mend the text with "
            'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        ) from error


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs in texts, which are read once, one at a time."""
    if isinstance(texts, str):
        raise TypeError("texts must be an iterable of texts, got one text; pass [text]")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(WORDS.findall(text))
    if not counts:
        raise ValueError("the corpus is empty; pass at least one text with a character in it")
    return counts


def learn(counts: Counter[str], byte_ids: list[int], tokens: list[bytes], size: int) -> list[Pair]:
    """Merge the commonest pair until `tokens`, extended in place, holds `size`; returns the merges.

    `byte_ids[byte]` is the id to start from. A tie goes to the smaller pair of ids. To count
    anew after each merge would be to read every word `size` times. Instead a merge corrects the
    counts of the pairs it touches, in the words it touches: the heap holds (-count, pair, words).
    """
    words = [[byte_ids[byte] for byte in to_bytes(word)] for word in counts]
    frequency = list(counts.values())
    ids = {tokens[i]: i for i in byte_ids}
    pair_counts, heap = _count_pairs(words, frequency)
    merges: list[Pair] = []
    while heap and len(tokens) < size:
        count, pair, places = heapq.heappop(heap)
        if -count != pair_counts[pair]:  # merges since then took some away: queue again
            _push(heap, pair, pair_counts[pair], places)
            continue
        joined = tokens[pair[0]] + tokens[pair[1]]
        new = ids.setdefault(joined, len(tokens))  # a+bc and ab+c are one symbol
        if new == len(tokens):
            tokens.append(joined)
        merges.append(pair)
        grown: dict[Pair, set[int]] = defaultdict(set)
        for w in places:
            for changed, change in replace_pair(words[w], pair, new):
                pair_counts[changed] += change * frequency[w]
                if change > 0:
                    grown[changed].add(w)
        for changed, places in grown.items():
            _push(heap, changed, pair_counts[changed], places)
    return merges


Entry = tuple[int, Pair, set[int]]


def _push(heap: list[Entry], pair: Pair, count: int, places: set[int]) -> None:
    if count > 0:
        heapq.heappush(heap, (-count, pair, places))


def _count_pairs(
    words: list[list[int]], frequency: list[int]
) -> tuple[dict[Pair, int], list[Entry]]:
    """Count every pair of neighbours once, and queue it with the words it is in."""
    pair_counts: dict[Pair, int] = defaultdict(int)
    places: dict[Pair, set[int]] = defaultdict(set)
    for w, symbols in enumerate(words):
        for pair in pairwise(symbols):
            pair_counts[pair] += frequency[w]
            places[pair].add(w)
    heap: list[Entry] = []
    for pair, count in pair_counts.items():
        _push(heap, pair, count, places[pair])
    return pair_counts, heap


def replace_pair(symbols: list[int], pair: Pair, new: int) -> list[tuple[Pair, int]]:
    """Put `new` for every `pair` in one word, in place; returns the changes to pair counts.

    >>> word = [7, 1, 2]
    >>> replace_pair(word, (1, 2), 9), word
    ([((7, 1), -1), ((7, 9), 1)], [7, 9])
    """
    first, second = pair
    changes: list[tuple[Pair, int]] = []
    i = 0
    while i < len(symbols) - 1:
        if symbols[i] == first and symbols[i + 1] == second:
            symbols[i : i + 2] = [new]
            if i > 0:
                changes += [((symbols[i - 1], first), -1), ((symbols[i - 1], new), +1)]
            if i + 1 < len(symbols):
                changes += [((second, symbols[i + 1]), -1), ((new, symbols[i + 1]), +1)]
        i += 1
    return changes
