"""Every figure's style: colours a colour-blind reader can tell apart, units, alt text."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours in an order that keeps neighbours apart in lightness too; each stands out
# on white. Line styles repeat the distinction for readers who see no colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
INK, GRID, PAPER = "#222222", "#D9D9D9", "#FFFFFF"

# An opaque light card: the same full contrast on a light page and on a dark one.
STYLE: dict[str, Any] = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "font.family": "DejaVu Sans",
    "image.cmap": "cividis",
}


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 3.4, **subplots: Any
) -> "tuple[Figure, Any]":
    """A figure in the course's style and its axes; `width` and `height` in inches.

    Built on `matplotlib.figure.Figure`, not pyplot, so that it may be drawn off the main thread.
    Further names go to `Figure.subplots`, such as `sharey=True`.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    cycle = cycler(color=COLOURS) + cycler(linestyle=DASHES)
    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycle}):
        drawing = Figure(figsize=(width, height), layout="constrained")
        return drawing, drawing.subplots(rows, columns, **subplots)


def png(drawing: "Figure", dpi: int = 110) -> bytes:
    """The figure as PNG bytes, the same at every call (no date, no version inside)."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


class Picture:
    """A PNG with its alternative text, as Jupyter displays and saves it.

    JupyterLab gives an `image/png` output no alt text, so the picture is an HTML `<img>`.
    """

    def __init__(self, content: bytes, alt: str, width: int) -> None:
        self.content, self.alt, self.width = content, alt, width

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        source = base64.b64encode(self.content).decode("ascii")
        image = (
            f'<img src="data:image/png;base64,{source}" width="{self.width}" '
            f'style="max-width: 100%; height: auto" alt="{html.escape(self.alt)}">'
        )
        return {"text/html": image, "text/plain": self.alt}


def picture(drawing: "Figure", alt: str) -> Picture:
    """The figure as a picture; `alt` says in words what it shows."""
    if not alt.strip():
        raise ValueError("a figure needs alt text: say in a sentence what it shows, alt='...'")
    return Picture(png(drawing), alt, round(drawing.get_figwidth() * 100))


def show(drawing: "Figure", alt: str) -> None:
    """Display the figure under its cell; `alt` says in words what the picture shows."""
    from IPython.display import display

    display(picture(drawing, alt))


def label(axes: "Axes", x: str, y: str, title: str = "") -> None:
    """Name both axes, each with its unit in brackets where it has one."""
    axes.set(xlabel=x, ylabel=y)
    if title:
        axes.set_title(title, loc="left")


def legend(axes: "Axes", **options: Any) -> None:
    """A legend without a frame, in the style's ink; options go to `Axes.legend`."""
    axes.legend(**{"frameon": False, "fontsize": 9, "labelcolor": INK, **options})


def curves(
    axes: "Axes",
    series: Mapping[str, tuple[Sequence[float], Any]],
    *,
    x: str,
    y: str,
    log: bool = False,
    title: str = "",
) -> None:
    """Draw one line for each name: `(steps, values)`, values of shape (steps,) or (seeds, steps).

    With several seeds the line is their mean and the band reaches from the least to the greatest.
    `log` makes the vertical axis logarithmic.
    """
    for name, (steps, values) in series.items():
        table = np.atleast_2d(np.asarray(values, dtype=float))
        if table.shape[1] != len(steps):
            raise ValueError(f"{name}: {len(steps)} steps but values of shape {table.shape}")
        (line,) = axes.plot(steps, table.mean(axis=0), label=name)
        if len(table) > 1:
            low, high = table.min(axis=0), table.max(axis=0)
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    if log:
        axes.set_yscale("log")
    label(axes, x, y, title)
    if len(series) > 1:
        legend(axes)
