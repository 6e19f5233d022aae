"""Take the README's picture: chapter 11 in JupyterLab, in the middle of a run that is driven.

python docs/cockpit.py
"""

from pathlib import Path

from mslearn.browser import Notebook, jupyterlab, window
from mslearn.pilot import drag

DOCS = Path(__file__).resolve().parent
CHAPTER = "11_pretraining.ipynb"
MOVES = ((0.45, 40), (0.8, 60), (0.6, 110))  # where on the slider, and until how many points


def main() -> None:
    """Run the chapter's cells, move its slider, and leave docs/cockpit.png."""
    with jupyterlab(DOCS.parent / "notebooks") as lab, window(1280, 860) as page:
        notebook = Notebook(page, lab, CHAPTER)
        notebook.open()
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        chart = page.locator("canvas[data-points]")
        chart.wait_for(timeout=300_000)
        seen = "n => Number(document.querySelector('canvas[data-points]').dataset.points) > n"
        for place, points in MOVES:
            page.wait_for_function(seen, arg=points, timeout=120_000)
            drag(page, place)
        page.wait_for_function(seen, arg=MOVES[-1][1] + 60, timeout=120_000)
        chart.scroll_into_view_if_needed()
        page.screenshot(path=DOCS / "cockpit.png")
        notebook.shut_down()


if __name__ == "__main__":
    main()
