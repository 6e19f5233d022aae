"""A sandbox for other people's answers: bubblewrap, and a filter of system calls.

Inside there is no network and no process but one, no file but the environment (read-only) and an
empty folder of 64 MB. The solutions, the checks, the submissions and the learner's own folder are
not there at all.
"""

import functools
import os
import platform
import shutil
import site
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import gettempdir

from mslearn.home import course, home

BOX, BOX_BYTES = "/box", 64 << 20

# System calls that an answer has no use for, by processor: those that make processes (threads are
# let through), leave the sandbox, or take memory that no limit counts. From the kernel's tables.
CALLS = {
    "x86_64": {
        "arch": 0xC000003E,
        "clone": 56,
        "clone3": 435,
        "socket": 41,
        "refused": "fork 57 vfork 58 ptrace 101 process_vm_readv 310 process_vm_writev 311 "
        "unshare 272 setns 308 mount 165 umount2 166 pivot_root 155 io_uring_setup 425 bpf 321 "
        "userfaultfd 323 perf_event_open 298 add_key 248 request_key 249 keyctl 250 "
        "memfd_create 319 memfd_secret 447 shmget 29 msgget 68 semget 64",
    },
    "aarch64": {
        "arch": 0xC00000B7,
        "clone": 220,
        "clone3": 435,
        "socket": 198,
        "refused": "ptrace 117 process_vm_readv 270 process_vm_writev 271 unshare 97 setns 268 "
        "mount 40 umount2 39 pivot_root 41 io_uring_setup 425 bpf 280 userfaultfd 282 "
        "perf_event_open 241 add_key 217 request_key 218 keyctl 219 memfd_create 279 "
        "memfd_secret 447 shmget 194 msgget 186 semget 190",
    },
}
ALLOW, KILL, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
LOAD, EQUAL, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
CLONE_THREAD, AF_UNIX = 0x10000, 1


def seccomp_filter(machine: str) -> bytes:
    """The filter as a program for the kernel: threads and local sockets pass, the rest of `CALLS`
    is refused. Offsets are those of `struct seccomp_data`: number 0, processor 4, argument 16."""
    calls = CALLS[machine]
    step = struct.Struct("<HBBI").pack
    program = [step(LOAD, 0, 0, 4), step(EQUAL, 1, 0, calls["arch"]), step(RETURN, 0, 0, KILL)]
    program += [step(LOAD, 0, 0, 0)]
    program += [step(AT_LEAST, 0, 1, 0x40000000), step(RETURN, 0, 0, KILL)]  # x86's second table
    for number, test, value in (
        (calls["clone"], HAS_BITS, CLONE_THREAD),
        (calls["socket"], EQUAL, AF_UNIX),
    ):
        program += [step(EQUAL, 0, 4, number), step(LOAD, 0, 0, 16), step(test, 0, 1, value)]
        program += [step(RETURN, 0, 0, ALLOW), step(RETURN, 0, 0, NOT_PERMITTED)]
    refused = [(calls["clone3"], NO_SUCH_CALL)]  # the C library then takes clone
    refused += [(int(number), NOT_PERMITTED) for number in calls["refused"].split()[1::2]]
    for number, answer in refused:
        program += [step(EQUAL, 0, 1, number), step(RETURN, 0, 0, answer)]
    return b"".join([*program, step(RETURN, 0, 0, ALLOW)])


def environment() -> dict[str, str]:
    """The variables of a worker, and no others."""
    return {
        "HOME": BOX,
        "TMPDIR": BOX,
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": BOX,
        "MSLEARN_HOME": f"{BOX}/home",
        "MSLEARN_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def packages() -> list[Path]:
    """The folders that hold this Python's installed packages."""
    found = [*site.getsitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))]
    found += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [path for path in map(Path, dict.fromkeys(found)) if path.is_dir()]


def worker_code() -> str:
    """What Python runs to be a worker. Its path is set by hand, so no folder of ours slips in."""
    paths = [str(path) for path in (*packages(), course())]
    return f"import sys; sys.path += {paths!r}; from mslearn.worker import main; main()"


def python(code: str) -> list[str]:
    """The command that runs code in this Python, without its settings and start-up files."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", code]


def command(code: str, secrets: Iterable[Path] = ()) -> list[str]:
    """The command that runs Python code in the sandbox; `secrets` are folders it must not see.

    `{filter}` stands for the number of the file that holds the filter.
    """
    here = course().resolve()
    places = [Path("/usr"), Path("/nix/store"), Path(sys.base_prefix).resolve(), *packages()]
    shown = [path for path in dict.fromkeys(places) if path.is_dir()]
    inner = [path for path in shown if path.resolve().is_relative_to(here)]
    outer = [path for path in shown if path not in inner]
    line = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000"]
    line += ["--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv"]
    line += [part for path in outer for part in _shown(path)]
    if any(here.is_relative_to(path) for path in outer):
        line += ["--tmpfs", str(here)]
    line += [part for path in inner for part in _shown(path)]
    hidden = [path.resolve() for path in (home(), *secrets)]
    within = [path for path in hidden if any(path.is_relative_to(each) for each in shown)]
    line += [part for path in within for part in ("--tmpfs", str(path))]
    for path in (Path("/", name) for name in ("bin", "sbin", "lib", "lib64")):
        if path.is_symlink():
            line += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            line += _shown(path)
    line += [
        part
        for path in (Path("/etc/ld.so.cache"), here / "checkpoints")
        if path.exists()
        for part in _shown(path)
    ]
    line += [*_shown(here / "mslearn"), "--dir", str(here / "notebooks")]
    line += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    line += ["--size", str(BOX_BYTES), "--tmpfs", BOX]
    texts = home() / "data"
    line += ["--ro-bind", str(texts.resolve()), f"{BOX}/home/data"] if texts.is_dir() else []
    line += ["--remount-ro", "/", "--chdir", BOX]
    line += [part for pair in environment().items() for part in ("--setenv", *pair)]
    return [*line, "--seccomp", "{filter}", *python(code)]


def _shown(path: Path) -> list[str]:
    return ["--ro-bind", str(path), str(path)]


def start(
    code: str, secrets: Iterable[Path] = (), *, unsafe: bool = False, errors: int = DEVNULL
) -> Popen:
    """Start Python code in the sandbox, or with `unsafe` with the rights of whoever starts it."""
    pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": errors}
    if unsafe:
        own = {"HOME": str(Path.home()), "MSLEARN_HOME": str(home()), "TMPDIR": gettempdir()}
        variables = {**os.environ, **environment(), **own}
        return Popen(python(code), env=variables, start_new_session=True, **pipes)
    source, sink = os.pipe()
    os.write(sink, seccomp_filter(platform.machine()))
    os.close(sink)
    line = command(code, secrets)
    line[line.index("{filter}")] = str(source)
    try:
        return Popen(line, pass_fds=(source,), **pipes)
    finally:
        os.close(source)


def limit_memory(more: int) -> None:
    """Let this process have `more` bytes of address space than it has now, and never more."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + more
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@functools.cache
def fault() -> str:
    """Why no sandbox can be had here, and how to get one; empty where there is one."""
    if sys.platform != "linux":
        return (
            "there is no sandbox on this system: grade on Linux (WSL or a virtual machine will do)"
        )
    if platform.machine() not in CALLS:
        return f"the sandbox knows no {platform.machine()} processor: grade on x86_64 or aarch64"
    if not shutil.which("bwrap"):
        return "the sandbox needs bubblewrap: install the package of that name (apt, dnf or pacman)"
    probe = start("print('in')", errors=PIPE)
    said, errors = probe.communicate(timeout=60)
    if said.strip() == b"in":
        return ""
    return (
        f"bubblewrap cannot make a sandbox ({errors.decode(errors='replace').strip()}): {_mend()}"
    )


def _mend() -> str:
    """What keeps bubblewrap from working, from what the kernel says of itself."""
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor keeps programs from making user namespaces, as on Ubuntu since 23.10; allow "
            "it with `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give "
            "bubblewrap alone the profile that docs/grading.md shows"
        )
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "allow user namespaces: `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
    if _setting("user/max_user_namespaces") == "0":
        return "allow user namespaces: `sudo sysctl -w user.max_user_namespaces=10000`"
    return (
        "it must be 0.7 or newer and allowed to make user namespaces; in a container, start that "
        "with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
    )


def _setting(name: str) -> str:
    path = Path("/proc/sys", name)
    return path.read_text().strip() if path.exists() else ""
