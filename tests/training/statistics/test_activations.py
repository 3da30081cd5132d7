"""What flows through the model, against a forward pass written out by hand.

Shape suffixes: B rows, T query positions, S key positions, D model width, H query heads, K head width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.model.attention import AttentionMask
from seedbed.training.statistics.activations import activation_statistics, attention_entropy
from tests.tiny import TINY, random_rows, tiny_model


@given(st.integers(1, 9), st.sampled_from([(4, 4), (4, 2), (4, 1)]), st.booleans(), st.integers(0, 99))
def test_attention_entropy_is_that_of_the_weights_that_attention_uses(length, heads, packed, seed):
    generator = torch.Generator().manual_seed(seed)
    q_BHTK = torch.randn(2, heads[0], length, 8, generator=generator, dtype=torch.float64)
    k_BGSK = torch.randn(2, heads[1], length, 8, generator=generator, dtype=torch.float64)
    segments_BT = torch.randint(0, 2, (2, length), generator=generator).cumsum(1) if packed else torch.zeros(2, length)
    mask = AttentionMask.within_documents(segments_BT) if packed else AttentionMask.causal()
    found_BHT = attention_entropy(q_BHTK, k_BGSK, mask)
    for row in range(2):
        for head in range(heads[0]):
            for t in range(length):
                seen = [s for s in range(t + 1) if segments_BT[row, s] == segments_BT[row, t]]
                keys = k_BGSK[row, head * heads[1] // heads[0], seen]
                weights = torch.softmax(keys @ q_BHTK[row, head, t] / math.sqrt(8), 0)
                expected = -float((weights * weights.log()).sum())
                assert float(found_BHT[row, head, t]) == pytest.approx(expected, abs=1e-5)


def test_a_query_that_sees_nothing_has_no_entropy():
    nothing = AttentionMask(torch.zeros(1, 3, 3, dtype=torch.bool))
    assert torch.equal(attention_entropy(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4), nothing), torch.zeros(1, 1, 3))


def test_the_statistics_are_those_of_the_forward_pass():
    model = tiny_model(replace(TINY, layers=2))
    tokens_BT = random_rows(3).tokens_NT
    found = activation_statistics(model, lambda: model(tokens_BT))
    with torch.no_grad():
        logits_BTV, x_BTD = model(tokens_BT), model.embedding(tokens_BT)
        angles, mask = model.positions.angles(tokens_BT.shape[1]), AttentionMask.causal()
        for number, block in enumerate(model.blocks):
            x_BTD = block(x_BTD, angles, mask, None)
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
