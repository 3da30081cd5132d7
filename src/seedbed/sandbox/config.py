"""What a program in a box may use. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seedbed.configuration import at_least, positive, whole

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use before it is ended."""

    seconds: float = 10.0
    """By the clock, counted from when its box is ready."""

    cpu_seconds: int = 10
    """Of computing, for each of its processes."""

    memory_mb: int = 512
    """MiB of address space of each process, and of memory that all of them hold together."""

    processes: int = 16
    """Processes and threads at a time, itself among them."""

    disk_mb: int = 64
    """MiB that its files take together, in memory: nothing of them reaches a disk."""

    files: int = 1024
    """Files and folders that it may have."""

    open_files: int = 128
    """Files, pipes and the like that a process holds open."""

    output_kb: int = 1024
    """KiB that it may print, on stdout and stderr together."""

    def __post_init__(self) -> None:
        positive(self, "seconds")
        names = ("cpu_seconds", "memory_mb", "processes", "disk_mb", "files", "open_files", "output_kb")
        whole(self, *names)
        at_least(self, 1, *names)
        at_least(self, 16, "files", "open_files")  # fewer do not let Python begin
        at_least(self, 64, "memory_mb")


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Runs a Python program in a box: no network, no files but its own, limits; prints what it printed and the
    verdict. Ends with exit code 0 when it passed, else with 1."""

    file: Path
    """The program."""

    tests: Path | None = None
    """Python that tests it, calling its functions by name, and that the program cannot see. Left out: the program
    passes if it ends with exit code 0."""

    limits: Limits = field(default_factory=Limits)
    """What it may use before it is ended."""
