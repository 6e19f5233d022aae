"""A run small enough for many: a model of two layers on forty symbols, with chance in its loss."""

import numpy as np
import torch

from mslearn.batches import Batches, Tokens
from mslearn.checkpoint import Checkpoints
from mslearn.device import Device
from mslearn.optim import muon_and_adamw
from mslearn.run import Run, next_token_loss
from mslearn.schedules import warmup_cosine, warmup_stable_decay
from mslearn.transformer import Config, Transformer

CPU = Device("cpu", "test", None)
STEPS = 20


def tokens(count: int = 4000, vocab: int = 40) -> Tokens:
    """Token ids with something to learn in them: each is the one before, plus 1 or 2."""
    steps = np.random.default_rng(0).integers(1, 3, size=count)
    return Tokens((np.cumsum(steps) % vocab).astype(np.uint16), np.ones(vocab, dtype=int))


def noisy_loss(model: torch.nn.Module, batch: tuple) -> torch.Tensor:
    """The next token's loss, some of the inputs changed by chance: random state matters."""
    inputs, targets = batch
    spoilt = torch.rand(inputs.shape) < 0.05
    return next_token_loss(model, (torch.where(spoilt, 0, inputs), targets))


def make_run(folder=None, save_every: int = 0, loss=noisy_loss, **more) -> Run:
    """The same run each time it is called, checkpoints in `folder`."""
    torch.manual_seed(0)
    model = Transformer(Config(vocab_size=40, context=16, n_layers=2, n_heads=2, d_model=16))
    return Run(
        model,
        Batches(tokens(), context=16, batch_size=4),
        muon_and_adamw(model, lr=0.02, adam_lr=0.01),
        loss=loss,
        device=CPU,
        checkpoints=Checkpoints(folder) if folder else None,
        save_every=save_every,
        **{"schedule": warmup_stable_decay(0.02, 3, STEPS), **more},
    )


def tiny_run(seed: int = 0, loss=None, **more) -> Run:
    """A network of two layers with dropout: the smallest run in which everything matters."""
    torch.manual_seed(seed)
    first, last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)
    model = torch.nn.Sequential(first, torch.nn.Tanh(), torch.nn.Dropout(0.1), last)
    groups = [
        {"params": list(first.parameters()), "name": "first"},
        {"params": list(last.parameters()), "lr": 0.005, "name": "last"},
    ]

    def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(8, 8, generator=torch.Generator().manual_seed(step))
        return x, x.roll(1, dims=1)

    def squares(model: torch.nn.Module, batch: tuple) -> torch.Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    return Run(
        model,
        batches,
        torch.optim.AdamW(groups, lr=0.01),
        device=CPU,
        **{"schedule": warmup_cosine(0.01, 5, 300), "loss": loss or squares, **more},
    )


def finish(run: Run, steps: int = STEPS) -> Run:
    """Train to the end."""
    for _ in run.train(steps):
        pass
    return run


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether every bit of two models agrees."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)
