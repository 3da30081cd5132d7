"""Writing files so that a reader finds the old one or the whole new one, and hashing them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seedbed.errors import StorageError


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: sorted keys, no spaces, UTF-8. NaN and infinity are a ValueError."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def storage_error(path: Path | str, error: OSError) -> StorageError:
    """The StorageError that tells a person what `error` means for writing `path`."""
    name = error.filename if isinstance(error.filename, str | os.PathLike) and os.path.isabs(error.filename) else path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"no space left on the disk while writing {path}", "Free some space or choose another --out."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StorageError(f"this user may not write {name}", "Choose another --out, or change who may write there.")
    if error.errno == errno.EROFS:
        return StorageError(f"{name} is on a read-only file system", "Choose another --out.")
    if error.errno == errno.EFBIG:
        return StorageError(f"{path} would grow larger than files may be here (ulimit -f, or the file system)")
    return StorageError(f"cannot write {name}: {error.strerror or error}")


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turns every OSError inside into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Writes a file that is either the old one or the whole new one, whatever happens meanwhile; a link is followed.

    Raises StorageError and leaves nothing behind when it cannot be written.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    with writing(path):
        try:
            with open(partial, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        sync_folder(target.parent)


def render_json(value: Any) -> str:
    """JSON as seedbed writes it: keys in their order, two spaces, a final newline; NaN is refused (ValueError)."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` atomically as JSON people can read."""
    write_atomic(path, render_json(value))


def write_result(folder: Path | str, result: Mapping[str, Any]) -> None:
    """Writes result.json, what a command has to say to other programs."""
    write_json(Path(folder) / "result.json", dict(result))


def write_card(
    folder: Path | str, title: str, sections: Mapping[str, str | Sequence[str]], name: str = "README.md"
) -> None:
    """Writes the card for people: a title, and under each heading a text or a list of points."""
    lines = [f"# {title}", ""]
    for heading, body in sections.items():
        text = body if isinstance(body, str) else "\n".join(f"- {point}" for point in body)
        lines += [f"## {heading}", "", text.rstrip("\n"), ""]
    write_atomic(Path(folder) / name, "\n".join(lines))


def make_folders(path: Path) -> list[Path]:
    """Makes a folder and those above it; returns those made, outermost first, for a failure to take away again."""
    missing = []
    place = path
    while not place.exists():
        missing.append(place)
        place = place.parent
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
    except BaseException:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Takes folders away, the last first, up to one that holds something."""
    with contextlib.suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


def sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders; its rename is durable without
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no fsync for folders
            raise
    finally:
        os.close(handle)
