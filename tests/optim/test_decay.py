"""Weight decay is a share of the weight, the same under every optimizer, and cautious where asked for."""

from __future__ import annotations

import pytest
import torch

from seedbed.optim.adafactor import Adafactor
from seedbed.optim.lion import Lion
from seedbed.optim.muon import Muon
from seedbed.optim.sgd import SGD
from tests.optim.matrices import draw

OPTIMIZERS = [Muon, Lion, Adafactor, SGD]


def after_a_step(kind, **options):
    """A weight and what one step with a decay of rate·decay = 0.1 makes of it."""
    parameter = torch.nn.Parameter(draw(6, 9))
    parameter.grad = draw(6, 9, seed=1)
    kind([parameter], lr=0.2, **options).step()
    return parameter.detach()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_decay_takes_the_same_share_of_every_weight_whatever_its_gradient(kind):
    shrunk = after_a_step(kind) - after_a_step(kind, weight_decay=0.5)
    torch.testing.assert_close(shrunk, 0.1 * draw(6, 9), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_cautious_decay_leaves_weights_alone_that_the_update_makes_larger(kind):
    plain, weight = after_a_step(kind), draw(6, 9)
    towards_zero = (weight - plain) * weight >= 0
    shrunk = plain - after_a_step(kind, weight_decay=0.5, cautious=True)
    torch.testing.assert_close(shrunk, 0.1 * weight * towards_zero, rtol=0, atol=1e-12)
    assert 10 < towards_zero.sum() < 44
