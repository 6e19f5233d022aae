"""The two commands, the lock and the conda environments agree with `pyproject.toml`."""

import ast
import asyncio
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from rattler import Channel, GenericVirtualPackage, MatchSpec, PackageName, Version, solve
from rattler.package import BuildString

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
]
PIP_ONLY = {"playwright"}  # conda-forge has it under no name of its own
CONDA = {"environment.yml": "pytorch-cpu", "environment-gpu.yml": "pytorch-gpu"}


@pytest.fixture
def make():
    """The file `make.py` as a module of its own."""
    spec = importlib.util.spec_from_file_location("course_make", ROOT / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked() -> dict[str, set[str]]:
    """What the lock says, by package."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    versions: dict[str, set[str]] = {}
    for line in lines:
        if not line.startswith("#"):
            pinned = Requirement(line)
            (exact,) = pinned.specifier
            assert exact.operator == "==", line
            versions.setdefault(pinned.name, set()).add(exact.version)
    return versions


class TestLock:
    def test_holds_a_version_in_range_for_everything_needed(self):
        versions = locked()
        for wanted in NEEDED:
            assert versions.get(wanted.name), f"{wanted.name} is not in requirements.lock"
            for version in versions[wanted.name]:
                assert wanted.specifier.contains(version), f"{wanted} is locked at {version}"

    def test_pins_the_torch_that_the_course_was_measured_with(self):
        assert locked()["torch"] == {"2.13.0"}

    def test_names_no_place_to_fetch_from(self):
        text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
        assert "://" not in text and not re.search(r"^\s*-", text, re.MULTILINE)


def conda(name: str) -> tuple[dict, list[str], list[dict]]:
    """An environment file read strictly: the whole, its match specs, its pip sections."""
    whole = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    specs = [entry for entry in whole["dependencies"] if isinstance(entry, str)]
    return whole, specs, [entry for entry in whole["dependencies"] if isinstance(entry, dict)]


def repodata(specs: list[str], torch: str) -> dict:
    """A channel with two versions of everything: one below every range, one as the lock says."""
    versions = locked() | {"python": {"3.12.4"}, "pip": {"26.0"}, "cuda-version": {"12.8"}}
    versions |= {torch: versions["torch"], "matplotlib-base": versions["matplotlib"]}
    packages = {}
    for spec in specs:
        name = MatchSpec(spec).name.normalized
        for version in ("0.0.1", min(versions[name])):
            needs = ["__cuda"] if name == "pytorch-gpu" else []
            packages[f"{name}-{version}-0.conda"] = {
                "name": name,
                "version": version,
                "build": "0",
                "build_number": 0,
                "depends": needs,
                "subdir": "linux-64",
                "sha256": "0" * 64,
                "size": 1,
            }
    return {"info": {"subdir": "linux-64"}, "packages": {}, "packages.conda": packages}


def solved(folder: Path, specs: list[str], torch: str, cuda: bool) -> dict[str, str]:
    """Versions that the conda solver picks from the channel above, with no network."""
    for subdir in ("linux-64", "noarch"):
        (folder / subdir).mkdir(parents=True)
        empty = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}}
        content = repodata(specs, torch) if subdir == "linux-64" else empty
        (folder / subdir / "repodata.json").write_text(json.dumps(content))
    card = GenericVirtualPackage(PackageName("__cuda"), Version("12.8"), BuildString("0"))
    records = asyncio.run(
        solve(
            [Channel(folder.as_uri())],
            [MatchSpec(spec, strict=True) for spec in specs],
            platforms=["linux-64", "noarch"],
            virtual_packages=[card] if cuda else [],
        )
    )
    return {record.name.normalized: str(record.version) for record in records}


@pytest.mark.parametrize(("name", "torch"), CONDA.items())
class TestConda:
    def test_is_strict_and_from_one_channel(self, name, torch):
        whole, specs, _ = conda(name)
        assert set(whole) == {"name", "channels", "dependencies"}
        assert whole["channels"] == ["conda-forge", "nodefaults"]
        assert len(specs) == len({MatchSpec(spec, strict=True).name.normalized for spec in specs})

    def test_has_the_ranges_of_pyproject(self, name, torch):
        names = {"torch": torch, "matplotlib": "matplotlib-base"}
        wanted = {
            f"{names.get(need.name, need.name)}{need.specifier}"
            for need in NEEDED
            if need.name not in PIP_ONLY
        }
        wanted |= {f"python{PROJECT['requires-python']}", "pip"}
        _, specs, _ = conda(name)
        extra = set(specs) - wanted
        assert not wanted - set(specs)
        assert all(spec.startswith("cuda-version") for spec in extra)
        assert bool(extra) == (torch == "pytorch-gpu")

    def test_makes_the_package_importable_through_pip(self, name, torch):
        _, _, pip = conda(name)
        assert pip == [{"pip": ["-e .[test]"]}]

    def test_solves_without_a_network(self, name, torch, tmp_path):
        _, specs, _ = conda(name)
        versions = solved(tmp_path / "channel", specs, torch, cuda=True)
        assert versions[torch] == "2.13.0" and len(versions) == len(specs)
        assert "0.0.1" not in versions.values()


def test_the_gpu_environment_does_not_solve_without_a_card(tmp_path):
    _, specs, _ = conda("environment-gpu.yml")
    with pytest.raises(Exception, match="__cuda"):
        solved(tmp_path / "channel", specs, "pytorch-gpu", cuda=False)


class TestMake:
    def test_can_be_read_by_a_python_that_is_too_old(self):
        ast.parse((ROOT / "make.py").read_text(encoding="utf-8"), feature_version=(3, 8))

    @pytest.mark.parametrize("version", [(3, 10, 1), (3, 15, 0)])
    def test_says_which_python_it_needs(self, make, monkeypatch, version):
        monkeypatch.setattr(make.sys, "version_info", version)
        monkeypatch.setattr(make.shutil, "which", lambda name: None)
        with pytest.raises(make.Stop, match=r"this is Python 3\.1[05] and the course needs 3\.11"):
            make.find_python()

    def test_needs_the_python_that_pyproject_needs(self, make):
        assert PROJECT["requires-python"] == ">={}.{}".format(*make.OLDEST)

    def test_a_finished_setup_starts_nothing(self, make, monkeypatch, tmp_path):
        stamp = tmp_path / "stamp"
        monkeypatch.setattr(make, "STAMP", stamp)
        monkeypatch.setattr(make, "BIN", Path(sys.executable).parent)
        stamp.write_text(make.fingerprint(sys.executable))
        monkeypatch.setattr(make, "fingerprint", lambda python: stamp.read_text())
        monkeypatch.setattr(make, "run", lambda *_: pytest.fail("started a process"))
        assert Path(make.environment()).parent == Path(sys.executable).parent

    def test_a_setup_that_failed_is_not_taken_for_finished(self, make, monkeypatch, tmp_path):
        def fail(command, otherwise):
            raise make.Stop(otherwise)

        monkeypatch.setattr(make, "STAMP", tmp_path / "stamp")
        monkeypatch.setattr(make, "run", fail)
        with pytest.raises(make.Stop):
            make.environment()
        assert not make.STAMP.exists()

    def test_the_stamp_changes_with_the_lock(self, make, monkeypatch, tmp_path):
        monkeypatch.setattr(make, "ROOT", tmp_path)
        (tmp_path / "pyproject.toml").write_text("same")
        (tmp_path / "requirements.lock").write_text("torch==2.13.0")
        before = make.fingerprint(sys.executable)
        assert make.fingerprint(sys.executable) == before
        (tmp_path / "requirements.lock").write_text("torch==2.14.0")
        assert make.fingerprint(sys.executable) != before

    def test_a_taken_port_gives_way_to_the_next(self, make):
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = server.getsockname()[1]
            assert make.free_port(taken) > taken

    def test_a_missing_tool_is_a_failure_in_ci_and_a_sentence_elsewhere(
        self, make, monkeypatch, capsys
    ):
        monkeypatch.setattr(make, "missing_tools", lambda python: ["chromium"])
        monkeypatch.setattr(make, "may_install", lambda: False)
        monkeypatch.delenv("CI", raising=False)
        make.system_tools(sys.executable)
        assert "apt-get install chromium" in capsys.readouterr().out
        monkeypatch.setenv("CI", "true")
        with pytest.raises(make.Stop, match="apt-get install chromium"):
            make.system_tools(sys.executable)

    def test_the_first_failing_check_ends_the_tests(self, make, monkeypatch, capsys):
        commands = []
        monkeypatch.setattr(make, "system_tools", lambda python: None)
        monkeypatch.setattr(
            make.subprocess, "call", lambda command, **_: commands.append(command) or 3
        )
        assert make.test("python") == 3
        assert [command[3:] for command in commands] == [["data", "minilm"], ["check", "."]]
        assert "lint failed" in capsys.readouterr().out


def test_ci_calls_make_test_and_nothing_cleverer():
    script = ROOT / ".ci" / "run"
    *_, last = script.read_text(encoding="utf-8").splitlines()
    assert last == "make test"
    if os.name == "posix":
        assert os.access(script, os.X_OK)


def test_the_workflow_runs_the_same_on_three_systems():
    text = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["test"]
    systems = {name.split("-")[0] for name in job["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[-1] == "python make.py test"


def test_make_hands_its_two_commands_to_make_py():
    try:
        dry = subprocess.run(
            ["make", "--dry-run", "lab", "test"], cwd=ROOT, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no make here; make.py is there for that")
    assert "make.py lab" in dry.stdout and "make.py test" in dry.stdout
