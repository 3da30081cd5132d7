"""The one reader of the hardware: which devices there are, how fast at best, how much memory there is and is in use.

torch and psutil come inside the functions that need them: `seedbed doctor` also reads a machine that has no torch.
"""

from __future__ import annotations

import contextlib
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

    from seedbed import onednn

    # Not random: drawing numbers would move the person's generator.
    a, b = (torch.linspace(-1, 1, size * size, device=device).view(size, size) for _ in range(2))
    best = float("inf")
    kinds = (torch.mm, onednn.linear) if onednn.AVAILABLE and device.type == "cpu" else (torch.mm,)
    for multiply in 12 * kinds:
        synchronise(device)
        start = time.perf_counter()
        multiply(a, b)
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


# In use --------------------------------------------------------------------------------------------------------------


def process_usage() -> dict[str, float]:
    """What has been used so far: seconds of processor, bytes read from and written to disk by this process, bytes that
    this machine received and sent. What the system does not tell is left out."""
    import psutil

    process = psutil.Process()
    times = process.cpu_times()
    found = {"cpu_seconds": float(times.user + times.system)}
    if hasattr(process, "io_counters"):  # not on a Mac
        disk = process.io_counters()
        found |= {"disk_read": float(disk.read_bytes), "disk_written": float(disk.write_bytes)}
    if (network := psutil.net_io_counters()) is not None:
        found |= {"network_received": float(network.bytes_recv), "network_sent": float(network.bytes_sent)}
    return found


def device_memory_mb(device: torch.device) -> dict[str, float]:
    """Largest memory that tensors have taken on a device of its own, in MB of 10⁶ bytes; nothing of a CPU."""
    import torch

    if device.type not in ("cuda", "xpu"):
        return {}
    return {"peak_device_mb": torch.get_device_module(device).max_memory_allocated(device) / 1e6}


def gpu_state(device: torch.device) -> dict[str, float]:
    """Watts, degrees Celsius and percent of time in use of a GPU, as far as its driver tells (for NVIDIA through the
    package nvidia-ml-py)."""
    import torch

    if device.type != "cuda":
        return {}
    readers = {
        "gpu_watts": lambda: torch.cuda.power_draw(device) / 1000,
        "gpu_celsius": lambda: torch.cuda.temperature(device),
        "gpu_percent": lambda: torch.cuda.utilization(device),
    }
    found: dict[str, float] = {}
    for name, read in readers.items():
        # The package or the driver is missing, or the card has no such sensor: each tells it in a class of its own.
        with contextlib.suppress(Exception):
            found[name] = float(read())
    return found


class EnergyCounter:
    """Energy that the processors have used since this object was made, in joules, from RAPL, Intel's and AMD's running
    average power limit. Linux lets only root read it, unless told otherwise."""

    def __init__(self, folder: Path = Path("/sys/class/powercap")):
        # intel-rapl:0 is a processor; intel-rapl:0:0 a part of it, which is counted with it.
        self.processors = [path for path in sorted(folder.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self.joules = 0.0
        self.last = self._counters()

    def read(self) -> float | None:
        """None when this machine does not tell."""
        now = self._counters()
        if self.last is None or now is None:
            return None
        for (before, _), (after, largest) in zip(self.last, now, strict=True):
            step = after - before if after >= before else after + largest - before  # it begins at nought again
            self.joules += step / 1e6
        self.last = now
        return self.joules

    def _counters(self) -> list[tuple[int, int]] | None:
        """Microjoules, and how many make a whole round, of each processor."""
        try:
            files = ("energy_uj", "max_energy_range_uj")
            found = [tuple(int((path / name).read_text()) for name in files) for path in self.processors]
        except (OSError, ValueError):
            return None
        return [(count, largest) for count, largest in found] or None
