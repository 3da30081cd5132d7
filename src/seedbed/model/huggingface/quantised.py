"""What a `config.json` says of layers in few bits: the format compressed-tensors, which transformers and vLLM load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import describe_class, find_class
from seedbed.model.linears.storage import Storage
from seedbed.model.names import LLAMA, QWEN3, their_name
from seedbed.model.transformer import weight_shapes

WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
ACTIVATIONS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
FORMAT = "int-quantized"


def carries(config: ModelConfig, stored: Mapping[str, Storage]) -> bool:
    """Whether the class that computes a resolved config loads it with layers stored so.

    It must have a matrix of its own for each of ours; a head that is the embedding can be in few bits only apart.
    """
    peer = find_class(config)
    if not stored or peer is None:
        return peer is not None
    return peer.table in (LLAMA, QWEN3) and not (config.tied and "embedding" in stored)


def quantization_config(config: ModelConfig, stored: Mapping[str, Storage]) -> dict[str, Any]:
    """The part of `config.json`, of a class that carries it."""
    peer = find_class(config)
    assert peer is not None
    matrices = [name.removesuffix(".weight") for name, shape in weight_shapes(config).items() if len(shape) == 2]
    left = [name for name in matrices if name not in stored and name != "embedding"]
    groups: dict[str, Any] = {}
    for target, names in (("Linear", [*stored.keys() - {"embedding"}]), ("Embedding", stored.keys() & {"embedding"})):
        for name in names:
            storage = stored[name]
            groups[target] = {
                "targets": [target],
                "weights": WEIGHTS,
                "input_activations": ACTIVATIONS if storage.activations == "int8" else None,
                "output_activations": None,
                "format": FORMAT,
            }
    return {
        "quant_method": "compressed-tensors",
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {f"group_{number}": group for number, group in enumerate(groups.values())},
        "ignore": [their_name(name, peer.table).removesuffix(".weight") for name in left],
        "kv_cache_scheme": None,
    }


def describe_quantised(config: ModelConfig, stored: Mapping[str, Storage]) -> str:
    """A sentence on what other tools make of a folder with layers stored so."""
    if find_class(config) is None or not stored:
        return describe_class(config)
    if carries(config, stored):
        return (
            f"{describe_class(config)} Its layers are stored as compressed-tensors, which transformers and vLLM load."
        )
    return "Its folder holds no config.json: no format of other tools stores these layers so; seedbed alone loads it."
