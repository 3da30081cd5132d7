"""`seedbed sandbox FILE`: a program's verdict on the command line."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedbed.errors import DataError
from seedbed.sandbox.check import check
from seedbed.sandbox.config import SandboxConfig
from seedbed.sandbox.program import run


def sandbox(config: SandboxConfig) -> dict[str, Any]:
    """Runs a file, prints what it printed and the verdict. The result's `ok` says whether it passed."""
    program = _read(config.file)
    if config.tests is None:
        verdict = run(program, config.limits)
    else:
        verdict = check(program, _read(config.tests), config.limits)
    told = {
        name: value.decode("utf-8", "replace") for name, value in asdict(verdict).items() if isinstance(value, bytes)
    }
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        stream.write(_harmless(told[name]) if stream.isatty() else told[name])
        stream.flush()
    print(f"{verdict.outcome}: {verdict.reason}, {verdict.seconds:.2f} s")
    return {"ok": verdict.passed, **asdict(verdict), **told}


def _harmless(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a Python program: {error}") from error
