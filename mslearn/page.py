"""The widget of a live run, and what its page has to know from the start."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mslearn.picture import Band, planned
from mslearn.run import Run

HERE = Path(__file__).parent
# The parts of the page in reading order; a widget's script is one text, so they are joined.
SCRIPTS = ("chart", "history", "series", "rows", "controls", "family", "guess", "panel")


def setup(run: Run, steps: int, title: str, band: Band | None) -> dict[str, Any]:
    """What does not change while it trains: plan, ranges, names of groups and layers, band."""
    plan = planned(run, steps)
    low, high = slider_range([rate for _, rate in plan])
    behind = {key: _plain(value) for key, value in band._asdict().items()} if band else None
    about = {"title": title, "steps": steps, "plan": plan, "low": low, "high": high}
    parts = {"groups": run.groups, "ratios": list(run.ratios), "layers": run.watch.names}
    return {**about, **parts, "band": behind, "earlier": [], "guess": []}


def page(setup: dict[str, Any]) -> Any:
    """The widget; its class is made here because ipywidgets is slow to import."""
    import anywidget
    import traitlets

    class Page(anywidget.AnyWidget):
        _esm = "".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
        _css = (HERE / "panel.css").read_text(encoding="utf-8")
        setup = traitlets.Dict().tag(sync=True)

        def __repr__(self) -> str:
            return f"{self.setup['title']}: the live chart needs a running notebook"

    widget = Page(setup=setup)
    # ipykernel 7.4 hands a widget's messages to the shell that last wrote to the widget: the main
    # one, which wait() blocks. Left where the page sent them, they arrive at once.
    widget.comm._reply_subshell_for = lambda data, asked: asked
    return widget


def slider_range(rates: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around the plan's peak: two and a half decades down, one and a half up."""
    peak = math.log10(max((rate for rate in rates if rate > 0), default=1e-3))
    return math.floor(peak - 2.5), math.ceil(peak + 1.5)


def _plain(values: Any) -> Any:
    """Sequences and arrays as lists of floats, for JSON; a name as it is."""
    return values if isinstance(values, str) else [float(value) for value in values]
