"""Chapter 1's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections import Counter
from collections.abc import Callable

import torch
from graded import prove

from mslearn import grade

RIGHT = {"bytes": [1, 2, 3, 4], "tokens": 4, "compression": 1.5, "seen": 0.75}


def change(log: Callable = math.log2, own: bool = True, loses: int = 2) -> Callable:
    """The change of the bits, wrong where its arguments say so."""

    def f(x: float) -> float:
        return x * log(x) if x else 0.0

    def answer(n: int, a: int, b: int, m: int, same: bool = False) -> float:
        bits = f(n - m) - f(n) - own * f(m)
        if same:
            return bits - (f(a - loses * m) - f(a))
        return bits - (f(a - m) - f(a)) - (f(b - m) - f(b))

    return answer


def log_of_nothing(n: int, a: int, b: int, m: int, same: bool = False) -> float:
    bits = (n - m) * math.log2(n - m) - n * math.log2(n) - m * math.log2(m)
    for count in (a,) if same else (a, b):
        left = count - 2 * m if same else count - m
        bits -= left * math.log2(left) - count * math.log2(count)
    return bits


def turned(*arguments: object) -> float:
    return -change()(*arguments)


def as_handed_out(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    return [new if tuple(ids[i : i + 2]) == tuple(pair) else ids[i] for i in range(len(ids))]


def overlapping(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Drops what follows a pair, but lets a dropped token begin the next one."""
    starts = [i for i in range(len(ids)) if tuple(ids[i : i + 2]) == tuple(pair)]
    return [
        new if i in starts else token
        for i, token in enumerate(ids)
        if i in starts or i - 1 not in starts
    ]


def only_the_first(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    i = next((i for i in range(len(ids)) if tuple(ids[i : i + 2]) == tuple(pair)), None)
    return ids if i is None else [*ids[:i], new, *ids[i + 2 :]]


def in_place(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    for i in range(len(ids) - 1):
        if tuple(ids[i : i + 2]) == tuple(pair):
            ids[i : i + 2] = [new]
    return ids


def last_lost(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(ids) - 1:
        found = tuple(ids[i : i + 2]) == tuple(pair)
        out.append(new if found else ids[i])
        i += 2 if found else 1
    return out


def shares(over: Callable = len, once: bool = True, test: Callable = list, known=False) -> Callable:
    """The two shares, wrong where the arguments say so."""

    def answer(train: list[str], held_out: list[str]) -> tuple[float, float]:
        counts, words = Counter(train), test(held_out)
        rare = sum(count == 1 for count in counts.values()) if once else len(counts)
        new = sum((word in counts) == known for word in words) / len(words)
        return rare / over(train), new

    return answer


def experiment(alter: Callable) -> Callable:
    """An experiment whose run is `alter(reference, copies, seed, number of the run)`."""

    def answer(copies: list[int], seeds: list[int]) -> dict[int, list[float]]:
        reference = grade.load("01")["01.5"].reference
        runs = iter(range(len(copies) * len(seeds)))
        return {
            d: [alter(lambda d, s: reference([d], [s])[d][0], d, s, next(runs)) for s in seeds]
            for d in copies
        }

    return answer


WRONG = {
    "01.1": {
        "characters": ({**RIGHT, "bytes": [1, 1, 1, 1]}, "these are characters"),
        "two gone each": ({**RIGHT, "tokens": 2}, "takes one token away"),
        "turned over": ({**RIGHT, "compression": 2 / 3}, "turn it over"),
        "itself counted": ({**RIGHT, "seen": 0.875}, "only two others"),
        "none seen": ({**RIGHT, "seen": 0.25}, "that none was seen"),
        "half done": ({**RIGHT, "tokens": None}, "there is no number yet"),
    },
    "01.2": {
        "nats": (change(log=math.log), "these are nats"),
        "new token free": (change(own=False), "the new token costs bits, too"),
        "before minus after": (turned, "the sign is turned"),
        "one of two": (change(loses=1), "merged with itself"),
        "log of nothing": (log_of_nothing, "0 log 0 counts as 0"),
    },
    "01.3": {
        "as handed out": (as_handed_out, "the 2 of the pair is still there"),
        "overlapping": (overlapping, "became"),
        "only the first": (only_the_first, "became"),
        "last token lost": (last_lost, "became"),
        "in place": (in_place, "that it was given"),
        "nothing returned": (lambda ids, pair, new: None, "it returns nothing"),
    },
    "01.4": {
        "over kinds": (shares(over=lambda words: len(set(words))), "not by the different words"),
        "all kinds": (shares(once=False), "not all different ones"),
        "kinds in the test": (shares(test=set), "counts three times"),
        "known words": (shares(known=True), "the share of known words"),
    },
    "01.5": {
        "only the mean": (lambda copies, seeds: dict.fromkeys(copies, 0.5), "hides the spread"),
        "not seeded": (
            experiment(lambda f, d, s, n: f(d, torch.seed() % 9999)),
            "two calls differ",
        ),
        "traces": (experiment(lambda f, d, s, n: f(d, s) - n / 1000), "the order of copies"),
        "no seed": (experiment(lambda f, d, s, n: f(d, 0)), "the seed changes nothing"),
        "no copies": (experiment(lambda f, d, s, n: f(1, s)), "the copies change nothing"),
        "its own nearest": (experiment(lambda f, d, s, n: 1 - s / 1e6), "its own nearest"),
    },
}
COINS = "coins = torch.rand(len(y), generator=torch.Generator().manual_seed(seed)) < 0.5"
MERGE_BITS = "def merge_bits(n: int, a: int, b: int, m: int, same: bool = False) -> float:"
SURVIVORS = {
    f"01.2: False → True in `{MERGE_BITS}`": "the checks always say which it is",
    "01.5: 1 → 2 in `x, y = x.repeat(d, 1), y.repeat(d)`": "coordinates given twice keep the order",
    f"01.5: Lt → LtE in `{COINS}`": "a random number is next to never exactly one half",
}

TestSet = prove("01", WRONG, SURVIVORS)
