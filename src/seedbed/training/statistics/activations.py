"""What flows through the model: the residual stream, feed-forward units, logits, attention.

Shape suffixes: B rows, T query positions, S key positions, D model width, H query heads, G key/value heads, K head
width, N chosen positions, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seedbed.model.attention_paths.reference import attention_entropy
from seedbed.model.routing import routing_statistics, routings_of
from seedbed.model.transformer import Block, Transformer

POSITIONS = 256
"""Positions whose logits are looked at, spread evenly: with a large vocabulary all of them would be the largest tensor
of a run."""


@torch.no_grad()
def activation_statistics(model: Transformer, forward: Callable[[], object]) -> dict[str, float]:
    """Numbers by name of one forward pass, which `forward` runs.

    - `activation_rms/block_I`, `activation_max/block_I`: of the residual stream behind block I
    - `activation_zeros/block_I`: share of its feed-forward units that are exactly nought (dead for this input)
    - `attention_entropy/block_I`: nats, mean over heads and positions; 0 when each position looks at one other
    - `router_entropy/block_I`, `expert_load/block_I/E`, `experts_dead/block_I`: of mixtures of experts, as in
      `routing_statistics`
    - `logit_max`, `logit_entropy`: largest absolute logit, and mean entropy of the prediction in nats
    """
    found: dict[str, float] = {}
    with contextlib.ExitStack() as hooks:
        for number, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            name = f"block_{number}"
            hooks.callback(block.register_forward_hook(partial(_see_stream, found, name)).remove)
            attention = block.attention.register_forward_pre_hook(partial(_see_attention, found, name))
            hooks.callback(attention.remove)
            if isinstance(down := getattr(block.feedforward, "down", None), nn.Module):
                hooks.callback(down.register_forward_pre_hook(partial(_see_units, found, name)).remove)
        last = model.final_norm.register_forward_hook(partial(_see_logits, found, model))
        hooks.callback(last.remove)
        routings = hooks.enter_context(routings_of(model))
        forward()
    return found | routing_statistics(routings)


def _see_stream(found: dict[str, float], name: str, block: nn.Module, inputs: Any, x_BTD: Tensor) -> None:
    found[f"activation_rms/{name}"] = float(x_BTD.float().square().mean().sqrt())
    found[f"activation_max/{name}"] = float(x_BTD.abs().max())


def _see_units(found: dict[str, float], name: str, down: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    found[f"activation_zeros/{name}"] = float((inputs[0] == 0).float().mean())


def _see_logits(found: dict[str, float], model: Transformer, norm: nn.Module, inputs: Any, x_BTD: Tensor) -> None:
    x_ND = x_BTD.flatten(0, 1)
    chosen_N = torch.linspace(0, len(x_ND) - 1, min(POSITIONS, len(x_ND)), device=x_ND.device).long()
    logits_NV = model.logits(x_ND[chosen_N]).float()
    found["logit_max"] = float(logits_NV.abs().max())
    found["logit_entropy"] = float(torch.distributions.Categorical(logits=logits_NV).entropy().mean())


def _see_attention(
    found: dict[str, float], name: str, attention: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The same inputs, but for an attend that is looked at when it is called."""
    x_BTD, angles, attend, *others = inputs

    def watched(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor) -> Tensor:
        found[f"attention_entropy/{name}"] = float(attention_entropy(q_BHTK, k_BGSK, attend.mask).mean())
        return attend(q_BHTK, k_BGSK, v_BGSK)

    return x_BTD, angles, watched, *others
