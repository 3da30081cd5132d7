"""Which box this machine has, and the refusal where it has none."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from seedbed.errors import SandboxError
from seedbed.sandbox import bubblewrap
from seedbed.sandbox.box import Box, BoxError, watch
from seedbed.sandbox.config import Limits
from seedbed.sandbox.syscalls import ARCHITECTURES

FIX = "On Debian and Ubuntu, apt-get install bubblewrap brings it."


@cache
def lacking() -> str | None:
    """Why no box can be made here, or None: tried out by making one, once."""
    if platform.system() != "Linux":
        return f"boxes are made of Linux's namespaces, and this is {platform.system()}"
    if platform.machine() not in ARCHITECTURES:
        return f"the system calls of {platform.machine()} are not known"
    if bubblewrap.find() is None:
        return "bubblewrap is not installed"
    try:
        box = Box(["-c", "pass"], {}, Limits())
        watch([box])
        verdict = box.verdict()
    except BoxError as error:
        return f"bubblewrap cannot make a box: {error}"
    return None if verdict.passed else f"Python does not run in a box: {verdict.stderr.decode('utf-8', 'replace')}"


def describe() -> dict[str, str | None]:
    """For `seedbed doctor`: the kind of box, or why there is none."""
    reason = lacking()
    return {"kind": "bubblewrap" if reason is None else None, "lacking": reason}


@contextmanager
def boxes() -> Iterator[None]:
    """Where boxes are made. SandboxError where none can be: nothing is ever run without one."""
    if (reason := lacking()) is not None:
        raise SandboxError(f"code that a model wrote is run in a sandbox only, and there is none: {reason}", FIX)
    try:
        yield
    except BoxError as error:
        raise SandboxError(f"a box could not be made: {error}") from error
