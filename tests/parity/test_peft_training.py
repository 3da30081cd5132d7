"""What is learned here is what peft would learn, and its folder is one of peft's.

Peer: peft, the installed version; its name stands in the ids of the tests.
"""

from __future__ import annotations

import json

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from seedbed.model.adapters.adapter import Ia3Adapter, LoraAdapter
from seedbed.model.adapters.config import Ia3Config, LoraConfig, PromptsConfig
from seedbed.model.adapters.opening import read_learner
from seedbed.model.adapters.prompts import Prefixed, Prompted
from seedbed.model.adapters.saving import save_adapter
from seedbed.model.folder import load_model
from seedbed.model.huggingface.gpt import GPT2_CHOICES, NEOX_CHOICES
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

BASES = {
    "Llama": {"qk_norm": False},
    "Qwen3": {},
    "Qwen2": {"qk_norm": False, "attention_bias": True, "attention_output_bias": False, "tied": True},
    "GPT-2": GPT2_CHOICES | {"activation": "gelu", "heads": 2, "kv_heads": 2, "tied": True},
    "GPTNeoX": NEOX_CHOICES | {"activation": "gelu", "heads": 2, "kv_heads": 2},
}
JOINED = ("GPT-2", "GPTNeoX")
"""Whose queries, keys and values are one layer: ours learn other matrices there, which compute the same."""


def lora(**settings):
    return lambda base: LoraAdapter(LoraConfig(rank=3, alpha=5, **settings), base)


def dora(**settings):
    return lambda base: LoraAdapter(LoraConfig(rank=3, alpha=5, **settings), base, directed=True)


def ia3(**settings):
    return lambda base: Ia3Adapter(Ia3Config(**settings), base)


def before(kind=Prompted, network=False, **settings):
    return lambda base: kind(PromptsConfig(tokens=7, **settings), base, network=network)


METHODS = {
    "prompt tuning": before(),
    "P-tuning": before(network=True, hidden=24),
    "P-tuning by an LSTM": before(network=True, hidden=24, encoder="lstm"),
    "prefix tuning": before(Prefixed),
    "prefix tuning by a network": before(Prefixed, network=True, hidden=24),
    "LoRA": lora(),
    "LoRA of all layers": lora(targets=["*"]),
    "rsLoRA": lora(rank_stabilized=True),
    "DoRA": dora(),
    "DoRA of all layers": dora(targets=["*"]),
    "IA³": ia3(),
    "IA³ of all layers": ia3(targets=["*"]),
}


def has_gradients(base: str, method: str) -> bool:
    """Whether peft's copy of what was written learns the same numbers: not those of a network that is left behind."""
    return base not in JOINED and "network" not in method and not method.startswith("P-tuning")


CASES = [
    pytest.param((base, method), id=f"peft {peft.__version__}, {base}, {method}")
    for base in BASES
    for method in METHODS
]


@pytest.fixture(params=CASES)
def trained(request, tmp_path):
    """A model of ours that wears an adapter with random weights, the folders of both."""
    base, method = request.param
    model = random_model(5, tokenizer=byte_tokenizer.build(), head_width=16, **BASES[base])
    folder = saved(tmp_path / "model", model, byte_tokenizer.build())
    METHODS[method](folder).put_on(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.moving.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_adapter(tmp_path / "adapter", model, byte_tokenizer.build(), inputs={"model": folder}, card={})
    return model, folder, tmp_path / "adapter"


def tokens(model) -> torch.Tensor:
    return torch.randint(model.config.vocab_size, (2, 50), generator=torch.Generator().manual_seed(0))


def logits(model) -> torch.Tensor:
    """Of those tokens, before which stands what was learned."""
    virtual_BP = torch.tensor(model.virtual_ids, dtype=torch.long).expand(2, -1)
    return model(torch.cat([virtual_BP, tokens(model)], 1))[:, -50:]


def test_it_begins_again_as_what_was_written_and_peft_reads_what_is_written_then(trained, tmp_path):
    """No rank grows by it, also where several layers of ours lie in one of theirs; but that a layer which lies there
    and was left alone has a part under DoRA."""
    model, folder, adapter = trained
    again = load_model(folder)[0]
    again = read_learner(adapter, folder, again.config).put_on(again)
    inputs = {"model": folder}
    save_adapter(tmp_path / "again", again, byte_tokenizer.build(), inputs=inputs, card={})
    with torch.inference_mode():
        expected = logits(model)
        torch.testing.assert_close(logits(again), expected, rtol=0, atol=5e-6)
        theirs = theirs_of(folder, tmp_path / "again")(tokens(model)).logits[:, -50:]
        torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-5)
    ranks = [json.loads((it / "adapter_config.json").read_text()).get("r") for it in (adapter, tmp_path / "again")]
    assert ranks[0] == ranks[1] or (again.adapter.method, *ranks) == ("dora", 6, 9)
    assert all(parameter.requires_grad for parameter in again.moving.values()) and again.moving


def theirs_of(folder, adapter):
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before_texts = "token_dim" in json.loads((adapter / "adapter_config.json").read_text())  # peft goes on with none
    theirs = peft.PeftModel.from_pretrained(theirs, adapter, is_trainable=not before_texts).eval()
    if before_texts:
        theirs.prompt_encoder.requires_grad_(True)
    return theirs


def test_peft_loads_what_was_trained_and_computes_the_same(trained):
    model, folder, adapter = trained
    with torch.inference_mode():
        ours, theirs = logits(model), theirs_of(folder, adapter)(tokens(model)).logits[:, -50:]
        bare = logits(load_model(folder)[0])
    assert (ours - bare).abs().max() > 0.1  # else 1e-5 would be no promise
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("trained", [case for case in CASES if has_gradients(*case.values[0])], indirect=True)
def test_gradients_are_those_of_peft(trained):
    model, folder, adapter = trained
    theirs = theirs_of(folder, adapter)
    for each in (model, theirs):
        logits_BTV = logits(model) if each is model else each(tokens(model)).logits[:, -50:]
        logits_BTV.log_softmax(-1)[..., 7].sum().backward()
    found = sorted(float(p.grad.norm()) for p in model.moving.values())
    expected = sorted(float(p.grad.norm()) for p in theirs.parameters() if p.requires_grad)
    assert len(found) == len(expected) > 0
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_was_written_opens_as_a_model_that_computes_the_same(trained):
    model, _, adapter = trained
    with torch.inference_mode():
        torch.testing.assert_close(logits(load_model(adapter)[0]), logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", ["mlp", "lstm"], ids=lambda encoder: f"peft {peft.__version__}, {encoder}")
def test_the_network_of_p_tuning_is_that_of_peft(encoder, tmp_path):
    """With its weights, rows and gradients."""
    model = random_model(5, tokenizer=byte_tokenizer.build(), **BASES["Llama"])
    folder = saved(tmp_path / "model", model, byte_tokenizer.build())
    adapter = Prompted(PromptsConfig(tokens=7, hidden=24, encoder=encoder), folder, network=True)
    adapter.put_on(model)
    sizes = {"num_virtual_tokens": 7, "token_dim": model.config.width, "encoder_hidden_size": 24}
    wants = peft.PromptEncoderConfig(
        **sizes, num_transformer_submodules=1, encoder_reparameterization_type=encoder.upper()
    )
    theirs = peft.PromptEncoder(wants)
    ours = adapter.rows
    with torch.no_grad():
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(one)
    made_PW, wanted_PW = ours(), theirs(torch.arange(7))
    torch.testing.assert_close(made_PW, wanted_PW, rtol=0, atol=1e-6)
    for rows_PW in (made_PW, wanted_PW):
        (rows_PW**2).sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad.abs().max() > 0
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)
