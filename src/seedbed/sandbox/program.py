"""Programs as they are: what they print and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from seedbed.sandbox.box import Box, watch
from seedbed.sandbox.config import Limits
from seedbed.sandbox.kinds import boxes
from seedbed.sandbox.verdict import Verdict

T = TypeVar("T")


def run(
    program: str,
    limits: Limits | None = None,
    *,
    files: Mapping[str, bytes] | None = None,
    arguments: Sequence[str] = (),
    stdin: bytes = b"",
) -> Verdict:
    """Runs a Python program in a box of its own. It passes if it ends with exit code 0, which is for it to say: what
    matters must be read from its stdout, or asked by `check`.

    `files` are in its folder by relative name; the program is main.py there. Raises SandboxError where no box can be
    made.
    """
    limits = limits or Limits()
    with boxes():
        box = Box(["main.py", *arguments], {**(files or {}), "main.py": encoded(program)}, limits, stdin)
        watch([box])
        return box.verdict()


def run_many(programs: Iterable[str], limits: Limits | None = None, *, workers: int = 2) -> list[Verdict]:
    """`run` of each, several at a time; the verdicts stand in the order of the programs."""
    return in_threads(lambda program: run(program, limits), programs, workers)


def in_threads(function: Callable[[T], Verdict], items: Iterable[T], workers: int) -> list[Verdict]:
    """A box is waited for, so threads are enough."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def encoded(program: str) -> bytes:
    """Text as a file; what no file can hold is for Python to refuse, as a SyntaxError of the program's."""
    return program.encode("utf-8", "surrogatepass")
