"""NF4 has the bits of bitsandbytes.

Peer: bitsandbytes, the installed version, on a CPU.
"""

from __future__ import annotations

import bitsandbytes.functional as peer
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.model.linears.nf4 import NF4Matrix, dynamic_values
from seedbed.model.linears.storage import Storage

NF4 = Storage(scheme="nf4")
SHAPES = [(64, 64), (3, 64), (300, 192), (1000, 128), (257, 64), (512, 512)]


def weights(*shape, seed=0, heavy=False):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(*shape, generator=generator) * 0.05
    return drawn * torch.randn(*shape, generator=generator).exp() if heavy else drawn


def theirs(weight):
    return peer.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)


def test_the_256_values_are_theirs():
    assert torch.equal(dynamic_values(), peer.create_dynamic_map())


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_bit_is_that_of_bitsandbytes(shape, heavy):
    for seed in range(5):
        weight = weights(*shape, seed=seed, heavy=heavy)
        packed, state = theirs(weight)
        ours = NF4Matrix.of(weight, NF4)
        assert torch.equal(ours.packed, packed[:, 0])
        assert torch.equal(ours.most_K, state.absmax)
        assert torch.equal(ours.outer_L, state.state2.absmax) and ours.mean == state.offset
        assert torch.equal(ours.dense(), peer.dequantize_4bit(packed, state))


@given(rows=st.integers(1, 60), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_so_it_is_where_the_last_block_is_short(rows, width, seed):
    """What they make of it again is not compared: their kernel for a CPU takes rows for whole blocks."""
    weight = weights(rows, width, seed=seed)
    packed, state = theirs(weight)
    ours = NF4Matrix.of(weight, NF4)
    assert torch.equal(ours.packed, packed[:, 0]) and torch.equal(ours.most_K, state.absmax)
    assert torch.equal(ours.outer_L, state.state2.absmax) and ours.mean == state.offset
    assert (ours.dense() - weight).norm() < 0.2 * weight.norm()
    assert torch.equal(ours.rows(torch.tensor([[rows - 1, 0]])), ours.dense()[torch.tensor([[rows - 1, 0]])])


def test_nought_stays_nought_and_parts_make_the_matrix_again():
    weight = weights(5, 64)
    weight[1:3] = 0
    matrix = NF4Matrix.of(weight, NF4)
    parts = matrix.parts()
    assert {name: (part.dtype, tuple(part.shape)) for name, part in parts.items()} == matrix.promised((5, 64), NF4)
    assert torch.equal(NF4Matrix.of_parts(parts, (5, 64), NF4).dense(), matrix.dense())
    assert torch.equal(matrix.dense()[1:3], weight[1:3])
    assert torch.equal(NF4Matrix.of(torch.zeros(4, 70), NF4).dense().abs() < 1e-37, torch.ones(4, 70, dtype=torch.bool))
