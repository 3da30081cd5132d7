"""GPT-2 and GPT-NeoX."""

from __future__ import annotations

from typing import Any

from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.activations import PLAIN_ACTIVATIONS, read_activation
from seedbed.model.huggingface.peer_class import EITHER, PeerClass, Values
from seedbed.model.huggingface.rotary import ROPE_SCALINGS, read_rope, write_rope
from seedbed.model.names import GPT2, GPT_NEOX

NEOX_CHOICES = {"norm": "layer", "norm_bias": True, "qk_norm": False, "feedforward_bias": True}
GPT2_CHOICES = NEOX_CHOICES | {"positions": "learned", "attention_bias": True}


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "activation_function": (PLAIN_ACTIVATIONS | {"gelu": "gelu_new"})[config.activation],
        "add_cross_attention": False,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "n_embd": config.width,
        "n_head": config.heads,
        "n_inner": config.ff_width,
        "n_layer": config.layers,
        "n_positions": config.context,
        "reorder_and_upcast_attn": False,
        "resid_pdrop": config.dropout,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
    }


def _read_gpt2(values: Values) -> dict[str, Any]:
    return {
        **GPT2_CHOICES,
        "activation": read_activation(values.get("activation_function", "gelu_new"), PLAIN_ACTIVATIONS),
        "context": values["n_positions"],
        "ff_width": values.get("n_inner") or 4 * values["n_embd"],
        "heads": values["n_head"],
        "layers": values["n_layer"],
        "norm_epsilon": values.get("layer_norm_epsilon", 1e-5),
        "width": values["n_embd"],
    }


def _write_gpt_neox(config: ModelConfig) -> dict[str, Any]:
    rope = write_rope(config)
    rope["rope_parameters"]["partial_rotary_factor"] = 1.0
    return {
        **rope,
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "hidden_act": PLAIN_ACTIVATIONS[config.activation],
        "hidden_dropout": config.dropout,
        "hidden_size": config.width,
        "intermediate_size": config.ff_width,
        "layer_norm_eps": config.norm_epsilon,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "rotary_emb_base": rope["rope_theta"],
        "rotary_pct": 1.0,
        "use_parallel_residual": False,
    }


def _read_gpt_neox(values: Values) -> dict[str, Any]:
    share = values.get("rotary_pct", (values.get("rope_parameters") or {}).get("partial_rotary_factor", 0.25))
    if share != 1:
        raise DataError(f"rotary_pct is {share}, seedbed has only 1.0")
    return {
        **NEOX_CHOICES,
        "activation": read_activation(values.get("hidden_act", "gelu"), PLAIN_ACTIVATIONS),
        "attention_bias": values.get("attention_bias", True),
        "context": values["max_position_embeddings"],
        "ff_width": values["intermediate_size"],
        "heads": values["num_attention_heads"],
        "layers": values["num_hidden_layers"],
        "norm_epsilon": values.get("layer_norm_eps", 1e-5),
        "width": values["hidden_size"],
        **read_rope(values, values.get("rotary_emb_base") or 10_000.0),
    }


GPT2_CLASS = PeerClass(
    "GPT2LMHeadModel",
    "gpt2",
    GPT2,
    _write_gpt2,
    _read_gpt2,
    {"activation": tuple(PLAIN_ACTIVATIONS)} | {name: (value,) for name, value in GPT2_CHOICES.items()},
    heads="filling",
    defaults={"tie_word_embeddings": True},
)

GPT_NEOX_CLASS = PeerClass(
    "GPTNeoXForCausalLM",
    "gpt_neox",
    GPT_NEOX,
    _write_gpt_neox,
    _read_gpt_neox,
    {"rope_scaling": ROPE_SCALINGS, "activation": tuple(PLAIN_ACTIVATIONS), "attention_bias": EITHER}
    | {name: (value,) for name, value in NEOX_CHOICES.items()},
    heads="filling",
    defaults={"use_parallel_residual": True},
)
