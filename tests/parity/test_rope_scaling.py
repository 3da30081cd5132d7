"""Stretched rotary frequencies are those of transformers.

Peer: transformers' ROPE_INIT_FUNCTIONS, of the installed version.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from seedbed.model.rope_scaling import rotary_frequencies, yarn_temperature

WIDTHS = st.sampled_from([4, 8, 64, 128])
BASES = st.sampled_from([100.0, 10_000.0, 1_000_000.0])
FACTORS = st.floats(1, 64)


def theirs(kind, width, base, context, length=None, **settings):
    rope = {"rope_type": kind, "rope_theta": base, **settings}
    config = LlamaConfig(
        hidden_size=2 * width, num_attention_heads=2, max_position_embeddings=context, rope_parameters=rope
    )
    return ROPE_INIT_FUNCTIONS[kind](config, "cpu", length)


def assert_same(ours, wanted):
    torch.testing.assert_close(ours.float(), wanted, rtol=2e-6, atol=0)


@given(WIDTHS, BASES, FACTORS)
def test_linear(width, base, factor):
    wanted, temperature = theirs("linear", width, base, 4096, factor=factor)
    assert_same(rotary_frequencies(width, base, "linear", factor=factor), wanted)
    assert temperature == 1


@given(WIDTHS, BASES, st.floats(1, 16), st.integers(4096, 65_536))
def test_ntk_is_the_dynamic_kind_at_one_length(width, base, growth, length):
    wanted, temperature = theirs("dynamic", width, base, 4096, length, factor=growth)
    ours = rotary_frequencies(width, base, "ntk", factor=growth * length / 4096 - (growth - 1))
    assert_same(ours, wanted)
    assert temperature == 1


@given(WIDTHS, BASES, FACTORS, st.sampled_from([4, 16, 512, 4096, 32_768]))
def test_yarn(width, base, factor, original):
    wanted, temperature = theirs("yarn", width, base, 131_072, factor=factor, original_max_position_embeddings=original)
    assert_same(rotary_frequencies(width, base, "yarn", factor=factor, original_context=original), wanted)
    assert yarn_temperature(factor) == temperature


@given(WIDTHS, BASES, FACTORS, st.sampled_from([16, 512, 8192]))
def test_llama3(width, base, factor, original):
    settings = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": original}
    wanted, temperature = theirs("llama3", width, base, 131_072, factor=factor, **settings)
    assert_same(rotary_frequencies(width, base, "llama3", factor=factor, original_context=original), wanted)
    assert temperature == 1
