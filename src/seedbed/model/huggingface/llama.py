"""Llama and what is built on it: Qwen2, Qwen3, Arcee."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.activations import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS, read_activation
from seedbed.model.huggingface.peer_class import EITHER, PeerClass, Values
from seedbed.model.huggingface.rotary import ROPE_SCALINGS, read_rope, write_rope
from seedbed.model.names import LLAMA, QWEN3

LAYER_TYPES = {"S": "sliding_attention", "L": "full_attention"}


def write_llama(config: ModelConfig) -> dict[str, Any]:
    return {
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "head_dim": config.head_width,
        "hidden_act": (GATED_ACTIVATIONS | PLAIN_ACTIVATIONS)[config.activation],
        "hidden_size": config.width,
        "intermediate_size": config.ff_width,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_epsilon,
        **write_rope(config),
    }


def read_llama(values: Values, activations: Mapping[str, str] = GATED_ACTIVATIONS) -> dict[str, Any]:
    heads = values["num_attention_heads"]
    return {
        "attention_bias": values.get("attention_bias", False),
        "head_width": values.get("head_dim") or values["hidden_size"] // heads,
        "activation": read_activation(values.get("hidden_act", "silu"), activations),
        "width": values["hidden_size"],
        "ff_width": values["intermediate_size"],
        "context": values["max_position_embeddings"],
        "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "layers": values["num_hidden_layers"],
        "norm_epsilon": values.get("rms_norm_eps", 1e-6),
        **read_rope(values),
    }


def write_qwen(config: ModelConfig) -> dict[str, Any]:
    said = write_llama(config) | {
        "max_window_layers": config.layers,
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    }
    if config.window is not None:
        said["layer_types"] = [LAYER_TYPES[kind] for kind in config.layer_kinds]
        said["max_window_layers"] = config.layer_kinds.index("S")  # for tools that are older than layer_types
    return said


def _write_qwen2(config: ModelConfig) -> dict[str, Any]:
    said = write_qwen(config)
    del said["attention_bias"]  # the class has no choice
    return said


def _read_qwen(values: Values) -> dict[str, Any]:
    return read_llama(values) | _read_windows(values)


def _read_windows(values: Values) -> dict[str, Any]:
    window, layers = values.get("sliding_window"), values["num_hidden_layers"]
    if not values.get("use_sliding_window") or window is None:
        return {}
    kinds = {theirs: ours for ours, theirs in LAYER_TYPES.items()}
    first = values.get("max_window_layers", 28)
    types = values.get("layer_types") or [LAYER_TYPES["S" if n >= first else "L"] for n in range(layers)]
    if other := set(types) - kinds.keys():
        raise DataError(f"layer_types has {min(other)}, seedbed has {' and '.join(kinds)}")
    pattern = "".join(kinds[kind] for kind in types)
    return {"window": window, "window_pattern": pattern} if "S" in pattern else {}


QWEN3_CLASS = PeerClass(
    "Qwen3ForCausalLM",
    "qwen3",
    QWEN3,
    write_qwen,
    _read_qwen,
    {"rope_scaling": ROPE_SCALINGS, "activation": tuple(GATED_ACTIVATIONS), "attention_bias": EITHER},
    has_windows=True,
)

QWEN2_CLASS = PeerClass(
    "Qwen2ForCausalLM",
    "qwen2",
    LLAMA,
    _write_qwen2,
    lambda values: _read_qwen(values) | {"qk_norm": False, "attention_bias": True, "attention_output_bias": False},
    {
        "rope_scaling": ROPE_SCALINGS,
        "activation": tuple(GATED_ACTIVATIONS),
        "attention_bias": (True,),
        "attention_output_bias": (False,),
        "qk_norm": (False,),
    },
    heads="dividing",
    has_windows=True,
)

LLAMA_CLASS = PeerClass(
    "LlamaForCausalLM",
    "llama",
    LLAMA,
    lambda config: write_llama(config) | {"mlp_bias": config.feedforward_bias},
    lambda values: read_llama(values) | {"qk_norm": False, "feedforward_bias": values.get("mlp_bias", False)},
    {
        "rope_scaling": ROPE_SCALINGS,
        "activation": tuple(GATED_ACTIVATIONS),
        "attention_bias": EITHER,
        "feedforward_bias": EITHER,
        "qk_norm": (False,),
    },
    heads="dividing",
)

ARCEE_CLASS = PeerClass(
    "ArceeForCausalLM",
    "arcee",
    LLAMA,
    lambda config: write_llama(config) | {"mlp_bias": config.feedforward_bias},
    lambda values: (
        read_llama({"hidden_act": "relu2", **values}, PLAIN_ACTIVATIONS)
        | {"qk_norm": False, "feedforward_bias": values.get("mlp_bias", False)}
    ),
    {
        "rope_scaling": ROPE_SCALINGS,
        "activation": tuple(PLAIN_ACTIVATIONS),
        "attention_bias": EITHER,
        "feedforward_bias": EITHER,
        "qk_norm": (False,),
    },
    heads="dividing",
)
