"""What an optimizer says it keeps is what it keeps."""

from __future__ import annotations

import pytest
import torch

from seedbed.optim.config import USUAL, OptimizerConfig
from seedbed.optim.groups import build_optimizers
from seedbed.optim.state import state_shapes
from tests.random_models import random_model


@pytest.mark.parametrize("name", USUAL)
def test_shapes_are_those_of_the_state_after_a_step(name):
    model = random_model()
    optimizers = build_optimizers(model, OptimizerConfig(name=name))
    told = {}
    for optimizer in optimizers:
        told |= state_shapes(optimizer, {parameter: parameter.shape for parameter in model.parameters()})
        assert not optimizer.state  # nothing is begun by asking
    model(torch.arange(20)[None]).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    kept = {
        parameter: {key: tuple(tensor.shape) for key, tensor in optimizer.state[parameter].items()}
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert told == kept and len(kept) == len(list(model.parameters())) and all(kept.values())
