"""Functions in C++: compiled once, and done without where there is no compiler."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from seedbed.native import library
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing is compiled yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cached in (library.available, library.function, library._library):
        cached.cache_clear()
    yield tmp_path / "seedbed" / "native"
    for cached in (library.available, library.function, library._library):
        cached.cache_clear()


def test_a_file_is_compiled_once_and_kept(fresh):
    first = library._compiled(library.shutil.which("g++"), library.SOURCES / "rms_norm.cpp")
    made = first.stat().st_mtime_ns
    assert library._compiled(library.shutil.which("g++"), library.SOURCES / "rms_norm.cpp") == first
    assert first.stat().st_mtime_ns == made
    assert list(fresh.iterdir()) == [first]


def test_other_sources_are_another_file(fresh, tmp_path):
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" void one() {}')
    first = library._compiled(library.shutil.which("g++"), source)
    source.write_text('extern "C" void one() { }')
    assert library._compiled(library.shutil.which("g++"), source) != first


def test_what_cannot_be_compiled_is_told_in_a_line_and_leaves_nothing(fresh, tmp_path, monkeypatch, caplog):
    (tmp_path / "rms_norm.cpp").write_text("this is no C++")
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    with caplog.at_level(logging.WARNING):
        assert library._library("rms_norm") is None
    (told,) = caplog.messages
    assert told.startswith("rms_norm.cpp was not compiled, PyTorch alone is slower: ") and "\n" not in told
    assert list(fresh.iterdir()) == []


def test_without_a_compiler_the_answers_are_the_same_and_it_is_said(tmp_path):
    """The same to a reader: greedy, of a model that is sure of itself."""
    tokenizer = byte_tokenizer.build()
    folder = saved(tmp_path / "model", random_model(3, tokenizer=tokenizer, head_width=16), tokenizer)
    command = [sys.executable, "-m", "seedbed", "generate", "--model", str(folder), "--prompt", "Once", "--json"]
    command += ["--temperature", "0", "--max_tokens", "12", "--device", "cpu"]
    found = {}
    for path in (os.environ["PATH"], str(tmp_path)):
        environment = os.environ | {
            "PATH": path,
            "XDG_CACHE_HOME": str(tmp_path / ("with" if path != str(tmp_path) else "without")),
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found[path] = json.loads(done.stdout.splitlines()[-1])["completions"], done.stderr
    (with_, _), (without, said) = found.values()
    assert with_ == without
    assert said.count("no C++ compiler") >= 1
