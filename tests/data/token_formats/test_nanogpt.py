"""nanoGPT's files are the tokens and nothing else; documents are found by what ends them."""

from __future__ import annotations

import numpy as np
import pytest

from seedbed.data.token_formats import nanogpt
from seedbed.data.tokens import open_tokens
from seedbed.errors import DataError
from tests.data.token_formats.samples import documents, export, take_in, tokenizer_of, write_tokens


def test_the_file_is_what_numpy_writes(tmp_path):
    texts = [[5, 6, 7], [], list(range(256))]
    tokens = write_tokens(tmp_path / "tokens", tokenizer_of("both"), train=texts, val=texts[::-1])
    export(tokens, tmp_path / "files", "nanogpt")
    stores = open_tokens(tokens)
    for name, store in (("train", stores.train), ("val", stores.val)):
        np.array([id for ids in documents(store) for id in ids], np.uint16).tofile(tmp_path / "expected.bin")
        assert (tmp_path / "files" / f"{name}.bin").read_bytes() == (tmp_path / "expected.bin").read_bytes()


E = 259
"""</s>, which in the tokenizer "one" also begins documents."""


@pytest.mark.parametrize(
    ("kind", "stream", "end", "expected"),
    [
        ("both", [1, 2, 3], None, [[258, 1, 2, 3, E]]),
        ("both", [1, 2, E, 3, E], E, [[258, 1, 2, E], [258, 3, E]]),
        ("both", [1, E, E, 3], E, [[258, 1, E], [258, E], [258, 3, E]]),
        ("both", [258, 1, E, 258, E], E, [[258, 1, E], [258, E]]),
        ("none", [1, 0, 2, 0, 3], 0, [[1, 0], [2, 0], [3]]),
        ("one", [1, E, 2, E], E, [[E, 1, E], [E, 2, E]]),
        ("one", [E, 1, E, E, 2, E], E, [[E, 1, E], [E, 2, E]]),
        ("one", [E, E, E, 2, E], E, [[E, E], [E, 2, E]]),
        ("one", [1, E, E], E, [[E, 1, E], [E, E]]),
    ],
)
def test_documents_end_with_the_token_that_is_named(kind, stream, end, expected, tmp_path):
    for split in ("train", "val"):
        np.array(stream, np.uint16).tofile(tmp_path / f"{split}.bin")
    tokenizer_of(kind).save(tmp_path)
    tokens = take_in(tmp_path, tmp_path / "back", "nanogpt", tmp_path, end_of_text=end)
    assert documents(tokens.train) == documents(tokens.val) == expected


def test_half_a_token_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(bytes(5))
    with pytest.raises(DataError, match=r"x\.bin holds 5 bytes, which is no whole number of 16-bit entries"):
        nanogpt.read(tmp_path, "x", None, None)


def test_a_vocabulary_beyond_16_bits_is_refused(tmp_path):
    class Store:
        """As much of one as is asked."""

        path, vocab_size, dtype = tmp_path / "train.bin", 100_000, np.dtype("<u4")

    with pytest.raises(DataError, match="vocabulary of 100,000, but nanoGPT's files have 16 bits") as raised:
        nanogpt.write(Store(), tmp_path, "x", lambda done: None)
    assert "megatron" in raised.value.fix
