"""What a run remembers of its steps: a record of each, and the log that holds them small."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

COLUMNS = ("loss", "lr", "grad_norm", "tokens_per_s", "seconds_left", "skipped")


@dataclass(frozen=True, slots=True)
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


class LayerNorms(NamedTuple):
    """By layer, at one step: ‖gradient‖ before clipping, and ‖Δw‖ / ‖w‖ of the update."""

    step: int
    gradients: array
    updates: array


class Log(Sequence):
    """The records from step 0 on, kept as columns of numbers: 41 bytes a step, not 400.

    Other threads may read while one appends. It is never cut: going back in time puts another log
    in the run, so that who reads this one is not disturbed, and who compares the two knows.
    """

    def __init__(self) -> None:
        self._columns = {name: array("b" if name == "skipped" else "d") for name in COLUMNS}
        self.held_out: dict[int, dict[str, float]] = {}
        self.layers: list[LayerNorms] = []

    def append(self, record: Record) -> None:
        """Add the record of the next step."""
        if record.held_out is not None:
            self.held_out[record.step] = record.held_out
        for name, column in self._columns.items():  # "skipped" last: its length is the log's
            column.append(getattr(record, name))

    def __len__(self) -> int:
        return len(self._columns["skipped"])

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[step] for step in range(*index.indices(len(self)))]
        step = range(len(self))[index]  # counts from the end where negative, or raises IndexError
        *numbers, skipped = (column[step] for column in self._columns.values())
        return Record(step, *numbers, bool(skipped), self.held_out.get(step))

    def __iter__(self) -> Iterator[Record]:
        return (self[step] for step in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<log of {len(self)} steps>"

    def column(self, name: str, start: int = 0, stop: int | None = None) -> array:
        """A copy of one column's values: of steps `start` to `stop`, or to the newest."""
        return self._columns[name][start : len(self) if stop is None else stop]

    def upto(self, step: int) -> "Log":
        """Another log, of the first `step` records."""
        log = Log()
        log._columns = {name: column[:step] for name, column in self._columns.items()}
        log.held_out = {at: scores for at, scores in self.held_out.items() if at < step}
        log.layers = [sample for sample in self.layers if sample.step < step]
        return log

    def recent(self, count: int = 10) -> float:
        """Mean of the finite among the last `count` losses, in nats; NaN where there is none."""
        losses = np.array(self.column("loss", max(0, len(self) - count)))
        losses = losses[np.isfinite(losses)]
        return float(losses.mean()) if len(losses) else float("nan")

    def state(self) -> dict:
        """All of it as plain values and tensors, for a checkpoint."""
        columns = {name: torch.from_numpy(np.array(c)) for name, c in self._columns.items()}
        layers = [(at, list(gradients), list(updates)) for at, gradients, updates in self.layers]
        return {"columns": columns, "held_out": dict(self.held_out), "layers": layers}

    @classmethod
    def load(cls, state: dict) -> "Log":
        """The log that `state` was taken of."""
        log = cls()
        for name, column in log._columns.items():
            column.frombytes(state["columns"][name].numpy().tobytes())
        log.held_out = dict(state["held_out"])
        log.layers = [
            LayerNorms(at, array("f", gradients), array("f", updates))
            for at, gradients, updates in state["layers"]
        ]
        return log
