"""Which processor to train on, in which number format, and whether it can be trusted."""

import contextlib
import ctypes
import functools
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class Device:
    """A processor and the number format for matrix products on it.

    `name` is torch's ("cpu", "cuda", "mps"), `label` what a person calls it, `amp_dtype` the
    format of autocast or None for plain float32.
    """

    name: str
    label: str
    amp_dtype: torch.dtype | None

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.name)

    def autocast(self, keep_casts: bool = True) -> contextlib.AbstractContextManager:
        """Matrix products inside run in `amp_dtype`; weights and sums stay in float32.

        All threads share the weights' casts that PyTorch keeps until the end. While another thread
        may change the weights, do not `keep_casts`.
        """
        if self.amp_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.name, dtype=self.amp_dtype, cache_enabled=keep_casts)

    def to(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on this device. From pinned memory it overlaps with what the GPU is doing."""
        if self.name == "cuda" and not tensor.is_cuda:
            return tensor.pin_memory().to("cuda", non_blocking=True)
        return tensor.to(self.name)

    def synchronize(self) -> None:
        """Wait until the device has done all it was told; a clock needs this, a step does not."""
        if self.name == "cuda":
            torch.cuda.synchronize()
        elif self.name == "mps":
            torch.mps.synchronize()

    def __str__(self) -> str:
        matrices = str(self.amp_dtype or torch.float32).removeprefix("torch.")
        n = torch.get_num_threads()
        threads = f", {n} thread{'s' * (n > 1)}" if self.name == "cpu" else ""
        return f"{self.label} ({self.name}{threads}), matrix products in {matrices}"


def pick(name: str | None = None, amp: bool | None = None) -> Device:
    """The best device here, or the one named; `MSLEARN_DEVICE` names one for a whole session.

    `amp` forces reduced precision on or off; None lets a measurement decide. Raises ValueError
    for a device this machine does not have.
    """
    name = name or os.environ.get("MSLEARN_DEVICE") or _available()[0]
    if name not in _available():
        raise ValueError(
            f"device must be one of {', '.join(_available())} on this machine, got {name!r}; "
            "leave it out to have the fastest one picked"
        )
    if amp is None:
        amp = name == "cuda" or (name == "cpu" and bfloat16_speedup() > 1.15)
    dtype = torch.bfloat16 if amp else None
    if amp and name == "cuda" and not torch.cuda.is_bf16_supported():
        dtype = None  # float16 would need a loss scaler for the sake of cards before 2020
    return Device(name, _label(name), dtype)


def _available() -> list[str]:
    """Device names here, fastest first."""
    names = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def _label(name: str) -> str:
    if name == "cuda":
        return torch.cuda.get_device_name()
    if name == "mps":
        return "Apple GPU"
    with contextlib.suppress(OSError):  # /proc is Linux's own; elsewhere ask the platform
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@functools.cache
def bfloat16_speedup() -> float:
    """How many times faster a bfloat16 matrix product is than a float32 one on this CPU.

    A CPU may accept bfloat16 and emulate it slowly, so its speed is measured rather than its
    presence looked up: seven pairs of products in turn, the median of the ratios. Takes about
    0.1 s, once per process.
    """
    full = torch.randn(512, 512)
    half = full.bfloat16()
    _seconds(lambda: half @ half)  # the first product also builds its kernel
    ratios = [_seconds(lambda: full @ full) / _seconds(lambda: half @ half) for _ in range(7)]
    return sorted(ratios)[3]


def _seconds(work: Callable[[], object], times: int = 4) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def matmul_peak(device: Device, size: int = 1024, runs: int = 7) -> float:
    """The largest rate of matrix products measured on `device`, in FLOP/s, in its own format."""
    dtype = device.amp_dtype or torch.float32
    left = torch.randn(size, size, device=device.torch_device, dtype=dtype)

    def product() -> None:
        left @ left
        device.synchronize()

    product()
    return 2 * size**3 / min(_seconds(product, 1) for _ in range(runs))


@dataclass(frozen=True)
class Parity:
    """How far a device's loss and gradients are from the CPU's, relative to their size."""

    loss: float
    gradient: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.loss <= self.tolerance and self.gradient <= self.tolerance

    def __str__(self) -> str:
        verdict = "agrees with the CPU" if self.agrees else "DISAGREES with the CPU"
        return f"{verdict}: loss {self.loss:.1e}, gradient {self.gradient:.1e} (relative)"


def parity(device: Device) -> Parity:
    """Run one small training step on `device` and on the CPU in float32 and compare them.

    A driver or kernel at fault shows here before it shows as a curve nobody can explain. The
    tolerance is wider with autocast: bfloat16 keeps 8 bits of each factor.
    """
    reference = _small_step(Device("cpu", "reference", None))
    ours = _small_step(device)
    distances = [float((a - b).norm() / b.norm()) for a, b in zip(ours, reference, strict=True)]
    tolerance = 1e-4 if device.amp_dtype is None else 3e-2
    return Parity(distances[0], max(distances[1:]), tolerance)


def _small_step(device: Device) -> list[torch.Tensor]:
    """Loss and gradients of a two-layer network on fixed numbers, back on the CPU in float64."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 32))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.1, generator=generator)
    inputs = torch.randn(16, 64, generator=generator)
    targets = torch.randint(32, (16,), generator=generator)
    model.to(device.torch_device)
    with device.autocast():
        logits = model(device.to(inputs))
    loss = nn.functional.cross_entropy(logits.float(), device.to(targets))
    loss.backward()
    return [t.detach().cpu().double() for t in (loss, *(p.grad for p in model.parameters()))]


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep the memory of a training step for the next; False where it cannot.

    glibc gives large pieces back to the system when they are freed, and each step then pays for
    having every page handed out and zeroed anew: on two threads up to a third of its time. The
    process stays as large as it ever was. Source: glibc's manual, "Malloc Tunable Parameters".
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not Linux, or a C library of another kind
        return False
    return bool(set_option(trim_threshold, 2**31 - 1) and set_option(mmap_threshold, 2**30))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """What this thread computes inside, it computes alone; it gets its helpers back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
