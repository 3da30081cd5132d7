"""Mixtures of experts: Mixtral, Qwen3-MoE, dots.llm1."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from seedbed.errors import DataError
from seedbed.model.config import MOST_EXPERTS, MOST_LAYERS, ModelConfig
from seedbed.model.huggingface.activations import GATED_ACTIVATIONS
from seedbed.model.huggingface.llama import read_llama, write_llama, write_qwen
from seedbed.model.huggingface.peer_class import EITHER, PeerClass, Values
from seedbed.model.huggingface.rotary import ROPE_SCALINGS
from seedbed.model.names import DOTS1, MIXTRAL, QWEN3_MOE

FIRST_DENSE = range(MOST_LAYERS)
ROTARY_GATED: Mapping[str, Container[Any]] = {"rope_scaling": ROPE_SCALINGS, "activation": tuple(GATED_ACTIVATIONS)}


def _refuse_windows(values: Values) -> None:
    """DataError where a layer has a sliding window, which seedbed reads from none of these classes."""
    told = values.get("layer_types")
    has_one = values.get("sliding_window") is not None and values.get("use_sliding_window", True)
    later = values.get("max_window_layers", 0) < values["num_hidden_layers"]
    if set(told) != {"full_attention"} if told else has_one and later:
        raise DataError("its layers have sliding windows, seedbed reads none from this class")


def _write_mixtral(config: ModelConfig) -> dict[str, Any]:
    return write_llama(config) | {
        "intermediate_size": config.expert_width,
        "num_experts_per_tok": config.experts_active,
        "num_local_experts": config.experts,
        "router_aux_loss_coef": config.balance_loss,
        "sliding_window": None,
    }


def _read_mixtral(values: Values) -> dict[str, Any]:
    _refuse_windows(values)
    return read_llama(values) | {
        "qk_norm": False,
        "experts": values["num_local_experts"],
        "experts_active": values["num_experts_per_tok"],
        "expert_width": values["intermediate_size"],
        "router_normalised": True,
    }


def _write_qwen3_moe(config: ModelConfig) -> dict[str, Any]:
    return write_qwen(config) | {
        "decoder_sparse_step": config.experts_every,
        "mlp_only_layers": list(range(config.experts_dense_first)),
        "moe_intermediate_size": config.expert_width,
        "norm_topk_prob": config.router_normalised,
        "num_experts": config.experts,
        "num_experts_per_tok": config.experts_active,
        "router_aux_loss_coef": config.balance_loss,
    }


def _read_qwen3_moe(values: Values) -> dict[str, Any]:
    dense = values.get("mlp_only_layers") or []
    if dense != list(range(len(dense))):
        raise DataError(f"mlp_only_layers is {dense}, seedbed has only the first ones")
    return read_llama(values) | {
        "experts": values.get("num_experts") or values["num_local_experts"],
        "experts_active": values["num_experts_per_tok"],
        "expert_width": values["moe_intermediate_size"],
        "experts_every": values.get("decoder_sparse_step", 1),
        "experts_dense_first": len(dense),
        "router_normalised": values.get("norm_topk_prob", False),
    }


def _write_dots1(config: ModelConfig) -> dict[str, Any]:
    return write_llama(config) | {
        "first_k_dense_replace": config.experts_dense_first,
        "layer_types": ["full_attention"] * config.layers,
        "max_window_layers": config.layers,
        "moe_intermediate_size": config.expert_width,
        "n_group": 1,
        "n_routed_experts": config.experts,
        "n_shared_experts": config.experts_shared,
        "norm_topk_prob": config.router_normalised,
        "num_experts_per_tok": config.experts_active,
        "routed_scaling_factor": 1.0,
        "sliding_window": None,
        "topk_group": 1,
    }


def _read_dots1(values: Values) -> dict[str, Any]:
    _refuse_windows(values)
    return read_llama(values) | {
        "experts": values.get("n_routed_experts") or values["num_local_experts"],
        "experts_active": values["num_experts_per_tok"],
        "experts_shared": values["n_shared_experts"],
        "expert_width": values["moe_intermediate_size"],
        "experts_dense_first": values.get("first_k_dense_replace", 0),
        "router": "sigmoid",
        "router_normalised": values.get("norm_topk_prob", False),
        "balance_loss": 1e-4,
        "balance_rate": 1e-3,
    }


MIXTRAL_CLASS = PeerClass(
    "MixtralForCausalLM",
    "mixtral",
    MIXTRAL,
    _write_mixtral,
    _read_mixtral,
    {**ROTARY_GATED, "qk_norm": (False,), "experts": range(1, MOST_EXPERTS + 1), "router_normalised": (True,)},
)

QWEN3_MOE_CLASS = PeerClass(
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    QWEN3_MOE,
    _write_qwen3_moe,
    _read_qwen3_moe,
    {
        **ROTARY_GATED,
        "attention_bias": EITHER,
        "experts": range(1, MOST_EXPERTS + 1),
        "experts_every": range(1, MOST_LAYERS + 1),
        "experts_dense_first": FIRST_DENSE,
        "router_normalised": EITHER,
    },
)

DOTS1_CLASS = PeerClass(
    "Dots1ForCausalLM",
    "dots1",
    DOTS1,
    _write_dots1,
    _read_dots1,
    {
        **ROTARY_GATED,
        "attention_bias": EITHER,
        "experts": range(2, MOST_EXPERTS + 1),
        "experts_shared": range(1, MOST_EXPERTS + 1),
        "experts_dense_first": FIRST_DENSE,
        "router": ("sigmoid",),
        "router_normalised": EITHER,
    },
    balances=True,
    defaults={"sliding_window": 4096, "max_window_layers": 62},
)
