"""Work that goes on beside training, one piece at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """A thread for each piece of work. What goes wrong in it is raised where it is waited for."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._done.set()
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """The piece before must have been waited for."""
        assert self._done.is_set()
        self._done.clear()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error
            finally:
                self._done.set()

        threading.Thread(target=run, name="seedbed background").start()

    def wait(self) -> BaseException | None:
        """Until the work is done; the error that it ended with. Ctrl-C is raised only then: half of it helps nobody."""
        try:
            self._done.wait()
        except BaseException:
            self._done.wait()
            raise
        error, self._error = self._error, None
        return error
