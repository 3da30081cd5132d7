"""Ways for the token itself to reach every block.

- embedding skip: block n reads a·x + b·x₀, x₀ the embedding, a and b learned (Jordan et al. 2024, modded-nanogpt,
  https://github.com/KellerJordan/modded-nanogpt, record 11). It begins at a = 1, b = 0: nothing changes.
- value embeddings: the values of attention take up, gated per head, an embedding of the token (nanochat, Karpathy 2025,
  https://github.com/karpathy/nanochat; from the value residual of Zhou et al. 2024, arXiv:2410.17897, where the first
  block's values take that part)

Shape suffixes: B batch, T positions, D model width, G key/value heads, K head width, E = G·K.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seedbed.model.config import VALUE_GATE_INPUTS, ModelConfig
from seedbed.model.linears.linear import Linear


class EmbeddingSkip(nn.Module):
    """A learned mix of the residual stream and the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x_BTD: Tensor, embedding_BTD: Tensor) -> Tensor:
        return self.shares[0] * x_BTD + self.shares[1] * embedding_BTD


class NoSkip(nn.Module):
    """The residual stream as it is."""

    def forward(self, x_BTD: Tensor, embedding_BTD: Tensor) -> Tensor:
        return x_BTD


class NoValues(nn.Module):
    """Of a block without an embedding of values."""

    def forward(self, tokens_BT: Tensor) -> None:
        return None


def build_skips(config: ModelConfig, layers: Sequence[int]) -> nn.ModuleList:
    """What stands before each of the numbered blocks."""
    return nn.ModuleList(EmbeddingSkip() if config.embedding_skip else NoSkip() for _ in layers)


def build_value_embeddings(config: ModelConfig, layers: Sequence[int]) -> nn.ModuleList:
    """What each numbered block's values take up: rows (B, T, E) of an embedding, or None."""
    return nn.ModuleList(
        nn.Embedding(config.vocab_size, config.kv_heads * config.head_width)
        if config.has_value_embedding(layer)
        else NoValues()
        for layer in layers
    )


class ValueGate(nn.Module):
    """How much of the token's own values each head takes up, from 0 to 2, read off the first coordinates of x.

    It begins at 1 for every token.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate = Linear(min(VALUE_GATE_INPUTS, config.width), config.kv_heads, bias=False)

    def forward(self, values_BGTK: Tensor, x_BTD: Tensor) -> Tensor:
        # 2 · sigmoid, by the function of which PyTorch computes each number alike wherever it stands in a tensor.
        gate_BTG = 1 + torch.tanh(self.gate(x_BTD[..., : self.gate.in_features]) / 2)
        return gate_BTG.transpose(1, 2)[..., None] * values_BGTK
