"""A folder that peft has written, of any method that both have, opens as a model that computes what peft's does.

Peer: peft, the installed version; its name stands in the ids of the tests. LoRA that rows wear beside each other is in
test_peft.py; what we write and peft reads, in test_peft_training.py.
"""

from __future__ import annotations

from functools import partial

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from seedbed.model.folder import load_model
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.parity.test_peft_training import BASES, logits, tokens
from tests.random_models import random_model, saved

MODULES = {
    **dict.fromkeys(
        ("Llama", "Qwen3", "Qwen2"), (["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"], ["down_proj"])
    ),
    "GPT-2": (["c_attn", "attn.c_proj", "mlp.c_proj"], ["mlp.c_proj"]),
    "GPTNeoX": (["query_key_value", "dense", "dense_4h_to_h"], ["dense_4h_to_h"]),
}
"""That are changed, and those of them whose inputs IA³ scales."""


def lora(base: str, **settings) -> peft.PeftConfig:
    sizes = {"r": 3, "lora_alpha": 5, "init_lora_weights": False, "fan_in_fan_out": base == "GPT-2"}
    return peft.LoraConfig(target_modules=MODULES[base][0], **sizes, **settings)


def ia3(base: str) -> peft.PeftConfig:
    changed, by_inputs = MODULES[base]
    settings = {"init_ia3_weights": False, "fan_in_fan_out": base == "GPT-2"}
    return peft.IA3Config(target_modules=changed, feedforward_modules=by_inputs, **settings)


def before(kind: type[peft.PromptLearningConfig], base: str, **settings) -> peft.PeftConfig:
    return kind(num_virtual_tokens=7, **settings)


METHODS = {
    "LoRA": lora,
    "rsLoRA": partial(lora, use_rslora=True),
    "DoRA": partial(lora, use_dora=True),
    "IA³": ia3,
    "prompt tuning": partial(before, peft.PromptTuningConfig),
    "prefix tuning": partial(before, peft.PrefixTuningConfig),
    "prefix tuning by a network": partial(
        before, peft.PrefixTuningConfig, prefix_projection=True, encoder_hidden_size=24
    ),
    "P-tuning": partial(before, peft.PromptEncoderConfig, encoder_hidden_size=24),
    "P-tuning by an LSTM": partial(
        before, peft.PromptEncoderConfig, encoder_hidden_size=24, encoder_reparameterization_type="LSTM"
    ),
}
CASES = [(base, method) for base in BASES for method in METHODS]


@pytest.mark.parametrize(
    ("base", "method"), CASES, ids=[f"peft {peft.__version__}, {', '.join(case)}" for case in CASES]
)
@torch.no_grad()
def test_a_folder_of_pefts_opens_and_computes_the_same(base, method, tmp_path):
    plain = random_model(5, tokenizer=byte_tokenizer.build(), head_width=16, **BASES[base])
    folder = saved(tmp_path / "model", plain, byte_tokenizer.build())
    wants = METHODS[method](base)
    wants.task_type = "CAUSAL_LM"
    torch.manual_seed(7)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = peft.get_peft_model(theirs, wants).eval()
    for name, weight in theirs.named_parameters():
        if weight.requires_grad:
            weight += 0.1 * torch.randn(weight.shape)
            weight *= 0.3 if "lora_B" in name else 1
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_model(tmp_path / "adapter")[0]
    found, bare = logits(ours), logits(plain)
    assert (found - bare).abs().max() > 0.1  # else 1e-5 would be no promise
    torch.testing.assert_close(theirs(tokens(plain)).logits[:, -50:], found, rtol=0, atol=1e-5)
