"""Chapter 12's exercises: wrong answers, and the words that each of them must meet."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from graded import prove
from torch import Tensor

from mslearn import grade

RIGHT = {"mask": 160, "other": 18, "same": 22, "asked": 0.1, "seen": 0.806}


def masking(
    spares: bool = True,
    outside: bool = False,
    read: Callable = lambda choose, fate: fate,
    end: Callable = lambda hidden, replaced: hidden + replaced,
    swap: Callable = lambda other, inputs: other,
    targets: Callable = lambda tokens, inputs, chosen: tokens.masked_fill(~chosen, -100),
) -> Callable:
    """A masking function that is off where the arguments say so."""

    def answer(
        tokens: Tensor,
        special: Tensor,
        choose: Tensor,
        fate: Tensor,
        other: Tensor,
        mask_id: int,
        shares: tuple[float, float, float],
    ) -> tuple[Tensor, Tensor]:
        rate, hidden, replaced = shares
        chosen = (choose < rate) & ~(special & spares)
        fate, may = read(choose, fate), (chosen | outside) & ~(special & spares)
        inputs = tokens.masked_fill(may & (fate < hidden), mask_id)
        swapped = may & (fate >= hidden) & (fate < end(hidden, replaced))
        inputs = swap(other, inputs).where(swapped, inputs)
        return inputs, targets(tokens, inputs, chosen)

    return answer


def only_masks(tokens: Tensor, inputs: Tensor, chosen: Tensor) -> Tensor:
    return tokens.masked_fill(~chosen | (inputs < 50), -100)


def only_changed(tokens: Tensor, inputs: Tensor, chosen: Tensor) -> Tensor:
    return tokens.masked_fill(~chosen | (inputs == tokens), -100)


def loss_of(
    divide: Callable = lambda chosen: max(int(chosen.sum()), 1),
    below: Callable = lambda chosen: max(int(chosen.sum()), 1),
    logs: Callable = lambda logits: logits.log_softmax(-1),
    rows: bool = False,
    all_hand_back: bool = False,
    sign: int = 1,
) -> Callable:
    """A masked loss and its gradient, wrong where the arguments say so."""

    def answer(logits: Tensor, tokens: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        own = -logs(logits).gather(-1, tokens[..., None])[..., 0]
        error = sign * (logits.softmax(-1) - F.one_hot(tokens, logits.shape[-1]))
        error = error if all_hand_back else error * chosen[..., None]
        loss = (own * chosen).sum() / divide(chosen)
        if rows:
            used = chosen.any(1)
            loss = ((own * chosen).sum(1)[used] / chosen.sum(1)[used]).mean()
        return loss, error / below(chosen)

    return answer


def of_all(chosen: Tensor) -> int:
    return chosen.numel()


def everywhere(logits: Tensor, tokens: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    return loss_of()(logits, tokens, torch.ones_like(chosen))


def pairs(
    start: Callable = lambda first: first,
    right: Callable = lambda follows, tokens: follows[:, tokens[1:]].T,
    divide: bool = True,
    inner: bool = False,
    end: Callable = lambda own: math.exp(-own.log().mean()),
) -> Callable:
    """A pseudo-perplexity, wrong where the arguments say so."""

    def answer(first: Tensor, follows: Tensor, tokens: Tensor) -> float:
        left = torch.cat([start(first)[None], follows[tokens[:-1]]])
        both = left * torch.cat([right(follows, tokens), torch.ones_like(first)[None]])
        own = both.gather(1, tokens[:, None])[:, 0]
        own = own / both.sum(1) if divide else own
        return float(end(own[1:-1] if inner and len(own) > 2 else own))

    return answer


def nothing_from_the_right(follows: Tensor, tokens: Tensor) -> Tensor:
    return torch.ones_like(follows)[tokens[1:]]


def with_a_product(own: Tensor) -> float:
    return own.prod() ** (-1 / len(own)) if own.prod() > 0 else math.inf


def two(
    whole: Callable = lambda whole, n: math.exp(whole / n),
    given: Callable = lambda given, whole, n: math.exp(given / n),
    entropy: Callable = lambda p: torch.special.entr(p).sum(),
    alone: bool = False,
    turned: bool = False,
) -> Callable:
    """Perplexity and pseudo-perplexity, wrong where the arguments say so."""

    def answer(joint: Tensor) -> tuple[float, float]:
        n, all_ = joint.dim(), entropy(joint)
        rest = (entropy(joint.sum(i)) for i in range(n))
        total = sum(all_ - each for each in rest)
        if alone:
            total = sum(
                entropy(joint.movedim(i, 0).reshape(len(joint), -1).sum(1)) for i in range(n)
            )
        found = whole(float(all_), n), given(float(total), float(all_), n)
        return found[::-1] if turned else found

    return answer


def experiment(change: Callable) -> Callable:
    """An experiment whose run is `change(reference, rate, seed, number of the run)`."""

    def answer(rates: list[float], seeds: list[int]) -> dict[float, list]:
        reference = grade.load("12")["12.6"].reference

        def one(rate: float, seed: int) -> tuple[int, float]:
            return reference([rate], [seed])[rate][0]

        runs = iter(range(len(rates) * len(seeds)))
        return {rate: [change(one, rate, s, next(runs)) for s in seeds] for rate in rates}

    return answer


def losses_of(rate: float, seed: int, masks: bool = True) -> tuple[float, float]:
    rules = grade.load("12")["12.6"].rules
    return rules[0].test.__globals__["losses_of"](rate, seed, masks)


def on_its_own_texts(one: Callable, rate: float, seed: int, run: int) -> tuple:
    return one(rate, seed)[0], losses_of(rate, seed)[0]


def neighbours_seen(one: Callable, rate: float, seed: int, run: int) -> tuple:
    return one(rate, seed)[0], losses_of(rate, seed, masks=False)[1]


def nothing_hidden(one: Callable, rate: float, seed: int, run: int) -> tuple:
    return one(rate, seed)[0], losses_of(1.1, seed, masks=False)[1]


def traces(one: Callable, rate: float, seed: int, run: int) -> tuple:
    asked, nats = one(rate, seed)
    return asked, nats - run / 1000


def a_mean(one: Callable, rate: float, seed: int, run: int) -> tuple:
    asked, nats = one(rate, seed)
    return asked / 60, nats


def only_the_mean(rates: list[float], seeds: list[int]) -> dict[float, float]:
    return {each: 1.0 for each in rates}


WRONG = {
    "12.1": {
        "of all": ({**RIGHT, "mask": 800}, "of the chosen tokens become masks, not of all"),
        "all chosen": ({**RIGHT, "mask": 200}, "not all of them become masks"),
        "no luck": ({**RIGHT, "other": 20, "same": 20}, "one draw in ten"),
        "not asked": ({**RIGHT, "same": 822}, "those that were not chosen"),
        "no true draw": ({**RIGHT, "asked": 0.0909}, "the draw, too, may be the truth: u"),
        "prior": ({**RIGHT, "asked": 0.01}, "what the rest of the text says"),
        "the other way": ({**RIGHT, "asked": 0.806}, "nobody says whether it is asked for"),
        "asked for": ({**RIGHT, "seen": 0.1}, "most visible ones were never chosen"),
        "no true draw, seen": ({**RIGHT, "seen": 0.8039}, "the draw, too, may be the truth: r"),
        "half done": ({**RIGHT, "seen": None}, "there is no number yet"),
    },
    "12.2": {
        "specials": (masking(spares=False), "a special token was hidden or replaced"),
        "not chosen": (masking(outside=True), "its fate counts only where choose < rate"),
        "one a window": (
            masking(read=lambda choose, fate: fate[:, :1].expand(fate.shape)),
            "its window's first token",
        ),
        "one number": (masking(read=lambda choose, fate: choose), "the number that chose it"),
        "no draw": (masking(end=lambda hidden, replaced: replaced), "`other` has to stand there"),
        "none kept": (masking(end=lambda hidden, replaced: 1), "the rest of the chosen stay"),
        "leak": (masking(targets=lambda t, x, c: t), "can read it off its input"),
        "inputs": (
            masking(targets=lambda t, x, c: x.masked_fill(~c, -100)),
            "the targets are what stands in the inputs",
        ),
        "masks alone": (masking(targets=only_masks), "a replaced token is chosen, too"),
        "kept": (masking(targets=only_changed), "a kept token is chosen, too"),
    },
    "12.3": {
        "of all": (loss_of(divide=of_all), "divide by the number of chosen places, not of all"),
        "gradient of all": (loss_of(below=of_all), "divide by the number of chosen places"),
        "sum": (loss_of(divide=lambda c: 1), "this is the sum over the chosen places"),
        "gradient of the sum": (loss_of(below=lambda c: 1), "this is the gradient of the sum"),
        "windows": (loss_of(rows=True), "weigh as much as others"),
        "every place": (everywhere, "also those that were not chosen"),
        "hand back": (loss_of(all_hand_back=True), "its gradient is 0"),
        "sign": (loss_of(sign=-1), "the gradient's sign is turned"),
        "log of softmax": (loss_of(logs=lambda z: z.softmax(-1).log()), "take log_softmax"),
        "0/0": (loss_of(divide=lambda c: c.sum(), below=lambda c: c.sum()), "0/0 gave NaN"),
    },
    "12.4": {
        "perplexity": (pairs(right=nothing_from_the_right, divide=False), "from the left alone"),
        "not divided": (pairs(divide=False), "divide by the sum over what else could stand"),
        "inner places": (pairs(inner=True), "the first place and the last are left out"),
        "first all alike": (pairs(start=torch.ones_like), "it is not all alike"),
        "rows": (pairs(right=lambda f, tokens: f[tokens[1:]]), "not the next token's row"),
        "mean of probabilities": (pairs(end=lambda own: 1 / own.mean()), "of probabilities"),
        "nats": (pairs(end=lambda own: -own.log().mean()), "these are the nats"),
        "sign": (pairs(end=lambda own: math.exp(own.log().mean())), "the sign is missing"),
        "product": (pairs(end=with_a_product), "add logarithms"),
    },
    "12.5": {
        "turned": (two(turned=True), "the perplexity comes first"),
        "of a text": (two(whole=lambda w, n: math.exp(w)), "divide the entropy of the text"),
        "nats": (two(whole=lambda w, n: w / n), "the perplexity is e to them"),
        "twice": (two(whole=lambda w, n: math.exp(w / n**2)), "divide once"),
        "left": (two(given=lambda g, w, n: math.exp(w / n)), "this is the perplexity: from"),
        "alone": (two(alone=True), "the others are to be seen"),
        "sum of places": (two(given=lambda g, w, n: math.exp(g)), "divide the sum over the places"),
        "of the others": (two(given=lambda g, w, n: math.exp(w - g / n)), "the entropy of the"),
        "pseudo-nats": (two(given=lambda g, w, n: g / n), "the pseudo-perplexity is e to them"),
        "0 log 0": (two(entropy=lambda p: -(p * p.log()).sum()), "an impossible text adds nothing"),
    },
    "12.6": {
        "only the mean": (only_the_mean, "a mean alone hides the spread"),
        "nats alone": (experiment(lambda f, r, s, n: f(r, s)[1]), "places asked for and nats"),
        "mean count": (experiment(a_mean), "over all 60 passes, not a mean"),
        "own texts": (experiment(on_its_own_texts), "the texts it was trained on"),
        "neighbours seen": (experiment(neighbours_seen), "have to be masks while it trains"),
        "nothing hidden": (experiment(nothing_hidden), "with nothing hidden"),
        "all asked": (experiment(lambda f, r, s, n: f(1.0, s)), "whatever the rate"),
        "traces": (experiment(traces), "a run leaves traces in the next"),
        "no rate": (experiment(lambda f, r, s, n: f(0.5, s)), "the rate changes nothing"),
        "no seed": (experiment(lambda f, r, s, n: f(r, 0)), "the seed changes nothing"),
        "no step": (
            experiment(lambda f, r, s, n: (f(r, s)[0], math.log(6) + s * 1e-9)),
            "are the steps made",
        ),
    },
}
COUNT = "in `k = max(int(chosen.sum()), 1)`"
START = "in `tokens, uniform, w, asked = texts(seed), draws(seed), torch.zeros(2, 7, 6), 0`"
SPARE = "a table or a row that no neighbour ever points at is not used"
SURVIVORS = {
    f"12.3: arguments swapped {COUNT}": "the greater of two does not mind their order",
    f"12.6: zeros → ones {START}": "the same number added to all logits changes nothing",
    f"12.6: 2 → 3 {START}": SPARE,
    f"12.6: 7 → 8 {START}": SPARE,
    "12.6: Lt → LtE in `row, chosen = tokens[step], uniform[step] < rate`": "a draw that equals "
    "the rate to the last bit does not occur",
}

TestSet = prove("12", WRONG, SURVIVORS)
