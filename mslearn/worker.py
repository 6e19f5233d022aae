"""The side that runs a learner's answers: a process of its own, in a sandbox where there is one.

It is started with nothing but two pipes. The grader sends cells to run, names to look up and
functions to call; this side answers with values. Nothing that happens here is trusted: whatever
an answer does to this process, the grader gets values and compares them with its own.
"""

import builtins
import importlib
import os
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

from mslearn import sandbox, wire

QUIET = ("check", "progress", "reference", "predict", "reveal", "display")
DROPPED = re.compile(r"^\s*[%!].*$", re.M)


def main() -> None:
    """Serve the grader over standard input and output until it hangs up."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    torch.set_num_threads(1)
    worker = Worker(source, sink)
    try:
        worker.serve()
    except EOFError:
        os._exit(0)


def confine(memory: int, seconds: int, file: int) -> None:
    """Limit this process: bytes of memory beyond what it has, CPU seconds, bytes of a file."""
    sandbox.limit_memory(memory)
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {"RLIMIT_CPU": seconds, "RLIMIT_FSIZE": file, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 256}
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))


class Worker:
    """The learner's namespace, and the objects in it that the grader has numbers for."""

    def __init__(self, source: Any, sink: Any) -> None:
        self.source, self.sink = source, sink
        self.objects: list[Any] = []
        self.given: dict[str, Any] = {}
        self.main = types.ModuleType("__main__")
        self.number = 0

    def serve(self) -> None:
        """Answer one request after the other."""
        while True:
            request, blobs = wire.read(self.source)
            self.answer(request, blobs)

    def answer(self, request: dict[str, Any], blobs: list[bytes]) -> None:
        """Do what a request asks and send what came of it, be it an error."""
        out: list[bytes] = []
        try:
            reply = getattr(self, f"do_{request['do']}")(request, blobs, out)
        except BaseException as error:  # SystemExit and the like are a learner's errors here
            out, reply = [], {"error": _said(error)}
        try:
            wire.write(self.sink, {"id": request["id"], **reply}, out)
        except (wire.WireError, ValueError) as error:
            wire.write(self.sink, {"id": request["id"], "error": _said(error)}, [])

    def do_start(self, request: dict, blobs: list, out: list) -> dict:
        """Make the namespace, run the set's own cells in it, then take what limits say."""
        sys.modules["__main__"] = self.main
        for module in map(importlib.import_module, ("mslearn.grade", "mslearn.check")):
            for name in set(QUIET) & vars(module).keys():
                setattr(module, name, _quiet)
        builtins.display = _quiet
        for source in request["setup"]:
            self.run(source)
        self.given = dict(vars(self.main))
        confine(*request["limits"])
        return {}

    def do_run(self, request: dict, blobs: list, out: list) -> dict:
        """Run one of the learner's cells."""
        self.run(request["source"])
        return {}

    def run(self, source: str) -> None:
        """Run a cell; where it is no Python, without its lines of `%` and `!`."""
        self.number += 1
        name = f"<cell {self.number}>"
        try:
            code = compile(source, name, "exec")
        except SyntaxError:
            code = compile(DROPPED.sub("", source), name, "exec")
        exec(code, vars(self.main))

    def do_get(self, request: dict, blobs: list, out: list) -> dict:
        """Look a name up."""
        names = self.given if request["given"] else vars(self.main)
        if request["name"] not in names:
            raise NameError(f"nothing is called {request['name']}")
        return {"value": self.pack(names[request["name"]], out)}

    def do_call(self, request: dict, blobs: list, out: list) -> dict:
        """Call an object; with `in_place`, say also what the call has left of its arguments."""
        function = self.objects[request["object"]]
        args, kwargs = self.unpack(request["args"], blobs), self.unpack(request["kwargs"], blobs)
        value = self.pack(function(*args, **kwargs), out)
        if not request["in_place"]:
            return {"value": value}
        return {"value": value, "left": self.pack([args, kwargs], out)}

    def do_attribute(self, request: dict, blobs: list, out: list) -> dict:
        """Read an attribute of an object."""
        return {"value": self.pack(getattr(self.objects[request["object"]], request["name"]), out)}

    def do_iterate(self, request: dict, blobs: list, out: list) -> dict:
        """Begin to go through an object."""
        self.objects.append(iter(self.objects[request["object"]]))
        return {"value": len(self.objects) - 1}

    def do_next(self, request: dict, blobs: list, out: list) -> dict:
        """The next value of what is gone through."""
        try:
            return {"value": self.pack(next(self.objects[request["object"]]), out)}
        except StopIteration:
            return {"end": True}

    def pack(self, value: Any, out: list[bytes]) -> wire.Node:
        return wire.pack(value, out, self.stand_in)

    def stand_in(self, value: Any) -> wire.Node:
        """A number for what is not plain, and what it is, for messages."""
        self.objects.append(value)
        return ["object", len(self.objects) - 1, type(value).__name__, callable(value)]

    def unpack(self, node: wire.Node, blobs: list[bytes]) -> Any:
        return wire.unpack(node, blobs, self.meant)

    def meant(self, node: list) -> Any:
        """What the grader means by a number or a name."""
        if node[0] == "object":
            return self.objects[node[1]]
        if node[0] == "named":
            return getattr(importlib.import_module(node[1]), node[2])
        return self.callback(node[1])

    def callback(self, number: int) -> Callable:
        """A function of the grader's, as the answer that it was given to sees it."""

        def function(*args: Any, **kwargs: Any) -> Any:
            out: list[bytes] = []
            message = {"callback": number, "args": self.pack(args, out)}
            wire.write(self.sink, {**message, "kwargs": self.pack(kwargs, out)}, out)
            reply, blobs = wire.read(self.source)
            if "error" in reply:
                raise RuntimeError(reply["error"])
            return self.unpack(reply["value"], blobs)

        return function


def _quiet(*args: Any, **kwargs: Any) -> None:
    """Stands for what a notebook shows or checks: nobody looks here."""


def _said(error: BaseException) -> list[str]:
    """An error's type and first line, however it was made."""
    if isinstance(error, wire.WireError):
        return ["", str(error)]
    try:
        first = (str(error).strip() or "no message").splitlines()[0]
        return [str(type(error).__name__)[:100], first[:500]]
    except BaseException:  # its own __str__ fails
        return ["Exception", "no message"]


if __name__ == "__main__":
    main()
