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

STEPS, SAVE_EVERY, KILLS = 320, 8, 20
FORK = None if sys.platform == "win32" else multiprocessing.get_context("fork")


def work(folder: Path, made) -> None:
    """What a training process does: go on from what is there, to the end."""
    torch.set_num_threads(1)
    run = make_run(folder, save_every=SAVE_EVERY)
    run.resume()
    for _ in run.train(STEPS):
        made.value += 1
    run.save()


def start(folder: Path):
    """A training process, and the number of steps it has made."""
    made = FORK.RawValue("i", 0)  # it has no lock, which a killed process would keep for ever
    process = FORK.Process(target=work, args=(folder, made))
    process.start()
    return process, made


def until(true: Callable[[], bool], process) -> None:
    """Wait for what the process does; the limit is for a fault only."""
    limit = time.monotonic() + 60
    while not true():
        assert process.is_alive() and time.monotonic() < limit, "waited in vain"
        time.sleep(0.001)


def kill_at_random(folder: Path, moments: np.random.Generator, in_a_save: bool) -> bool:
    """Train a few steps and kill; whether a save was cut in two.

    Counted in steps rather than in seconds, so that it means the same on any machine.
    """
    process, made = start(folder)
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
        cut.append(kill_at_random(tmp_path, moments, in_a_save=kill % 2 == 0))
        reached += [int(path.name[-8:]) for path in Checkpoints(tmp_path).list()[:1]]
    assert any(cut) and not all(cut)  # both inside a save and outside of one
    assert reached == sorted(reached) and len(set(reached)) > 3 and reached[-1] < STEPS

    last, _ = start(tmp_path)
    last.join()
    assert last.exitcode == 0
    torch.set_num_threads(1)
    undisturbed, resumed = finish(make_run(), STEPS), make_run(tmp_path)
    assert resumed.resume() and resumed.step == STEPS
    assert same_weights(resumed.model, undisturbed.model)
    assert [r.loss for r in resumed.log] == [r.loss for r in undisturbed.log]
    assert not list(tmp_path.glob(".tmp-*"))
