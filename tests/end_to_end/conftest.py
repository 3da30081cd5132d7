"""The command line in a process of its own, and a small corpus to give it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.commands import seedbed_in
from tests.tiny import write_text

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def seedbed(tmp_path) -> Run:
    """Runs `seedbed ARGUMENTS` in tmp_path."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return seedbed_in(tmp_path, *arguments)

    return run


@pytest.fixture(scope="module")
def in_folder() -> Run:
    """Runs `seedbed ARGUMENTS` in the folder given first."""
    return seedbed_in


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """A corpus of 5 kB, a name with a space and an umlaut in it."""
    return write_text(tmp_path_factory.mktemp("kleine Bäume") / "text.jsonl")
