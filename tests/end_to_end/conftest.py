"""The command line in a process of its own, and a small corpus to give it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import write_text

Run = Callable[..., subprocess.CompletedProcess[str]]


def seedbed_in(folder: Path, *arguments: object, typed: str = "", **named: str) -> subprocess.CompletedProcess[str]:
    """`seedbed ARGUMENTS` in `folder`, with `typed` as its input."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **named}
    command = [sys.executable, "-m", "seedbed", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=env, input=typed, capture_output=True, text=True, timeout=300)


@pytest.fixture
def seedbed(tmp_path) -> Run:
    """Runs `seedbed ARGUMENTS` in tmp_path."""

    def run(*arguments: object, **named: str) -> subprocess.CompletedProcess[str]:
        return seedbed_in(tmp_path, *arguments, **named)

    return run


@pytest.fixture(scope="module")
def in_folder() -> Run:
    """Runs `seedbed ARGUMENTS` in the folder given first."""
    return seedbed_in


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """A corpus of 5 kB, a name with a space and an umlaut in it."""
    return write_text(tmp_path_factory.mktemp("kleine Bäume") / "text.jsonl")
