"""Chapter 1: every equation holds in float64, its wrong versions do not; no text is ever lost."""

import itertools
import json
import math
import random
import re
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger import Definition, Formula, Property, prove
from sklearn.naive_bayes import MultinomialNB
from torch import Tensor
from torch.distributions import Categorical

from mslearn import bench_bpe, cleaning, data
from mslearn.bpe import BPE
from mslearn.device import Device
from mslearn.experiments import load_result
from mslearn.merges import WORDS, replace_pair
from mslearn.pieces import Pieces
from mslearn.restorer import Backoff, Restorer, questions
from mslearn.text import ENDINGS, reduce, restore, stem, stop_words, stream

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "01_text_and_tokens.ipynb"
CPU = Device("cpu", "test", None)
Counts = Counter[int]


def code_points(g: torch.Generator) -> tuple[Tensor]:
    """Points of every length in UTF-8, the borders among them, without surrogates."""
    drawn = [
        torch.randint(low, high, (5,), generator=g)
        for low, high in ((0, 128), (128, 2048), (2048, 0xD800), (0xE000, 65536), (65536, 0x110000))
    ]
    borders = torch.tensor([0, 127, 128, 2047, 2048, 65535, 65536, 0x10FFFF])
    return (torch.cat([*drawn, borders]),)


def three_bytes(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of three bytes, and the bytes (points, 3)."""
    points = torch.randint(2048, 0xD800, (20,), generator=g)
    return points, torch.tensor([list(chr(c).encode()) for c in points.tolist()])


def copied(g: torch.Generator) -> tuple[float, int]:
    """A share of training and a number of copies."""
    return float(torch.rand((), generator=g)), int(torch.randint(1, 6, (), generator=g))


def seen_by_listing(s: float, d: int) -> float:
    """Probability, over all outcomes of the other coins, that one of them says training."""
    outcomes = itertools.product([True, False], repeat=d - 1)
    return sum(math.prod(s if c else 1 - s for c in coins) for coins in outcomes if any(coins))


def graded(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Whether each of twelve test texts was seen, and whether the model is right where not."""
    return torch.rand(12, generator=g) < 0.6, torch.rand(12, generator=g) < 0.5


def reported(seen: Tensor, right: Tensor, wrong: bool = False) -> Tensor:
    """(1.4), with the honest accuracy taken over the texts that were not seen."""
    p = seen.double().mean()
    a = right[~seen].double().mean() if (~seen).any() else torch.zeros((), dtype=torch.float64)
    return p + a if wrong else p + (1 - p) * a


def some_tokens(g: torch.Generator, kinds: int = 5, n: int = 60) -> tuple[list[int]]:
    """A sequence in which every kind occurs."""
    drawn = torch.randint(kinds, (n,), generator=g).tolist()
    return ([*range(kinds), *drawn],)


def left_out(words: list[int]) -> float:
    """The share of places whose word is nowhere else."""
    return sum(words[i] not in words[:i] + words[i + 1 :] for i in range(len(words))) / len(words)


def rare_words(g: torch.Generator) -> tuple[list[int]]:
    return ((torch.rand(40, generator=g).pow(2) * 40).long().tolist(),)


def sizes(g: torch.Generator) -> tuple[float, float, float]:
    """Bytes, tokens, words."""
    return tuple((torch.rand(3, generator=g, dtype=torch.float64) * 1000 + 1).tolist())


def merged(tokens: list[int], a: int = 0, b: int = 1, new: int = 9) -> list[int]:
    """The sequence with `new` for every a b, from the left, by another way than the package."""
    found = re.sub(rf"(?<!\d){a} {b}(?!\d)", str(new), " ".join(map(str, tokens)))
    return [int(token) for token in found.split()]


def replaced(tokens: list[int]) -> int:
    return merged(tokens).count(9)


def code(tokens: list[int]) -> float:
    """Bits of a sequence by the frequencies of its own tokens, from torch's distributions."""
    counts = torch.bincount(torch.tensor(tokens)).double()
    at = torch.tensor(tokens)
    return float(-Categorical(counts / counts.sum()).log_prob(at).sum() / math.log(2))


def f(x: float) -> float:
    return x * math.log2(x) if x else 0.0


def exact_change(tokens: list[int], slip: str = "") -> float:
    """(1.17) for the merge of 0 and 1; `slip` names what a wrong version leaves out."""
    n, a, b, m = len(tokens), tokens.count(0), tokens.count(1), replaced(tokens)
    change = (f(n - m) - f(n)) * (slip != "length")
    change -= f(a - m) - f(a)
    change -= (f(b - m) - f(b)) * (slip != "second")
    return change + f(m) if slip == "sign" else change - f(m)


def check_approximation(formula) -> None:
    """Against (1.17): the error vanishes beside m as the pair becomes rare, at any ratio."""
    for ratio in (0.5, 1.5, 4.0, 20.0):
        errors = []
        for n in (1e6, 1e8, 1e10):
            a = b = n**0.75  # so that m is small beside both, and they beside n
            m = ratio * a * b / n
            exact = -(f(a - m) - f(a)) - (f(b - m) - f(b)) + f(n - m) - f(n) - f(m)
            errors.append(abs(formula(m, n, a, b) - exact) / m)
        assert errors[2] < errors[1] < errors[0] and errors[2] < 0.1, (ratio, errors)


def check_changes(delta) -> None:
    """The changes named, added up over the places of a merge, are those of counting anew."""
    for seed in range(20):
        rng = random.Random(seed)
        tokens = [rng.randrange(2, 6) for _ in range(30)]
        for place in sorted(rng.sample(range(3, 27, 4), 3)):  # apart, so that none touch
            tokens[place : place + 2] = [0, 1]
        found, at = Counter(pairwise(tokens)), [i for i in range(29) if tokens[i : i + 2] == [0, 1]]
        for i in at:
            for pair, change in delta(tokens[i - 1], 0, 1, tokens[i + 2], 9).items():
                found[pair] += change
        assert {p: n for p, n in found.items() if n} == Counter(pairwise(merged(tokens)))


def changes(x: int, a: int, b: int, y: int, c: int) -> Counts:
    delta = Counter({(a, b): -1})
    for pair, change in (((x, a), -1), ((b, y), -1), ((x, c), 1), ((c, y), 1)):
        delta[pair] += change
    return delta


def without(pair: int):
    def delta(x, a, b, y, c):
        left_out = ((x, a), (a, b), (c, y))[pair]
        found = changes(x, a, b, y, c)
        found[left_out] = 0
        return found

    return delta


def check_taken(total) -> None:
    """Over a real training: the tokens taken away by each merge, added up."""
    for seed in range(5):
        rng = random.Random(seed)
        tokens, taken, n0 = [rng.randrange(4) for _ in range(400)], [], 400
        for new in range(4, 30):
            pair = Counter(pairwise(tokens)).most_common(1)[0][0]
            before = len(tokens)
            replace_pair(tokens, pair, new)
            taken.append(before - len(tokens))
        assert sum(taken) == total(n0, len(tokens), taken) and sum(taken) < n0


def check_runs(m) -> None:
    """Against replacing in a run of equal tokens."""
    for k in range(1, 30):
        run = [3] * k
        replace_pair(run, (3, 3), 7)
        assert run.count(7) == m(k), k


def flat(n: float, v: int) -> float:
    return n * math.log2(v)


def check_limit(limit) -> None:
    """The cost in bits on either side of the limit, counted."""
    for n, v in itertools.product((50, 1000, 12_345), (2, 20, 256, 5000)):
        at = limit(n, v)
        for m in (at * 0.999, at * 1.001):
            assert (flat(n - m, v + 1) < flat(n, v)) == (m > at), (n, v, m)


def check_enough(limit) -> None:
    """It is enough, and it is not wasteful: a few per cent less would not be, for large V."""
    for n, v in itertools.product((50, 1000, 12_345), (2, 20, 256, 5000)):
        at = limit(n, v)
        assert flat(n - at, v + 1) < flat(n, v)
        assert v < 20 or flat(n - 0.9 * at, v + 1) > flat(n, v)


def check_ways(bound) -> None:
    """A model of tokens a, b, ab: its probability of a text by listing every way to cut it."""
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        p = torch.rand(3, generator=g, dtype=torch.float64).softmax(0).tolist()
        p = dict(zip(("a", "b", "ab"), p, strict=True))
        text = "".join(random.Random(seed).choices("ab", k=7))
        ways = [
            cut
            for size in range(1, 8)
            for cut in itertools.product(p, repeat=size)
            if "".join(cut) == text
        ]
        total = sum(math.prod(p[t] for t in cut) for cut in ways)
        one = re.findall("ab|a|b", text)
        assert tuple(one) in ways
        assert bound(math.prod(p[t] for t in one), total)


def a_text(g: torch.Generator) -> tuple[Tensor, float]:
    """Bits of each of thirty tokens, and the bytes of the text."""
    return torch.rand(30, generator=g, dtype=torch.float64) * 9, 71.0


def a_map(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Probabilities of twelve texts, and which of four each is reduced to."""
    p = torch.rand(12, generator=g, dtype=torch.float64).softmax(0)
    return p, torch.cat([torch.arange(4), torch.randint(4, (8,), generator=g)])


def left(p: Tensor, to: Tensor) -> Tensor:
    """Probabilities of the reduced texts."""
    return torch.zeros(4, dtype=torch.float64).index_add(0, to, p)


def given_left(p: Tensor, to: Tensor) -> Tensor:
    """Probability of each text given what it is reduced to, from a joint table."""
    joint = torch.zeros(12, 4, dtype=torch.float64)
    joint[torch.arange(12), to] = p
    return (joint / joint.sum(0))[torch.arange(12), to]


def entropy(p: Tensor) -> Tensor:
    return Categorical(p).entropy() / math.log(2)


def check_backoff(p) -> None:
    """Sums to 1 in every context, is the counts alone at κ = 0, the general one without counts."""
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        counts = torch.randint(0, 5, (6,), generator=g).double()
        general = torch.rand(6, generator=g, dtype=torch.float64).softmax(0)
        for strength in (0.5, 3.0):
            assert torch.allclose(
                p(counts, general, strength).sum(), torch.ones((), dtype=torch.float64)
            )
        assert torch.allclose(p(torch.zeros(6).double(), general, 2.0), general)
        assert torch.allclose(p(counts + 1, general, 0.0), (counts + 1) / (counts + 1).sum())


def bags(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (texts, words), classes of those texts, and the bag of a new text."""
    counts = torch.randint(0, 4, (30, 7), generator=g)
    classes = torch.cat([torch.arange(3), torch.randint(3, (27,), generator=g)])
    return counts, classes, torch.randint(0, 4, (7,), generator=g)


def by_sklearn(counts: Tensor, classes: Tensor, bag: Tensor) -> Tensor:
    """Scores up to what all classes share."""
    model = MultinomialNB().fit(counts.numpy(), classes.numpy())
    found = torch.from_numpy(model.predict_log_proba(bag[None].numpy())[0]).double()
    return found - found[0]


def bayes(
    counts: Tensor, classes: Tensor, bag: Tensor, prior: bool = True, log: bool = True
) -> Tensor:
    """(1.24) with one added to each count."""
    scores = []
    for k in range(3):
        inside = counts[classes == k].sum(0).double() + 1
        p = inside / inside.sum()
        score = (bag * (p.log() if log else p)).sum()
        scores.append(score + (math.log((classes == k).double().mean()) if prior else 0))
    scores = torch.stack(scores)
    return scores - scores[0]


def check_idle_word(p_of) -> None:
    """A word equally likely in both classes: its count moves both scores by the same."""
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        p = torch.rand(2, 4, generator=g, dtype=torch.float64)
        p[:, 0] = p_of(torch.rand(2, generator=g, dtype=torch.float64))
        others = torch.randint(0, 5, (3,), generator=g)
        leads = [
            (p.log() * torch.tensor([count, *others.tolist()])).sum(1).diff()
            for count in (0, 1, 50)
        ]
        assert torch.allclose(leads[0], leads[1]) and torch.allclose(leads[0], leads[2])


LEDGER = {
    "1.1": Formula(
        code_points,
        page=lambda c: 1 + (c >= 128).long() + (c >= 2048) + (c >= 65536),
        oracle=lambda c: torch.tensor([len(chr(i).encode()) for i in c.tolist()]),
        mutants={
            "one bit more in two bytes": lambda c: (
                1 + (c >= 128).long() + (c >= 4096) + (c >= 65536)
            ),
            "border excluded": lambda c: 1 + (c > 128).long() + (c > 2048) + (c > 65536),
        },
    ),
    "1.2": Formula(
        three_bytes,
        page=lambda c, b: 64**2 * (b[:, 0] - 224) + 64 * (b[:, 1] - 128) + b[:, 2] - 128,
        oracle=lambda c, b: c,
        mutants={
            "first mark of two bytes": lambda c, b: (
                64**2 * (b[:, 0] - 192) + 64 * (b[:, 1] - 128) + b[:, 2] - 128
            ),
            "places of eight bits": lambda c, b: (
                256**2 * (b[:, 0] - 224) + 256 * (b[:, 1] - 128) + b[:, 2] - 128
            ),
        },
    ),
    "1.3": Formula(
        copied,
        page=lambda s, d: 1 - (1 - s) ** (d - 1),
        oracle=seen_by_listing,
        mutants={
            "itself counted": lambda s, d: 1 - (1 - s) ** d,
            "all in training": lambda s, d: s ** (d - 1),
        },
    ),
    "1.4": Formula(
        graded,
        page=reported,
        oracle=lambda seen, right: (seen | right).double().mean(),
        mutants={"seen twice": lambda seen, right: reported(seen, right, wrong=True)},
    ),
    "1.5": Formula(
        rare_words,
        page=lambda words: sum(n == 1 for n in Counter(words).values()) / len(words),
        oracle=left_out,
        mutants={
            "over kinds": lambda w: sum(n == 1 for n in Counter(w).values()) / len(set(w)),
            "kinds over words": lambda w: len(set(w)) / len(w),
        },
    ),
    "1.6": Definition("gives compression and fertility their names"),
    "1.7": Formula(
        sizes,
        page=lambda b, n, w: (b / n) * (n / w),
        oracle=lambda b, n, w: b / w,
        mutants={"fertility upside down": lambda b, n, w: (b / n) * (w / n)},
    ),
    "1.8": Formula(
        some_tokens,
        page=lambda tokens: len(tokens) - replaced(tokens),
        oracle=lambda tokens: len(merged(tokens)),
        mutants={"both gone": lambda tokens: len(tokens) - 2 * replaced(tokens)},
    ),
    "1.9": Property(
        check_runs,
        page=lambda k: k // 2,
        mutants={"overlapping": lambda k: k - 1, "rounded up": lambda k: (k + 1) // 2},
    ),
    "1.10": Property(
        check_changes,
        page=changes,
        mutants={
            "left neighbour kept": without(0),
            "pair itself kept": without(1),
            "new right pair forgotten": without(2),
        },
    ),
    "1.11": Property(
        check_taken,
        page=lambda n0, n, taken: n0 - n,
        mutants={
            "merges counted": lambda n0, n, taken: len(taken),
            "twice": lambda n0, n, t: 2 * (n0 - n),
        },
    ),
    "1.12": Formula(
        some_tokens,
        page=lambda tokens: flat(len(tokens), 5),
        oracle=lambda tokens: (
            -Categorical(torch.ones(5).double()).log_prob(torch.tensor(tokens)).sum() / math.log(2)
        ),
        mutants={"in nats": lambda tokens: len(tokens) * math.log(5)},
    ),
    "1.13": Property(
        check_limit,
        page=lambda n, v: n * (1 - math.log(v) / math.log(v + 1)),
        mutants={
            "inverted": lambda n, v: n * (1 - math.log(v - 1) / math.log(v)),
            "without the n": lambda n, v: 1 - math.log(v) / math.log(v + 1),
        },
    ),
    "1.14": Property(
        check_enough,
        page=lambda n, v: n / (v * math.log(v + 1)),
        mutants={
            "in bits": lambda n, v: n / (v * math.log2(v + 1)),
            "without the logarithm": lambda n, v: n / v,
        },
    ),
    "1.15": Formula(
        some_tokens,
        page=lambda tokens: -sum(c * math.log2(c / len(tokens)) for c in Counter(tokens).values()),
        oracle=code,
        mutants={
            "mean": lambda t: -sum(c / len(t) * math.log2(c / len(t)) for c in Counter(t).values()),
            "in nats": lambda t: -sum(c * math.log(c / len(t)) for c in Counter(t).values()),
        },
    ),
    "1.16": Formula(
        some_tokens,
        page=lambda tokens: f(len(tokens)) - sum(f(c) for c in Counter(tokens).values()),
        oracle=code,
        mutants={"sign": lambda t: f(len(t)) + sum(f(c) for c in Counter(t).values())},
    ),
    "1.17": Formula(
        some_tokens,
        page=exact_change,
        oracle=lambda tokens: code(merged(tokens)) - code(tokens),
        mutants={
            slip: lambda tokens, slip=slip: exact_change(tokens, slip)
            for slip in ("length", "second", "sign")
        },
    ),
    "1.18": Property(
        check_approximation,
        page=lambda m, n, a, b: -m * (math.log2(m * n / (a * b)) - math.log2(math.e)),
        mutants={
            "without e": lambda m, n, a, b: -m * math.log2(m * n / (a * b)),
            "sign": lambda m, n, a, b: m * (math.log2(m * n / (a * b)) - math.log2(math.e)),
            "without n": lambda m, n, a, b: -m * (math.log2(m / (a * b)) - math.log2(math.e)),
        },
    ),
    "1.19": Property(
        check_ways,
        page=lambda one, total: one <= total + 1e-15,
        mutants={
            "the other way": lambda one, total: one >= total,
            "always equal": lambda one, total: math.isclose(one, total),
        },
    ),
    "1.20": Formula(
        a_text,
        page=lambda bits, n_bytes: bits.mean() / (n_bytes / len(bits)),
        oracle=lambda bits, n_bytes: bits.sum() / n_bytes,
        mutants={"times r": lambda bits, n_bytes: bits.mean() * (n_bytes / len(bits))},
    ),
    "1.21": Formula(
        a_map,
        page=lambda p, to: left(p, to)[to] * given_left(p, to),
        oracle=lambda p, to: p,
        mutants={"not given": lambda p, to: left(p, to)[to] * p},
    ),
    "1.22": Formula(
        a_map,
        page=lambda p, to: entropy(left(p, to)) - (p * given_left(p, to).log2()).sum(),
        oracle=lambda p, to: entropy(p),
        mutants={
            "nothing lost": lambda p, to: entropy(left(p, to)),
            "subtracted": lambda p, to: entropy(left(p, to)) + (p * given_left(p, to).log2()).sum(),
        },
    ),
    "1.23": Property(
        check_backoff,
        page=lambda n, general, k: (n + k * general) / (n.sum() + k),
        mutants={
            "not divided by κ": lambda n, general, k: (n + k * general) / n.sum().clamp(min=1),
            "one for each": lambda n, general, k: (n + k * general) / (n.sum() + k * len(n)),
        },
    ),
    "1.24": Formula(
        bags,
        page=bayes,
        oracle=by_sklearn,
        mutants={
            "without the prior": lambda *args: bayes(*args, prior=False),
            "without the logarithm": lambda *args: bayes(*args, log=False),
        },
    ),
    "1.25": Property(
        check_idle_word,
        page=lambda drawn: drawn[:1].expand(2),
        mutants={"another in each class": lambda drawn: drawn},
    ),
}


@pytest.mark.parametrize("name", ["wiki", "hsk"])
def test_merges_on_all_of_a_language_are_those_of_the_library(name, tmp_path):
    texts = [document.text for document in data.load(name).split("train")]
    BPE.train(texts, 2048).save(tmp_path / "t.json")
    ours = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["model"]
    theirs = json.loads(bench_bpe.trained_by_the_library(texts, 2048).to_str())["model"]
    assert ours["merges"] == theirs["merges"] and ours["vocab"] == theirs["vocab"]
    assert len(ours["merges"]) >= 2048 - 257


class TestStream:
    @given(st.text(st.sampled_from("ab 'sé学\n\t\u3000.1"), max_size=60), st.integers(1, 9))
    @settings(max_examples=200)
    def test_words_counted_in_pieces_are_those_of_the_whole(self, tmp_path_factory, text, size):
        path = tmp_path_factory.mktemp("texts") / "t.txt"
        path.write_bytes(text.encode())
        pieces = list(stream(path, size))
        assert "".join(pieces) == text and all(pieces)
        words = sum((Counter(WORDS.findall(piece)) for piece in pieces), Counter())
        assert words == Counter(WORDS.findall(text))

    def test_a_tokeniser_trained_from_a_stream_is_the_same(self, tmp_path):
        text = "\n".join(d.text for d in data.load("wiki").split("valid")[:60])
        (tmp_path / "t.txt").write_text(text, encoding="utf-8")
        streamed = BPE.train(stream(tmp_path / "t.txt", 4096), 500)
        assert streamed.merges == BPE.train([text], 500).merges

    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        peaks = []
        for times in (1, 8):
            path = tmp_path / f"{times}.txt"
            path.write_text("the quick brown fox jumps over the lazy dog\n" * 5_000 * times)
            tracemalloc.start()
            assert sum(len(WORDS.findall(piece)) for piece in stream(path, 1 << 14)) > 0
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.2 * peaks[0] and peaks[1] < path.stat().st_size / 4

    def test_a_mark_of_byte_order_is_no_text(self, tmp_path):
        (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfone two")
        assert "".join(stream(tmp_path / "t.txt")) == "one two"

    @pytest.mark.parametrize(
        ("content", "place"),
        [(b"caf\xe9 au lait", 3), (b"x" * 10 + b"\xff", 10), ("学".encode()[:2], 0), (b"\x80", 0)],
    )
    @pytest.mark.parametrize("size", [1, 4, 100])
    def test_what_is_not_utf8_is_named_with_its_place(self, tmp_path, content, place, size):
        (tmp_path / "t.txt").write_bytes(content)
        with pytest.raises(ValueError, match=f"is not UTF-8: byte 0x.. at byte {place} ") as caught:
            list(stream(tmp_path / "t.txt", size))
        assert "cp1252" in str(caught.value) and "\n" not in str(caught.value)


class TestReducing:
    @given(st.text(st.sampled_from("the cats runing.\n'Thé 1"), max_size=80), st.booleans())
    def test_what_was_taken_apart_comes_back(self, text, stemmed):
        places = reduce(text, {"the", "a", "is"}, stemmed)
        assert restore(places) == text
        kept = "".join(place.kept for place in places)
        assert not {"the", "is"} & {word.strip().lower() for word in WORDS.findall(kept)} or stemmed

    def test_a_stop_word_goes_with_the_space_before_it(self):
        places = reduce("The cat sat on the mat.", {"the", "on"})
        assert "".join(place.kept for place in places) == " cat sat mat."
        assert places[0].dropped == ("The",) and places[2].dropped == (" on", " the")

    @pytest.mark.parametrize(
        ("word", "left"),
        [
            ("rivers", "river"), ("cities", "city"), ("running", "run"), ("falling", "fall"),
            ("created", "creat"), ("creates", "creat"), ("creation", "creat"), ("glass", "glass"),
            ("king", "king"), ("bring", "bring"), ("Moses", "Mose"), ("news", "new"), ("is", "is"),
            ("happiness", "happi"), ("", ""), ("2024", "2024"),
        ],
    )  # fmt: skip
    def test_one_ending_comes_off(self, word, left):
        assert stem(word) == left

    def test_a_stem_is_never_longer_and_never_one_letter(self):
        words = {
            w.strip() for d in data.load("wiki").split("valid")[:200] for w in WORDS.findall(d.text)
        }
        assert all(len(stem(word)) <= len(word) for word in words)
        assert all(len(stem(word)) >= 2 for word in words if len(word) >= 2)
        assert len({stem(word) for word in words}) < 0.9 * len(words)

    def test_no_ending_hides_behind_a_shorter_one(self):
        for later, ending in enumerate(e for e, _ in ENDINGS):
            assert not any(ending.endswith(earlier) for earlier, _ in ENDINGS[:later])

    def test_stop_words_are_common_in_every_collection(self):
        one, two = ["the city and the city and a"], ["the sea and the sea and a", "The end"]
        assert stop_words(one, two, count=2) == {"the", "and"}
        with pytest.raises(ValueError, match="asked for 9 stop words, but the texts share 3"):
            stop_words(one, two, count=9)


class TestRestoring:
    def test_the_answers_bring_the_text_back(self):
        text = "The cats were running to the seas, and the dog ran."
        places = reduce(text, {"the", "to", "and", "were"}, stemmed=True)
        kept, out, at = [place.kept for place in places], "", 0
        for kind, answer, _ in questions(places):
            if kind == "word":
                out += answer
            else:
                off, ending = re.match(r"(\d)(.*)", answer, re.S).groups()
                out += kept[at][: len(kept[at]) - int(off)] + ending
                at += 1
        assert out == text

    def test_probabilities_sum_to_at_most_one_and_nothing_has_none(self):
        model = Backoff(2.0)
        for symbol in "aab":
            model.learn(symbol, ((), ("c",)))
        total = sum(
            model.p(symbol, ((), ("c",))) for symbol in ("a", "b", *map(chr, range(99, 127)))
        )
        assert 0.9 < total <= 1 and model.p("never met", ((), ("new",))) > 0
        assert model.p("a", ((), ("c",))) > model.p("b", ((), ("c",)))

    def test_what_was_learnt_is_cheaper(self):
        places = [reduce(text, {"the"}) for text in ("in the sea", "in the sun", "on the sea")]
        learnt, blank = Restorer(places), Restorer([])
        assert 0 < learnt.charge(places[0]) < blank.charge(places[0])


class TestPieces:
    def test_pieces_are_escaped_counted_and_told_in_plain_text(self):
        shown = Pieces({"a <b>": ["x<", " y", "\n"]})._repr_mimebundle_()
        assert shown["text/plain"] == "a <b> (3): x<|␣y|↵"
        assert "a &lt;b&gt; (3)" in shown["text/html"] and "x&lt;" in shown["text/html"]
        assert shown["text/html"].count("<span") == 3

    def test_nothing_to_show_is_refused(self):
        with pytest.raises(ValueError, match="pass a name and its pieces"):
            Pieces({})


class TestTheBenchmark:
    def test_it_measures_both_on_the_same_text(self):
        found = bench_bpe.bpe(pairs=1, n_bytes=20_000, vocab_size=300)
        assert found["bytes"] >= 20_000 and found["vocabulary"] == 300
        for what in ("training", "encoding"):
            ratio = found[f"{what}_seconds"] / found[f"{what}_seconds_library"]
            assert found[f"{what}_ratio"] == pytest.approx(ratio)

    def test_more_text_than_there_is_is_refused(self):
        with pytest.raises(ValueError, match="bytes short; ask for fewer"):
            bench_bpe.megabyte(10**9)


class TestTheExperiment:
    def test_every_cell_is_stored(self):
        cells = load_result("cleaning")["cells"]
        for variant, seed in itertools.product(cleaning.VARIANTS, range(3)):
            cell = cells[f"language/{variant}/{seed}"]
            assert cell["whole"] == pytest.approx(cell["kept"] + cell["lost"], abs=2e-4)
        for labels, variant in itertools.product(cleaning.LABELS, cleaning.VARIANTS):
            assert all(f"topics/{labels}/{variant}/{s}" in cells for s in range(cleaning.DRAWS))
        for cell in cells.values():
            assert cell["settings"]["texts"]["wiki"] == data.load("wiki").sha256[:16]

    def test_a_language_model_run_again_scores_what_is_stored(self):
        stored = load_result("cleaning")["cells"]["language/both/0"]
        again = cleaning.language("both", 0, cleaning.STEPS, CPU)
        for name in ("left", "kept", "whole"):
            assert again[name] == pytest.approx(stored[name], abs=0.03)
        assert again["lost"] == pytest.approx(stored["lost"], abs=1e-3)

    def test_a_bag_of_words_run_again_scores_what_is_stored(self):
        stored = load_result("cleaning")["cells"]["topics/100/both/1"]
        assert cleaning.topics("both", 100, 1)["accuracy"] == pytest.approx(
            stored["accuracy"], abs=0.003
        )

    def test_content_and_stop_words_together_are_the_whole_of_the_plain_text(self):
        marks = cleaning.stop_tokens("plain")
        assert len(marks) == len(cleaning.corpus("plain").valid)
        assert 0.1 < marks.double().mean() < 0.5
        assert not cleaning.stop_tokens("no stop words").any()

    def test_an_unknown_variant_is_told_the_right_ones(self):
        with pytest.raises(ValueError, match="no variant 'none': choose one of plain, stemmed"):
            cleaning.places_of("none", "text")


TestLedger = prove(PAGE, LEDGER)
