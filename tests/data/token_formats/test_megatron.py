"""Megatron's files, against a writer of our own from the published layout, and with lies in the index."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from seedbed.data.token_formats import megatron
from seedbed.data.tokens import StoreWriter, TokenStore, open_tokens
from seedbed.errors import DataError
from seedbed.runs import seal
from tests.data.token_formats.samples import KINDS, documents, export, take_in, tokenizer_of, write_tokens
from tests.hostile import memory_within

TEXTS = [[5, 6, 7], [], [255], list(range(100))]


def index(code: int, lengths: list[int], pointers: list[int], bounds: list[int]) -> bytes:
    """An .idx value by value, as megatron/core/datasets/indexed_dataset.py lays it out."""
    raw = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", code)
    raw += struct.pack("<Q", len(lengths)) + struct.pack("<Q", len(bounds))
    raw += b"".join(struct.pack("<i", length) for length in lengths)
    raw += b"".join(struct.pack("<q", pointer) for pointer in pointers)
    return raw + b"".join(struct.pack("<q", bound) for bound in bounds)


def write(folder, name, sequences, bounds, dtype="<u2", code=8):
    """A pair of files."""
    lengths = [len(ids) for ids in sequences]
    width = np.dtype(dtype).itemsize
    pointers = [width * sum(lengths[:i]) for i in range(len(lengths))]
    (folder / f"{name}.bin").write_bytes(b"".join(np.array(ids, dtype).tobytes() for ids in sequences))
    (folder / f"{name}.idx").write_bytes(index(code, lengths, pointers, bounds))


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_those_of_the_published_layout(kind, tmp_path):
    tokens = write_tokens(tmp_path / "tokens", tokenizer_of(kind), train=TEXTS, val=TEXTS[::-1])
    export(tokens, tmp_path / "files", "megatron")
    stores = open_tokens(tokens)
    for name, store in (("train", stores.train), ("val", stores.val)):
        write(tmp_path, name, documents(store), list(range(len(TEXTS) + 1)))
        for suffix in (".bin", ".idx"):
            assert (tmp_path / "files" / f"{name}{suffix}").read_bytes() == (tmp_path / f"{name}{suffix}").read_bytes()


def test_a_vocabulary_beyond_16_bits_has_the_type_int32(tmp_path):
    class Wide:
        """What a store needs to know of a tokenizer."""

        vocab_size, bos_id, eos_id, hash = 100_000, None, None, "ab" * 32

    with StoreWriter(tmp_path, "train", Wide()) as writer:
        writer.add(np.array([99_999, 1], np.uint32), 2)
    store = TokenStore(tmp_path, "train", seal(tmp_path, "tokens"))
    (tmp_path / "files").mkdir()
    megatron.write(store, tmp_path / "files", "x", lambda done: None)
    write(tmp_path, "x", [[99_999, 1]], [0, 1], "<i4", 4)
    assert (tmp_path / "files" / "x.idx").read_bytes() == (tmp_path / "x.idx").read_bytes()
    assert (tmp_path / "files" / "x.bin").read_bytes() == (tmp_path / "x.bin").read_bytes()


@pytest.mark.parametrize(("code", "dtype"), [(1, "<u1"), (3, "<i2"), (4, "<i4"), (5, "<i8"), (8, "<u2")])
def test_every_type_of_whole_numbers_is_read(code, dtype, tmp_path):
    write(tmp_path, "x", TEXTS, list(range(len(TEXTS) + 1)), dtype, code)
    found = megatron.read(tmp_path, "x")
    assert [found.tokens[start:stop].tolist() for start, stop in found.spans] == TEXTS


def test_a_document_of_several_sequences_is_one(tmp_path):
    write(tmp_path, "train", [[1, 2], [3], [], [4, 5, 6]], [0, 2, 2, 4])
    write(tmp_path, "val", [[7]], [0, 1])
    tokenizer_of("none").save(tmp_path)
    tokens = take_in(tmp_path, tmp_path / "back", "megatron", tmp_path)
    assert documents(tokens.train) == [[1, 2, 3], [], [4, 5, 6]] and documents(tokens.val) == [[7]]


HUGE = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, 2**63, 2**62)
GOOD = (8, [2, 1], [0, 4], [0, 1, 2])


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "is no Megatron index: it begins with b'', not b'MMIDIDX"),
        (b"SEEDTOK\1" * 8, "is no Megatron index"),
        (b"MMIDIDX\0\0\1", "holds 10 bytes but its header alone has 34"),
        (struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 2, 8, 0, 1) + bytes(8), "has version 2; version 1 is read"),
        (HUGE, "holds 34 bytes but 9,223,372,036,854,775,808 sequences and 4,611,"),
        (index(7, *GOOD[1:]), "names the type 7 for its tokens; whole numbers are 1, 2, 3, 4, 5, 8"),
        (index(*GOOD)[:-1], "holds 81 bytes but 2 sequences and 3 bounds of documents make 82"),
        (index(*GOOD) + b"\0\0", "has a mode for each sequence"),
        (index(8, [3, -1], [0, 6], [0, 1, 2]), "gives sequence 1 -1 tokens"),
        (index(8, [2, 1], [0, 6], [0, 1, 2]), "points sequence 1 at byte 6, but those before it end at 4"),
        (index(8, [2, 1], [2, 4], [0, 1, 2]), "points sequence 0 at byte 2, but those before it end at 0"),
        (index(8, [2, 2], [0, 4], [0, 1, 2]), "x.bin holds 3 tokens but its index promises 4"),
        (index(4, [2, 1], [0, 8], [0, 1, 2]), "x.bin holds 6 bytes, which is no whole number of 32-bit entries"),
        (index(8, [2, 1], [0, 4], []), "bounds of documents that do not lead from 0 to 2"),
        (index(8, [2, 1], [0, 4], [0, 3, 2]), "bounds of documents that do not lead from 0 to 2"),
        (index(8, [2, 1], [0, 4], [0, -1, 2]), "bounds of documents that do not lead from 0 to 2"),
        (index(8, [2, 1], [0, 4], [0, 1]), "bounds of documents that do not lead from 0 to 2"),
    ],
)
def test_an_index_that_lies_is_refused_in_little_memory(raw, problem, tmp_path):
    write(tmp_path, "x", [[1, 2], [3]], [0, 1, 2])
    assert (tmp_path / "x.idx").read_bytes() == index(*GOOD)
    (tmp_path / "x.idx").write_bytes(raw)
    with memory_within(50 << 20), pytest.raises(DataError) as raised:
        megatron.read(tmp_path, "x")
    assert problem in raised.value.problem and str(tmp_path) in raised.value.problem
