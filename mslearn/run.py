"""The run: one optimiser step per record. Every stage of training uses this loop.

It knows nothing of widgets, notebooks, tasks or processes. A person's hand reaches it through
`run.controls`, read once per step; a task through `loss`; a schedule through a function.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn.checkpoint import Checkpoints, random_state, set_random_state
from mslearn.device import Device, pick
from mslearn.schedules import Schedule
from mslearn.transformer import Transformer

Batch = tuple[Tensor, ...]


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy, in nats per token, of each next token given those before it."""
    inputs, targets = batch
    if isinstance(model, Transformer):
        return model.loss(inputs, targets)
    logits = model(inputs)  # (B, T, V)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Record:
    """What happened at one step; `lr` is the rate in use, `loss` in nats, `held_out` by name."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens_per_s: float
    seconds_left: float
    skipped: bool = False
    held_out: dict[str, float] | None = None

    def __str__(self) -> str:
        held_out = "".join(f"  {k} {v:.3f}" for k, v in (self.held_out or {}).items())
        return (
            f"step {self.step:5d}  loss {self.loss:.3f}  rate {self.lr:.1e}  "
            f"gradient {self.grad_norm:.2f}  {self.tokens_per_s:,.0f} tokens/s  "
            f"{self.seconds_left:.0f} s left{held_out}"
        )


@dataclass
class Controls:
    """What a person may change while it runs. Plain fields: any thread may set them.

    `lr` overrides the schedule while it is a number; `note` is pinned to the next step.
    """

    lr: float | None = None
    paused: bool = False
    stopped: bool = False
    note: str | None = None


@dataclass(frozen=True)
class Event:
    """A change of a control, with the step it took effect at and the clock's time."""

    step: int
    name: str
    value: float | bool | str | None
    at: float = field(compare=False)


class Run:
    """A model, its batches and its optimiser, and how far they have come.

    `batches(step)` gives a tuple of CPU tensors, `loss(model, batch)` a scalar, and
    `evaluate(model, device)` scores by name. The schedule gives the rate of the optimiser's first
    parameter group; the others keep their ratio to it. Gradients are clipped to norm `clip`;
    with `accumulate` each batch is worked through in that many parts.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[int], Batch],
        optimizer: torch.optim.Optimizer,
        *,
        schedule: Schedule | None = None,
        loss: Callable[[nn.Module, Batch], Tensor] = next_token_loss,
        device: Device | None = None,
        clip: float = 1.0,
        accumulate: int = 1,
        evaluate: Callable[[nn.Module, Device], dict[str, float]] | None = None,
        evaluate_every: int = 0,
        checkpoints: Checkpoints | None = None,
        save_every: int = 0,
    ) -> None:
        self.device = device or pick()
        self.model = model.to(self.device.torch_device)
        self.batches, self.optimizer, self.loss = batches, optimizer, loss
        rates = [group["lr"] for group in optimizer.param_groups]
        self.ratios = [rate / rates[0] for rate in rates]
        self.schedule = schedule or (lambda step: rates[0])
        self.clip, self.accumulate = clip, accumulate
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.checkpoints, self.save_every = checkpoints, save_every
        self.controls, self._seen = Controls(), Controls()
        self.step, self.log, self.events = 0, [], []
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._pace: float | None = None
        self._skipped_in_a_row = 0

    def train(self, until: int) -> Iterator[Record]:
        """Step until `until` steps have been made in all, giving the record of each.

        Raises FloatingPointError after three steps in a row without a finite gradient.
        """
        self.model.train()
        while self.step < until and self._read_controls():
            started = time.perf_counter()
            rate = self._set_rate()
            loss, norm = self._one_step()
            skipped = not (math.isfinite(loss) and math.isfinite(norm))
            self._count_skips(skipped, rate)
            seconds = time.perf_counter() - started
            self._pace = seconds if self._pace is None else 0.9 * self._pace + 0.1 * seconds
            record = self._record(until, loss, rate, norm, skipped)
            self.step += 1
            self.log.append(record)
            if self.checkpoints and self.save_every and self.step % self.save_every == 0:
                self.save()
            yield record

    def _one_step(self) -> tuple[float, float]:
        """Forward, backward, clip, step. One wait for the device: to read loss and norm."""
        self.optimizer.zero_grad(set_to_none=True)  # a step that was interrupted left some behind
        batch = [self.device.to(tensor) for tensor in self.batches(self.step)]
        total = torch.zeros((), device=self.device.torch_device)
        for part in zip(*(tensor.chunk(self.accumulate) for tensor in batch), strict=True):
            with self.device.autocast():
                loss = self.loss(self.model, part) * (len(part[0]) / len(batch[0]))
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self._parameters, self.clip or math.inf)
        loss_value, norm_value = torch.stack([total, norm.to(total.dtype)]).tolist()
        if math.isfinite(loss_value) and math.isfinite(norm_value):
            self.optimizer.step()
        return loss_value, norm_value

    def _set_rate(self) -> float:
        rate = self.controls.lr if self.controls.lr is not None else self.schedule(self.step)
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = rate * ratio
        return rate

    def _read_controls(self) -> bool:
        """Log what has changed, wait while paused; False when told to stop."""
        while True:
            for name in ("lr", "paused", "stopped", "note"):
                value = getattr(self.controls, name)
                if value != getattr(self._seen, name):
                    self.events.append(Event(self.step, name, value, time.time()))
                    setattr(self._seen, name, value)
            if self.controls.stopped or not self.controls.paused:
                return not self.controls.stopped
            time.sleep(0.01)

    def _count_skips(self, skipped: bool, rate: float) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row == 3:
            raise FloatingPointError(
                f"three steps in a row gave no finite gradient at rate {rate:.1e} (step "
                f"{self.step}); go back to a checkpoint and try a third of the rate"
            )

    def _record(self, until: int, loss: float, rate: float, norm: float, skipped: bool) -> Record:
        done = self.step + 1
        held_out = None
        due = self.evaluate_every and (done % self.evaluate_every == 0 or done == until)
        if self.evaluate and due:
            held_out = self.evaluate_now()
        tokens = getattr(self.batches, "tokens_per_step", 0)
        left = (until - done) * self._pace
        return Record(self.step, loss, rate, norm, tokens / self._pace, left, skipped, held_out)

    def evaluate_now(self) -> dict[str, float]:
        """Scores of the model as it is."""
        self.model.eval()
        try:
            return self.evaluate(self.model, self.device)
        finally:
            self.model.train()

    def state(self) -> dict:
        """Everything but the weights that the next step depends on, and the history."""
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
            "log": [astuple(record) for record in self.log],
            "events": [astuple(event) for event in self.events],
        }

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        about = {"torch": torch.__version__, "device": str(self.device)}
        self.checkpoints.save(self.step, self.model.state_dict(), self.state(), about)

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint; False, and nothing changed, without one."""
        found = self.checkpoints.latest() if self.checkpoints else None
        if found is None:
            return False
        weights, state = found
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.log = [Record(*values) for values in state["log"]]
        self.events = [Event(*values) for values in state["events"]]
        by_hand = [event.value for event in self.events if event.name == "lr"]
        self.controls.lr = self._seen.lr = by_hand[-1] if by_hand else None
        set_random_state(state["random"])
        return True
