"""A small corpus and its tokens, made once."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from seedbed.data.config import PrepareConfig, TokenizeConfig
from seedbed.data.prepare import prepare
from seedbed.data.tokenize import tokenize
from seedbed.tokenizers import bytes as byte_tokenizer

WORDS = [
    "the",
    "seed",
    "of",
    "a",
    "small",
    "tree",
    "lies",
    "in",
    "dark",
    "soil",
    "waits",
    "for",
    "rain,",
    "näh",
    "—",
    "木",
    "🌱",
]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def some_texts(count: int, words: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=words)) for _ in range(count)]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer.build().save(folder)
    return folder


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory) -> Path:
    """40 documents, 1.3 MB: the training tokens fill more than two blocks of a MiB."""
    place = tmp_path_factory.mktemp("corpus")
    source = write_jsonl(place / "source.jsonl", some_texts(40, 8_000))
    prepare(PrepareConfig(source=str(source), out=place / "corpus", validation_fraction=0.1))
    return place / "corpus"


@pytest.fixture(scope="session")
def tokens_folder(tmp_path_factory, corpus_folder, tokenizer_folder) -> Path:
    """Tokens of the corpus. Who changes a file puts it back."""
    out = tmp_path_factory.mktemp("tokens") / "tokens"
    tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tokenizer_folder, out=out))
    return out
