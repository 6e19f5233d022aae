"""What live training costs: slider let go to rate in use, time of a run, bytes a point, memory."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mslearn.browser import chromium, jupyterlab, window
from mslearn.live import Live
from mslearn.live_cost import BEFORE, LONG, STRETCH, measure_memory, measure_overhead, tiny_run
from mslearn.pilot import Pilot, move

MOVES = 20
CELLS = (
    "from mslearn.live_cost import tiny_run\nfrom mslearn.live import Live\n"
    "run = tiny_run(seconds=0.005)",
    "live = Live(run, 50_000)",
    "run = live.wait()",
    "import json\nprint(json.dumps([[e.step, e.name, e.value, e.at] for e in run.events]))",
    "from mslearn.live_cost import measure_overhead\nprint(json.dumps(measure_overhead({pairs})))",
    "from mslearn.live_cost import measure_memory\nprint(json.dumps(measure_memory({long})))",
)


def _measure_in_browser(pairs: int, long: int) -> dict[str, Any]:
    """All of it in a notebook that a Chromium shows; the page draws while it trains."""
    cells = [cell.format(pairs=pairs, long=long) for cell in CELLS[4:]]
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


def _measure_in_kernel(pairs: int, long: int) -> dict[str, Any]:
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
    return {**measure_overhead(pairs), **found}


def live(pairs: int = 48, long: int = LONG) -> dict[str, Any]:
    """Measure on this machine: medians, and in `runs` what they are medians of.

    `overhead_percent` is the chart's, from stretches of one run with and without it; `live_percent`
    that of all that is live, from stretches of a live run and of the plain loop in turn.
    """
    browser = chromium()
    found = (_measure_in_browser if browser else _measure_in_kernel)(pairs, long)
    where = "in Chromium" if browser else "no browser here: from the message's arrival"
    return {
        "latency_ms": statistics.median(found.pop("latencies_ms")),
        "overhead_percent": found.pop("overhead_percent"),
        "live_percent": found.pop("live_percent"),
        "device": found.pop("device"),
        "runs": f"{MOVES} moves {where}, steps of 5 ms; after {BEFORE} points {pairs} pairs of "
        f"{STRETCH} steps with and without a chart, and as many live and plain",
        **found,
    }
