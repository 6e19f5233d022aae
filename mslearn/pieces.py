"""Token boundaries over a text: every piece on its own colour, with the same in plain letters."""

import html
from collections.abc import Sequence
from typing import Any

# Light shades of the course's blue, orange, green and yellow; dark ink stands out on each, and a
# line between the pieces tells them apart without colour.
SHADES = ("#CFE6F5", "#F9DCC4", "#CDEBDD", "#F6ECBF")
BOX = "border-left:2px solid #222222;padding:1px 3px;color:#222222;white-space:pre-wrap"
CARD = (
    "background-color:#FFFFFF;color:#222222;padding:6px;line-height:2;"
    "font-family:monospace;overflow-wrap:anywhere"
)


class Pieces:
    """Texts cut into pieces, a line for each, as Jupyter displays and saves them."""

    def __init__(self, lines: dict[str, Sequence[str]]) -> None:
        if not lines:
            raise ValueError("nothing to show: pass a name and its pieces, {'English': [...]}")
        self.lines = {name: [visible(piece) for piece in cut] for name, cut in lines.items()}

    def __str__(self) -> str:
        return "\n".join(f"{count(name, cut)}: {'|'.join(cut)}" for name, cut in self.lines.items())

    __repr__ = __str__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        rows = []
        for name, cut in self.lines.items():
            spans = [
                f'<span style="background-color:{SHADES[i % len(SHADES)]};{BOX}">'
                f"{html.escape(piece)}</span>"
                for i, piece in enumerate(cut)
            ]
            line = "<wbr>".join(spans)  # a line may end between two pieces
            rows.append(f"<div>{html.escape(count(name, cut))}: {line}</div>")
        return {"text/html": f'<div style="{CARD}">{"".join(rows)}</div>', "text/plain": str(self)}


def count(name: str, cut: Sequence[str]) -> str:
    """The name of a line and how many pieces it has."""
    return f"{name} ({len(cut)})"


def visible(piece: str) -> str:
    """A piece with its white space shown: a space as ␣, a line's end as ↵."""
    return piece.replace(" ", "␣").replace("\n", "↵")


def show_pieces(lines: dict[str, Sequence[str]]) -> None:
    """Display each text cut into its pieces; the plain text beside it puts a | between them."""
    from IPython.display import display

    display(Pieces(lines))
