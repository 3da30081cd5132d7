"""New folders: filled out of sight, sealed, then put in place by one rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedbed.errors import ConfigError, StorageError
from seedbed.runs.files import make_folders, remove_empty, sync_folder, writing
from seedbed.runs.manifest import MANIFEST, Inputs, input_hash, open_folder, read_manifest, seal
from seedbed.runs.reading import read_json

if TYPE_CHECKING:
    import filelock


@contextlib.contextmanager
def new_folder(
    out: Path | str,
    kind: str,
    *,
    inputs: Inputs | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Yields a staging folder beside `out` to fill; when the block ends well it is sealed and renamed to `out`.

    `inputs` and `config` are read at the end, so a stage may add to them what it learns on its way. When the block
    fails nothing is left; what a killed process left is removed by the next call. An `out` that exists and is not empty
    is a ConfigError, unless `overwrite`: then the old folder is swapped out once the new one is whole. OSErrors inside
    become StorageErrors.
    """
    target = Path(os.path.realpath(out))
    with writing(out):
        if target.parent.is_dir():
            _clean_up(target)
        _refuse_occupied(Path(out), target, overwrite)
        made = make_folders(target.parent)
    try:
        with writing(out):
            staging, lock_ = _stage(target)
            try:
                yield staging
                seal(staging, kind, inputs, config)
                for root, _, _ in os.walk(staging):
                    sync_folder(Path(root))
                lock_.release()
                _remove_lock(staging)
                _publish(staging, Path(out), target, overwrite)
            except BaseException:
                lock_.release()
                shutil.rmtree(staging, ignore_errors=True)
                raise
    except BaseException:
        remove_empty(made)
        raise


def finished_result(
    out: Path, kind: str, inputs: Callable[[], Inputs], config: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """What result.json says of a folder that was made of the same inputs with the same `config`, and a note, so that a
    command may be given again; None when `out` is no such folder. `inputs` is asked only where all else agrees.

    CorruptionError when it was, and a file is no longer what was written.
    """
    if not (out / MANIFEST).is_file():
        return None
    manifest = read_manifest(out)
    if manifest.kind != kind or manifest.config != json.loads(json.dumps(dict(config or {}))):
        return None
    if manifest.inputs != {name: input_hash(value) for name, value in inputs().items()}:
        return None
    open_folder(out, kind)
    return {**read_json(out / "result.json"), "note": "nothing was done: it is complete, of the same and made the same"}


def _refuse_occupied(out: Path, target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"{out} is a file; a folder is to be written there", "Choose another --out.")
    if os.path.ismount(target):
        problem = f"{out} is where a disk is mounted; a new folder cannot be renamed onto it"
        raise ConfigError(problem, f"Choose a folder inside it, such as --out {out / 'out'}.")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"{out} exists and is not empty", "Choose another --out, or remove that folder first.")
    if not (target / MANIFEST).is_file():
        raise ConfigError(
            f"{out} is not a folder that seedbed made: it will not be overwritten", "Choose another --out."
        )


def _stage(target: Path) -> tuple[Path, filelock.BaseFileLock]:
    """A fresh staging folder and the lock that says its process is alive (also to other machines on a shared disk)."""
    for attempt in range(1000):
        suffix = f"-{attempt}" if attempt else ""
        staging = target.with_name(f".{target.name}.partial-{os.getpid()}{suffix}")
        with contextlib.suppress(FileExistsError):
            staging.mkdir()
            break
    else:
        raise StorageError(f"too many unfinished folders beside {target}")
    import filelock  # brings asyncio, 40 ms: only when a folder is written

    lock_ = filelock.FileLock(staging / ".partial.lock")
    try:
        lock_.acquire(blocking=False)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return staging, lock_


def _remove_lock(staging: Path) -> None:
    (staging / ".partial.lock").unlink(missing_ok=True)


def _publish(staging: Path, out: Path, target: Path, overwrite: bool) -> None:
    """Puts the finished folder in its place; an old one is moved aside first and removed after."""
    replaced = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    try:
        if overwrite and target.exists() and any(target.iterdir()):
            os.rename(target, replaced)
        os.rename(staging, target)
    except BaseException as error:  # Ctrl-C as well
        if replaced.exists() and not target.exists():
            os.rename(replaced, target)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ConfigError(f"another process filled {out} meanwhile", "Choose another --out.") from error
        raise
    sync_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _clean_up(target: Path) -> None:
    """Removes what killed processes left beside `target`, and puts back a folder whose replacement never came."""
    for entry in target.parent.iterdir():
        if entry.name.startswith(f".{target.name}.partial-"):
            if entry.is_dir() and not _is_in_use(entry, _pid(entry)):
                shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith(f".{target.name}.replaced-") and not _is_alive(_pid(entry)):
            if target.exists():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                os.rename(entry, target)


def _pid(entry: Path) -> int:
    digits = entry.name.rsplit(".", 1)[-1].split("-")[1]
    return int(digits) if digits.isdecimal() else 0


def _is_alive(pid: int) -> bool:
    """Whether another process of this machine has that number."""
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_in_use(staging: Path, pid: int) -> bool:
    """Whether a process still fills a staging folder: its number lives here, or its lock is held (elsewhere)."""
    if _is_alive(pid):
        return True
    import filelock

    lock_ = filelock.FileLock(staging / ".partial.lock")
    try:
        lock_.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        return True
    lock_.release()
    return False
