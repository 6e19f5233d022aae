"""A class, from its folder to its gradebook, reports and imports; cut off, and resumed."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mslearn import exercises, sandbox
from mslearn.__main__ import main
from mslearn.hostile import handed_in, honest
from mslearn.lms import CANVAS, MOODLE, NBGRADER

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(sandbox.fault()), reason=sandbox.fault() or "there is one"),
]
SET = exercises.load_set(exercises.paths("03")[0])
CHECK = """
@rule("03.2", "Secretly asked for", marks=2)
def secret(answer, g):
    z = torch.randn(2, 3, dtype=torch.float64, generator=g)
    return None if near(answer(z), z.log_softmax(-1), 1e-12) else "the secret reason"

@rule("03.4", "Another secret")
def never(answer, g):
    return "nobody has this"
"""
ARGUMENTS = ("--jobs", "2", "--seed", "11")


def hand_in(folder: Path, name: str, notebook: dict) -> None:
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), "utf-8")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def outcome(folder: Path) -> dict[str, bytes]:
    """Every file that marking leaves, but for the seconds in its records."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "records")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def submissions(tmp_path_factory) -> Path:
    """As Moodle and Canvas hand them over, and as people do."""
    folder = tmp_path_factory.mktemp("class") / "submissions"
    folder.mkdir()
    hand_in(folder, "Ann Lee_4711_assignsubmission_file_/03_cross_entropy", honest(SET, 63)[0])
    hand_in(folder, "leebob_12345_67890_03_cross_entropy", honest(SET, 0b001010)[0])
    hand_in(folder, "=cmd|'C calc'!A0", honest(SET, 1)[0])
    hand_in(folder, "zoé 李/03_cross_entropy", honest(SET, 63)[0])
    hand_in(folder, "zoé 李/older/03_cross_entropy-1", honest(SET, 0)[0])
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def checks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checks")
    (folder / "03_mine.py").write_text(CHECK)
    return folder


@pytest.fixture(scope="module")
def grades(tmp_path_factory, submissions, checks) -> Path:
    """A class that was marked without a break."""
    out = tmp_path_factory.mktemp("marked") / "grades"
    roster = out.parent / "roster.csv"
    roster.write_text("learner,name,email,id\nzoé 李,Zoé Li,zoe@example.org,S9\n", "utf-8")
    options = ["--checks", str(checks), "--roster", str(roster), *ARGUMENTS]
    assert main(["grade", str(submissions), "--out", str(out), *options]) == 0
    return out


class TestTheGradebook:
    def test_marks_are_exact_and_hidden_checks_count(self, grades):
        marks = {line["learner"]: int(line["marks"]) for line in read(grades / "gradebook.csv")}
        first = SET.exercises["03.1"].marks
        two = SET.exercises["03.2"].marks + SET.exercises["03.4"].marks
        assert marks == {
            "Ann Lee_4711_assignsubmission_file_": SET.marks + 2,
            "'=cmd|'C calc'!A0": first,
            "empty": 0,
            "leebob_12345_67890_03_cross_entropy": two + 2,
            "zoé 李": SET.marks + 2,
        }

    def test_says_what_it_rests_on(self, grades):
        book = json.loads((grades / "gradebook.json").read_text("utf-8"))
        assert book["sandbox"] == "bubblewrap"
        assert {line["sandbox"] for line in read(grades / "gradebook.csv")} == {"bubblewrap"}
        told = {each["learner"]: each for each in book["learners"]}
        assert told["empty"]["remarks"] == ["empty: there is no notebook in this folder"]
        assert "older" not in told and "was not counted" in told["zoé 李"]["remarks"][0]
        own = told["leebob_12345_67890_03_cross_entropy"]["exercises"]["03.2"]["properties"]
        assert [each["hidden"] for each in own] == [False] * 4 + [True]
        assert json.loads((grades / "class.json").read_text("utf-8"))["seed"] == 11

    def test_a_page_for_each_learner_has_the_properties_and_no_hidden_check(self, grades):
        pages = {path.name: path.read_text("utf-8") for path in (grades / "reports").iterdir()}
        assert len(pages) == 5
        page = next(text for name, text in pages.items() if name.startswith("leebob"))
        assert "Great logits" in page and "Hint: " in page
        assert f"{SET.exercises['03.2'].marks + 2} of {SET.exercises['03.2'].marks + 2}" in page
        assert "Further checks by your instructor" in page
        for text in pages.values():
            assert "Secret" not in text and "secret" not in text
        assert "To do: the answer is as it was handed out." in page

    def test_names_are_safe_on_disk_and_on_the_page(self, grades):
        names = [path.name for path in (grades / "reports").iterdir()]
        assert all(re.fullmatch(r"[a-z0-9-]+\.html", name) for name in names)
        (page,) = (grades / "reports").glob("cmd-*.html")
        assert "<h1>=cmd|&#x27;C calc" in page.read_text("utf-8")

    def test_statistics_show_the_class(self, grades):
        page = (grades / "class.html").read_text("utf-8")
        assert "5 learners: median" in page and "Secretly asked for (hidden)" in page
        assert re.search(r'<img src="data:image/png;base64,[^"]+" alt="Left: a histogram', page)
        assert (grades / "class.png").read_bytes().startswith(b"\x89PNG")


class TestPlatforms:
    def test_moodle_has_its_worksheet(self, grades):
        lines = read(grades / "moodle-03.csv")
        assert list(lines[0]) == MOODLE
        ann, zoe = (next(x for x in lines if x["Full name"] == n) for n in ("Ann Lee", "Zoé Li"))
        assert ann["Identifier"] == "Participant 4711"
        assert ann["Last modified (grade)"] == "-"
        assert ann["Grade"] == str(SET.marks + 2) and ann["Maximum Grade"] == str(SET.marks + 3)
        assert (zoe["Email address"], zoe["ID number"]) == ("zoe@example.org", "S9")
        assert "03.1: 3 of 3" in zoe["Feedback comments"]

    def test_canvas_has_its_columns_and_points(self, grades):
        lines = read(grades / "canvas.csv")
        assert list(lines[0]) == [*CANVAS, SET.title]
        assert lines[0]["Student"].strip() == "Points Possible"
        assert lines[0][SET.title] == str(SET.marks + 3)
        bob = next(line for line in lines if line["Student"] == "leebob")
        assert bob["ID"] == "12345"

    def test_nbgrader_has_its_columns(self, grades):
        lines = read(grades / "nbgrader.csv")
        assert list(lines[0]) == NBGRADER and len(lines) == 5
        assert next(x for x in lines if x["student_id"] == "S9")["score"] == f"{SET.marks + 2:.1f}"


class TestAgain:
    def test_folders_may_be_named_from_where_one_stands(self, tmp_path, monkeypatch):
        hand_in(tmp_path / "s", "ann", honest(SET, 1)[0])
        monkeypatch.chdir(tmp_path)
        assert main(["grade", "s", "--out", "g", "--jobs", "1"]) == 0
        assert read(tmp_path / "g" / "gradebook.csv")[0]["marks"] == "3"

    def test_what_is_marked_is_not_marked_again(self, grades, submissions, checks, monkeypatch):
        before = outcome(grades)
        monkeypatch.setattr("mslearn.marker.Marker.mark", lambda *given: pytest.fail("marked"))
        options = ["--checks", str(checks), "--roster", str(grades.parent / "roster.csv")]
        assert main(["grade", str(submissions), "--out", str(grades), *options]) == 0
        assert outcome(grades) == before

    def test_a_class_killed_in_the_middle_ends_as_if_undisturbed(self, tmp_path):
        folder = tmp_path / "submissions"
        for number in range(6):
            hand_in(folder, f"learner-{number}", honest(SET, 9 * number)[0])
        undisturbed, killed = tmp_path / "one", tmp_path / "two"
        assert main(["grade", str(folder), "--out", str(undisturbed), *ARGUMENTS]) == 0
        command = [sys.executable, "-m", "mslearn", "grade", str(folder), "--out", str(killed)]
        process = subprocess.Popen([*command, *ARGUMENTS], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(killed.glob("records/*.json"))) < 2:
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (killed / "gradebook.json").exists()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, "its processes end with it"
        assert subprocess.run([*command, "--jobs", "1"], capture_output=True).returncode == 0
        assert outcome(killed) == outcome(undisturbed)


class TestRefusals:
    def test_a_fault_of_ours_costs_nobody_marks(self, submissions, tmp_path, monkeypatch, capsys):
        def fail(*given):
            raise RuntimeError("a worker does not start")

        monkeypatch.setattr("mslearn.marker.Marker.mark", fail)
        assert main(["grade", str(submissions), "--out", str(tmp_path)]) == 1
        assert "a worker does not start" in (said := capsys.readouterr().err)
        assert "run the same command again" in said
        assert not (tmp_path / "gradebook.csv").exists()

    def test_without_a_sandbox_it_says_how_to_get_one(
        self, submissions, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(sandbox, "fault", lambda: "the sandbox needs bubblewrap")
        assert main(["grade", str(submissions), "--out", str(tmp_path / "g")]) == 1
        said = capsys.readouterr().err
        assert "needs bubblewrap; or pass --unsafe" in said
        assert not (tmp_path / "g").exists()

    def test_unsafe_is_written_into_every_book_and_page(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sandbox, "fault", lambda: "there is none")
        hand_in(tmp_path / "s", "ann", honest(SET, 3)[0])
        out = tmp_path / "g"
        assert main(["grade", str(tmp_path / "s"), "--out", str(out), "--unsafe"]) == 0
        (line,) = read(out / "gradebook.csv")
        assert line["sandbox"] == "none (--unsafe)" and line["marks"] == "8"
        assert json.loads((out / "gradebook.json").read_text())["sandbox"] == "none (--unsafe)"
        for page in (*(out / "reports").iterdir(), out / "class.html"):
            assert "without a sandbox (--unsafe)" in page.read_text("utf-8")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--jobs", "0"], "--jobs must be at least 1"),
            (["--set", "77"], "there is no set 77"),
            (["--checks", "nowhere"], "is no folder of checks"),
            (["--out", "{}/grades"], "lies in the submissions"),
        ],
    )
    def test_nonsense_is_named(self, submissions, tmp_path, capsys, options, message):
        given = ["--out", str(tmp_path), *(each.format(submissions) for each in options)]
        assert main(["grade", str(submissions), *given]) == 1
        assert message in capsys.readouterr().err

    def test_a_check_for_no_exercise_is_named(self, submissions, tmp_path, capsys):
        (tmp_path / "03.py").write_text(CHECK.replace("03.4", "03.9"))
        options = ["--out", str(tmp_path / "g"), "--checks", str(tmp_path)]
        assert main(["grade", str(submissions), *options]) == 1
        assert "exercise 03.9, which does not exist" in capsys.readouterr().err
        (tmp_path / "03.py").write_text("1 / 0")
        assert main(["grade", str(submissions), *options]) == 1
        assert "03.py does not run: ZeroDivisionError" in capsys.readouterr().err
        (tmp_path / "03.py").rename(tmp_path / "mine.py")
        assert main(["grade", str(submissions), *options]) == 1
        assert "has to begin with the number of a set" in capsys.readouterr().err

    def test_an_empty_folder_is_named(self, tmp_path, capsys):
        (tmp_path / "s").mkdir()
        assert main(["grade", str(tmp_path / "s"), "--out", str(tmp_path / "g")]) == 1
        assert "nothing was handed in" in capsys.readouterr().err


def test_a_notebook_that_does_not_say_its_set_is_asked_for(tmp_path):
    anonymous = handed_in(SET, {})
    anonymous["metadata"] = {}
    code = [c for c in anonymous["cells"] if "check(" not in "".join(c["source"])]
    hand_in(tmp_path / "s", "ann", {**anonymous, "cells": code})
    out = tmp_path / "g"
    assert main(["grade", str(tmp_path / "s"), "--out", str(out)]) == 0
    assert "pass --set" in (out / "gradebook.csv").read_text("utf-8")
    assert main(["grade", str(tmp_path / "s"), "--out", str(out), "--set", "03"]) == 0
    (line,) = read(out / "gradebook.csv")
    assert line["marks"] == "0" and line["remarks"] == ""
