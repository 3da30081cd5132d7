"""A quantized folder, untouched, loads in transformers, to the matrices that we multiply with.

Peers: transformers and compressed-tensors, the installed versions; they stand in the ids of the tests.
"""

from __future__ import annotations

import compressed_tensors
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from seedbed.configuration import from_arguments
from seedbed.model.folder import load_model
from seedbed.model.linears.layers import stored_layers
from seedbed.model.names import LLAMA, QWEN3, their_name
from seedbed.quantization.config import QuantizeConfig
from seedbed.quantization.quantize import quantize
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()
VERSION = f"transformers {transformers.__version__}, compressed-tensors {compressed_tensors.__version__}"
SIZES = {"width": 64, "heads": 4, "kv_heads": 2, "head_width": 16, "ff_width": 128}
FAMILIES = {
    "Qwen3": ({}, QWEN3),
    "Llama": ({"qk_norm": False, "attention_bias": True}, LLAMA),
    "Arcee": ({"qk_norm": False, "activation": "relu2"}, LLAMA),
}
GPT2 = {"norm": "layer", "norm_bias": True, "activation": "gelu", "positions": "learned", "qk_norm": False}
GPT2 |= {"attention_bias": True, "feedforward_bias": True, "heads": 4, "kv_heads": 4}
SCHEMES = {
    "int8": ("--scheme=int8",),
    "int8, weights alone": ("--scheme=int8", "--activations=stored"),
    "int4": ("--scheme=int4", "--group=32", "--tables=int8"),
    "int4, some excluded": ("--scheme=int4", "--exclude=[embedding,blocks.1.*]"),
    "int8, some excluded": ("--scheme=int8", "--exclude=[head,embedding,blocks.0.feedforward.up]"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", FAMILIES, ids=[f"{VERSION}, {name}" for name in FAMILIES])
@torch.no_grad()
def test_transformers_computes_what_we_do(family, scheme, tmp_path):
    config, table = FAMILIES[family]
    saved(tmp_path / "model", random_model(3, tokenizer=TOKENIZER, **SIZES, **config), TOKENIZER)
    arguments = [f"--model={tmp_path / 'model'}", f"--out={tmp_path / 'out'}", *SCHEMES[scheme]]
    quantize(from_arguments(QuantizeConfig, arguments))
    ours, _ = load_model(tmp_path / "out")
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, output_loading_info=True)
    assert not any(info.values())
    tokens = torch.randint(TOKENIZER.vocab_size, (2, 60), generator=torch.Generator().manual_seed(0))
    wanted, found = ours(tokens), theirs(tokens).logits
    # Their rounding of activations ends at 127.5, not 127.
    near = 0.06 if any(layer.matrix.storage.activations == "int8" for layer in stored_layers(ours).values()) else 1e-5
    assert (found - wanted).norm() < near * wanted.norm()
    for name, layer in stored_layers(ours).items():
        assert torch.equal(theirs.get_parameter(their_name(name, table)), layer.weight)


def test_groups_that_do_not_fill_a_row_are_ours_alone(tmp_path):
    """The format has no short groups."""
    saved(tmp_path / "model", random_model(tokenizer=TOKENIZER, **SIZES), TOKENIZER)
    arguments = [f"--model={tmp_path / 'model'}", f"--out={tmp_path / 'out'}", "--scheme=int4", "--group=48"]
    quantize(from_arguments(QuantizeConfig, arguments))
    assert not (tmp_path / "out" / "config.json").exists()
    assert load_model(tmp_path / "out")[0].blocks[0].feedforward.up.matrix.scale_OG.shape == (128, 2)


@pytest.mark.parametrize(
    ("scheme", "config"),
    [("int8", {"tied": True}), ("int8", GPT2), ("int4", SIZES), ("nf4", SIZES)],
    ids=["tied", "GPT-2", "tables in four bits", "NF4"],
)
def test_what_their_formats_do_not_carry_is_not_said_to_be_theirs(scheme, config, tmp_path):
    saved(tmp_path / "model", random_model(tokenizer=TOKENIZER, **config), TOKENIZER)
    assert (tmp_path / "model" / "config.json").exists()
    arguments = [f"--model={tmp_path / 'model'}", f"--out={tmp_path / 'out'}", f"--scheme={scheme}"]
    quantize(from_arguments(QuantizeConfig, arguments))
    assert not (tmp_path / "out" / "config.json").exists()
    assert "holds no config.json" in (tmp_path / "out" / "README.md").read_text()
    assert load_model(tmp_path / "out")[0].config == load_model(tmp_path / "model")[0].config
