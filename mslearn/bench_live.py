"""What live training costs: slider let go to rate in use, and the time of a run."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mslearn.batches import Batches, HeldOut, Tokens
from mslearn.browser import Notebook, chromium, jupyterlab, window
from mslearn.device import Device, pick
from mslearn.live import Live
from mslearn.optim import muon_and_adamw
from mslearn.run import Run
from mslearn.schedules import warmup_stable_decay
from mslearn.transformer import Config, Transformer

MOVES = 10
CLOCK = """() => {
  window.released = [];
  const now = () => (performance.timeOrigin + performance.now()) / 1000;
  document.addEventListener("pointerup", () => window.released.push(now()), true);
}"""
CELLS = (
    "from mslearn.bench_live import small_run\nfrom mslearn.live import Live\n"
    "run = small_run(5_000)",
    "live = Live(run, 5_000)",
    "run = live.wait()",
    "import json\nprint(json.dumps([[e.step, e.name, e.value, e.at] for e in run.events]))",
    "from mslearn.bench_live import measure_overhead\nimport json\n"
    "print(json.dumps(measure_overhead({pairs}, {steps})))",
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


def measure_overhead(pairs: int = 7, steps: int = 400) -> dict[str, Any]:
    """Seconds of the live run over those of the plain loop, in turn, after one pair to warm up.

    Live counts from the call to the last step. The picture at the end, which does not grow with
    the run, is counted apart.
    """
    device = pick()
    ratios, pictures = [], []
    for pair in range(pairs + 1):
        order = (_plain_seconds, _live_seconds)
        seconds = {measure: measure(steps, device) for measure in order[:: 1 - 2 * (pair % 2)]}
        live, picture = seconds[_live_seconds]
        ratios.append(live / seconds[_plain_seconds][0])
        pictures.append(picture)
    return {
        "overhead_percent": 100 * (statistics.median(ratios[1:]) - 1),
        "ratios": [round(ratio, 4) for ratio in ratios[1:]],
        "picture_seconds": statistics.median(pictures[1:]),
        "pairs": pairs,
        "steps": steps,
        "device": str(device),
    }


def _plain_seconds(steps: int, device: Device) -> tuple[float, float]:
    run = small_run(steps, device)
    started = time.perf_counter()
    for _ in run.train(steps):
        pass
    return time.perf_counter() - started, 0.0


def _live_seconds(steps: int, device: Device) -> tuple[float, float]:
    run = small_run(steps, device)
    started = time.perf_counter()
    live = Live(run, steps)
    live.wait()
    trained = live.ended - started
    return trained, time.perf_counter() - started - trained


def write_notebook(path: Path, cells: tuple[str, ...]) -> None:
    """A notebook of code cells, not yet run."""
    import nbformat

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, path)


def drag(page: Any, share: float) -> None:
    """Take the slider's handle with the mouse and let it go at `share` of its length."""
    slider = page.get_by_role("slider", name="Learning rate", exact=True)
    box = slider.bounding_box()
    place, low, high = slider.evaluate("s => [Number(s.value), Number(s.min), Number(s.max)]")
    handle = 8  # half its width in pixels: its middle stays that far from either end
    x = [box["x"] + handle + part * (box["width"] - 2 * handle) for part in (0, 1)]
    now = x[0] + (place - low) / (high - low) * (x[1] - x[0])
    y = box["y"] + box["height"] / 2
    page.mouse.move(now, y)
    page.mouse.down()
    page.mouse.move(x[0] + share * (x[1] - x[0]), y, steps=6)
    page.mouse.up()


def move_in_browser(page: Any, moves: int = MOVES) -> tuple[list[float], list[float]]:
    """Drag the slider `moves` times; gives the moments it was let go (s, epoch) and the rates."""
    page.evaluate(CLOCK)
    rates = []
    for move in range(moves):
        drag(page, (0.3, 0.7, 0.5, 0.65, 0.4)[move % 5])
        typed = page.get_by_role("textbox", name="Learning rate, typed")
        rates.append(float(typed.input_value()))
        page.wait_for_timeout(250)
    return page.evaluate("window.released"), rates


def _measure_in_browser(pairs: int, steps: int) -> dict[str, Any]:
    """Both measures in a notebook that a Chromium shows; the page draws while it trains."""
    with tempfile.TemporaryDirectory() as folder, jupyterlab(Path(folder)) as lab, window() as page:
        cells = (*CELLS[:4], CELLS[4].format(pairs=pairs, steps=steps))
        write_notebook(Path(folder) / "bench.ipynb", cells)
        notebook = Notebook(page, lab, "bench.ipynb")
        notebook.open()
        notebook.run(0)
        notebook.run(1)
        notebook.run(2, wait=False)  # a learner runs all cells: the kernel is busy while we drive
        page.get_by_role("button", name="Pause").wait_for()
        page.wait_for_timeout(1_000)
        released, _ = move_in_browser(page)
        page.get_by_role("button", name="Stop").click()
        notebook.run(3)
        used = [at for _, name, _, at in json.loads(notebook.output(3)) if name == "lr"]
        waits = [1e3 * (b - a) for a, b in zip(released, used, strict=True)]
        notebook.run(4)
        return {**json.loads(notebook.output(4)), "latencies_ms": waits}


def _measure_in_kernel(pairs: int, steps: int) -> dict[str, Any]:
    """Without a browser: from the message's arrival in this process to the rate in use."""
    live = Live(small_run(5_000), 5_000)
    sent = []
    for move in range(MOVES):
        time.sleep(0.2)
        sent.append(time.time())
        live.panel.receive(None, {"kind": "rate", "value": 0.01 + 0.001 * move})
    time.sleep(0.2)
    live.stop()
    used = [event.at for event in live.run.events if event.name == "lr"]
    waits = [1e3 * (b - a) for a, b in zip(sent, used, strict=True)]
    return {**measure_overhead(pairs, steps), "latencies_ms": waits}


def live(pairs: int = 7, steps: int = 400) -> dict[str, Any]:
    """Measure on this machine: two medians, and in `runs` what they are medians of."""
    browser = chromium()
    found = (_measure_in_browser if browser else _measure_in_kernel)(pairs, steps)
    where = "in Chromium" if browser else "no browser here: from the message's arrival"
    return {
        "latency_ms": statistics.median(found["latencies_ms"]),
        "overhead_percent": found["overhead_percent"],
        "device": found["device"],
        "runs": f"{MOVES} moves {where}; {pairs} pairs of {steps} steps",
        **{k: found[k] for k in ("latencies_ms", "ratios", "picture_seconds")},
    }
