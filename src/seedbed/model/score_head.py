"""A score in place of the vocabulary makes a language model a reward model; beside it, it is a critic's."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Head, Transformer


def with_score_head(model: Transformer, weight_1D: Tensor | None = None) -> Transformer:
    """The blocks of a model, which it shares, under a score head: of that weight, else its own where it has one, else
    one that gives nought for everything until it has learned, so that no prompt begins with a reward and no state with
    a value."""
    if model.config.head == "score" and weight_1D is None:
        return model
    return _under(model, "score", _score_head(model, weight_1D))


def with_critic(model: Transformer) -> Transformer:
    """A language model, whose weights it shares, with a score head beside its own: a policy and its critic. No state
    has a value until it has learned."""
    if model.config.head == "both":
        return model
    refuse_score_head(model.config)
    return _under(model, "both", _score_head(model))


def without_critic(model: Transformer) -> Transformer:
    """The policy alone; its weights are those very tensors."""
    return _under(model, "tokens", None)


def _score_head(model: Transformer, weight_1D: Tensor | None = None) -> Head:
    head = Head(model.config.width, 1, bias=False, device="meta")
    if weight_1D is None:
        weight_1D = torch.zeros(1, model.config.width)
    head.weight = nn.Parameter(weight_1D.to(model.device, model.dtype))
    return head


def _under(model: Transformer, head: Literal["tokens", "score", "both"], score: Head | None) -> Transformer:
    """A model of the same parts, adapters too, under another head."""
    made = copy(model)
    made._modules = dict(model._modules)  # a copy shares the very dictionary of its parts
    made.score = score
    if head == "score":
        made.head = None
    made.config = replace(model.config, head=head)
    return made


def refuse_score_head(config: ModelConfig, name: str = "the model") -> None:
    """ConfigError when a model gives scores, and no tokens."""
    if config.head == "score":
        raise ConfigError(
            f"{name} is a reward model or a critic: it gives scores, no tokens",
            "Take a language model, such as the one that it was made of.",
        )
