"""A run as one picture, which takes the place of its panel and stays in the saved notebook."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mslearn import plot
from mslearn.account import describe, pins, smooth, table, written
from mslearn.run import Run
from mslearn.timeline import Timeline

MOST = 4_000  # points of a curve, about: more than it has pixels


class RunPicture(plot.Picture):
    """The picture of a run; below it the table of its timelines and what the model wrote."""

    def __init__(self, content: bytes, alt: str, width: int, below: str = "") -> None:
        super().__init__(content, alt, width)
        self.below = below

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(include, exclude)
        return {**bundle, "text/html": bundle["text/html"] + self.below}


class Band(NamedTuple):
    """A reference to draw behind a curve: where earlier runs of the same recipe lay.

    `of` names the curve: "loss" (nats) or one of the run's held-out scores.
    """

    steps: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    of: str = "loss"


def picture(
    run: Run,
    steps: int,
    *,
    phase: str = "finished",
    title: str = "Training",
    band: Any = None,
    guess: Sequence[Sequence[float]] = (),
    texts: Sequence[tuple[int, str]] = (),
) -> RunPicture:
    """Loss, held-out scores and rate above one another, `steps` wide, with all of it in words.

    A branch has its own colour and begins where it left its parent. `guess` is a prediction of the
    loss, as (step, nats), `texts` what the model wrote, as (step, text).
    """
    band = Band(*band) if band is not None else None
    lines = [line for line in run.family.timelines.values() if len(line.log)]
    scores = [each for line in lines for each in list(line.log.held_out.values())]
    names = dict.fromkeys(name for each in scores for name in each)
    rows = ["loss", *(name for name in names if name != "loss"), "rate"]
    shares = [3.0, *[2.0] * (len(rows) - 2), 1.5]
    height = 1.0 + 0.62 * sum(shares)
    figure, axes = plot.figure(len(rows), 1, height=height, sharex=True, height_ratios=shares)
    for name, ax in zip(rows[:-1], axes, strict=False):
        _draw_score(ax, lines, name, band)
    if len(guess):
        axes[0].plot(*zip(*guess, strict=True), color="0.2", ls=":", lw=2.2, label="predicted")
    _draw_pins(axes[0], run)
    if axes[0].get_legend_handles_labels()[0]:
        plot.legend(axes[0], loc="upper right")
    _draw_rate(axes[-1], lines, planned(run, steps))
    axes[0].set_title(f"{title}: {phase} at step {run.step} of {steps}", loc="left")
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(0, max((line.step for line in lines), default=0) or steps)
    words = describe(run, steps, phase=phase, title=title, guess=guess)
    below = table(run) + written(texts)
    return RunPicture(plot.png(figure), words, round(figure.get_figwidth() * 100), below)


def planned(run: Run, steps: int, most: int = 400) -> list[tuple[int, float]]:
    """The schedule as (step, rate) pairs, at most about `most` of them, first and last included."""
    even = range(0, steps, max(1, 2 * steps // most))
    early = {round(steps ** (k / most * 2)) for k in range(most // 2)}  # where a warm-up may be
    chosen = sorted({*even, *early, max(0, steps - 1)} - {steps})
    return [(step, run.planned(step)) for step in chosen]


def thinned(values: Sequence[float], start: int) -> tuple[Sequence[int], Sequence[float]]:
    """The steps from `start` on and their values, at most about `MOST` of them."""
    steps = range(start, len(values), max(1, (len(values) - start) // MOST))
    return steps, [values[step] for step in steps]


def _colour(line: Timeline, lines: list[Timeline], alone: int = 0) -> str:
    """A timeline's colour; where there is only one, the place of the series in the palette."""
    return plot.COLOURS[(line.number if len(lines) > 1 else alone) % len(plot.COLOURS)]


def _draw_score(ax: Any, lines: list[Timeline], name: str, band: Band | None) -> None:
    if band is not None and band.of == name:
        ax.fill_between(
            band.steps, band.low, band.high, color="0.7", alpha=0.5, lw=0, label="reference band"
        )
    for line in lines:
        if name == "loss":
            losses, style = line.log.column("loss"), {"color": _colour(line, lines), "ls": "-"}
            label = "training" if len(lines) == 1 else line.name
            ax.plot(*thinned(losses, line.born), **style, lw=0.8, alpha=0.35)
            ax.plot(*thinned(smooth(losses), line.born), **style, label=label)
        held = list(line.log.held_out.items())
        held = [(step, each[name]) for step, each in held if name in each and step >= line.born]
        if held:
            style = {"color": _colour(line, lines, 1), "ls": "--", "marker": "o", "markersize": 4}
            label = "held out" if line is lines[0] else None
            ax.plot(*zip(*held, strict=True), **style, mfc=plot.PAPER, label=label)
    ax.set_ylabel("loss (nats)" if name == "loss" else name.replace("_", " "))
    if name == "loss":
        _leave_out_explosions(ax, lines)
    else:
        plot.legend(ax, loc="best")  # an accuracy rises


def _leave_out_explosions(ax: Any, lines: list) -> None:
    """A loss that ran away leaves the picture at its top, so that the rest can be seen."""
    starts = [max(line.log.column("loss", 0, 10)) for line in lines]
    finite = [loss for line in lines for loss in line.log.column("loss") if math.isfinite(loss)]
    bottom, top = ax.get_ylim()
    lowest = min(finite, default=bottom)
    limit = max((start + 0.6 * max(start - lowest, 0.0) for start in starts), default=top)
    if lowest < limit < top:
        ax.set_ylim(max(bottom, lowest - 0.06 * (limit - lowest)), limit)


def _draw_pins(ax: Any, run: Run) -> None:
    for number, pin in enumerate(pins(run), 1):
        colour = plot.COLOURS[1] if pin["guard"] else plot.INK
        ax.axvline(pin["step"], color=colour, lw=0.8, ls=":")
        flag = {"boxstyle": "circle,pad=0.25", "fc": colour, "ec": "none"}
        words = {"color": plot.PAPER, "fontsize": 8, "ha": "center", "va": "center", "bbox": flag}
        ax.annotate(str(number), (pin["step"], 0.06), xycoords=("data", "axes fraction"), **words)


def _draw_rate(ax: Any, lines: list[Timeline], plan: list[tuple[int, float]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    plan = [(step, rate) for step, rate in plan if rate > 0]
    if plan:
        ax.plot(*zip(*plan, strict=True), color="0.6", ls="--", lw=1.2, label="planned")
    seen = [rate for _, rate in plan]
    for line in lines:
        used, label = line.log.column("lr"), "used" if len(lines) == 1 else None
        style = {"color": _colour(line, lines, 2), "ls": "-", "where": "post", "label": label}
        ax.step(range(line.born, len(used)), used[line.born :], **style)
        seen += [rate for rate in used if rate > 0]
    if seen:
        ax.set_yscale("log")
        low, high = max(min(seen), max(seen) / 1000) / 1.5, max(seen) * 1.5
        ax.set_ylim(low, high)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 3.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
        plot.legend(ax, loc="lower left", ncols=2)
    ax.set_ylabel("rate")
