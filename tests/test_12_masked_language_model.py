"""Every numbered equation of chapter 12 holds in float64, and its wrong versions do not."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ledger import Formula, prove
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.utils.flop_counter import FlopCounterMode

from mslearn import blanks
from mslearn.experiments import load_result
from mslearn.transformer import Config, Transformer

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "12_masked_language_model.ipynb"
N, V = 4, 3  # tokens of a text, and ids, where every text can be listed
TEXTS = list(itertools.product(range(V), repeat=N))
RATE, HIDDEN, REPLACED = 0.15, 0.8, 0.1
KEPT = 1 - HIDDEN - REPLACED


def table(g: torch.Generator) -> Tensor:
    """A probability for each text of N tokens (V, V, V, V)."""
    return torch.randn([V] * N, generator=g, dtype=torch.float64).exp() / 50


def joint(g: torch.Generator) -> tuple[Tensor]:
    p = table(g)
    return (p / p.sum(),)


def two(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The texts' distribution, and another that a model holds for it."""
    return *joint(g), *joint(g)


def conditional(p: Tensor, x: tuple, i: int, seen: set[int]) -> Tensor:
    """p(xᵢ = · | the tokens of x at `seen`), from the table by summing out what is not seen."""
    rest = tuple(x[j] if j in seen else slice(None) for j in range(N))
    free = [j for j in range(N) if j not in seen]
    part = p[rest].movedim(free.index(i), 0).reshape(V, -1).sum(1)
    return part / part.sum()


def others(i: int) -> set[int]:
    return set(range(N)) - {i}


def left(i: int) -> set[int]:
    return set(range(i))


def chances(p: Tensor, which: Callable[[int], set[int]] = others) -> Tensor:
    """p(xᵢ | the tokens that `which` names) for each text and each place (texts, N)."""
    return torch.stack(
        [torch.stack([conditional(p, x, i, which(i))[x[i]] for i in range(N)]) for x in TEXTS]
    )


def entropy(p: Tensor, i: int, seen: set[int]) -> Tensor:
    """H(Xᵢ | the tokens at `seen`): joint entropies subtracted, H(A, B) − H(B)."""

    def of(kept: set[int]) -> Tensor:
        away = [j for j in range(N) if j not in kept]
        marginal = p.sum(away) if away else p
        return -(marginal * marginal.log()).sum()

    return of(seen | {i}) - (of(seen) if seen else 0)


def mean(p: Tensor, values: Tensor) -> Tensor:
    """The mean over texts drawn from p of values (texts, ...)."""
    return torch.tensordot(p.flatten(), values, 1)


def blanket(p: Tensor, sides: Callable[[Tensor, tuple, int], Tensor]) -> Tensor:
    """One number for each text and place, from what `sides` says of it."""
    return torch.stack([torch.stack([sides(p, x, i) for i in range(N)]) for x in TEXTS])


def put(p: Tensor, x: tuple, i: int) -> Tensor:
    """p of the text with each id in turn at place i (V,)."""
    return torch.stack([p[(*x[:i], c, *x[i + 1 :])] for c in range(V)])


def by_bayes(p: Tensor, x: tuple, i: int) -> Tensor:
    return p[x] / put(p, x, i).sum()


def divergences(p: Tensor, q: Tensor) -> Tensor:
    """D(p(· | others) ‖ q(· | others)) for each text and place."""

    def one(_: Tensor, x: tuple, i: int) -> Tensor:
        parts = (conditional(each, x, i, others(i)) for each in (p, q))
        return kl_divergence(*(Categorical(each) for each in parts))

    return blanket(p, one)


def entropies(p: Tensor, which: Callable[[int], set[int]] = others) -> Tensor:
    return torch.stack([entropy(p, i, which(i)) for i in range(N)])


def hidden_sets(size: int) -> list[set[int]]:
    return [set(each) for each in itertools.combinations(range(N), size)]


def masked_losses(p: Tensor, size: int, share: float | None = None) -> Tensor:
    """The loss of each text for each set of hidden places (texts, sets)."""
    rows = []
    for x in TEXTS:
        sums = [
            sum(-conditional(p, x, i, set(range(N)) - M)[x[i]].log() for i in M)
            for M in hidden_sets(size)
        ]
        rows.append(torch.stack(sums) / (share or size))
    return torch.stack(rows)


def by_ignoring(p: Tensor, size: int) -> Tensor:
    """The same by torch's loss over all places, its target left out where nothing is hidden."""
    rows = []
    for x, M in itertools.product(TEXTS, hidden_sets(size)):
        seen = set(range(N)) - M
        logits = [conditional(p, x, i, seen).log() if i in M else torch.zeros(V) for i in range(N)]
        targets = torch.tensor([x[i] if i in M else -100 for i in range(N)])
        rows.append(F.cross_entropy(torch.stack([z.double() for z in logits]), targets))
    return torch.stack(rows).view(len(TEXTS), -1)


def by_places(p: Tensor, size: int) -> Tensor:
    """For each text the mean over places of the mean over hidden sets that hold the place."""

    def one(_: Tensor, x: tuple, i: int) -> Tensor:
        sets = [M for M in hidden_sets(size) if i in M]
        losses = [-conditional(p, x, i, set(range(N)) - M)[x[i]].log() for M in sets]
        return torch.stack(losses).mean()

    return blanket(p, one).mean(1)


def hiding(g: torch.Generator) -> tuple[Tensor, int]:
    return *joint(g), 2


def more_seen(p: Tensor) -> Tensor:
    """What the last token's entropy loses as others come into sight, one after the other."""
    last = N - 1
    return torch.stack([entropy(p, last, left(k)) - entropy(p, last, left(k + 1)) for k in (0, 1)])


def mean_divergence(p: Tensor, swap: bool = False) -> Tensor:
    last, gains = N - 1, []
    for k in (0, 1):
        pairs = [(conditional(p, x, last, left(k + 1)), conditional(p, x, last, left(k)))
                 for x in TEXTS]  # fmt: skip
        if swap:
            pairs = [pair[::-1] for pair in pairs]
        each = [kl_divergence(*(Categorical(part) for part in pair)) for pair in pairs]
        gains.append(mean(p, torch.stack(each)))
    return torch.stack(gains)


def sizes(g: torch.Generator) -> tuple[int, int, int, int, int]:
    """Layers, width, vocabulary, context and how many of a window are asked for."""
    d = 4 * int(torch.randint(1, 4, (), generator=g))
    return int(torch.randint(1, 4, (), generator=g)), d, 11, 8, 2


def cost(L: int, d: int, vocab: int, T: int, k: int, head: float | None = None) -> float:
    r = k / T if head is None else head
    return 6 * (12 * L * d**2 + r * d * vocab) + 12 * L * T * d


def counted(L: int, d: int, vocab: int, T: int, k: int, answers: bool = False) -> float:
    """FLOPs for a token read, or asked for, by torch's counter over a step in plain products."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = Transformer(Config(vocab, T, L, 2, d, causal=False))
    tokens = torch.randint(vocab, (2, T))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.head(model.features(tokens)[:, :k]).sum().backward()
    return counter.get_total_flops() / (2 * k if answers else tokens.numel())


def beliefs(g: torch.Generator) -> tuple[Tensor]:
    """What the rest of the text says of one token (7,)."""
    return (torch.randn(7, generator=g, dtype=torch.float64).softmax(0),)


def fates(p: Tensor) -> Iterator[tuple[float, int, int | None, bool]]:
    """Everything that can become of one token: chance, truth, what is seen (None: mask), asked."""
    for truth, share in enumerate(p):
        yield share * (1 - RATE), truth, truth, False
        yield share * RATE * HIDDEN, truth, None, True
        yield share * RATE * KEPT, truth, truth, True
        for other in range(len(p)):
            yield share * RATE * REPLACED / len(p), truth, other, True


def trusted(p: Tensor, asked: bool | None = None) -> Tensor:
    """The chance that a visible token is the truth, for each id, by listing every fate."""
    right, seen = torch.zeros_like(p), torch.zeros_like(p)
    for chance, truth, shown, chosen in fates(p):
        if shown is not None and (asked is None or asked == chosen):
            seen[shown] += chance
            right[shown] += chance * (truth == shown)
    return right / seen


def trust(p: Tensor, never: float = 1 - RATE, same: float = 1.0) -> Tensor:
    wrong = RATE * REPLACED / len(p)
    whole = never + RATE * KEPT
    return p * (whole + same * wrong) / (p * whole + wrong)


def asked(p: Tensor, same: float = 1.0) -> Tensor:
    other = REPLACED / len(p)
    return p * (KEPT + same * other) / (p * KEPT + other)


def outcomes(p: Tensor) -> Tensor:
    """Shares of the tokens that are masked, another token, the same though asked, never asked."""
    total = torch.zeros(4, dtype=torch.float64)
    for chance, truth, shown, chosen in fates(p):
        kind = 3 if not chosen else 0 if shown is None else 2 if shown == truth else 1
        total[kind] += chance
    return total


def shares(p: Tensor, same: float = 1.0) -> Tensor:
    s = REPLACED * same / len(p)
    return torch.tensor(
        [RATE * HIDDEN, RATE * (REPLACED - s), RATE * (KEPT + s), 1 - RATE], dtype=torch.float64
    )


def half_trusted(n_ids: int) -> float:
    """Where the listed chance of being asked about the truth crosses a half, by bisection."""
    low, high = 0.0, 0.5
    for _ in range(45):
        middle = (low + high) / 2
        p = torch.full((n_ids,), (1 - middle) / (n_ids - 1), dtype=torch.float64)
        p[0] = middle
        low, high = (middle, high) if trusted(p, asked=True)[0] < 0.5 else (low, middle)
    return low


def twins(g: torch.Generator) -> tuple[int]:
    return (int(torch.randint(2, 50, (), generator=g)),)


def few(g: torch.Generator) -> tuple[int]:
    return (int(torch.randint(2, 7, (), generator=g)),)


def two_tied(n_ids: int) -> Tensor:
    """The table of texts of two tokens that are always the same."""
    return torch.eye(n_ids, dtype=torch.float64) / n_ids


def tied_scores(n_ids: int) -> Tensor:
    """Perplexity and pseudo-perplexity of such a text, from the table."""
    p = two_tied(n_ids)
    perplexity = p[0, 0] ** (-1 / 2)
    pseudo = (p[0, 0] / p[0].sum() * p[0, 0] / p[:, 0].sum()) ** (-1 / 2)
    return torch.stack([perplexity, pseudo])


def tied_sum(n_ids: int) -> Tensor:
    p = two_tied(n_ids)
    rows, columns = p / p.sum(1, keepdim=True), p / p.sum(0, keepdim=True)
    return (rows * columns).sum()


def gibbs(p: Tensor, which: Callable[[int], set[int]] = others) -> Tensor:
    """The distribution after the token at place 1 was drawn anew, its chance by `which`."""
    i = 1
    after = [put(p, x, i).sum() * conditional(p, x, i, which(i))[x[i]] for x in TEXTS]
    return torch.stack(after)


def rest_of(p: Tensor, start: int = 0, softly: bool = True) -> Tensor:
    """p(xᵢ | others) from left-to-right factors alone, those from place i + `start` on."""

    def one(_: Tensor, x: tuple, i: int) -> Tensor:
        scores = []
        for c in range(V):
            y = (*x[:i], c, *x[i + 1 :])
            factors = [conditional(p, y, j, left(j))[y[j]] for j in range(i + start, N)]
            scores.append(torch.stack([torch.ones(()), *factors]).prod())
        scores = torch.stack(scores)
        return (scores / scores.sum())[x[i]] if softly else scores[x[i]]

    return blanket(p, one)


def chain(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A first token's chances (V,) and those of each next one (V, V)."""
    step = torch.randn(V, V, generator=g, dtype=torch.float64).softmax(1)
    return torch.randn(V, generator=g, dtype=torch.float64).softmax(0), step


def chain_table(first: Tensor, step: Tensor) -> Tensor:
    return torch.einsum("a,ab,bc,cd->abcd", first, step, step, step)


def between(first: Tensor, step: Tensor, after: bool = True) -> Tensor:
    """p(x₂ | both neighbours) of each text from the two steps beside it."""
    rows = []
    for x in TEXTS:
        scores = step[x[0]] * (step[:, x[2]] if after else 1)
        rows.append(scores[x[1]] / scores.sum())
    return torch.stack(rows)


def pairs(g: torch.Generator) -> tuple[Tensor, float]:
    """Tokens of a text, and how many observations are imagined."""
    return torch.randint(V, (60,), generator=g), 2.0


def single(ids: Tensor, k: float) -> Tensor:
    return (torch.bincount(ids, minlength=V).double() + k / V) / (len(ids) + k)


def from_right(ids: Tensor, k: float, swap: bool = False) -> Tensor:
    """p(b | the token after it is c) for all (b, c), by loops over the text."""
    chances = torch.zeros(V, V, dtype=torch.float64)
    for b, c in itertools.product(range(V), repeat=2):
        n_bc = sum(int(one == b and two == c) for one, two in itertools.pairwise(ids.tolist()))
        n_c = sum(int(two == c) for two in ids.tolist()[1:])
        chances[(c, b) if swap else (b, c)] = (n_bc + k * single(ids, k)[b]) / (n_c + k)
    return chances


def counted_right(ids: Tensor, k: float, shared: bool = True) -> Tensor:
    n = torch.zeros(V, V, dtype=torch.float64)
    n.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1, dtype=torch.float64), True)
    prior = single(ids, k)[:, None] if shared else torch.full((V, 1), 1 / V, dtype=torch.float64)
    return (n + k * prior) / (n.sum(0) + k)


LEDGER = {
    "12.1": Formula(
        joint,
        lambda p: blanket(p, by_bayes),
        chances,
        {
            "only the left": lambda p: chances(p, left),
            "not divided": lambda p: blanket(p, lambda p, x, i: p[x]),
        },
    ),
    "12.2": Formula(
        joint,
        lambda p: blanket(p, by_bayes).log().sum(1),
        lambda p: chances(p).prod(1).log(),
        {
            "the chain rule": lambda p: chances(p, left).log().sum(1),
            "a mean": lambda p: chances(p).log().mean(1),
        },
    ),
    "12.3": Formula(
        two,
        lambda p, q: entropies(p) + mean(p, divergences(p, q)),
        lambda p, q: mean(p, -chances(q).log()),
        {
            "divergence the other way": lambda p, q: entropies(p) + mean(p, divergences(q, p)),
            "no entropy": lambda p, q: mean(p, divergences(p, q)),
            "the model's entropy": lambda p, q: entropies(q) + mean(p, divergences(p, q)),
        },
    ),
    "12.4": Formula(
        joint,
        lambda p: -chances(p).log().sum(1) / N,
        lambda p: masked_losses(p, 1).mean(1),
        {
            "sum for mean": lambda p: -chances(p).log().sum(1),
            "sign": lambda p: chances(p).log().mean(1),
        },
    ),
    "12.5": Formula(
        hiding,
        lambda p, k: masked_losses(p, k),
        by_ignoring,
        {"over all tokens": lambda p, k: masked_losses(p, k, share=N)},
    ),
    "12.6": Formula(
        hiding,
        lambda p, k: by_places(p, k),
        lambda p, k: masked_losses(p, k).mean(1),
        {
            "all others seen": lambda p, k: by_places(p, 1),
            "once more seen": lambda p, k: by_places(p, k + 1),
        },
    ),
    "12.7": Formula(
        joint,
        lambda p: mean_divergence(p),
        more_seen,
        {
            "sign": lambda p: -mean_divergence(p),
            "divergence the other way": lambda p: mean_divergence(p, swap=True),
        },
    ),
    "12.8": Formula(
        sizes,
        cost,
        counted,
        {
            "head everywhere": lambda *a: cost(*a, head=1.0),
            "no head": lambda *a: cost(*a, head=0.0),
        },
    ),
    "12.9": Formula(
        sizes,
        lambda *a: cost(*a) * a[3] / a[4],
        lambda *a: counted(*a, answers=True),
        {"a token read": cost, "times the rate": lambda *a: cost(*a) * a[4] / a[3]},
    ),
    "12.10": Formula(
        beliefs,
        shares,
        outcomes,
        {
            "never by itself": lambda p: shares(p, same=0.0),
            "of all tokens": lambda p: shares(p) / RATE,
        },
    ),
    "12.11": Formula(
        beliefs,
        trust,
        trusted,
        {
            "never by itself": lambda p: trust(p, same=0.0),
            "asked alone": lambda p: trust(p, never=0.0),
            "no doubt": lambda p: torch.ones_like(p),
        },
    ),
    "12.12": Formula(
        beliefs,
        asked,
        lambda p: trusted(p, asked=True),
        {"never by itself": lambda p: asked(p, same=0.0), "all visible": trust},
    ),
    "12.13": Formula(
        few,
        lambda n: 1 / (n + 2),
        half_trusted,
        {"one over V": lambda n: 1 / n, "one more": lambda n: 1 / (n + 1)},
    ),
    "12.14": Formula(
        joint,
        lambda p: (-chances(p).log().sum(1) / N).exp(),
        lambda p: (1 / chances(p)).prod(1) ** (1 / N),
        {
            "perplexity": lambda p: (-chances(p, left).log().sum(1) / N).exp(),
            "no mean": lambda p: (-chances(p).log().sum(1)).exp(),
        },
    ),
    "12.15": Formula(
        joint,
        lambda p: torch.stack([mean(p, -chances(p).log().sum(1)), -(p * p.log()).sum()]).diff() > 0,
        lambda p: torch.ones(1),
        {
            "the other way": lambda p: (
                torch.stack([-(p * p.log()).sum(), mean(p, -chances(p).log().sum(1))]).diff() > 0
            ),
        },
    ),
    "12.16": Formula(
        twins,
        lambda n: torch.tensor([math.sqrt(n), 1.0], dtype=torch.float64),
        tied_scores,
        {
            "both alike": lambda n: torch.tensor([math.sqrt(n)] * 2, dtype=torch.float64),
            "no root": lambda n: torch.tensor([float(n), 1.0], dtype=torch.float64),
        },
    ),
    "12.17": Formula(twins, lambda n: float(n), tied_sum, {"a distribution": lambda n: 1.0}),
    "12.18": Formula(
        joint,
        gibbs,
        lambda p: p.flatten(),
        {"from the left alone": lambda p: gibbs(p, left)},
    ),
    "12.19": Formula(
        joint,
        rest_of,
        chances,
        {
            "its own factor left out": lambda p: rest_of(p, start=1),
            "not divided": lambda p: rest_of(p, softly=False),
        },
    ),
    "12.20": Formula(
        chain,
        between,
        lambda first, step: chances(chain_table(first, step))[:, 1],
        {"from the left alone": lambda first, step: between(first, step, after=False)},
    ),
    "12.21": Formula(
        pairs,
        counted_right,
        from_right,
        {
            "equal shares": lambda ids, k: counted_right(ids, k, shared=False),
            "the left neighbour": lambda ids, k: counted_right(ids.flip(0), k),
        },
    ),
}

TestLedger = prove(PAGE, LEDGER)


class TestTheExperiment:
    def test_every_kind_is_stored_with_three_seeds(self):
        cells = load_result("masked")["cells"]
        assert set(cells) == {f"{kind}/{seed}" for kind in blanks.KINDS for seed in range(3)}

    def test_all_kinds_start_from_the_same_blocks_and_read_the_same_text(self):
        causal, both = (blanks.little_run(kind, 0) for kind in ("causal", "0.15"))
        pairs = zip(causal.model.blocks.parameters(), both.model.blocks.parameters(), strict=True)
        assert all(a.shape == b.shape for a, b in pairs)
        inputs, targets = both.batches(3)
        text = causal.batches(3)[0]
        assert torch.equal(torch.where(targets < 0, inputs, targets), text)

    def test_a_blank_is_asked_of_the_decoder_by_the_text_before_it_alone(self):
        model = blanks.little_run("causal", 0).model
        torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
        for block in model.blocks:
            torch.nn.init.normal_(block.attention.out.weight, std=0.3)
        text, places = blanks.windows(50)
        later = text.clone()
        for row, place in zip(later, places, strict=True):
            row[place:] = (row[place:] + 1) % 257
        same = [blanks._logits(model, rows, places - 1) for rows in (text, later)]
        assert torch.allclose(*same, atol=1e-5)

    def test_a_place_is_in_the_middle_half_and_always_the_same(self):
        text, places = blanks.windows(300)
        assert places.min() >= 16 and places.max() < 48 and len(text) == 300
        assert torch.equal(places, blanks.windows(300)[1])

    def test_an_unknown_kind_names_those_there_are(self):
        with pytest.raises(ValueError, match=r"choose one of causal, 0\.05"):
            blanks.little_run("0.2", 0)

    def test_a_seed_run_again_for_a_few_steps_is_on_its_way(self):
        stored = load_result("masked")["cells"]["0.15/0"]["bits"]
        assert stored < blanks.measure("0.15", 0, steps=40)["bits"] < math.log2(258)
