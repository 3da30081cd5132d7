"""Tokens to train on, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import make_tokens


@pytest.fixture(scope="session")
def tokens(tmp_path_factory) -> Path:
    return make_tokens(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def one_thread():
    """A forked process may not use torch's threads, which stay behind in its parent."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
