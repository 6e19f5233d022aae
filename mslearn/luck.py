"""Skill or luck: the schedule that was driven once, over several seeds, beside the planned one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mslearn.metrics import Interval, mean_interval
from mslearn.run import Run
from mslearn.schedules import Schedule

LAST = 20  # steps whose mean loss is the score of a run that measures none


@dataclass(frozen=True)
class Luck:
    """Final scores by seed, lower is better, infinite where a run diverged.

    `difference` is driven minus planned, paired by seed; None where one of them diverged.
    """

    score: str
    seeds: tuple[int, ...]
    driven: tuple[float, ...]
    planned: tuple[float, ...]
    difference: Interval | None

    def __str__(self) -> str:
        means = f"driven {np.mean(self.driven):.3f}, planned {np.mean(self.planned):.3f}"
        if self.difference is None:
            lost = [sum(map(math.isinf, scores)) for scores in (self.driven, self.planned)]
            means += f"; diverged: {lost[0]} driven, {lost[1]} planned"
        else:
            means += f", difference {self.difference}; {self.verdict}"
        return f"{self.score} over {len(self.seeds)} seeds: {means}"

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.difference is None or not self.difference.excludes(0.0):
            return "luck cannot be ruled out"
        return "skill" if self.difference.estimate < 0 else "the plan was better"


def over_seeds(
    make_run: Callable[[int], Run],
    driven: Schedule | Run,
    steps: int,
    *,
    seeds: Sequence[int] = range(5),
    score: str | None = None,
) -> Luck:
    """Train twice from each seed, as `driven` and as `make_run(seed)` plans, and compare the ends.

    `driven` is a schedule or the run that was driven. The score is one of the run's held-out
    scores, the first unless named, where less is better; without any, the mean loss of the last
    steps. A run that diverges scores infinity.
    """
    schedule = driven.driven() if isinstance(driven, Run) else driven
    ends: dict[str, list[float]] = {"driven": [], "planned": []}
    for seed in seeds:
        for name, scores in ends.items():
            run = make_run(seed)
            if name == "driven":
                run.schedule = schedule
            try:
                for _ in run.train(steps):
                    pass
            except FloatingPointError:
                scores.append(math.inf)
                continue
            measured = run.evaluate_now() if run.evaluate else {}
            score = score or next(iter(measured), "loss")
            scores.append(measured[score] if measured else run.log.recent(LAST))
    differences = [a - b for a, b in zip(ends["driven"], ends["planned"], strict=True)]
    sure = all(map(math.isfinite, differences))
    difference = mean_interval(differences) if sure else None
    return Luck(score or "loss", tuple(seeds), *map(tuple, ends.values()), difference)
