"""Each layer against its formula, written out.

Shape suffixes: B batch, T positions, S key positions, D model width, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import math

import torch

from seedbed.model.config import ModelConfig
from seedbed.model.positions import RotaryPositions, rotate
from seedbed.model.transformer import Block, Transformer
from tests.random_masks import causal_attention
from tests.random_models import GQA, random_model, randomise


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rope_turns_each_pair_by_position_times_frequency():
    width, base = 8, 500.0
    x = draw(1, 2, 20, width)
    got = rotate(x, RotaryPositions(width, base).double().angles(20, None))
    for t in range(20):
        for i in range(width // 2):
            angle = t * base ** (-2 * i / width)
            a, b = x[..., t, i], x[..., t, i + width // 2]
            # The table of angles holds 32 bits.
            torch.testing.assert_close(got[..., t, i], a * math.cos(angle) - b * math.sin(angle), rtol=0, atol=5e-7)
            torch.testing.assert_close(
                got[..., t, i + width // 2], a * math.sin(angle) + b * math.cos(angle), rtol=0, atol=5e-7
            )


def test_rope_takes_the_angles_of_given_positions():
    positions = RotaryPositions(8, 100.0).double()
    x = draw(2, 3, 4, 8)
    positions_BT = torch.tensor([[0, 1, 0, 1], [7, 19, 3, 3]])
    got = rotate(x, positions.angles(4, positions_BT))
    for b in range(2):
        for t in range(4):
            at = int(positions_BT[b, t])
            alone = rotate(x[b, :, t].expand(20, -1, -1).transpose(0, 1)[None], positions.angles(20, None))[0, :, at]
            assert torch.equal(got[b, :, t], alone)


def test_scores_depend_on_the_distance_only():
    positions = RotaryPositions(8, 10_000.0).double()
    q, k = draw(8, seed=1), draw(8, seed=2)
    turned_q, turned_k = (rotate(x.expand(1, 1, 64, 8), positions.angles(64, None))[0, 0] for x in (q, k))
    near, far = turned_q[9] @ turned_k[4], turned_q[60] @ turned_k[55]
    torch.testing.assert_close(near, far, rtol=0, atol=1e-5)
    assert abs(near - turned_q[9] @ turned_k[5]) > 1e-3


def test_gradients_of_a_block_are_those_of_finite_differences():
    config = ModelConfig(vocab_size=3, layers=1, width=6, heads=2, kv_heads=1, head_width=4, ff_width=5, context=4)
    block = Block(config.resolve()).double()
    randomise(block)
    angles = tuple(part.double() for part in RotaryPositions(4, 100.0).angles(4, None))
    names, weights = zip(*block.named_parameters(), strict=True)

    def forward(x, *values):
        arguments = (x, angles, causal_attention(1, 4), None)
        return torch.func.functional_call(block, dict(zip(names, values, strict=True)), arguments)

    assert torch.autograd.gradcheck(forward, (draw(1, 4, 6).requires_grad_(), *weights))


def test_a_fresh_block_is_the_identity():
    model = Transformer(ModelConfig(vocab_size=11, **GQA))
    x = draw(2, 5, 32).float()
    for block in model.blocks:
        assert torch.equal(block(x, model.positions.angles(5, None), causal_attention(2, 5), None), x)


def test_every_weight_of_a_random_model_gets_a_gradient():
    model = random_model()
    model(torch.arange(12).view(2, 6)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_angles_stay_in_fp32_in_a_bf16_model():
    """bf16 cannot tell position 257 from 256."""
    model = random_model(context=600).bfloat16()
    angles = model.positions.angles(600)
    assert {part.dtype for part in angles} == {torch.float32}
    x = draw(1, 1, 600, 8).bfloat16()
    got, exact = rotate(x, angles), rotate(x.float(), RotaryPositions(8, 10_000.0).angles(600))
    assert got.dtype is torch.bfloat16 and torch.equal(got, exact.bfloat16())


def test_angles_have_the_same_bits_however_long_the_table_is():
    grown, whole = RotaryPositions(8, 500.0), RotaryPositions(8, 500.0)
    for length in (1, 7, 1500, 3, 5000):
        grown.angles(length)
    for one, other in zip(grown.angles(5000), whole.angles(5000), strict=True):
        assert torch.equal(one, other)


def test_angles_made_while_generating_serve_training():
    model = random_model()
    with torch.inference_mode():
        model(torch.arange(12).view(2, 6))
    model(torch.arange(12).view(2, 6)).sum().backward()
    assert model.embedding.weight.grad is not None
