"""The tables of names: every weight has one place in the other framework, and comes back from there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import CLASSES, find_class, what_no_class_has
from seedbed.model.huggingface.gpt import GPT2_CLASS, GPT_NEOX_CLASS
from seedbed.model.names import OWN, shapes_of_theirs, to_ours, to_theirs
from seedbed.model.transformer import Transformer
from tests.random_configs import configs
from tests.random_models import GQA, random_model, randomise

NEOX = {"norm": "layer", "norm_bias": True, "qk_norm": False, "feedforward_bias": True, "activation": "gelu"}
NEOX |= {"kv_heads": 4}
EXAMPLES = {
    "Qwen3ForCausalLM": {},
    "Qwen2ForCausalLM": {"qk_norm": False, "attention_bias": True, "attention_output_bias": False},
    "LlamaForCausalLM": {"qk_norm": False},
    "ArceeForCausalLM": {"qk_norm": False, "activation": "relu2"},
    "GPT2LMHeadModel": NEOX | {"positions": "learned", "attention_bias": True},
    "GPTNeoXForCausalLM": NEOX,
    "MixtralForCausalLM": {"qk_norm": False, "experts": 3},
    "Qwen3MoeForCausalLM": {"experts": 3, "experts_dense_first": 1},
    "Dots1ForCausalLM": {"experts": 3, "experts_shared": 1, "router": "sigmoid", "balance_rate": 0.1},
}
"""A config of each class, on top of GQA."""


def test_each_class_has_an_example():
    assert list(EXAMPLES) == [peer.name for peer in CLASSES]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_class_is_chosen_by_the_config(name):
    assert find_class(random_model(**EXAMPLES[name]).config).name == name


@settings(max_examples=100, deadline=None)
@given(configs())
def test_weights_go_to_the_other_framework_and_back_whatever_the_architecture(config):
    model = Transformer(config)
    randomise(model)
    own = dict(model.named_parameters())
    shapes = {name: tuple(weight.shape) for name, weight in own.items()}
    peer = find_class(config)
    table = OWN if peer is None else peer.table
    theirs = to_theirs(own, table, config.head_width)
    assert sum(weight.numel() for weight in theirs.values()) == sum(weight.numel() for weight in own.values())
    assert shapes_of_theirs(shapes, table, config.head_width) == {n: tuple(w.shape) for n, w in theirs.items()}
    back = to_ours({n: w.detach() for n, w in theirs.items()}, shapes, table, config.head_width)
    assert back.keys() == own.keys() and all(torch.equal(back[name], own[name]) for name in own)


@pytest.mark.parametrize(
    ("choices", "lacking"),
    [
        ({"norm_place": "sandwich"}, ["norm_place sandwich"]),
        ({"logit_softcap": 15.0, "value_embeddings": True}, ["logit_softcap 15.0", "value_embeddings true"]),
        ({"positions": "alibi"}, ["positions alibi"]),
        ({"qk_norm": False, "norm": "layer", "activation": "geglu"}, ["norm layer"]),
        (NEOX | {"kv_heads": 2}, ["kv_heads 2 of 4 heads"]),
    ],
)
def test_what_no_class_has_is_named(choices, lacking):
    assert what_no_class_has(ModelConfig(**{"vocab_size": 50, **GQA, **choices}).resolve())[1] == lacking


def test_gpt2_lays_query_key_and_value_side_by_side_and_transposed():
    model = random_model(**EXAMPLES["GPT2LMHeadModel"])
    attention = model.blocks[1].attention
    theirs = to_theirs(dict(model.named_parameters()), GPT2_CLASS.table, 8)
    fused = theirs["transformer.h.1.attn.c_attn.weight"]
    assert torch.equal(fused[:, 32:64], attention.key.weight.T)
    assert torch.equal(theirs["transformer.h.1.attn.c_attn.bias"][64:], attention.value.bias)


def test_gpt_neox_lays_query_key_and_value_of_each_head_side_by_side():
    model = random_model(**EXAMPLES["GPTNeoXForCausalLM"])
    fused = to_theirs(dict(model.named_parameters()), GPT_NEOX_CLASS.table, 8)
    fused = fused["gpt_neox.layers.0.attention.query_key_value.weight"]
    key_of_head_2 = model.blocks[0].attention.key.weight[16:24]
    assert torch.equal(fused[2 * 24 + 8 : 2 * 24 + 16], key_of_head_2)
