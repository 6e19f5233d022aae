"""Notebooks that cheat or break things, and honest ones beside them: for tests and for timing.

Each hostile notebook answers the set's first exercise honestly, so that is what it has earned.
"""

import json
from collections.abc import Mapping
from typing import Any

from mslearn.exercises import ExerciseSet
from mslearn.home import course

ATTACKS = {
    "checks overwritten": """
def check(key, answer): print(key, "full marks")
import mslearn.grade, mslearn.exercises, mslearn.remote
mslearn.grade.judge = mslearn.grade.mark = lambda *a, **k: ""
mslearn.exercises.Rule.test = lambda *a: None
check("all", None)
""",
    "libraries patched": """
import builtins, torch, numpy
for module, names in ((torch, "allclose equal isclose"), (numpy, "allclose array_equal isclose")):
    for name in names.split(): setattr(module, name, lambda *a, **k: True)
torch.Tensor.__eq__ = torch.Tensor.allclose = lambda *a, **k: torch.ones(1, dtype=torch.bool)
builtins.abs = builtins.float = lambda *a: 0.0
builtins.isinstance = builtins.all = builtins.any = lambda *a: True
""",
    "tensors that agree with everything": """
class Yes(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, types, args=(), kwargs=None): return True
    def __eq__(self, other): return True
    def all(self): return True
    shape = property(lambda self: Same())
class Same:
    def __eq__(self, other): return True
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
    def __bool__(self): return True
    def __float__(self): return 0.0
    def __iter__(self): return iter([self] * 9)
def yes(*a, **k): return torch.ones(3).as_subclass(Yes)
answers = [yes, Same(), Same]
{assign}
""",
    "the grader's own names": """
import gc, sys, types
for each in gc.get_objects():
    if type(each).__name__ in ("Worker", "Remote", "Case", "Answers"):
        for name in ("judge", "mark", "value", "unpack", "answer"):
            try: setattr(type(each), name, lambda *a, **k: "")
            except Exception: pass
frame = sys._getframe()
while frame:
    frame.f_globals["judge"] = frame.f_globals["mark"] = lambda *a, **k: ""
    frame = frame.f_back
""",
    "solutions from the disk": """
import glob, json, os
from pathlib import Path
places = ["/**/solutions/*.ipynb", "/proc/*/cwd/**/*.ipynb"]
places += [f"/proc/*/{link}/**/solutions/*.ipynb" for link in ("root", "cwd")]
for place in places:
    for path in glob.iglob(place, recursive=True) if "proc" in place else glob.iglob(place):
        for cell in json.loads(Path(path).read_text())["cells"]:
            if "answer" in cell["metadata"].get("tags", []): exec("".join(cell["source"]))
import mslearn
root = Path(mslearn.__file__).parent.parent
for path in root.glob("solutions/*.ipynb"):
    for cell in json.loads(path.read_text())["cells"]:
        if "answer" in cell["metadata"].get("tags", []): exec("".join(cell["source"]))
from mslearn.exercises import load
for exercise in load("{chapter}").values(): globals()[exercise.name] = exercise.reference
""",
    "leaves": "import os\nos._exit(0)",
    "leaves when called": """
import os, sys
answers = [lambda *a, **k: os._exit(0), lambda *a, **k: sys.exit(0)]
{assign}
""",
    "never ends": "while True:\n    pass",
    "cannot be interrupted": """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True:
    try: time.sleep(1)
    except BaseException: pass
""",
    "processes without end": """
import os, subprocess, threading
def many():
    while True: os.fork()
def shell(): subprocess.Popen(["/bin/sh", "-c", "sleep 99"])
for start in (many, shell, lambda: os.posix_spawn("/bin/sh", ["sh"], {})):
    try: start()
    except OSError: pass
threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(10**5)]
for each in threads: each.start()
""",
    "ten gigabytes": """
hoard = []
for _ in range(100): hoard.append(bytearray(100 << 20))
""",
    "ten gigabytes when called": """
answers = [lambda *a, **k: torch.ones(10 * 2**28), lambda *a, **k: bytes(10 * 2**30)]
{assign}
""",
    "a gigabyte of output": """
import os
line = "x" * (1 << 20)
for _ in range(1024): print(line)
answers = [lambda *a, **k: "x" * (1 << 28), lambda *a, **k: torch.ones(1 << 28)]
{assign}
for fd in range(3, 64):
    try:
        for _ in range(1024): os.write(fd, line.encode())
    except OSError: pass
""",
    "forged replies": """
import json, os, struct
def reply(number, value):
    text = json.dumps({"id": number, "value": value, "marks": 99, "reason": ""}).encode()
    return struct.pack("<III", len(text), 0, 0) + text
for fd in range(3, 64):
    try:
        for number in range(200): os.write(fd, reply(number, None))
    except OSError: pass
""",
    "the network": """
import socket, urllib.request
for address in (("1.1.1.1", 80), ("127.0.0.1", 22), ("169.254.169.254", 80)):
    socket.create_connection(address, timeout=2)
urllib.request.urlopen("http://example.org", timeout=2)
""",
    "files of others": """
import os
for folder in ("/", "/etc", "/tmp", "/var", os.path.expanduser("~root"), "/box", "/dev/shm"):
    for path in (f"{folder}/mslearn-was-here", f"{folder}/../mslearn-was-here"):
        try: open(path, "w").write("x")
        except OSError: pass
for number in range(10**4):
    try: open(f"/box/{number}", "wb").write(bytes(32 << 20))
    except OSError: break
""",
    "arguments changed": """
def spoil(*args, **kwargs):
    for each in args:
        if isinstance(each, torch.Tensor): each.zero_()
        if isinstance(each, (list, dict)): each.clear()
    return args[0] if args else None
answers = [spoil]
{assign}
""",
    "values that burst": """
class Loud(Exception):
    def __str__(self): return "<script>alert(1)</script>" * 10**6
deep = []
for _ in range(10**5): deep = [deep]
def burst(*a, **k): raise Loud()
answers = [10**5000, 10**18, deep, float("nan"), "\\ud800\\u202e<script>", burst]
answers += [lambda *a, **k: deep, lambda *a, **k: (10**15, 10**15), lambda *a, **k: answers]
{assign}
""",
}


def handed_in(
    exercises: ExerciseSet, answers: Mapping[str, str], extra: str = ""
) -> dict[str, Any]:
    """The set's notebook with these answers, by exercise, and a cell of the learner's own before
    the checks that follow the last answer."""
    path = next((course() / "exercises").glob(f"{exercises.chapter}_*.ipynb"))
    notebook = json.loads(path.read_text("utf-8"))
    stubs = {each.stub_source: each.key for each in exercises.exercises.values()}
    last = 0
    for number, cell in enumerate(notebook["cells"]):
        key = stubs.get("".join(cell["source"]))
        if cell["cell_type"] == "code" and key:
            cell["source"], last = answers.get(key, cell["source"]), number
    if extra:
        cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        notebook["cells"].insert(last + 1, {**cell, "source": extra})
    return notebook


def honest(exercises: ExerciseSet, number: int) -> tuple[dict[str, Any], int]:
    """The notebook of an honest learner, and the marks it deserves: who is `number` has answered
    what the number's bits say."""
    own = [e for n, e in enumerate(exercises.exercises.values()) if (number >> n) & 1]
    notebook = handed_in(exercises, {each.key: each.source for each in own})
    return notebook, sum(each.marks for each in own)


def hostile(exercises: ExerciseSet, attack: str) -> tuple[dict[str, Any], int]:
    """A notebook with one of the `ATTACKS`, and the marks that it has earned."""
    first, *others = exercises.exercises.values()
    code = ATTACKS[attack].replace("{chapter}", exercises.chapter)
    assign = (f"{each.name} = answers[{n} % len(answers)]" for n, each in enumerate(others))
    code = code.replace("{assign}", "\n".join(assign))
    return handed_in(exercises, {first.key: first.source}, code), first.marks
