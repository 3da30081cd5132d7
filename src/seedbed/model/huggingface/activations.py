"""Activations by the names that Hugging Face has for them."""

from __future__ import annotations

from collections.abc import Mapping

from seedbed.errors import DataError

GATED_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "reglu": "relu"}
PLAIN_ACTIVATIONS = {"gelu": "gelu_pytorch_tanh", "relu": "relu", "relu2": "relu2", "silu": "silu"}
SYNONYMS = {"gelu_new": "gelu_pytorch_tanh", "gelu_fast": "gelu_pytorch_tanh", "swish": "silu"}


def read_activation(named: str, names: Mapping[str, str]) -> str:
    """DataError for one that we do not have, such as the exact GELU."""
    ours = {theirs: ours for ours, theirs in names.items()}
    if SYNONYMS.get(named, named) not in ours:
        raise DataError(f"the activation is {named}, seedbed has {', '.join(ours)}")
    return ours[SYNONYMS.get(named, named)]
