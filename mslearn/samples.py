"""What the model writes as training goes, at a cost that is bounded."""

import time
from collections.abc import Callable

import torch
from torch import nn

from mslearn.checkpoint import random_state, set_random_state

SHARE = 0.05  # of the time of training, at the most
LONGEST = 600  # characters that are kept of a text


class Samples:
    """Calls `write(model) -> str` about every `every` steps, and less often where that is slow.

    The model is in eval mode and no gradient is kept; the random state is put back, so that
    training goes on bit for bit as if nothing had been written. What `write` raises ends the
    sampling, not the training.
    """

    def __init__(self, write: Callable[[nn.Module], str] | None, every: int) -> None:
        self.write, self.every = write, max(1, every)
        self.texts: list[tuple[int, str]] = []
        self._free_at = 0.0

    def look(self, model: nn.Module, done: int, last: bool = False) -> None:
        """Write something if it is time after `done` steps."""
        due = last or (done % self.every == 0 and time.perf_counter() >= self._free_at)
        if self.write is None or not due or (self.texts and self.texts[-1][0] == done):
            return
        started = time.perf_counter()
        self.texts.append((done, self._text(model)[:LONGEST]))
        seconds = time.perf_counter() - started
        self._free_at = time.perf_counter() + seconds * (1 - SHARE) / SHARE

    def _text(self, model: nn.Module) -> str:
        before, training = random_state(), model.training
        model.eval()
        try:
            with torch.no_grad():
                return str(self.write(model))
        except Exception as error:
            self.write = None
            return f"the sample failed: {type(error).__name__}: {error}"
        finally:
            model.train(training)
            set_random_state(before)
