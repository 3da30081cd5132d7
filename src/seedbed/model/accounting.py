"""What a model costs before it is built: parameters, floating-point operations, memory.

A multiplication with an addition counts as two operations. Only matrix products are counted: norms, activations, short
convolutions and the softmax are below one percent and bound by memory. Causal attention is counted in full, as in the
common 6·N + 12·L·H·K·T (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), so that figures compare with published
ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from seedbed.model.config import VALUE_GATE_INPUTS, ModelConfig
from seedbed.model.cross_entropy import rows_at_once

BYTES = 4
"""Of a number in fp32."""
KEPT = {"gelu": 1, "silu": 1, "relu": 2, "relu2": 2, "swiglu": 2, "geglu": 3, "reglu": 3}
"""Numbers kept for each hidden one of a feed-forward, by activation: products, and what comes between in two steps."""


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by where they are."""

    embedding: int
    """What is looked up: of tokens, of learned positions, of values."""
    attention: int
    feedforward: int
    """Of every token: of blocks without experts, and shared experts."""
    experts: int
    """Of which each token goes through a few."""
    routers: int
    norms: int
    biases: int
    """Of attention, feed-forward and the choice of experts."""
    skips: int
    convolutions: int
    head: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    @property
    def matrices(self) -> int:
        """What every token is multiplied with inside the blocks."""
        return self.attention + self.feedforward + self.experts + self.routers


def count_parameters(config: ModelConfig, *, active: bool = False) -> ParameterCount:
    """Of a resolved config. A tied head counts nothing of its own. `active`: of the experts only those that one token
    goes through."""
    query, key = config.heads * config.head_width, config.kv_heads * config.head_width
    in_width = 2 if config.is_gated else 1
    values = sum(map(config.has_value_embedding, range(config.layers)))
    gate = min(VALUE_GATE_INPUTS, config.width) * config.kv_heads
    learned_positions = config.context if config.positions == "learned" else 0
    bias_of_block = config.attention_bias * (query + 2 * key + config.attention_output_bias * config.width)
    bias_of_block += config.feedforward_bias * (in_width * config.ff_width + config.width)
    mixed = sum(map(config.has_experts, range(config.layers)))
    expert = (in_width + 1) * config.width * config.expert_width
    return ParameterCount(
        embedding=(config.vocab_size + learned_positions) * config.width + values * config.vocab_size * key,
        attention=config.layers * config.width * 2 * (query + key) + values * gate,
        feedforward=(config.layers - mixed) * (in_width + 1) * config.width * config.ff_width
        + mixed * config.experts_shared * expert,
        experts=mixed * (config.experts_active if active else config.experts) * expert,
        routers=mixed * config.experts * config.width,
        norms=_norm_parameters(config),
        biases=config.layers * bias_of_block + mixed * config.experts * (config.balance_rate > 0),
        skips=2 * config.layers * config.embedding_skip,
        convolutions=2 * config.layers * config.width * ((config.short_convolution or 1) - 1),
        head=(config.head_rows - config.vocab_size * (config.tied and config.head != "score")) * config.width,
    )


def _norm_parameters(config: ModelConfig) -> int:
    of_width = config.layers * (4 if config.norm_place == "sandwich" else 2) + (config.norm_place != "post")
    of_heads = 2 * config.layers * config.qk_norm
    return (of_width * config.width + of_heads * config.head_width) * (1 + config.norm_bias)


def multiplied_parameters(config: ModelConfig) -> int:
    """Those that every token is multiplied with: the matrices of the blocks, of experts the active ones, and the head,
    tied or not."""
    return count_parameters(config, active=True).matrices + config.head_rows * config.width


def forward_flops(config: ModelConfig, length: int) -> int:
    """Operations per token of a forward pass over sequences of `length` tokens."""
    products = 2 * multiplied_parameters(config)
    attention = 4 * config.heads * config.head_width * sum(_keys(config, kind, length) for kind in config.layer_kinds)
    return products + attention


def _keys(config: ModelConfig, kind: str, length: int) -> int:
    """Positions that each position reads at most in a layer of a kind, the later ones of a whole row counted too."""
    if kind == "S":
        return min(length, config.window or length)
    block = config.sparse_block
    if kind == "B" and block is not None and block < length:
        return block + config.sparse_summary * (length // block)
    return length


def training_flops(config: ModelConfig, length: int) -> int:
    """Operations per token of forward and backward: the backward pass does each product twice."""
    return 3 * forward_flops(config, length)


def cache_bytes(config: ModelConfig, positions: int, number: int = BYTES) -> int:
    """Memory of the keys and values of `positions` tokens, of so many bytes a number (of one: whole numbers, with a
    scale for each head), and of what short convolutions were given."""
    heads = config.kv_heads * (config.head_width * number + BYTES * (number == 1))
    return 2 * config.layers * (heads + BYTES * config.width * (config.short_convolution is not None)) * positions


def training_bytes(config: ModelConfig, tokens: int, *, optimizer_numbers: int = 2) -> int:
    """Estimated peak memory of a training step over `tokens` tokens at once: weights, gradients, optimizer state
    (`optimizer_numbers` a parameter: 2 for AdamW, 1 for Muon), what is kept for the backward pass, and the larger of
    what comes and goes: a chunk of logits, or the gradients inside a block. Nothing is recomputed, and nothing dropped.
    """
    weights = count_parameters(config).total * (2 + optimizer_numbers)
    logits = (2 if config.logit_softcap is None else 3) * config.head_rows
    logits *= min(tokens, rows_at_once(config.head_rows, config.width))
    inside = tokens * ((2 + 2 * KEPT[config.activation]) * _hidden(config) + 2 * config.width)
    return (weights + tokens * kept_numbers(config) + max(logits, inside)) * BYTES


def kept_numbers(config: ModelConfig) -> int:
    """Numbers that the forward pass keeps of a token for the backward pass. What `model.recipes` makes again is not
    kept: norms, rotations, gates and short convolutions."""
    query, key = config.heads * config.head_width, config.kv_heads * config.head_width
    # What both norms read; queries, keys, values and what attention makes of them; the feed-forward before its gate.
    block = 2 * config.width + 2 * query + 2 * key
    block += {"pre": 0, "post": 1, "sandwich": 2}[config.norm_place] * config.width
    block += config.embedding_skip * config.width
    block += (config.qk_norm and config.norm == "layer") * (query + key)  # torch's own takes a copy of each head
    mixed, values = (sum(map(has, range(config.layers))) for has in (config.has_experts, config.has_value_embedding))
    slots = (
        config.experts_active * (KEPT[config.activation] * config.expert_width + 2 * config.width) + 3 * config.experts
    )
    of_experts = slots + config.experts_shared * KEPT[config.activation] * config.expert_width
    inside = (config.layers - mixed) * KEPT[config.activation] * config.ff_width + mixed * of_experts + values * key
    # The last norm's input and output, and the gradient of the latter, which comes with the loss.
    return config.layers * block + inside + 3 * config.width


def _hidden(config: ModelConfig) -> int:
    """The widest feed-forward that a token goes through."""
    of_experts = (config.experts_active + config.experts_shared) * config.expert_width
    return max(of_experts, 0 if all(map(config.has_experts, range(config.layers))) else config.ff_width)
