"""How a program ended."""

from __future__ import annotations

import builtins
import os
import re
import signal
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "timeout", "memory", "output", "processes", "killed"]


@dataclass(frozen=True)
class Verdict:
    """How a program ended. Whatever it does, it can only earn itself another verdict than `passed`; when that is
    earned, docs/sandbox.md says."""

    outcome: Outcome
    """passed; failed: by an exception or an exit code; timeout, memory, output, processes: ended for using more than it
    may; killed: by a signal, such as SIGSEGV."""
    reason: str
    """The same in words."""
    stdout: bytes
    stderr: bytes
    """What it printed, up to the limit of output."""
    seconds: float
    """By the clock, from when its box was ready."""
    exception: str | None = None
    """Name of the class of the exception that it failed with."""
    exit_code: int | None = None
    """None where a signal ended it, or we did."""
    cpu_seconds: float | None = None
    """Of computing, of the processes that it waited for. None where we ended it."""
    peak_memory: int | None = None
    """Bytes, of its largest process."""

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


@dataclass(frozen=True)
class Ending:
    """What the first process of a box says of the program's end."""

    status: int
    """As wait(2) gives it."""
    cpu_seconds: float
    peak_memory: int


NAMED = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")


def exception_named(stderr: bytes) -> str | None:
    """The class of an uncaught exception: the first line at the margin after a traceback's last frame names it."""
    lines = stderr[-65_536:].decode("utf-8", "replace").splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    for line in lines[frames[-1] + 1 if frames else 0 :]:
        if (found := NAMED.match(line)) is not None:
            name = found[1].rpartition(".")[2]
            if frames or isinstance(getattr(builtins, name, None), type):  # a source that is no text has no frame
                return name
    return None


def judge_ending(ending: Ending | None, stderr: bytes, cpu_limit: int) -> tuple[Outcome, str, str | None, int | None]:
    """Outcome, reason, exception and exit code of a program that ended by itself, within what its box watches."""
    if ending is None:
        return "killed", "its box was ended from outside", None, None
    code = os.waitstatus_to_exitcode(ending.status)
    if code == 0:
        return "passed", "exit code 0", None, 0
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        spent = -code == signal.SIGXCPU or (-code == signal.SIGKILL and ending.cpu_seconds >= cpu_limit)
        return (
            ("timeout", f"more than {cpu_limit} s of computing", None, None) if spent else ("killed", name, None, None)
        )
    exception = exception_named(stderr) if code == 1 else None
    if exception == "MemoryError":
        return "memory", "MemoryError", exception, code
    return "failed", exception or f"exit code {code}", exception, code
