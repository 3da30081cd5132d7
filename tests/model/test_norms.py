"""Norms against their formulas; their places in a block.

Shape suffixes: B batch, T positions, D model width.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.norms import RMSNorm, build_norm
from seedbed.model.transformer import BLOCKS, Transformer
from tests.random_masks import causal_attention
from tests.random_models import GQA, random_model, randomise

CONFIG = ModelConfig(vocab_size=5, norm_epsilon=0.01, **GQA).resolve()


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_rms_norm_divides_by_the_root_mean_square():
    norm = RMSNorm(5, 0.01).double()
    randomise(norm)
    x = draw(3, 5)
    for row, got in zip(x, norm(x), strict=True):
        rms = math.sqrt(sum(float(value) ** 2 for value in row) / 5 + 0.01)
        torch.testing.assert_close(got, row / rms * norm.weight, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_takes_the_mean_away_first(bias):
    norm = build_norm(5, replace(CONFIG, norm="layer", norm_bias=bias)).double()
    randomise(norm)
    assert (norm.bias is not None) == bias
    x = draw(3, 5)
    for row, got in zip(x, norm(x), strict=True):
        mean = sum(float(value) for value in row) / 5
        spread = math.sqrt(sum((float(value) - mean) ** 2 for value in row) / 5 + 0.01)
        wanted = (row - mean) / spread * norm.weight + (norm.bias if bias else 0)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-14)


def test_an_rms_norm_with_a_bias_is_refused():
    with pytest.raises(ConfigError, match="norm_bias needs norm layer"):
        ModelConfig(vocab_size=5, norm_bias=True)


ATTEND = causal_attention(2, 6)


def block_of(place):
    block = BLOCKS[place](replace(CONFIG, norm_place=place, positions="none")).double()
    randomise(block)
    return block, draw(2, 6, CONFIG.width)


def test_pre_norms_stand_before_attention_and_feed_forward():
    block, x = block_of("pre")
    middle = x + block.attention(block.attention_norm(x), None, ATTEND, None)
    wanted = middle + block.feedforward(block.feedforward_norm(middle))
    torch.testing.assert_close(block(x, None, ATTEND, None), wanted, rtol=0, atol=0)


def test_post_norms_stand_after_each_sum():
    block, x = block_of("post")
    middle = block.attention_norm(x + block.attention(x, None, ATTEND, None))
    wanted = block.feedforward_norm(middle + block.feedforward(middle))
    torch.testing.assert_close(block(x, None, ATTEND, None), wanted, rtol=0, atol=0)


def test_sandwich_norms_stand_before_and_after():
    block, x = block_of("sandwich")
    middle = x + block.attention_exit_norm(block.attention(block.attention_norm(x), None, ATTEND, None))
    wanted = middle + block.feedforward_exit_norm(block.feedforward(block.feedforward_norm(middle)))
    torch.testing.assert_close(block(x, None, ATTEND, None), wanted, rtol=0, atol=0)


def test_a_post_norm_model_has_no_norm_at_its_end():
    names = [name for name, _ in random_model(norm_place="post").named_parameters()]
    assert not any(name.startswith("final_norm") for name in names)


@torch.no_grad()
def test_without_qk_norm_longer_queries_change_attention_and_with_it_they_do_not():
    for qk_norm in (True, False):
        model = random_model(qk_norm=qk_norm, layers=1).double()
        tokens = torch.arange(12)[None]
        before = model(tokens)
        model.blocks[0].attention.query.weight *= 3
        changed = (model(tokens) - before).abs().max() > 1e-3
        assert changed == (not qk_norm)


def test_fresh_biases_are_zero():
    model = Transformer(replace(CONFIG, norm="layer", norm_bias=True, attention_bias=True, feedforward_bias=True))
    biases = [weight for name, weight in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 * (4 + 3 + 4) + 1 and not any(bias.any() for bias in biases)
