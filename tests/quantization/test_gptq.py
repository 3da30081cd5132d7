"""GPTQ is what its authors derive it from, and never worse than rounding each number by itself."""

from __future__ import annotations

import pytest
import torch

from seedbed.model.linears.int4 import HIGHEST, LOWEST, spread
from seedbed.quantization.gptq import BLOCK, DAMPING, gptq
from seedbed.quantization.rounding import int4_scales, whole_numbers


def problem(outputs=6, width=24, rows=200, seed=0):
    """A weight, its scales, and inputs whose coordinates go together."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, width, generator=generator)
    mixed = torch.randn(width, width, generator=generator)
    x = torch.randn(rows, width, generator=generator) @ mixed
    return weight, spread(int4_scales(weight, 8).float(), 8, width), x.double()


def optimal_brain_quantization(weight, scale, second):
    """Row by row and column by column, H⁻¹ made anew for the columns that are left (Frantar & Alistarh 2022,
    arXiv:2208.11580, eq. 7), in the fixed order of GPTQ: O(outputs · width⁴)."""
    order = second.diagonal().argsort(descending=True, stable=True).tolist()
    damped = second + DAMPING * second.diagonal().mean() * torch.eye(len(second))
    found = torch.zeros_like(weight, dtype=torch.float64)
    for row in range(len(weight)):
        left = weight[row].double().clone()
        for number, column in enumerate(order):
            rest = order[number:]
            inverse = torch.linalg.inv(damped[rest][:, rest])
            step = scale[row, column].double()
            found[row, column] = whole_numbers(left[column], step, LOWEST, HIGHEST)
            lost = left[column] - found[row, column] * step
            left[rest] -= lost / inverse[0, 0] * inverse[:, 0]
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_optimal_brain_quantization_in_a_fixed_order(seed):
    weight, scale, x = problem(seed=seed)
    second = x.T @ x
    assert torch.equal(gptq(weight, scale, second, LOWEST, HIGHEST), optimal_brain_quantization(weight, scale, second))


@pytest.mark.parametrize("width", [16, BLOCK, 2 * BLOCK + 8])
def test_outputs_are_nearer_than_by_the_nearest_numbers(width):
    weight, scale, x = problem(outputs=40, width=width, rows=4 * width)
    wanted = x @ weight.double().T

    def lost(whole):
        return float((x @ (whole * scale).double().T - wanted).norm())

    nearest = whole_numbers(weight, scale, LOWEST, HIGHEST)
    assert lost(gptq(weight, scale, x.T @ x, LOWEST, HIGHEST)) < 0.9 * lost(nearest)


def test_blocks_change_nothing(monkeypatch):
    weight, scale, x = problem(width=50)
    whole = gptq(weight, scale, x.T @ x, LOWEST, HIGHEST)
    for size in (1, 7, 50):
        monkeypatch.setattr("seedbed.quantization.gptq.BLOCK", size)
        assert torch.equal(gptq(weight, scale, x.T @ x, LOWEST, HIGHEST), whole)


def test_inputs_that_go_alone_are_rounded_alone():
    """Nothing can be made good where inputs never occur together."""
    weight, scale, _ = problem()
    second = torch.diag(torch.rand(24) + 0.1)
    nearest = whole_numbers(weight, scale, LOWEST, HIGHEST)
    assert torch.equal(gptq(weight, scale, second, LOWEST, HIGHEST), nearest.double())


def test_inputs_that_never_occur_do_no_harm():
    weight, scale, x = problem()
    x[:, 3] = 0
    found = gptq(weight, scale, x.T @ x, LOWEST, HIGHEST)
    assert torch.equal(found[:, 3], whole_numbers(weight, scale, LOWEST, HIGHEST)[:, 3].double())
    nothing = gptq(weight, scale, torch.zeros(24, 24), LOWEST, HIGHEST)
    assert torch.equal(nothing, whole_numbers(weight, scale, LOWEST, HIGHEST).double())


def test_numbers_stay_in_range():
    weight, scale, x = problem()
    found = gptq(weight, 0.3 * scale, x.T @ x, LOWEST, HIGHEST)
    assert found.min() == LOWEST and found.max() == HIGHEST
