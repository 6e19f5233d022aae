"""A run in the background of a notebook, with a hand on its learning rate.

    live = Live(run, 600)      # this cell returns at once: slider, pause, stop and chart
    live.wait()                # the next one blocks until the end and gives back the run

The training loop is the one of `run.train`, on a thread of its own; a second thread looks at the
run's log and draws. Nobody at the slider means the same numbers, bit for bit, as the plain loop.
"""

import threading
import time
from typing import Any

import torch

from mslearn import kernel
from mslearn.panel import Panel
from mslearn.picture import Band, picture
from mslearn.plot import Picture
from mslearn.run import Run

PERIOD = 0.25  # seconds between drawings at the least
SHARE = 0.02  # of the time at the most

_current: "Live | None" = None


class Live:
    """Start training `run` until `steps` steps are made, and show its panel under the cell.

    One run lives at a time: starting another stops the one before. `band` is a `picture.Band`, or
    (steps, low, high) for the loss, drawn behind the curve. At the end one picture takes the
    panel's place, so that the saved notebook needs no kernel.
    """

    def __init__(self, run: Run, steps: int, *, band: Any = None, title: str = "Training") -> None:
        global _current
        if _current is not None:
            _current.stop()
        _current = self
        self.run, self.steps, self.title = run, steps, title
        self.band = Band(*band) if band is not None else None
        self.error: BaseException | None = None
        self.picture: Picture | None = None
        run.controls.paused = run.controls.stopped = False
        self.panel = Panel(run, steps, title, self.band)
        self._shell, self._parent, self._handle = _show(self.panel.widget)
        self._done = threading.Event()
        threads = torch.get_num_threads()
        self._trainer = threading.Thread(target=self._train, args=[threads], daemon=True)
        self._painter = threading.Thread(target=self._paint, daemon=True)
        self._trainer.start()
        self._painter.start()

    def wait(self) -> Run:
        """Block until the run has ended and give it back; raise what training raised.

        An interrupt stops the run after its current step, keeps its picture, and goes on up.
        """
        try:
            kernel.wait(self._over)
        except KeyboardInterrupt:
            self.stop()
            raise
        finally:
            # nbclient ignores what belongs to an earlier cell, so say it again from this one.
            self._publish()
        if len(self.panel.pages) > 1 and self._shell is not None:
            from IPython.display import display

            display(self.picture)  # a reloaded page has lost the place of the first picture
        if self.error is not None:
            raise self.error
        return self.run

    def stop(self) -> None:
        """End the run after its current step, as the button does, and wait for its picture."""
        if self._trainer.is_alive():
            self.run.controls.stopped = True
        self._trainer.join()
        self._painter.join()

    def _over(self, seconds: float) -> bool:
        self._painter.join(seconds)
        return not self._painter.is_alive()

    @property
    def phase(self) -> str:
        """One of "running", "paused", "stopped", "failed", "finished"."""
        if self._trainer.is_alive() and not self._done.is_set():
            return "paused" if self.run.controls.paused else "running"
        if self.error is not None:
            return "failed"
        return "finished" if self.run.step >= self.steps else "stopped"

    def _train(self, threads: int) -> None:
        """The headless loop, as it stands: what the page does reaches it through controls only."""
        torch.set_num_threads(threads)  # OpenMP counts per thread, and sums depend on the count
        self._belong()
        try:
            for _ in self.run.train(self.steps):
                pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended = time.perf_counter()
            self._done.set()

    def _paint(self) -> None:
        """Look at the log now and then; a failure here leaves the training alone."""
        self._belong()
        pause = 0.0
        try:
            while not self._done.wait(pause):
                pause = max(PERIOD, self.panel.flush(self.phase) / SHARE)
            self.panel.flush(self.phase, str(self.error or ""))
            self.picture = picture(
                self.run, self.steps, phase=self.phase, title=self.title, band=self.band
            )
            self._publish()
        except Exception as error:
            self.error = self.error or error

    def _belong(self) -> None:
        """What this thread prints belongs under the cell that started the run."""
        adopt = getattr(self._shell, "set_thread_parent", getattr(self._shell, "set_parent", None))
        if adopt is not None and self._parent is not None:
            adopt(self._parent)

    def _publish(self) -> None:
        if self._handle is not None and self.picture is not None:
            self._handle.update(self.picture)


def _show(widget: Any) -> tuple[Any, Any, Any]:
    """Display the widget; gives the shell, the cell's request and the display's handle, or None."""
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    if shell is None:
        return None, None, None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    return shell, parent, display(widget, display_id=True)
