"""Folders that describe themselves: atomic writes, manifests, lineage, cards and locks.

Every stage reads folders and writes one folder. A folder becomes visible under its name only when it is whole: it is
filled beside its place under a temporary name, its manifest is written last, and one rename puts it where it belongs. The
manifest holds the SHA-256 of every file, the exact configuration and the hashes of the inputs, so that a report can be
traced back to the raw text and a changed byte anywhere is found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import filelock

from seedbed.errors import ConfigError, CorruptionError, DataError, StorageError

MANIFEST = "manifest.json"
FORMAT_VERSION = "1"
"""Version of the folder format, not of seedbed: the same content has the same manifest whichever release wrote it."""

LEFT_OUT = ("result.json", "README.md", "timings.jsonl", "*.log", "*.log.*", "*.lock", ".*.holder", ".*.partial-*")
"""File names a manifest does not list, because they carry clocks, paths or words for people."""

COMMANDS = {
    "corpus": "seedbed prepare --source SOURCE --out {path}",
    "tokenizer": "seedbed tokenizer --corpus CORPUS --out {path}",
    "tokens": "seedbed tokenize --corpus CORPUS --tokenizer TOKENIZER --out {path}",
    "run": "seedbed pretrain --data.tokens TOKENS --out {path}",
    "report": "seedbed evaluate --model MODEL --out {path}",
}
"""The command that makes a folder of each kind, shown when a folder does not say by which command it was made."""

Inputs = Mapping[str, "Path | Manifest | str"]
"""What a folder was made from: a seedbed folder, a raw file or folder, a manifest, or a SHA-256 known already (a str)."""


# Hashes ----------------------------------------------------------------------------------------------------------------


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: sorted keys, no spaces, UTF-8. NaN and infinities are refused (ValueError)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_tree(folder: Path) -> str:
    """One hash for a raw folder: the names and hashes of all its files."""
    return sha256_json({name: sha256_file(folder / name) for name in _names(folder)})


# Writing files ---------------------------------------------------------------------------------------------------------


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
        _sync_folder(target.parent)


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


# Manifests -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileRecord:
    """What a manifest promises about one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder holds, how it was made and from what."""

    kind: str
    """corpus, tokenizer, tokens, run, model or report."""
    files: dict[str, FileRecord]
    """By name inside the folder, with forward slashes."""
    inputs: dict[str, str] = field(default_factory=dict)
    """The hash of every input, by role."""
    config: dict[str, Any] = field(default_factory=dict)
    """The exact configuration, plain values only."""
    version: str = FORMAT_VERSION

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content. No clock and no path enters it: the same work gives the same hash anywhere."""
        return sha256_json(self._content())

    def _content(self) -> dict[str, Any]:
        files = {name: dataclasses.asdict(record) for name, record in sorted(self.files.items())}
        return {"kind": self.kind, "inputs": self.inputs, "config": self.config, "files": files}

    def render(self) -> str:
        """The one text a manifest of this content has. Its last entry is a checksum of all the others."""
        value = {"version": self.version, **self._content(), "hash": self.hash}
        return render_json({**value, "checksum": sha256_json(value)})

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """The manifest a text renders; ValueError when the text is not, byte for byte, what seedbed renders."""
        try:
            value = json.loads(raw.decode())
            files = {str(name): FileRecord(int(r["bytes"]), str(r["sha256"])) for name, r in value["files"].items()}
            inputs = {str(name): str(digest) for name, digest in value["inputs"].items()}
            manifest = cls(str(value["kind"]), files, inputs, dict(value["config"]), str(value["version"]))
            intact = manifest.render().encode() == raw
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not intact or any(not _is_inside(name) or record.bytes < 0 for name, record in files.items()):
            raise ValueError("its checksum does not match its content")
        return manifest


def _is_inside(name: str) -> bool:
    """Whether a name read from a manifest stays inside its folder."""
    return bool(name) and "\0" not in name and not name.startswith("/") and ".." not in name.split("/")


def _names(folder: Path) -> list[str]:
    """All files below `folder` by name, sorted."""
    found = []
    for root, _, names in os.walk(folder):
        found += [(Path(root) / name).relative_to(folder).as_posix() for name in names]
    return sorted(found)


def seal(
    folder: Path | str, kind: str, inputs: Inputs | None = None, config: Mapping[str, Any] | None = None
) -> Manifest:
    """Writes the manifest of a folder filled in place: hashes every file, then says "complete"."""
    folder = Path(folder)
    files = {}
    with writing(folder):
        for name in _names(folder):
            if name != MANIFEST and not any(fnmatch(name.rsplit("/", 1)[-1], pattern) for pattern in LEFT_OUT):
                _sync_file(folder / name)
                files[name] = FileRecord((folder / name).stat().st_size, sha256_file(folder / name))
    hashes = {name: input_hash(value) for name, value in (inputs or {}).items()}
    # Through JSON and back, so that the manifest in memory is the one a reader gets (tuples become lists, keys strings).
    plain = json.loads(json.dumps(dict(config or {}), allow_nan=False))
    manifest = Manifest(kind, files, hashes, plain)
    write_atomic(folder / MANIFEST, manifest.render())
    return manifest


def input_hash(value: Path | Manifest | str) -> str:
    """The hash that names an input: a manifest's, a file's, or a raw folder's; a str must be a SHA-256 already."""
    if isinstance(value, Manifest):
        return value.hash
    if isinstance(value, str):
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise ValueError(f"a str input must be a SHA-256 in hexadecimal, got {value!r}; wrap paths in Path()")
        return value
    try:
        if (value / MANIFEST).is_file():
            return read_manifest(value).hash
        return sha256_tree(value) if value.is_dir() else sha256_file(value)
    except OSError as error:
        raise DataError(f"cannot read the input {value}: {error.strerror or error}") from error


def read_manifest(folder: Path | str, kind: str | None = None) -> Manifest:
    """The manifest of a folder, itself verified. DataError when there is none, CorruptionError when it was changed."""
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        what = (
            "is not complete, or not a folder seedbed made: it has no manifest.json"
            if folder.is_dir()
            else "does not exist"
        )
        raise DataError(f"{folder} {what}", _make(folder, kind)) from error
    except NotADirectoryError as error:
        raise DataError(
            f"{folder} is a file; a folder that seedbed made is needed here", _make(folder, kind)
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        manifest = Manifest.parse(raw)
    except ValueError as error:
        raise CorruptionError(f"{path} was changed or cut off ({error})", remake(folder, kind)) from error
    if manifest.version != FORMAT_VERSION:
        problem = f"{path} has format {manifest.version}; this seedbed reads format {FORMAT_VERSION}"
        raise DataError(problem, remake(folder, kind))
    return manifest


def open_folder(path: Path | str, kind: str | tuple[str, ...], verify: Literal["sizes", "all"] = "sizes") -> Manifest:
    """Opens a folder of one of the kinds asked for and checks that each file is there and has its size.

    With verify="all" every byte is hashed. A missing or incomplete folder or one of another kind is a DataError, a
    missing or changed file a CorruptionError; each names the file, and how to make it again.
    """
    folder = Path(path)
    kinds = (kind,) if isinstance(kind, str) else kind
    manifest = read_manifest(folder, kinds[0])
    if manifest.kind not in kinds:
        wanted = " or ".join(kinds)
        raise DataError(
            f"{folder} is a {manifest.kind} folder; a {wanted} folder is needed here", _make(None, kinds[0])
        )
    for name, record in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            problem = (
                f"{folder / name} cannot be read ({error.strerror}), but the manifest promises {record.bytes:,} bytes"
            )
            raise CorruptionError(problem, remake(folder, manifest.kind)) from error
        if size != record.bytes:
            how = "the file is cut off" if size < record.bytes else "something was added"
            problem = f"{folder / name} holds {size:,} bytes but its manifest promises {record.bytes:,}: {how}."
            raise CorruptionError(problem, remake(folder, manifest.kind))
    if verify == "all":
        for name in manifest.files:
            verify_file(folder, manifest, name)
    return manifest


def verify_file(folder: Path | str, manifest: Manifest, name: str) -> None:
    """Hashes one file of a folder against its manifest; CorruptionError when it is not the file that was written."""
    path = Path(folder) / name
    if name not in manifest.files:
        raise CorruptionError(f"{path} is not listed in its folder's manifest", remake(folder, manifest.kind))
    promised = manifest.files[name].sha256
    try:
        found = sha256_file(path)
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}"
        raise CorruptionError(problem, remake(folder, manifest.kind)) from error
    if found != promised:
        problem = f"{path} was changed: its SHA-256 is {found[:16]}… but its manifest promises {promised[:16]}…"
        raise CorruptionError(problem, remake(folder, manifest.kind))


def command(verb: str, config: Any) -> str:
    """The command line that a config dataclass amounts to, leaving out defaults. Kept in result.json as "command"."""
    words = ["seedbed", verb]
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value != item.default and value is not None:
            words += [f"--{item.name}", str(value)]
    return shlex.join(words)


def remake(folder: Path | str, kind: str | None) -> str | None:
    """Advice for a folder that is broken: the command in its result.json, or the one that makes its kind."""
    made_by = None
    with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError):
        made_by = json.loads((Path(folder) / "result.json").read_bytes()).get("command")
    if isinstance(made_by, str) and made_by.startswith("seedbed ") and made_by.isprintable():
        return f"Remove that folder, then make it again: {made_by}"
    made_by = _make(Path(folder), kind)
    return made_by and made_by.replace("Make it", "Remove that folder, then make it again", 1)


def _make(folder: Path | None, kind: str | None) -> str | None:
    """Advice for a folder that is not there."""
    known = COMMANDS.get(kind or "")
    return known and "Make it: " + known.format(path=shlex.quote(str(folder)) if folder else f"{kind}".upper())


# New folders -----------------------------------------------------------------------------------------------------------


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

    `inputs` and `config` are read at the end, so a stage may add to them what it learns on its way. When the block fails
    nothing is left; what a killed process left is removed by the next call. An `out` that exists and is not empty is a
    ConfigError, unless `overwrite`: then the old folder is swapped out once the new one is whole. OSErrors inside become
    StorageErrors.
    """
    target = Path(os.path.realpath(out))
    with writing(out):
        _refuse_occupied(Path(out), target, overwrite)
        made = _make_parents(target.parent)
    try:
        with writing(out):
            _clean_up(target)
            staging, lock_ = _stage(target)
            try:
                yield staging
                seal(staging, kind, inputs, config)
                for root, _, _ in os.walk(staging):
                    _sync_folder(Path(root))
                lock_.release()
                _remove_lock(staging)
                _publish(staging, Path(out), target, overwrite)
            except BaseException:
                lock_.release()
                shutil.rmtree(staging, ignore_errors=True)
                raise
    except BaseException:
        for parent in reversed(made):
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _refuse_occupied(out: Path, target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"{out} is a file; a folder is to be written there", "Choose another --out.")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"{out} exists and is not empty", "Choose another --out, or remove that folder first.")
    if not (target / MANIFEST).is_file():
        raise ConfigError(
            f"{out} is not a folder that seedbed made: it will not be overwritten", "Choose another --out."
        )


def _make_parents(parent: Path) -> list[Path]:
    """Makes the folders above a new one and returns those made, outermost first, so that a failure can take them away."""
    missing = []
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
    return missing[::-1]


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
    if overwrite and target.exists() and any(target.iterdir()):
        os.rename(target, replaced)
    try:
        os.rename(staging, target)
    except OSError as error:
        if replaced.exists():
            os.rename(replaced, target)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ConfigError(f"another process filled {out} meanwhile", "Choose another --out.") from error
        raise
    _sync_folder(target.parent)
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
    """Whether a process still fills a staging folder: its number lives here, or its lock is held (perhaps elsewhere)."""
    if _is_alive(pid):
        return True
    lock_ = filelock.FileLock(staging / ".partial.lock")
    try:
        lock_.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        return True
    lock_.release()
    return False


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
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


# One process a folder --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(folder: Path | str) -> Iterator[None]:
    """Holds a run folder for this process, making it when needed. StorageError at once when another process has it."""
    folder = Path(folder)
    holder = folder / ".lock.holder"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
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
        write_atomic(
            holder, f"process {os.getpid()} on {os.uname().nodename if hasattr(os, 'uname') else 'this machine'}"
        )
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        held.release()
