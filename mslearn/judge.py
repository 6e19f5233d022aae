"""Marking one notebook: its answers in a worker, the rules and references here."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from subprocess import Popen
from time import monotonic
from typing import Any

from mslearn.cells import defined
from mslearn.exercises import Exercise, ExerciseSet
from mslearn.grade import AnswerError, judge
from mslearn.remote import Gone, Limits, Remote, out_of_time
from mslearn.submission import Notebook, answered_in, is_stub, to_run, used

TO_DO = "to do"
BROKE_US = "what your code gave could not be compared in the time and memory there is"
MOST_ENDS = 2  # so many properties of an exercise may end the worker; the others are not tried
Place = tuple[str, int]  # of a property: its exercise's key and its number there


@dataclass(frozen=True)
class Row:
    """The verdict on one property: `reason` is empty when it holds.

    `through` names the exercises whose reference stood in for the learner's own answer.
    """

    place: Place
    reason: str
    through: tuple[str, ...] = ()


@dataclass
class Case:
    """One notebook to mark: the set, how a worker is started, what it may take, and the seed.

    `rows` are verdicts from before, and `avoid` properties that cannot be judged, should marking
    have to be taken up again.
    """

    notebook: Notebook
    exercises: ExerciseSet
    start: Callable[[], Popen]
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    rows: Mapping[Place, Row] = field(default_factory=dict)
    avoid: Sequence[Place] = ()


class Answers:
    """The learner's cells in a worker, started again without the cell at fault when it ends."""

    def __init__(self, case: Case, cells: dict[float, str], until: float) -> None:
        self.case, self.cells, self.until = case, cells, until
        self.notes: dict[float, str] = {}
        self.skipped: set[float] = set()
        self.ends: Counter[str] = Counter()
        self.remote: Remote | None = None

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.remote is not None:
            self.remote.close()

    def judge(self, exercise: Exercise, number: int) -> str:
        """Why the answer fails a property; empty when it holds."""
        rule = exercise.rules[number]
        if self.ends[exercise.key] >= MOST_ENDS:
            return "not tried, for your code was stopped or ended its process on those before"
        try:
            answer = self._get(exercise.name)
            self.remote.in_place = rule.in_place
            return judge(rule, answer, self.case.seed)
        except AnswerError as error:
            return str(error)
        finally:
            self.ends[exercise.key] += self.remote is not None and self.remote.ended

    def _get(self, name: str) -> Any:
        while self.remote is None or self.remote.ended:
            self._start()
            self._run_cells()
        try:
            return self.remote.get(name)
        except NameError:
            number = answered_in(self.cells, name)
            if number in self.notes:
                said = f"the cell of your answer did not run: {self.notes[number]}"
                raise AnswerError(said) from None
            raise AnswerError(f"nothing in the notebook is called {name}") from None

    def _start(self) -> None:
        if monotonic() >= self.until:
            raise Gone(out_of_time(self.case.limits))
        self.remote = Remote(self.case.start(), self.case.limits, self.until)
        try:
            self.remote.start(self.case.exercises.setup)
        except AnswerError as error:
            if monotonic() < self.until:
                raise RuntimeError(f"a worker does not start: {error}") from error
            raise

    def _run_cells(self) -> None:
        again = [n for n in self.cells if n not in self.skipped]
        for attempt in (1, 2):  # a cell that needs what a later one defines is tried once more
            for number in again:
                self.notes.pop(number, None)
                try:
                    self.remote.run(self.cells[number])
                except AnswerError as error:
                    self.notes[number] = str(error)
                if self.remote.ended:
                    self.skipped.add(number)
                    return
            again = [n for n in again if attempt == 1 and "NameError" in self.notes.get(n, "")]


def mark(case: Case) -> Iterator[Place | Row | list[str]]:
    """Judge every property: its place comes first, then its row; last, notes on cells.

    After that comes the follow-through: what builds on another answer that is wrong is tried with
    the reference in its place. Of that run only what succeeds is told, for its words could hold
    the reference.
    """
    cells, rows, begun = to_run(case.notebook, case.exercises), dict(case.rows), {}
    until = monotonic() + case.limits.total
    for exercise in case.exercises.exercises.values():
        number = answered_in(cells, exercise.name)
        begun[exercise.key] = number is None or not is_stub(cells[number], exercise)
    with Answers(case, cells, until) as answers:
        for exercise, place in _places(case.exercises):
            if place in rows:
                continue
            if place in case.avoid:
                rows[place] = Row(place, BROKE_US)
            elif not begun[exercise.key]:
                rows[place] = Row(place, TO_DO)
            else:
                yield place
                rows[place] = Row(place, answers.judge(exercise, place[1]))
            yield rows[place]
        notes = [f"code cell {n}: {answers.notes[n]}" for n in sorted(answers.notes)]
        cells = {n: source for n, source in cells.items() if n not in answers.skipped}
    lost = [(e, place) for e, place in _places(case.exercises) if rows[place].reason]
    for needs, group in _dependent(cells, lost).items():
        standing_in = [case.exercises.exercises[key] for key in needs]
        with Answers(case, _with_references(cells, standing_in), until) as answers:
            for exercise, place in lost:
                if exercise.key in group and begun[exercise.key] and place not in case.avoid:
                    yield place
                    if not answers.judge(exercise, place[1]):
                        yield Row(place, "", needs)
    yield notes


def _places(exercises: ExerciseSet) -> Iterator[tuple[Exercise, Place]]:
    for exercise in exercises.exercises.values():
        for number in range(len(exercise.rules)):
            yield exercise, (exercise.key, number)


def _dependent(
    cells: dict[float, str], lost: Sequence[tuple[Exercise, Place]]
) -> dict[tuple[str, ...], list[str]]:
    """The exercises with lost marks that read the answers of others, by which others those are."""
    wrong = {exercise.name: exercise for exercise, _ in lost}
    where = {name: n for n in sorted(cells) for name in defined(cells[n])}
    reads = {name: used(cells[where[name]]) for name in where}
    groups: dict[tuple[str, ...], list[str]] = {}
    for exercise in wrong.values():
        needs, found = set(), set(reads.get(exercise.name, ()))
        while found - needs:  # through helpers, and through what a reference reads in its turn
            needs |= found
            found = {n for each in needs for n in reads.get(each, ())}
            found |= {n for each in needs & wrong.keys() for n in used(wrong[each].source)}
        if needs := needs & wrong.keys() - {exercise.name}:
            keys = sorted(wrong[name].key for name in needs)
            groups.setdefault(tuple(keys), []).append(exercise.key)
    return groups


def _with_references(cells: dict[float, str], standing_in: Sequence[Exercise]) -> dict[float, str]:
    """The cells with a reference after each cell whose answer it replaces, or before all."""
    more = {}
    for place, exercise in enumerate(standing_in, 1):
        number = answered_in(cells, exercise.name)
        more[(number or 0) + place / 1000] = exercise.source
    return dict(sorted({**cells, **more}.items()))
