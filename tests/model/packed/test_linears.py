from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seedbed.model.linears.int8 import Int8Linear, quantise_rows
from seedbed.model.packed.linears import packed

SIZES = st.integers(1, 200)


def layer(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inputs * 1000 + outputs)
    made = nn.Linear(inputs, outputs, bias=bias)
    made.weight.detach().mul_(3)
    return made


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def int8_of(plain: nn.Linear) -> Int8Linear:
    weight_OD, scale_O1 = quantise_rows(plain.weight.detach())
    return Int8Linear(weight_OD, scale_O1[:, 0], None if plain.bias is None else plain.bias.detach())


def both(plain: nn.Linear) -> list[nn.Module]:
    return [packed(plain), packed(int8_of(plain))]


@settings(max_examples=60, deadline=None)
@given(rows=SIZES, inputs=SIZES, outputs=SIZES, bias=st.booleans())
def test_of_any_size_it_is_the_product(rows, inputs, outputs, bias):
    plain = layer(inputs, outputs, bias=bias)
    x = numbers(rows, inputs)
    found = packed(plain)(x)
    torch.testing.assert_close(found.double(), plain.double()(x.double()), atol=1e-4, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rows=SIZES, inputs=SIZES, outputs=SIZES, bias=st.booleans())
def test_in_whole_numbers_it_is_what_pytorch_computes(rows, inputs, outputs, bias):
    """Whole numbers leave no room; where a number of x lies between two of them, either may be taken."""
    quantised = int8_of(layer(inputs, outputs, bias=bias))
    x = numbers(rows, inputs)
    x, scale = quantise_rows(x)
    x = x * scale  # whole numbers times a scale: no doubt about any
    torch.testing.assert_close(packed(quantised)(x), quantised(x), atol=1e-5, rtol=1e-5)


def test_whole_numbers_are_near():
    plain = layer(512, 300)
    x = numbers(20, 512)
    found, wanted = packed(int8_of(plain))(x), plain(x)
    assert (found - wanted).norm() < 0.012 * wanted.norm()


@pytest.mark.parametrize("place", [0, 1], ids=["fp32", "int8"])
@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 99), count=st.integers(1, 100), threads=st.integers(1, 4))
def test_a_row_has_the_same_bits_whatever_is_beside_it(place, first, count, threads):
    one = both(layer(96, 130))[place]
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
    one = both(layer(12, 20))[place]
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
    found = both(layer(40, 20))[place](x)
    assert not found[1].isfinite().any() and found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("place", [0, 1], ids=["fp32", "int8"])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_one_after_the_other_have_their_outputs_beside_one_another(place, bias):
    layers = [layer(40, outputs, bias=bias) for outputs in (20, 70, 3)]
    x = numbers(5, 40)
    kinds = layers if place == 0 else [int8_of(each) for each in layers]
    assert torch.equal(packed(*kinds)(x), torch.cat([both(each)[place](x) for each in layers], dim=-1))


def test_layers_of_different_kinds_are_not_one():
    assert packed(layer(4, 4), int8_of(layer(4, 4))) is None
    assert packed(nn.Identity()) is None


def test_numbers_between_two_whole_ones_are_rounded_alike():
    """A grid on which many lie just there."""
    x = torch.randint(-2032, 2033, (50, 320), generator=torch.Generator().manual_seed(0)) / 16
    quantised = int8_of(layer(320, 64))
    torch.testing.assert_close(packed(quantised)(x), quantised(x), rtol=1e-6, atol=1e-4)
