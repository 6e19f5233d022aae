"""Devices: named ones only, a number format by measurement, and parity that can be lost."""

import subprocess
import sys

import pytest
import torch

from mslearn import device
from mslearn.device import (
    Device,
    Parity,
    keep_freed_memory,
    matmul_peak,
    one_thread,
    parity,
    pick,
)


def test_a_device_there_is_not_is_refused_with_those_there_are(monkeypatch):
    with pytest.raises(ValueError, match=r"one of .*cpu on this machine, got 'abacus'"):
        pick("abacus")
    monkeypatch.setenv("MSLEARN_DEVICE", "abacus")
    with pytest.raises(ValueError, match="got 'abacus'; leave it out"):
        pick()


def test_the_environment_names_the_device_and_the_argument_outdoes_it(monkeypatch):
    monkeypatch.setenv("MSLEARN_DEVICE", "cpu")
    assert pick().name == "cpu"
    monkeypatch.setenv("MSLEARN_DEVICE", "abacus")
    assert pick("cpu").name == "cpu"


@pytest.mark.parametrize(("speedup", "dtype"), [(1.0, None), (3.0, torch.bfloat16)])
def test_a_measurement_decides_the_number_format(monkeypatch, speedup, dtype):
    monkeypatch.setattr(device, "bfloat16_speedup", lambda: speedup)
    assert pick("cpu").amp_dtype == dtype
    assert pick("cpu", amp=True).amp_dtype == torch.bfloat16
    assert pick("cpu", amp=False).amp_dtype is None


def test_the_measurement_is_a_median_of_pairs_made_once(monkeypatch):
    times = iter([1, *[2, 1] * 3, *[100, 1], *[2, 1] * 3])  # one pair disturbed
    monkeypatch.setattr(device, "_seconds", lambda work, times_=4: next(times))
    device.bfloat16_speedup.cache_clear()
    try:
        assert device.bfloat16_speedup() == 2
        assert device.bfloat16_speedup() == 2  # the numbers have run out: it was kept
    finally:
        device.bfloat16_speedup.cache_clear()


def test_autocast_multiplies_in_the_format_and_keeps_weights():
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with Device("cpu", "test", torch.bfloat16).autocast():
        assert layer(x).dtype == torch.bfloat16 and layer.weight.dtype == torch.float32
    with Device("cpu", "test", None).autocast():
        assert layer(x).dtype == torch.float32


def test_the_cpu_agrees_with_itself_exactly():
    found = parity(Device("cpu", "test", None))
    assert (found.loss, found.gradient) == (0, 0) and found.agrees


def test_bfloat16_agrees_within_its_own_tolerance():
    found = parity(Device("cpu", "test", torch.bfloat16))
    assert found.agrees and found.gradient > 1e-6 and "agrees" in str(found)


def test_a_faulty_device_is_reported(monkeypatch):
    class Faulty(Device):
        def to(self, tensor):
            return super().to(tensor) * 1.01 if tensor.is_floating_point() else tensor

    found = parity(Faulty("cpu", "test", None))
    assert not found.agrees and str(found).startswith("DISAGREES with the CPU")
    assert not Parity(float("nan"), 0.0, 1.0).agrees


def test_a_device_says_what_it_is():
    said = str(Device("cpu", "Some CPU", torch.bfloat16))
    assert said.startswith("Some CPU (cpu, ") and said.endswith("in bfloat16")


def test_the_peak_counts_two_operations_for_each_product(monkeypatch):
    monkeypatch.setattr(device, "_seconds", lambda work, times: 0.5)
    assert matmul_peak(Device("cpu", "test", None), size=64) == 2 * 64**3 / 0.5


def test_one_thread_gives_the_others_back():
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


FAULTS = """
import resource, torch
from mslearn.device import keep_freed_memory
kept = {keep} and keep_freed_memory()
assert kept == {keep}
for _ in range(20):
    torch.ones(12_000_000)  # 48 MB, more than the C library keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_freed_memory_is_kept_for_the_next_step():
    if not keep_freed_memory():
        pytest.skip("another C library than glibc, which is left as it is")
    faults = {}
    for keep in (True, False):
        command = [sys.executable, "-c", FAULTS.format(keep=keep)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[keep] = int(done.stdout)
    pages = 48_000_000 // 4096
    assert faults[False] - faults[True] > 10 * pages
