"""What adapters add is what weights changed by as much would compute, and to their own rows alone."""

from __future__ import annotations

import copy

import pytest
import torch

from seedbed.errors import DataError
from seedbed.model.adapters.adapted import Adapted
from seedbed.model.adapters.adapters import Adapters
from seedbed.model.adapters.folder import read_adapter
from seedbed.model.linears.int8 import Int8Linear
from seedbed.model.linears.layers import quantise
from seedbed.model.packed.adapted import PackedAdapted
from seedbed.model.packed.pack import pack
from tests.random_adapters import random_adapter
from tests.random_models import random_model

FAMILIES = {
    "Qwen3": {},
    "Qwen2": {"qk_norm": False, "attention_bias": True, "attention_output_bias": False},
    "GPT-2": {"norm": "layer", "norm_bias": True, "qk_norm": False, "activation": "gelu", "positions": "learned"}
    | {"attention_bias": True, "feedforward_bias": True, "heads": 3, "kv_heads": 3},
    "ours": {"activation": "relu2", "value_embeddings": True, "embedding_skip": True, "short_convolution": 3},
    "odd": {"ff_width": 37, "head_width": 32, "kv_heads": 1, "r": 17},
    "experts": {"experts": 4, "experts_active": 2, "expert_width": 20, "experts_shared": 1, "experts_dense_first": 1},
}
NAMES = ["first", "second", "third"]


@pytest.fixture(params=FAMILIES)
def plain(request):
    settings = {name: value for name, value in FAMILIES[request.param].items() if name != "r"}
    return random_model(3, **({"head_width": 16, "width": 48, "context": 128} | settings)), FAMILIES[request.param]


@pytest.fixture
def added(plain, tmp_path):
    """Three: two of all layers, and one of the queries alone."""
    model, settings = plain
    ranks = [settings.get("r", 4), 7, 2]
    layers = ["", "", "query" if settings.get("norm") != "layer" else "output"]
    return {
        name: read_adapter(random_adapter(tmp_path / name, model.config, seed, layer, r=rank), model.config)
        for seed, (name, rank, layer) in enumerate(zip(NAMES, ranks, layers, strict=True))
    }


def tokens_of(model, *shape):
    return torch.randint(0, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def changed(model, layers):
    """A copy whose weights hold what an adapter adds."""
    model = copy.deepcopy(model)
    for name, low_rank in layers.items():
        weight = model.get_submodule(name).weight
        weight.data += low_rank.scale * (low_rank.up_OR @ low_rank.down_RD).to(weight)
    return model


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@torch.inference_mode()
def test_each_row_is_that_of_a_model_whose_weights_hold_its_adapter(plain, added, packed):
    model, _ = plain
    tokens = tokens_of(model, 5, 20)
    wearing = ["second", None, "first", "third", "second"]
    wanted = [
        (model if name is None else changed(model, added[name]))(row[None])
        for name, row in zip(wearing, tokens, strict=True)
    ]
    model = pack(model) if packed else model
    adapters = Adapters(model, added)
    kinds = {type(module) for module in model.modules() if isinstance(module, Adapted)}
    assert kinds == {PackedAdapted}
    with adapters.worn((name, 20) for name in wearing):
        found = model(tokens)
    torch.testing.assert_close(found, torch.cat(wanted), atol=3e-5, rtol=1e-5)


@torch.inference_mode()
def test_pytorch_computes_the_same(plain, added):
    model, _ = plain
    tokens = tokens_of(model, 3, 20)
    wearing = [("second", 30), (None, 10), ("first", 20)]
    found = []
    for dtype in (torch.float32, torch.float64):
        one = copy.deepcopy(model).to(dtype)
        adapters = Adapters(one, added)
        with adapters.worn(wearing):
            found.append(one(tokens))
    assert {type(module) for module in one.modules() if isinstance(module, Adapted)} == {Adapted}
    torch.testing.assert_close(found[0], found[1].float(), atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("quantised", [False, True], ids=["fp32", "int8"])
@torch.inference_mode()
def test_a_layer_gives_a_row_the_same_bits_whatever_is_beside_it(quantised, tmp_path):
    model = random_model(3, width=48, head_width=16)
    added = {
        name: read_adapter(random_adapter(tmp_path / name, model.config, seed, r=3 + 15 * seed), model.config)
        for seed, name in enumerate(NAMES)
    }
    model = pack(quantise(model) if quantised else model)
    adapters = Adapters(model, added)
    x = torch.randn(60, 48, generator=torch.Generator().manual_seed(0))
    wearing = [NAMES[i % 3] if i % 4 else None for i in range(60)]
    for layer in (model.blocks[0].attention.projections, model.blocks[1].feedforward.up):
        bare = layer(x)
        with adapters.worn((name, 1) for name in wearing):
            whole = layer(x)
        for row, name in enumerate(wearing):
            with adapters.worn([(name, 1)]):
                assert torch.equal(layer(x[row : row + 1])[0], whole[row])
            assert torch.equal(whole[row], bare[row]) == (name is None)
        for first, last in [(3, 17), (17, 60)]:
            with adapters.worn((name, 1) for name in wearing[first:last]):
                assert torch.equal(layer(x[first:last]), whole[first:last])


@torch.inference_mode()
def test_over_whole_numbers_it_is_the_base_in_whole_numbers_and_the_same_addition(tmp_path):
    model = random_model(3, width=48, head_width=16)
    layers = read_adapter(random_adapter(tmp_path / "one", model.config), model.config)
    model = quantise(model)
    x = torch.randn(9, 48, generator=torch.Generator().manual_seed(0))
    query = model.blocks[0].attention.query
    assert isinstance(query, Int8Linear)
    change = layers["blocks.0.attention.query"]
    wanted = query(x) + change.scale * (x @ change.down_RD.T @ change.up_OR.T)
    model = pack(model)
    adapters = Adapters(model, {"one": layers})
    with adapters.worn([("one", 9)]):
        found = model.blocks[0].attention.project(x)[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_nobody_wears_anything_afterwards(tmp_path):
    model = random_model(3)
    tokens = tokens_of(model, 1, 20)
    bare = model(tokens)
    layers = read_adapter(random_adapter(tmp_path / "one", model.config), model.config)
    adapters = Adapters(model, {"one": layers})
    with pytest.raises(RuntimeError), adapters.worn([("one", 20)]):
        assert not torch.equal(model(tokens), bare)
        raise RuntimeError
    assert torch.equal(model(tokens), bare)


def test_an_unknown_name_is_told_with_those_that_are_there(tmp_path):
    model = random_model(3)
    layers = read_adapter(random_adapter(tmp_path / "one", model.config), model.config)
    Adapters(model, {}).check(None)
    with pytest.raises(DataError, match="there is no adapter 'casual': the model was opened without any"):
        Adapters(model, {}).check("casual")
    adapters = Adapters(model, {"formal": layers})
    adapters.check("formal")
    with pytest.raises(DataError, match="there is no adapter 'casual': there are formal"):
        adapters.check("casual")
