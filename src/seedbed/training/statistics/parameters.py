"""Norms of gradients, and how far an update moves the weights, by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from seedbed.model.transformer import Transformer
from seedbed.optim.groups import parameter_kinds


def group_parameters(model: Transformer) -> dict[str, list[nn.Parameter]]:
    """The parameters that learn, once by what they are (matrix, embedding, head, vector), once more by block."""
    kinds = {kind: parameters for kind, parameters in parameter_kinds(model).items() if parameters}
    blocks = {
        f"block_{number}": [parameter for parameter in block.parameters() if parameter.requires_grad]
        for number, block in enumerate(model.blocks)
    }
    return kinds | {name: parameters for name, parameters in blocks.items() if parameters}


def gradient_norms(groups: Mapping[str, Sequence[nn.Parameter]], whole: float) -> dict[str, float]:
    """The Euclidean norm of each group's gradient before clipping; `whole` is that of all gradients together.

    Clipping has scaled all gradients alike, so that the share of each group is still what it was.
    """
    gradients = {name: [p.grad for p in group if p.grad is not None] for name, group in groups.items()}
    every = {id(gradient): gradient for group in gradients.values() for gradient in group}
    now = norm(list(every.values()))
    scale = whole / now if now else 0.0
    return {name: norm(group) * scale for name, group in gradients.items()}


def update_ratios(
    before: Mapping[str, Sequence[Tensor]], groups: Mapping[str, Sequence[nn.Parameter]]
) -> dict[str, float]:
    """‖update‖ / ‖weights before it‖ of each group; left out where the weights were all nought."""
    ratios: dict[str, float] = {}
    for name, group in groups.items():
        size = norm(before[name])
        if size:
            moved = [after.detach() - old for after, old in zip(group, before[name], strict=True)]
            ratios[name] = norm(moved) / size
    return ratios


def norm(tensors: Sequence[Tensor]) -> float:
    """Of all of them together, as one long vector."""
    return float(torch.nn.utils.get_total_norm([tensor.float() for tensor in tensors])) if tensors else 0.0
