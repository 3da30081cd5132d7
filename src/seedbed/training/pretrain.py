"""Pretraining: the next token of plain text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from seedbed.data.loader import WindowSource
from seedbed.data.tokens import open_tokens
from seedbed.errors import ConfigError
from seedbed.model.transformer import Transformer
from seedbed.training.config import PretrainConfig
from seedbed.training.objective import NextToken
from seedbed.training.stage import VALIDATION_SEED, Stage, run_stage


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Trains a fresh model on a tokens folder; returns the result that `result.json` holds."""
    tokens = open_tokens(config.data.tokens, config.verify)
    # Verifying has done its work: it is no part of what the run is, which goes on with or without.
    config = replace(config, model=config.model.with_tokenizer(tokens.tokenizer), verify=False)
    length = config.data.length or config.model.context
    if length > config.model.context:
        raise ConfigError(
            f"data.length is {length}, longer than model.context {config.model.context}",
            "Shorten data.length or lengthen model.context.",
        )

    def fresh_model() -> Transformer:
        torch.manual_seed(config.train.seed)
        return Transformer(config.model)

    stage = Stage(
        name="pretrain",
        model=fresh_model,
        tokenizer=tokens.tokenizer,
        source=WindowSource(tokens.train, length, config.train.seed),
        validation=WindowSource(tokens.val, length, VALIDATION_SEED),
        objective=NextToken(torch.from_numpy(tokens.tokenizer.token_bytes())),
        length=length,
        inputs={"tokens": config.data.tokens},
    )
    return run_stage(stage, config)
