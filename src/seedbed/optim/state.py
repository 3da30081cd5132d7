"""What optimizers keep beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def state_shapes(optimizer: Optimizer, whole: Mapping[Tensor, torch.Size]) -> dict[Tensor, dict[str, tuple[int, ...]]]:
    """The shape of every tensor that the optimizer keeps of each of its parameters once it has moved it, by key.

    Found by letting one like it take a step over parameters without memory. `whole`: the shape of each parameter, which
    may be moved in pieces, before it was divided.
    """
    groups = []
    for group in optimizer.param_groups:
        thin = [
            torch.empty(whole[parameter], dtype=parameter.dtype, device="meta", requires_grad=True)
            for parameter in group["params"]
        ]
        for parameter in thin:
            parameter.grad = torch.empty_like(parameter)
        groups.append(group | {"params": thin} | ({"fused": False} if "fused" in group else {}))
    kind: Callable[[list[dict[str, Any]]], Optimizer] = type(optimizer)
    other = kind(groups)
    other.step()
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    like = [parameter for group in other.param_groups for parameter in group["params"]]
    return {
        parameter: {key: tuple(tensor.shape) for key, tensor in other.state[thin].items()}
        for parameter, thin in zip(own, like, strict=True)
    }
