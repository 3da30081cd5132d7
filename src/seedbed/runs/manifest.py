"""Manifests: what a folder holds, from what it was made, and the proof that no byte has changed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from seedbed.errors import CorruptionError, DataError
from seedbed.runs.files import render_json, sha256_file, sha256_json, sync_file, write_atomic, writing
from seedbed.runs.reading import parse_json

MANIFEST = "manifest.json"
FORMAT_VERSION = "1"
"""Version of the folder format, not of seedbed: the same content has the same manifest whichever release wrote it."""

LEFT_OUT = ("result.json", "README.md", "timings.jsonl", "*.log", "*.log.*", "*.lock", ".*.holder", ".*.partial-*")
"""File names a manifest does not list, because they carry clocks, paths or words for people."""

FOREIGN = ("tracking/", "profile/")
"""Folders of a run that other tools write or read, clocks and all: no manifest lists what is in them."""

MAKERS = {
    "corpus": "seedbed prepare --source {source} --out {path}",
    "tokenizer": "seedbed tokenizer --corpus CORPUS --out {path}",
    "tokens": "seedbed tokenize --corpus CORPUS --tokenizer TOKENIZER --out {path}",
    "run": "seedbed pretrain --data.tokens TOKENS --out {path}",
    "report": "seedbed evaluate --model MODEL --out {path}",
}
"""The command that makes a folder of each kind, shown when a folder does not say by which command it was made. `source`
is what a person gave instead of a corpus: text, as it seems."""

LONGEST_COMMAND = 1000
"""Characters of a command line that is shown to a person."""

Inputs = Mapping[str, "Path | Manifest | str"]
"""What a folder was made from: a seedbed folder, a raw file or folder, a manifest, or a known SHA-256 (a str)."""


def sha256_tree(folder: Path) -> str:
    """One hash for a raw folder: the names and hashes of all its files."""
    return sha256_json({name: sha256_file(folder / name) for name in names_in(folder)})


@dataclass(frozen=True)
class FileRecord:
    """What a manifest promises about one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder holds, how it was made and from what."""

    kind: str
    """corpus, tokenizer, tokens, export, questions, run, checkpoint, model or report."""
    files: dict[str, FileRecord]
    """By name inside the folder, with forward slashes."""
    inputs: dict[str, str] = field(default_factory=dict)
    """The hash of every input, by role."""
    config: dict[str, Any] = field(default_factory=dict)
    """The exact configuration, plain values only."""
    version: str = FORMAT_VERSION

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content. No clock enters it, and no path but those that a run's config.yaml names."""
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
            value = parse_json(raw)
            files = {str(name): FileRecord(int(r["bytes"]), str(r["sha256"])) for name, r in value["files"].items()}
            inputs = {str(name): str(digest) for name, digest in value["inputs"].items()}
            manifest = cls(str(value["kind"]), files, inputs, dict(value["config"]), str(value["version"]))
            intact = manifest.render().encode() == raw
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not intact or any(not _is_inside(name) or record.bytes < 0 for name, record in files.items()):
            raise ValueError("its checksum does not match its content")
        return manifest


def _is_inside(name: str) -> bool:
    """Whether a name read from a manifest stays inside its folder."""
    return bool(name) and "\0" not in name and not name.startswith("/") and ".." not in name.split("/")


def names_in(folder: Path) -> list[str]:
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
        for name in names_in(folder):
            left_out = any(fnmatch(name.rsplit("/", 1)[-1], pattern) for pattern in LEFT_OUT)
            if name != MANIFEST and not left_out and not name.startswith(FOREIGN):
                sync_file(folder / name)
                files[name] = FileRecord((folder / name).stat().st_size, sha256_file(folder / name))
    hashes = {name: input_hash(value) for name, value in (inputs or {}).items()}
    # Through JSON and back, so that the manifest in memory is the one a reader gets: tuples become lists.
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
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist", _make(folder, kind)) from error
        problem = f"{folder} is not complete, or not a folder seedbed made: it has no manifest.json"
        raise DataError(problem, _make(None, kind, source=folder)) from error
    except NotADirectoryError as error:
        needed = f"a {kind} folder" if kind else "a folder that seedbed made"
        raise DataError(f"{folder} is a file; {needed} is needed here", _make(None, kind, source=folder)) from error
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


def refuse_unlisted(folder: Path | str, manifest: Manifest, suffix: str) -> None:
    """CorruptionError when the folder holds a file of that ending which its manifest does not list: for readers that
    take every such file."""
    for name in names_in(Path(folder)):
        if name.endswith(suffix) and name not in manifest.files:
            problem = f"{Path(folder) / name} is not listed in its folder's manifest: it was put there later"
            raise CorruptionError(problem, "Take it away.")


def command(verb: str, config: Any) -> str:
    """The command line that a config dataclass amounts to, leaving out defaults. Kept in result.json as "command"."""
    return shlex.join(["seedbed", verb, *_options(config, "")])


def _options(config: Any, prefix: str) -> list[str]:
    words = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            words += _options(value, f"{prefix}{item.name}.")
            continue
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if value != default and value is not None:
            name = item.name.rstrip("_")  # a field named for_ is written --for
            words += [f"--{prefix}{name}", _option_list(value) if isinstance(value, list) else str(value)]
    return words


def _option_list(values: list[Any]) -> str:
    """`a,b`; as JSON where that would be read as other values."""
    items = list(map(str, values))
    plain = ",".join(items)
    is_clear = [item.strip() for item in plain.split(",")] == items and not plain.startswith("[") and plain != "null"
    return plain if (is_clear and plain) or not items else json.dumps(items, ensure_ascii=False)


def remake(folder: Path | str, kind: str | None) -> str | None:
    """Advice for a folder that is broken: the command in its result.json, or the one that makes its kind."""
    made_by = None
    with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError):
        made_by = json.loads((Path(folder) / "result.json").read_bytes()).get("command")
    if isinstance(made_by, str) and _is_plain_command(made_by):
        return f"Remove that folder, then make it again: {made_by}"
    made_by = _make(Path(folder), kind)
    return made_by and made_by.replace("Make it", "Remove that folder, then make it again", 1)


def _is_plain_command(line: str) -> bool:
    """Whether a line from a folder, which a stranger may have made, runs seedbed and nothing else when it is pasted."""
    if not (line.startswith("seedbed ") and line.isprintable() and len(line) <= LONGEST_COMMAND):
        return False
    try:
        return shlex.join(shlex.split(line)) == line
    except ValueError:  # a quote that does not end
        return False


def _make(folder: Path | None, kind: str | None, source: Path | None = None) -> str | None:
    """Advice for a folder that is not there; `source` is there and is none."""
    known = MAKERS.get(kind or "")
    return known and ("Make one: " if source else "Make it: ") + known.format(
        path=shlex.quote(str(folder)) if folder else f"{kind}".upper(),
        source=shlex.quote(str(source)) if source else "SOURCE",
    )
