"""nanoGPT's files: `x.bin` is the tokens as little-endian u16 and nothing else.

Documents are told apart by a token that ends each of them, where there is one (nanoGPT, data/openwebtext/prepare.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedbed.data.token_formats.files import Advance, Documents, as_array, copy_tokens, cut, map_existing
from seedbed.data.tokens import TokenStore
from seedbed.errors import DataError


def write(store: TokenStore, folder: Path, name: str, advance: Advance) -> None:
    """Writes NAME.bin. DataError for a vocabulary beyond 16 bits."""
    if store.dtype.itemsize != 2:
        told = f"{store.path} has a vocabulary of {store.vocab_size:,}, but nanoGPT's files have 16 bits a token"
        raise DataError(told, "Choose --format megatron or int32.")
    with open(folder / f"{name}.bin", "wb") as file:
        copy_tokens(store, 0, store.n_tokens, "<u2", file, advance)


def read(folder: Path, name: str, end_of_text: int | None, bos_id: int | None) -> Documents:
    """The documents of NAME.bin, each up to and with its `end_of_text`; one document of all when that is None.

    Where the same token is also `bos_id`, which begins documents, one that follows the end of a document begins the
    next. DataError for a file that is not of this format.
    """
    path = folder / f"{name}.bin"
    tokens = as_array(map_existing(path), "<u2", path)
    if end_of_text is None:
        return Documents((path,), tokens, [(0, len(tokens))] if len(tokens) else [])
    return Documents((path,), tokens, _spans(tokens, end_of_text, both=end_of_text == bos_id))


def _spans(tokens: NDArray[np.integer], end_of_text: int, both: bool) -> Iterator[tuple[int, int]]:
    start = 0
    for first, last in cut(0, len(tokens)):
        for place in (first + np.flatnonzero(tokens[first:last] == end_of_text)).tolist():
            if not (both and place == start):
                yield start, place + 1
                start = place + 1
    if start < len(tokens):
        yield start, len(tokens)
