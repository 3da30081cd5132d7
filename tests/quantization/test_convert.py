"""What each layer lost is told, on what the layers before it, rounded by then, make of sample text."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedbed.model.linears.int8 import Int8Matrix
from seedbed.model.linears.layers import storable
from seedbed.model.linears.storage import Storage
from seedbed.quantization.convert import choose, convert
from seedbed.quantization.walk import ROWS, walk
from tests.random_models import random_model

FAMILIES = {
    "Qwen3": {},
    "tied, post-norm": {"tied": True, "norm_place": "post", "activation": "silu"},
    "biases": {"attention_bias": True, "feedforward_bias": True},
    "ours": {"activation": "relu2", "value_embeddings": True, "embedding_skip": True, "short_convolution": 2},
    "windows": {"window": 9},
    "experts": {"experts": 3, "experts_active": 2, "expert_width": 20, "experts_shared": 1},
}
ROUGH = Storage(scheme="int8")


def rough(name, layer, moments=None):
    """So far from the layer that an error shows."""
    matrix = Int8Matrix.of(layer.weight.detach(), ROUGH)
    return Int8Matrix((matrix.weight_OD // 32) * 32, matrix.scale_O, ROUGH)


def sample(rows=2 * ROWS + 3, length=20):
    return torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_walk_goes_the_way_of_the_forward_pass(family):
    """What comes to the head is what the model computes, and no layer is passed by, or passed twice."""
    model, seen = random_model(**FAMILIES[family]), {}
    linear = {name: layer for name, layer in storable(model).items() if isinstance(layer, nn.Linear)}
    for name, layer in linear.items():
        layer.register_forward_hook(lambda _, given, __, name=name: seen.setdefault(name, []).append(given[0]))
    wanted = model.hidden(sample())
    once = {name: torch.cat([x.flatten(0, -2) for x in inputs]) for name, inputs in seen.items()}
    names = []
    for part in walk(model, sample()):
        names.append(part.name)
        seen.clear()
        part.run()
        for name in seen:
            found = torch.cat([x.flatten(0, -2) for x in seen[name]])
            torch.testing.assert_close(
                found, wanted.flatten(0, 1) if name == "head" else once[name], atol=1e-5, rtol=1e-5
            )
        assert set(seen) == {name for name in linear if name.startswith(part.name)}
    assert names == [*(f"blocks.{n}." for n in range(model.config.layers)), "head"]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_losses_are_those_of_the_model_as_it_then_is(family):
    """Checked against the finished model: each layer's inputs there, through the layer that was and the one that is."""
    model, plain = random_model(**FAMILIES[family]), random_model(**FAMILIES[family])
    losses = convert(model, choose(model, []), rough, sample())
    assert list(losses) == list(storable(plain))
    seen = {}
    for name, layer in storable(plain).items():
        if isinstance(layer, nn.Linear):
            model.get_submodule(name).register_forward_hook(
                lambda _, given, out, name=name: seen.update({name: (given[0], out)})
            )
    model(sample())
    for name, layer in storable(plain).items():
        found = losses[name]
        change = model.get_submodule(name).weight - layer.weight
        assert found.weights == pytest.approx(float(change.norm() / layer.weight.norm()), rel=1e-5)
        assert found.weights > 0.05
        assert found.bytes == layer.weight.numel() + 4 * layer.weight[..., 0].numel()
        if not isinstance(layer, nn.Linear):
            assert found.outputs is None
            continue
        given, out = seen[name]
        product = given @ layer.weight.T
        assert found.outputs == pytest.approx(float((out - layer(given)).norm() / product.norm()), rel=1e-4)


def test_without_text_nothing_goes_through_the_model(monkeypatch):
    model = random_model()
    monkeypatch.setattr(model, "hidden", None)
    losses = convert(model, choose(model, []), rough, None)
    assert {loss.outputs for loss in losses.values()} == {None} and len(losses) == 16


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_told_alike_by_moments_and_by_text(family):
    found, again = (
        convert(model, choose(model, []), rough, sample(), calibrates=calibrates)
        for calibrates in (False, True)
        for model in [random_model(**FAMILIES[family])]
    )
    for name, loss in found.items():
        assert loss.outputs is None or again[name].outputs == pytest.approx(loss.outputs, rel=1e-4)


@torch.no_grad()
def test_moments_are_those_of_what_is_read_once_the_layers_before_are_rounded():
    model, told, seen = random_model(), {}, {}

    def note(name, layer, moments):
        told[name] = moments
        return rough(name, layer)

    convert(model, choose(model, ["blocks.1.feedforward.up"]), note, sample(), calibrates=True)
    for name in told:
        model.get_submodule(name).register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
    model(sample())
    assert told.pop("embedding") is None and len(told) == 14
    for name, moments in told.items():
        x = seen[name].flatten(0, -2).double()
        torch.testing.assert_close(moments, x.T @ x, atol=1e-3, rtol=1e-4)
