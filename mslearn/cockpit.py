"""What happens to a run between two steps: a person's hand, or a script in its place."""

import contextlib
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from mslearn.controls import RATES, REQUESTS, VALUES, Events, Script, objection
from mslearn.driven import as_code, run_code
from mslearn.guarded import Guarded
from mslearn.schedules import Schedule

TAKES_OVER = (*RATES, *REQUESTS, "stopped")  # what a hand does that a script then does no more


class Cockpit(Guarded):
    """The part of `Run` that is driven, by a person or by recorded events."""

    @property
    def running(self) -> bool:
        """Whether a thread is inside `train`."""
        return self._trainer is not None

    @property
    def groups(self) -> list[str]:
        """Names of the optimiser's groups of parameters, numbered where they have none."""
        groups = self.optimizer.param_groups
        return [str(group.get("name", f"group {i}")) for i, group in enumerate(groups)]

    def ask(self, name: str, value: Any) -> str:
        """Set a control, from any thread; a sentence if it makes no sense now, "" if it does."""
        wrong = objection(name, value, len(self.groups))
        if wrong:
            return wrong
        request = name == "single" or name in REQUESTS
        if request and self.ended:
            return f"the run has ended at step {self.step}, so nothing was done; let it go on first"
        if name in ("rewind", "branch", "switch") and self.snapshots is None:
            return "this run keeps no snapshots to go back to"
        if name == "answer" and self.proposal is None:
            return "the guard has asked for nothing"
        if name in TAKES_OVER and self.script is not None and not self.script.strict:
            self.script = None
            self.say("the script lets go; from here on the run is yours")
        setattr(self.controls, name, tuple(value) if isinstance(value, list) else value)
        return f"the run has ended; {name} will hold if it goes on" if self.ended else ""

    def follow(self, events: Iterable) -> None:
        """Let a script drive: (step, name, value) in order, each at its step as by a hand.

        The first act of a hand drops what is left of it. It does not wait where it says paused.
        The guard is on; the script may answer it. A run that was resumed goes on with what it has
        not yet done.
        """
        self.script = Script(events)
        self.script.pass_over(self.events)

    def replay(self, events: Iterable | Path | str, until: int | None = None) -> "Cockpit":
        """Do again all that was recorded, by nobody's hand, and end where it ended.

        The same run on the same device gives every loss and weight to the bit; another device,
        number of threads or version of torch is warned of.
        """
        if self.step:
            raise ValueError(f"a replay begins at step 0 and this run is at {self.step}; make anew")
        events = Events.load(events) if isinstance(events, Path | str) else events
        about = getattr(events, "about", {})
        until = until if until is not None else about.get("end")
        if until is None:
            raise ValueError("how far did it go? The events do not say; pass until=steps")
        for name, value in self._about().items():
            if about.get(name, value) != value:
                warnings.warn(
                    f"recorded with {name} {about[name]}, replayed with {value}: the numbers will "
                    "agree within rounding, and part where training is sensitive to it",
                    stacklevel=2,
                )
        self.script = Script(events, strict=True)
        if self.script.targets and self.snapshots is None:
            self.enable()
        if self.snapshots:
            self.snapshots.wanted = self.script.targets
        for _ in self.train(until):
            pass
        self.script = None
        if self.snapshots:
            self.snapshots.wanted = set()
        return self

    def as_code(self, name: str = "driven") -> str:
        """The schedule of the current timeline as it was driven: code of a plain function."""
        return as_code(self.family.now.events, self.schedule, self.ratios, len(self.log), name)

    def driven(self) -> Schedule:
        """The function of `as_code`."""
        return run_code(self.as_code())

    def _about(self) -> dict[str, str]:
        return {"device": str(self.device), "torch": torch.__version__}

    @contextlib.contextmanager
    def _training(self) -> Iterator[None]:
        """Mark the time in which this thread trains."""
        if self.snapshots and not self._past(self.step):
            self._keep()
        self._trainer, self.ended = threading.get_ident(), False
        self.events.about.update(self._about())
        try:
            yield
        finally:
            self.watch.read([float(number) for number in self.watch.waiting], self.log)
            self._trainer, self.ended = None, True
            self.events.about["end"] = self.step

    def _between_steps(self, until: int) -> bool:
        """Take a snapshot when it is time, do what is asked; False where no step is to follow."""
        if self.snapshots and self.snapshots.due(self.family.now.number, self.step):
            self._keep()
        self._meet_trouble()
        while True:
            self._follow_script()
            for name in REQUESTS:
                self._do(name, self.controls.take(name))
            if self.step >= until and not self._replaying(left=True):
                return False
            self._read_values()
            if self.controls.stopped:
                return False
            single = self.controls.take("single")
            if not self.controls.paused:
                self._settle()
                return True
            if single:
                self._happened("single", True)
                return True
            self.halted = True
            time.sleep(0.01)

    def _keep(self) -> None:
        kept = self.snapshots.take(
            self.family.now.number, self.step, self.model.state_dict(), self.moment()
        )
        if not kept and not any("too small" in sentence for _, sentence in self.notices):
            self.say("the budget of snapshots is too small for another one")

    def _read_values(self) -> None:
        """Log what the hand has changed; from here on it is in effect."""
        for name in VALUES:
            value = getattr(self.controls, name)
            value = tuple(value) if isinstance(value, list) else value
            if value != getattr(self.hand, name):
                setattr(self.hand, name, value)
                self._happened(name, value)

    def _do(self, name: str, value: Any) -> None:
        """Meet a request; one that cannot be met is said, and changes nothing."""
        if value is None:
            return
        act = {"rewind": self.rewind, "switch": self.switch, "drop": self.drop}
        try:
            if name == "branch":
                self.branch(*value)
            elif name == "answer":
                self._answer(value)
            else:
                act[name](value)
        except ValueError as error:
            self.say(str(error))

    def _follow_script(self) -> None:
        script = self.script  # which a hand may drop at any time
        while script and (event := script.due(self.step, self.proposal is not None)):
            if event.name in REQUESTS:
                self._do(event.name, event.value)
            elif event.name == "guard":
                self._return(event.value)
            elif event.name == "skip":
                self._left_out = self.step
            elif event.name in self._not_waited_for():
                self._happened(event.name, event.value)
            else:
                setattr(self.controls, event.name, event.value)
                self._read_values()
            script = self.script

    def _not_waited_for(self) -> tuple[str, ...]:
        """Events that a script only repeats, because nobody is there to end them."""
        return ("paused", "single", "stopped") if self._replaying() else ("paused", "single")
