"""Rotary positions as a config.json tells them."""

from __future__ import annotations

from typing import Any

from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.peer_class import Values

ROPE_SCALINGS = ("none", "linear", "ntk", "yarn")


def write_rope(config: ModelConfig) -> dict[str, Any]:
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


def read_rope(values: Values, default_theta: float = 10_000.0) -> dict[str, Any]:
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
