"""A sliding window is as wide here as there.

Peer: transformers, the installed version, class Qwen3.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from seedbed.model.huggingface.classes import huggingface_config, read_huggingface_config
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved


@torch.no_grad()
@pytest.mark.parametrize("pattern", ["S", "SSLS", "LSLS"])
@pytest.mark.parametrize("window", [1, 2, 7, 39, 40])
@pytest.mark.parametrize("peer", ["eager", "sdpa"], ids=lambda way: f"transformers {transformers.__version__}, {way}")
def test_logits_of_windows_are_the_same(tmp_path, peer, window, pattern):
    tokenizer = byte_tokenizer.build()
    model = random_model(5, tokenizer=tokenizer, layers=4, window=window, window_pattern=pattern)
    folder = saved(tmp_path / "model", model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=peer)
    assert isinstance(theirs, Qwen3ForCausalLM)
    tokens_BT = torch.randint(tokenizer.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    ours = model(tokens_BT)
    assert ours.std() > 0.5  # else 1e-5 would be no promise
    torch.testing.assert_close(theirs(tokens_BT).logits, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pattern", ["SSSS", "SSLS", "LLSS"])
def test_their_config_reads_back(pattern):
    config = random_model(layers=4, window=7, window_pattern=pattern).config
    said = huggingface_config(config, torch.float32)
    assert read_huggingface_config(said)[0].layer_kinds == pattern
    if pattern == "LLSS":  # what their older versions say
        del said["layer_types"]
        assert read_huggingface_config(said)[0].layer_kinds == pattern


@pytest.mark.parametrize("reading", [{"sparse_block": 8}, {"causal": False}, {"positions": "alibi"}], ids=str)
def test_what_no_class_computes_has_no_config_there(reading):
    assert huggingface_config(random_model(**reading).config, torch.float32) is None
