"""Processes that die at the worst moment: at each call that changes the disk, one after another."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

CALLS = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")


@contextlib.contextmanager
def at_call(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Does `act` just before the given one of all calls, counted from 1, that change names on the disk or sync it."""
    left = number
    real = {name: getattr(os, name) for name in CALLS}

    def counted(name: str) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                act()
            return real[name](*given, **named)

        return call

    for name in CALLS:
        setattr(os, name, counted(name))
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)


def killed_at_call(number: int, work: Callable[[], object]) -> bool:
    """Does `work` in a fork that is killed at that call; whether there was such a call."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException), at_call(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            work()
            code = 0
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), "the work itself failed"
    return code != 0
