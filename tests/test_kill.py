"""Killed without warning at twenty moments, resumed each time: not one bit is lost."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import finish, make_run, same_weights

from mslearn.checkpoint import Checkpoints
from mslearn.run import Run
from mslearn.schedules import constant
from mslearn.snapshots import Snapshots

STEPS, SAVE_EVERY, KILLS = 320, 8, 20
SCRIPT = [
    (10, "lr", 0.01),
    (30, "branch", ["b"]),
    (50, "rewind", 20),
    (70, "ratios", [1.0, 0.3]),
    (100, "switch", "main"),
    (90, "branch", ["c", 25]),
    (90, "lr", 0.002),
]
FORK = None if sys.platform == "win32" else multiprocessing.get_context("fork")


def make(folder: Path | None = None, **more) -> Run:
    """A run that learns to its end; a rate of 0 would hide what is lost."""
    return make_run(folder, SAVE_EVERY, schedule=constant(0.005), **more)


def make_driven(folder: Path) -> Run:
    """The same, its snapshots on the disk, driven by a script."""
    run = make(folder, snapshots=Snapshots(0.6, folder / "snapshots", every=6))
    run.resume()
    run.follow(SCRIPT)
    return run


def make_plain(folder: Path) -> Run:
    run = make(folder)
    run.resume()
    return run


def work(start: Callable[[Path], Run], folder: Path, made) -> None:
    """What a training process does: go on from what is there, to the end."""
    torch.set_num_threads(1)
    run = start(folder)
    for _ in run.train(STEPS):
        made.value += 1
    run.save()


def start(folder: Path, how: Callable[[Path], Run]):
    """A training process, and the number of steps it has made."""
    made = FORK.RawValue("i", 0)  # it has no lock, which a killed process would keep for ever
    process = FORK.Process(target=work, args=(how, folder, made))
    process.start()
    return process, made


def until(true: Callable[[], bool], process) -> None:
    """Wait for what the process does; the limit is for a fault only."""
    limit = time.monotonic() + 60
    while not true():
        assert process.is_alive() and time.monotonic() < limit, "waited in vain"
        time.sleep(0.001)


def kill_at_random(
    folder: Path, moments: np.random.Generator, in_a_save: bool, how: Callable[[Path], Run]
) -> bool:
    """Train a few steps and kill; whether a save was cut in two.

    Counted in steps rather than in seconds, so that it means the same on any machine.
    """
    process, made = start(folder, how)
    steps = moments.integers(1, 16)
    until(lambda: made.value >= steps, process)
    if in_a_save:
        until(lambda: any(folder.glob(f".tmp-*-{process.pid}")), process)
    else:
        time.sleep(moments.uniform(0, 0.005))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was faster than the killer"
    return any(folder.glob(f".tmp-*-{process.pid}"))


@pytest.mark.skipif(FORK is None, reason="Windows has no SIGKILL and cannot fork")
def test_twenty_kills_change_no_bit_of_the_final_weights(tmp_path):
    moments, cut, reached = np.random.default_rng(0), [], []
    for kill in range(KILLS):
        cut.append(kill_at_random(tmp_path, moments, in_a_save=kill % 2 == 0, how=make_plain))
        reached += [int(path.name[-8:]) for path in Checkpoints(tmp_path).list()[:1]]
    assert any(cut) and not all(cut)  # both inside a save and outside of one
    assert reached == sorted(reached) and len(set(reached)) > 3 and reached[-1] < STEPS

    last, _ = start(tmp_path, make_plain)
    last.join()
    assert last.exitcode == 0
    torch.set_num_threads(1)
    undisturbed, resumed = finish(make(), STEPS), make(tmp_path)
    assert resumed.resume() and resumed.step == STEPS
    assert same_weights(resumed.model, undisturbed.model)
    assert [r.loss for r in resumed.log] == [r.loss for r in undisturbed.log]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.skipif(FORK is None, reason="Windows has no SIGKILL and cannot fork")
def test_a_driven_run_killed_ten_times_is_still_what_its_events_say(tmp_path):
    """Where a rewind lands may differ, as snapshots in memory die with a process; the events say
    where it was, and a replay of them is the run, to the bit."""
    moments = np.random.default_rng(1)
    for kill in range(10):
        kill_at_random(tmp_path, moments, in_a_save=kill % 2 == 0, how=make_driven)
    last, _ = start(tmp_path, make_driven)
    last.join()
    assert last.exitcode == 0
    torch.set_num_threads(1)
    killed = make(tmp_path)
    assert killed.resume() and killed.step == STEPS
    assert [(event.step, event.name) for event in killed.events][:1] == [(10, "lr")]
    assert {"branch", "rewind", "ratios"} <= {event.name for event in killed.events}
    again = make().replay(killed.events, until=STEPS)
    assert again.events == killed.events and same_weights(again.model, killed.model)
    assert [r.loss for r in again.log] == [r.loss for r in killed.log]
