"""Mixture of experts: many feed-forwards, of which each token goes through a few (Shazeer et al. 2017,
arXiv:1701.06538, §2).

- router: experts are scored by softmax (Mixtral: Jiang et al. 2024, arXiv:2401.04088, §2.1) or sigmoid (DeepSeek-V3:
  2024, arXiv:2412.19437, §2.1.2); the best are taken, and their outputs added up with the scores as weights
- shared experts, which every token goes through (DeepSeekMoE: Dai et al. 2024, arXiv:2401.06066, §3.2)
- balanced router: a bias for each expert, which only the choice sees, moves towards even loads (Wang et al. 2024,
  arXiv:2408.15664, algorithm 1)

No token is dropped (Gale et al. 2022, arXiv:2211.15841): tokens are sorted by expert, and each expert computes as many
rows as have chosen it.

Shape suffixes: B batch, T positions, D model width, F inner width, N tokens, E experts, C experts that a token goes
through, S = N·C slots sorted by expert, R rows of one expert.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seedbed.model.config import ModelConfig
from seedbed.model.feedforward import ACTIVATIONS, GATES, FeedForward, GatedFeedForward, build_feedforward
from seedbed.model.linears.linear import linear
from seedbed.model.recipes import remade


class Routing(NamedTuple):
    """What a router says of each token."""

    logits_NE: Tensor
    scores_NE: Tensor
    """From 0 to 1, without the bias that evens out loads."""
    chosen_NC: Tensor
    """int64 numbers of experts, the best first."""
    weights_NC: Tensor
    """What the output of each chosen expert is multiplied with."""


def softmax(logits_NE: Tensor) -> Tensor:
    return logits_NE.softmax(-1)


def shares(scores_NC: Tensor) -> Tensor:
    """That add up to 1."""
    return scores_NC / scores_NC.sum(-1, keepdim=True)


class Router(nn.Module):
    """Scores the experts and takes the best. It computes in the precision of its weight, also under autocast: rounded
    logits choose other experts (Fedus et al. 2021, arXiv:2101.03961, §2.4)."""

    parameter_kind = "head"
    """A small classifier: AdamW moves it, which `optim.groups` reads here."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.experts, config.width))
        self.active = config.experts_active
        self.score = softmax if config.router == "softmax" else torch.sigmoid
        self.weigh = shares if config.router_normalised else nn.Identity()

    def forward(self, x_ND: Tensor) -> Routing:
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = F.linear(x_ND.to(self.weight.dtype), self.weight)
        return self.route(logits_NE)

    def route(self, logits_NE: Tensor) -> Routing:
        """What follows from the scores before they are softmaxed or squashed."""
        scores_NE = self.score(logits_NE)
        chosen_NC = self.preference(scores_NE).topk(self.active).indices
        return Routing(logits_NE, scores_NE, chosen_NC, self.weigh(scores_NE.gather(-1, chosen_NC)))

    def preference(self, scores_NE: Tensor) -> Tensor:
        """By which experts are chosen."""
        return scores_NE


class BalancedRouter(Router):
    """A router whose choice is biased towards experts that had too little to do."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.bias = nn.Parameter(torch.zeros(config.experts), requires_grad=False)  # moved by `balance` alone
        self.rate = config.balance_rate

    def preference(self, scores_NE: Tensor) -> Tensor:
        return scores_NE + self.bias

    @torch.no_grad()
    def balance(self, loads_E: Tensor) -> None:
        """After a step of the optimizer in which the experts had so many tokens."""
        loads_E = loads_E.double().to(self.bias.device)
        self.bias.add_(torch.sign(loads_E.mean() - loads_E).to(self.bias.dtype), alpha=self.rate)


class Stack(nn.Module):
    """A matrix for each expert, (E, outputs, inputs)."""

    def __init__(self, experts: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))


class Experts(nn.Module):
    """Routed experts, and what they share."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.router = BalancedRouter(config) if config.balance_rate else Router(config)
        self.up = Stack(config.experts, config.width, config.expert_width)
        self.down = Stack(config.experts, config.expert_width, config.width)
        self.shared = build_shared(config)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_ND = x_BTD.flatten(0, -2)
        routing = self.router(x_ND)
        y_NCD = self.slots(x_ND, routing.chosen_NC)
        y_BTD = (routing.weights_NC[..., None] * y_NCD).sum(-2).view_as(x_BTD)
        return y_BTD if self.shared is None else y_BTD + self.shared(x_BTD)

    def slots(self, x_ND: Tensor, chosen_NC: Tensor) -> Tensor:
        """What each chosen expert makes of a token (N, C, D)."""
        order_S = chosen_NC.flatten().argsort(stable=True)
        place_S = order_S.argsort()
        loads = chosen_NC.flatten().bincount(minlength=len(self.up.weight)).tolist()
        x_SD = _Sorted.apply(x_ND, order_S, place_S, chosen_NC.shape[-1])
        y_SD = torch.cat(list(self.compute(x_SD.split(loads))))
        return _Sorted.apply(y_SD, place_S, order_S, 1).unflatten(0, chosen_NC.shape)

    def compute(self, rows: Iterable[Tensor]) -> Iterable[Tensor]:
        """Of each expert its rows (R, D). A loop is as fast as one dense product of as many rows on a CPU; stacks are
        unbound once, since the gradient of a slice would be as large as its stack."""
        raise NotImplementedError  # plain and gated experts each have their own


class PlainExperts(Experts):
    """Two matrices an expert, with a nonlinearity between them."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.activation = ACTIVATIONS[config.activation]

    def compute(self, rows: Iterable[Tensor]) -> Iterable[Tensor]:
        for x_RD, up_FD, down_DF in zip(rows, self.up.weight.unbind(), self.down.weight.unbind(), strict=True):
            yield linear(remade(self.activation, linear(x_RD, up_FD)), down_DF)


class GatedExperts(Experts):
    """Three matrices an expert: one of them decides how much of another passes."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.gate = Stack(config.experts, config.width, config.expert_width)
        self.pass_through = GATES[config.activation]

    def compute(self, rows: Iterable[Tensor]) -> Iterable[Tensor]:
        stacks = (stack.weight.unbind() for stack in (self.gate, self.up, self.down))
        for x_RD, gate_FD, up_FD, down_DF in zip(rows, *stacks, strict=True):
            yield linear(remade(self.pass_through, linear(x_RD, gate_FD), linear(x_RD, up_FD)), down_DF)


class _Sorted(torch.autograd.Function):
    """Row i of the result is row order[i] of x with each row `times` times. The gradient is read in the opposite order,
    where that of indexing would add up row after row."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, order_S: Tensor, place_S: Tensor, times: int) -> Tensor:
        ctx.save_for_backward(place_S)
        ctx.times = times
        return x_ND[order_S // times]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_SD: Tensor) -> tuple[Tensor, None, None, None]:
        (place_S,) = ctx.saved_tensors
        return gradient_SD[place_S].unflatten(0, (-1, ctx.times)).sum(1), None, None, None


def build_shared(config: ModelConfig) -> FeedForward | GatedFeedForward | None:
    """All shared experts as one feed-forward, which is the same."""
    if not config.experts_shared:
        return None
    return build_feedforward(replace(config, ff_width=config.experts_shared * config.expert_width))


def build_experts(config: ModelConfig) -> Experts:
    """The mixture of the config's activation."""
    return GatedExperts(config) if config.is_gated else PlainExperts(config)
