from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seedbed.model.linears.int8 import Int8Linear, quantise_rows
from seedbed.model.linears.packed import PackedInt8Linear, PackedLinear
from seedbed.model.packing import pack
from tests.random_models import random_model

SIZES = st.integers(1, 200)


def layer(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inputs * 1000 + outputs)
    made = nn.Linear(inputs, outputs, bias=bias)
    made.weight.detach().mul_(3)
    return made


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(plain: nn.Linear) -> list[PackedLinear | PackedInt8Linear]:
    return [PackedLinear(plain.weight, plain.bias), PackedInt8Linear(Int8Linear.of(plain))]


@settings(max_examples=60, deadline=None)
@given(rows=SIZES, inputs=SIZES, outputs=SIZES, bias=st.booleans())
def test_of_any_size_it_is_the_product(rows, inputs, outputs, bias):
    plain = layer(inputs, outputs, bias=bias)
    x = numbers(rows, inputs)
    found = PackedLinear(plain.weight, plain.bias)(x)
    torch.testing.assert_close(found.double(), plain.double()(x.double()), atol=1e-4, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rows=SIZES, inputs=SIZES, outputs=SIZES, bias=st.booleans())
def test_in_whole_numbers_it_is_what_pytorch_computes(rows, inputs, outputs, bias):
    """Whole numbers leave no room; where a number of x lies between two of them, either may be taken."""
    quantised = Int8Linear.of(layer(inputs, outputs, bias=bias))
    x = numbers(rows, inputs)
    x, scale = quantise_rows(x)
    x = x * scale  # whole numbers times a scale: no doubt about any
    torch.testing.assert_close(PackedInt8Linear(quantised)(x), quantised(x), atol=1e-5, rtol=1e-5)


def test_whole_numbers_are_near():
    plain = layer(512, 300)
    x = numbers(20, 512)
    found, wanted = PackedInt8Linear(Int8Linear.of(plain))(x), plain(x)
    assert (found - wanted).norm() < 0.012 * wanted.norm()


@pytest.mark.parametrize("place", [0, 1], ids=["fp32", "int8"])
@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 99), count=st.integers(1, 100), threads=st.integers(1, 4))
def test_a_row_has_the_same_bits_whatever_is_beside_it(place, first, count, threads):
    one = packed(layer(96, 130))[place]
    x = numbers(100, 96)
    before = torch.get_num_threads()
    whole = one(x)
    torch.set_num_threads(threads)
    try:
        part = one(x[first : first + count])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(part, whole[first : first + count])


@pytest.mark.parametrize("place", [0, 1], ids=["fp32", "int8"])
def test_shapes_are_those_of_a_linear_layer(place):
    one = packed(layer(12, 20))[place]
    x = numbers(2, 3, 4, 12)
    assert one(x).shape == (2, 3, 4, 20)
    assert one(x.transpose(0, 1)).equal(one(x).transpose(0, 1))
    assert one(x[:0]).shape == (0, 3, 4, 20)
    assert one(torch.zeros(1, 12)).isfinite().all()


@pytest.mark.parametrize("place", [0, 1], ids=["fp32", "int8"])
@pytest.mark.parametrize("where", [5, 39])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_no_number_stays_none(place, wrong, where):
    x = numbers(3, 40)
    x[1, where] = wrong
    found = packed(layer(40, 20))[place](x)
    assert not found[1].isfinite().any() and found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("tied", [False, True])
@torch.inference_mode()
def test_a_packed_model_computes_the_same(tied):
    plain = random_model(3, tied=tied)
    tokens = torch.randint(0, plain.config.vocab_size, (2, 20))
    wanted = plain(tokens)
    found = pack(plain)(tokens)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, nn.Linear) for module in plain.modules())


def test_bf16_stays_as_it_is():
    plain = random_model(3).to(torch.bfloat16)
    assert any(isinstance(module, nn.Linear) for module in pack(plain).modules())
