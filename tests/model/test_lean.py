"""Lean chains compute what the plain formulas do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from seedbed.model.lean import gated_silu, rms_norm


def numbers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def test_gradients_pass_the_check_by_differences():
    x_D, weight_D = numbers(2, 3, 6), numbers(6, seed=1)
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 1e-3), (x_D, weight_D))
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x.mT, weight[:3], 1e-3), (x_D, weight_D))
    assert torch.autograd.gradcheck(gated_silu, (numbers(3, 5), numbers(3, 5, seed=1)))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_values_are_those_of_torch(dtype, near):
    x_D, weight_D = numbers(4, 64, dtype=dtype), numbers(64, dtype=dtype, seed=1)
    assert rms_norm(x_D, weight_D, 1e-6).dtype == dtype
    torch.testing.assert_close(
        rms_norm(x_D, weight_D, 1e-6), F.rms_norm(x_D, (64,), weight_D, 1e-6), rtol=near, atol=near
    )
    torch.testing.assert_close(gated_silu(x_D, x_D), F.silu(x_D) * x_D, rtol=near, atol=near)


def test_a_narrow_vector_is_normed_in_wide_numbers():
    """fp16 ends at 65,504: the squares of these would not fit."""
    x_D = torch.full((1, 8), 1000.0, dtype=torch.float16)
    assert torch.equal(rms_norm(x_D, torch.ones(8, dtype=torch.float16), 1e-6), torch.ones(1, 8, dtype=torch.float16))


def test_only_the_inputs_are_kept():
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (sizes.append(tensor.numel()), tensor)[1], lambda t: t
    ):
        rms_norm(numbers(100, 8), numbers(8), 1e-6)
        gated_silu(numbers(100, 8), numbers(100, 8))
    assert sorted(sizes) == [8, 100, 800, 800, 800]
