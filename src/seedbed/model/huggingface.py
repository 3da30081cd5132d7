"""The Hugging Face classes that compute our architectures, and what their `config.json` says.

A class is chosen by the config: the first one that has every choice it makes. Where none has, a model folder keeps our
names and holds no `config.json`, so that no other tool misreads it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch

from seedbed.errors import DataError
from seedbed.model.config import MOST_EXPERTS, MOST_LAYERS, NO_EXPERTS, ModelConfig
from seedbed.model.names import DOTS1, GPT2, GPT_NEOX, LLAMA, MIXTRAL, QWEN3, QWEN3_MOE, Table
from seedbed.runs import make_record

ANY_CLASS_HAS = (
    *(
        "vocab_size",
        "layers",
        "width",
        "heads",
        "kv_heads",
        "head_width",
        "ff_width",
        "context",
        "norm_epsilon",
        "tied",
    ),
    *("rope_base", "rope_factor", "rope_original_context", "pad_id", "bos_id", "eos_id"),
    *("experts_active", "expert_width", "balance_rate"),  # of classes that have experts; the bias is a choice of them
    *(
        "balance_loss",
        "router_z_loss",
        "dropout",
        "initial_std",
        "embedding_std",
        "zero_projections",
    ),  # these matter while training only
)
"""Fields that may have any value in every class."""

WINDOWS = ("window", "window_pattern")
LAYER_TYPES = {"S": "sliding_attention", "L": "full_attention"}

ROPE_SCALINGS = ("none", "linear", "ntk", "yarn")
EITHER = (False, True)

Values = Mapping[str, Any]
"""Of a config.json."""


@dataclass(frozen=True)
class PeerClass:
    """A class of transformers, and which of our choices it has."""

    name: str
    model_type: str
    table: Table
    describe: Callable[[ModelConfig], dict[str, Any]]
    """What its config.json says beside what all of them say."""
    read: Callable[[Values], dict[str, Any]]
    """Our config from its config.json, but for vocabulary, ids and head, which all write alike."""
    choices: Mapping[str, Container[Any]]
    """Values that it has of a field, where they are not just the default."""
    balances: bool = False
    """Whether a bias stands beside the scores of its experts."""
    heads: Literal["any", "dividing", "filling"] = "any"
    """Which heads it takes: any, as many as width can be divided by, or such as fill width with no sharing of keys."""
    has_windows: bool = False
    """Whether each layer may have a sliding window."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What it takes for granted where a config.json is silent."""

    def missing(self, config: ModelConfig) -> list[str]:
        """The choices of a resolved config that it does not have, as "norm_place post"."""
        lacking = []
        for option in fields(ModelConfig):
            if not config.experts and option.name in NO_EXPERTS:
                continue
            value = getattr(config, option.name)
            if option.name in WINDOWS and self.has_windows:
                continue
            if option.name not in ANY_CLASS_HAS and value not in self.choices.get(option.name, (option.default,)):
                lacking.append(f"{option.name} {str(value).lower() if isinstance(value, bool) else value}")
        if bool(config.balance_rate) != self.balances:
            lacking.append(f"balance_rate {config.balance_rate}")
        if self.heads != "any" and config.width % config.heads:
            lacking.append(f"heads {config.heads} with width {config.width}")
        if self.heads == "filling" and config.kv_heads != config.heads:
            lacking.append(f"kv_heads {config.kv_heads} of {config.heads} heads")
        if self.heads == "filling" and config.heads * config.head_width != config.width:
            lacking.append(f"head_width {config.head_width}")
        return lacking


def find_class(config: ModelConfig) -> PeerClass | None:
    """The class that computes a resolved config, or None."""
    return next((peer for peer in CLASSES if not peer.missing(config)), None)


def what_no_class_has(config: ModelConfig) -> tuple[PeerClass, list[str]]:
    """The nearest class, and which choices of the config it lacks."""
    alike = [peer for peer in CLASSES if ("experts" in peer.choices) == bool(config.experts)]
    nearest = min(alike, key=lambda peer: len(peer.missing(config)))
    return nearest, nearest.missing(config)


def describe_class(config: ModelConfig) -> str:
    """A sentence on what other tools make of a resolved config."""
    if peer := find_class(config):
        return f"The Hugging Face class {peer.name} computes it."
    nearest, lacking = what_no_class_has(config)
    return (
        f"No Hugging Face class computes it: the nearest, {nearest.name}, has no {', no '.join(lacking)}. Its folder "
        "therefore keeps seedbed's own names and holds no config.json; seedbed alone loads it."
    )


def huggingface_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any] | None:
    """`config.json` of the class that computes a resolved config, with weights of `dtype`; None where none does."""
    peer = find_class(config)
    if peer is None:
        return None
    stored = str(dtype).removeprefix("torch.")
    return {
        "architectures": [peer.name],
        "model_type": peer.model_type,
        # Written twice, like the rotary frequencies below: older tools read torch_dtype.
        "dtype": stored,
        "torch_dtype": stored,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tied,
        "use_cache": True,
        "vocab_size": config.vocab_size,
        **peer.describe(config),
    }


def read_huggingface_config(values: Values) -> tuple[ModelConfig, PeerClass]:
    """The resolved config that a `config.json` of one of the classes describes, and the class.

    SeedbedError, naming the key, for another class and for a choice that seedbed does not have.
    """
    named = values.get("architectures")
    peer = next((peer for peer in CLASSES if named == [peer.name]), None)
    if peer is None:
        raise DataError(f"architectures is {named}, seedbed knows {', '.join(peer.name for peer in CLASSES)}")
    values = {**peer.defaults, **values}
    end = values.get("eos_token_id")
    try:
        ours = {
            "vocab_size": values["vocab_size"],
            "tied": values.get("tie_word_embeddings", False),
            "pad_id": values.get("pad_token_id"),
            "bos_id": values.get("bos_token_id"),
            "eos_id": next(iter(end), None) if isinstance(end, list) else end,
            **peer.read(values),
        }
    except KeyError as error:
        raise DataError(f"it has no {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise DataError(f"it has a value that makes no sense: {error}") from error
    config = make_record(ModelConfig, ours, "model.").resolve()
    said = huggingface_config(config, torch.float32)
    assert said is not None and said["architectures"] == [peer.name]
    for key in said.keys() & values.keys() - NOT_COMPARED:
        if said[key] != values[key]:
            raise DataError(f"{key} is {values[key]}, seedbed has only {said[key]}")
    return config, peer


NOT_COMPARED = {
    *("dtype", "torch_dtype", "initializer_range", "use_cache", "attention_dropout", "hidden_dropout"),
    *("eos_token_id", "resid_pdrop", "embd_pdrop", "attn_pdrop", "sliding_window", "max_window_layers"),
    *("rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base"),  # read, or refused there
    *("router_aux_loss_coef", "mlp_only_layers", "output_router_logits", "layer_types"),
    *("head_dim", "num_key_value_heads", "n_inner", "hidden_act", "activation_function"),  # may be null; and synonyms
}
"""Keys of no consequence for what is computed, or whose value was taken over."""


# What they say --------------------------------------------------------------------------------------------------------

GATED_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "reglu": "relu"}
PLAIN_ACTIVATIONS = {"gelu": "gelu_pytorch_tanh", "relu": "relu", "relu2": "relu2", "silu": "silu"}
SYNONYMS = {"gelu_new": "gelu_pytorch_tanh", "gelu_fast": "gelu_pytorch_tanh", "swish": "silu"}


def _activation(named: str, names: Mapping[str, str]) -> str:
    """DataError for one that we do not have, such as the exact GELU."""
    ours = {theirs: ours for ours, theirs in names.items()}
    if SYNONYMS.get(named, named) not in ours:
        raise DataError(f"the activation is {named}, seedbed has {', '.join(ours)}")
    return ours[SYNONYMS.get(named, named)]


def _rope(config: ModelConfig) -> dict[str, Any]:
    theta = config.rope_base
    scaling: dict[str, Any] | None = None
    if config.rope_scaling == "ntk":  # is nothing but another base
        theta *= config.rope_factor ** (config.head_width / (config.head_width - 2))
    elif config.rope_scaling != "none":
        scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
        if config.rope_scaling == "yarn":
            scaling["original_max_position_embeddings"] = config.rope_original_context
    return {
        # Written twice: transformers 5 reads rope_parameters, everything older reads the two others.
        "rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": theta},
        "rope_scaling": scaling,
        "rope_theta": theta,
    }


def _read_rope(values: Values, default_theta: float = 10_000.0) -> dict[str, Any]:
    rope = dict(values.get("rope_scaling") or values.get("rope_parameters") or {})
    theta = rope.pop("rope_theta", None) or values.get("rope_theta") or default_theta
    kind = rope.pop("rope_type", None) or rope.pop("type", "default")
    rope.pop("type", None)
    rope.pop("partial_rotary_factor", None)
    if kind == "default":
        return {"rope_base": float(theta)}
    factor, original = rope.pop("factor", None), rope.pop("original_max_position_embeddings", None)
    if kind not in ("linear", "yarn") or rope:
        raise DataError(f"its rotary positions are {kind}{''.join(f', {key}' for key in rope)}: seedbed has no such")
    if kind == "yarn":
        original = original or values["max_position_embeddings"]
    return {
        "rope_base": float(theta),
        "rope_scaling": kind,
        "rope_factor": float(factor),
        "rope_original_context": original,
    }


def _llama(config: ModelConfig) -> dict[str, Any]:
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
        **_rope(config),
    }


def _read_llama(values: Values, activations: Mapping[str, str] = GATED_ACTIVATIONS) -> dict[str, Any]:
    heads = values["num_attention_heads"]
    return {
        "attention_bias": values.get("attention_bias", False),
        "head_width": values.get("head_dim") or values["hidden_size"] // heads,
        "activation": _activation(values.get("hidden_act", "silu"), activations),
        "width": values["hidden_size"],
        "ff_width": values["intermediate_size"],
        "context": values["max_position_embeddings"],
        "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "layers": values["num_hidden_layers"],
        "norm_epsilon": values.get("rms_norm_eps", 1e-6),
        **_read_rope(values),
    }


def _qwen3(config: ModelConfig) -> dict[str, Any]:
    said = _llama(config) | {
        "max_window_layers": config.layers,
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    }
    if config.window is not None:
        said["layer_types"] = [LAYER_TYPES[kind] for kind in config.layer_kinds]
        said["max_window_layers"] = config.layer_kinds.index("S")  # for tools that are older than layer_types
    return said


def _read_qwen3(values: Values) -> dict[str, Any]:
    return _read_llama(values) | _read_windows(values)


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


def _without_windows(values: Values) -> None:
    if values.get("sliding_window") is not None and values.get("use_sliding_window", True):
        raise DataError(f"sliding_window is {values['sliding_window']}, seedbed reads none from this class")


def _mixtral(config: ModelConfig) -> dict[str, Any]:
    return _llama(config) | {
        "intermediate_size": config.expert_width,
        "num_experts_per_tok": config.experts_active,
        "num_local_experts": config.experts,
        "router_aux_loss_coef": config.balance_loss,
        "sliding_window": None,
    }


def _read_mixtral(values: Values) -> dict[str, Any]:
    _without_windows(values)
    return _read_llama(values) | {
        "qk_norm": False,
        "experts": values["num_local_experts"],
        "experts_active": values["num_experts_per_tok"],
        "expert_width": values["intermediate_size"],
        "router_normalised": True,
    }


def _qwen3_moe(config: ModelConfig) -> dict[str, Any]:
    return _qwen3(config) | {
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
    return _read_llama(values) | {
        "experts": values.get("num_experts") or values["num_local_experts"],
        "experts_active": values["num_experts_per_tok"],
        "expert_width": values["moe_intermediate_size"],
        "experts_every": values.get("decoder_sparse_step", 1),
        "experts_dense_first": len(dense),
        "router_normalised": values.get("norm_topk_prob", False),
    }


def _dots1(config: ModelConfig) -> dict[str, Any]:
    return _llama(config) | {
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
    if set(values.get("layer_types") or ()) > {"full_attention"}:
        raise DataError("layer_types has sliding windows, seedbed reads none from this class")
    return _read_llama(values) | {
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


def _gpt2(config: ModelConfig) -> dict[str, Any]:
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
        "activation": _activation(values.get("activation_function", "gelu_new"), PLAIN_ACTIVATIONS),
        "context": values["n_positions"],
        "ff_width": values.get("n_inner") or 4 * values["n_embd"],
        "heads": values["n_head"],
        "layers": values["n_layer"],
        "norm_epsilon": values.get("layer_norm_epsilon", 1e-5),
        "width": values["n_embd"],
    }


def _gpt_neox(config: ModelConfig) -> dict[str, Any]:
    rope = _rope(config)
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
        "activation": _activation(values.get("hidden_act", "gelu"), PLAIN_ACTIVATIONS),
        "attention_bias": values.get("attention_bias", True),
        "context": values["max_position_embeddings"],
        "ff_width": values["intermediate_size"],
        "heads": values["num_attention_heads"],
        "layers": values["num_hidden_layers"],
        "norm_epsilon": values.get("layer_norm_eps", 1e-5),
        "width": values["hidden_size"],
        **_read_rope(values, values.get("rotary_emb_base") or 10_000.0),
    }


# The classes ----------------------------------------------------------------------------------------------------------

NEOX_CHOICES = {"norm": "layer", "norm_bias": True, "qk_norm": False, "feedforward_bias": True}
GPT2_CHOICES = NEOX_CHOICES | {"positions": "learned", "attention_bias": True}

FIRST_DENSE = range(MOST_LAYERS)
ROTARY_GATED: Mapping[str, Container[Any]] = {"rope_scaling": ROPE_SCALINGS, "activation": tuple(GATED_ACTIVATIONS)}

CLASSES = (
    PeerClass(
        "Qwen3ForCausalLM",
        "qwen3",
        QWEN3,
        _qwen3,
        _read_qwen3,
        {"rope_scaling": ROPE_SCALINGS, "activation": tuple(GATED_ACTIVATIONS), "attention_bias": EITHER},
        has_windows=True,
    ),
    PeerClass(
        "LlamaForCausalLM",
        "llama",
        LLAMA,
        lambda config: _llama(config) | {"mlp_bias": config.feedforward_bias},
        lambda values: _read_llama(values) | {"qk_norm": False, "feedforward_bias": values.get("mlp_bias", False)},
        {
            "rope_scaling": ROPE_SCALINGS,
            "activation": tuple(GATED_ACTIVATIONS),
            "attention_bias": EITHER,
            "feedforward_bias": EITHER,
            "qk_norm": (False,),
        },
        heads="dividing",
    ),
    PeerClass(
        "ArceeForCausalLM",
        "arcee",
        LLAMA,
        lambda config: _llama(config) | {"mlp_bias": config.feedforward_bias},
        lambda values: (
            _read_llama({"hidden_act": "relu2", **values}, PLAIN_ACTIVATIONS)
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
    ),
    PeerClass(
        "GPT2LMHeadModel",
        "gpt2",
        GPT2,
        _gpt2,
        _read_gpt2,
        {"activation": tuple(PLAIN_ACTIVATIONS)} | {name: (value,) for name, value in GPT2_CHOICES.items()},
        heads="filling",
        defaults={"tie_word_embeddings": True},
    ),
    PeerClass(
        "GPTNeoXForCausalLM",
        "gpt_neox",
        GPT_NEOX,
        _gpt_neox,
        _read_gpt_neox,
        {"rope_scaling": ROPE_SCALINGS, "activation": tuple(PLAIN_ACTIVATIONS), "attention_bias": EITHER}
        | {name: (value,) for name, value in NEOX_CHOICES.items()},
        heads="filling",
        defaults={"use_parallel_residual": True},
    ),
    PeerClass(
        "MixtralForCausalLM",
        "mixtral",
        MIXTRAL,
        _mixtral,
        _read_mixtral,
        {**ROTARY_GATED, "qk_norm": (False,), "experts": range(1, MOST_EXPERTS + 1), "router_normalised": (True,)},
    ),
    PeerClass(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        QWEN3_MOE,
        _qwen3_moe,
        _read_qwen3_moe,
        {
            **ROTARY_GATED,
            "attention_bias": EITHER,
            "experts": range(1, MOST_EXPERTS + 1),
            "experts_every": range(1, MOST_LAYERS + 1),
            "experts_dense_first": FIRST_DENSE,
            "router_normalised": EITHER,
        },
    ),
    PeerClass(
        "Dots1ForCausalLM",
        "dots1",
        DOTS1,
        _dots1,
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
    ),
)
"""Asked in this order."""
