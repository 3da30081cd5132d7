"""The feed-forward against its formula, for each activation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from seedbed.model.config import ModelConfig
from seedbed.model.feedforward import build_feedforward
from tests.random_models import GQA, randomise

CONFIG = ModelConfig(vocab_size=5, **GQA).resolve()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def relu(x):
    return max(x, 0.0)


def silu(x):
    return x * sigmoid(x)


PLAIN = {"gelu": gelu, "relu": relu, "relu2": lambda x: relu(x) ** 2, "silu": silu}
GATED = {"swiglu": silu, "geglu": gelu, "reglu": relu}


def layer_and_input(**choices):
    layer = build_feedforward(replace(CONFIG, **choices)).double()
    randomise(layer)
    return layer, torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def each(function, x):
    return x.clone().detach().apply_(function)


def affine(linear, x):
    return x @ linear.weight.T + (0 if linear.bias is None else linear.bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", PLAIN)
def test_a_plain_one_is_two_matrices_with_the_activation_between(activation, bias):
    layer, x = layer_and_input(activation=activation, feedforward_bias=bias)
    assert (layer.up.bias is not None) == (layer.down.bias is not None) == bias
    wanted = affine(layer.down, each(PLAIN[activation], affine(layer.up, x)))
    torch.testing.assert_close(layer(x), wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", GATED)
def test_a_gated_one_multiplies_what_passes(activation, bias):
    layer, x = layer_and_input(activation=activation, feedforward_bias=bias)
    assert (layer.gate.bias is not None) == bias
    wanted = affine(layer.down, each(GATED[activation], affine(layer.gate, x)) * affine(layer.up, x))
    torch.testing.assert_close(layer(x), wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("activation", "width"), [("swiglu", 512), ("gelu", 768), ("relu2", 768)])
def test_left_out_the_width_is_eight_thirds_with_a_gate_and_four_times_without(activation, width):
    assert ModelConfig(vocab_size=5, width=192, activation=activation).resolve().ff_width == width
