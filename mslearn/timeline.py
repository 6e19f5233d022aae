"""The timelines of a run: a family tree of what was done to it, each with its log and events."""

from dataclasses import dataclass, field
from typing import Any

from mslearn.controls import Event
from mslearn.records import Log


@dataclass(eq=False)
class Timeline:
    """One course of training, from step 0: before `born` it is its parent's.

    `events` are those that led here; one that a rewind undid is not among them.
    """

    name: str
    number: int
    parent: str | None = None
    born: int = 0
    log: Log = field(default_factory=Log)
    events: list[Event] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps made."""
        return len(self.log)

    @property
    def scores(self) -> dict[str, float]:
        """The newest held-out scores."""
        measured = list(self.log.held_out.values())  # a copy: training goes on meanwhile
        return measured[-1] if measured else {}

    def state(self) -> dict:
        """All of it as plain values and tensors, for a checkpoint."""
        events = [(e.step, e.name, e.value, e.at) for e in self.events]
        return {**vars(self), "log": self.log.state(), "events": events}

    @classmethod
    def load(cls, state: dict) -> "Timeline":
        """The timeline that `state` was taken of."""
        events = [Event(*values) for values in state["events"]]
        return cls(**{**state, "log": Log.load(state["log"]), "events": events})


class Family:
    """The timelines by name, and which of them is the `current` one."""

    def __init__(self) -> None:
        self.timelines = {"main": Timeline("main", 0)}
        self.current = "main"
        self._made = 1

    @property
    def now(self) -> Timeline:
        return self.timelines[self.current]

    def __getitem__(self, name: str) -> Timeline:
        if name not in self.timelines:
            raise ValueError(
                f"there is no timeline {name!r}; there are {', '.join(self.timelines)}"
            )
        return self.timelines[name]

    def branch(self, name: str, born: int) -> Timeline:
        """A child of the current timeline, which knows its first `born` steps."""
        parent = self.now
        child = Timeline(name, self._made, parent.name, born, parent.log.upto(born))
        self.timelines = {**self.timelines, name: child}  # replaced whole: others are reading
        self._made += 1
        return child

    def children(self, name: str) -> list[Timeline]:
        """The branches of a timeline."""
        return [line for line in self.timelines.values() if line.parent == name]

    def past(self) -> list[tuple[int, int]]:
        """Where the current timeline's past lies: (number, last step there), newest first."""
        line, upto, places = self.now, self.now.step, []
        while True:
            places.append((line.number, upto))
            if line.parent is None:
                return places
            line, upto = self.timelines[line.parent], min(upto, line.born)

    def drop(self, name: str) -> tuple[int, int, int] | None:
        """Forget a timeline; where it has branches the one born last takes its place.

        Gives (its number, the heir's number, the step up to which they are one), or None.
        """
        gone = self[name]
        if name == self.current:
            raise ValueError(f"{name!r} is the timeline in use; switch to another one to drop it")
        children = self.children(name)
        self.timelines = {key: line for key, line in self.timelines.items() if key != name}
        if not children:
            return None
        heir = max(children, key=lambda line: line.born)
        shared = heir.born
        heir.parent, heir.born = gone.parent, gone.born
        for child in children:
            if child is not heir:
                child.parent = heir.name
        return gone.number, heir.number, shared

    def rows(self) -> list[dict[str, Any]]:
        """What to compare, a row for each timeline in the order of the tree."""
        return [
            {
                "name": line.name,
                "parent": line.parent,
                "born": line.born,
                "step": line.step,
                "moves": sum(event.name in ("lr", "factor", "ratios") for event in line.events),
                "loss": line.log.recent(),
                "scores": line.scores,
                "current": line.name == self.current,
                "depth": depth,
            }
            for depth, line in self._tree(None, 0)
        ]

    def _tree(self, parent: str | None, depth: int) -> list[tuple[int, Timeline]]:
        found = []
        for line in self.timelines.values():
            if line.parent == parent:
                found += [(depth, line), *self._tree(line.name, depth + 1)]
        return found

    def __str__(self) -> str:
        """Tree and table in one, for a page that shows text."""
        lines = ["timeline              born   step  moves   loss  held out"]
        for row in self.rows():
            name = "  " * row["depth"] + ("*" if row["current"] else " ") + row["name"]
            scores = "  ".join(f"{k} {v:.3f}" for k, v in row["scores"].items())
            numbers = f"{row['born']:5d}  {row['step']:5d}  {row['moves']:5d}  {row['loss']:5.3f}"
            lines.append(f"{name:<20}  {numbers}  {scores}".rstrip())
        return "\n".join(lines)

    def state(self) -> dict:
        """All of it as plain values and tensors, for a checkpoint."""
        lines = [line.state() for line in self.timelines.values()]
        return {"current": self.current, "made": self._made, "timelines": lines}

    @classmethod
    def load(cls, state: dict) -> "Family":
        """The family that `state` was taken of."""
        family = cls()
        lines = [Timeline.load(line) for line in state["timelines"]]
        family.timelines = {line.name: line for line in lines}
        family.current, family._made = state["current"], state["made"]
        return family
