"""A sliding window is as wide here as there.

Peer: transformers, the installed version, class Qwen3.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

KINDS = {"S": "sliding_attention", "L": "full_attention"}


@torch.no_grad()
@pytest.mark.parametrize("pattern", ["SSSS", "SSLS", "LSLS"])
@pytest.mark.parametrize("window", [1, 2, 7, 39, 40])
@pytest.mark.parametrize("peer", ["eager", "sdpa"], ids=lambda way: f"transformers {transformers.__version__}, {way}")
def test_logits_of_windows_are_the_same(tmp_path, peer, window, pattern):
    tokenizer = byte_tokenizer.build()
    model = random_model(5, tokenizer=tokenizer, layers=4, window=window, window_pattern=pattern)
    folder = saved(tmp_path / "model", random_model(5, tokenizer=tokenizer, layers=4), tokenizer)  # the same weights
    theirs = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=peer,
        use_sliding_window=True,
        sliding_window=window,
        layer_types=[KINDS[letter] for letter in pattern],
    )
    tokens_BT = torch.randint(tokenizer.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    ours = model(tokens_BT)
    assert ours.std() > 0.5  # else 1e-5 would be no promise
    torch.testing.assert_close(theirs(tokens_BT).logits, ours, rtol=0, atol=1e-5)
