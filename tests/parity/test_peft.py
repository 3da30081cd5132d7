"""An adapter that peft has saved adds the same here as there.

Peer: peft, the installed version; its name stands in the ids of the tests.
"""

from __future__ import annotations

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from seedbed.errors import DataError
from seedbed.model.adapters.adapters import Adapters
from seedbed.model.adapters.folder import read_adapter
from seedbed.model.huggingface.gpt import GPT2_CHOICES, NEOX_CHOICES
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

BASES = {
    "Llama": {"qk_norm": False},
    "Qwen3": {},
    "Qwen2": {"qk_norm": False, "attention_bias": True, "attention_output_bias": False, "tied": True},
    "GPT-2": GPT2_CHOICES | {"activation": "gelu", "heads": 2, "kv_heads": 2, "tied": True},
    "GPTNeoX": NEOX_CHOICES | {"activation": "gelu", "heads": 2, "kv_heads": 2},
}
KINDS = {"LoRA": {}, "rsLoRA": {"use_rslora": True}}
LAYERS = {
    "queries and values": {
        "Llama": ["q_proj", "v_proj"],
        "Qwen3": ["q_proj", "v_proj"],
        "GPTNeoX": ["query_key_value"],
    },
    "all": dict.fromkeys(BASES, "all-linear"),
}
CASES = [(base, kind, layers) for base in BASES for kind in KINDS for layers, of in LAYERS.items() if base in of]


@pytest.fixture(params=CASES, ids=[f"peft {peft.__version__}, {', '.join(case)}" for case in CASES])
def pair(request, tmp_path):
    """The plain base of ours, the folder of the adapter, and their model with it."""
    base, kind, layers = request.param
    model = random_model(5, tokenizer=byte_tokenizer.build(), head_width=16, **BASES[base])
    folder = saved(tmp_path / "model", model, byte_tokenizer.build())
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(theirs).__name__.startswith(base.replace("-", ""))
    torch.manual_seed(7)
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False, "fan_in_fan_out": base == "GPT-2"}
    wants = peft.LoraConfig(target_modules=LAYERS[layers][base], task_type="CAUSAL_LM", **settings, **KINDS[kind])
    theirs = peft.get_peft_model(theirs, wants).eval()
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            weight.data *= 0.3
    theirs.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter", theirs


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@torch.inference_mode()
def test_logits_are_those_of_peft(pair, packed):
    model, folder, theirs = pair
    model = pack(model) if packed else model
    tokens_BT = torch.randint(model.config.vocab_size, (2, 50), generator=torch.Generator().manual_seed(0))
    bare = model(tokens_BT)
    adapters = Adapters(model, {"one": read_adapter(folder, model.config)})
    assert torch.equal(model(tokens_BT), bare)
    with adapters.worn([("one", tokens_BT.numel())]):
        ours = model(tokens_BT)
    assert (ours - bare).abs().max() > 0.1  # else 1e-5 would be no promise
    torch.testing.assert_close(theirs(tokens_BT).logits, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("wants", "said"),
    [
        ({"bias": "lora_only"}, "bias is a text"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is a list"),
        ({"rank_pattern": {"k_proj": 2}}, "rank_pattern is an object"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is a text"),
        ({"target_modules": ["lm_head"]}, "lm_head.base_layer.weight is no matrix"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens.base_layer.weight is no matrix"),
    ],
    ids=str,
)
def test_what_is_not_served_is_refused_by_name(wants, said, tmp_path):
    model = random_model(5, tokenizer=byte_tokenizer.build())
    theirs = AutoModelForCausalLM.from_pretrained(saved(tmp_path / "model", model, byte_tokenizer.build()))
    settings = {"r": 4, "target_modules": ["q_proj"], **wants}
    peft.get_peft_model(theirs, peft.LoraConfig(**settings)).save_pretrained(tmp_path / "adapter")
    with pytest.raises(DataError, match=said) as raised:
        read_adapter(tmp_path / "adapter", model.config)
    assert "\n" not in raised.value.problem and str(tmp_path / "adapter") in raised.value.problem
    assert "merge_and_unload" in raised.value.fix


def test_another_method_is_refused_by_name(tmp_path):
    model = random_model(5, tokenizer=byte_tokenizer.build())
    theirs = AutoModelForCausalLM.from_pretrained(saved(tmp_path / "model", model, byte_tokenizer.build()))
    wants = peft.LoHaConfig(target_modules=["k_proj"])
    peft.get_peft_model(theirs, wants).save_pretrained(tmp_path / "adapter")
    with pytest.raises(DataError, match='peft_type is a text \\("LOHA"\\)'):
        read_adapter(tmp_path / "adapter", model.config)
