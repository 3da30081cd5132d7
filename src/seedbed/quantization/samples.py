"""Sample text as token ids: to measure perplexity on, or what the layers of a model are multiplied with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from seedbed.data.config import ReadingConfig
from seedbed.data.sources.blocks import read_blocks
from seedbed.data.sources.records import Reject, read_documents
from seedbed.data.tokens import open_tokens
from seedbed.errors import DataError
from seedbed.runs import MANIFEST
from seedbed.tokenizers.tokenizer import Tokenizer

BLOCK_BYTES = 1 << 20
"""Of text that is encoded at once."""


def read_windows(
    source: Path, tokenizer: Tokenizer, *, split: Literal["train", "val"], length: int, most: int
) -> list[list[int]]:
    """Windows of `length` + 1 token ids, each beginning with the last of the one before, of at most `most` tokens: of a
    split of a tokens folder, or of texts one after the other. DataError when there is no text."""
    ids = _tokens(source, tokenizer, split, most) if (source / MANIFEST).is_file() else _text(source, tokenizer, most)
    windows = [ids[first : first + length + 1] for first in range(0, len(ids) - 1, length)]
    if not windows:
        raise DataError(f"{source} holds no text of two tokens")
    return windows


def _tokens(folder: Path, tokenizer: Tokenizer, split: Literal["train", "val"], most: int) -> list[int]:
    tokens = open_tokens(folder)
    tokens.check(tokenizer)
    store = tokens.train if split == "train" else tokens.val
    ids: list[int] = store.read(0, min(most, store.n_tokens)).tolist()
    return ids


def _text(source: Path, tokenizer: Tokenizer, most: int) -> list[int]:
    ids: list[int] = []
    for text in _documents(source):
        ids += tokenizer.encode(text, bos=tokenizer.bos_id is not None)
        if len(ids) >= most:
            break
    return ids[:most]


def _documents(source: Path) -> Iterator[str]:
    reading = ReadingConfig()
    for block in read_blocks(str(source), reading, BLOCK_BYTES):
        for document in read_documents(block, reading):
            if isinstance(document, Reject):
                raise DataError(f"{document.name}: {document.reason}: {document.detail}")
            yield document.text
