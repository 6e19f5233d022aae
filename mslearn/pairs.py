"""Two things timed in turn, so that whatever else the machine does slows both alike."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from mslearn.device import Device


@dataclass(frozen=True)
class Paired:
    """Seconds of two things measured in turn, pair by pair."""

    first: list[float]
    second: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times faster the second was, pair by pair."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest ratio."""
        return min(self.ratios), max(self.ratios)


def in_turn(first: Callable[[], float], second: Callable[[], float], pairs: int) -> Paired:
    """Ask both for their seconds `pairs` times, who goes first changing from pair to pair.

    Each is asked once before, uncounted.
    """
    if pairs < 1:
        raise ValueError(f"a median needs at least 1 pair, got {pairs}; pass for example 7")
    seconds: tuple[list[float], list[float]] = ([], [])
    first(), second()
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            seconds[which].append((first, second)[which]())
    return Paired(*seconds)


def measure_pairs(
    first: Callable[[], object],
    second: Callable[[], object],
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Paired:
    """Time both in turn in this process, by the clock."""
    return in_turn(lambda: seconds_of(first, clock), lambda: seconds_of(second, clock), pairs)


def seconds_of(work: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def clock_of(device: Device, threads: int | None = None) -> tuple[Callable[[], float], str]:
    """The clock for a device, and its name.

    On one thread of a CPU it counts the processor's own time: that is the time on a quiet machine,
    whatever else runs. Several threads or another device need the time on the wall.
    """
    if device.name == "cpu" and (threads or torch.get_num_threads()) == 1:
        return time.process_time, "processor time"
    return time.perf_counter, "time on the wall"


class Worker:
    """A process of its own that makes some of its steps when asked and says how long they took.

    Each side then has its memory and its threads as a program of its own has them; while one
    works, the other waits. `steps(*arguments, device)` gives an iterator of steps and must be a
    function of a module. Use it in a `with` statement, which ends the process.
    """

    def __init__(
        self,
        steps: Callable[..., Iterator],
        *arguments: object,
        device: Device,
        count: int = 1,
        threads: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        threads = threads or torch.get_num_threads()
        clock = clock or clock_of(device, threads)[0]
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        asked = (theirs, steps, (*arguments, device), count, threads, clock)
        self._process = context.Process(target=_serve, args=asked, daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self) -> float:
        """Seconds of the next `count` steps."""
        self._pipe.send(True)
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(
                f"a process that was being measured ended with code {code}; see what it wrote "
                "above, free some memory and measure again"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()  # it reads the end of its orders, and ends
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def _serve(pipe, steps, arguments, count: int, threads: int, clock) -> None:
    """The life of a worker: for each order `count` steps, until nobody is there to give one."""
    torch.set_num_threads(threads)
    *_, device = arguments
    try:
        iterator = steps(*arguments)

        def work() -> None:
            for _ in range(count):
                next(iterator)
            device.synchronize()

        while pipe.recv():
            pipe.send(seconds_of(work, clock))
    except EOFError:
        return
    except Exception as error:
        pipe.send(error)


def spin() -> None:
    """A busy neighbour: keeps one core at work until its process is ended."""
    while True:
        pass
