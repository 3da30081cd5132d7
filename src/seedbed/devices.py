"""The one reader of the hardware: which devices there are, how fast at best, how much memory there is and is in use.

torch and psutil come inside the functions that need them: `seedbed doctor` also reads a machine that has no torch.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedbed.errors import ConfigError

if TYPE_CHECKING:
    import torch

CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "sve")
"""Instructions that matter for matrices."""


def choose_device(wanted: str) -> torch.device:
    """The device called "auto", "cuda" (also ROCm; "cuda:1" for the second), "mps", "xpu" or "cpu".

    Raises ConfigError when one is asked for by name and is not there.
    """
    import torch

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
    import torch

    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS demands it in this mode
    torch.use_deterministic_algorithms(wanted)
    # On by default in this mode, and costly: it guards against reading memory that was never written, which we do not.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (a module property)
    torch.backends.cudnn.benchmark = not wanted


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given, so that a clock tells the truth."""
    if device.type != "cpu":
        import torch

        torch.get_device_module(device).synchronize(device)


@functools.cache
def gemm_peak(device: torch.device, size: int = 1024) -> float:
    """Operations per second of the fastest of several fp32 products of square matrices: what 100% of this device is."""
    import torch

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
        import psutil

        return float(psutil.Process().memory_info()._asdict()["peak_wset"]) / 1e6
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_cpu() -> dict[str, Any]:
    """Name, cores this process may use, and the instructions that matter for matrices."""
    name, flags = platform.processor() or platform.machine(), ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        name, flags = fields.get("model name", name), fields.get("flags", fields.get("Features", ""))
    return {
        "name": name,
        "cores": count_cores(),
        "features": [feature for feature in CPU_FEATURES if feature in flags.split()],
    }


def describe_memory() -> dict[str, float]:
    """Memory of the machine, in GB; less where a control group allows less."""
    import psutil

    seen = psutil.virtual_memory()
    total, free = seen.total, seen.available
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = Path(path).read_text().strip() if Path(path).exists() else "max"
        if limit.isdigit():
            total, free = min(total, int(limit)), min(free, int(limit))
    return {"total_gb": round(total / 1e9, 1), "free_gb": round(free / 1e9, 1)}


def describe_torch() -> dict[str, Any]:
    """Version and threads of torch, and the library that multiplies its matrices on the CPU."""
    import torch

    blas = "mkl" if torch.backends.mkl.is_available() else "other"
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "blas": blas}


def describe_devices() -> list[dict[str, Any]]:
    """Every device that torch sees, the fastest kind first."""
    import torch

    found: list[dict[str, Any]] = []
    kind = "rocm" if torch.version.hip else "cuda"
    for index in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(index)
        found.append({"kind": kind, "name": seen.name, "memory_gb": round(seen.total_memory / 1e9, 1)})
    if torch.backends.mps.is_available():
        found.append({"kind": "mps", "name": "Apple GPU", "memory_gb": None})
    if torch.xpu.is_available():
        for index in range(torch.xpu.device_count()):
            xpu = torch.xpu.get_device_properties(index)
            found.append({"kind": "xpu", "name": xpu.name, "memory_gb": round(xpu.total_memory / 1e9, 1)})
    return [*found, {"kind": "cpu", "name": describe_cpu()["name"], "memory_gb": describe_memory()["total_gb"]}]


def describe_backends() -> list[str]:
    """What this torch has for processes that train together: gloo between CPUs, nccl between GPUs."""
    import torch.distributed as dist

    if not dist.is_available():
        return []
    there = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    return [name for name, is_there in there.items() if is_there]


def describe_choice() -> dict[str, Any]:
    """The device that `--device auto` takes, and what it does at best."""
    device = choose_device("auto")
    return {"auto": device.type, "gemm_gflops": round(gemm_peak(device) / 1e9)}
