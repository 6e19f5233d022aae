"""The run: one optimiser step per record. Every stage of training uses this loop.

It knows nothing of widgets, notebooks, tasks or processes. A person's hand reaches it through
`run.controls`, read between two steps (`cockpit`); a task through `loss`; a schedule through a
function.
"""

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn.checkpoint import Checkpoints, random_state, set_random_state
from mslearn.cockpit import Cockpit
from mslearn.controls import Controls, Event, Events
from mslearn.crew import MOST, in_parts, mean_over_targets, share_out, splits
from mslearn.device import Device, keep_freed_memory, pick
from mslearn.driven import rates
from mslearn.guard import Guard, Proposal
from mslearn.records import Record
from mslearn.schedules import Schedule, constant
from mslearn.snapshots import Snapshots
from mslearn.timeline import Family
from mslearn.transformer import Transformer
from mslearn.watch import Watch

__all__ = ["Batch", "Controls", "Event", "Events", "Record", "Run", "next_token_loss"]

Batch = tuple[Tensor, ...]


@mean_over_targets
def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy, in nats per token, of each next token given those before it."""
    inputs, targets = batch
    if isinstance(model, Transformer):
        return model.loss(inputs, targets)
    logits = model(inputs)  # (B, T, V)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


class Run(Cockpit):
    """A model, its batches and its optimiser, and how far they have come.

    `batches(step)` gives a tuple of CPU tensors, `loss(model, batch)` a scalar, and
    `evaluate(model, device)` scores by name. The schedule gives the rate of the optimiser's first
    parameter group; the others keep their ratio to it. Gradients are clipped to norm `clip`;
    with `accumulate` each batch is worked through in that many parts. On several threads of a CPU
    each takes a part, where the sum stays what it is (`crew.splits`). With `snapshots` it can be
    taken back in time, and a `guard` takes it back when the loss explodes.
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
        snapshots: Snapshots | None = None,
        guard: Guard | None = None,
        watch_every: int = 0,
    ) -> None:
        keep_freed_memory()
        self.device = device or pick()
        self.model = model.to(self.device.torch_device)
        self.batches, self.optimizer, self.loss = batches, optimizer, loss
        own = [group["lr"] for group in optimizer.param_groups]
        self.ratios = [rate / own[0] for rate in own]
        self.schedule = schedule or constant(own[0])
        self.clip, self.accumulate = clip, accumulate
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.checkpoints, self.save_every = checkpoints, save_every
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._pace: float | None = None
        self.step, self.family, self.events = 0, Family(), Events()
        self.controls, self.hand = Controls(), Controls()  # what is asked, what is in effect
        self.watch = Watch(self.model, self._parameters)
        self.watch.every = watch_every
        self.script, self.snapshots, self.guard = None, None, guard or Guard()
        self.attended, self.ended, self._trainer = False, False, None
        self.halted = False  # by a pause, and no step is under way
        self.notices: list[tuple[int, str]] = []
        self.proposal: Proposal | None = None
        self._trouble, self._left_out, self._held = "", -1, None
        self._returns, self._furthest = 0, -math.inf
        if snapshots is not None:
            self.enable(snapshots)
        elif guard is not None:
            raise ValueError("a guard goes back to snapshots; give the run snapshots=Snapshots()")

    def train(self, until: int) -> Iterator[Record]:
        """Step until `until` steps have been made in all, giving the record of each.

        Raises FloatingPointError after three steps in a row without a finite gradient, unless the
        run can go back by itself.
        """
        self.model.train()
        with self._training():
            while self._between_steps(until):
                self.halted = False
                started = time.perf_counter()
                rate = self._set_rates()
                loss, norm, skipped = self._one_step()
                self._check_skips(skipped, rate)
                seconds = time.perf_counter() - started
                self._pace = seconds if self._pace is None else 0.9 * self._pace + 0.1 * seconds
                record = self._record(until, loss, rate, norm, skipped)
                self.step += 1
                self.log.append(record)
                if self.checkpoints and self.save_every and self.step % self.save_every == 0:
                    self.save()
                yield record

    def _one_step(self) -> tuple[float, float, bool]:
        """Forward, backward, clip, step: gives loss, norm and whether the step was left out.

        One wait for the device: to read loss and norm, and what the last step left to be read.
        """
        self.optimizer.zero_grad(set_to_none=True)  # a step that was interrupted left some behind
        total = self._backward(self.batches(self.step))
        self.watch.before(self.step)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.clip or math.inf)
        numbers = torch.stack([total, norm.to(total.dtype), *self.watch.waiting]).tolist()
        loss_value, norm_value, *layers = numbers
        self.watch.read(layers, self.log)
        sound = self._is_sound(loss_value, norm_value)
        if sound:
            self.optimizer.step()
            self.watch.after()
        return loss_value, norm_value, not sound

    def _backward(self, batch: Batch) -> Tensor:
        """Leave the batch's gradient at the weights, added up part by part; its loss."""
        n_threads = torch.get_num_threads() if self.device.name == "cpu" else 1
        shared = n_threads > 1 and splits(self.model, self.loss)
        at_a_time = min(n_threads, MOST) if shared else 1
        parts = in_parts(batch, self.accumulate * at_a_time, self.loss)

        def work(part: tuple[Batch, float]) -> Tensor:
            texts, share = part
            texts = tuple(self.device.to(tensor) for tensor in texts)
            with self.device.autocast(keep_casts=False):
                return self.loss(self.model, texts) * share

        if shared and len(parts) > 1:
            return share_out(work, parts, self._parameters, n_threads)
        total = torch.zeros((), device=self.device.torch_device)
        for part in parts:
            loss = work(part)
            loss.backward()
            total += loss.detach()
        return total

    def _set_rates(self) -> float:
        """Give every group its rate; that of the first."""
        each = rates(self.hand.rates(), self.schedule(self.step), self.ratios)
        for group, rate in zip(self.optimizer.param_groups, each, strict=True):
            group["lr"] = rate
        return each[0]

    @property
    def layers(self) -> list[str]:
        """Names of the layers whose norms the log samples."""
        return self.watch.names

    @property
    def skipped(self) -> int:
        """Steps left out, on this timeline."""
        return sum(self.log.column("skipped"))

    def planned(self, step: int) -> float:
        """The schedule's rate, as nobody's hand would leave it; the first group's."""
        rate = self.schedule(step)
        return float(rate[0] if isinstance(rate, tuple) else rate)

    def base_rate(self, step: int) -> float:
        """The rate that the hand, or its factor on the schedule, gives at a step."""
        return self.hand.factor * self.planned(step) if self.hand.lr is None else self.hand.lr

    def _check_skips(self, skipped: bool, rate: float) -> None:
        """Raise after three steps in a row left out, where there is no way back."""
        before = self.log.column("skipped", max(0, self.step - 2))
        if skipped and sum(before) == 2 and not self.snapshots and not self._replaying():
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
        """Scores of the model as it is; its random numbers are not those of training."""
        before = random_state()
        self.model.eval()
        try:
            return self.evaluate(self.model, self.device)
        finally:
            self.model.train()
            set_random_state(before)

    def state(self) -> dict:
        """Everything but the weights that the next step depends on, and the history."""
        return {
            **self.moment(),
            "family": self.family.state(),
            "events": [(event.step, event.name, event.value, event.at) for event in self.events],
            "snapshots": self.snapshots.index() if self.snapshots else [],
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
        self.family = Family.load(state["family"])
        self.events = Events(state["events"])
        self.put_back(weights, state)
        if self.snapshots:
            self.snapshots.adopt(state["snapshots"])
        return True
