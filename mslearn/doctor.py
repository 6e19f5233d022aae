"""What a report of a fault needs to say about a machine, what is wrong with it, and the mend."""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mslearn import sandbox
from mslearn.browser import chromium
from mslearn.home import course, home

SETUP = "run `python make.py setup`"
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@dataclass(frozen=True)
class Finding:
    """One fact about the machine; `fault` says what is wrong with it and the mend, if anything."""

    name: str
    value: str
    fault: str = ""

    def __str__(self) -> str:
        line = f"{'!' if self.fault else ' '} {self.name:<10} {self.value}"
        whole = {"break_long_words": False, "break_on_hyphens": False}  # a path can be copied
        return textwrap.fill(line, 88, subsequent_indent=" " * 13, **whole)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mslearn doctor`."""
    parser.add_argument("--port", type=int, default=8888, help="the port to look at (8888)")


def command(arguments: argparse.Namespace) -> int:
    """Print every finding, then every fault with its mend; 1 when there is a fault."""
    return report(list(examine([*CHECKS, lambda: port(arguments.port)])))


def summary() -> None:
    """What the start page shows: Python, torch, device, texts, and whatever is wrong."""
    report(list(examine([python, torch_build, devices, texts])))


def examine(checks: list[Callable[[], Iterator[Finding]]]) -> Iterator[Finding]:
    """Run the checks; one that breaks is itself a finding, and the others are still made."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # whatever is broken here is what a report has to say
            name = check.__name__.strip("<>")
            yield Finding(name, repr(error), f"the {name} check itself failed; please report this")


def report(findings: list[Finding]) -> int:
    """Print the findings, then the faults numbered; return 1 when there are any."""
    print(*findings, sep="\n")
    faults = [finding.fault for finding in findings if finding.fault]
    print(*(f"\n{n}. {fault}" for n, fault in enumerate(faults, 1)), sep="")
    print("Nothing is wrong." if not faults else f"{len(faults)} to mend, marked ! above.")
    return 1 if faults else 0


def system() -> Iterator[Finding]:
    """The operating system, processor, memory."""
    import psutil

    yield Finding("system", f"{platform.platform()}, {platform.machine()}")
    yield Finding("program", sys.executable)
    cores = psutil.cpu_count(logical=False) or "?"
    yield Finding("processor", f"{processor()}, {cores} cores, {os.cpu_count()} threads")
    memory = psutil.virtual_memory()
    yield Finding("memory", f"{memory.total / 2**30:.0f} GiB, {memory.available / 2**30:.0f} free")


def processor() -> str:
    """The CPU's name and those of its instruction sets that decide how fast training is."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    parts = (line.partition(":") for line in lines)
    facts = {key.strip(): value.strip() for key, _, value in parts}
    flags = (facts.get("flags") or facts.get("Features", "")).split()
    names = [flag for flag in CPU_FLAGS if flag in flags]
    return " ".join([facts.get("model name", platform.machine()), *names])


def python(version: tuple[int, ...] | None = None) -> Iterator[Finding]:
    """The interpreter, and whether it is new enough."""
    version = tuple(sys.version_info[:3]) if version is None else version
    value = ".".join(map(str, version))
    fault = f"Python is too old ({value}): install 3.11 to 3.14, then {SETUP} with it"
    yield Finding("python", value, fault if version < (3, 11) else "")


def packages() -> Iterator[Finding]:
    """Versions of what the course needs: outside its range is a fault, off the lock is a note."""
    from packaging.requirements import Requirement

    pinned, off_lock = lock(), []
    for wanted in map(Requirement, importlib.metadata.requires("mslearn") or []):
        if wanted.marker and not wanted.marker.evaluate():
            continue
        version = installed(wanted.name)
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            found, needed = version or "missing", wanted.specifier
            fault = f"{wanted.name} is {found}, needed is {needed}: {SETUP}"
            yield Finding(wanted.name, found, fault)
        elif version.split("+")[0] not in pinned.get(wanted.name, {version}):
            off_lock.append(f"{wanted.name} {version}")
    yield Finding("packages", f"off the lock: {', '.join(off_lock) or 'none'}")


def lock() -> dict[str, set[str]]:
    """The versions that the lock allows for each package; there may be one per Python."""
    pinned: dict[str, set[str]] = {}
    text = (course() / "requirements.lock").read_text(encoding="utf-8")
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        pinned.setdefault(name, set()).add(version)
    return pinned


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def torch_build() -> Iterator[Finding]:
    """How torch was built, and whether it can use what the machine has."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a shared library that is not there
        yield Finding("torch", "does not import", f"torch does not import ({error}): {SETUP}")
        return
    build = f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    waits = os.environ.get("OMP_WAIT_POLICY", "unset")
    cards = [] if torch.cuda.is_available() else nvidia_cards()
    fault = (
        f"torch ({build}) cannot use this machine's {', '.join(cards)}: install a build for its "
        "driver's CUDA, or the conda environment of environment-gpu.yml"
    )
    yield Finding("torch", f"{build}, {threads}, waiting: {waits}", fault if cards else "")


def nvidia_cards() -> list[str]:
    """The NVIDIA cards that the driver sees, by name."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return listing.stdout.splitlines()
    except (OSError, subprocess.SubprocessError):  # no driver, or one that does not answer
        return []


def devices() -> Iterator[Finding]:
    """The device that training would use, held against the CPU on one small training step."""
    try:
        from mslearn import device
    except (ImportError, OSError):  # no torch: the check before this one has said so
        return
    chosen = device.pick()
    parity = device.parity(chosen)
    fault = f"{chosen.label} {parity}: update its driver and set MSLEARN_DEVICE=cpu until then"
    yield Finding("device", f"{chosen}; {parity}", "" if parity.agrees else fault)


def folders() -> Iterator[Finding]:
    """Whether the course and the learner's own folder can be written, and have room."""
    for name, folder, mend in (
        ("home", home, "set MSLEARN_HOME to a folder you can write"),
        ("course", course, "clone the course into a folder of your own"),
    ):
        try:
            with tempfile.TemporaryFile(dir=folder()):
                free = shutil.disk_usage(folder()).free / 2**30
        except OSError as error:
            yield Finding(name, str(error), f"no write access for the {name} folder: {mend}")
            continue
        fault = f"{free:.1f} GiB free for the {name} folder: make room for 1 GiB or {mend}"
        yield Finding(name, f"{folder()}, {free:.0f} GiB free", fault if free < 1 else "")


def texts() -> Iterator[Finding]:
    """Whether the real texts have been fetched."""
    from mslearn.sources import SOURCES

    missing = [name for name, source in SOURCES.items() if not source.archive.path.is_file()]
    fault = f"texts not fetched ({', '.join(missing)}): run `python -m mslearn data --all`"
    yield Finding(
        "texts",
        f"{len(SOURCES) - len(missing)} of {len(SOURCES)} fetched",
        fault if missing else "",
    )


def tools() -> Iterator[Finding]:
    """The browser for JupyterLab and the tests, and the sandbox for other people's answers."""
    found = chromium()
    fault = "no browser: install one, or open the address of `make lab` on another machine"
    with contextlib.suppress(webbrowser.Error):
        found = found or getattr(webbrowser.get(), "name", "the system's own")
    yield Finding("browser", found or "none", "" if found else fault)
    if sys.platform == "linux":
        why = sandbox.fault()
        yield Finding("sandbox", f"none, for `mslearn grade`: {why}" if why else "bubblewrap")


def missing_tools() -> list[str]:
    """What the tests need from the system and is not here, by the name of its Debian package."""
    needs_sandbox = sys.platform == "linux" and not shutil.which("bwrap")
    return ["chromium"] * (not chromium()) + ["bubblewrap"] * needs_sandbox


def port(number: int) -> Iterator[Finding]:
    """Whether JupyterLab could have its port, or has it already."""
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", number)) == 0
    if taken and (folder := served(number)):
        yield Finding("port", f"{number}, where JupyterLab has {folder} open")
        return
    fault = (
        f"port {number} is taken: stop what uses it, or `python make.py lab --port {number + 1}`"
    )
    yield Finding("port", f"{number} {'taken' if taken else 'free'}", fault if taken else "")


def served(number: int) -> str | None:
    """The folder that a Jupyter server of this user has open on a port, or None."""
    from jupyter_server.serverapp import list_running_servers

    return next((s["root_dir"] for s in list_running_servers() if s["port"] == number), None)


CHECKS = (system, python, packages, torch_build, devices, folders, texts, tools)
