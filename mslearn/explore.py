"""A picture that follows sliders: drawn anew at each move, and saved as it was last drawn."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mslearn import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explore(draw: "Callable[..., tuple[Figure, str]]", **choices: Sequence[Any]) -> None:
    """Show what `draw` gives, a figure and its alt text, above a slider for each of its arguments.

    Each slider runs over the values in `choices` and starts at the argument's default. The picture
    alone stays in the saved notebook, so it needs no kernel.
    Raises ValueError where the default of an argument is not among its values.
    """
    import ipywidgets
    from IPython.display import display

    starts = {name: _start(draw, name, values) for name, values in choices.items()}
    handle = display(_picture(draw, starts), display_id=True)
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=list(choices[name]), value=value, description=name, continuous_update=False
        )
        for name, value in starts.items()
    }

    def redraw(_: Any) -> None:
        handle.update(_picture(draw, {name: each.value for name, each in sliders.items()}))

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    display(ipywidgets.VBox(list(sliders.values())))


def _picture(draw: Callable, values: dict[str, Any]) -> plot.Picture:
    return plot.picture(*draw(**values))


def _start(draw: Callable, name: str, values: Sequence[Any]) -> Any:
    parameter = inspect.signature(draw).parameters.get(name)
    if parameter is None or parameter.default not in values:
        default = "no argument" if parameter is None else f"the default {parameter.default!r}"
        if parameter is not None and parameter.default is parameter.empty:
            default = "no default"
        raise ValueError(
            f"{draw.__name__} has {default} for the slider {name}={list(values)!r}: give the "
            "argument a default that is among them"
        )
    return parameter.default
