"""A running mean of gradients, one for each weight."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor


def momenta(state: MutableMapping[Tensor, Any], weights: Sequence[Tensor]) -> list[Tensor]:
    """The momentum that an optimizer's state keeps of each weight; one that has none yet begins at zero."""
    for weight in weights:
        if not state[weight]:
            state[weight]["momentum"] = torch.zeros_like(weight)
    return [state[weight]["momentum"] for weight in weights]
