"""The experiment `initializers`: from which starts a deep network of next bytes trains, how far.

Chains of layers, and residual streams with as many matrices in their branches. No normaliser, no
clipping, no schedule: nothing but the start guards the run. Each start at the best of its rates.
"""

import math
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mslearn import data
from mslearn.device import Device, pick
from mslearn.init import (
    kaiming_normal_,
    kaiming_uniform_,
    orthogonal_,
    residual_outputs_,
    xavier_normal_,
)
from mslearn.normalizers import (
    BATCH,
    CONTEXT,
    EMBEDDED,
    HELD_OUT_BYTES,
    STEPS,
    WIDTH,
    NextByte,
    Windows,
    held_out,
    next_byte_loss,
    texts,
    train,
)
from mslearn.optim import AdamW
from mslearn.run import Run
from mslearn.store import Store

CHAINS = {
    "default": lambda w: kaiming_uniform_(w, "leaky_relu", slope=math.sqrt(5)),  # PyTorch's own
    "xavier": xavier_normal_,
    "kaiming": kaiming_normal_,
    "orthogonal": lambda w: orthogonal_(w, math.sqrt(2)),
    "doubled": lambda w: kaiming_normal_(w).mul_(2),
}
STREAMS = {"stream": "plain", "scaled": "scaled", "zero": "zero"}  # how branches begin
STARTS = (*CHAINS, *STREAMS)
DEPTHS = (4, 8, 16, 32)  # matrices of the chain, or in the branches of the stream
RATES = {"sgd": (0.003, 0.03, 0.1, 0.3), "adamw": (0.001, 0.003, 0.01)}


class Stream(nn.Module):
    """Embed the bytes before, enter a stream of `WIDTH`, add `depth / 2` branches; then 256 logits.

    A branch is linear, ReLU, linear, from Kaiming's weights; `how` starts its last matrix as in
    `init.residual_outputs_`. Biases of the branches start at zero.
    """

    def __init__(self, how: str, depth: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(256, EMBEDDED)
        self.enter = nn.Linear(CONTEXT * EMBEDDED, WIDTH)
        kaiming_normal_(self.enter.weight, "linear")
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(depth // 2)
        )
        for into, _, out in self.branches:
            kaiming_normal_(into.weight)
            nn.init.zeros_(into.bias)
            nn.init.zeros_(out.bias)
        residual_outputs_([out.weight for _, _, out in self.branches], how)
        self.head = nn.Linear(WIDTH, 256)

    def hidden(self, tokens: Int[Tensor, "batch context"]) -> list[Float[Tensor, "batch width"]]:
        """The stream where it begins and after each branch."""
        seen = [self.enter(self.embedding(tokens).flatten(1))]
        for branch in self.branches:
            seen.append(seen[-1] + branch(seen[-1]))
        return seen

    def forward(self, tokens: Int[Tensor, "batch context"]) -> Float[Tensor, "batch 256"]:
        return self.head(self.hidden(tokens)[-1])


@torch.no_grad()
def network(start: str, depth: int, seed: int = 0) -> NextByte | Stream:
    """The network of one cell at step 0. Raises ValueError for an unknown start."""
    if start in STREAMS:
        return Stream(STREAMS[start], depth, seed)
    if start not in CHAINS:
        raise ValueError(f"no start {start!r}: choose one of {', '.join(STARTS)}")
    model = NextByte("none", seed, depth=depth)
    for linear in model.linears:
        CHAINS[start](linear.weight)
    return model


def make_run(
    optimizer: str, depth: int, start: str, lr: float, seed: int, text: Tensor, device: Device
) -> Run:
    """The run of one cell: the bytes of `text`, one rate throughout."""
    model = network(start, depth, seed)
    step = {"sgd": torch.optim.SGD, "adamw": AdamW}[optimizer](model.parameters(), lr=lr)
    return Run(model, Windows(text, seed), step, loss=next_byte_loss, device=device, clip=0)


def scores(run: Run, text: Tensor) -> dict[str, float | None]:
    """Train; bits per byte on two parts of a held-out `text`: to choose a rate by, and to report.

    None where the numbers did not stay finite.
    """
    result = train(run, text)
    finite = result["bits"] is not None
    test = held_out(run.model, text[HELD_OUT_BYTES:]) if finite else math.inf
    return {"valid": result["bits"], "test": round(test, 4) if math.isfinite(test) else None}


def best_rate(cells: dict[str, dict], optimizer: str, depth: int, start: str) -> float:
    """The rate whose seeds have the fewest bits to choose by, on average over those that were run.

    A rate at which one seed did not stay finite comes last; the least rate where all are like that.
    """

    def bits(lr: float) -> float:
        prefix = named(optimizer, depth, start, lr, "")
        found = [cell["valid"] for name, cell in cells.items() if name.startswith(prefix)]
        return math.inf if None in found or not found else sum(found) / len(found)

    return min(RATES[optimizer], key=bits)


def named(optimizer: str, depth: int, start: str, lr: float, seed: int | str) -> str:
    """The name of a cell."""
    return f"{optimizer}/{depth}/{start}/{lr:g}/{seed}"


def experiment(store: Store, base: Path | None = None) -> None:
    """Try each rate with the first seed, the best with all of them. `base` is not used."""
    text, store.device = texts(), pick(amp=False)
    settings = {
        "plan": [STEPS, BATCH, CONTEXT, EMBEDDED, WIDTH, HELD_OUT_BYTES],
        "texts": {"wiki": data.load("wiki").sha256},
    }

    def cell(*key: str | float) -> None:
        def work() -> dict:
            return scores(make_run(*key, text["train"], store.device), text["valid"])

        store.cell(named(*key), settings, work)

    for key in product(RATES, DEPTHS, STARTS):
        for lr in RATES[key[0]]:
            cell(*key, lr, store.seeds[0])
        for _ in RATES[key[0]]:  # the other seeds may show that another rate is better
            lr = best_rate(store.cells(), *key)
            for seed in store.seeds[1:]:
                cell(*key, lr, seed)
