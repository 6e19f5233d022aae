"""A process that marks one notebook after the other, and the handle by which a class uses it.

Rules and references run in it, so a value that brings it down costs one property, not the class.
Both ends are ours; they talk in lines of JSON.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen
from typing import Any, TextIO

from mslearn import sandbox, submission
from mslearn.exercises import ExerciseSet, load_set, paths, with_rules
from mslearn.home import course
from mslearn.judge import Case, Place, Row, mark
from mslearn.remote import Limits

OWN_MEMORY = 4 << 30  # bytes that rules may take for what they compare
MOST_BREAKS = 3  # properties of one notebook that may bring the process down
TOO_LARGE = "to read it takes more memory or time than there is"
Event = dict[str, Any]


@dataclass(frozen=True)
class Terms:
    """What holds for a whole class; folders in `secrets` stay out of the workers' sight."""

    seed: int = 0
    checks: str = ""
    unsafe: bool = False
    limits: Limits = field(default_factory=Limits)
    secrets: tuple[str, ...] = ()

    def exercises(self, chapter: str) -> ExerciseSet:
        """The set of a chapter with the instructor's own rules."""
        return with_rules(load_set(paths(chapter)[0]), Path(self.checks) if self.checks else None)


@dataclass
class Marked:
    """What became of one notebook; `problem` where it could not be read at all."""

    chapter: str = ""
    rows: dict[Place, Row] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str = ""


class Marker:
    """The handle: marks notebooks in a process that is replaced when it breaks."""

    def __init__(self, terms: Terms) -> None:
        self.terms, self.process = terms, None
        self.patience = 3 * terms.limits.call + 60

    def mark(self, path: Path, chapter: str = "") -> Marked:
        """Mark the notebook at `path`; an empty `chapter` leaves it to the notebook to say.

        Raises RuntimeError when no worker can be started: that is no learner's fault.
        """
        found, avoid = Marked(chapter), []
        while len(avoid) <= MOST_BREAKS:
            done = [[*row.place, row.reason, row.through] for row in found.rows.values()]
            order = {"path": os.fsencode(path.absolute()).hex(), "chapter": chapter}
            self._send({**order, "done": done, "avoid": avoid})
            at, begun = None, False
            for event in self._events():
                at, begun = event.get("at", at), True
                if "row" in event:
                    key, number, reason, through = event["row"]
                    found.rows[key, number] = Row((key, number), reason, tuple(through))
                if "end" in event:
                    return Marked(rows=found.rows, **event["end"])
                if "fault" in event:
                    raise RuntimeError(event["fault"])
            if not begun:
                raise RuntimeError("the process that marks does not start")
            if at is None:
                return Marked(chapter, problem=TOO_LARGE)
            avoid.append(at)
        found.notes.append("marking was given up: too many answers brought it down")
        return found

    def close(self) -> None:
        """End the process; its workers end with it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _send(self, order: Event) -> None:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-c", "from mslearn.marker import main; main()"]
            self.process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=course())
            self.lines = _lines(self.process.stdout)
            order = {**order, "terms": asdict(self.terms)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def _events(self) -> Iterator[Event]:
        """What it says of one notebook, until it is gone or silent for too long."""
        while True:
            try:
                line = self.lines.get(timeout=self.patience)
            except Empty:
                line = None
            if line is None:
                self.close()
                return
            yield json.loads(line)


def _lines(stream: TextIO) -> "SimpleQueue[str | None]":
    """The lines of a stream as they come, then None."""
    lines: SimpleQueue[str | None] = SimpleQueue()

    def pump() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    return lines


class Spare:
    """Starts a worker ahead of its use, so that it has read its libraries when it is wanted."""

    def __init__(self, terms: Terms) -> None:
        self.terms, self.next = terms, None

    def take(self) -> Popen:
        """A worker; another one is on its way after that."""
        ready, self.next = self.next or self._start(), self._start()
        return ready

    def _start(self) -> Popen:
        secrets = map(Path, self.terms.secrets)
        return sandbox.start(sandbox.worker_code(), secrets, unsafe=self.terms.unsafe)


def main() -> None:
    """Mark what standard input names until it closes, whoever may have closed it."""
    import torch

    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a rule that prints prints nowhere
    torch.set_num_threads(1)
    orders: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(line)
        os._exit(0)  # the class is gone, and nobody waits for what is being marked

    threading.Thread(target=listen, daemon=True).start()
    terms = spare = None
    while True:
        order = json.loads(orders.get())
        if "terms" in order:
            given = order["terms"]
            terms = Terms(**{**given, "limits": Limits(**given["limits"])})
            spare = Spare(terms)
            sandbox.limit_memory(OWN_MEMORY + (2 * terms.limits.memory << 20))
        for event in _marking(order, terms, spare):
            print(json.dumps(event), file=out, flush=True)


def _marking(order: Event, terms: Terms, spare: Spare) -> Iterator[Event]:
    yield {"begun": True}
    path, chapter = Path(os.fsdecode(bytes.fromhex(order["path"]))), order["chapter"]
    try:
        notebook = submission.parse(submission.content(path), path.name)
        chapter = chapter or notebook.chapter
        if not chapter or not paths(chapter):
            raise ValueError("it does not say whose exercises these are: pass --set with a chapter")
    except ValueError as error:
        yield {"end": {"chapter": chapter, "problem": str(error)}}
        return
    except MemoryError:
        yield {"end": {"chapter": chapter, "problem": TOO_LARGE}}
        return
    rows = {(key, n): Row((key, n), reason, tuple(by)) for key, n, reason, by in order["done"]}
    avoid = [tuple(place) for place in order["avoid"]]
    try:
        exercises = terms.exercises(chapter)
        case = Case(notebook, exercises, spare.take, terms.limits, terms.seed, rows, avoid)
        for found in mark(case):
            if isinstance(found, Row):
                reason = submission.clean(found.reason)
                yield {"row": [*found.place, reason, found.through]}
            elif isinstance(found, tuple):
                yield {"at": found}
            else:
                notes = [submission.clean(note) for note in found]
                yield {"end": {"chapter": chapter, "notes": notes}}
    except Exception as error:  # ours: a learner's errors have become reasons
        yield {"fault": f"{type(error).__name__}: {error}"}
