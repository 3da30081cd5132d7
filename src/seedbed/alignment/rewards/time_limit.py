"""Work that may never end: a pattern or a schema, held against what a model said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class OutOfTimeError(Exception):
    """More was computed than allowed."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """OutOfTimeError where more is computed inside, by the processor's clock, so that a busy machine takes nothing
    away. Without effect outside of the main thread, and where there is no such clock (Windows)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
