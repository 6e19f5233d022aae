"""The experiment `optimizers`: seven optimisers, one small language model, each at its best rate.

Same network, batches, schedule and number of steps; only the optimiser and its rate differ. An
eighth, Adam with an L2 penalty, shows what decoupled decay is for.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch.optim import Optimizer

from mslearn import data
from mslearn.account import smooth
from mslearn.band import wiki_corpus
from mslearn.batches import Batches, Corpus, HeldOut
from mslearn.device import Device, pick
from mslearn.optim import SGD, Adam, AdamW, RMSProp, muon_and_adamw
from mslearn.recipes import Recipe
from mslearn.run import Run
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store
from mslearn.transformer import Transformer

TINY = Recipe(
    steps=300,
    vocab_size=1024,
    context=64,
    n_layers=2,
    n_heads=4,
    d_model=64,
    batch_size=16,
    weight_decay=0.1,
    warmup=6,
)
SEEDS, SEARCH_SEED = range(5), 100
EVERY, VALID_TOKENS = 10, 64_000

METHODS: dict[str, Callable[[Transformer, float], Optimizer]] = {
    "SGD": lambda model, lr: SGD(model.parameters(), lr),
    "momentum": lambda model, lr: SGD(model.parameters(), lr, momentum=0.9),
    "Nesterov": lambda model, lr: SGD(model.parameters(), lr, momentum=0.9, nesterov=True),
    "RMSProp": lambda model, lr: RMSProp(model.parameters(), lr, alpha=0.95),
    "Adam": lambda model, lr: Adam(model.parameters(), lr),
    "AdamW": lambda model, lr: AdamW(model.parameters(), lr, weight_decay=TINY.weight_decay),
    "Adam with L2": lambda model, lr: Adam(model.parameters(), lr, weight_decay=TINY.weight_decay),
    "Muon": lambda model, lr: muon_and_adamw(model, lr, lr / 4),
}
RATES = {
    "SGD": (0.5, 1.0, 2.0, 4.0, 8.0),
    "momentum": (0.25, 0.5, 1.0, 2.0, 4.0),
    "Nesterov": (0.25, 0.5, 1.0, 2.0, 4.0),
    "RMSProp": (0.001, 0.002, 0.004, 0.008, 0.016),
    "Adam": (0.002, 0.004, 0.008, 0.016, 0.032),
    "AdamW": (0.002, 0.004, 0.008, 0.016, 0.032),
    "Adam with L2": (0.002, 0.004, 0.008, 0.016, 0.032),
    "Muon": (0.01, 0.02, 0.04, 0.08, 0.16),
}


def tiny_corpus() -> Corpus:
    """The Wikipedia leads in the tokens of the experiment."""
    return wiki_corpus(TINY.vocab_size)


def make_run(method: str, lr: float, seed: int, corpus: Corpus, device: Device) -> Run:
    """The run of one cell; `seed` decides the first weights and the order of the batches."""
    recipe = replace(TINY, seed=seed)
    model = recipe.model()
    return Run(
        model,
        Batches(corpus.train, recipe.context, recipe.batch_size, seed),
        METHODS[method](model, lr),
        schedule=warmup_stable_decay(lr, recipe.warmup, recipe.steps, recipe.decay),
        device=device,
    )


def score(run: Run, corpus: Corpus) -> float:
    """Bits per byte on the beginning of the validation texts."""
    held_out = HeldOut(corpus.valid, TINY.context, max_tokens=VALID_TOKENS)
    return held_out(run.model.eval(), run.device)["bits_per_byte"]


def follow(run: Run, corpus: Corpus) -> dict:
    """Train to the end: the smoothed loss every tenth step, and the score."""
    losses = smooth([record.loss for record in run.train(TINY.steps)])
    curve = [round(loss, 4) for loss in losses[EVERY - 1 :: EVERY]]
    return {"loss": curve, "bits_per_byte": round(score(run, corpus), 4)}


def best_rate(cells: dict[str, dict], method: str) -> float:
    """The searched rate with the fewest bits per byte; ValueError where none was searched."""
    found = {
        cell["settings"]["lr"]: cell["bits_per_byte"]
        for name, cell in cells.items()
        if name.startswith(f"search/{method}/")
    }
    if not found:
        raise ValueError(f"no rate was searched for {method}; run the cells search/{method}/*")
    return min(found, key=found.__getitem__)


def experiment(store: Store, base: Path | None = None) -> None:
    """Search each optimiser's rate with one seed, then run it with five fresh ones, in float32.

    Other seeds that are asked for come on top. `base` is not used.
    """
    corpus, store.device = tiny_corpus(), pick(amp=False)
    for method, rates in RATES.items():
        for lr in rates:
            _cell(store, corpus, f"search/{method}/{lr}", method, lr, SEARCH_SEED)
        for seed in sorted({*SEEDS, *store.seeds}):
            if store.wants(name := f"{method}/{seed}"):
                _cell(store, corpus, name, method, best_rate(store.cells(), method), seed)


def _cell(store: Store, corpus: Corpus, name: str, method: str, lr: float, seed: int) -> None:
    r = TINY
    settings = {
        "lr": lr,
        "seed": seed,
        "plan": f"{r.steps} x {r.batch_size} of {r.context}, {r.n_layers} layers of {r.d_model}, "
        f"{r.n_heads} heads, {r.vocab_size} tokens, decay {r.weight_decay}, warm-up {r.warmup}",
        "texts": data.load("wiki").sha256[:16],
    }

    def work() -> dict:
        found = follow(make_run(method, lr, seed, corpus, store.device), corpus)
        return {"bits_per_byte": found["bits_per_byte"]} if name.startswith("search/") else found

    store.cell(name, settings, work)
