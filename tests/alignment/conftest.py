"""A tiny model to begin with, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import save_tiny_model


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "model", context=96, width=32, layers=2)
