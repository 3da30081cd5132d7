"""Packed models compute what the plain ones do, each position with the same bits whatever is beside it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedbed.model.cache import PagedCache, Places
from seedbed.model.linears.int8 import Int8Linear
from seedbed.model.linears.layers import quantise
from seedbed.model.packed.attention import PackedAttention
from seedbed.model.packed.feedforward import PackedFeedForward
from seedbed.model.packed.norms import PackedRMSNorm
from seedbed.model.packed.pack import pack
from tests.random_models import random_model

FAMILIES = {
    "Qwen3": {},
    "Llama": {"qk_norm": False, "tied": False},
    "Qwen2": {"qk_norm": False, "attention_bias": True, "attention_output_bias": False},
    "GPT-2": {"norm": "layer", "activation": "gelu", "positions": "learned", "feedforward_bias": True},
    "post-norm": {"norm_place": "post", "activation": "silu"},
    "sandwich": {"norm_place": "sandwich", "activation": "geglu", "logit_softcap": 5.0},
    "ours": {"activation": "relu2", "value_embeddings": True, "embedding_skip": True, "short_convolution": 3},
    "layer norms of heads": {"norm": "layer", "qk_norm": True, "positions": "alibi"},
    "windows": {"window": 9, "activation": "reglu"},
    "odd": {"ff_width": 37, "head_width": 32, "kv_heads": 1},
    "no kernel for its heads": {"head_width": 24},
    "plain experts": {
        "experts": 4,
        "experts_active": 3,
        "expert_width": 20,
        "activation": "relu2",
        "router": "sigmoid",
    },
    "experts": {"experts": 4, "experts_active": 2, "expert_width": 20, "experts_shared": 1},
}


def family(name: str, **more):
    return random_model(3, **({"head_width": 16, "width": 48, "context": 128} | FAMILIES[name] | more))


def tokens_of(model, *shape):
    return torch.randint(0, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def step(model, cache, tokens, first):
    """Logits of tokens that follow one another in one sequence."""
    places = Places.of([[0, 1]], [(first, len(tokens))], torch.device("cpu"))
    return model.logits(model.step(tokens, places, cache))


def new_cache(model):
    return PagedCache(model.config, 2, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_it_computes_what_the_plain_one_does(name):
    model = family(name)
    tokens = tokens_of(model, 2, 40)
    wanted = model(tokens)
    model = pack(model)
    torch.testing.assert_close(model(tokens), wanted, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(step(model, new_cache(model), tokens[0], 0), wanted[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "no kernel for its heads"])
@pytest.mark.parametrize("quantised", [False, True], ids=["fp32", "int8"])
@torch.inference_mode()
def test_each_position_has_the_same_bits_in_pieces_of_any_size(name, quantised):
    model = family(name)
    model = pack(quantise(model) if quantised else model)
    tokens = tokens_of(model, 100)
    whole = step(model, new_cache(model), tokens, 0)
    for cuts in ([1, 2, 5, 37, 64, 65, 99], list(range(1, 100))):
        cache = new_cache(model)
        pieces = zip([0, *cuts], [*cuts, 100], strict=True)
        parts = [step(model, cache, tokens[start:end], start) for start, end in pieces]
        assert torch.equal(torch.cat(parts), whole)


def test_what_it_is_made_of():
    model = pack(family("Qwen3"))
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(PackedAttention) == kinds.count(PackedFeedForward) == model.config.layers
    assert kinds.count(PackedRMSNorm) == 2 * model.config.layers + 1
    assert not any(issubclass(kind, nn.Linear) for kind in kinds)


@torch.inference_mode()
def test_of_a_model_in_whole_numbers_it_computes_what_pytorch_does():
    model = quantise(family("Qwen3"))
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 7 * model.config.layers + 1
    tokens = tokens_of(model, 2, 40)
    wanted = model(tokens)
    found = pack(model)(tokens)
    assert (found - wanted).norm() < 0.01 * wanted.norm()  # a number that lies between two whole ones may go either way


def test_bf16_stays_as_it_is():
    model = family("Qwen3").to(torch.bfloat16)
    kinds = {type(module) for module in model.modules()}
    assert {type(module) for module in pack(model).modules()} == kinds
