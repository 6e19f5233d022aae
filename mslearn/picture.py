"""A run as one picture, which takes the place of its panel and stays in the saved notebook."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mslearn import plot
from mslearn.run import Run

PAST = 0.9  # weight of the past in the smoothed curve, as in panel.js


class Band(NamedTuple):
    """A reference to draw behind a curve: where earlier runs of the same recipe lay.

    `of` names the curve: "loss" (nats) or one of the run's held-out scores.
    """

    steps: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    of: str = "loss"


def picture(
    run: Run, steps: int, *, phase: str = "finished", title: str = "Training", band: Any = None
) -> plot.Picture:
    """Loss, held-out scores and rate above one another, `steps` wide, with all of it in words."""
    band = Band(*band) if band is not None else None
    names = dict.fromkeys(name for record in run.log for name in record.held_out or ())
    rows = ["loss", *(name for name in names if name != "loss"), "rate"]
    shares = [3.0, *[2.0] * (len(rows) - 2), 1.5]
    height = 1.0 + 0.62 * sum(shares)
    figure, axes = plot.figure(len(rows), 1, height=height, sharex=True, height_ratios=shares)
    for name, ax in zip(rows[:-1], axes, strict=False):
        _draw_score(ax, run, name, band)
    _draw_rate(axes[-1], run, planned(run, steps))
    axes[0].set_title(f"{title}: {phase} at step {run.step} of {steps}", loc="left")
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(0, run.step or steps)
    words = describe(run, steps, phase=phase, title=title)
    return plot.Picture(plot.png(figure), words, round(figure.get_figwidth() * 100))


def describe(run: Run, steps: int, *, phase: str = "finished", title: str = "Training") -> str:
    """The picture in words, for who cannot see it."""
    if not run.log:
        return f"{title}: {phase} before the first step."
    losses = smooth([record.loss for record in run.log])
    moves = sum(event.name == "lr" and event.value is not None for event in run.events)
    held = next((r.held_out for r in reversed(run.log) if r.held_out), None) or {}
    scores = "".join(f", held-out {k.replace('_', ' ')} {v:.3f}" for k, v in held.items())
    hand = f"moved by hand {moves} times" if moves else "by schedule"
    return (
        f"{title}, {phase} at step {run.step} of {steps}: training loss from {losses[0]:.3f} to "
        f"{losses[-1]:.3f} nats (smoothed){scores}; rate {hand}, {run.log[-1].lr:.2e} at the end."
    )


def planned(run: Run, steps: int, most: int = 400) -> list[tuple[int, float]]:
    """The schedule as (step, rate) pairs, at most about `most` of them, first and last included."""
    chosen = range(0, steps, max(1, steps // most))
    return [(step, float(run.schedule(step))) for step in (*chosen, max(0, steps - 1))]


def smooth(values: list[float], past: float = PAST) -> list[float]:
    """Exponential mean of the finite values so far, its start corrected as in Adam."""
    mean, weight, means = 0.0, 0.0, []
    for value in values:
        if abs(value) < float("inf"):  # false for NaN too
            mean, weight = past * mean + (1 - past) * value, past * weight + (1 - past)
        means.append(mean / weight if weight else float("nan"))
    return means


def _draw_score(ax: Any, run: Run, name: str, band: Band | None) -> None:
    if band is not None and band.of == name:
        ax.fill_between(
            band.steps, band.low, band.high, color="0.7", alpha=0.5, lw=0, label="reference band"
        )
    if name == "loss":
        steps, losses = [r.step for r in run.log], [r.loss for r in run.log]
        ax.plot(steps, losses, color=plot.COLOURS[0], ls="-", lw=0.8, alpha=0.35)
        ax.plot(steps, smooth(losses), color=plot.COLOURS[0], ls="-", label="training")
    held = [(r.step, r.held_out[name]) for r in run.log if name in (r.held_out or {})]
    if held:
        style = {"color": plot.COLOURS[1], "ls": "--", "marker": "o", "markersize": 4}
        ax.plot(*zip(*held, strict=True), **style, label="held out")
    ax.set_ylabel("loss (nats)" if name == "loss" else name.replace("_", " "))
    plot.legend(ax, loc="upper right" if name == "loss" else "best")  # an accuracy rises


def _draw_rate(ax: Any, run: Run, plan: list[tuple[int, float]]) -> None:
    plan = [(step, rate) for step, rate in plan if rate > 0]
    if plan:
        ax.plot(*zip(*plan, strict=True), color="0.6", ls="--", lw=1.2, label="planned")
    used = [(record.step, record.lr) for record in run.log if record.lr > 0]
    if used:
        ax.step(*zip(*used, strict=True), color=plot.COLOURS[2], ls="-", where="post", label="used")
    top = max((rate for _, rate in (*plan, *used)), default=0.0)
    if top:
        ax.set_yscale("log")
        least = min(rate for _, rate in (*plan, *used))
        ax.set_ylim(max(least, top / 1000) / 1.5, top * 1.5)
        plot.legend(ax, loc="lower left", ncols=2)
    ax.set_ylabel("rate")
