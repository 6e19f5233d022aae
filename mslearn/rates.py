"""The experiment `rates`: schedules at equal budget, rate and over-fitting, rate and batch size.

All on Wikipedia, read byte by byte by a transformer of one block: small enough for many seeds.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.optim import Optimizer

from mslearn import data
from mslearn.batches import Batches, HeldOut, Tokens
from mslearn.device import Device
from mslearn.optim import AdamW, muon_and_adamw
from mslearn.run import Run
from mslearn.schedules import (
    ReduceOnPlateau,
    Schedule,
    constant,
    inverse_sqrt,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
)
from mslearn.store import Store
from mslearn.transformer import Config, Transformer

CONTEXT, WIDTH, BATCH, WARMUP = 64, 64, 16, 20
STEPS, EVERY, WATCHED = 400, 20, 8_000  # the plateau looks at so many bytes, so often
PEAKS = (0.0075, 0.015, 0.03, 0.06, 0.12)
SHAPES: dict[str, Callable[[float, int], Schedule]] = {
    "bare": lambda peak, steps: constant(peak),
    "constant": lambda peak, steps: warmup_stable_decay(peak, WARMUP, steps, 0),
    "plateau": lambda peak, steps: ReduceOnPlateau(peak, 0.5, 1, 0.005, warmup=WARMUP),
    "inverse_sqrt": lambda peak, steps: inverse_sqrt(peak, WARMUP),
    "stable": lambda peak, steps: warmup_stable_decay(peak, WARMUP, steps, 0.3),
    "cosine": lambda peak, steps: warmup_cosine(peak, WARMUP, steps, 0),
    "linear": lambda peak, steps: warmup_linear(peak, WARMUP, steps),
}
GAP_STEPS, GAP_EVERY, SCORED = 480, 60, 32_768
GAP_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
GAP_TEXTS = {"32": 32_768, "256": 262_144}  # in bytes; the small one begins the large one
SMALL_BATCH, SMALL_STEPS, SHORT = 4, 800, 32  # a batch, its steps and its context in tokens
SCALED = {"sgd": 0.1, "slow": 0.001, "adamw": 0.003}  # rates of the small batch
FACTORS = (1, 2, 4)


def texts() -> dict[str, Tokens]:
    """The bytes of the Wikipedia leads, by split, articles shuffled: any piece has every topic."""
    joined = {}
    for split in data.SPLITS:
        articles = data.load("wiki").split(split)
        order = np.random.default_rng(0).permutation(len(articles))
        joined[split] = "\n".join(articles[i].text for i in order).encode()
    return {s: as_tokens(np.frombuffer(raw, np.uint8)) for s, raw in joined.items()}


def as_tokens(ids: np.ndarray) -> Tokens:
    """Bytes as tokens of one byte each."""
    return Tokens(ids, np.ones(256, dtype=int))


def piece(tokens: Tokens, size: int, seed: int) -> Tokens:
    """`size` bytes of text, another place for each seed."""
    start = seed * max(GAP_TEXTS.values())
    return as_tokens(tokens.ids[start : start + size])


def network(seed: int, context: int = CONTEXT) -> Transformer:
    """One block, 82 thousand weights, bytes in and logits of the next byte out."""
    torch.manual_seed(seed)
    return Transformer(Config(256, context, n_layers=1, n_heads=2, d_model=WIDTH))


def exact(device: Device) -> Device:
    """The device in float32: products this small gain nothing from fewer bits."""
    return replace(device, amp_dtype=None)


def make_run(
    text: Tokens, schedule: Schedule, seed: int, device: Device, watched: Tokens | None = None
) -> Run:
    """A run of the course's optimiser, its rate by `schedule`; a plateau needs a text to watch."""
    model = network(seed)
    optimizer = muon_and_adamw(model, 0.03, 0.01)  # the schedule sets the rate; this is the ratio
    watching = {}
    if isinstance(schedule, ReduceOnPlateau):
        score = HeldOut(watched, CONTEXT, max_tokens=WATCHED)
        watching = {"evaluate": schedule.watch(score, "bits_per_byte"), "evaluate_every": EVERY}
    batches = Batches(text, CONTEXT, BATCH, seed)
    return Run(model, batches, optimizer, schedule=schedule, device=exact(device), **watching)


def score(run: Run, text: Tokens, most: int = SCORED, context: int = CONTEXT) -> float:
    """Bits per byte of the run's model on the beginning of a text."""
    found = HeldOut(text, context, max_tokens=most)(run.model.eval(), run.device)
    run.model.train()
    return round(found["bits_per_byte"], 4)


def by_shape(
    text: dict[str, Tokens], shape: str, peak: float, seed: int, split: str, device: Device
) -> dict:
    """One schedule, once: bits per byte of `split` at the end, and the last rate."""
    run = make_run(text["train"], SHAPES[shape](peak, STEPS), seed, device, text["valid"])
    last = [record.lr for record in run.train(STEPS)][-1]
    return {"bits_per_byte": score(run, text[split]), "last_rate": round(last, 6)}


def overfit(
    text: dict[str, Tokens],
    n_bytes: int,
    schedule: Schedule,
    seed: int,
    device: Device,
    steps: int = GAP_STEPS,
    every: int = GAP_EVERY,
    scored: int = SCORED,
) -> dict:
    """Many passes over little text: bits per byte of that text and of unseen text, as it goes.

    Both are measured on at most `scored` bytes, after each `every` steps.
    """
    little = piece(text["train"], n_bytes, seed)
    run = make_run(little, schedule, seed, device)
    seen, unseen = [], []
    for record in run.train(steps):
        if (record.step + 1) % every == 0:
            seen.append(score(run, little, scored))
            unseen.append(score(run, text["valid"], scored))
    passes = round(steps / run.batches.steps_per_pass, 2)
    return {"seen": seen, "unseen": unseen, "passes": passes}


def scaled(
    text: dict[str, Tokens], kind: str, factor: int, seed: int, device: Device, larger: int = 4
) -> dict:
    """The small batch's rate times `factor` on a batch `larger` times its size; equal text."""
    model, rate = network(seed, SHORT), SCALED[kind] * factor
    make: type[Optimizer] = torch.optim.SGD if kind == "sgd" else AdamW
    batches = Batches(text["train"], SHORT, SMALL_BATCH * larger, seed)
    run = Run(model, batches, make(model.parameters(), lr=rate), device=exact(device), clip=0)
    for _ in run.train(SMALL_STEPS // larger):
        pass
    return {"bits_per_byte": score(run, text["valid"], context=SHORT)}


def best_peak(cells: dict[str, dict], shape: str) -> float:
    """The peak with the fewest bits per byte of validation text in the search."""
    found = {
        cell["settings"]["peak"]: cell["bits_per_byte"]
        for name, cell in cells.items()
        if name.startswith(f"search/{shape}/")
    }
    if not found:
        raise ValueError(f"no peak was searched for {shape}: run its cells search/{shape}/* first")
    return min(found, key=found.get)


def experiment(store: Store, base: Path | None = None) -> None:
    """Search each shape's peak with seed 0, then every seed of the three questions.

    `base` is not used.
    """
    text, store.device = texts(), exact(store.device)
    device = store.device
    made_of = {"texts": {"wiki": data.load("wiki").sha256}}

    def cell(name: str, work: Callable[[], dict], **settings: float) -> None:
        store.cell(name, {**made_of, **settings}, work)

    for shape in SHAPES:
        for peak in PEAKS:
            found = (text, shape, peak, 0, "valid", device)
            cell(f"search/{shape}/{peak}", lambda f=found: by_shape(*f), peak=peak, steps=STEPS)
        for seed in store.seeds:
            if store.wants(name := f"schedule/{shape}/{seed}"):
                peak = best_peak(store.cells(), shape)
                found = (text, shape, peak, seed, "test", device)
                cell(name, lambda f=found: by_shape(*f), peak=peak, steps=STEPS)
    for seed in store.seeds:
        for size, shape in (("32", "constant"), ("32", "linear"), ("256", "constant")):
            for rate in GAP_RATES:
                found = (text, GAP_TEXTS[size], SHAPES[shape](rate, GAP_STEPS), seed, device)
                name = f"gap/{size}/{shape}/{rate}/{seed}"
                cell(name, lambda f=found: overfit(*f), rate=rate, steps=GAP_STEPS)
        for kind, rate in SCALED.items():
            found = (text, kind, 1, seed, device, 1)
            cell(f"batch/{kind}/small/{seed}", lambda f=found: scaled(*f), rate=rate)
            for factor in FACTORS:
                found = (text, kind, factor, seed, device)
                name = f"batch/{kind}/{factor}/{seed}"
                cell(name, lambda f=found: scaled(*f), rate=rate * factor)
