"""What flows through the model, against a forward pass written out by hand.

Shape suffixes: B rows, T positions, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from seedbed.model.masks import AttentionMask
from seedbed.training.statistics.activations import activation_statistics
from tests.tiny import TINY, random_rows, tiny_model


def test_the_statistics_are_those_of_the_forward_pass():
    model = tiny_model(replace(TINY, layers=2))
    tokens_BT = random_rows(3).tokens_NT
    found = activation_statistics(model, lambda: model(tokens_BT))
    with torch.no_grad():
        logits_BTV, x_BTD = model(tokens_BT), model.embedding(tokens_BT)
        angles = model.positions.angles(tokens_BT.shape[1])
        attends = model.attends(AttentionMask(*tokens_BT.shape, tokens_BT.shape[1], tokens_BT.device))
        for number, (block, attend) in enumerate(zip(model.blocks, attends, strict=True)):
            x_BTD = block(x_BTD, angles, attend, None)
            assert found[f"activation_rms/block_{number}"] == pytest.approx(float(x_BTD.square().mean()) ** 0.5)
            assert found[f"activation_max/block_{number}"] == pytest.approx(float(x_BTD.abs().max()))
            assert found[f"activation_zeros/block_{number}"] == 0
            assert 0 < found[f"attention_entropy/block_{number}"] < math.log(12)
    assert found["logit_max"] == pytest.approx(float(logits_BTV.abs().max()))
    p_BTV = logits_BTV.double().softmax(-1)
    assert found["logit_entropy"] == pytest.approx(float(-(p_BTV * p_BTV.log()).sum(-1).mean()))


def test_units_that_are_nought_are_counted():
    model = tiny_model()
    with torch.no_grad():
        model.blocks[0].feedforward.up.weight[:8] = 0  # of 32
    found = activation_statistics(model, lambda: model(random_rows(3).tokens_NT))
    assert found["activation_zeros/block_0"] == 0.25


def test_nothing_stays_hooked():
    model = tiny_model()

    def fail() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        activation_statistics(model, fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
