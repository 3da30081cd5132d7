"""The one reader of the hardware: which device, how fast at best, how much memory is in use."""

from __future__ import annotations

import functools
import os
import time

import psutil
import torch

from seedbed.errors import ConfigError


def choose_device(wanted: str) -> torch.device:
    """The device called "auto", "cuda" (also ROCm; "cuda:1" for the second), "mps", "xpu" or "cpu".

    Raises ConfigError when one is asked for by name and is not there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        wanted = next(name for name, there in present.items() if there)
    if not present.get(wanted.partition(":")[0], False):
        there = [name for name, is_there in present.items() if is_there]
        raise ConfigError(f"device {wanted} was asked for, but this machine offers {', '.join(there)}")
    return torch.device(wanted)


def set_determinism(wanted: bool) -> None:
    """Whether torch may only use algorithms that give the same bits every time; one without is then an error."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS demands it in this mode
    torch.use_deterministic_algorithms(wanted)
    # On by default in this mode, and costly: it guards against reading memory that was never written, which we do not.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (a module property)
    torch.backends.cudnn.benchmark = not wanted


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given, so that a clock tells the truth."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


@functools.cache
def gemm_peak(device: torch.device, size: int = 1024) -> float:
    """Operations per second of the fastest of several fp32 products of square matrices: what 100% of this device is."""
    # Not random: drawing numbers here would move the generator that a run saves and resumes.
    a, b = (torch.linspace(-1, 1, size * size, device=device).view(size, size) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        synchronise(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def peak_memory_mb() -> float:
    """Largest resident memory of this process since it began, in MB of 10⁶ bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info()._asdict()["peak_wset"]) / 1e6
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
