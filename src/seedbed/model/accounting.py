"""What a model costs before it is built: parameters, floating-point operations, memory.

A multiplication with an addition counts as two operations. Only matrix products are counted: norms, activations and the
softmax are below one percent and bound by memory. Causal attention is counted in full, as in the common
6·N + 12·L·H·K·T (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), so that figures compare with published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from seedbed.model.config import ModelConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by where they are."""

    embedding: int
    attention: int
    feedforward: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        return self.embedding + self.attention + self.feedforward + self.norms + self.head

    @property
    def matrices(self) -> int:
        """What every token is multiplied with inside the blocks."""
        return self.attention + self.feedforward


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Of a resolved config. A tied head counts nothing of its own."""
    query = config.width * config.heads * config.head_width
    key = config.width * config.kv_heads * config.head_width
    return ParameterCount(
        embedding=config.vocab_size * config.width,
        attention=config.layers * (2 * query + 2 * key),
        feedforward=config.layers * 3 * config.width * config.ff_width,
        norms=config.layers * (2 * config.width + 2 * config.head_width) + config.width,
        head=0 if config.tied else config.vocab_size * config.width,
    )


def forward_flops(config: ModelConfig, length: int) -> int:
    """Operations per token of a forward pass over sequences of `length` tokens."""
    products = 2 * (count_parameters(config).matrices + config.vocab_size * config.width)
    attention = 4 * config.layers * config.heads * config.head_width * length
    return products + attention


def training_flops(config: ModelConfig, length: int) -> int:
    """Operations per token of forward and backward: the backward pass does each product twice."""
    return 3 * forward_flops(config, length)


def cache_bytes(config: ModelConfig, positions: int, bytes_per_number: int = 4) -> int:
    """Memory of the keys and values of `positions` tokens."""
    return 2 * config.layers * config.kv_heads * config.head_width * positions * bytes_per_number


def training_bytes(config: ModelConfig, tokens: int, *, optimizer_numbers: int = 2, bytes_per_number: int = 4) -> int:
    """Estimated peak memory of a training step over `tokens` tokens at once: weights, gradients, optimizer state
    (`optimizer_numbers` a parameter: 2 for AdamW, 1 for Muon) and the activations that the backward pass needs.
    """
    weights = count_parameters(config).total * (2 + optimizer_numbers)
    block = 10 * config.width + 4 * config.heads * config.head_width + 4 * config.kv_heads * config.head_width
    activations = config.layers * (block + 4 * config.ff_width) + 3 * config.vocab_size
    return (weights + tokens * activations) * bytes_per_number
