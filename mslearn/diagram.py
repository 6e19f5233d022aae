"""A module drawn from itself: what it calls in which order, what it adds, and every shape."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from mslearn import plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Step:
    """One thing a module does. `inputs` are the numbers of the steps that it takes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    n_params: int
    inputs: tuple[int, ...]


class _Parts(fx.Tracer):
    """Follows a module into its own lines and stops at the modules it calls."""

    def __init__(self, deep: tuple[type, ...]) -> None:
        super().__init__()
        self.deep = deep

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, self.deep)


class _Shapes(fx.Interpreter):
    """Runs the traced module and keeps the shape of everything on the way."""

    def run_node(self, n: fx.Node) -> object:
        found = super().run_node(n)
        n.meta["shape"] = tuple(found.shape) if isinstance(found, Tensor) else ()
        return found


def steps(module: nn.Module, *example: Tensor, deep: tuple[type, ...] = ()) -> list[Step]:
    """What `module(*example)` does, in order; modules of the kinds `deep` are gone into."""
    graph = _Parts(deep).trace(module)
    traced = fx.GraphModule(module, graph)
    with torch.no_grad():
        _Shapes(traced).run(*example)
    nodes = [node for node in graph.nodes if node.op != "output"]
    number = {node: place for place, node in enumerate(nodes)}
    found = []
    for node in nodes:
        part = module.get_submodule(node.target) if node.op == "call_module" else None
        kind = type(part).__name__ if part else getattr(node.target, "__name__", str(node.target))
        name = str(node.target) if part else ("input" if node.op == "placeholder" else "+")
        size = sum(p.numel() for p in part.parameters()) if part else 0
        inputs = tuple(number[each] for each in node.all_input_nodes)
        found.append(Step(name, kind, node.meta["shape"], size, inputs))
    return found


def draw(*columns: list[Step], titles: tuple[str, ...]) -> "Figure":
    """The steps from the bottom up, a column for each module; what skips steps bends round them."""
    tallest = max(len(column) for column in columns)
    fig, axes = plot.figure(1, len(columns), width=4.2 * len(columns), height=0.66 * tallest + 0.6)
    for panel, column, title in zip(
        [axes] if len(columns) == 1 else axes, columns, titles, strict=True
    ):
        panel.set(xlim=(-2.4, 2.4), ylim=(-0.7, tallest - 0.2))
        panel.axis("off")
        panel.set_title(title)
        for height, step in enumerate(column):
            _box(panel, height, step)
            for source in step.inputs:
                _arrow(panel, column, source, height)
        _arrow(panel, column, len(column) - 1, len(column))
    return fig


def _box(panel: "Axes", height: int, step: Step) -> None:
    what = step.kind if step.n_params else ""
    numbers = f"{step.n_params:,} numbers" if step.n_params else ""
    below = ", ".join(part for part in (what, numbers) if part)
    text = step.name.rpartition(".")[2] + (f"\n{below}" if below else "")
    colour = plot.COLOURS[4] if step.n_params else plot.GRID
    box = {"boxstyle": "round,pad=0.3", "facecolor": colour, "alpha": 0.35, "edgecolor": plot.INK}
    panel.text(0, height, text, ha="center", va="center", fontsize=8, color=plot.INK, bbox=box)
    shape = " × ".join(str(each) for each in step.shape)
    panel.text(0.08, height + 0.5, shape, ha="left", va="center", fontsize=7, color=plot.INK)


def _half(step: Step) -> float:
    """Half the height of a step's box, which holds one line of text or two."""
    return 0.28 if step.n_params else 0.14


def _arrow(panel: "Axes", column: list[Step], source: int, target: int) -> None:
    """From a box to another one, or from the last box out of the picture."""
    style = {"arrowstyle": "-|>", "color": plot.INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    if target == source + 1:
        end = target - (_half(column[target]) if target < len(column) else 0.25)
        start = source + _half(column[source])
        panel.annotate("", xy=(0, end), xytext=(0, start), arrowprops=style)
        return
    side, start = -1.9, source + 0.4
    panel.plot([0, side, side], [start, start, target], color=plot.INK, linewidth=0.9, ls="-")
    panel.annotate("", xy=(-0.1, target), xytext=(side, target), arrowprops=style)
