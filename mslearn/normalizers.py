"""The experiment `normalizers`: which learning rates still train a network of next bytes.

Plain gradient descent, no clipping, no schedule: nothing but the normaliser guards the run.
"""

import math
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn import data
from mslearn.device import Device, pick
from mslearn.losses import bits_per_byte
from mslearn.norms import BatchNorm1d, LayerNorm, RMSNorm, WeightNormLinear
from mslearn.run import Batch, Run
from mslearn.store import Store

KINDS = ("none", "batch", "layer", "rms", "weight")
RATES = tuple(round(10 ** (k / 2), 4) for k in range(-6, 5))  # 0.001 to 100, two a decade
STEPS, BATCH, CONTEXT = 300, 128, 16
EMBEDDED, WIDTH, DEPTH = 16, 128, 8
DEPTHS = (2, DEPTH)
HELD_OUT_BYTES = 20_000


@dataclass(frozen=True)
class Windows:
    """`windows(step)`: the bytes before a random place in `text`, and the byte there."""

    text: Int[Tensor, "bytes"]
    seed: int = 0

    def __call__(self, step: int) -> Batch:
        generator = np.random.default_rng([self.seed, step])
        return self.at(generator.integers(len(self.text) - CONTEXT, size=BATCH))

    def at(self, starts: Int[np.ndarray, "batch"]) -> Batch:
        """Inputs (batch, CONTEXT) and the byte that follows each (batch,)."""
        places = torch.from_numpy(starts)[:, None] + torch.arange(CONTEXT + 1)
        window = self.text[places]
        return window[:, :-1], window[:, -1]


def texts() -> dict[str, Int[Tensor, "bytes"]]:
    """The bytes of the Wikipedia leads for training and for validation."""
    wiki = data.load("wiki")
    joined = {s: "\n".join(d.text for d in wiki.split(s)).encode() for s in ("train", "valid")}
    return {
        s: torch.from_numpy(np.frombuffer(raw, np.uint8).copy()).long() for s, raw in joined.items()
    }


class NextByte(nn.Module):
    """Embed the bytes before, then `depth` times: linear, normalise, ReLU; then 256 logits.

    `gain` multiplies Kaiming's weights at the start. Raises ValueError for an unknown `kind`.
    """

    def __init__(self, kind: str, seed: int = 0, gain: float = 1.0, depth: int = DEPTH) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"no normaliser {kind!r}: choose one of {', '.join(KINDS)}")
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(256, EMBEDDED)
        sizes = [CONTEXT * EMBEDDED, *[WIDTH] * depth]
        linears = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        for linear in linears:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            linear.weight.data *= gain
            nn.init.zeros_(linear.bias)
        wrap = WeightNormLinear if kind == "weight" else nn.Identity
        self.linears = nn.ModuleList(wrap(x) if kind == "weight" else x for x in linears)
        self.norms = nn.ModuleList(norm(kind) for _ in linears)
        self.head = nn.Linear(WIDTH, 256)

    def hidden(self, tokens: Int[Tensor, "batch context"]) -> list[Float[Tensor, "batch width"]]:
        """What goes into the ReLU of each layer."""
        x, seen = self.embedding(tokens).flatten(1), []  # (B, 16, 16) -> (B, 256)
        for linear, normalize in zip(self.linears, self.norms, strict=True):
            seen.append(normalize(linear(x)))
            x = F.relu(seen[-1])
        return seen

    def forward(self, tokens: Int[Tensor, "batch context"]) -> Float[Tensor, "batch 256"]:
        return self.head(F.relu(self.hidden(tokens)[-1]))


def norm(kind: str) -> nn.Module:
    """The normaliser of one layer's activations; none where it is the weights that it acts on."""
    return {"batch": BatchNorm1d, "layer": LayerNorm, "rms": RMSNorm}.get(kind, nn.Identity)(WIDTH)


def next_byte_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats."""
    return F.cross_entropy(model(batch[0]), batch[1])


@torch.no_grad()
def held_out(model: nn.Module, text: Int[Tensor, "bytes"]) -> float:
    """Bits per byte on the beginning of `text`, with running statistics where there are any."""
    place = next(model.parameters()).device
    inputs, targets = (each.to(place) for each in Windows(text).at(np.arange(HELD_OUT_BYTES)))
    nats = F.cross_entropy(model.eval()(inputs), targets, reduction="sum")
    return bits_per_byte(float(nats), HELD_OUT_BYTES)


def make_run(
    kind: str, lr: float, seed: int, text: Int[Tensor, "bytes"], device: Device, depth: int = DEPTH
) -> Run:
    """Plain gradient descent at one rate."""
    model = NextByte(kind, seed, depth=depth)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Run(model, Windows(text, seed), optimizer, loss=next_byte_loss, device=device, clip=0)


def train(run: Run, text: Int[Tensor, "bytes"]) -> dict[str, float | None]:
    """Held-out bits per byte after `STEPS` steps, None where the numbers did not stay finite."""
    try:
        for _ in run.train(STEPS):
            pass
        bits = held_out(run.model, text)
    except FloatingPointError:
        bits = math.inf
    return {"bits": round(bits, 4) if math.isfinite(bits) else None, "steps": run.step}


def experiment(store: Store, base: Path | None = None) -> None:
    """Every depth, normaliser, rate and seed, in float32; `base` is not used."""
    text, store.device = texts(), pick(amp=False)
    settings = {
        "plan": f"{STEPS} x {BATCH} of {CONTEXT}, {EMBEDDED} and {WIDTH}, on {HELD_OUT_BYTES}",
        "texts": data.load("wiki").sha256[:16],
    }
    for depth, kind, lr, seed in product(DEPTHS, KINDS, RATES, store.seeds):

        def work(cell: tuple = (kind, lr, seed), depth: int = depth) -> dict:
            return train(make_run(*cell, text["train"], store.device, depth), text["valid"])

        store.cell(f"{depth}/{kind}/{lr:g}/{seed}", settings, work)
