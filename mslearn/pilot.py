"""A hand on the cockpit in a browser: mouse and keyboard, for tests, timing and pictures."""

import re
from pathlib import Path
from typing import Any

from mslearn.browser import Notebook

CLOCK = """() => {
  window.released = [];
  document.addEventListener("pointerup", () => window.released.push(Date.now() / 1000), true);
}"""
SEEN = "n => Number(document.querySelector('canvas[data-points]')?.dataset.points) > n"
STEP = "n => Number(document.querySelector('canvas[data-points]')?.dataset.step) >= n"


def write_notebook(path: Path, cells: tuple[str, ...]) -> None:
    """A notebook of code cells, not yet run."""
    import nbformat

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, path)


def drag(page: Any, share: float, name: str = "Learning rate") -> None:
    """Take a slider's handle with the mouse and let it go at `share` of its length."""
    slider = page.get_by_role("slider", name=name, exact=True)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    place, low, high = slider.evaluate("s => [Number(s.value), Number(s.min), Number(s.max)]")
    handle = 8  # half its width in pixels: its middle stays that far from either end
    way, middle = box["width"] - 2 * handle, box["height"] / 2
    now = handle + (place - low) / (high - low) * way
    slider.hover(position={"x": now, "y": middle})  # once it stands still and nothing covers it
    box = slider.bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + handle + share * way, box["y"] + middle, steps=6)
    page.mouse.up()


class Pilot(Notebook):
    """A notebook with a live run in it, and names for what is on its panel."""

    def __init__(self, page: Any, lab: dict[str, Any], path: str, cells: tuple[str, ...]) -> None:
        write_notebook(Path(lab["root_dir"]) / path, cells)
        super().__init__(page, lab, path)
        self.slider = page.get_by_role("slider", name="Learning rate", exact=True)
        self.typed = page.get_by_role("textbox", name="Learning rate, typed")
        self.time = page.get_by_role("slider", name="Time line")
        self.mode = page.get_by_role("combobox", name="Set the rate as")
        self.chart = page.locator("canvas[data-points]")
        self.status = page.locator(".mslearn-panel").get_by_role("status")
        self.table = page.get_by_role("table", name="Timelines")
        self.picture = self.cells.nth(1).locator(".jp-OutputArea-output img")

    def start(self) -> "Pilot":
        """Run the first three cells; the third, `wait()`, keeps the kernel busy."""
        self.open()
        self.run(0)
        self.run(1)
        self.run(2, wait=False)
        self.more_points(5)
        return self

    def button(self, name: str) -> Any:
        """The button whose name begins so."""
        return self.page.get_by_role("button", name=re.compile(rf"^{re.escape(name)}"))

    @property
    def points(self) -> int:
        return int(self.chart.get_attribute("data-points"))

    @property
    def step(self) -> int:
        return int(self.chart.get_attribute("data-step"))

    def more_points(self, than: int) -> None:
        """Wait until the chart shows more points than that."""
        self.page.wait_for_function(SEEN, arg=than)

    def reach(self, step: int) -> None:
        """Wait until the run has come so far."""
        self.page.wait_for_function(STEP, arg=step)

    def chart_says(self, pattern: str) -> None:
        """Wait until the chart's words fit."""
        from playwright.sync_api import expect

        expect(self.chart).to_have_attribute("aria-label", re.compile(pattern), timeout=60_000)

    def says(self, pattern: str) -> None:
        """Wait until the status line fits."""
        from playwright.sync_api import expect

        expect(self.status).to_have_text(re.compile(pattern), timeout=60_000)

    def type_rate(self, rate: float) -> None:
        """Type a rate, and see it in use."""
        self.typed.fill(f"{rate:g}")
        self.typed.press("Enter")
        self.chart_says(rate_pattern(rate))

    def follow(self) -> None:
        """Let the schedule have the rate again, which is by hand now."""
        from playwright.sync_api import expect

        self.button("Follow schedule").click()  # once it can be pressed
        expect(self.button("Follow schedule")).to_be_disabled(timeout=60_000)

    def finish(self, cell: int, seconds: float = 300) -> None:
        """Wait until a cell has ended."""
        self._prompt(cell, r"\[\d+\]:", seconds)

    def restart(self) -> None:
        """Restart the kernel, as the menu does after its question."""
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()"
        )

    def interrupt(self, cell: int) -> None:
        """Interrupt the kernel, which is busy with a cell, and wait until that has ended."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
        self.finish(cell)


def rate_pattern(rate: float) -> str:
    """How the chart's words end at a rate, as a regular expression."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return rf"rate {re.escape(mantissa)}e{int(exponent)}$"


def move(pilot: Pilot, moves: int) -> tuple[list[float], list[float]]:
    """Drag the slider `moves` times and see each rate in use.

    Gives the moments it was let go (s, epoch) and the rates.
    """
    pilot.page.evaluate(CLOCK)
    rates = []
    for each in range(moves):
        drag(pilot.page, (0.3, 0.7, 0.5, 0.65, 0.4)[each % 5])
        rates.append(float(pilot.typed.input_value()))
        pilot.chart_says(rate_pattern(rates[-1]))
    return pilot.page.evaluate("window.released"), rates
