"""`mslearn grade`: honest marks for a whole class, whatever its notebooks hold.

Each notebook is marked by a process of ours (`marker`) whose answers run in another (`worker`) in a
sandbox. What is marked is kept at once, so a class that was cut off goes on where it was.
"""

import argparse
import hashlib
import json
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter

from mslearn import lms, sandbox
from mslearn.check import read_json, write_json
from mslearn.exercises import ExerciseSet, load_set, paths, with_rules
from mslearn.gradebook import Record, Result, results, write_books
from mslearn.marker import Marker, Terms
from mslearn.remote import Limits
from mslearn.report import summary, write_reports, write_statistics
from mslearn.submission import Submission, content, find

NO_SANDBOX = "{}; or pass --unsafe to run the answers with your own rights: the gradebook says so"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `mslearn grade`."""
    parser.add_argument("submissions", type=Path, help="a folder or notebook for each learner")
    parser.add_argument("--out", type=Path, required=True, metavar="GRADES", help="where marks go")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="notebooks at a time")
    parser.add_argument("--set", default="", metavar="NN", help="all notebooks are of this set")
    parser.add_argument("--checks", type=Path, metavar="FOLDER", help="your own rules, NN*.py")
    parser.add_argument("--roster", type=Path, metavar="CSV", help=f"columns {lms.ROSTER}")
    parser.add_argument("--seed", type=int, help="of the random inputs; fresh ones unless given")
    usual = Limits()
    parser.add_argument("--call", type=float, default=usual.call, help="seconds a call may take")
    parser.add_argument(
        "--total", type=float, default=usual.total, help="seconds a notebook may take"
    )
    parser.add_argument("--memory", type=int, default=usual.memory, help="MB that answers may take")
    parser.add_argument("--unsafe", action="store_true", help="run the answers without a sandbox")


def command(arguments: argparse.Namespace) -> int:
    """Mark what is not marked yet, then write every file from the marks."""
    if not arguments.submissions.is_dir():
        raise ValueError(f"{arguments.submissions} is no folder of notebooks")
    if arguments.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {arguments.jobs}")
    if arguments.set and not paths(arguments.set):
        raise ValueError(f"there is no set {arguments.set}: see solutions/")
    if arguments.out.resolve().is_relative_to(arguments.submissions.resolve()):
        raise ValueError(f"{arguments.out} lies in the submissions: choose another folder")
    if arguments.checks and not arguments.checks.is_dir():
        raise ValueError(f"{arguments.checks} is no folder of checks")
    roster = lms.read_roster(arguments.roster)
    for path in sorted(arguments.checks.glob("*.py")) if arguments.checks else ():
        if not paths(path.name[:2]):
            raise ValueError(f"{path}: its name has to begin with the number of a set, such as 03")
        with_rules(load_set(paths(path.name[:2])[0]), arguments.checks)
    if not arguments.unsafe and (fault := sandbox.fault()):
        raise ValueError(NO_SANDBOX.format(fault))
    handed_in = find(arguments.submissions)
    if not handed_in:
        raise ValueError(f"nothing was handed in: {arguments.submissions} is empty")
    (arguments.out / "records").mkdir(parents=True, exist_ok=True)
    terms, name = agree(arguments)
    grading = Grading(arguments, terms, name)
    records = grading.run(handed_in)
    if grading.faults:
        print(*sorted(set(grading.faults)), sep="\n", file=sys.stderr)
        print("Nothing was lost: run the same command again for the rest.", file=sys.stderr)
        return 1
    chapters = sorted({each.chapter for each in records} - {""} | ({arguments.set} - {""}))
    sets = {chapter: terms.exercises(chapter) for chapter in chapters}
    found = results(records, sets)
    write_all(arguments.out, found, sets, arguments.unsafe, roster)
    print(summary(found) if sets else "No notebook could be read.")
    print(f"Marks, reports and statistics are in {arguments.out}")
    return 0


def write_all(
    out: Path, found: list[Result], sets: dict[str, ExerciseSet], unsafe: bool, roster: lms.Roster
) -> None:
    """Write the gradebook, the reports, the statistics and what platforms import."""
    write_books(out, found, unsafe)
    write_reports(out / "reports", found, unsafe)
    lms.write_all(out, found, sets, roster)
    if sets:
        write_statistics(out, found, sets, unsafe)


def agree(arguments: argparse.Namespace) -> tuple[Terms, str]:
    """The terms of this class, with the seed from before where it was begun, and their name.

    Marks kept under another name (other solutions, checks, limits) no longer hold.
    """
    kept = read_json(arguments.out / "class.json")
    drawn = kept.get("seed", secrets.randbelow(2**31))
    checks = str(arguments.checks.resolve()) if arguments.checks else ""
    hidden = [str(each.resolve()) for each in (arguments.submissions, arguments.out)]
    limits = Limits(arguments.call, arguments.total, arguments.memory)
    seed = drawn if arguments.seed is None else arguments.seed
    terms = Terms(seed, checks, arguments.unsafe, limits, (*hidden, *([checks] if checks else [])))
    known = hashlib.sha256(json.dumps([arguments.set, seed, terms.unsafe, asdict(limits)]).encode())
    for path in [*paths(), *(sorted(Path(checks).glob("*.py")) if checks else [])]:
        known.update(path.name.encode() + path.read_bytes())
    write_json(arguments.out / "class.json", {"seed": seed, "sandbox": not terms.unsafe})
    return terms, known.hexdigest()[:16]


class Grading:
    """Marks notebooks, several at a time, and keeps each verdict as it comes."""

    def __init__(self, arguments: argparse.Namespace, terms: Terms, name: str) -> None:
        self.root, self.folder = arguments.submissions, arguments.out / "records"
        self.jobs, self.chapter, self.terms, self.name = arguments.jobs, arguments.set, terms, name
        self.faults: list[str] = []

    def run(self, handed_in: list[Submission]) -> list[Record]:
        """The records of all notebooks, in their order."""
        from tqdm import tqdm

        records: dict[str, Record] = {}
        waiting: SimpleQueue[Submission] = SimpleQueue()
        for each in handed_in:
            before = Record.read(self.folder, self._file(each))
            if before and (before.terms, before.sha256) == (self.name, self._sha256(each)):
                records[before.file] = before
            else:
                waiting.put(each)
        done: SimpleQueue[Record | None] = SimpleQueue()
        number = min(self.jobs, waiting.qsize())
        markers = [Marker(self.terms) for _ in range(number)]
        for marker in markers:
            threading.Thread(target=self._work, args=(marker, waiting, done), daemon=True).start()
        try:
            with tqdm(total=len(handed_in), initial=len(records), unit="notebook") as bar:
                while number:
                    record = done.get()
                    if record is None:
                        number -= 1
                        continue
                    records[record.file] = record
                    bar.update()
        finally:
            for marker in markers:
                marker.close()
        return [records[f] for f in map(self._file, handed_in) if f in records]

    def _work(self, marker: Marker, waiting: SimpleQueue, done: SimpleQueue) -> None:
        try:
            for each in _taken(waiting):
                done.put(self._grade(marker, each))
        except Exception as error:  # ours, not a learner's: the class is told, and goes on later
            self.faults.append(f"marking stopped: {error}")
        finally:
            done.put(None)

    def _grade(self, marker: Marker, each: Submission) -> Record:
        start = perf_counter()
        known = (_plain(each.learner), self._file(each))
        tail = (self._sha256(each), self.name)
        if each.problem:
            record = Record(*known, self.chapter, *tail, each.problem)
        else:
            marked = marker.mark(each.path, self.chapter)
            said = marked.problem, marked.rows, tuple(marked.notes)
            seconds = round(perf_counter() - start, 3)
            record = Record(*known, marked.chapter, *tail, *said, seconds)
        record.write(self.folder)
        return record

    def _file(self, each: Submission) -> str:
        return _plain(str(each.path.relative_to(self.root)))

    @staticmethod
    def _sha256(each: Submission) -> str:
        try:
            return hashlib.sha256(b"" if each.problem else content(each.path)).hexdigest()
        except ValueError as error:
            return str(error)


def _plain(name: str) -> str:
    """A name as text that can be written anywhere, though it may not be UTF-8 on disk."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _taken(waiting: SimpleQueue) -> Iterator[Submission]:
    while True:
        try:
            yield waiting.get_nowait()
        except Empty:
            return
