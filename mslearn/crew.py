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
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor, nn

from mslearn.fused import IGNORED

MOST = 4  # threads of a crew: each holds a gradient of its own. With 8 cores, each computes on 2
KNOWN = (nn.Linear, nn.Embedding, nn.ModuleList, nn.Sequential)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def mean_over_targets(loss: Callable) -> Callable:
    """Mark a loss as the mean over a batch's targets, its last tensor, that are not `IGNORED`."""
    loss.over_targets = True
    return loss


def texts_apart(module: type[nn.Module]) -> type[nn.Module]:
    """Mark a class of modules: texts of a batch do not meet in it, and it draws no numbers.

    The mark is the class's own, and not that of classes derived from it.
    """
    module.texts_apart = module
    return module


def in_parts(
    batch: Sequence[Tensor], count: int, loss: Callable
) -> list[tuple[tuple[Tensor, ...], float]]:
    """Up to `count` parts of whole texts, each with its share in the batch's mean.

    A part counts by its targets where the loss is marked so, and else by its texts; one without
    any is left out.
    """
    count = min(count, len(batch[0]))
    parts = list(zip(*(tensor.tensor_split(count) for tensor in batch), strict=True))
    if len(parts) == 1:
        return [(parts[0], 1.0)]
    marked = getattr(loss, "over_targets", False)
    counts = [int((part[-1] != IGNORED).sum()) if marked else len(part[0]) for part in parts]
    if not any(counts):
        return [(tuple(batch), 1.0)]
    return [(part, n / sum(counts)) for part, n in zip(parts, counts, strict=True) if n]


def splits(model: nn.Module, loss: Callable) -> bool:
    """Whether threads may share a batch out: the loss is marked, and each class in the model.

    Dropout would draw its numbers in another order each time, batch statistics would see a part
    alone, and so would a hook.
    """
    return getattr(loss, "over_targets", False) and all(
        (type(module) in KNOWN or getattr(module, "texts_apart", None) is type(module))
        and not any(getattr(module, hooks) for hooks in HOOKS)
        for module in model.modules()
    )


@functools.cache
def crew(n_threads: int) -> ThreadPoolExecutor:
    """The threads among which the work of `n_threads` is shared out, kept for the next step."""
    size = min(n_threads, MOST)
    pool = ThreadPoolExecutor(size, "crew", _begin, (n_threads // size,))
    here = threading.Barrier(size, timeout=60)
    list(pool.map(lambda _: here.wait(), range(size)))  # now all of them have begun
    torch.set_num_threads(n_threads)  # what one thread sets, later ones begin with
    return pool


def _begin(n_threads: int) -> None:
    """Let this thread compute on so many threads."""
    torch.get_num_threads()  # the first question takes over what others have set: before ours
    torch.set_num_threads(n_threads)


def share_out(
    work: Callable[[tuple], Tensor],
    parts: Sequence[tuple],
    parameters: Sequence[nn.Parameter],
    n_threads: int,
) -> Tensor:
    """Add up `work(part)`, a loss for each part, and leave the gradient of the sum at `parameters`.

    The crew of `n_threads` works on the parts at the same time. An error in one is raised here;
    when this ends, in whatever way, nobody is at work any more.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]

    def back(part: tuple) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        loss = work(part)
        return loss.detach(), torch.autograd.grad(loss, trained, allow_unused=True)

    total, pool, waiting = torch.zeros(()), crew(n_threads), []
    try:
        for part in parts:
            waiting.append(pool.submit(back, part))
        while waiting:
            loss, gradients = waiting[0].result()
            del waiting[0]  # which would hold the gradients to the end
            total = total + loss
            _add(gradients, trained)
    finally:
        for each in waiting:
            each.cancel()
        wait(waiting)
    return total


def _add(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> None:
    """Add to what the parameters have; None is a gradient of what took no part."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:  # two gradients may be one tensor: add up in a copy
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        else:
            parameter.grad += gradient
