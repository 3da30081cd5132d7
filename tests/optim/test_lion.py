"""Lion against its formula."""

from __future__ import annotations

import pytest
import torch

from seedbed.optim.lion import Lion
from tests.optim.matrices import draw


@pytest.mark.parametrize("shape", [(5, 8), (7,), ()], ids=str)
def test_steps_follow_the_formula_written_out(shape):
    lr, beta1, beta2, decay = 0.03, 0.8, 0.95, 0.2
    weight, momentum = draw(*shape, seed=9), torch.zeros(shape, dtype=torch.float64)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = Lion([parameter], lr=lr, betas=(beta1, beta2), weight_decay=decay)
    for step in range(5):
        gradient = draw(*shape, seed=step)
        update = torch.sign(beta1 * momentum + (1 - beta1) * gradient)
        weight = weight - lr * (update + decay * weight)
        momentum = beta2 * momentum + (1 - beta2) * gradient
        parameter.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(parameter.data, weight, rtol=0, atol=1e-14)


def test_a_weight_without_a_gradient_stays_and_one_whose_gradient_is_nought_only_decays():
    stays, decays = (torch.nn.Parameter(draw(4, 4, seed=seed)) for seed in (1, 2))
    before = [stays.detach().clone(), decays.detach().clone()]
    decays.grad = torch.zeros(4, 4, dtype=torch.float64)
    Lion([stays, decays], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(stays, before[0])
    torch.testing.assert_close(decays.data, before[1] * 0.95, rtol=0, atol=1e-15)
