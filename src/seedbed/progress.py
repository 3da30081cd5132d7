"""Progress of long work: a bar on a terminal, silence anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(what: str, total: int | None = None, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how much was done since it was last called; `total` None shows a pulse.

    `unit` "bytes" shows sizes and a rate, anything else plain counts. Written to standard error, so that output can be
    piped.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich import progress as bars
    from rich.console import Console

    numbers = (
        [bars.DownloadColumn(), bars.TransferSpeedColumn()]
        if unit == "bytes"
        else [bars.MofNCompleteColumn(), bars.TextColumn(unit)]
    )
    columns = [bars.TextColumn("{task.description}"), bars.BarColumn(), *numbers, bars.TimeRemainingColumn()]
    with bars.Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(what, total=total)
        yield lambda done: display.advance(task, done)
