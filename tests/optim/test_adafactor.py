"""Adafactor against torch's and against its formula."""

from __future__ import annotations

import pytest
import torch

from seedbed.optim.adafactor import Adafactor
from tests.optim.matrices import draw


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (3, 4, 6), (7,)], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_with_relative_steps_it_is_torchs(shape, decay):
    """Whose rate is at most 1/√t, and whose ε₁ is another, which is nothing beside gradients of this size."""
    own, peer = (torch.nn.Parameter(draw(*shape, seed=9)) for _ in range(2))
    optimizer = Adafactor([own], lr=0.1, weight_decay=decay, relative=True)
    other = torch.optim.Adafactor([peer], lr=0.1, weight_decay=decay, foreach=False)
    for step in range(20):
        own.grad, peer.grad = (draw(*shape, seed=step) * 3**step for _ in range(2))
        optimizer.step()
        other.step()
        # torch measures the size of a weight before it decays, as we do.
        torch.testing.assert_close(own, peer, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(5, 8), (7,)], ids=str)
def test_steps_follow_the_formula_written_out(shape):
    lr, decay = 0.1, 0.2
    weight = draw(*shape, seed=9)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = Adafactor([parameter], lr=lr, weight_decay=decay)
    rows, columns, squares = torch.zeros(5).double(), torch.zeros(8).double(), torch.zeros(7).double()
    for step in range(1, 9):
        gradient = draw(*shape, seed=step) * 2**step
        beta = 1 - step**-0.8
        if len(shape) == 2:
            rows = beta * rows + (1 - beta) * (gradient**2).sum(1)
            columns = beta * columns + (1 - beta) * (gradient**2).sum(0)
            second = torch.outer(rows, columns) / rows.sum()
        else:
            second = squares = beta * squares + (1 - beta) * gradient**2
        update = gradient / second**0.5
        update /= max(1, float((update**2).mean() ** 0.5))
        weight = weight - lr * (update + decay * weight)
        parameter.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(parameter.data, weight, rtol=0, atol=1e-12)


def test_a_matrix_keeps_one_number_a_row_and_one_a_column():
    parameter = torch.nn.Parameter(torch.randn(30, 50))
    optimizer = Adafactor([parameter])
    parameter.grad = torch.randn(30, 50)
    optimizer.step()
    assert sum(tensor.numel() for tensor in optimizer.state[parameter].values()) == 30 + 50 + 1


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e15])
def test_gradients_of_any_size_move_no_weight_to_nan_or_infinity(scale):
    parameter = torch.nn.Parameter(torch.randn(6, 9))
    optimizer = Adafactor([parameter])
    for seed in range(3):
        parameter.grad = draw(6, 9, seed=seed).float() * scale
        parameter.grad[2] = 0  # as the row of a token that did not come up
        optimizer.step()
        assert parameter.isfinite().all()
