"""A viewer of attention: point at a token and see how much it takes from each before it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mslearn import plot

HERE = Path(__file__).parent
LONGEST = 96  # tokens that a page has room for


def show_attention(
    tokens: Sequence[str],
    weights: Float[Tensor, "layers heads time time"],
    layer: int = 0,
    head: int = 0,
) -> None:
    """Show the weights of one text: a picture of one head, and below it a page to hover over.

    `weights[l, h, t, s]` is the share that position t takes from position s. The picture alone
    stays in the saved notebook. Raises ValueError where tokens and weights do not fit together.
    """
    from IPython.display import display

    shape = tuple(weights.shape)
    if len(shape) != 4 or shape[2:] != (len(tokens), len(tokens)):
        raise ValueError(
            f"weights must have the shape (layers, heads, {len(tokens)}, {len(tokens)}) for "
            f"{len(tokens)} tokens, got {shape}"
        )
    if len(tokens) > LONGEST:
        raise ValueError(f"a page has room for {LONGEST} tokens, got {len(tokens)}: cut the text")
    if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
        raise ValueError(f"layer {layer}, head {head} is not among {shape[0]} times {shape[1]}")
    display(picture(tokens, weights, layer, head))
    display(_widget(tokens, weights, layer, head))


def picture(tokens: Sequence[str], weights: Tensor, layer: int, head: int) -> plot.Picture:
    """One head's weights as a table of shades: a row for the token that looks."""
    side = 1.6 + 0.17 * len(tokens)
    figure, axes = plot.figure(width=side, height=side)
    shown = weights[layer, head].detach().cpu().float().numpy()
    axes.imshow(shown, cmap="cividis", vmin=0)
    names = [visible(token) for token in tokens]
    axes.set_xticks(range(len(tokens)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(tokens)), names, fontsize=7)
    axes.grid(False)
    plot.label(axes, "looked at", "looking", f"layer {layer}, head {head}")
    rows = [f"{names[t]} at {names[int(shown[t].argmax())]}" for t in range(1, len(tokens))]
    most = f"Where each token looks most: {', '.join(rows)}."
    return plot.picture(figure, f"Attention of layer {layer}, head {head}. {most}")


def visible(token: str) -> str:
    """A token with its white space shown: a space as ␣, a line's end as ↵."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("$", r"\$")


def _widget(tokens: Sequence[str], weights: Tensor, layer: int, head: int) -> Any:
    """The page; its class is made here because ipywidgets is slow to import."""
    import anywidget
    import traitlets

    class View(anywidget.AnyWidget):
        _esm = (HERE / "attention_view.js").read_text(encoding="utf-8")
        _css = (HERE / "attention_view.css").read_text(encoding="utf-8")
        tokens = traitlets.List().tag(sync=True)
        shape = traitlets.List().tag(sync=True)
        start = traitlets.List().tag(sync=True)
        shares = traitlets.Bytes().tag(sync=True)  # a byte for each weight, 255 for all of it

        def __repr__(self) -> str:
            return "the page to hover over needs a running notebook"

    shares = (weights.detach().cpu().float().numpy() * 255).round().astype(np.uint8)
    return View(
        tokens=[visible(token).replace("\\$", "$") for token in tokens],
        shape=list(weights.shape),
        start=[layer, head],
        shares=shares.tobytes(),
    )
