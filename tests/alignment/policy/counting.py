"""A reward model made by hand: its score is known without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from seedbed.model.config import ModelConfig
from seedbed.model.folder import load_model, save_model
from seedbed.model.transformer import Transformer

WIDTH = 32


def counting_model(base: Path, folder: Path, letter: str, gain: float = 4.0) -> Path:
    """A folder of a reward model with the tokenizer of a model: every position reads all before it alike, and counts
    how many of them are a letter."""
    _, tokenizer = load_model(base)
    config = ModelConfig(layers=1, width=WIDTH, heads=1, ff_width=8, context=80, tied=True, head="score")
    model = Transformer(config.with_tokenizer(tokenizer))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(float("norm" in name))
        (counted,) = tokenizer.encode(letter)
        model.embedding.weight[:, 2] = 1.0
        model.embedding.weight[counted, 2] = 0.0
        model.embedding.weight[counted, 0] = 1.0
        attention = model.blocks[0].attention
        attention.value.weight[0, 0] = 1.0  # whether it is the letter, √WIDTH after the norm
        attention.output.weight[1, 0] = gain / math.sqrt(WIDTH)
        model.score.weight[0, 1] = 1.0
    save_model(folder, model, tokenizer, inputs={}, card={})
    return folder


def counted(ids: Sequence[int], letter: int, gain: float = 4.0) -> float:
    """What it says after these tokens."""
    share = gain * sum(id == letter for id in ids) / len(ids)
    return share / math.sqrt((1 + share**2) / WIDTH)
