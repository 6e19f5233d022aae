"""Stored results: the cells of a named experiment in one JSON file, with how each was made."""

import fnmatch
import json
import platform
import re
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mslearn.check import read_json, write_json
from mslearn.device import Device, pick
from mslearn.home import course


@dataclass
class Store:
    """The file of one experiment; it is replaced whole after each cell.

    A cell has a name, the settings that decide its result, and the result. One that is there with
    the same settings is not run again: a run that was stopped goes on, and a changed recipe, text
    or checkpoint runs just what it touches. `seeds` and `only` choose among the cells.
    """

    path: Path
    device: Device = field(default_factory=pick)
    seeds: tuple[int, ...] = (0, 1, 2)
    only: str = "*"

    def cells(self) -> dict[str, dict]:
        """What is there so far, by name."""
        return read_json(self.path).get("cells", {})

    def wants(self, name: str) -> bool:
        """Whether `only` chooses this cell."""
        return fnmatch.fnmatch(name, self.only)

    def cell(self, name: str, settings: dict[str, Any], work: Callable[[], dict]) -> None:
        """Run `work` and keep what it gives, unless it is there or `only` leaves it out."""
        result = read_json(self.path)
        cells = result.setdefault("cells", {})
        settings = json.loads(json.dumps(settings))  # as they read after a round through the file
        there = name in cells and cells[name]["settings"] == settings
        if there or not self.wants(name):
            return
        # One thread's own clock stands still while others use the processor.
        alone = self.device.name == "cpu" and torch.get_num_threads() == 1
        clock = time.process_time if alone else time.perf_counter
        started = clock()
        scores = work()
        seconds = round(clock() - started, 1)
        made = self._made(result.setdefault("made", []))
        cells[name] = {"settings": settings, **scores, "seconds": seconds, "made": made}
        result["cells"] = dict(sorted(cells.items(), key=lambda item: _natural(item[0])))
        write_json(self.path, result)
        print(f"{name}: {scores} in {seconds} s", flush=True)

    def _made(self, made: list[dict]) -> int:
        """The place, in the file's list, of the device and the versions in use now."""
        entry = {
            "device": str(self.device),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        if entry not in made:
            made.append(entry)
        return made.index(entry)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts the numbers in names by size: 300 before 1000."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def load_result(name: str) -> dict[str, Any]:
    """What `mslearn experiment NAME` stored: `cells` by name, and `made`, the devices used.

    Raises FileNotFoundError with the command that makes it.
    """
    path = result_path(name)
    result = read_json(path)
    if "cells" not in result:
        raise FileNotFoundError(
            f"{path} is missing or damaged; restore it, or run `mslearn experiment {name}`"
        )
    return result


def result_path(name: str) -> Path:
    """Where the result of a named experiment is kept, in the course."""
    return course() / "experiments" / f"{name}.json"


def origin(name: str) -> str:
    """Where a stored result comes from: file, cells, devices, time taken; lines of 88 letters."""
    result = load_result(name)
    seconds = sum(cell["seconds"] for cell in result["cells"].values())
    devices = "; ".join(f"{m['device']}, torch {m['torch']}" for m in result["made"])
    return textwrap.fill(
        f"experiments/{name}.json: {len(result['cells'])} cells, {seconds / 60:.0f} minutes in all "
        f"on {devices}. To run it anew: mslearn experiment {name} --out again.json",
        88,
    )
