"""States of a run as trees of tensors and plain values: copies of them, and their size."""

from typing import Any

import torch
from torch import Tensor, nn


def copied(tree: Any) -> Any:
    """A copy in the computer's own memory that shares no tensor, list or dict with `tree`."""
    if isinstance(tree, Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(copied(value) for value in tree)
    return tree


def n_bytes(tree: Any) -> int:
    """Memory that a tree of tensors and plain values takes, about 32 bytes a plain value."""
    if isinstance(tree, Tensor):
        return tree.nbytes + 64
    if isinstance(tree, dict):
        return 64 + sum(32 + n_bytes(value) for value in tree.values())
    if isinstance(tree, list | tuple):
        return 64 + sum(8 + n_bytes(value) for value in tree)
    return 32


def expected_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """About what a snapshot will take, also before the first step has made the averages.

    An optimiser that is not known by its settings is taken to keep one average.
    """
    total = n_bytes(model.state_dict())
    for group in optimizer.param_groups:
        if group.get("muon"):
            averages = 1
        elif "betas" in group:
            averages = 2
        else:
            averages = int(bool(group.get("momentum", 1)))
        total += averages * sum(p.nbytes for p in group["params"])
    return total
