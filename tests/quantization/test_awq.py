"""AWQ scales columns where that helps, and the model computes the same until it is rounded."""

from __future__ import annotations

import pytest
import torch

from seedbed.model.linears.int4 import HIGHEST, LOWEST, spread
from seedbed.model.linears.layers import storable
from seedbed.quantization.awq import best_scale, equalise, stretches
from seedbed.quantization.rounding import int4_scales, whole_numbers
from seedbed.quantization.walk import walk
from tests.random_models import random_model

FAMILIES = {
    "Qwen3": {"kv_heads": 4},
    "shared keys, biases": {"attention_bias": True, "feedforward_bias": True},
    "ReLU, layer norms": {"activation": "relu", "norm": "layer", "norm_bias": True, "feedforward_bias": True},
    "GELU": {"activation": "gelu", "norm": "layer", "kv_heads": 4},
    "sandwich, convolutions": {"norm_place": "sandwich", "short_convolution": 3},
    "post-norm": {"norm_place": "post"},
    "value embeddings": {"value_embeddings": True, "kv_heads": 4},
    "experts": {"experts": 3, "experts_active": 2, "expert_width": 20},
}
CAN_BE_SCALED = dict(zip(FAMILIES, (14, 12, 10, 10, 12, 2, 10, 6), strict=True))
"""Layers of two blocks whose columns can be scaled."""


def sample():
    return torch.randint(0, 50, (4, 20), generator=torch.Generator().manual_seed(0))


def wide(**config):
    """A model of whose inputs some are much larger than others."""
    model = random_model(**config)
    for name, parameter in model.named_parameters():
        if name.endswith("_norm.weight") and parameter.shape[0] == model.config.width:
            parameter.data[::7] *= 20
    return model


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_before_it_is_rounded_the_model_computes_the_same(family):
    model, plain = wide(**FAMILIES[family]), wide(**FAMILIES[family])
    wanted = plain(sample())
    can = []
    for part in walk(model, sample()):
        can += [name for stretch in stretches(model, part) for name in stretch.readers]
        equalise(model, part, list(storable(model)), 8)
        part.run()
    assert len(can) == CAN_BE_SCALED[family]
    torch.testing.assert_close(model(sample()), wanted, atol=2e-4 * float(wanted.abs().amax()), rtol=0)
    scaled = [
        name for name in can if not torch.equal(model.get_submodule(name).weight, plain.get_submodule(name).weight)
    ]
    assert len(scaled) > len(can) / 2


@torch.no_grad()
def test_layers_beside_one_that_is_left_out_are_left_as_they_are():
    model, plain = wide(), wide()
    names = [name for name in storable(model) if not name.endswith(("key", "down"))]
    for part in walk(model, sample()):
        equalise(model, part, names, 8)
        part.run()
    for name in ("query", "key", "value"):
        kept = plain.blocks[0].attention.get_submodule(name).weight
        assert torch.equal(model.blocks[0].attention.get_submodule(name).weight, kept)
    assert not torch.equal(model.blocks[0].feedforward.gate.weight, plain.blocks[0].feedforward.gate.weight)


def test_large_inputs_are_given_more_room():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(40, 64, generator=generator), torch.randn(500, 64, generator=generator)
    x[:, ::16] *= 30
    second = (x.T @ x).double()
    scale = best_scale([weight], second, 64)

    def lost(scale):
        step = spread(int4_scales(weight * scale, 64).float(), 64, 64)
        rounded = whole_numbers(weight * scale, step, LOWEST, HIGHEST) * step / scale
        return float((x @ (rounded - weight).T).norm())

    assert scale[::16].min() > 1.5 * scale[1::16].max()
    assert lost(scale) < 0.85 * lost(torch.ones(64))


def test_inputs_of_one_size_and_inputs_that_never_occur_do_no_harm():
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(best_scale([weight], torch.zeros(16, 16).double(), 8), torch.ones(16))
    some = torch.eye(16).double()
    some[3, 3] = 0
    scale = best_scale([weight], some, 8)
    assert scale.isfinite().all() and (scale > 0).all()
    torch.testing.assert_close(best_scale([weight], torch.eye(16).double(), 8), torch.ones(16))
