"""A score in place of the vocabulary makes a language model a reward model; beside it, it is a critic's."""

from __future__ import annotations

from dataclasses import replace

import torch

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Transformer


def with_score_head(model: Transformer) -> Transformer:
    """The blocks of a model, whose weights it shares, under a score head: its own where it has one, else one that gives
    nought for everything until it has learned, so that no prompt begins with a reward and no state with a value."""
    if model.config.head == "score":
        return model
    weights = {name: weight.detach() for name, weight in model.named_parameters() if name != "head.weight"}
    weights["score.weight"] = torch.zeros(1, model.config.width, device=model.device, dtype=model.dtype)
    return Transformer.of_weights(replace(model.config, head="score"), weights).train(model.training)


def with_critic(model: Transformer) -> Transformer:
    """A language model, whose weights it shares, with a score head beside its own: a policy and its critic. No state
    has a value until it has learned."""
    if model.config.head == "both":
        return model
    refuse_score_head(model.config)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    weights["score.weight"] = torch.zeros(1, model.config.width, device=model.device, dtype=model.dtype)
    return Transformer.of_weights(replace(model.config, head="both"), weights).train(model.training)


def without_critic(model: Transformer) -> Transformer:
    """The policy alone; its weights are those very tensors."""
    weights = {name: weight.detach() for name, weight in model.named_parameters() if name != "score.weight"}
    return Transformer.of_weights(replace(model.config, head="tokens"), weights).train(model.training)


def refuse_score_head(config: ModelConfig, name: str = "the model") -> None:
    """ConfigError when a model gives scores, and no tokens."""
    if config.head == "score":
        raise ConfigError(
            f"{name} is a reward model or a critic: it gives scores, no tokens",
            "Take a language model, such as the one that it was made of.",
        )
