"""The files of a source, in an order that depends on their names only."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seedbed.compression import STDIN, without_compression
from seedbed.errors import DataError, SeedbedError
from seedbed.runs import MANIFEST, read_manifest

ENDINGS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "rows",
    ".ndjson": "rows",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
}
"""The format of a file by the ending of its name, once .gz, .bz2 or .zst is taken off."""

HUB = "hub:"
"""How the name of a data set on the Hugging Face hub begins, where a path might stand."""

STDLIB_LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "idlelib", "__pycache__"}
)
"""Folders of the standard library that are tests, other people's packages, or programs nobody reads to learn from."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read."""

    path: Path
    name: str
    """What it is called in a corpus: its path inside the source, with forward slashes."""
    format: str
    """One of the values of ENDINGS, or stdin, skills, hub."""


def find_files(source: str) -> list[SourceFile]:
    """The files of `stdlib`, a file, a folder or a glob; what is no file counts as one: `-` (standard input), `skills`
    and `hub:NAME`. Folders are searched whole, without hidden files and files of no known kind. DataError when nothing
    is there to read."""
    if source == "stdlib":
        return _stdlib()
    if source == str(STDIN):
        return [SourceFile(STDIN, "standard input", "stdin")]
    if source == "skills":
        return [SourceFile(Path(source), source, "skills")]
    if source.startswith(HUB):
        return [SourceFile(Path(source), source.removeprefix(HUB), "hub")]
    path = Path(source)
    if path.is_dir():
        found = [_file(file, file.relative_to(path).as_posix()) for file in _files_of(path)]
        return _some([file for file in found if file], source)
    if glob.has_magic(source) and not path.exists():
        found = [_file(Path(name), name) for name in sorted(_matching(source)) if os.path.isfile(name)]
        return _some([file for file in found if file], source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        fix = (
            "A source is a file, a folder, a glob, `stdlib`, `skills` or `hub:OWNER/NAME`."
            if path.name == str(path)
            else None
        )
        raise DataError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}", fix) from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{source} is neither a file nor a folder")
    file = _file(path, path.name)
    if file is None:
        fix = f"Known kinds: {', '.join(ENDINGS)}, also with .gz, .bz2 or .zst behind. Plain text? Rename it to .txt."
        raise DataError(f"{source} is of no kind that can be read", fix)
    return [file]


def ignored_files(source: str) -> dict[str, int]:
    """Of a folder, how many files are of no known kind, by their ending."""
    path = Path(source)
    if source == "stdlib" or not path.is_dir():
        return {}
    endings = Counter(file.suffix or "(none)" for file in _files_of(path) if _file(file, file.name) is None)
    return dict(sorted(endings.items()))


def _files_of(folder: Path) -> Iterator[Path]:
    """All below a folder; of a corpus, which may be cleaned again, its documents alone."""
    if (folder / MANIFEST).is_file():
        with contextlib.suppress(SeedbedError):
            manifest = read_manifest(folder)
            if manifest.kind == "corpus":
                return (folder / name for name in sorted(manifest.files) if name.endswith(".jsonl.zst"))
    return _walk(folder)


def _some(files: list[SourceFile], source: str) -> list[SourceFile]:
    if not files:
        raise DataError(f"{source} holds no files that can be read as text", f"Known kinds: {', '.join(ENDINGS)}.")
    return files


def _file(path: Path, name: str) -> SourceFile | None:
    ending = os.path.splitext(without_compression(path.name))[1].lower()
    if ending not in ENDINGS:
        return None
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", errors="backslashreplace")
        raise DataError(f"the name of {shown} is not UTF-8, and a corpus names its sources", "Rename it.") from error
    return SourceFile(path, name, ENDINGS[ending])


def _matching(pattern: str) -> set[str]:
    """What a glob names, where `**` enters no folder twice: Python's own goes round and round through links."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return set(glob.glob(pattern))
    at = parts.index("**")
    below = Path(*(parts[at + 1 :] or ["*"]))
    tops = glob.glob(str(Path(*parts[:at]))) if at else [""]
    found = (_matching(os.path.join(glob.escape(folder), below)) for top in tops for folder in _folders(top))
    return set().union(*found)


def _folders(top: str) -> Iterator[str]:
    """A folder and all below it that are not hidden, links too; none is entered twice."""
    seen: set[str] = set()
    left = [top]
    while left:
        folder = left.pop()
        real = os.path.realpath(folder)
        if real in seen or not os.path.isdir(real):
            continue
        seen.add(real)
        yield folder
        with contextlib.suppress(OSError):  # as glob passes over what it may not read
            left += sorted(os.path.join(folder, name) for name in os.listdir(real) if name[0] != ".")[::-1]


def _walk(folder: Path, without: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below a folder, sorted by name, without hidden ones and those named in `without`. Links are followed, but
    no folder is entered twice."""
    seen: set[str] = set()

    def visit(place: Path) -> Iterator[Path]:
        real = os.path.realpath(place)
        if real in seen:
            return
        seen.add(real)
        try:
            entries = sorted(place.iterdir(), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot read {place}: {error.strerror or error}") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name in without:
                continue
            if entry.is_dir():
                yield from visit(entry)
            elif entry.is_file() or not entry.exists():  # a link to nowhere is an error when it is read
                yield entry

    return visit(folder)


def _stdlib() -> list[SourceFile]:
    """Python's own modules. Files in other encodings than UTF-8 are left out: they exist to test decoders."""
    library = Path(sysconfig.get_path("stdlib"))
    files = []
    for path in _walk(library, STDLIB_LEFT_OUT):
        if path.suffix == ".py" and _is_utf8(path):
            files.append(SourceFile(path, path.relative_to(library).as_posix(), "text"))
    if not files:
        raise DataError(
            f"the source of Python's standard library is not in {library}",
            "Install a full Python, or name a file or folder of your own: --source PATH.",
        )
    return files


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, OSError):
        return False
    return True
