"""What marking a class costs: honest notebooks, with hostile ones among them."""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mslearn import classroom, sandbox
from mslearn.exercises import load_set, paths
from mslearn.gradebook import Record
from mslearn.hostile import honest, hostile

TEN = (
    "checks overwritten",
    "libraries patched",
    "tensors that agree with everything",
    "solutions from the disk",
    "leaves",
    "never ends",
    "processes without end",
    "ten gigabytes",
    "a gigabyte of output",
    "forged replies",
)


def grade(learners: int = 30, attacks: tuple[str, ...] = TEN, jobs: int = 2) -> dict[str, Any]:
    """Mark a class and compare every mark with what was earned.

    Seconds are those from taking a notebook up to its last verdict, while others are marked beside
    it. Raises OSError where there is no sandbox, for without it nothing hostile is run.
    """
    if fault := sandbox.fault():
        raise OSError(fault)
    exercises = load_set(paths()[0])
    with tempfile.TemporaryDirectory(prefix="mslearn-bench-") as folder:
        handed_in, out = Path(folder, "submissions"), Path(folder, "grades")
        handed_in.mkdir()
        full = 2 ** len(exercises.exercises) - 1
        earned = {}
        for number in range(learners):
            kind = attacks[number // 3] if number % 3 == 1 and number // 3 < len(attacks) else ""
            made = hostile(exercises, kind) if kind else honest(exercises, full - number % 2)
            name = f"learner-{number:02d}"
            notebook, earned[name] = made[0], (made[1], bool(kind))
            Path(handed_in, f"{name}.ipynb").write_text(json.dumps(notebook), "utf-8")
        parser = argparse.ArgumentParser()
        classroom.configure(parser)
        start = time.perf_counter()
        status = classroom.command(
            parser.parse_args([str(handed_in), "--out", str(out), "--jobs", str(jobs)])
        )
        seconds = time.perf_counter() - start
        book = json.loads((out / "gradebook.json").read_text("utf-8"))
        marks = {each["learner"]: each["marks"] for each in book["learners"]}
        kept = [Record.read(out / "records", f"{name}.ipynb") for name in earned]
    taken = [each.seconds for each in kept if not earned[each.learner][1]]
    exact = [marks[name] == due for name, (due, bad) in earned.items() if not bad]
    above = [name for name, (due, bad) in earned.items() if bad and marks[name] > due]
    return {
        "set": exercises.title,
        "notebooks": f"{learners}, of which {learners - len(taken)} hostile; {jobs} jobs",
        "seconds_per_honest_notebook_median": statistics.median(taken),
        "seconds_per_honest_notebook_range": [min(taken), max(taken)],
        "seconds_for_the_class": seconds,
        "honest_with_exact_marks": f"{sum(exact)} of {len(exact)}",
        "hostile_above_what_they_earned": len(above),
        "all_marked": status == 0,
    }
