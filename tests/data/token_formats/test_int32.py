"""Records that begin with their length, as the documentation defines them, and indices that lie about them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from seedbed.data.token_formats import int32
from seedbed.data.tokens import open_tokens
from seedbed.errors import DataError
from tests.data.token_formats.samples import documents, export, tokenizer_of, write_tokens
from tests.hostile import memory_within


def test_the_files_are_those_of_the_definition(tmp_path):
    texts = [[5, 6, 7], [], list(range(256))]
    tokens = write_tokens(tmp_path / "tokens", tokenizer_of("none"), train=texts, val=texts[::-1])
    export(tokens, tmp_path / "files", "int32")
    stores = open_tokens(tokens)
    for name, store in (("train", stores.train), ("val", stores.val)):
        records, offsets = b"", struct.pack("<q", 0)
        for ids in documents(store):
            records += struct.pack(f"<i{len(ids)}i", len(ids), *ids)
            offsets += struct.pack("<q", len(records))
        assert (tmp_path / "files" / f"{name}.bin").read_bytes() == records
        assert (tmp_path / "files" / f"{name}.index").read_bytes() == offsets


RECORDS = [2, 10, 11, 0, 1, 12]  # three documents, at bytes 0, 12 and 16


@pytest.mark.parametrize(
    ("words", "offsets", "problem"),
    [
        (RECORDS, [], "x.index leads nowhere, but x.bin goes from 0 to 24"),
        (RECORDS, [0, 12, 16], "x.index leads from 0 to 16, but x.bin goes from 0 to 24"),
        (RECORDS, [4, 12, 16, 24], "x.index leads from 4 to 24, but"),
        (RECORDS, [0, 16, 12, 24], "puts record 1 at bytes 16 to 12"),
        (RECORDS, [0, 12, 12, 24], "puts record 1 at bytes 12 to 12"),
        (RECORDS, [0, -4, 16, 24], "puts record 0 at bytes 0 to -4"),
        (RECORDS, [0, 2**62, 16, 24], "puts record 0 at bytes 0 to 4,611,686,018,427,387,904"),
        (RECORDS, [0, 13, 16, 24], "puts record 1 at bytes 13 to 16"),
        (RECORDS, [0, 12, 24], "x.bin: record 1 says 0 tokens, but its index gives it 2"),
        ([2**31 - 1, *RECORDS[1:]], [0, 12, 16, 24], "x.bin: record 0 says 2,147,483,647 tokens, but its index gives"),
        ([-2, *RECORDS[1:]], [0, 12, 16, 24], "x.bin: record 0 says -2 tokens, but its index gives it 2"),
    ],
)
def test_an_index_that_lies_is_refused_in_little_memory(words, offsets, problem, tmp_path):
    (tmp_path / "x.bin").write_bytes(np.array(RECORDS, "<i4").tobytes())
    (tmp_path / "x.index").write_bytes(np.array([0, 12, 16, 24], "<i8").tobytes())
    found = int32.read(tmp_path, "x")
    assert [found.tokens[start:stop].tolist() for start, stop in found.spans] == [[10, 11], [], [12]]
    (tmp_path / "x.bin").write_bytes(np.array(words, "<i4").tobytes())
    (tmp_path / "x.index").write_bytes(np.array(offsets, "<i8").tobytes())
    with memory_within(50 << 20), pytest.raises(DataError) as raised:
        int32.read(tmp_path, "x")
    assert problem in raised.value.problem and str(tmp_path) in raised.value.problem


@pytest.mark.parametrize(("name", "bits"), [("x.bin", 32), ("x.index", 64)])
def test_files_that_are_cut_off_are_refused(name, bits, tmp_path):
    for each in ("x.bin", "x.index"):
        (tmp_path / each).write_bytes(bytes(8))
    (tmp_path / name).write_bytes(bytes(7))
    with pytest.raises(DataError, match=rf"{name} holds 7 bytes, which is no whole number of {bits}-bit entries"):
        int32.read(tmp_path, "x")
