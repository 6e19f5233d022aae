"""What an answer can reach from inside the sandbox, and what is said where there is none."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mslearn import doctor, sandbox
from mslearn.home import course, home

linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")


def inside(code: str, *secrets: Path) -> str:
    """What code prints in the sandbox."""
    process = sandbox.start(code, secrets, errors=subprocess.PIPE)
    printed, errors = process.communicate(timeout=60)
    assert not errors, errors.decode()
    return printed.decode().strip()


def raised(statement: str) -> str:
    """The error that a statement raises in the sandbox; empty when it goes through."""
    tried = "\n".join(f"    {line}" for line in statement.splitlines())
    return inside(f"try:\n{tried}\nexcept Exception as error: print(type(error).__name__)")


@linux
@pytest.mark.sandbox
@pytest.mark.skipif(bool(sandbox.fault()), reason=sandbox.fault() or "there is one")
class TestInside:
    def test_the_answers_of_the_course_are_not_there(self, tmp_path):
        (tmp_path / "03.py").write_text("secret")
        places = [course() / "solutions", course() / "tests", course() / ".git", tmp_path, home()]
        code = f"import os; print([os.path.exists(p) for p in {list(map(str, places))}])"
        assert inside(code, tmp_path) == str([False] * len(places))

    def test_a_secret_folder_within_the_environment_is_empty(self):
        secret = sandbox.packages()[0] / "hypothesis"
        code = f"import os; print(os.listdir({str(secret)!r}))"
        assert inside(code, secret) == "[]" and inside(code) != "[]"

    def test_the_root_holds_the_environment_and_no_home(self):
        found = inside("import os; print(*os.listdir('/'))").split()
        assert not {"home", "var", "tmp", "opt", "mnt", "srv", "boot"} - {
            path.parts[1] for path in (course(), Path(sys.base_prefix), *sandbox.packages())
        } & set(found)
        assert inside("import os; print(*os.listdir('/etc'))") in ("", "ld.so.cache")

    @pytest.mark.parametrize("place", ["/", "/dev/shm", "/usr", "/etc", str(course())])
    def test_nothing_can_be_written(self, place):
        assert raised(f"open({place + '/x'!r}, 'w')") in ("OSError", "PermissionError")

    def test_but_a_box_of_64_megabytes(self):
        fill = "import os\nfor n in range(9): open(f'/box/{n}', 'wb').write(bytes(16 << 20))"
        assert raised(fill) == "OSError"
        assert inside("import os; print(os.listdir('/box'))") in ("[]", "['home']")

    @pytest.mark.parametrize(
        "statement",
        [
            "import os; os.fork()",
            "import subprocess; subprocess.run(['/usr/bin/true'])",
            "import os; os.posix_spawn('/bin/sh', ['sh'], {})",
            "import socket; socket.socket()",
            "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
            "import socket; socket.socket(40, socket.SOCK_STREAM)",  # to the host of a machine
            "import os; os.memfd_create('x')",
            "import ctypes; c = ctypes.CDLL(None)\nif c.unshare(0x10000000): raise OSError",
            "import ctypes; c = ctypes.CDLL(None)\nif c.ptrace(16, 1, 0, 0): raise OSError",
            "import ctypes; c = ctypes.CDLL(None)\nif c.shmget(0, 4096, 0o1600) < 0: raise OSError",
        ],
    )
    def test_no_process_no_network_no_way_out(self, statement):
        assert raised(statement) in ("PermissionError", "OSError")

    def test_threads_and_pairs_of_sockets_work(self):
        code = "import threading, socket\nt = threading.Thread(target=print, args=('ran',))\n"
        assert inside(f"{code}socket.socketpair(); t.start(); t.join()") == "ran"

    def test_no_other_process_and_no_variable_of_ours_is_seen(self, monkeypatch):
        monkeypatch.setenv("MY_TOKEN", "secret")
        code = "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]), os.environ)"
        count, _, variables = inside(code).partition(" ")
        assert int(count) <= 2 and "MY_TOKEN" not in variables

    def test_the_process_has_no_rights_even_of_root(self):
        status = inside("print(open('/proc/self/status').read())")
        assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status

    def test_memory_is_limited(self):
        code = sandbox.worker_code().partition(";")[0]
        code += f"; sys.path += {[*map(str, sandbox.packages()), str(course())]}\n"
        code += "from mslearn import sandbox; sandbox.limit_memory(200 << 20)\n"
        code += "try: bytes(300 << 20)\nexcept MemoryError: print('no more')"
        assert inside(code) == "no more"


class TestThereIsNone:
    @pytest.fixture(autouse=True)
    def looked_for_again(self):
        sandbox.fault.cache_clear()
        yield
        sandbox.fault.cache_clear()

    @pytest.mark.parametrize("system", ["darwin", "win32"])
    def test_on_other_systems(self, monkeypatch, system):
        monkeypatch.setattr(sys, "platform", system)
        assert "grade on Linux" in sandbox.fault()

    def test_on_other_processors(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
        assert "no riscv64 processor" in sandbox.fault()

    def test_without_bubblewrap(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert "install the package of that name" in sandbox.fault()
        assert "bubblewrap" in doctor.missing_tools()
        assert "needs bubblewrap" in list(doctor.tools())[-1].value

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows runs no shell scripts")
    @pytest.mark.parametrize(
        ("setting", "value", "mend"),
        [
            ("kernel/apparmor_restrict_unprivileged_userns", "1", "the profile that docs/grading"),
            ("kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
            ("user/max_user_namespaces", "0", "max_user_namespaces=10000"),
            ("", "", "in a container"),
        ],
    )
    def test_where_bubblewrap_may_not_make_one(self, monkeypatch, tmp_path, setting, value, mend):
        refuses = tmp_path / "bwrap"
        refuses.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: no' >&2\nexit 1\n")
        refuses.chmod(0o755)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setattr(sandbox, "_setting", lambda name: value if name == setting else "")
        said = sandbox.fault()
        assert "setting up uid map: no" in said and mend in said


@pytest.mark.parametrize("machine", sandbox.CALLS)
def test_the_filter_is_a_program_of_whole_steps_that_ends_by_allowing(machine):
    program = sandbox.seccomp_filter(machine)
    assert len(program) % 8 == 0 and len(program) < 4096  # what the kernel takes, and a pipe
    assert program[-8:] == b"\x06\0\0\0" + sandbox.ALLOW.to_bytes(4, "little")
