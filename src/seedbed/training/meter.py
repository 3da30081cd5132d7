"""What a run uses, read now and then: time lost to waiting for data, processor, memory, disk, network, energy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from seedbed.data.batches.batch import Batch, BatchSource
from seedbed.devices import EnergyCounter, device_memory_mb, gpu_state, peak_memory_mb, process_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

B = TypeVar("B", bound=Batch)

UNKNOWN = "unknown"
"""Said of what this machine does not tell."""


class Meter:
    """Adds up what is used from its making on."""

    def __init__(self, device: torch.device):
        self.device = device
        self.energy = EnergyCounter()
        self.rows = 0
        self.waited = 0.0
        self.gpu_joules = 0.0
        """Power at each reading, times the seconds since the one before."""
        self.began = self.last = self._now()

    def batch(self, source: BatchSource[B], first: int, count: int) -> B:
        """A batch of a source, and note of how long it took."""
        start = time.perf_counter()
        batch = source.batch(first, count)
        self.waited += time.perf_counter() - start
        self.rows += count
        return batch

    def read(self) -> dict[str, float]:
        """Of the time since the last reading: rows a second, share of waiting, percent of one core, bytes a second,
        watts; and what memory holds now. What cannot be known is left out."""
        before, now = self.last, self._now()
        self.last = now
        seconds = max(now["seconds"] - before["seconds"], 1e-9)
        rates = {name: (now[name] - before[name]) / seconds for name in now.keys() & before.keys()}
        gpu = gpu_state(self.device)
        self.gpu_joules += gpu.get("gpu_watts", 0.0) * seconds
        found = {
            "samples_per_s": rates["rows"],
            "data_wait_share": rates["waited"],
            "cpu_percent": 100 * rates["cpu_seconds"],
            "peak_rss_mb": peak_memory_mb(),
            **device_memory_mb(self.device),
            **gpu,
        }
        found |= {f"{name}_per_s": rates[name] for name in BYTES if name in rates}
        if "joules" in rates:
            found["cpu_watts"] = rates["joules"]
        return dict(sorted(found.items()))

    def totals(self) -> dict[str, Any]:
        """Since the beginning."""
        now = self._now()
        used = {name: now[name] - self.began[name] for name in now.keys() & self.began.keys()}
        gpu = {"gpu_joules": round(self.gpu_joules, 1)} if self.gpu_joules else {}
        return {
            "data_wait_seconds": round(used["waited"], 3),
            "cpu_seconds": round(used["cpu_seconds"], 2),
            **{f"{name}_mb": round(used[name] / 1e6, 1) for name in BYTES if name in used},
            "cpu_joules": round(used["joules"], 1) if "joules" in used else UNKNOWN,
            **gpu,
        }

    def _now(self) -> Mapping[str, float]:
        counted = {"seconds": time.perf_counter(), "rows": float(self.rows), "waited": self.waited, **process_usage()}
        joules = self.energy.read()
        return counted if joules is None else {**counted, "joules": joules}


BYTES = ("disk_read", "disk_written", "network_received", "network_sent")
"""Counted in bytes: the disk by this process, the network by the whole machine."""
