"""The panel of a live run: what the page shows and asks for. Acts come in, points go out.

The page is `panel.js`, its chart `chart.js`. It sends one small message for each act of a person;
the panel sets a plain field for it and nothing else, because the message may arrive on any thread.
Points leave as float32: 12 bytes for a step, 12 for a held-out score.
"""

import math
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mslearn.picture import Band, planned
from mslearn.run import Run

HERE = Path(__file__).parent


class Panel:
    """Slider, typed rate, pause, stop and chart of one run, in one `widget`."""

    def __init__(self, run: Run, steps: int, title: str, band: Band | None) -> None:
        plan = planned(run, steps)
        low, high = slider_range([rate for _, rate in plan])
        behind = {key: _plain(value) for key, value in band._asdict().items()} if band else None
        setup = {"title": title, "steps": steps, "plan": plan, "low": low, "high": high}
        self.widget = _page({**setup, "band": behind})
        self.widget.on_msg(self.receive)
        self.run, self.seen, self.pages = run, 0.0, set()
        self._asked = True

    def receive(self, _: Any, message: dict, __: Any = None) -> None:
        """Set the field that a person's act stands for; ignore what makes no sense."""
        match message:
            case {"kind": "rate", "value": None}:
                self.run.controls.lr = None
            case {"kind": "pause", "value": bool() as paused}:
                self.run.controls.paused = paused
            case {"kind": "rate", "value": bool()}:
                pass  # Python counts True as the number 1
            case {"kind": "rate", "value": int() | float() as rate} if 0 < rate < math.inf:
                self.run.controls.lr = float(rate)
            case {"kind": "stop"}:
                self.run.controls.stopped = True
            case {"kind": "hello"}:
                self.pages.add(message.get("page"))
                self._asked = True
        self.seen = message.get("at", self.seen)

    def flush(self, phase: str, note: str = "") -> float:
        """Send what is new, or everything to a page that asked; gives the seconds it took."""
        started = time.perf_counter()
        if self._asked:
            self._asked, self._sent, self._sent_held, self._names = False, 0, 0, []
        new = self.run.log[self._sent :]
        points, held = array("f"), array("f")
        for record in new:
            points.extend((record.step, record.loss, record.lr))
            for name, value in (record.held_out or {}).items():
                if name not in self._names:
                    self._names.append(name)
                held.extend((record.step, self._names.index(name), value))
        message = {"kind": "points", "from": self._sent, "heldFrom": self._sent_held}
        message |= {"names": self._names, "state": self._state(phase, note)}
        self.widget.send(message, buffers=[points.tobytes(), held.tobytes()])
        self._sent += len(new)
        self._sent_held += len(held) // 3
        return time.perf_counter() - started

    def _state(self, phase: str, note: str) -> dict[str, Any]:
        """What the controls should show. `seen` is the stamp of the last act that arrived."""
        last = self.run.log[-1] if self.run.log else None
        return {
            "phase": phase,
            "note": note,
            "seen": self.seen,
            "byHand": self.run.controls.lr,
            "tokensPerSecond": last.tokens_per_s if last else 0,
            "secondsLeft": last.seconds_left if last else 0,
        }


def _page(setup: dict[str, Any]) -> Any:
    """The widget; its class is made here because ipywidgets is slow to import."""
    import anywidget
    import traitlets

    class Page(anywidget.AnyWidget):
        _esm = "".join((HERE / n).read_text(encoding="utf-8") for n in ("chart.js", "panel.js"))
        _css = (HERE / "panel.css").read_text(encoding="utf-8")
        setup = traitlets.Dict().tag(sync=True)

        def __repr__(self) -> str:
            return f"{self.setup['title']}: the live chart needs a running notebook"

    page = Page(setup=setup)
    # ipykernel 7.4 hands a widget's messages to the shell that last wrote to the widget: the main
    # one, which wait() blocks. Left where the page sent them, they arrive at once.
    page.comm._reply_subshell_for = lambda data, asked: asked
    return page


def slider_range(rates: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around the plan's peak: two and a half decades down, one and a half up."""
    peak = math.log10(max((rate for rate in rates if rate > 0), default=1e-3))
    return math.floor(peak - 2.5), math.ceil(peak + 1.5)


def _plain(values: Any) -> Any:
    """Sequences and arrays as lists of floats, for JSON; a name as it is."""
    return values if isinstance(values, str) else [float(value) for value in values]
