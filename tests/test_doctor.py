"""The doctor names each fault and its mend; every fault is made here on purpose."""

import argparse
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import webbrowser

import pytest

from mslearn import device, doctor


def only(findings):
    """The one finding of a check."""
    (finding,) = list(findings)
    return finding


def test_this_machine_is_described_line_by_line(capsys):
    doctor.report(list(doctor.examine([*doctor.CHECKS, lambda: doctor.port(1)])))
    printed = capsys.readouterr().out
    for name in [
        "system",
        "processor",
        "memory",
        "python",
        "packages",
        "torch",
        "device",
        "home",
        "course",
        "texts",
    ]:
        assert f" {name} " in printed, name


def test_an_old_python_is_named_with_its_mend():
    finding = only(doctor.python((3, 10, 4)))
    assert "Python is too old (3.10.4" in finding.fault and "3.11" in finding.fault
    assert not only(doctor.python((3, 11, 0))).fault


def test_a_missing_package_and_a_wrong_torch_are_named(monkeypatch):
    versions = {"torch": "1.13.1", "anywidget": None}
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: versions.get(name, real(name)))
    faults = " ".join(finding.fault for finding in doctor.packages())
    assert "torch is 1.13.1, needed is >=2.6" in faults
    assert "anywidget is missing, needed" in faults and doctor.SETUP in faults


def test_a_version_off_the_lock_is_a_note_and_not_a_fault(monkeypatch):
    real = doctor.installed
    monkeypatch.setattr(
        doctor, "installed", lambda name: "9999.0" if name == "regex" else real(name)
    )
    last = list(doctor.packages())[-1]
    assert "off the lock: regex 9999.0" in last.value and not last.fault


def test_a_torch_that_does_not_import_is_named(monkeypatch):
    def broken(name):
        raise OSError("libtorch_cpu.so: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    finding = only(doctor.torch_build())
    assert "torch does not import (libtorch_cpu.so" in finding.fault


def test_a_card_that_torch_cannot_use_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "nvidia_cards", lambda: ["NVIDIA T4"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "cannot use this machine's NVIDIA T4" in only(doctor.torch_build()).fault


def test_a_device_that_disagrees_with_the_cpu_is_named(monkeypatch):
    monkeypatch.setattr(device, "parity", lambda chosen: device.Parity(0.5, 0.1, 1e-4))
    finding = only(doctor.devices())
    assert "DISAGREES with the CPU" in finding.fault and "MSLEARN_DEVICE=cpu" in finding.fault


def test_a_home_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    monkeypatch.setenv("MSLEARN_HOME", str(in_the_way))
    finding, course = doctor.folders()
    assert "no write access for the home folder: set MSLEARN_HOME" in finding.fault
    assert not course.fault


def test_a_full_disk_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: argparse.Namespace(free=2**20))
    assert all("make room for 1 GiB" in finding.fault for finding in doctor.folders())


def test_missing_texts_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MSLEARN_HOME", str(tmp_path))
    assert (
        "texts not fetched (wiki, bible, movies, recipes, hsk): run `python -m mslearn data"
        in only(doctor.texts()).fault
    )


def test_no_browser_is_named(monkeypatch):
    def no_browser():
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(doctor, "chromium", lambda: None)
    monkeypatch.setattr("webbrowser.get", no_browser)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no browser: install one" in next(doctor.tools()).fault
    assert "chromium" in doctor.missing_tools()


def test_a_browser_named_by_the_variable_is_the_one_found(monkeypatch):
    monkeypatch.setenv("MSLEARN_BROWSER", sys.executable)
    assert doctor.chromium() == sys.executable


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert f"port {number} is taken" in only(doctor.port(number)).fault
    assert not only(doctor.port(number)).fault


def test_a_port_that_jupyterlab_has_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        known = {"port": number, "root_dir": "/course", "pid": os.getpid()}
        (tmp_path / "jpserver-1.json").write_text(json.dumps(known))
        finding = only(doctor.port(number))
    assert finding.value.endswith("JupyterLab has /course open") and not finding.fault


def test_a_check_that_breaks_is_reported_and_the_others_go_on():
    def memory():
        raise RuntimeError("no such file")
        yield

    broken, finding = doctor.examine([memory, doctor.python])
    assert "the memory check itself failed" in broken.fault
    assert finding.name == "python"


def test_a_long_finding_is_wrapped_and_a_long_path_stays_whole():
    path = "/" + "folder-of-somebody/" * 9
    _, second, *_ = lines = str(doctor.Finding("program", f"python of {path}")).split("\n")
    assert second.strip() == path and second.startswith(" " * 13) and len(lines) == 2
    assert all(len(line) <= 88 for line in str(doctor.Finding("x", "some words " * 40)).split("\n"))


@pytest.mark.parametrize(("fault", "status"), [("mend it", 1), ("", 0)])
def test_the_exit_status_says_whether_something_is_wrong(fault, status, capsys):
    assert doctor.report([doctor.Finding("x", "y", fault)]) == status
    assert ("mend it" in capsys.readouterr().out) == bool(fault)


def test_the_command_runs():
    done = subprocess.run(
        [sys.executable, "-m", "mslearn", "doctor", "--port", "1"], capture_output=True, text=True
    )
    assert done.returncode in (0, 1) and "python" in done.stdout, done.stderr
