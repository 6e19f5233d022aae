"""Pages for people: one for each learner, without hidden checks, and one on the class."""

import base64
import html
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mslearn import plot
from mslearn.exercises import Exercise, ExerciseSet
from mslearn.gradebook import NOTHING, Result, replace_file
from mslearn.judge import TO_DO, Row
from mslearn.submission import clean, slug

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; }
tr { border-bottom: 1px solid #ccc; }
td.number, th.number { text-align: right; white-space: nowrap; }
.no { font-weight: 600; }
.warning { border: 2px solid #a04000; padding: .5rem 1rem; }
img { max-width: 100%; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818; }
  tr { border-color: #555; } }
"""
NO_SANDBOX = "The answers ran without a sandbox (--unsafe): their marks rest on trust."


def write_reports(folder: Path, results: Sequence[Result], unsafe: bool) -> None:
    """Write one page a learner into `reports/`, and remove those of learners who are gone."""
    pages = {f"{slug(each.learner)}.html": learner_page(each, unsafe) for each in results}
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.html"):
        if path.name not in pages:
            path.unlink()
    for name, page in pages.items():
        replace_file(folder / name, page.encode())


def learner_page(result: Result, unsafe: bool) -> str:
    """What a learner is told: each property, its marks, the reason; a hint where marks are lost."""
    parts = [f"<p><strong>{result.marks} of {result.of} marks</strong></p>"]
    parts += [f'<p class="warning">{NO_SANDBOX}</p>'] if unsafe else []
    if result.remarks:
        items = "".join(f"<li>{html.escape(each)}</li>" for each in result.remarks)
        parts.append(f"<h2>Remarks</h2><ul>{items}</ul>")
    for chapter, exercises in result.sets.items():
        score = f"{result.in_set(chapter)} of {exercises.marks} marks"
        parts.append(f"<h2>{html.escape(exercises.title)}: {score}</h2>")
        parts += [_exercise(result, each) for each in exercises.exercises.values()]
    return _page(clean(result.learner), "\n".join(parts))


def _exercise(result: Result, exercise: Exercise) -> str:
    rows = result.rows(exercise)
    shown = [_property(rule, row) for rule, row in rows if not rule.hidden]
    hidden = [(rule.marks, row) for rule, row in rows if rule.hidden]
    if hidden:
        marks = sum(marks for marks, row in hidden if not row.reason), sum(m for m, _ in hidden)
        shown.append(_line("Further checks by your instructor", "", "", *marks))
    score = f"{result.in_exercise(exercise)} of {exercise.marks} marks"
    title = f"<h3>{exercise.key} {html.escape(exercise.title)}: {score}</h3>"
    if rows and all(row.reason == TO_DO for _, row in rows):
        return f"{title}<p>To do: the answer is as it was handed out.</p>"
    lost = any(row.reason for _, row in rows)
    hint = f"<p>Hint: {html.escape(exercise.hints[0])}</p>" if lost and exercise.hints else ""
    head = '<tr><th scope="col">Property</th><th scope="col">Holds</th>'
    head += '<th scope="col">Reason</th><th scope="col" class="number">Marks</th></tr>'
    return f"{title}<table>{head}{''.join(shown)}</table>{hint}"


def _property(rule: Any, row: Row) -> str:
    reason = row.reason
    if row.through:
        reason = f"with the reference answer to {', '.join(row.through)} in place of yours"
    holds = "no" if row.reason else "yes"
    return _line(rule.says, holds, reason, 0 if row.reason else rule.marks, rule.marks)


def _line(says: str, holds: str, reason: str, marks: int, of: int) -> str:
    cells = f'<th scope="row">{html.escape(says)}</th><td class="{holds}">{holds}</td>'
    cells += f"<td>{html.escape(reason)}</td>"
    return f'<tr>{cells}<td class="number">{marks} of {of}</td></tr>'


def _page(title: str, body: str) -> str:
    title = html.escape(title)
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    head += '<meta name="viewport" content="width=device-width">'
    return f"{head}<style>{STYLE}</style></head><body><h1>{title}</h1>\n{body}\n</body></html>\n"


def write_statistics(
    folder: Path, results: Sequence[Result], sets: Mapping[str, ExerciseSet], unsafe: bool
) -> None:
    """Write `class.html` and its figure `class.png`, for the instructor."""
    exercises = [each for s in sets.values() for each in s.exercises.values()]
    drawing, alt = figure(results, exercises)
    picture = plot.png(drawing)
    replace_file(folder / "class.png", picture)
    source = base64.b64encode(picture).decode()
    parts = [f'<p class="warning">{NO_SANDBOX}</p>'] if unsafe else []
    parts.append(f"<p>{html.escape(summary(results))}</p>")
    parts.append(f'<p><img src="data:image/png;base64,{source}" alt="{html.escape(alt)}"></p>')
    head = '<tr><th scope="col">Property</th><th scope="col" class="number">Holds for</th>'
    head += '<th scope="col" class="number">Not begun</th>'
    head += '<th scope="col">Most frequent reason</th></tr>'
    for exercise in exercises:
        title = f"{exercise.key} {exercise.title}, {share(results, exercise):.0%} of the marks"
        lines = [_frequency(results, exercise, n) for n in range(len(exercise.rules))]
        parts.append(f"<h2>{html.escape(title)}</h2><table>{head}{''.join(lines)}</table>")
    replace_file(folder / "class.html", _page("The class", "\n".join(parts)).encode())


def summary(results: Sequence[Result]) -> str:
    """The class in a sentence."""
    marks = [each.marks for each in results]
    low, high, middle = min(marks), max(marks), statistics.median(marks)
    mean = statistics.fmean(marks)
    people = f"{len(results)} learner{'s' * (len(results) != 1)}"
    of = f"of {results[0].of} marks"
    return f"{people}: median {middle:g} {of}, mean {mean:.1f}, from {low} to {high}."


def share(results: Sequence[Result], exercise: Exercise) -> float:
    """The part of an exercise's marks that the class has, from 0 to 1."""
    marks = statistics.fmean(each.in_exercise(exercise) for each in results)
    return marks / max(exercise.marks, 1)


def _frequency(results: Sequence[Result], exercise: Exercise, number: int) -> str:
    rows = [each.rows(exercise)[number][1] for each in results]
    reasons = Counter(row.reason for row in rows if row.reason)
    holds = len(rows) - reasons.total()
    to_do = reasons.pop(TO_DO, 0) + reasons.pop(NOTHING, 0)
    most, times = (reasons.most_common(1) or [("", 0)])[0]
    rule = exercise.rules[number]
    says = html.escape(rule.says + (" (hidden)" if rule.hidden else ""))
    said = html.escape(f"{most} ({times} of them)") if most else ""
    cells = f'<td class="number">{holds} of {len(rows)}</td><td class="number">{to_do}</td>'
    return f'<tr><th scope="row">{says}</th>{cells}<td>{said}</td></tr>'


def figure(results: Sequence[Result], exercises: Sequence[Exercise]) -> tuple[Any, str]:
    """How the marks are spread, and which exercises cost most; with the words for both."""
    drawing, (left, right) = plot.figure(1, 2, width=9.0, height=max(3.4, 0.26 * len(exercises)))
    of = results[0].of
    left.hist([each.marks for each in results], bins=min(of, 12), range=(0, of), edgecolor="white")
    left.yaxis.get_major_locator().set_params(integer=True)
    plot.label(left, f"marks (of {of})", "learners", "Marks of the class")
    shares = [share(results, each) for each in exercises]
    names = [each.key for each in exercises]
    right.barh(names, [100 * each for each in shares])
    right.invert_yaxis()
    right.set_xlim(0, 100)
    plot.label(right, "marks earned (%)", "exercise", "By exercise")
    told = ", ".join(f"{name} {part:.0%}" for name, part in zip(names, shares, strict=True))
    alt = f"Left: a histogram of the marks. {summary(results)} Right, marks earned: {told}."
    return drawing, alt
