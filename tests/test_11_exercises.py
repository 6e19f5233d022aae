"""Chapter 11's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {"first": 7.62, "spread": 9.62, "bits": 2, "passes": 0.5, "batch": 2.5}


def windows(
    number: Callable = lambda n, T: (n - 1) // T,
    target: Callable = lambda tokens, inputs: tokens[1 : inputs.numel() + 1].view_as(inputs),
    at_end: str = "after",
) -> Callable:
    """Windows of a text that are off where the arguments say so."""

    def answer(tokens: Tensor, T: int, end: int) -> tuple[Tensor, Tensor]:
        n = number(len(tokens), T)
        inputs = tokens[: n * T].view(n, T)
        targets = target(tokens, inputs)
        ends = {"after": inputs == end, "itself": targets == end, "never": inputs < 0}
        return inputs, targets.masked_fill(ends[at_end], -100)

    return answer


def in_place(tokens: Tensor, T: int, end: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets are two looks at one memory, and the second is written into."""
    n = (len(tokens) - 1) // T
    inputs, targets = tokens[: n * T].view(n, T), tokens[1 : n * T + 1].view(n, T)
    targets[inputs == end] = -100
    return inputs, targets


def before(tokens: Tensor, inputs: Tensor) -> Tensor:
    return F.pad(tokens, (1, 0))[: inputs.numel()].view_as(inputs)


def in_parts(
    weight: Callable = lambda count, counts: count / sum(counts),
    each_part: bool = False,
    by_itself: bool = False,
    longer: bool = False,
    clips: bool = True,
) -> Callable:
    """A gradient out of parts, wrong where the arguments say so."""

    def shorten(tensors: list[Tensor], most: float) -> list[Tensor]:
        norm = torch.cat([each.flatten() for each in tensors]).norm()
        return [each * most / norm for each in tensors] if norm > most or longer else tensors

    def answer(parts: list[list[Tensor]], counts: list[int], most: float) -> list[Tensor]:
        parts = [shorten(part, most) for part in parts] if each_part else parts
        weights = [weight(count, counts) for count in counts]
        total = [
            sum(w * each for w, each in zip(weights, own, strict=True))
            for own in zip(*parts, strict=True)
        ]
        if by_itself:
            return [shorten([each], most)[0] for each in total]
        return shorten(total, most) if clips else total

    return answer


def bits(
    divide: Callable = lambda nats, size, tokens: nats / size / math.log(2),
    together: bool = True,
    ends: bool = True,
    holes: bool = False,
) -> Callable:
    """Bits per byte, wrong where the arguments say so."""

    def answer(batches: list[tuple[Tensor, Tensor]], n_bytes: Tensor) -> float:
        rows = []
        for logits, targets in batches:
            counted = (targets != -100) & ((n_bytes[targets.clamp(min=0)] > 0) | ends)
            z, y = logits[counted], targets[counted]
            nats = F.cross_entropy(z, y, reduction="sum") if len(y) else torch.zeros(())
            size = n_bytes[y].sum()
            if holes:
                size = n_bytes[targets.clamp(min=0)].sum()
            rows.append(torch.stack([nats.double(), size.double(), counted.sum().double()]))
        if together:
            return divide(*torch.stack(rows).sum(0).tolist())
        return sum(divide(*row.tolist()) for row in rows) / len(rows)

    return answer


def walk(
    dtype: torch.dtype = torch.bfloat16, keeps: bool = True, more: int = 0, sign: int = 1
) -> Callable:
    """A walk in bfloat16, wrong where the arguments say so."""

    def answer(start: float, step: float, n: int, compensated: bool) -> float:
        weight, size = torch.tensor(start, dtype=dtype), torch.tensor(step, dtype=dtype)
        lost = torch.zeros_like(weight)
        for _ in range(n + more):
            change = size + lost
            new = weight + change
            if compensated and keeps:
                lost = sign * (change - (new - weight))
            weight = new
        return weight.item()

    return answer


def rounded_at_the_end(start: float, step: float, n: int, compensated: bool) -> float:
    return torch.tensor(start + n * step, dtype=torch.bfloat16).item()


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(reference, deviation, seed, number of the run)`."""

    def answer(deviations: list[float], seeds: list[int]) -> dict[float, list]:
        reference = grade.load("11")["11.6"].reference

        def one(deviation: float, seed: int) -> tuple[float, float]:
            return reference([deviation], [seed])[deviation][0]

        runs = iter(range(len(deviations) * len(seeds)))
        return {e: [change(one, e, s, next(runs)) for s in seeds] for e in deviations}

    return answer


def on_its_own_tokens(one: Callable, deviation: float, seed: int, run: int) -> tuple:
    losses_of = grade.load("11")["11.6"].rules[0].test.__globals__["losses_of"]
    return one(deviation, seed)[0], losses_of(deviation, seed, slice(0, 600))[1]


def traces(one: Callable, deviation: float, seed: int, run: int) -> tuple:
    first, last = one(deviation, seed)
    return first, last - run / 1000


def only_the_mean(deviations: list[float], seeds: list[int]) -> dict[float, float]:
    return {each: 2.0 for each in deviations}


WRONG = {
    "11.1": {
        "bits": ({**RIGHT, "first": 11}, "these are bits"),
        "whole variance": ({**RIGHT, "spread": 11.62}, "half of the variance"),
        "half the deviation": ({**RIGHT, "spread": 8.62}, "half of the deviation's square"),
        "per token": ({**RIGHT, "bits": 8}, "this is per token"),
        "nats": ({**RIGHT, "bits": 1.386}, "these are nats per byte"),
        "turned round": ({**RIGHT, "passes": 2}, "not the other way round"),
        "plain mean": ({**RIGHT, "batch": 3}, "the plain mean of the parts is wrong"),
        "half done": ({**RIGHT, "bits": None}, "there is no number yet"),
    },
    "11.2": {
        "roll": (windows(target=lambda t, x: x.roll(-1, 1)), "roll goes round"),
        "not moved": (windows(target=lambda t, x: x), "the model is asked for what it sees"),
        "moved back": (windows(target=before), "moved the wrong way"),
        "one too few": (windows(number=lambda n, T: (n - 2) // T), "expected 3, got 2"),
        "ends not heeded": (windows(at_end="never"), "is still a target"),
        "end left out": (windows(at_end="itself"), "the end itself can be foreseen"),
        "in place": (in_place, "share memory with the targets"),
    },
    "11.3": {
        "plain mean": (in_parts(weight=lambda n, counts: 1 / len(counts)), "averaged alike"),
        "sum": (in_parts(weight=lambda n, counts: 1), "the parts were only added up"),
        "of the sum": (in_parts(weight=lambda n, counts: n), "divide by all tokens"),
        "by itself": (in_parts(by_itself=True), "each parameter was clipped by itself"),
        "before the sum": (in_parts(each_part=True), "add the parts first"),
        "not clipped": (in_parts(clips=False), "nothing was clipped"),
        "made longer": (in_parts(longer=True), "let alone made longer"),
    },
    "11.4": {
        "nats": (bits(divide=lambda nats, size, tokens: nats / size), "these are nats per byte"),
        "per token": (bits(divide=lambda n, size, t: n / t / math.log(2)), "bits per token"),
        "batches alike": (bits(together=False), "the batches were averaged alike"),
        "ends for nothing": (bits(ends=False), "ends of documents must be paid for"),
        "bytes of holes": (bits(holes=True), "bytes were counted where there is no target"),
    },
    "11.5": {
        "32 bits": (walk(dtype=torch.float32), "is no bfloat16 number"),
        "rounded at the end": (rounded_at_the_end, "was the sum rounded only at the end"),
        "nothing kept": (walk(keeps=False), "the steps still get lost"),
        "sign": (walk(sign=-1), "the steps still get lost"),
        "one more": (walk(more=1), "it made one more or fewer"),
    },
    "11.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "last loss alone": (experiment(lambda f, d, s, n: f(d, s)[1]), "before and after"),
        "own tokens": (experiment(on_its_own_tokens), "the tokens it was trained on"),
        "traces": (experiment(traces), "the order of deviations"),
        "no deviation": (experiment(lambda f, d, s, n: f(0.5, s)), "changes nothing"),
        "no seed": (experiment(lambda f, d, s, n: f(d, 0)), "the seed changes nothing"),
        "no step": (experiment(lambda f, d, s, n: f(d, s)[:1] * 2), "are they made"),
        "after a step": (experiment(lambda f, d, s, n: f(d, s)[1:] * 2), "before any step"),
    },
}
SUM = "in `sum(count / n * each for count, each in zip(counts, own, strict=True))`"
OWN = "in `for own in zip(*parts, strict=True)`"
CLIP = "in `return [each * most / norm for each in total] if norm > most else total`"
STEP = "in `table = table - 10 * torch.zeros_like(table).index_add(0, a, error) / len(a)`"
EQUAL = "the lists that are given have equal lengths"
SURVIVORS = {
    f"11.3: no strict= {SUM}": EQUAL,
    f"11.3: True → False {SUM}": EQUAL,
    f"11.3: arguments swapped {SUM}": "a product does not mind which factor is called which",
    f"11.3: no strict= {OWN}": EQUAL,
    f"11.3: True → False {OWN}": EQUAL,
    f"11.3: Gt → GtE {CLIP}": "at the limit itself the factor is 1",
    f"11.6: zeros_like → ones_like {STEP}": "the same number added to all logits changes nothing",
}

TestSet = prove("11", WRONG, SURVIVORS)
