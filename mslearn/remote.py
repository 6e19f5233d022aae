"""A learner's answers in a worker, as the grader holds them: values, and stand-ins to call."""

import builtins
import contextlib
import functools
import importlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from subprocess import Popen
from time import monotonic
from typing import Any, NoReturn

from mslearn import sandbox, wire
from mslearn.grade import AnswerError

SHARED = ("torch", "math", "mslearn", "numpy", "builtins", "operator")  # known on both sides


class Gone(AnswerError):
    """The worker is no more: it ended, was stopped, or talked nonsense."""


@dataclass(frozen=True)
class Limits:
    """What one notebook may take: seconds of a cell or call and of all, MB beyond the libraries."""

    call: float = 20.0
    total: float = 180.0
    memory: int = 2048


def out_of_time(limits: Limits) -> str:
    """What is said of all that is left when a notebook's time is over."""
    return f"the time for one notebook ({limits.total:.0f} s) was used up"


class Remote:
    """One worker. Every request has its time; a worker that takes longer is stopped."""

    def __init__(self, process: Popen, limits: Limits, until: float) -> None:
        """`until`, on the monotonic clock, is when the time of the whole notebook ends."""
        self.process, self.limits, self.until = process, limits, until
        self.number, self.late, self.ended, self.in_place = 0, False, False, False
        self.callbacks: list[Callable] = []

    def start(self, setup: Sequence[str]) -> None:
        """Run the set's own cells in it and put the limits on."""
        seconds = int(self.limits.total) + 30
        limits = [self.limits.memory << 20, seconds, sandbox.BOX_BYTES]
        self.ask("start", seconds=self.limits.total, setup=list(setup), limits=limits)

    def run(self, source: str) -> None:
        """Run a cell; raises AnswerError with what it raised."""
        self.ask("run", source=source)

    def get(self, name: str, *, given: bool = False) -> Any:
        """What is called `name`, now or (`given`) before any of the learner's cells ran."""
        return self.value(*self.ask("get", name=name, given=given))

    def ask(
        self, what: str, blobs: Sequence[bytes] = (), *, seconds: float = 0, **more: Any
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request and return the reply; functions of ours that it calls run here."""
        if self.ended:
            raise Gone("the process of this answer had ended before")
        seconds = min(seconds or self.limits.call, self.until - monotonic())
        timer = threading.Timer(max(seconds, 0.0), self._too_late)
        timer.start()
        self.number += 1
        try:
            wire.write(self.process.stdin, {"id": self.number, "do": what, **more}, list(blobs))
            reply, received = wire.read(self.process.stdout)
            while "callback" in reply:
                self._serve(reply, received)
                reply, received = wire.read(self.process.stdout)
            if reply.get("id") != self.number:
                raise wire.WireError("a reply that nobody asked for")
        except (EOFError, OSError, ValueError, wire.WireError) as error:
            self._lose(error)
        finally:
            timer.cancel()
        if "error" in reply:
            raise raised(reply["error"])
        return reply, received

    def value(self, reply: dict[str, Any], blobs: list[bytes]) -> Any:
        """The value in a reply."""
        try:
            return wire.unpack(reply.get("value"), blobs, self._stand_in)
        except wire.WireError as error:
            self._lose(error)

    def pack(self, value: Any, blobs: list[bytes]) -> wire.Node:
        """A value of ours for the worker."""
        return wire.pack(value, blobs, self._reference)

    def close(self) -> None:
        """End the worker and whatever it has started."""
        if self.ended:  # its number may belong to another process by now
            return
        self.ended = True
        self._kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                pipe.close()

    def _kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (AttributeError, OSError):  # Windows, or no group of its own
            self.process.kill()

    def _too_late(self) -> None:
        self.late = True
        self._kill()

    def _lose(self, error: Exception) -> NoReturn:
        self.close()
        if self.late and monotonic() >= self.until:
            raise Gone(out_of_time(self.limits))
        if self.late:
            raise Gone(f"your code took longer than {self.limits.call:.0f} s and was stopped")
        if isinstance(error, wire.WireError):
            raise Gone(f"the process of your code sent {error}")
        raise Gone("the process of your code ended: it left, crashed or ran out of memory")

    def _serve(self, call: dict[str, Any], blobs: list[bytes]) -> None:
        out: list[bytes] = []
        try:
            function = self.callbacks[call["callback"]]
            args, kwargs = (
                wire.unpack(call[each], blobs, self._stand_in) for each in ("args", "kwargs")
            )
            reply = {"value": self.pack(function(*args, **kwargs), out)}
        except Exception as error:
            out, reply = [], {"error": f"{type(error).__name__}: {error}"[:300]}
        wire.write(self.process.stdin, reply, out)

    def _stand_in(self, node: list) -> "StandIn":
        kind, number, name = node[0], node[1], node[2]
        if kind != "object" or type(number) is not int or type(name) is not str:
            raise wire.WireError("a value that makes no sense")
        return StandIn(self, number, re.sub(r"\W", "", name)[:60] or "object")

    def _reference(self, value: Any) -> wire.Node:
        if type(value) is StandIn:
            return ["object", value._number]
        module, name = getattr(value, "__module__", None) or "", getattr(value, "__name__", "")
        if module.split(".")[0] in SHARED:
            with contextlib.suppress(ImportError):
                if getattr(importlib.import_module(module), name, None) is value:
                    return ["named", module, name]
        if not callable(value):
            raise wire.WireError(f"a rule cannot hand a {type(value).__name__} to an answer")
        self.callbacks.append(value)
        return ["callback", len(self.callbacks) - 1]


class StandIn:
    """An object in the worker that is no plain value: it can be called, read and gone through.

    Nothing else: a rule that takes it for a number or asks whether it is true gets an error, or
    an object that says yes to everything would pass.
    """

    __slots__ = ("_name", "_number", "_remote")

    def __init__(self, remote: Remote, number: int, name: str) -> None:
        self._remote, self._number, self._name = remote, number, name

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        blobs: list[bytes] = []
        packed = {"args": self._remote.pack(list(args), blobs)}
        packed["kwargs"] = self._remote.pack(kwargs, blobs)
        packed["in_place"] = self._remote.in_place
        reply, received = self._remote.ask("call", blobs, object=self._number, **packed)
        if self._remote.in_place and "left" in reply:
            left = self._remote.value({"value": reply["left"]}, received)
            wire.carry_over([list(args), kwargs], left)
        return self._remote.value(reply, received)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._remote.value(*self._remote.ask("attribute", object=self._number, name=name))

    def __iter__(self) -> Iterator[Any]:
        number = self._remote.value(*self._remote.ask("iterate", object=self._number))
        while True:
            reply, received = self._remote.ask("next", object=number)
            if reply.get("end"):
                return
            yield self._remote.value(reply, received)

    def beside(self, function: Callable) -> Callable:
        """See `grade.beside`: the worker has the function from the set's own cells."""
        there = self._remote.get(function.__name__, given=True)
        return lambda *args, **kwargs: there(self, *args, **kwargs)

    def _refuse(self, *args: Any) -> NoReturn:
        raise AnswerError(
            f"your code gave a {self._name} where numbers, text, lists or tensors are expected"
        )

    __bool__ = __eq__ = __ne__ = __lt__ = __gt__ = __len__ = __getitem__ = __float__ = _refuse
    __array__ = __hash__ = _refuse


def raised(error: Any) -> AnswerError:
    """What a worker says was raised; a rule may catch it as Python's own error of that name."""
    match error:
        case ["", str(text)]:
            return AnswerError(f"what your code gave cannot be compared: {text[:500]}")
        case [str(name), str(text)]:
            return _kind(name)(f"your code raised {name[:100]}: {text[:500]}")
    return AnswerError("your code raised an error that says nothing")


@functools.cache
def _kind(name: str) -> type[AnswerError]:
    own = getattr(builtins, name, None) if name.isidentifier() else None
    if isinstance(own, type) and issubclass(own, Exception):
        return type(name, (AnswerError, own), {})
    return AnswerError
