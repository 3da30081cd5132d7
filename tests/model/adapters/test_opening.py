"""A folder of any method that does not fit its base is one clear error, and so is one that lies about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedbed.errors import DataError, SeedbedError
from seedbed.model.adapters.adapter import Adapter, Ia3Adapter
from seedbed.model.adapters.bottleneck import BottleneckAdapter
from seedbed.model.adapters.config import BottleneckConfig, Ia3Config, PromptsConfig
from seedbed.model.adapters.opening import put_on
from seedbed.model.adapters.prompts import Prefixed, Prompted
from seedbed.model.adapters.saving import save_adapter
from seedbed.model.folder import load_model
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model

TOKENIZER = byte_tokenizer.build()
ADAPTERS = {
    "ia3": Ia3Adapter(Ia3Config(), Path("base")),
    "adapter": BottleneckAdapter(BottleneckConfig(), Path("base")),
    "prompt": Prompted(PromptsConfig(tokens=5), Path("base")),
    "prefix": Prefixed(PromptsConfig(tokens=5), Path("base")),
}


@pytest.fixture(params=ADAPTERS)
def folder(request, tmp_path) -> Path:
    adapter: Adapter = ADAPTERS[request.param]
    model = adapter.put_on(random_model(tokenizer=TOKENIZER))
    save_adapter(tmp_path / "adapter", model, TOKENIZER, inputs={}, card={})
    return tmp_path / "adapter"


def refused(folder: Path, **sizes: int) -> str:
    with pytest.raises(SeedbedError) as told:
        put_on(folder, random_model(tokenizer=TOKENIZER, **sizes))
    assert "\n" not in told.value.problem and str(folder) in told.value.problem
    return told.value.problem


def test_a_base_of_other_sizes_is_refused(folder):
    refused(folder, width=48, kv_heads=4, ff_width=64)


@pytest.mark.parametrize("damage", ["none", "stray", "whole numbers", "cut"])
def test_weights_that_are_not_its_own_are_refused(damage, folder):
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        change = {
            "none": {},
            "stray": weights | {"x": torch.zeros(1)},
            "whole numbers": {name: weight.int() for name, weight in weights.items()},
        }
        save_file(change[damage], file)
    refused(folder)


@pytest.mark.parametrize("value", [0, -1, 2**40, "5", None])
def test_sizes_that_are_none_are_refused(value, tmp_path):
    for method, key in (("prompt", "num_virtual_tokens"), ("adapter", "width")):
        model = ADAPTERS[method].put_on(random_model(tokenizer=TOKENIZER))
        save_adapter(tmp_path / method, model, TOKENIZER, inputs={}, card={})
        file = tmp_path / method / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
        refused(tmp_path / method)


def test_an_adapter_over_itself_is_refused(folder):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(folder)}))
    with pytest.raises(DataError, match="which is one, too"):
        load_model(folder)
