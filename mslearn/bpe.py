"""Byte-level BPE: text to token ids and back, lossless on anything.

Ids are those of the `tokenizers` library, and it reads and writes the same file.
"""

import heapq
import json
from collections.abc import Iterable
from pathlib import Path

import regex

from mslearn.merges import WORDS, Pair, count_words, learn, to_bytes

CACHED_WORDS = 1_000_000  # about 180 MB of English words


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte, 0 to 255, in files (GPT-2's choice).

    A byte that prints in Latin-1 stands for itself; the other 68 take the characters from U+0100.
    """
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in prints else next(spare)) for byte in range(256)]


SYMBOLS = byte_symbols()
BYTES = {symbol: byte for byte, symbol in enumerate(SYMBOLS)}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
OTHER_KINDS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")


class BPE:
    """A trained tokeniser. `tokens[id]` is what an id stands for, in bytes.

    `merges` holds pairs of ids, first learned first; `special` maps special tokens to ids. A
    trained tokeniser has the special tokens at 0, 1, ..., then the 256 bytes in the order of
    their printable characters, then one new symbol for each merge.
    """

    def __init__(self, tokens: list[bytes], merges: list[Pair], special: dict[str, int]) -> None:
        self.tokens, self.merges, self.special = tokens, merges, special
        reserved = set(special.values())
        self._ids = {token: i for i, token in enumerate(tokens) if i not in reserved}
        self._rules = {
            (a, b): (rank, self._ids[tokens[a] + tokens[b]]) for rank, (a, b) in enumerate(merges)
        }
        self._byte_ids = [self._ids[bytes([byte])] for byte in range(256)]
        self._cache: dict[str, list[int]] = {}
        longest_first = sorted(special, key=len, reverse=True)
        self._special_pattern = regex.compile("|".join(map(regex.escape, longest_first)) or "(?!)")

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int = 2048, special: tuple[str, ...] = ("<|end|>",)
    ) -> "BPE":
        """Learn `vocab_size` symbols from texts, read once; memory grows with distinct words only.

        A tie goes to the pair with the smaller ids. The vocabulary stays smaller when the text
        runs out of pairs. Raises ValueError for a vocabulary too small for bytes and special
        tokens, a special token that ordinary text could become, or a corpus with nothing in it.
        """
        _check_sizes(vocab_size, special)
        counts = count_words(texts)
        tokens = [text.encode() for text in special]
        tokens += [bytes([BYTES[symbol]]) for symbol in sorted(SYMBOLS)]
        byte_ids = [len(special) + sorted(SYMBOLS).index(symbol) for symbol in SYMBOLS]
        merges = learn(counts, byte_ids, tokens, vocab_size)
        return cls(tokens, merges, {text: i for i, text in enumerate(special)})

    @property
    def vocab_size(self) -> int:
        """Number of ids: special tokens, 256 bytes and merged symbols."""
        return len(self.tokens)

    @property
    def end(self) -> int:
        """The id of the first special token, which ends a document."""
        if not self.special:
            raise ValueError('no special token ends a document; train with special=("<|end|>",)')
        return next(iter(self.special.values()))

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of a text. "<|end|>" in it is ordinary text unless `allow_special`.

        Half a surrogate pair is no character and raises ValueError.
        """
        if not allow_special:
            return self._encode_ordinary(text)
        ids, start = [], 0
        for found in self._special_pattern.finditer(text):
            ids += self._encode_ordinary(text[start : found.start()])
            ids.append(self.special[found.group()])
            start = found.end()
        return ids + self._encode_ordinary(text[start:])

    def encode_bytes(self, data: bytes) -> list[int]:
        """Token ids of any bytes, UTF-8 or not; `decode_bytes` gives them back."""
        # A byte that is no UTF-8 travels as a lone surrogate, which `to_bytes` turns back.
        return self._encode_ordinary(data.decode("utf-8", "surrogateescape"))

    def encode_batch(self, texts: Iterable[str], allow_special: bool = False) -> list[list[int]]:
        """Token ids of each text."""
        return [self.encode(text, allow_special) for text in texts]

    def _encode_ordinary(self, text: str) -> list[int]:
        """Words repeat, so each is merged once and looked up afterwards."""
        ids, cache = [], self._cache
        if len(cache) > CACHED_WORDS:
            cache.clear()
        for word in WORDS.findall(text):
            known = cache.get(word)
            if known is None:
                known = cache[word] = self._merge_word(word)
            ids += known
        return ids

    def _merge_word(self, word: str) -> list[int]:
        """Apply the earliest learned merge, leftmost first, until none is left.

        The heap holds (rank, position, new id) of the pairs that can merge, so that a word of n
        bytes costs n log n; `after[i]` and `before[i]` link the symbols that remain.
        """
        ids, rules = [self._byte_ids[byte] for byte in to_bytes(word)], self._rules
        n = len(ids)
        before, after = list(range(-1, n)), list(range(1, n + 1))
        heap: list[tuple[int, int, int]] = []

        def offer(i: int) -> None:
            if i >= 0 and after[i] < n and (rule := rules.get((ids[i], ids[after[i]]))):
                heapq.heappush(heap, (rule[0], i, rule[1]))

        for i in range(n):
            offer(i)
        while heap:
            _, i, new = heapq.heappop(heap)
            j = after[i]
            if j >= n or rules.get((ids[i], ids[j]), (0, -1))[1] != new:
                continue  # one of the two was merged with its other neighbour in the meantime
            ids[i], ids[j] = new, -1
            after[i] = after[j]
            before[after[j]] = i
            offer(before[i])
            offer(i)
        return [i for i in ids if i >= 0]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ids stand for, special tokens as their text."""
        ids = [int(i) for i in ids]
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise ValueError(f"token id {wrong} is not in 0 to {self.vocab_size - 1}")
        return b"".join([self.tokens[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; a character cut in half shows as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def pieces(self, text: str) -> list[str]:
        """The text cut at its token boundaries; bytes of a cut character show as \\xe4."""
        return [self.tokens[i].decode("utf-8", "backslashreplace") for i in self.encode(text)]

    def save(self, path: Path | str) -> None:
        """Write the JSON file that `tokenizers.Tokenizer.from_file` and `load` read."""
        names = ["".join(SYMBOLS[byte] for byte in token) for token in self.tokens]
        names = {i: name for i, name in enumerate(names)} | {i: t for t, i in self.special.items()}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        byte_level = {**BYTE_LEVEL, "trim_offsets": True}
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": i, "content": text, **flags, "special": True}
                for text, i in self.special.items()
            ],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "vocab": {name: i for i, name in names.items()},
                "merges": [[names[a], names[b]] for a, b in self.merges],
            },
        }
        Path(path).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "BPE":
        """Read a byte-level BPE from such a file; ValueError where it holds something else."""
        try:
            return cls(*_parse(json.loads(Path(path).read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a byte-level BPE in the JSON format of the tokenizers library "
                f"({type(error).__name__}: {error}); write one with BPE.save"
            ) from error

    def __repr__(self) -> str:
        return (
            f"BPE(vocab_size={self.vocab_size}, merges={len(self.merges)}, "
            f"special={tuple(self.special)})"
        )


def _parse(content: dict) -> tuple[list[bytes], list[Pair], dict[str, int]]:
    """Tokens, merges and special tokens of a file; one that would encode otherwise is refused."""
    model = content["model"]
    if not BYTE_LEVEL.items() <= content["pre_tokenizer"].items():
        raise ValueError("its words are not cut as GPT-2 cuts them")
    if content.get("normalizer") or any(model.get(option) for option in OTHER_KINDS):
        raise ValueError(f"it changes the text first, or sets one of {', '.join(OTHER_KINDS)}")
    vocab = model["vocab"]
    special = {token["content"]: token["id"] for token in content["added_tokens"]}
    names = {i: name for name, i in (vocab | special).items()}
    tokens = [
        names[i].encode() if names[i] in special else bytes(BYTES[symbol] for symbol in names[i])
        for i in range(len(names))
    ]
    # Older files write a merge as one string.
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return tokens, [(vocab[a], vocab[b]) for a, b in pairs], special


def _check_sizes(vocab_size: int, special: tuple[str, ...]) -> None:
    if len(set(special)) < len(special):
        raise ValueError(f"special tokens must differ from one another, got {special}")
    for text in special:
        if len(WORDS.findall(text)) < 2:
            raise ValueError(
                f"special token {text!r} could be a word of the text; use one like '<|end|>'"
            )
    if vocab_size < 256 + len(special):
        raise ValueError(
            f"a vocabulary needs 256 bytes and {len(special)} special tokens, got "
            f"vocab_size={vocab_size}; ask for {256 + len(special)} or more"
        )
