"""What being live costs a run, measured where it trains: the chart, what is kept, and memory."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mslearn.batches import Batches, HeldOut, Tokens
from mslearn.device import Device, pick
from mslearn.live import WATCH, Live
from mslearn.optim import muon_and_adamw
from mslearn.records import Record
from mslearn.run import Run
from mslearn.schedules import constant, warmup_stable_decay
from mslearn.transformer import Config, Transformer

BEFORE = 10_000  # points that the chart has already when its cost is measured
SETTLE = 100  # steps after them that are not counted: a page opens and takes those points in
STRETCH = 200  # steps: a chart is drawn in each, and the machine is the same for both of a pair
LONG = 100_000  # steps of the run whose memory is measured


def small_run(steps: int, device: Device | None = None) -> Run:
    """A small transformer on a made-up language of 64 words; the same at every call."""
    generator = np.random.default_rng(0)
    leaps = generator.integers(64, size=(64, 4))  # each word is followed by one of four
    ids = [0]
    for choice in generator.integers(4, size=60_000):
        ids.append(int(leaps[ids[-1], choice]))
    words = np.array(ids, dtype=np.uint16)
    train, valid = (Tokens(part, np.ones(64, int)) for part in (words[:50_000], words[50_000:]))
    torch.manual_seed(0)
    model = Transformer(Config(64, context=64, n_layers=2, n_heads=4, d_model=128))
    return Run(
        model,
        Batches(train, context=64, batch_size=8),
        muon_and_adamw(model, lr=0.02, adam_lr=0.005),
        schedule=warmup_stable_decay(0.02, 20, steps),
        device=device,
        evaluate=HeldOut(valid, context=64, max_tokens=2_000),
        evaluate_every=100,
    )


def tiny_run(seconds: float = 0.0) -> Run:
    """A layer of eight numbers: a run in which a hundred thousand steps take a minute.

    Each step waits `seconds`, so that it is as long as a small model's on every machine.
    """
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    x = torch.randn(16, 8)

    def batches(step: int) -> tuple[torch.Tensor, ...]:
        time.sleep(seconds)
        return (x,)

    return Run(
        model,
        batches,
        torch.optim.SGD(model.parameters(), lr=0.01),
        schedule=constant(0.01),
        loss=lambda model, batch: (model(batch[0]) - batch[0]).square().mean(),
        device=Device("cpu", "benchmark", None),
    )


class Clocked:
    """Batches as they were, and the moments at which each of them was asked for."""

    def __init__(self, batches: Callable) -> None:
        self.batches, self.at = batches, {}
        self.tokens_per_step = batches.tokens_per_step

    def __call__(self, step: int) -> tuple[torch.Tensor, ...]:
        self.at[step] = time.perf_counter()
        return self.batches(step)


class Turns:
    """Two runs, each on a thread of its own, of which one at a time makes `STRETCH` steps.

    The order is first, second, second, first, and so on. The first `SETTLE` steps after `BEFORE` a
    run makes when its turn first comes, uncounted.
    """

    def __init__(self, pairs: int) -> None:
        self.order = ([0, 1, 1, 0] * pairs)[: 2 * pairs]
        self.place, self.changed = 0, threading.Condition()
        self.seconds: tuple[list[float], list[float]] = ([], [])

    def batches(self, side: int, batches: Callable) -> Callable:
        """The same batches, of which the first of a stretch is given when it is this run's turn."""
        started = 0.0

        def taken(step: int) -> tuple[torch.Tensor, ...]:
            nonlocal started
            made = step - BEFORE - SETTLE
            if made == -SETTLE:
                self._wait(side)
            elif made >= 0 and made % STRETCH == 0:
                if made:
                    self.seconds[side].append(time.perf_counter() - started)
                    self._wait(side, done=1)
                started = time.perf_counter()
            return batches(step)

        taken.tokens_per_step = batches.tokens_per_step
        return taken

    def _wait(self, side: int, done: int = 0) -> None:
        with self.changed:
            self.place += done
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.may_work(side))

    def may_work(self, side: int) -> bool:
        """Whether it is this run's turn, or nobody's any more; from any thread."""
        return self.order[self.place :][:1] in ([side], [])


def measure_chart(pairs: int = 48) -> dict[str, Any]:
    """Cost of the chart: one live run, its chart held back in every other `STRETCH` steps.

    The two of a pair lie side by side, so that the machine is the same for both; which comes first
    changes from pair to pair. The run has a log of `BEFORE` steps already.
    """
    first = BEFORE + SETTLE
    end = first + 2 * pairs * STRETCH
    run = _grown(end - BEFORE, pick(), kept=True)
    run.batches = Clocked(run.batches)
    live = Live(run, end)
    sent = _gate(live, lambda: _shown(run.step - first))
    live.wait()
    marks = [run.batches.at[step] for step in range(first, end, STRETCH)] + [live.ended]
    seconds = np.diff(marks).reshape(pairs, 2)
    swapped = np.arange(pairs) % 2 == 1  # in these the stretch without a chart came first
    shown, held = np.where(swapped[:, None], seconds[:, ::-1], seconds).T
    mid, interval = _median(shown / held)
    return {
        "overhead_percent": mid,
        "overhead_interval": interval,
        "drawn_per_s": sum(first <= step < end for step, _ in sent) / float(shown.sum()),
    }


def _median(ratios: np.ndarray) -> tuple[float, list[float]]:
    """What a ratio is above 1, in per cent: the median, and its interval of 95 % by ranks."""
    reach = min(0.5, 0.98 / len(ratios) ** 0.5)
    low, mid, high = 100 * (np.quantile(ratios, [0.5 - reach, 0.5, 0.5 + reach]) - 1)
    return float(mid), [float(low), float(high)]


def _gate(live: Live, may_draw: Callable[[], bool]) -> list[tuple[int, int]]:
    """Draw only where `may_draw()`, and at the end: step and bytes of each message to the page."""
    flush, send, sent = live.panel.flush, live.panel.widget.send, []

    def gated(phase: str, *note: str) -> float:
        return flush(phase, *note) if phase != "running" or may_draw() else 0.0

    def counted(content: dict, buffers: Any = None) -> None:
        sent.append((live.run.step, sum(len(buffer) for buffer in (buffers or [])[:2])))
        send(content, buffers)

    live.panel.flush, live.panel.widget.send = gated, counted
    return sent


def _shown(step: int) -> bool:
    """Whether the chart is drawn at a step: with, without, without, with, and so on."""
    pair, second = divmod(step // STRETCH, 2)
    return step < 0 or second == pair % 2


def measure_live(pairs: int = 48) -> dict[str, Any]:
    """Cost of all that is live: a live run and the plain loop in turn, stretch by stretch.

    The live one also keeps snapshots, looks at the layers and has a page. Each has a log of
    `BEFORE` steps already. The picture at the end, which does not grow with the run, is apart.
    """
    device, turns = pick(), Turns(pairs)
    steps = SETTLE + pairs * STRETCH + 1  # with the one that ends the last stretch
    plain, watched = (_grown(steps, device, kept=kept) for kept in (False, True))
    for side, run in enumerate((plain, watched)):
        run.batches = turns.batches(side, run.batches)
    live = Live(watched, BEFORE + steps)
    sent = _gate(live, lambda: turns.may_work(1))
    for _ in plain.train(BEFORE + steps):
        pass
    live.wait()
    finished = time.perf_counter()
    ratios = np.divide(turns.seconds[1], turns.seconds[0])
    mid, interval = _median(ratios)
    return {
        "live_percent": mid,
        "live_interval": interval,
        "bytes_a_point": sum(n_bytes for _, n_bytes in sent) / (BEFORE + steps),
        "picture_seconds": finished - live.ended,
        "device": str(device),
    }


def measure_overhead(pairs: int) -> dict[str, Any]:
    """The chart's cost and that of all that is live."""
    return {**measure_chart(pairs), **measure_live(pairs)}


def _grown(steps: int, device: Device, kept: bool) -> Run:
    """A run that has a log of `BEFORE` steps; `kept`: with snapshots and a look at the layers."""
    run = small_run(BEFORE + steps, device)
    for step in range(BEFORE):
        run.log.append(Record(step, 4.0 - step / BEFORE + 0.1 * (step % 3), 0.02, 1.0, 9e3, 1.0))
    run.step = BEFORE
    if kept:
        run.enable()
        run.watch.every = WATCH
    return run


def measure_memory(steps: int = LONG) -> dict[str, float]:
    """Memory of this process at a tenth of a long live run and at nine tenths, MB.

    Not at the end, where the picture is drawn. The log's share is 41 bytes a step.
    """
    import psutil  # 7 ms that only this measurement needs

    run, process, seen = tiny_run(), psutil.Process(), []
    live = Live(run, steps)
    for share in (0.1, 0.9):
        while run.step < share * steps and live.phase == "running":
            time.sleep(0.05)
        seen.append(process.memory_info().rss / 1e6)
    live.wait()
    return {"early_mb": seen[0], "late_mb": seen[1], "log_mb": 41 * 0.8 * steps / 1e6}
