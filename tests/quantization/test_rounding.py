"""Scales are chosen for the least error, and whole numbers are the nearest."""

from __future__ import annotations

import pytest
import torch

from seedbed.errors import DataError
from seedbed.model.linears.int4 import HIGHEST, LOWEST, spread
from seedbed.quantization.rounding import int4_scales, whole_numbers


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(weight, group, importance=None):
    scale = spread(int4_scales(weight, group, importance).float(), group, weight.shape[-1])
    return whole_numbers(weight, scale, LOWEST, HIGHEST) * scale


def error(weight, found, importance=1.0):
    return float((importance * (found - weight).square()).sum())


def test_errors_are_less_than_with_the_largest_number_alone():
    weight = normal(50, 96)
    scale = weight.unflatten(-1, (-1, 32)).abs().amax(-1).repeat_interleave(32, -1) / HIGHEST
    plain = whole_numbers(weight, scale, LOWEST, HIGHEST) * scale
    assert error(weight, rounded(weight, 32)) < 0.8 * error(weight, plain)


def test_what_matters_more_is_nearer():
    weight, importance = normal(50, 64), torch.cat([torch.ones(32), 100 * torch.ones(32)])
    assert error(weight, rounded(weight, 64, importance), importance) < error(weight, rounded(weight, 64), importance)


def test_multiples_of_a_scale_are_exact():
    whole = torch.arange(LOWEST, HIGHEST + 1).float().repeat(3, 1)
    for step in (0.5, -2.0, 2.0**-10):
        assert torch.equal(rounded(whole * step, 16), whole * step)


@pytest.mark.parametrize("width", [1, 7, 33, 64])
def test_widths_that_are_no_multiple_of_the_group_end_with_a_short_one(width):
    weight = normal(4, width)
    alone = [rounded(part.contiguous(), 16) for part in weight.split(16, dim=1)]
    assert torch.equal(rounded(weight, 16), torch.cat(alone, dim=1))


def test_nought_stays_nought():
    weight = normal(3, 32)
    weight[1] = 0
    weight[2, :16] = 0
    assert torch.equal(rounded(weight, 16)[1], weight[1]) and torch.equal(rounded(weight, 16)[2, :16], weight[2, :16])


def test_numbers_of_any_size_that_half_precision_holds_are_near():
    for size in (1e-4, 1.0, 6e4):
        weight = size * normal(4, 32).clamp(-1, 1)
        assert error(weight, rounded(weight, 32)) < 0.02 * error(weight, 0 * weight)
    with pytest.raises(DataError, match="too large for scales in half precision"):
        int4_scales(torch.full((1, 8), 7e4), 8)
