"""Four bits are packed as compressed-tensors packs them, and come out as they went in.

Peer: compressed-tensors, the installed version.
"""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from hypothesis import given
from hypothesis import strategies as st

from seedbed.model.linears.int4 import HIGHEST, LOWEST, Int4Matrix, packed, unpacked
from seedbed.model.linears.storage import Storage

SIZES = st.integers(1, 40)


def numbers(*shape, seed=0):
    return torch.randint(LOWEST, HIGHEST + 1, shape, generator=torch.Generator().manual_seed(seed))


@given(rows=SIZES, width=SIZES, seed=st.integers(0, 9))
def test_what_is_packed_is_unpacked(rows, width, seed):
    whole = numbers(rows, width, seed=seed)
    words = packed(whole)
    assert words.dtype == torch.int32 and words.shape == (rows, -(-width // 8))
    assert torch.equal(unpacked(words, width), whole)
    assert torch.equal(words, pack_to_int32(whole.to(torch.int8), 4))


@given(rows=SIZES, width=SIZES, group=SIZES)
def test_each_group_has_its_scale(rows, width, group):
    whole, scale = numbers(rows, width), torch.rand(rows, -(-width // group)).half() - 0.5
    matrix = Int4Matrix.of(whole, scale, Storage(scheme="int4", group=group))
    wanted = torch.stack([whole[:, d] * scale[:, d // group].float() for d in range(width)], dim=1)
    assert torch.equal(matrix.dense(), wanted)
    chosen = torch.tensor([[rows - 1, 0], [0, 0]])
    assert torch.equal(matrix.rows(chosen), wanted[chosen])


def test_a_stack_is_its_matrices():
    whole, scale, storage = numbers(3, 5, 20), torch.rand(3, 5, 3), Storage(scheme="int4", group=8)
    apart = [Int4Matrix.of(one, part, storage).dense() for one, part in zip(whole, scale, strict=True)]
    assert torch.equal(Int4Matrix.of(whole, scale, storage).dense(), torch.stack(apart))


def test_parts_are_as_promised_and_make_the_matrix_again():
    storage = Storage(scheme="int4", group=16)
    matrix = Int4Matrix.of(numbers(6, 40), torch.rand(6, 3), storage)
    parts = matrix.parts()
    assert {name: (part.dtype, tuple(part.shape)) for name, part in parts.items()} == matrix.promised((6, 40), storage)
    assert torch.equal(Int4Matrix.of_parts(parts, (6, 40), storage).dense(), matrix.dense())
    with pytest.raises(ValueError, match=r"its shape is told as \[6, 41\], it is \[6, 40\]"):
        Int4Matrix.of_parts(parts | {"_shape": torch.tensor([6, 41])}, (6, 40), storage)
