"""Noise on the embeddings of what a model learns from (NEFTune: Jain et al. 2023, arXiv:2310.05914, §2).

Shape suffixes: B batch, T positions, D model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seedbed.model.transformer import Transformer


def add_noise(model: Transformer, alpha: float) -> None:
    """From now on, while it trains, each embedding gets uniform noise of at most alpha / √(T · D), T that of the row.
    It is drawn from torch's generator, which the trainer seeds for each step."""

    def hook(embedding: nn.Module, inputs: Any, x_BTD: Tensor) -> Tensor:
        if not embedding.training:
            return x_BTD
        _, length, width = x_BTD.shape
        return x_BTD + torch.empty_like(x_BTD).uniform_(-1, 1) * alpha / (length * width) ** 0.5

    model.embedding.register_forward_hook(hook)
