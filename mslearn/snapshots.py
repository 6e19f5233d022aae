"""Snapshots: whole states of a run to go back to, in memory and on disk, within a budget.

They are thinned from the middle: near the start and near the present they lie close together,
in between ever further apart, as marks do on a logarithmic ruler read from either end.
"""

import shutil
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mslearn.checkpoint import read_state, write_state
from mslearn.states import copied, n_bytes

MB = 1_000_000
MOST = 256  # to look through them all must stay cheap, however small they are
Key = tuple[int, int]  # (number of the timeline, step)


@dataclass(eq=False)
class Snapshot:
    """The state of a run at one moment: (weights, everything else), in memory or in a folder."""

    step: int
    n_bytes: int
    name: str  # of its folder, if it comes to that
    content: tuple[dict, dict] | None = None
    path: Path | None = None

    def read(self) -> tuple[dict, dict]:
        """Weights and state. They are the snapshot's own: copy them before they are changed.

        Raises ValueError or OSError where the disk has lost them.
        """
        return self.content or read_state(self.path)


def total_bytes(snapshots: Iterable[Snapshot]) -> int:
    """Of all of them; one that stands in two timelines counts once."""
    return sum(snapshot.n_bytes for snapshot in {id(s): s for s in snapshots}.values())


class Snapshots:
    """All snapshots of a run, of at most `megabytes` in all, by timeline and step.

    With a `folder`, half of the budget is memory for the newest and half is disk for the others.
    They are taken so far apart that they cost `share` of the time, by a clock, or every `every`
    steps.
    """

    def __init__(
        self,
        megabytes: float = 512,
        folder: Path | str | None = None,
        *,
        share: float = 0.0025,
        every: int | None = None,
    ) -> None:
        if not megabytes > 0 or not 0 < share < 1:
            raise ValueError(
                f"snapshots need a budget above 0 MB and a share of the time between 0 and 1, got "
                f"{megabytes} MB and {share}"
            )
        self.budget, self.share, self.every = int(megabytes * MB), share, every
        self.folder = Path(folder) if folder else None
        self.wanted: set[int] = set()  # steps that a replay will come back to
        self.seconds = 0.0  # what one costs, smoothed
        self._all: dict[Key, Snapshot] = {}
        self._begun, self._taken_at = False, -float("inf")
        self._made = 0

    def check_room(self, expected: int) -> None:
        """Raise ValueError, before the start, where not one snapshot of that size has room."""
        room = self.budget // 2 if self.folder else self.budget
        if expected > room:
            raise ValueError(
                f"a snapshot of this run takes about {expected / MB:.3g} MB and there is room for "
                f"{room / MB:.3g}; give it Snapshots(megabytes={10 * expected / MB:.0f}) to keep "
                "some, or snapshots=None to train without"
            )

    @property
    def used(self) -> int:
        """Bytes in use, in memory and on disk."""
        return total_bytes(self._all.values())

    def steps(self, timeline: int) -> list[int]:
        """The steps of a timeline that have a snapshot, in order."""
        every = self._all  # never changed in place: other threads may be reading
        return sorted(step for number, step in every if number == timeline)

    def get(self, timeline: int, step: int) -> Snapshot | None:
        """The snapshot of that very step."""
        return self._all.get((timeline, step))

    def due(self, timeline: int, step: int) -> bool:
        """Whether it is time for another one, and this step has none."""
        if (timeline, step) in self._all:
            return False
        if step in self.wanted:
            return True
        if self.every:
            return step % self.every == 0
        return time.perf_counter() - self._taken_at >= self.seconds / self.share

    def take(self, timeline: int, step: int, weights: dict, state: dict) -> bool:
        """Keep a copy of this state, dropping others to make room; False where there is none."""
        started = time.perf_counter()
        content = copied(weights), copied(state)
        self._made += 1
        name = f"snapshot-{self._made:06d}"
        kept = self.put(timeline, Snapshot(step, n_bytes(content), name, content))
        self._taken_at = time.perf_counter()
        seconds = self._taken_at - started
        self.seconds = 0.7 * self.seconds + 0.3 * seconds if self.seconds else seconds
        return kept

    def put(self, timeline: int, snapshot: Snapshot) -> bool:
        """Let a snapshot stand in a timeline, too; False, and nothing changed, without room."""
        if not self._begun:
            self.adopt()
        newest = (timeline, snapshot.step)
        kept = {key: other for key, other in self._all.items() if key != newest}
        kept[newest] = snapshot  # the newest comes last
        while total_bytes(kept.values()) > self.budget or len(kept) > MOST:
            victim = self._least_missed(kept, newest)
            if victim is None:
                return False
            del kept[victim]
        self._replace(kept)
        self._move_to_disk()
        return True

    def cut(self, timeline: int, after: int = -1) -> None:
        """Forget a timeline's snapshots of the steps beyond `after`."""
        gone = {key for key in self._all if key[0] == timeline and key[1] > after}
        self._replace({key: other for key, other in self._all.items() if key not in gone})

    def hand_over(self, timeline: int, heir: int, upto: int) -> None:
        """Give the snapshots up to a step to another timeline, and forget the rest of them."""
        steps = [step for step in self.steps(timeline) if step <= upto]
        self._replace({**{(heir, at): self.get(timeline, at) for at in steps}, **self._all})
        self.cut(timeline)

    def _replace(self, kept: dict[Key, Snapshot]) -> None:
        """Put another dict in the place of the one that others may be reading; tidy the disk."""
        before, self._all = self._all, kept
        still = set(map(id, kept.values()))
        for snapshot in before.values():
            if snapshot.path and id(snapshot) not in still:
                shutil.rmtree(snapshot.path, ignore_errors=True)

    def _least_missed(self, kept: dict[Key, Snapshot], newest: Key) -> Key | None:
        """Which to drop: the one whose gap would be smallest beside its distance from an end.

        The first of a timeline goes only when nothing in between is left, its last never.
        """
        lines: dict[int, list[int]] = {}
        for timeline, step in sorted(kept):
            lines.setdefault(timeline, []).append(step)
        inner, first = [], []
        for timeline, steps in lines.items():
            for before, step, after in zip(steps, steps[1:], steps[2:], strict=False):
                near = min(step - steps[0], steps[-1] - step)
                inner.append(((after - before) / near, (timeline, step)))
            if len(steps) > 1:
                first.append((steps[1] - steps[0], (timeline, steps[0])))
        for candidates in (inner, first):
            allowed = [c for c in candidates if c[1] != newest and c[1][1] not in self.wanted]
            if allowed:
                return min(allowed)[1]
        return None

    def _move_to_disk(self) -> None:
        """With a folder: the oldest go to the disk until memory holds half of the budget."""
        if self.folder is None:
            return
        in_memory = [s for s in dict.fromkeys(self._all.values()) if s.content]
        while total_bytes(in_memory) > self.budget // 2:
            oldest = in_memory.pop(0)
            path = self.folder / oldest.name
            try:
                write_state(path, *oldest.content, {"step": oldest.step})
            except OSError as error:  # a full disk must not end the training
                warnings.warn(f"{error}; from here on snapshots stay in memory", stacklevel=4)
                self.folder = None
                return
            oldest.path, oldest.content = path, None

    def index(self) -> list[tuple]:
        """What lies on the disk or may come to lie there, for a checkpoint."""
        return [(*key, s.n_bytes, s.name) for key, s in self._all.items()]

    def adopt(self, index: Iterable[tuple] = ()) -> None:
        """Start with what a checkpoint's index names and the folder still holds; clear the rest."""
        self._all, self._begun = {}, True
        if self.folder is None:
            return
        found: dict[str, Snapshot] = {}
        for timeline, step, size, name in index:
            self._made = max(self._made, int(name.removeprefix("snapshot-")))
            if (self.folder / name).is_dir():
                found.setdefault(name, Snapshot(step, size, name, None, self.folder / name))
                self._all[timeline, step] = found[name]
        for path in self.folder.glob("*snapshot-*"):
            if path.name not in found:
                shutil.rmtree(path, ignore_errors=True)
