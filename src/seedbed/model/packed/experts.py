"""Experts whose layers are computed by kernels, so that a token is computed alike whatever else an expert has to do.

Shape suffixes: D model width, N tokens, E experts, C experts that a token goes through, R rows of one expert.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seedbed.model.experts import Experts, Router, Routing
from seedbed.model.packed.linears import PackedLinear


def sigmoid(logits_NE: Tensor) -> Tensor:
    """By one formula for all: PyTorch's computes the last numbers of a tensor another way."""
    return 1 / (1 + (-logits_NE).exp())


class PackedRouter(nn.Module):
    """What a router says."""

    def __init__(self, router: Router):
        super().__init__()
        self.linear, self.route = PackedLinear(router.weight), router.route
        if router.score is torch.sigmoid:
            router.score = sigmoid

    def forward(self, x_ND: Tensor) -> Routing:
        return self.route(self.linear(x_ND))


class PackedExperts(nn.Module):
    """What Experts compute, one expert after the other."""

    def __init__(self, experts: Experts, feedforwards: Sequence[nn.Module]):
        super().__init__()
        self.router = PackedRouter(experts.router)
        self.feedforwards = nn.ModuleList(feedforwards)
        self.shared = experts.shared

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_ND = x_BTD.flatten(0, -2)
        routing = self.router(x_ND)
        y_NCD = x_ND.new_empty(*routing.chosen_NC.shape, x_ND.shape[-1])
        for number, feedforward in enumerate(self.feedforwards):
            tokens_R, places_R = (routing.chosen_NC == number).nonzero(as_tuple=True)
            if len(tokens_R):
                y_NCD[tokens_R, places_R] = feedforward(x_ND[tokens_R])
        y_ND = torch.zeros_like(x_ND)
        for place, weight_N in enumerate(routing.weights_NC.unbind(-1)):  # the best first, whatever stands beside it
            y_ND += weight_N[:, None] * y_NCD[:, place]
        y_BTD = y_ND.view_as(x_BTD)
        return y_BTD if self.shared is None else y_BTD + self.shared(x_BTD)
