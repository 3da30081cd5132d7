"""One process a run folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from seedbed.errors import StorageError
from seedbed.runs.files import make_folders, remove_empty, write_atomic, writing


@contextlib.contextmanager
def lock(folder: Path | str) -> Iterator[None]:
    """Holds a run folder for this process, making it when needed; one that it made and nobody filled goes again.

    StorageError at once when another process has it.
    """
    import filelock  # brings asyncio, 40 ms: only when a folder is locked

    folder = Path(os.path.realpath(folder))  # a link may lead to a folder that is not there yet
    holder = folder / ".lock.holder"
    with writing(folder):
        made = make_folders(folder)
        held = filelock.FileLock(folder / ".lock")
        try:
            held.acquire(blocking=False)
        except filelock.Timeout as error:
            with contextlib.suppress(OSError, ValueError):
                name = holder.read_text()
                raise StorageError(
                    f"{folder} is in use by {name}", "Wait for it, stop it, or choose another --out."
                ) from error
            raise StorageError(
                f"{folder} is in use by another process", "Wait for it, or choose another --out."
            ) from error
    try:
        for left in folder.rglob(".*.partial-*"):  # files that a killed process was writing; folders have their own way
            if left.is_file():
                left.unlink()
        write_atomic(
            holder, f"process {os.getpid()} on {os.uname().nodename if hasattr(os, 'uname') else 'this machine'}"
        )
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        held.release()
        if made and {entry.name for entry in folder.iterdir()} <= {".lock"}:
            with contextlib.suppress(OSError):
                (folder / ".lock").unlink(missing_ok=True)
            remove_empty(made)
