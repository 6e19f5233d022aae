"""What of a run goes to its page as numbers: 16 bytes a step, thinned where the run is long.

Points leave as float32: (step, loss, rate, gradient norm) for a step, (step, score, value) for a
held-out score, (step, gradient norms, update ratios) for a sample of the layers.
"""

import time
from array import array
from typing import NamedTuple

import numpy as np

from mslearn.records import Log

MOST = 10_000  # points of one timeline, about
LAYER_SAMPLES = 400  # of one timeline, about
COLUMNS = ("loss", "lr", "grad_norm")
PATIENCE = 1.0  # seconds that a step of a long run may wait for its stretch to be full


class News(NamedTuple):
    """What a page does not have yet, and where it goes: (points, scores, samples) it has."""

    at: tuple[int, int, int]
    points: bytes
    held: bytes
    layers: bytes


class Stream:
    """One timeline's log on its way to the page, which is told only what it has not heard.

    Of a run longer than `MOST` steps only the least and the greatest loss of each stretch are sent:
    a chart some hundred pixels wide shows no more. A stretch is cut short where it takes long. Of a
    run that stands, the newest step is sent too.
    """

    def __init__(self, log: Log, steps: int) -> None:
        self.log = log
        stride = -(-steps // MOST)
        self._stretch = 2 * stride if stride > 1 else 1
        self._gap = max(1, steps // LAYER_SAMPLES)
        self._done, self._scored, self._sampled = 0, 0, 0
        self._sent, self._held, self._layers, self._last_layers = 0, 0, 0, -1
        self._fresh, self._told_at, self._newest = True, time.perf_counter(), -1

    def news(self, names: list[str], still: bool = False) -> News | None:
        """What is new; the first time also nothing, which takes the place of what was there before.

        None where nothing is. `names` numbers the scores and grows; `still`: the run stands.
        """
        at = (self._sent, self._held, self._layers)
        news = News(at, self._points(still), self._scores(names), self._samples())
        fresh, self._fresh = self._fresh, False
        return news if fresh or any(news[1:]) else None

    def _points(self, still: bool) -> bytes:
        end = len(self.log)
        if not still and time.perf_counter() < self._told_at + PATIENCE:
            end -= (end - self._done) % self._stretch
        losses = np.array(self.log.column("loss", self._done, end))
        kept = self._done + extremes(losses, self._stretch)
        newest = kept[-1] if len(kept) else self._newest
        if still and newest < end - 1:
            kept = np.append(kept, end - 1)
        self._done = end
        if not len(kept):
            return b""
        self._told_at, self._newest = time.perf_counter(), kept[-1]
        self._sent += len(kept)
        columns = [np.array(self.log.column(name, kept[0], end)) for name in COLUMNS]
        table = [kept, *(column[kept - kept[0]] for column in columns)]
        return np.stack(table, axis=1).astype("<f4").tobytes()

    def _scores(self, names: list[str]) -> bytes:
        found = array("f")
        for step, scores in list(self.log.held_out.items())[self._scored :]:
            self._scored += 1
            for name, value in scores.items():
                if name not in names:
                    names.append(name)
                found.extend((step, names.index(name), value))
        self._held += len(found) // 3
        return found.tobytes()

    def _samples(self) -> bytes:
        found = array("f")
        for step, gradients, updates in self.log.layers[self._sampled :]:
            self._sampled += 1
            gap = min(self._gap, max(self._last_layers, 0) // 20)  # close together at the start
            if step >= self._last_layers + gap:
                found.extend((step, *gradients, *updates))
                self._last_layers = step
                self._layers += 1
        return found.tobytes()


def extremes(losses: np.ndarray, stretch: int) -> np.ndarray:
    """Places of the least and the greatest loss of each stretch, in order; NaN is the greatest."""
    places = np.arange(len(losses))
    if stretch <= 2:
        return places
    ranked = np.where(np.isfinite(losses), losses, np.inf)
    found = []
    for start in range(0, len(losses), stretch):
        part = ranked[start : start + stretch]
        found += [start + part.argmin(), start + part.argmax()]
    return np.unique(np.array(found, dtype=int))
