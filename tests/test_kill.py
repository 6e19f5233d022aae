"""Killed without warning at twenty moments, resumed each time: not one bit is lost."""

import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
from toys import finish, make_run, same_weights

from mslearn.checkpoint import Checkpoints

STEPS, SAVE_EVERY, KILLS = 240, 3, 20


def work(folder, ready) -> None:
    """What a training process does: go on from what is there, to the end."""
    torch.set_num_threads(1)
    run = make_run(folder, save_every=SAVE_EVERY)
    run.resume()
    ready.set()
    finish(run, STEPS)
    run.save()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and cannot fork")
def test_twenty_kills_change_no_bit_of_the_final_weights(tmp_path):
    fork = multiprocessing.get_context("fork")
    moments, killed_at = np.random.default_rng(0), []
    while len(killed_at) < KILLS:
        ready = fork.Event()
        process = fork.Process(target=work, args=(tmp_path, ready))
        process.start()
        assert ready.wait(60)
        time.sleep(moments.uniform(0.005, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        newest = Checkpoints(tmp_path).list()
        killed_at.append(int(newest[0].name[-8:]) if newest else 0)
        if process.exitcode != -signal.SIGKILL or killed_at[-1] == STEPS:
            break  # it was faster than the killer
    assert len(killed_at) == KILLS, f"only {len(killed_at)} kills before the end: {killed_at}"
    assert len(set(killed_at)) > 3  # between kills it came further

    last = fork.Process(target=work, args=(tmp_path, fork.Event()))
    last.start()
    last.join()
    assert last.exitcode == 0
    torch.set_num_threads(1)
    undisturbed, resumed = finish(make_run(), STEPS), make_run(tmp_path)
    assert resumed.resume() and resumed.step == STEPS
    assert same_weights(resumed.model, undisturbed.model)
    assert [r.loss for r in resumed.log] == [r.loss for r in undisturbed.log]
    assert not list(tmp_path.glob(".tmp-*"))
