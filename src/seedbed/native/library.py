"""C++ functions, compiled when they are first wanted, for the processor that is there, and kept for the next time.

They take addresses and numbers, and share the threads of PyTorch, whose OpenMP is loaded by then. Without a compiler
there are none: who calls them has another way, in PyTorch.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
OPTIONS = (
    *("-std=c++20", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
"""None of them lets the compiler change the order of additions."""
SECONDS = 300
"""A compiler that takes longer is stuck."""
FILES = ("activations", "low_rank", "packed_linear", "paged_attention", "rms_norm", "sampling")
"""What the engine wants, all of them or none."""
TYPES: dict[str, Any] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int64,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
    "t": ctypes.c_int,
}


@functools.cache
def available(*files: str) -> bool:
    """Whether these files of functions, or else all of the engine's, are there or could be compiled just now."""
    return all(_library(file) is not None for file in files or FILES)


@functools.cache
def function(file: str, name: str, arguments: str) -> Callable[..., None]:
    """A function of FILE.cpp, by a letter for each of its arguments: p an address or None, i a size, f a float, d
    a double, t a number of threads. Only where they are available."""
    library = _library(file)
    assert library is not None, "who wants a function looks first whether there are any"
    found = library[name]
    found.argtypes, found.restype = [TYPES[letter] for letter in arguments], None
    return found


@functools.cache
def _library(file: str) -> ctypes.CDLL | None:
    """The functions of FILE.cpp; None, told once, where they cannot be compiled."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        logger.warning("no C++ compiler: %s runs in PyTorch alone, which is slower. Install g++.", file)
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler, SOURCES / f"{file}.cpp")))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        logger.warning("%s.cpp was not compiled, PyTorch alone is slower: %s", file, said.strip().splitlines()[0][:300])
        return None


def _compiled(compiler: str, source: Path) -> Path:
    """The shared library of a source, made if it is not there."""
    texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(SOURCES.glob("*.h")))]
    made_of = (*texts, compiler, *OPTIONS, platform.machine(), _flags())
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "seedbed" / "native"
    target = folder / f"{source.stem}-{digest}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, staging = tempfile.mkstemp(dir=folder, suffix=".so")
    os.close(handle)
    command = [compiler, *OPTIONS, str(source), "-o", staging]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
        os.replace(staging, target)  # two processes may compile at once: the last one wins, and both are the same
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)
    return target


def _flags() -> str:
    """What this processor can do: a home may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
