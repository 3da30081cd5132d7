"""What a forward pass says about its routers: losses that even out loads, and statistics.

Every term is a mean over one document, so that it depends neither on micro-batches nor on packing:

- balance loss E/C · Σₑ fₑ·Pₑ, fₑ the share of the document's tokens that chose expert e and Pₑ its mean score: 1 when
  all experts have the same load (Fedus et al. 2021, arXiv:2101.03961, eq. 4; a sequence at a time as in DeepSeek-V3,
  2024, arXiv:2412.19437, eq. 17–20)
- router z-loss: the mean of logsumexp(logits)², which keeps logits small (Zoph et al. 2022, arXiv:2202.08906, eq. 5)

Shape suffixes: B rows, T positions, N = B·T tokens, E experts, C experts that a token goes through, G documents.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seedbed.model.config import ModelConfig
from seedbed.model.experts import BalancedRouter, Experts, Router, Routing, shares
from seedbed.model.transformer import Transformer

ROUTER_LOSSES = ("balance_loss", "router_z_loss")
"""Totals that are sums over target tokens, and means over the blocks."""

Routings = dict[int, Routing]
"""Of the blocks that have experts, by number."""


def find_routers(model: Transformer) -> dict[int, Router]:
    """By the number of their block."""
    found = {}
    for number, block in enumerate(model.blocks):
        if isinstance(experts := getattr(block, "feedforward", None), Experts):
            found[number] = experts.router
    return found


@contextlib.contextmanager
def routings_of(model: Transformer) -> Iterator[Routings]:
    """What the routers say in the forward pass inside; filled when it is over, empty for a dense model."""
    found: Routings = {}
    with contextlib.ExitStack() as hooks:
        for number, router in find_routers(model).items():
            hooks.callback(router.register_forward_hook(partial(_note, found, number)).remove)
        yield found


def _note(found: Routings, number: int, router: nn.Module, inputs: Any, routing: Routing) -> None:
    found[number] = routing


@dataclass(frozen=True)
class Documents:
    """Which document each token belongs to."""

    number_N: Tensor
    """int64 from 0 on; `count` on padding."""
    count: int

    @classmethod
    def of(cls, tokens_BT: Tensor, segments_BT: Tensor | None) -> Documents:
        """A row is one document where `segments_BT` (−1: padding) is left out."""
        rows_B1 = torch.arange(len(tokens_BT), device=tokens_BT.device)[:, None]
        if segments_BT is None:
            return cls(rows_B1.expand_as(tokens_BT).flatten(), len(tokens_BT))
        most = int(segments_BT.max()) + 1
        count = len(tokens_BT) * most
        return cls(torch.where(segments_BT < 0, count, rows_B1 * most + segments_BT).flatten(), count)

    def sums(self, values_N: Tensor) -> Tensor:
        """Of numbers or vectors (N, …) over each document (G, …)."""
        return values_N.new_zeros(self.count + 1, *values_N.shape[1:]).index_add(0, self.number_N, values_N)[:-1]


@dataclass(frozen=True)
class RouterTerms:
    """Of one router, by document."""

    balance_G: Tensor
    z_G: Tensor
    loads_E: Tensor
    """int64 tokens that each expert had, padding aside."""


def router_terms(routing: Routing, documents: Documents) -> RouterTerms:
    """The losses of each document, 0 for one without tokens, and the loads."""
    experts, active = routing.logits_NE.shape[-1], routing.chosen_NC.shape[-1]
    tokens_G1 = documents.sums(torch.ones_like(documents.number_N))[:, None].clamp(min=1)
    slots_NC = documents.number_N[:, None] * experts + routing.chosen_NC
    loads_GE = slots_NC.flatten().bincount(minlength=(documents.count + 1) * experts).view(-1, experts)[:-1]
    score_GE = documents.sums(shares(routing.scores_NE)) / tokens_G1
    balance_G = (loads_GE.to(score_GE.dtype) / tokens_G1 * score_GE).sum(-1) * experts / active
    z_G = documents.sums(routing.logits_NE.logsumexp(-1).square()) / tokens_G1[:, 0]
    return RouterTerms(balance_G, z_G, loads_GE.sum(0))


def router_loss(
    config: ModelConfig, routings: Routings, documents: Documents, targets_N: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """What is added to a summed loss, and totals for the report and for `balance_experts`.

    Each document counts as often as it has targets (`targets_N` is 1 there); the terms of all blocks are added up.
    """
    weight_G = documents.sums(targets_N.float())
    terms = {number: router_terms(routing, documents) for number, routing in routings.items()}
    balance = torch.stack([(weight_G * term.balance_G).sum() for term in terms.values()]).sum()
    z = torch.stack([(weight_G * term.z_G).sum() for term in terms.values()]).sum()
    means = torch.stack([balance.detach(), z.detach()]).div(len(terms)).tolist()
    totals = dict(zip(ROUTER_LOSSES, means, strict=True))
    for number, term in terms.items():
        loads = enumerate(term.loads_E.tolist())
        totals |= {_load(number, expert): float(tokens) for expert, tokens in loads}
    return config.balance_loss * balance + config.router_z_loss * z, totals


def _load(block: int, expert: int) -> str:
    return f"load/{block}/{expert}"


def balance_experts(model: Transformer, totals: Mapping[str, float]) -> None:
    """Moves the biases of balanced routers by the loads of a whole step, which `totals` holds; without them, nothing.

    Loads are whole numbers, so that micro-batches and processes add up to the same whatever their order.
    """
    for number, router in find_routers(model).items():
        if isinstance(router, BalancedRouter) and _load(number, 0) in totals:
            loads = [totals[_load(number, expert)] for expert in range(len(router.weight))]
            router.balance(torch.tensor(loads, dtype=torch.float64))


def load_metrics(totals: Mapping[str, float]) -> dict[str, float]:
    """Of the loads in `totals`, nothing where there are none: `expert_load_max`, how many times the mean load the
    busiest expert of any block had (1: all the same), and `experts_dead`, how many had no token."""
    blocks: dict[str, list[float]] = {}
    for name, tokens in totals.items():
        if name.startswith("load/"):
            blocks.setdefault(name.split("/")[1], []).append(tokens)
    if not blocks:
        return {}
    busiest = max(max(loads) * len(loads) / (sum(loads) or 1.0) for loads in blocks.values())
    return {"expert_load_max": busiest, "experts_dead": sum(loads.count(0) for loads in blocks.values())}


def routing_statistics(routings: Routings) -> dict[str, float]:
    """Of each block with experts, over all its tokens: `router_entropy/block_I`, the mean entropy of a token's scores
    in nats; `expert_load/block_I/E`, each expert's load as a multiple of the mean; `experts_dead/block_I`."""
    found: dict[str, float] = {}
    for number, routing in routings.items():
        experts = routing.logits_NE.shape[-1]
        loads_E = routing.chosen_NC.flatten().bincount(minlength=experts)
        entropy_N = torch.special.entr(shares(routing.scores_NE.detach())).sum(-1)
        found[f"router_entropy/block_{number}"] = float(entropy_N.mean())
        found[f"experts_dead/block_{number}"] = int((loads_E == 0).sum())
        relative = (loads_E * experts / routing.chosen_NC.numel()).tolist()
        found |= {f"expert_load/block_{number}/{expert}": load for expert, load in enumerate(relative)}
    return found
