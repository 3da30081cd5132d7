"""Adapters with random weights in both matrices, as peft writes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from seedbed.model.adapters.folder import SERVED
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import find_table
from seedbed.model.names import layers_of_theirs
from seedbed.model.transformer import weight_shapes

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "use_rslora": False, "use_dora": False}


def random_adapter(folder: Path, base: ModelConfig, seed: int = 0, layers: str = "", **config) -> Path:
    """Its folder: of all layers of ours that can have one, or those that hold `layers` in their name."""
    config = CONFIG | config
    shapes, rank = weight_shapes(base), config["r"]
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for theirs, (_, ours) in layers_of_theirs(shapes, find_table(base)).items():
        if all(SERVED.fullmatch(name) and layers in name and len(shapes[name]) == 2 for name in ours):
            inputs, outputs = shapes[ours[0]][1], sum(shapes[name][0] for name in ours)
            prefix = f"base_model.model.{theirs.removesuffix('.weight')}"
            down = torch.randn(rank, inputs, generator=generator)
            up = torch.randn(outputs, rank, generator=generator)
            weights |= {f"{prefix}.lora_A.weight": down * inputs**-0.5, f"{prefix}.lora_B.weight": up * rank**-0.5}
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights, folder / "adapter_model.safetensors")
    return folder
