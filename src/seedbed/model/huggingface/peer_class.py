"""What is told of one Hugging Face class."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from seedbed.model.config import NO_EXPERTS, ModelConfig
from seedbed.model.names import DOTS1, Table

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
    # These matter while training only.
    *("balance_loss", "router_z_loss", "dropout", "initial_std", "embedding_std", "zero_projections"),
)
"""Fields that may have any value in every class."""

WINDOWS = ("window", "window_pattern")
EITHER = (False, True)

Values = Mapping[str, Any]
"""Of a config.json."""


@dataclass(frozen=True)
class PeerClass:
    """A class of transformers, and which of our choices it has."""

    name: str
    model_type: str
    table: Table
    write: Callable[[ModelConfig], dict[str, Any]]
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

    def scoring(self) -> PeerClass | None:
        """The class of the same blocks under one score; None where there is none."""
        if self.table is DOTS1:
            return None
        name = re.sub("ForCausalLM$|LMHeadModel$", "ForSequenceClassification", self.name)
        return replace(self, name=name, choices={**self.choices, "head": ("score",)})

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
