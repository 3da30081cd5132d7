"""Rotary positions as a config.json tells them."""

from __future__ import annotations

from typing import Any

from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.peer_class import Values
from seedbed.model.rope_scaling import LLAMA3_FAST, LLAMA3_SLOW

ROPE_SCALINGS = ("none", "linear", "ntk", "yarn", "llama3")
LLAMA3 = {"low_freq_factor": float(LLAMA3_SLOW), "high_freq_factor": float(LLAMA3_FAST)}
"""What its config.json says of the ramp."""


def write_rope(config: ModelConfig) -> dict[str, Any]:
    theta = config.rope_base
    scaling: dict[str, Any] | None = None
    if config.rope_scaling == "ntk":  # is nothing but another base
        theta *= config.rope_factor ** (config.head_width / (config.head_width - 2))
    elif config.rope_scaling != "none":
        scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
        if config.rope_scaling in ("yarn", "llama3"):
            scaling["original_max_position_embeddings"] = config.rope_original_context
        if config.rope_scaling == "llama3":
            scaling |= LLAMA3
    return {
        # Written twice: transformers 5 reads rope_parameters, everything older reads the two others.
        "rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": theta},
        "rope_scaling": scaling,
        "rope_theta": theta,
    }


def read_rope(values: Values, default_theta: float = 10_000.0) -> dict[str, Any]:
    rope = dict(values.get("rope_scaling") or values.get("rope_parameters") or {})
    theta = rope.pop("rope_theta", None) or values.get("rope_theta") or default_theta
    kind = rope.pop("rope_type", None) or rope.pop("type", "default")
    rope.pop("type", None)
    rope.pop("partial_rotary_factor", None)
    if kind == "default":
        return {"rope_base": float(theta)}
    factor, original = rope.pop("factor", None), rope.pop("original_max_position_embeddings", None)
    if kind == "llama3":
        for key, value in LLAMA3.items():
            if (said := rope.pop(key, value)) != value:
                raise DataError(f"{key} of its rotary positions is {said}, seedbed has only {value:g}")
    if kind not in ("linear", "yarn", "llama3") or rope:
        raise DataError(f"its rotary positions are {kind}{''.join(f', {key}' for key in rope)}: seedbed has no such")
    if kind in ("yarn", "llama3"):
        original = original or values["max_position_embeddings"]
    return {
        "rope_base": float(theta),
        "rope_scaling": kind,
        "rope_factor": float(factor),
        "rope_original_context": original,
    }
