"""A model made ready to answer: its layers as the processor reads them, the small things between them by kernels.

It then computes each position with the same bits, whatever is computed beside it; it learns and is saved no more.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from seedbed.model.attention import Attention
from seedbed.model.config import ModelConfig
from seedbed.model.experts import Experts
from seedbed.model.feedforward import FeedForward, GatedFeedForward, build_feedforward
from seedbed.model.norms import RMSNorm
from seedbed.model.packed.attention import PackedAttention
from seedbed.model.packed.experts import PackedExperts
from seedbed.model.packed.feedforward import KERNELS, PackedFeedForward
from seedbed.model.packed.linears import PackedLinear, packed
from seedbed.model.packed.norms import PackedRMSNorm
from seedbed.model.transformer import Transformer
from seedbed.native.library import available


def pack(model: Transformer) -> Transformer:
    """The same model, where there are kernels for it: on a CPU, in fp32. A tied head becomes a layer of its own."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or not available():
        return model
    _pack_below(model, model.config)
    if model.head is None:
        model.head = PackedLinear(model.embedding.weight)
    return model.eval()


def _pack_below(module: nn.Module, config: ModelConfig) -> None:
    for name, part in list(module.named_children()):
        made = _packed(part, config)
        if made is not None:
            setattr(module, name, made)
        if not isinstance(made, PackedAttention):  # whose norms the kernel reads as they are
            _pack_below(made or part, config)


def _packed(part: nn.Module, config: ModelConfig) -> nn.Module | None:
    """What computes the same by a kernel; None when nothing does as a whole."""
    if isinstance(part, RMSNorm):
        return PackedRMSNorm(part)
    if isinstance(part, Attention) and (projections := packed(part.query, part.key, part.value)) is not None:
        attention = PackedAttention(part, projections, packed(part.output) or part.output)
        if part.value_gate is not None:
            _pack_below(part.value_gate, config)
        return attention
    if isinstance(part, FeedForward | GatedFeedForward) and config.activation in KERNELS:
        layers = (part.gate, part.up) if isinstance(part, GatedFeedForward) else (part.up,)
        up = packed(*layers)
        return None if up is None else PackedFeedForward(up, packed(part.down) or part.down, config.activation)
    if isinstance(part, Experts):
        return PackedExperts(part, _feedforwards(part, config))
    return packed(part)


def _feedforwards(experts: Experts, config: ModelConfig) -> list[FeedForward | GatedFeedForward]:
    """Each expert by itself, with the weights that it has."""
    made = []
    for number in range(config.experts):
        with torch.device("meta"):
            feedforward = build_feedforward(replace(config, ff_width=config.expert_width, feedforward_bias=False))
        for name, layer in feedforward.named_children():
            if isinstance(layer, nn.Linear):
                layer.weight = nn.Parameter(getattr(experts, name).weight[number].detach(), requires_grad=False)
        made.append(feedforward)
    return made
