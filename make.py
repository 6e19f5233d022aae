"""Set the course up, open it and test it: `python make.py setup | lab | test`.

Standard library only, for nothing is installed yet when it starts; and in the syntax of Python 3.8,
so that an older Python can still read the sentence that says it is too old.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "made-from.sha256"
SETTINGS = VENV / "share/jupyter/lab/settings/overrides.json"
NEWS = "@jupyterlab/apputils-extension:notification"  # off: the course is used offline
OLDEST, NEWEST = (3, 11), (3, 14)  # of the Pythons that the locked torch is built for


class Stop(Exception):
    """Something a person has to do; its text is the sentence that says what."""


def main() -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="make.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="setup | lab | test")
    commands.required = True
    commands.add_parser("setup", help="make the environment and fetch the texts")
    opening = commands.add_parser("lab", help="set up, then open the course in JupyterLab")
    opening.add_argument("--port", type=int, default=8888, help="first port to try (8888)")
    opening.add_argument("--no-browser", action="store_true", help="print the address only")
    commands.add_parser("test", help="set up, then run every check")
    arguments = parser.parse_args()
    try:
        find_python()
        python = sys.executable if in_conda() else environment()
        run(
            [python, "-m", "mslearn", "data", "--all"], "the texts could not be fetched", quiet=True
        )
        if arguments.command == "lab":
            return lab(python, arguments.port, not arguments.no_browser)
        return test(python) if arguments.command == "test" else 0
    except Stop as stop:
        print(f"make.py: {stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def find_python() -> None:
    """Go on under a Python that fits, or stop with the sentence that says what to do."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if other and version(other):
            sys.exit(subprocess.call([other, *sys.argv]))
    raise Stop(
        "this is Python {}.{} and the course needs {}.{} to {}.{}: install one and start make.py "
        "with it, such as `python3.12 make.py lab`".format(*sys.version_info[:2], *OLDEST, *NEWEST)
    )


def in_conda() -> bool:
    """Whether this is a conda environment with the course's packages: then it needs no .venv."""
    active = os.environ.get("CONDA_PREFIX")
    return active == sys.prefix and all(map(importlib.util.find_spec, ("torch", "jupyterlab")))


def environment() -> str:
    """Make `.venv` hold what the lock says, unless it does; return its Python.

    The stamp is written last, so a set-up that was cut off is taken up again, and one that was
    finished costs no look at the network.
    """
    python = str(BIN / ("python.exe" if os.name == "nt" else "python"))
    if STAMP.exists() and STAMP.read_text() == fingerprint(python):
        return python
    print("Setting up .venv: once, a few minutes and 2 GB of disk (8 GB with CUDA).", flush=True)
    if not version(python):  # missing, or made from a Python that is gone
        run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            "this Python cannot make environments; on Debian: apt-get install python3-venv",
        )
    install = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    install += [] if sys.stdout.isatty() else ["--quiet"]
    run(
        [*install, "-c", "requirements.lock", "-e", ".[test]"],
        "the packages could not be installed: see pip's message above, then run this again "
        "(the first set-up needs a network, later ones do not)",
    )
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text(json.dumps({NEWS: {"fetchNews": "false", "checkForUpdates": False}}))
    STAMP.write_text(fingerprint(python))
    return python


def fingerprint(python: str) -> str:
    """What an environment is made from: its Python, its folder, the ranges and the lock."""
    made = hashlib.sha256(repr((version(python), str(ROOT))).encode())
    for name in ("pyproject.toml", "requirements.lock"):
        made.update((ROOT / name).read_text(encoding="utf-8").encode())
    return made.hexdigest()


def version(python: str) -> str:
    """The version that a Python says it has; empty when it does not start."""
    ask = [python, "-c", "import sys, pip; print(sys.version)"]
    try:
        return subprocess.run(
            ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return ""


def lab(python: str, wanted: int, browser: bool) -> int:
    """Serve the course on this machine only and open its first page, until it is stopped."""
    port = free_port(wanted)
    if port != wanted:
        print(f"Port {wanted} is taken, so the course is on {port}.", flush=True)
    command = [python, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", f"--ServerApp.root_dir={ROOT}"]
    command += ["--LabApp.default_url=/lab/tree/notebooks/00_start.ipynb"]
    command += ["--LabApp.extension_manager=readonly"]  # it would look at the package index
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is nobody else
    server = subprocess.Popen(command, cwd=str(ROOT), env=variables())
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:  # the server has it too, and asks whether it is meant
            continue


def free_port(first: int) -> int:
    """The first port at or after `first` that nothing listens on."""
    for port in range(first, first + 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise Stop(f"ports {first} to {port} are all taken: pass --port with another")


def test(python: str) -> int:
    """Run every check, the cheap ones first, and stop at the first that fails."""
    system_tools(python)
    trained = [python, "-m", "mslearn", "data", "minilm"]  # kept; without it, its tests say so
    subprocess.call(trained, cwd=str(ROOT), env=variables(), stdout=subprocess.DEVNULL)
    pytest = [python, "-m", "pytest", "-q"]
    notebooks = ["notebooks", "exercises", "solutions"]
    checks = [
        ("lint", [python, "-m", "ruff", "check", "."]),
        ("format", [python, "-m", "ruff", "format", "--check", "."]),
        ("notebooks in order", [python, "-m", "mslearn", "build", "--check"]),
        ("the package", [*pytest, "-m", "not browser", "tests"]),
        ("the notebooks", [*pytest, "--nbval", *(n for n in notebooks if (ROOT / n).is_dir())]),
        ("the browser", [*pytest, "-m", "browser", "tests"]),
    ]
    start = time.time()
    for number, (name, command) in enumerate(checks, 1):
        print(f"\n[{number}/{len(checks)}] {name}", flush=True)
        before = time.time()
        status = subprocess.call(command, cwd=str(ROOT), env=variables())
        seconds = time.time() - before
        if status != 0:
            again = " ".join(["python", *command[1:]])
            print(f"\n{name} failed after {seconds:.0f} s; again: {again}")
            return status
        print(f"{name}: {seconds:.0f} s", flush=True)
    print(f"\nAll {len(checks)} checks passed in {time.time() - start:.0f} s.")
    return 0


def system_tools(python: str) -> None:
    """See to it that the browser and the sandbox are here: installed where we may, else named."""
    missing = missing_tools(python)
    if missing and shutil.which("apt-get") and may_install():
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        quiet = {
            "stdout": subprocess.DEVNULL,
            "env": dict(variables(), DEBIAN_FRONTEND="noninteractive"),
        }
        print("Installing {} with apt-get.".format(" and ".join(missing)), flush=True)
        subprocess.call([*sudo, "apt-get", "update"], **quiet)
        subprocess.call([*sudo, "apt-get", "install", "--yes", *missing], **quiet)
        missing = missing_tools(python)
    if not missing:
        return
    text = "the tests need {0}; on Debian or Ubuntu: apt-get install {0}".format(" ".join(missing))
    if os.environ.get("CI") == "true":
        raise Stop(text)
    print(f"{text}. Tests that need what is missing are skipped.")


def missing_tools(python: str) -> list[str]:
    """Debian's names of the tools that the package's own search does not find."""
    code = "from mslearn import doctor; print(*doctor.missing_tools())"
    found = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, cwd=str(ROOT), check=True)
    return found.stdout.decode().split()


def may_install() -> bool:
    """Root may; so may CI with a password-free sudo. A person's system is theirs to change."""
    if os.geteuid() == 0:
        return True
    sudo = os.environ.get("CI") == "true" and shutil.which("sudo")
    return bool(sudo) and subprocess.call(["sudo", "-n", "true"]) == 0


def variables() -> dict[str, str]:
    """The environment of every process: threads that wait sleep, and kernels inherit it."""
    return dict({"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}, **os.environ)


def run(command: list[str], otherwise: str, quiet: bool = False) -> None:
    """Run a command in the course's folder; stop with `otherwise` when it fails."""
    output = subprocess.DEVNULL if quiet else None
    if subprocess.call(command, cwd=str(ROOT), env=variables(), stdout=output) != 0:
        raise Stop(otherwise)


if __name__ == "__main__":
    sys.exit(main())
