"""SGD against torch's, whose weight decay is another."""

from __future__ import annotations

import pytest
import torch

from seedbed.optim.sgd import SGD
from tests.optim.matrices import draw


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_decay_it_is_torchs(momentum):
    own, peer = (torch.nn.Parameter(draw(5, 8, seed=9)) for _ in range(2))
    optimizer, other = SGD([own], lr=0.1, momentum=momentum), torch.optim.SGD([peer], lr=0.1, momentum=momentum)
    for step in range(5):
        own.grad, peer.grad = draw(5, 8, seed=step), draw(5, 8, seed=step)
        optimizer.step()
        other.step()
        torch.testing.assert_close(own, peer, rtol=0, atol=1e-14)


def test_decay_is_apart_from_momentum():
    weight, momentum = draw(5, seed=9), torch.zeros(5, dtype=torch.float64)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.3)
    for step in range(5):
        gradient = draw(5, seed=step)
        momentum = 0.9 * momentum + gradient
        weight = weight - 0.1 * momentum - 0.1 * 0.3 * weight
        parameter.grad = gradient
        optimizer.step()
        torch.testing.assert_close(parameter.data, weight, rtol=0, atol=1e-14)
