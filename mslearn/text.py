"""Text before tokens: a file read in pieces, stop words, stems, and what their removal loses."""

import codecs
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import regex

from mslearn.merges import WORDS

# The last place at which no pattern of GPT-2's cut reaches across: before a white space that a
# visible character follows.
BETWEEN_WORDS = regex.compile(r"(?r)\s(?=\S)")
VOWELS = "aeiouy"
ENDINGS = (
    ("fulness", "ful"), ("ousness", "ous"), ("iveness", "ive"), ("ational", "ate"),
    ("ization", "ize"), ("isation", "ise"), ("ation", "ate"), ("ingly", "ing"), ("ness", ""),
    ("ment", ""), ("ies", "y"), ("ied", "y"), ("ily", "y"), ("sses", "ss"), ("ing", ""),
    ("edly", ""), ("ed", ""), ("ly", ""), ("ers", "er"), ("es", "e"), ("s", ""),
)  # fmt: skip
"""What `stem` takes off and puts in its place, tried in this order."""


def stream(path: Path | str, size: int = 1 << 16) -> Iterator[str]:
    """The text of a UTF-8 file in pieces of about `size` bytes; memory does not grow with the file.

    The pieces are cut between words, so that counting words in them is counting in the whole. Text
    with no white space between words comes as one piece. Raises ValueError, with the place, for
    a byte that is not UTF-8.
    """
    decoder, rest, done = codecs.getincrementaldecoder("utf-8-sig")(), "", 0
    with Path(path).open("rb") as file:
        while raw := file.read(size):
            searched = max(1, len(rest) - 1)  # it was searched when it came
            rest += _decode(decoder, raw, path, done)
            done += len(raw)
            if found := BETWEEN_WORDS.search(rest, searched):
                yield rest[: found.start()]
                rest = rest[found.start() :]
    rest += _decode(decoder, b"", path, done)
    if rest:
        yield rest


def _decode(decoder: codecs.IncrementalDecoder, raw: bytes, path: Path | str, done: int) -> str:
    kept = decoder.getstate()[0]
    try:
        return decoder.decode(raw, final=not raw)
    except UnicodeDecodeError as error:
        place = done - len(kept) + error.start
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at byte {place:,} "
            "begins no character; convert it first, such as "
            'path.write_text(path.read_text("cp1252"), "utf-8") if it is Windows-1252'
        ) from error


def stop_words(*collections: Iterable[str], count: int = 60) -> frozenset[str]:
    """The `count` words, in lower case, that are commonest in every one of the collections.

    A word counts by the least of its shares: "city" is common in an encyclopaedia alone, "of"
    everywhere. Raises ValueError where the collections share fewer words.
    """
    shares = []
    for texts in collections:
        counts = Counter(unit.strip().lower() for text in texts for unit in WORDS.findall(text))
        total = counts.total()
        shares.append({word: n / total for word, n in counts.items() if word.isalpha()})
    shared = set.intersection(*map(set, shares)) if shares else set()
    if len(shared) < count:
        raise ValueError(f"asked for {count} stop words, but the texts share {len(shared)} words")
    common = sorted(shared, key=lambda word: (-min(each[word] for each in shares), word))
    return frozenset(common[:count])


def stem(word: str) -> str:
    """An English word without its ending: a short suffix stripper in the manner of Porter (1980).

    One ending comes off if three letters with a vowel among them are left, then a doubled
    consonant is halved and a final e dropped. It knows no exceptions: `stem("news") == "new"`.
    """
    lower = word.lower()
    for ending, instead in ENDINGS:
        left = lower[: len(lower) - len(ending)]
        if lower.endswith(ending) and len(left) >= 3 and any(c in VOWELS for c in left):
            if ending == "s" and left[-1] in "sui":  # glass, bus, this
                continue
            word = word[: len(left)] + instead
            if not instead and ending != "s" and word[-1:] == word[-2:-1] not in ("l", "s", "z"):
                word = word[:-1]  # running, run
            break
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def is_stop_word(form: str, stop: Collection[str]) -> bool:
    """Whether a word as it stands in a text, perhaps with a space before it, is in the list."""
    return form.strip().lower() in stop


class Reduced(NamedTuple):
    """One place of a text: the words dropped before it, what stands there, and what stood there.

    The last place of a text stands for nothing but the words dropped at its end: both are empty.
    """

    dropped: tuple[str, ...]
    kept: str
    form: str


def reduce(text: str, stop: Collection[str] = (), stemmed: bool = False) -> list[Reduced]:
    """Drop stop words, each with the space before it, and stem the rest; nothing is forgotten.

    `"".join(place.kept for place in reduce(...))` is the reduced text, `restore` the whole one.
    """
    places, dropped = [], []
    for form in WORDS.findall(text):
        if is_stop_word(form, stop):
            dropped.append(form)
            continue
        space = form[: len(form) - len(form.lstrip())]
        kept = space + stem(form.lstrip()) if stemmed else form
        places.append(Reduced(tuple(dropped), kept, form))
        dropped = []
    return [*places, Reduced(tuple(dropped), "", "")]


def restore(places: Iterable[Reduced]) -> str:
    """The text that `reduce` took apart."""
    return "".join("".join(place.dropped) + place.form for place in places)
