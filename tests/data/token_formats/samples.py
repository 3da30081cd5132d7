"""Tokens folders of given documents, tokenizers that differ in what begins and ends a document, and their exchange."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seedbed.data.config import TokensConfig
from seedbed.data.token_formats.exchange import exchange
from seedbed.data.tokens import StoreWriter, Tokens, TokenStore, open_tokens
from seedbed.runs import new_folder
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.tokenizer import Tokenizer

KINDS = ("both", "one", "none")
"""<s> and </s>, one token that is both (as GPT-2's), neither. The bytes 0 to 255 are text in all of them."""


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    plain = byte_tokenizer.build(specials=kind != "none")
    return Tokenizer(plain._source, plain._config | {"bos_token": "</s>"}, None) if kind == "one" else plain


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return folder


def write_tokens(out: Path, tokenizer: Tokenizer, **splits: Sequence[Sequence[int]]) -> Path:
    """A tokens folder, as `seedbed tokenize` makes them, of the ids of each document."""
    bytes_of = tokenizer.token_bytes()
    with new_folder(out, "tokens") as folder:
        save_tokenizer(folder / "tokenizer", tokenizer)
        for split, documents in splits.items():
            with StoreWriter(folder, split, tokenizer) as writer:
                for ids in documents:
                    writer.add(np.array(ids, dtype=np.uint32), int(bytes_of[list(ids)].sum()))
    return out


def export(tokens: Path, out: Path, format: str, **settings: Any) -> Path:
    exchange(TokensConfig(action="export", format=format, tokens=tokens, out=out, **settings))
    return out


def take_in(files: Path, out: Path, format: str, tokenizer: Path, **settings: Any) -> Tokens:
    exchange(TokensConfig(action="import", format=format, tokens=files, out=out, tokenizer=tokenizer, **settings))
    return open_tokens(out, verify=True)


def documents(store: TokenStore) -> list[list[int]]:
    return [store.documents(i).tolist() for i in range(store.n_docs)]


def content(folder: Path) -> dict[str, bytes]:
    """What a tokens folder holds, but for what says how it was made."""
    names = ("train.bin", "train.index", "val.bin", "val.index", "tokenizer/tokenizer.json")
    return {name: (folder / name).read_bytes() for name in names}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_bytes())
