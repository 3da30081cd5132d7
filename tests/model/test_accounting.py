"""Counts of parameters and operations against a count by hand, against the weights, and against torch's own counter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seedbed.model.accounting import cache_bytes, count_parameters, forward_flops, training_flops
from seedbed.model.cache import PagedCache
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Transformer, weight_shapes
from tests.random_configs import configs

TIED_GQA = ModelConfig(
    vocab_size=1000, layers=3, width=64, heads=4, kv_heads=2, head_width=32, ff_width=160, context=128, tied=True
).resolve()
UNTIED_MHA = ModelConfig(vocab_size=777, layers=2, width=96, heads=6, ff_width=256, context=64).resolve()

TIED_GQA_PARAMETERS = {
    "embedding": 1000 * 64,
    # query 64→4·32, key and value 64→2·32 each, output 4·32→64, in each of 3 blocks
    "attention": 3 * (64 * 128 + 64 * 64 + 64 * 64 + 128 * 64),
    "feedforward": 3 * (64 * 160 + 64 * 160 + 160 * 64),
    # before attention, before feed-forward, of queries, of keys; and the last one
    "norms": 3 * (64 + 64 + 32 + 32) + 64,
    "head": 0,
}
UNTIED_MHA_PARAMETERS = {
    "embedding": 777 * 96,
    "attention": 2 * (96 * 96 * 4),
    "feedforward": 2 * (96 * 256 * 3),
    "norms": 2 * (96 + 96 + 16 + 16) + 96,
    "head": 777 * 96,
}
COUNTED = [(TIED_GQA, TIED_GQA_PARAMETERS), (UNTIED_MHA, UNTIED_MHA_PARAMETERS)]

TIED_GQA_FLOPS_AT_50 = (
    2 * 3 * (64 * 128 + 64 * 64 + 64 * 64 + 128 * 64)  # projections: a multiplication and an addition a weight
    + 2 * 3 * (3 * 64 * 160)  # feed-forward
    + 3 * 4 * (2 * 32 * 50 + 2 * 50 * 32)  # 3 blocks, 4 heads: scores with 50 keys, then the sum of 50 values
    + 2 * 64 * 1000  # head
)
UNTIED_MHA_FLOPS_AT_64 = 2 * 2 * (96 * 96 * 4) + 2 * 2 * (3 * 96 * 256) + 2 * 6 * (4 * 16 * 64) + 2 * 96 * 777


@pytest.mark.parametrize(("config", "by_hand"), COUNTED, ids=["tied GQA", "untied MHA"])
def test_parameters_equal_the_count_by_hand(config, by_hand):
    count = count_parameters(config)
    assert {part: getattr(count, part) for part in by_hand} == by_hand
    assert count.total == sum(by_hand.values())
    assert count.biases == count.skips == count.convolutions == 0


@pytest.mark.parametrize("config", [TIED_GQA, UNTIED_MHA], ids=["tied GQA", "untied MHA"])
def test_parameters_equal_the_weights_of_the_model(config):
    assert count_parameters(config).total == sum(weight.numel() for weight in Transformer(config).parameters())


@settings(max_examples=60)
@given(configs())
def test_parameters_of_any_architecture_equal_the_weights_of_the_model(config):
    with torch.device("meta"):
        model = Transformer(config)
    assert count_parameters(config).total == sum(weight.numel() for weight in model.parameters())
    looked_up = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    assert count_parameters(config).embedding == sum(table.weight.numel() for table in looked_up)
    assert weight_shapes(config) == {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def test_byte_mini_has_856832_parameters():
    """The count by hand: 2 × 256 × 128, four blocks of 4 × 128² + 2 × 128 × 512 + 512 + 128 + 4 × 128, and 2 × 128."""
    sizes = {"vocab_size": 256, "layers": 4, "width": 128, "heads": 8, "ff_width": 512, "tied": False}
    choices = {"norm": "layer", "norm_bias": True, "activation": "gelu", "feedforward_bias": True, "qk_norm": False}
    config = ModelConfig(**sizes, **choices).resolve()
    assert count_parameters(config).total == 856_832
    assert sum(weight.numel() for weight in Transformer(config).parameters()) == 856_832


@pytest.mark.parametrize(
    ("config", "length", "by_hand"),
    [(TIED_GQA, 50, TIED_GQA_FLOPS_AT_50), (UNTIED_MHA, 64, UNTIED_MHA_FLOPS_AT_64)],
    ids=["tied GQA", "untied MHA"],
)
def test_operations_equal_the_count_by_hand(config, length, by_hand):
    assert forward_flops(config, length) == by_hand
    assert training_flops(config, length) == 3 * by_hand


@pytest.mark.parametrize(("config", "length"), [(TIED_GQA, 50), (UNTIED_MHA, 64)], ids=["tied GQA", "untied MHA"])
def test_operations_equal_what_torch_counts_in_a_forward_pass(config, length):
    model = Transformer(config)
    tokens_BT = torch.zeros(2, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(tokens_BT)
    assert counter.get_total_flops() == 2 * length * forward_flops(config, length)


@settings(max_examples=15, deadline=None)
@given(configs())
def test_operations_of_any_architecture_equal_what_torch_counts(config):
    model = Transformer(config).eval()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.zeros(2, 16, dtype=torch.long))
    assert counter.get_total_flops() == 2 * 16 * forward_flops(config, 16)


@pytest.mark.parametrize("taps", [None, 3])
@pytest.mark.parametrize("config", [TIED_GQA, UNTIED_MHA], ids=["tied GQA", "untied MHA"])
def test_cache_bytes_are_those_of_a_cache(config, taps):
    config = replace(config, short_convolution=taps)
    cache = PagedCache(config, 2, device=torch.device("cpu"), dtype=torch.float32)
    held = cache.keys_LMGPKI.nbytes + cache.values_LMGSK.nbytes + cache.inputs_LCND.nbytes
    assert cache_bytes(config, 128) == held


def test_attention_costs_what_its_layers_read():
    """Of 64 positions: all, 10 in a window, or 16 of a block and the last 2 of four blocks."""
    plain = ModelConfig(vocab_size=11, layers=3, width=32, heads=4, kv_heads=2, head_width=8).resolve()
    mixed = replace(plain, window=10, sparse_block=16, sparse_summary=2, window_pattern="LSB")
    all_read = forward_flops(plain, 64) - forward_flops(plain, 0)
    assert all_read == 3 * 64 * 4 * 4 * 8
    assert forward_flops(mixed, 64) - forward_flops(mixed, 0) == (64 + 10 + 16 + 4 * 2) * 4 * 4 * 8


def test_a_window_as_long_as_the_row_costs_what_all_costs():
    plain = ModelConfig(vocab_size=11, layers=3, width=32).resolve()
    for reading in ({"window": 64}, {"sparse_block": 64}):
        assert forward_flops(replace(plain, **reading), 64) == forward_flops(plain, 64)
