"""A batch in parts, and threads that each take one: a training step waits for them only once.

PyTorch shares out every single product among its threads, and at each of them all wait for the
slowest: on two cores, one of them busy with something else, that is no faster than one thread.
Here a thread takes its part of the batch through the network and back by itself. The gradients add
up to the batch's, by chapter 11's (11.10), in the order of the parts: which thread was faster does
not change a bit of the sum. What it gains is in `mslearn bench train`.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from mslearn.fused import IGNORED

MOST = 4  # threads of a crew, for each holds a gradient of its own; with more cores, several each


def by_targets(loss: Callable) -> Callable:
    """Mark a loss as the mean over a batch's targets, its last tensor, that are not `IGNORED`."""
    loss.by_targets = True
    return loss


def in_parts(
    batch: Sequence[Tensor], count: int, by_targets: bool
) -> list[tuple[tuple[Tensor, ...], float]]:
    """Up to `count` parts of whole texts, each with its share in the batch's mean.

    A part counts by its targets where the loss does, and else by its texts; one without any is
    left out.
    """
    parts = list(zip(*(tensor.chunk(count) for tensor in batch), strict=True))
    if len(parts) == 1:
        return [(parts[0], 1.0)]
    counts = [int((p[-1] != IGNORED).sum()) if by_targets else len(p[0]) for p in parts]
    if not any(counts):
        return [(tuple(batch), 1.0)]
    return [(part, n / sum(counts)) for part, n in zip(parts, counts, strict=True) if n]


def splits(model: nn.Module, loss: Callable) -> bool:
    """Whether threads may share a batch out: the loss is marked, and so is the model's class.

    `texts_apart` says that texts do not meet in it. Dropout would draw its numbers in another
    order each time, batch statistics see a part alone, and a hook too.
    """
    if not (getattr(loss, "by_targets", False) and getattr(model, "texts_apart", False)):
        return False
    return not any(
        type(module).__name__.startswith(("Dropout", "BatchNorm"))
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        for module in model.modules()
    )


@functools.cache
def crew(n_threads: int) -> ThreadPoolExecutor:
    """The threads among which the work of `n_threads` is shared out, kept for the next step."""
    size = min(n_threads, MOST)
    pool = ThreadPoolExecutor(size, "crew", torch.set_num_threads, (n_threads // size,))
    here = threading.Barrier(size)
    list(pool.map(lambda _: here.wait(), range(size)))  # now all of them have begun
    torch.set_num_threads(n_threads)  # what one thread sets, later ones begin with
    return pool


def share_out(
    work: Callable[[tuple], Tensor], parts: Sequence[tuple], parameters: Sequence[nn.Parameter]
) -> Tensor:
    """Add up `work(part)`, a loss for each part, and leave the gradient of the sum at `parameters`.

    The parts are worked on at the same time. An error in one is raised here.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]

    def back(part: tuple) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        loss = work(part)
        return loss.detach(), torch.autograd.grad(loss, trained, allow_unused=True)

    total = torch.zeros(())
    for loss, gradients in crew(torch.get_num_threads()).map(back, parts):
        total = total + loss
        for parameter, gradient in zip(trained, gradients, strict=True):
            if gradient is None:  # this part did not use it
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            else:
                parameter.grad += gradient
    return total
