"""Short convolutions against their formula, between documents, and at their beginning.

Generation with a cache and packed documents: test_cache.py, test_transformer.py.
"""

from __future__ import annotations

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.model.accounting import count_parameters
from seedbed.model.config import ModelConfig
from seedbed.model.convolution import ShortConvolution
from seedbed.model.huggingface.classes import describe_class
from seedbed.model.transformer import Transformer
from seedbed.optim.groups import parameter_kinds
from tests.random_models import GQA, random_model, randomise


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolution(taps, width=5):
    layer = ShortConvolution(width, taps, 0).double()
    randomise(layer)
    return layer


@pytest.mark.parametrize("taps", [2, 4])
@torch.no_grad()
def test_a_position_takes_up_those_before_it_channel_by_channel(taps):
    layer, x = convolution(taps), draw(2, 7, 5)
    got = layer(x, None, None)
    for t in range(7):
        wanted = x[:, t] + sum(layer.weight[i - 1] * x[:, t - i] for i in range(1, taps) if i <= t)
        torch.testing.assert_close(got[:, t], wanted, rtol=0, atol=1e-14)


@torch.no_grad()
def test_it_is_torchs_convolution_of_groups_of_one_channel():
    layer, x = convolution(4), draw(3, 9, 5)
    kernel = torch.cat([layer.weight.flip(0), torch.ones(1, 5, dtype=torch.float64)]).T[:, None]
    peer = torch.nn.functional.conv1d(x.mT, kernel, padding=3, groups=5)[..., :9].mT
    torch.testing.assert_close(layer(x, None, None), peer, rtol=0, atol=1e-14)


@torch.no_grad()
def test_a_row_shorter_than_its_reach_is_read_as_far_as_it_goes():
    layer, x = convolution(4), draw(1, 6, 5)
    torch.testing.assert_close(layer(x[:, :2], None, None), layer(x, None, None)[:, :2], rtol=0, atol=0)


@torch.no_grad()
def test_nothing_of_another_document_is_taken_up():
    layer, x = convolution(4), draw(1, 8, 5)
    positions_BT = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3]])
    got = layer(x, positions_BT, None)
    for document in (slice(0, 3), slice(3, 4), slice(4, 8)):
        assert torch.equal(got[:, document], layer(x[:, document], None, None))


def test_gradients_are_those_of_finite_differences():
    layer, positions_BT = convolution(3), torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])

    def forward(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x, positions_BT, None))

    assert torch.autograd.gradcheck(forward, (draw(2, 5, 5).requires_grad_(), layer.weight))


@torch.no_grad()
def test_a_fresh_convolution_changes_nothing_and_draws_nothing():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=50, **GQA, zero_projections=False, short_convolution=3))
    torch.manual_seed(0)
    plain = Transformer(ModelConfig(vocab_size=50, **GQA, zero_projections=False))
    tokens = torch.arange(24).view(2, 12)
    assert torch.equal(model(tokens), plain(tokens))


@pytest.mark.parametrize("norm_place", ["pre", "post", "sandwich"])
@torch.no_grad()
def test_attention_and_feedforward_both_read_through_it(norm_place):
    """One convolution alone, of the feed-forward or of attention, moves what follows the token before."""
    tokens = torch.arange(24).view(2, 12)
    for name in ("attention_convolution", "feedforward_convolution"):
        model = random_model(short_convolution=2, norm_place=norm_place).double()
        before = model(tokens)
        getattr(model.blocks[-1], name).weight.zero_()
        moved = (model(tokens) - before).abs().amax(-1)
        assert moved[:, 1:].min() > 1e-4 and (name == "attention_convolution" or not moved[:, 0].any())


def test_its_weights_are_moved_as_vectors_and_counted():
    model = random_model(short_convolution=3)
    vectors = parameter_kinds(model)["vector"]
    for block in model.blocks:
        for layer in (block.attention_convolution, block.feedforward_convolution):
            assert layer.weight.shape == (2, 32) and any(layer.weight is weight for weight in vectors)
    assert count_parameters(model.config).convolutions == 2 * 2 * 2 * 32


def test_no_hugging_face_class_has_it():
    config = ModelConfig(vocab_size=50, **GQA, short_convolution=2).resolve()
    assert "has no short_convolution 2." in describe_class(config)


@pytest.mark.parametrize("taps", [-1, 0, 1, 65])
def test_a_reach_that_mixes_nothing_or_is_not_short_is_refused(taps):
    with pytest.raises(ConfigError, match=f"short_convolution must be between 2 and 64, got {taps}"):
        ModelConfig(short_convolution=taps)
