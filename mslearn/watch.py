"""Layer by layer: how large the gradient is, and how large a step is beside its weights."""

from array import array

import torch
from torch import Tensor, nn

from mslearn.records import LayerNorms, Log


class Watch:
    """Norms of gradients and updates by layer, of every `every`-th step; 0 for none.

    They wait on the device and are read with the next step's loss, so that a GPU is not made to
    wait once more. A layer is what a parameter's name says up to its first number: `blocks.3`.
    """

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter]) -> None:
        self.every = 0
        trained = set(map(id, parameters))
        self._layers: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if id(parameter) in trained:
                self._layers.setdefault(layer_of(name), []).append(parameter)
        self.waiting: list[Tensor] = []
        self._at, self._step, self._before, self._gradients = -1, -1, [], []

    @property
    def names(self) -> list[str]:
        return list(self._layers)

    def before(self, step: int) -> None:
        """Between backward and clipping: the gradients' norms, and a copy of the weights."""
        self._before = []
        if self.every and step % self.every == 0:
            self._step = step
            layers = list(self._layers.values())
            self._gradients = [norm([gradient(p) for p in layer]) for layer in layers]
            self._before = [[p.detach().clone() for p in layer] for layer in layers]

    def after(self) -> None:
        """After the step: the length of each layer's update over that of its weights before."""
        if not self._before:
            return
        updates = []
        for layer, before in zip(self._layers.values(), self._before, strict=True):
            moved = norm([p.detach() - old for p, old in zip(layer, before, strict=True)])
            updates.append(moved / norm(before).clamp(min=1e-12))
        self.waiting, self._at, self._before = [*self._gradients, *updates], self._step, []

    def read(self, numbers: list[float], log: Log) -> None:
        """Put into the log what has waited, now that it is here."""
        if numbers:
            half = len(numbers) // 2
            sample = LayerNorms(self._at, array("f", numbers[:half]), array("f", numbers[half:]))
            log.layers.append(sample)
        self.waiting = []


def gradient(parameter: nn.Parameter) -> Tensor:
    """A parameter's gradient, zero where it took no part."""
    return parameter.new_zeros(()) if parameter.grad is None else parameter.grad


def norm(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of all of them together, in float32."""
    return torch.stack([t.float().square().sum() for t in tensors]).sum().sqrt()


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to: `blocks.3.mlp.up.weight` to `blocks.3`."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:-1]) or name
