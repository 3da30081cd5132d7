"""What a `config.json` says of layers in few bits: the format compressed-tensors, which transformers loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import describe_class, find_class
from seedbed.model.linears.storage import Storage
from seedbed.model.names import LLAMA, QWEN3, their_name
from seedbed.model.transformer import weight_shapes

WHOLE_NUMBERS = {"type": "int", "symmetric": True}
ACTIVATIONS = {"num_bits": 8, **WHOLE_NUMBERS, "strategy": "token", "dynamic": True}
FORMATS = {"int8": "int-quantized", "int4": "pack-quantized"}
TABLE = "embedding"
"""The one layer of the classes below that is no matrix product."""


def carries(config: ModelConfig, stored: Mapping[str, Storage]) -> bool:
    """Whether the class that computes a resolved config loads it with layers stored so.

    It must have a matrix of its own for each of ours, whose rows are whole groups; it looks nothing up in four bits,
    and a head that is the embedding can be in few bits only apart.
    """
    peer = find_class(config)
    if not stored or peer is None:
        return peer is not None
    if peer.table not in (LLAMA, QWEN3):
        return False
    if TABLE in stored and (config.tied or stored[TABLE].scheme != "int8"):
        return False
    if any(storage.scheme not in FORMATS for storage in stored.values()):
        return False
    if len({storage for name, storage in stored.items() if name != TABLE}) > 1:
        return False
    shapes = weight_shapes(config)
    return all(shapes[f"{name}.weight"][-1] % (storage.group or 1) == 0 for name, storage in stored.items())


def quantization_config(config: ModelConfig, stored: Mapping[str, Storage]) -> dict[str, Any]:
    """The part of `config.json`, of a class that carries it."""
    peer = find_class(config)
    assert peer is not None
    matrices = [name.removesuffix(".weight") for name, shape in weight_shapes(config).items() if len(shape) == 2]
    left = [name for name in matrices if name not in stored and name != TABLE]
    groups = {"Embedding" if name == TABLE else "Linear": storage for name, storage in stored.items()}
    formats = {FORMATS[storage.scheme] for storage in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {f"group_{n}": _group(target, groups[target]) for n, target in enumerate(sorted(groups))},
        "ignore": [their_name(name, peer.table).removesuffix(".weight") for name in left],
        "kv_cache_scheme": None,
    }


def _group(target: str, storage: Storage) -> dict[str, Any]:
    """Of all layers of a kind."""
    if storage.scheme == "int8":
        weights: dict[str, Any] = {"num_bits": 8, **WHOLE_NUMBERS, "strategy": "channel", "dynamic": False}
    else:
        weights = {"num_bits": 4, **WHOLE_NUMBERS, "strategy": "group", "group_size": storage.group, "dynamic": False}
    return {
        "targets": [target],
        "weights": weights,
        "input_activations": ACTIVATIONS if storage.activations == "int8" else None,
        "output_activations": None,
        "format": FORMATS[storage.scheme],
    }


def describe_quantised(config: ModelConfig, stored: Mapping[str, Storage]) -> str:
    """A sentence on what other tools make of a folder with layers stored so."""
    if find_class(config) is None or not stored:
        return describe_class(config)
    if carries(config, stored):
        return f"{describe_class(config)} Its layers are stored as compressed-tensors, which transformers loads."
    return "Its folder holds no config.json: no format of other tools stores these layers so; seedbed alone loads it."
