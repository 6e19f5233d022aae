"""The experiment `resets`: does drawing the weights anew, regularly, help against over-fitting?

A network of next bytes reads one small text again and again. Beside it: weight decay, and ten
times the text; early stopping is read off the curves.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from mslearn import data
from mslearn.device import Device, pick
from mslearn.initializers import network
from mslearn.normalizers import (
    BATCH,
    CONTEXT,
    EMBEDDED,
    HELD_OUT_BYTES,
    WIDTH,
    Windows,
    held_out,
    next_byte_loss,
    texts,
)
from mslearn.optim import AdamW
from mslearn.run import Run
from mslearn.store import Store

STEPS, DEPTH, LR = 1500, 2, 0.003
EVERY, LOOK = 300, 75  # steps between two drawings, and between two looks at the scores
SMALL = 30_000  # bytes


@dataclass(frozen=True)
class Way:
    """How a network is trained: what is `drawn` anew, its weight decay, its text in bytes.

    "all": every weight. "head": the last layer. "half": every weight becomes the mean of itself
    and a fresh one ("shrink and perturb", Ash and Adams 2020).
    """

    drawn: str = ""
    decay: float = 0.0
    n_bytes: int = SMALL


WAYS = {
    "plain": Way(),
    "all anew": Way(drawn="all"),
    "head anew": Way(drawn="head"),
    "half anew": Way(drawn="half"),
    **{f"decay {decay}": Way(decay=decay) for decay in (0.1, 0.3, 1.0)},
    "more text": Way(n_bytes=10 * SMALL),
}


def make_run(way: Way, seed: int, text: Int[Tensor, "bytes"], device: Device) -> Run:
    """AdamW on the beginning of `text`; what is drawn anew is up to `train`."""
    model = network("kaiming", DEPTH, seed)
    optimizer = AdamW(model.parameters(), lr=LR, weight_decay=way.decay)
    batches = Windows(text[: way.n_bytes], seed)
    return Run(model, batches, optimizer, loss=next_byte_loss, device=device, clip=0)


@torch.no_grad()
def draw_anew(run: Run, part: str, seed: int) -> None:
    """Start `part` of the run's network again, and all averages of its optimiser."""
    fresh = network("kaiming", DEPTH, seed).to(run.device.torch_device)
    ours, theirs = (run.model.head, fresh.head) if part == "head" else (run.model, fresh)
    for weight, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        weight.lerp_(other, 0.5 if part == "half" else 1.0)
    run.optimizer.state.clear()


def train(
    run: Run, way: Way, seed: int, held: Int[Tensor, "bytes"], steps: int = STEPS
) -> dict[str, list[float]]:
    """Bits per byte every `LOOK` steps: on the text itself, and on two parts of a held-out one.

    "valid" is there to choose by, "test" to report.
    """
    parts = {"train": run.batches.text, "valid": held, "test": held[HELD_OUT_BYTES:]}
    curves = {name: [] for name in parts}
    for step in range(LOOK, steps + 1, LOOK):
        for _ in run.train(step):
            pass
        for name, text in parts.items():
            curves[name].append(round(held_out(run.model, text), 4))
        if way.drawn and step % EVERY == 0 and step < steps:
            draw_anew(run, way.drawn, seed=1000 * seed + step)
    return curves


def experiment(store: Store, base: Path | None = None) -> None:
    """Every way with every seed. `base` is not used."""
    text, store.device = texts(), pick(amp=False)
    settings = {
        "plan": [STEPS, DEPTH, LR, EVERY, LOOK, BATCH, CONTEXT, EMBEDDED, WIDTH, HELD_OUT_BYTES],
        "texts": {"wiki": data.load("wiki").sha256},
    }
    for name, way in WAYS.items():
        for seed in store.seeds:

            def work(way: Way = way, seed: int = seed) -> dict:
                run = make_run(way, seed, text["train"], store.device)
                return train(run, way, seed, text["valid"])

            store.cell(f"{name}/{seed}", {**settings, "bytes": way.n_bytes}, work)
