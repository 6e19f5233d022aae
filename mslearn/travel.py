"""A run's travels in time: back to a snapshot, into a branch, over to another timeline.

A snapshot is the state between two steps, before anything was done at the second of them.
"""

import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mslearn.checkpoint import random_state, set_random_state
from mslearn.controls import VALUES, Event
from mslearn.records import Log
from mslearn.snapshots import Snapshot, Snapshots
from mslearn.states import copied, expected_bytes

HELD = -1  # the number of no timeline: what the guard left, until its proposal is answered


class Travel:
    """The part of `Run` that takes snapshots and goes back to them."""

    @property
    def log(self) -> Log:
        """The records of the current timeline; another object after each travel."""
        return self.family.now.log

    def say(self, sentence: str) -> None:
        """For who drives: a notice, with its step."""
        self.notices.append((self.step, sentence))

    def enable(self, snapshots: Snapshots | None = None) -> None:
        """Keep snapshots from now on. Raises ValueError where the budget is too small for one."""
        snapshots = snapshots or Snapshots()
        snapshots.check_room(expected_bytes(self.model, self.optimizer))
        self.snapshots = snapshots

    def moment(self) -> dict:
        """Everything but the weights that the next step depends on."""
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
            "hand": self.hand.rates(),
            "guard": dict(vars(self.guard)),
            "moves": len(self.family.now.events),
        }

    def put_back(self, weights: dict, moment: dict) -> None:
        """Make this moment the present; the next step will be the one that followed it."""
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(copied(moment["optimizer"]))  # which keeps what it is given
        set_random_state(moment["random"])
        self.step = moment["step"]
        self.guard = replace(self.guard, **moment["guard"])
        for name, value in moment["hand"].items():
            if getattr(self.controls, name) == getattr(self.hand, name):  # not just moved
                setattr(self.controls, name, value)
            setattr(self.hand, name, value)
        self.watch.waiting = []

    def reachable(self) -> list[int]:
        """The steps that the current timeline can be taken back to, in order."""
        return sorted({snapshot.step for snapshot in self._past(self.step)})

    def rewind(self, step: int) -> int | None:
        """Go back to the newest snapshot at or before `step`: the whole run, its log and rate too.

        Gives the step it is at now. Called from another thread while the run trains, it is a
        request that is met before the next step, and gives None.
        """
        if self._elsewhere("rewind", step):
            return None
        found, weights, moment = self._whole(step)
        self._happened("rewind", found.step)
        self._go_back(found, weights, moment)
        if found.step != step:
            self.say(f"went back to step {found.step}, the nearest snapshot before step {step}")
        return self._arrived()

    def branch(self, name: str, step: int | None = None) -> int | None:
        """Begin a second timeline at this moment, or at the newest snapshot at or before `step`.

        It becomes the current one; the other keeps its state, for `switch`. Gives as `rewind`.
        """
        if self._elsewhere("branch", (name,) if step is None else (name, step)):
            return None
        self._need_snapshots()
        if name in self.family.timelines:
            raise ValueError(f"there is a timeline {name!r} already; give this one another name")
        here = step is None or step == self.step
        found = None if here else self._whole(step)
        self._leave(keep=self.step if here else found[0].step)
        snapshot = self.snapshots.get(self.family.now.number, self.step) if here else found[0]
        moves = len(self.family.now.events) if here else found[2]["moves"]
        self._happened("branch", (name, snapshot.step))
        child = self.family.branch(name, snapshot.step)
        child.events = self.family.now.events[:moves]
        self.snapshots.put(child.number, snapshot)
        self.family.current = name
        if found:
            self.put_back(*found[1:])
        return self._arrived()

    def switch(self, name: str) -> int | None:
        """Go on with another timeline where it was left. Gives as `rewind`."""
        if self._elsewhere("switch", name):
            return None
        self._need_snapshots()
        line = self.family[name]
        if line is self.family.now:
            return self.step
        tip = self.snapshots.get(line.number, line.step)
        whole = first_whole([tip] if tip else [])
        if whole is None:
            raise ValueError(f"the last state of {name!r} was lost; its log is all that is left")
        self._leave()
        self._happened("switch", name)
        self.family.current = name
        self.put_back(*whole[1:])
        return self._arrived()

    def drop(self, name: str) -> int | None:
        """Forget a timeline and its snapshots; a branch of it keeps the past they share."""
        if self._elsewhere("drop", name):
            return None
        number = self.family[name].number
        handed = self.family.drop(name)
        self._happened("drop", name)
        if self.snapshots:
            if handed:
                self.snapshots.hand_over(*handed)
            self.snapshots.cut(number)
        return self.step

    def _elsewhere(self, name: str, value: Any) -> bool:
        """Whether another thread is training; then what was to be done becomes a request to it."""
        if self._trainer in (None, threading.get_ident()):
            return False
        setattr(self.controls, name, value)
        return True

    def _need_snapshots(self) -> None:
        if self.snapshots is None:
            raise ValueError(
                "this run keeps no snapshots to go back to; make it with snapshots=Snapshots(), or "
                "call run.enable() before it trains"
            )

    def _past(self, step: int) -> list[Snapshot]:
        """Snapshots of the current timeline and of those before it, the newest first."""
        if self.snapshots is None:
            return []
        return [
            found
            for number, upto in self.family.past()
            for at in reversed(self.snapshots.steps(number))
            if at <= min(step, upto) and (found := self.snapshots.get(number, at))
        ]

    def _whole(self, step: int) -> tuple[Snapshot, dict, dict]:
        """The newest snapshot at or before `step` that can be read, with its weights and moment."""
        self._need_snapshots()
        found = first_whole(self._past(step))
        if found is None:
            raise ValueError(
                f"there is no snapshot at or before step {step}; there are {self.reachable()}"
            )
        return found

    def _leave(self, keep: int | None = None) -> None:
        """Hold the present of the current timeline, for coming back to it; not at the cost of the
        step `keep`."""
        wanted, number = self.snapshots.wanted, self.family.now.number
        self.snapshots.wanted = wanted | {keep}
        taken = self.snapshots.take(number, self.step, self.model.state_dict(), self.moment())
        self.snapshots.wanted = wanted
        if not taken:
            raise ValueError(
                "the budget of snapshots has no room for another timeline; drop one, or give the "
                "run Snapshots of more megabytes"
            )

    def _go_back(self, found: Snapshot, weights: dict, moment: dict) -> None:
        """Make a snapshot of the current timeline's past its present, and forget what followed."""
        line, step = self.family.now, found.step
        for child in self.family.children(line.name):
            if child.born > step:  # it keeps what its parent forgets
                for at in self.snapshots.steps(line.number):
                    if step < at <= child.born:
                        self.snapshots.put(child.number, self.snapshots.get(line.number, at))
                child.born = step
        self.put_back(weights, moment)
        line.log, line.events = line.log.upto(step), line.events[: moment["moves"]]
        line.born = min(line.born, step)
        self.snapshots.cut(line.number, after=step)
        self.snapshots.put(line.number, found)

    def _arrived(self) -> int:
        """After a travel: what lies on the disk must not lead back to what was left."""
        self.events.about["end"] = self.step
        if self.checkpoints:
            self.save()
            self.checkpoints.forget(after=self.step)
        return self.step

    def _happened(self, name: str, value: Any) -> None:
        """Write an act into the run's events; one that led here, into the timeline's too."""
        event = Event(self.step, name, value, time.time())
        self.events.append(event)
        if name in VALUES:
            self.family.now.events.append(event)


def first_whole(snapshots: Iterable[Snapshot]) -> tuple[Snapshot, dict, dict] | None:
    """The first that can be read, with its weights and state; damaged ones are warned of."""
    for snapshot in snapshots:
        try:
            return snapshot, *snapshot.read()
        except (OSError, ValueError) as error:
            warnings.warn(f"{error}; the snapshot before it is taken", stacklevel=2)
    return None
