"""Counts of parameters and operations against a count by hand, against the weights, and against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seedbed.model.accounting import cache_bytes, count_parameters, forward_flops, training_flops
from seedbed.model.cache import KVCache
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Transformer

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


@pytest.mark.parametrize("config", [TIED_GQA, UNTIED_MHA], ids=["tied GQA", "untied MHA"])
def test_parameters_equal_the_weights_of_the_model(config):
    assert count_parameters(config).total == sum(weight.numel() for weight in Transformer(config).parameters())


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


@pytest.mark.parametrize("config", [TIED_GQA, UNTIED_MHA], ids=["tied GQA", "untied MHA"])
def test_cache_bytes_are_those_of_a_cache(config):
    cache = KVCache(config, 1, 40, device=torch.device("cpu"), dtype=torch.float32)
    assert cache_bytes(config, 40) == cache.keys_LBGSK.nbytes + cache.values_LBGSK.nbytes
