"""A run in the background of a notebook, with a hand on its learning rate.

    live = Live(run, 600)      # this cell returns at once: controls, chart and time line
    live.wait()                # the next one blocks until the end and gives back the run

The training loop is the one of `run.train`, on a thread of its own; a second thread looks at the
run's log and draws. Nobody at the slider means the same numbers, bit for bit, as the plain loop.
"""

import contextlib
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from mslearn import kernel
from mslearn.account import smooth
from mslearn.guess import Guess
from mslearn.panel import Panel
from mslearn.picture import Band, picture
from mslearn.plot import Picture
from mslearn.run import Run
from mslearn.samples import Samples

PERIOD, LONGEST = 0.25, 3.0  # seconds between drawings, at the least and at the most
SHARE = 0.01  # of the time at the most, short of the longest period
LIVELY = 2.0  # seconds after an act in which its effect is drawn once a period, whatever that takes
NO_PAGE = 20.0  # seconds without a word from a page, after which a picture stands in for it
STILL = 10.0  # seconds between two such pictures at the least
WATCH = 25  # steps between two looks at the layers, unless the run says otherwise
EARLIER = 4  # runs that are drawn behind the current one

_current: "Live | None" = None
_earlier: list[dict[str, Any]] = []


class Live:
    """Start training `run` until `steps` steps are made, and show its cockpit under the cell.

    One run lives at a time: starting another stops the one before. `band` is a `picture.Band`, or
    (steps, low, high) for the loss, drawn behind the curve. `sample(model)` gives a text that the
    model writes, shown every `sample_every` steps, by default ten times. `guess` is the learner's
    prediction, `events` a script that drives until a hand does. The run keeps snapshots to go back
    to, unless `rewind` is False.
    At the end one picture takes the panel's place, so that the saved notebook needs no kernel.
    """

    def __init__(
        self,
        run: Run,
        steps: int,
        *,
        band: Any = None,
        title: str = "Training",
        sample: Callable[[nn.Module], str] | None = None,
        sample_every: int | None = None,
        guess: Guess | None = None,
        events: Iterable | None = None,
        rewind: bool = True,
    ) -> None:
        global _current
        if _current is not None:
            _current.stop()
        _current = self
        self.run, self.steps, self.title = run, steps, title
        self.band = Band(*band) if band is not None else None
        self.guess = guess
        self.error: BaseException | None = None
        self.picture: Picture | None = None
        self._prepare(rewind, events)
        self.samples = Samples(sample, sample_every or steps // 10)
        self.panel = Panel(run, steps, title, self.band, self.samples.texts, **self._behind())
        if guess is not None:
            guess.close()
        self._shell, self._parent, self._handle = _show(self.panel.widget)
        self._done = threading.Event()
        threads = torch.get_num_threads()
        self._trainer = threading.Thread(target=self._train, args=[threads], daemon=True)
        self._painter = threading.Thread(target=self._paint, daemon=True)
        self._trainer.start()
        self._painter.start()

    def _prepare(self, rewind: bool, events: Iterable | None) -> None:
        """What the run needs to be driven; a model too large for the snapshots goes without."""
        run = self.run
        run.controls.paused = run.controls.stopped = False
        run.attended, run.watch.every = False, run.watch.every or WATCH
        if rewind and run.snapshots is None:
            try:
                run.enable()
            except ValueError as error:
                warnings.warn(f"no rewinding and no branches: {error}", stacklevel=3)
        if events is not None:
            run.follow(events)

    def _behind(self) -> dict[str, Any]:
        """What is drawn behind the curve: earlier runs of the same size and loss, a prediction."""
        self._kind = self.run.loss, sum(p.numel() for p in self.run.model.parameters())
        earlier = [each["curve"] for each in _earlier if each["kind"] == self._kind]
        return {"earlier": earlier[-EARLIER:], "guess": self.guess.points if self.guess else []}

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
        """One of "running", "pausing", "paused", "stopped", "failed", "finished".

        "pausing" is what a run does that has a step to finish first.
        """
        if self._trainer.is_alive() and not self._done.is_set():
            halted = "paused" if self.run.halted else "pausing"
            return halted if self.run.controls.paused else "running"
        if self.error is not None:
            return "failed"
        return "finished" if self.run.step >= self.steps else "stopped"

    def _train(self, threads: int) -> None:
        """The headless loop, as it stands: what the page does reaches it through controls only."""
        torch.set_num_threads(threads)  # OpenMP counts per thread, and sums depend on the count
        self._belong()
        try:
            for _ in self.run.train(self.steps):
                self.samples.look(self.run.model, self.run.step, self.run.step == self.steps)
        except BaseException as error:
            self.error = error
        finally:
            self.ended = time.perf_counter()
            self._done.set()
            self.panel.stirred.set()

    def _paint(self) -> None:
        """Look at the log now and then; a failure here leaves the training alone."""
        self._belong()
        picture_at, lively_until = time.monotonic() + NO_PAGE, -math.inf
        try:
            while not self._done.is_set():
                if self.panel.stirred.is_set():
                    lively_until = time.monotonic() + LIVELY
                self.panel.stirred.clear()
                phase = self.phase
                spent = self.panel.flush(phase)
                lively = phase != "running" or time.monotonic() < lively_until
                pause = PERIOD if lively else min(spent / SHARE, LONGEST)
                if not self._done.wait(PERIOD):  # after it, an act is shown at once
                    self.panel.stirred.wait(max(0.0, pause - PERIOD))
                if not self.run.attended and time.monotonic() > picture_at:
                    picture_at = time.monotonic() + max(STILL, self._still() / SHARE)
            self.panel.flush(self.phase, str(self.error or ""))
            self._still()
            self._remember()
        except Exception as error:
            self.error = self.error or error

    def _still(self) -> float:
        """The picture of this moment in the panel's place; gives the CPU seconds it took."""
        started = time.thread_time()
        self.picture = picture(
            self.run, self.steps, phase=self.phase, title=self.title, band=self.band,
            guess=self.panel.guess, texts=self.samples.texts,
        )  # fmt: skip
        self._publish()
        return time.thread_time() - started

    def _remember(self) -> None:
        """Keep this curve to be drawn behind the next run."""
        losses = smooth(self.run.log.column("loss"))
        gap = max(1, len(losses) // 200)
        curve = {"step": list(range(0, len(losses), gap)), "loss": losses[::gap]}
        _earlier[:] = [*_earlier[-20:], {"kind": self._kind, "curve": curve}]

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
    if "google.colab" in sys.modules:  # Colab shows other people's widgets only when it is asked to
        with contextlib.suppress(Exception):
            sys.modules["google.colab"].output.enable_custom_widget_manager()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    return shell, parent, display(widget, display_id=True)
