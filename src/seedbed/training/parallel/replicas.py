"""Data parallelism: each process has the whole model and a share of the rows (Li et al. 2020, arXiv:2006.15704)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from seedbed.model.transformer import Transformer
from seedbed.training.objective import Tally
from seedbed.training.parallel.parallel import Parallel, local
from seedbed.training.parallel.world import World

BUCKET = 2**24
"""Numbers that go through the network at once: enough to use it fully, little beside the model."""


class Replicas(Parallel):
    """Gradients are summed over all processes after the last row of a step; every process then takes the same step."""

    def __init__(self, model: Transformer, world: World, replica: int, replicas: int):
        super().__init__(model, world)
        self.replica, self.replicas = replica, replicas
        if replica:
            torch.manual_seed(torch.initial_seed() + replica)  # each drops out other numbers of its rows
        for bucket in buckets([parameter.detach() for parameter in model.parameters()]):
            broadcast(bucket, 0)  # drawn alike everywhere; another kind of machine may round another way

    def total(self, tally: Tally, tokens: int) -> tuple[Tally, int]:
        """Tallies must have the same totals in all processes."""
        names = sorted(tally.totals)
        loss, units, passed, *totals = self.world.sum(
            [tally.sum, tally.units, tokens, *(tally.totals[name] for name in names)]
        )
        return Tally(loss, int(units), dict(zip(names, totals, strict=True))), int(passed)

    def sum_gradients(self) -> None:
        sum_gradients(self.model.parameters(), None)


class SharedOptimizer(Replicas):
    """Each process moves some of the parameters, whole, and has the optimizer state of those alone: ZeRO stage 1
    (Rajbhandari et al. 2020, arXiv:1910.02054, §5.1). Its owner's new weights then go to all."""

    def __init__(self, model: Transformer, world: World):
        super().__init__(model, world, world.rank, world.size)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        places = balance([parameter.numel() for parameter in self.parameters], world.size)
        self.owner = dict(zip(self.parameters, places, strict=True))

    def divide(self, optimizers: list[Optimizer]) -> list[Optimizer]:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = [one for one in group["params"] if self.owner[one] == self.world.rank]
        return optimizers

    def moved(self, parameter: nn.Parameter) -> nn.Parameter | None:
        return parameter if self.owner.get(parameter) == self.world.rank else None

    def update(self, optimizers: list[Optimizer]) -> None:
        super().update(optimizers)
        for rank in range(self.world.size):
            for bucket in buckets([one.detach() for one in self.parameters if self.owner[one] == rank]):
                broadcast(bucket, rank)


def balance(costs: Sequence[int], count: int) -> list[int]:
    """Who takes which item, so that all have about as much: the dearest first, to who has least."""
    loads, taken = [0] * count, [0] * len(costs)
    for item in sorted(range(len(costs)), key=lambda item: -costs[item]):
        taken[item] = loads.index(min(loads))
        loads[taken[item]] += costs[item]
    return taken


def sum_gradients(parameters: Iterable[nn.Parameter], group: dist.ProcessGroup | None) -> None:
    """Over the processes of a group. A parameter that took part in only some of them has a gradient in all after."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if not learning:
        return
    used = torch.tensor([float(parameter.grad is not None) for parameter in learning], device=learning[0].device)
    dist.all_reduce(used, group=group)
    gradients = []
    for parameter, count in zip(learning, used.tolist(), strict=True):
        if count and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(local(parameter.grad))
    for bucket in buckets(gradients):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.all_reduce(flat, group=group)
        _unpack(flat, bucket)


def broadcast(tensors: Sequence[Tensor], source: int) -> None:
    """What one process has, to all."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.broadcast(flat, source)
    _unpack(flat, tensors)


def _unpack(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, piece in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype, as many as come to about BUCKET numbers."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        for tensor in tensors:
            if tensor.dtype != dtype:
                continue
            bucket.append(tensor)
            if sum(one.numel() for one in bucket) >= BUCKET:
                yield bucket
                bucket = []
        if bucket:
            yield bucket
