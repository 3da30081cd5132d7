"""Small real tokenizers: English and Python text from the standard library, no download."""

from __future__ import annotations

import inspect
import json as json_module
import textwrap

import pytest

from seedbed.tokenizers import byte_pair, characters, sentence_piece
from seedbed.tokenizers.bytes import build

TEXTS = [
    inspect.getsource(textwrap),
    inspect.getsource(json_module),
    "Zwölf Boxkämpfer jagen Viktor, 東京 2026. 🎈\n" * 9,
]


@pytest.fixture(scope="session")
def texts():
    return TEXTS


@pytest.fixture(scope="session", params=["bytes", "byte_pair", "unigram", "bpe", "characters"])
def tokenizer(request):
    return make(request.param)


@pytest.fixture(scope="session", params=["bytes", "byte_pair", "unigram", "bpe"])
def byte_tokenizer(request):
    """The kinds that know every text."""
    return make(request.param)


@pytest.fixture(scope="session")
def pairs():
    return make("byte_pair")


def make(kind):
    if kind == "bytes":
        return build()
    if kind in ("unigram", "bpe"):
        return sentence_piece.train(TEXTS, 700, algorithm=kind)
    return byte_pair.train(TEXTS, 700) if kind == "byte_pair" else characters.train(TEXTS)


@pytest.fixture
def saved(tmp_path):
    """Saves a tokenizer and opens it in transformers, as a tokenizer folder or beside a model's config.json."""

    def save(tokenizer, model_type=None):
        from transformers import AutoTokenizer

        folder = tmp_path / f"{tokenizer.kind}-{model_type}"
        folder.mkdir()
        tokenizer.save(folder)
        if model_type:
            (folder / "config.json").write_text(json_module.dumps({"model_type": model_type}))
        return folder, AutoTokenizer.from_pretrained(folder)

    return save
