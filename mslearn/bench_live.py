"""What live training costs: slider let go to rate in use, time of a run, bytes a point, memory."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from mslearn.batches import Batches, HeldOut, Tokens
from mslearn.browser import chromium, jupyterlab, window
from mslearn.device import Device, pick
from mslearn.live import WATCH, Live
from mslearn.optim import muon_and_adamw
from mslearn.pilot import Pilot, move
from mslearn.records import Record
from mslearn.run import Run
from mslearn.schedules import constant, warmup_stable_decay
from mslearn.transformer import Config, Transformer

MOVES = 20
BEFORE = 10_000  # points that the chart has already when its cost is measured
SETTLE = 100  # steps after them that are not counted: a page opens and takes those points in
LONG = 100_000  # steps of the run whose memory is measured
CELLS = (
    "from mslearn.bench_live import tiny_run\nfrom mslearn.live import Live\n"
    "run = tiny_run(seconds=0.005)",
    "live = Live(run, 50_000)",
    "run = live.wait()",
    "import json\nprint(json.dumps([[e.step, e.name, e.value, e.at] for e in run.events]))",
    "from mslearn.bench_live import measure_overhead\n"
    "print(json.dumps(measure_overhead({pairs}, {steps})))",
    "from mslearn.bench_live import measure_memory\nprint(json.dumps(measure_memory({long})))",
)


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
    """Batches as they were, and the moment at which one of them was asked for."""

    def __init__(self, batches: Callable, step: int) -> None:
        self.batches, self.step, self.at = batches, step, 0.0
        self.tokens_per_step = batches.tokens_per_step

    def __call__(self, step: int) -> tuple[torch.Tensor, ...]:
        if step == self.step:
            self.at = time.perf_counter()
        return self.batches(step)


def measure_overhead(pairs: int = 7, steps: int = 400) -> dict[str, Any]:
    """Cost of the chart and of what is kept for going back, after one round to warm up.

    Three runs in turn: the plain loop, the same with snapshots and a look at the layers, and the
    live one. Each has a log of `BEFORE` steps already. The first figure is the chart's: live over
    kept; the second what is kept: kept over plain. Each is timed over its last `steps` steps; the
    picture at the end, which does not grow with the run, is counted apart.
    """
    device = pick()
    rounds, pictures, sent, drawn = [], [], [], []
    for turn in range(pairs + 1):
        kinds = ("plain", "kept", "live")[:: 1 - 2 * (turn % 2)]
        seconds = {}
        for kind in kinds:
            run = _grown(steps, device, kept=kind != "plain")
            if kind != "live":
                seconds[kind] = _plain_seconds(run, BEFORE + SETTLE + steps)
            else:
                seconds[kind], picture, size, flushes = _live_seconds(run, BEFORE + SETTLE + steps)
                pictures.append(picture)
                sent.append(size)
                drawn.append(flushes / seconds[kind])
        rounds.append(seconds)
    chart = [each["live"] / each["kept"] for each in rounds[1:]]
    kept = [each["kept"] / each["plain"] for each in rounds[1:]]
    return {
        "overhead_percent": 100 * (statistics.median(chart) - 1),
        "kept_percent": 100 * (statistics.median(kept) - 1),
        "ratios": [round(ratio, 4) for ratio in chart],
        "kept_ratios": [round(ratio, 4) for ratio in kept],
        "bytes_a_point": statistics.median(sent) / (BEFORE + SETTLE + steps),
        "drawn_per_s": statistics.median(drawn),
        "picture_seconds": statistics.median(pictures[1:]),
        "pairs": pairs,
        "steps": steps,
        "device": str(device),
    }


def _grown(steps: int, device: Device, kept: bool) -> Run:
    """A run that has a log of `BEFORE` steps; `kept`: with snapshots and a look at the layers."""
    run = small_run(BEFORE + SETTLE + steps, device)
    run.batches = Clocked(run.batches, BEFORE + SETTLE)
    for step in range(BEFORE):
        run.log.append(Record(step, 4.0 - step / BEFORE + 0.1 * (step % 3), 0.02, 1.0, 9e3, 1.0))
    run.step = BEFORE
    if kept:
        run.enable()
        run.watch.every = WATCH
    return run


def _plain_seconds(run: Run, steps: int) -> float:
    for _ in run.train(steps):
        pass
    return time.perf_counter() - run.batches.at


def _live_seconds(run: Run, steps: int) -> tuple[float, float, int, int]:
    """Seconds of training and of the picture; bytes of points sent to a page, and in how many
    messages after the first steps."""
    live = Live(run, steps)
    sent, send = [], live.panel.widget.send

    def counted(content: dict, buffers: Any = None) -> None:
        sent.append((time.perf_counter(), sum(len(buffer) for buffer in (buffers or [])[:2])))
        send(content, buffers)

    live.panel.widget.send = counted
    live.wait()
    finished, at = time.perf_counter(), run.batches.at
    drawn = sum(at < moment < live.ended for moment, _ in sent)
    return live.ended - at, finished - live.ended, sum(size for _, size in sent), drawn


def measure_memory(steps: int = LONG) -> dict[str, float]:
    """Memory of this process at a tenth of a long live run and at nine tenths, MB.

    Not at the end, where the picture is drawn. The log's share is 41 bytes a step.
    """
    run, process, seen = tiny_run(), psutil.Process(), []
    live = Live(run, steps)
    for share in (0.1, 0.9):
        while run.step < share * steps and live.phase == "running":
            time.sleep(0.05)
        seen.append(process.memory_info().rss / 1e6)
    live.wait()
    return {"early_mb": seen[0], "late_mb": seen[1], "log_mb": 41 * 0.8 * steps / 1e6}


def _measure_in_browser(pairs: int, steps: int, long: int) -> dict[str, Any]:
    """All of it in a notebook that a Chromium shows; the page draws while it trains."""
    cells = [cell.format(pairs=pairs, steps=steps, long=long) for cell in CELLS[4:]]
    heap = "() => performance.memory.usedJSHeapSize / 1e6"
    with tempfile.TemporaryDirectory() as folder, jupyterlab(Path(folder)) as lab, window() as page:
        pilot = Pilot(page, lab, "bench.ipynb", (*CELLS[:4], *cells))
        pilot.start()  # a learner runs all cells: the kernel is busy while we drive
        pilot.reach(100)
        released, _ = move(pilot, MOVES)
        pilot.button("Stop").click()
        pilot.run(3)
        used = [at for _, name, _, at in json.loads(pilot.output(3)) if name == "lr"]
        waits = [1e3 * (b - a) for a, b in zip(released, used, strict=True)]
        pilot.run(4, wait=False)
        pilot.finish(4, seconds=3_600)
        found = json.loads(pilot.output(4))
        pilot.run(5, wait=False)
        pilot.reach(long // 10)
        early = page.evaluate(heap)
        pilot.reach(long - long // 10)
        memory = {"page_early_mb": early, "page_late_mb": page.evaluate(heap)}
        pilot.finish(5)
        return {**found, "latencies_ms": waits, "memory": {**json.loads(pilot.output(5)), **memory}}


def _measure_in_kernel(pairs: int, steps: int, long: int) -> dict[str, Any]:
    """Without a browser: from the message's arrival in this process to the rate in use."""
    live = Live(tiny_run(seconds=0.005), 50_000)
    sent = []
    for each in range(MOVES):
        time.sleep(0.2)
        sent.append(time.time())
        rate = {"kind": "rate", "mode": "absolute", "value": 0.01 + 0.001 * each}
        live.panel.receive(None, rate)
    time.sleep(0.2)
    live.stop()
    used = [event.at for event in live.run.events if event.name == "lr"]
    waits = [1e3 * (b - a) for a, b in zip(sent, used, strict=True)]
    found = {"latencies_ms": waits, "memory": measure_memory(long)}
    return {**measure_overhead(pairs, steps), **found}


def live(pairs: int = 7, steps: int = 400, long: int = LONG) -> dict[str, Any]:
    """Measure on this machine: medians, and in `runs` what they are medians of."""
    browser = chromium()
    found = (_measure_in_browser if browser else _measure_in_kernel)(pairs, steps, long)
    where = "in Chromium" if browser else "no browser here: from the message's arrival"
    return {
        "latency_ms": statistics.median(found["latencies_ms"]),
        "overhead_percent": found["overhead_percent"],
        "device": found["device"],
        "runs": f"{MOVES} moves {where}, steps of 5 ms; "
        f"{pairs} pairs of {steps} steps after {BEFORE} points",
        **{key: found[key] for key in ("drawn_per_s", "kept_percent", "bytes_a_point", "memory")},
        **{key: found[key] for key in ("latencies_ms", "ratios", "kept_ratios", "picture_seconds")},
    }
