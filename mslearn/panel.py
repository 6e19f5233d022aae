"""The panel of a live run: what the page shows and asks for. Acts come in, points go out.

The page (`page`) sends one small message for each act of a person; the panel hands it to `run.ask`,
which sets a plain field and nothing else, because the message may arrive on any thread.
"""

import math
import threading
import time
from typing import Any

from mslearn.account import pins
from mslearn.guess import sound
from mslearn.page import page, setup
from mslearn.picture import Band
from mslearn.points import Stream
from mslearn.run import Run

PACE = 1.0  # seconds between two words on speed and time left
BESIDE = 3.0  # times the time that the page sees is what a picture costs: browser, server, caches
SAID = 10.0  # seconds that a sentence stays


class Panel:
    """Controls, chart, timelines and texts of one run, in one `widget`.

    `more` goes to the page as it is: earlier runs, a prediction. `texts` is a list that grows:
    (step, text) of what the model writes.
    """

    def __init__(
        self,
        run: Run,
        steps: int,
        title: str,
        band: Band | None,
        texts: list[tuple[int, str]] | None = None,
        **more: Any,
    ) -> None:
        self.run, self.steps, self.texts = run, steps, texts if texts is not None else []
        self.widget = page({**setup(run, steps, title, band), **more})
        self.widget.on_msg(self.receive)
        self.guess: list[list[float]] = more.get("guess", [])
        self.seen, self.said = 0.0, ""
        self.pages: set[float] = set()
        self.stirred = threading.Event()  # somebody did something, so there is something to show
        self.drawing: dict[float, float] = {}  # seconds that a picture takes, by page
        self._notices, self._told = len(run.notices), 0
        self._shown, self._said_at = "", 0.0
        self._asked = True

    def receive(self, _: Any, message: dict, __: Any = None) -> None:
        """Do what a person's act stands for; what makes no sense is answered in a sentence."""
        match message:
            case {"kind": "hello", "page": page}:
                self.pages.add(page)
                self.run.attended, self._asked = True, True
            case {"kind": "drew", "page": int() | float() as page, "ms": int() | float() as ms}:
                self.drawing[page] = ms / 1000
                return
            case {"kind": "rate", "mode": mode, "value": value}:
                self.said = self._rate(mode, value)
            case {"kind": "branch", "name": str() as name, "step": step}:
                name = name or self._free_name()
                self.said = self.run.ask("branch", [name] if step is None else [name, step])
            case {"kind": "guess", "value": points} if sound(points):
                self.guess = points
            case {"kind": "ask", "name": str() as name, "value": value}:
                self.said = self.run.ask(name, value)
        if isinstance(at := message.get("at"), int | float):
            self.seen = at
        self.stirred.set()

    def _rate(self, mode: Any, value: Any) -> str:
        """Follow the schedule (None), a multiple of it, or a rate of one's own."""
        if value is None:
            return self.run.ask("lr", None) or self.run.ask("factor", 1.0)
        if mode == "factor":
            return self.run.ask("factor", value) or self.run.ask("lr", None)
        return self.run.ask("lr", value)

    def _free_name(self) -> str:
        numbers = range(1, len(self.run.family.timelines) + 1)
        names = (f"branch {number}" for number in numbers)
        return next(name for name in names if name not in self.run.family.timelines)

    def flush(self, phase: str, note: str = "") -> float:
        """Send what is new, or everything to a page that asked; gives the seconds that it costs.

        That is the CPU of this thread and what the pages said that a picture takes them.
        """
        started = time.thread_time()  # waiting for its turn costs the training nothing
        everything = self._asked
        if everything:
            self._asked, self._state, self._known = False, {}, {}
            self._streams, self._names, self._paced = {}, [], -math.inf
        news = [
            (name, self._of(name, phase != "running")) for name in list(self.run.family.timelines)
        ]
        self._send(self._changes(phase, note, everything), news)
        return time.thread_time() - started + BESIDE * sum(self.drawing.values())

    def _send(self, changes: dict[str, Any], news: list[tuple[str, Any]]) -> None:
        """One message for all that is new, so that the page draws once; none where nothing is."""
        new = [(name, each) for name, each in news if each is not None]
        if new:
            layers = len(self.run.watch.names)
            points = [{"line": name, "from": each.at, "layers": layers} for name, each in new]
            changes = {**changes, "points": points}
        if changes:
            buffers = [buffer for _, each in new for buffer in each[1:]]
            self.widget.send({"kind": "run", **changes}, buffers=buffers)

    def _of(self, name: str, still: bool) -> Any:
        """What is new of a timeline. One that went back in time has another log: all of it."""
        line = self.run.family.timelines.get(name)
        if line is None:  # dropped just now
            return None
        stream = self._streams.get(name)
        if stream is None or stream.log is not line.log:
            stream = self._streams[name] = Stream(line.log, self.steps)
        return stream.news(self._names, still)

    def _changes(self, phase: str, note: str, everything: bool) -> dict[str, Any]:
        """What has changed of the run, beside its points."""
        state, family = self._now(phase, note), self._about_family()
        changed = {key: value for key, value in state.items() if value != self._state.get(key, ...)}
        message = {k: value for k, value in family.items() if value != self._known.get(k, ...)}
        texts = self.texts if everything else self.texts[self._told :]
        self._told = len(self.texts)
        if texts:
            message["samples"] = [{"step": step, "text": text} for step, text in texts]
        self._state, self._known = state, family
        if changed:
            message["state"] = changed
        return {"all": True, **message} if everything else message

    def _about_family(self) -> dict[str, Any]:
        """Which timelines there are; `pins` of the current one are in the state."""
        lines = [
            {"name": line.name, "parent": line.parent, "born": line.born, "number": line.number}
            for line in list(self.run.family.timelines.values())
        ]
        current, names = self.run.family.current, list(self._names)
        return {"lines": lines, "current": current, "names": names, "snapshots": self._snapshots()}

    def _snapshots(self) -> list[int]:
        return self.run.reachable() if self.run.snapshots is not None else []

    def _now(self, phase: str, note: str) -> dict[str, Any]:
        """What the controls should show. `seen` is the stamp of the last act that arrived."""
        controls, log, now = self.run.controls, self.run.log, time.perf_counter()
        if now - self._paced >= PACE or phase != "running":
            self._paced = now
            last = log[-1] if log else None
            self._pace = [round(last.tokens_per_s), round(last.seconds_left)] if last else [0, 0]
        proposal = self.run.proposal
        return {
            "phase": phase,
            "note": note or self._sentence(now),
            "seen": self.seen,
            "lr": controls.lr,
            "factor": controls.factor,
            "ratios": list(controls.ratios) if controls.ratios is not None else None,
            "pace": self._pace,
            "pins": pins(self.run),
            "guess": self.guess,
            "proposal": proposal and {"why": proposal.why, "take": _accepting(proposal)},
        }

    def _sentence(self, now: float) -> str:
        """The newest of what the run says and what the last act was answered, for some seconds."""
        if len(self.run.notices) > self._notices:
            self._notices = len(self.run.notices)
            self.said = self.run.notices[-1][1]
        if self.said != self._shown:
            self._shown, self._said_at = self.said, now
        return self.said if now - self._said_at < SAID else ""


def _accepting(proposal: Any) -> str:
    """What the button says that takes the guard's proposal."""
    rate = "rate" if proposal.control == "lr" else "× schedule"
    return f"Accept: {rate} {proposal.value:.2g} from step {proposal.back_to}"
