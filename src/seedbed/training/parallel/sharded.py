"""Weights in pieces: fully sharded data parallelism, tensor parallelism, or both.

Fully sharded (Zhao et al. 2023, arXiv:2304.11277; torch's `fully_shard`): each process holds a piece of every weight,
gradient and optimizer state, and a block's weights are gathered just before they are used. Hybrid: pieces within a
group of processes, such as a machine, and replicas of the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Optimizer

from seedbed.errors import ConfigError
from seedbed.model.transformer import Transformer
from seedbed.training.objective import Tally
from seedbed.training.parallel.owners import Owners
from seedbed.training.parallel.parallel import in_place_of, local
from seedbed.training.parallel.replicas import Replicas, sum_gradients
from seedbed.training.parallel.tensor import head_norms, split_blocks
from seedbed.training.parallel.world import World

ELEMENTWISE = (AdamW, SGD)
"""Optimizers that move each number by itself, and so pieces of weights as well as whole ones."""


class Sharded(Replicas):
    """The processes are a grid: replicas × pieces × parts of a layer (tensor parallelism)."""

    def __init__(self, model: Transformer, world: World, mesh: DeviceMesh):
        """`mesh` has the dimensions "replicate", "shard" and "tensor"."""
        parts = mesh["tensor"].size()
        super().__init__(model, world, world.rank // parts, world.size // parts)
        self.mesh = mesh
        self.divides_weights = mesh["shard"].size() > 1
        if mesh["tensor"].size() > 1:
            split_blocks(model, mesh["tensor"])
        if self.divides_weights:
            if model.config.balance_rate:
                raise ConfigError(
                    f"model.balance_rate is {model.config.balance_rate}, but train.parallel fsdp divides what it moves",
                    "Take train.parallel ddp or zero1, or model.balance_rate 0: balance_loss evens out loads too.",
                )
            self._shard()
        self.stand_ins: dict[nn.Parameter, nn.Parameter] = {}
        """By parameter, what is moved here in its place."""
        self.divided: dict[nn.Parameter, None] = {}
        """Matrices that are moved whole, by their owners."""
        self.owners: Owners | None = None

    def _shard(self) -> None:
        both = self.mesh["replicate"].size() > 1
        mesh = self.mesh["replicate", "shard"] if both else self.mesh["shard"]
        for module in (*self.model.blocks, self.model):
            sharded = fully_shard(module, mesh=mesh)
            sharded.set_gradient_divide_factor(1.0)  # summed: the trainer divides by the units of the whole step
            sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
        register_fsdp_forward_method(self.model, "hidden")  # what objectives call; logits follow while weights are here

    def sum_gradients(self) -> None:
        if not self.divides_weights and self.replicas > 1:
            sum_gradients(self.model.parameters(), self.mesh["replicate"].get_group())
        if self.mesh["tensor"].size() > 1:
            sum_gradients(head_norms(self.model), self.mesh["tensor"].get_group())

    def total(self, tally: Tally, tokens: int) -> tuple[Tally, int]:
        """The processes that divide a layer have all seen the same rows."""
        parts = self.mesh["tensor"].size()
        tally, tokens = super().total(tally, tokens)
        totals = {name: value / parts for name, value in tally.totals.items()}
        return Tally(tally.sum / parts, tally.units // parts, totals), tokens // parts

    def norm(self, gradients: Sequence[Tensor]) -> float:
        """Each gradient's pieces are added over the dimensions of the grid in which it is divided."""
        layouts: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = {}
        for gradient in gradients:
            layouts.setdefault(_divided_over(gradient), []).append(local(gradient))
        square = 0.0
        for groups, pieces in layouts.items():
            sum_ = torch.nn.utils.get_total_norm(pieces).double() ** 2
            for group in groups:
                dist.all_reduce(sum_, group=group)
            square += float(sum_)
        return square**0.5

    def divide(self, optimizers: list[Optimizer]) -> list[Optimizer]:
        for optimizer in optimizers:
            if not isinstance(optimizer, ELEMENTWISE):
                every: list[nn.Parameter] = [one for group in optimizer.param_groups for one in group["params"]]
                self.divided |= dict.fromkeys(one for one in every if _is_piece(one))
        matrices = list(self.divided)
        self.owners = Owners(matrices) if matrices else None
        owned = {matrices[number] for number in self.owners.owned} if self.owners else set()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for one in group["params"]:
                    if not _is_piece(one):
                        self.stand_ins[one] = one
                    elif isinstance(optimizer, ELEMENTWISE):
                        self.stand_ins[one] = nn.Parameter(local(one.detach()))
                    elif one in owned:
                        self.stand_ins[one] = nn.Parameter(local(one).new_empty(0))  # filled for the step alone
                group["params"] = [self.stand_ins[one] for one in group["params"] if one in self.stand_ins]
        return optimizers

    def moved(self, parameter: nn.Parameter) -> nn.Parameter | None:
        return self.stand_ins.get(parameter)

    def moves_whole(self, parameter: nn.Parameter) -> bool:
        return parameter in self.divided or not _is_piece(parameter)

    def like(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        return value if self.moves_whole(parameter) or not value.ndim else in_place_of(parameter, value)

    def update(self, optimizers: list[Optimizer]) -> None:
        for parameter, moved in self.stand_ins.items():
            if moved is not parameter and parameter.grad is not None and parameter not in self.divided:
                moved.grad = local(parameter.grad)
        if self.owners is None:
            super().update(optimizers)
        else:
            self._update_whole(self.owners, optimizers)
        for parameter, moved in self.stand_ins.items():
            if moved is not parameter:
                moved.grad = None

    def _update_whole(self, owners: Owners, optimizers: list[Optimizer]) -> None:
        gradients = owners.gather([local(cast(Tensor, one.grad)) for one in self.divided])
        weights = owners.gather([local(one.detach()) for one in self.divided])
        matrices = list(self.divided)
        owned = {number: self.stand_ins[matrices[number]] for number in owners.owned}
        for number, moved in owned.items():
            moved.data, moved.grad = weights[number], gradients[number]
        super().update(optimizers)
        owners.scatter(weights, [local(one.detach()) for one in self.divided])
        for moved in owned.values():
            moved.grad, moved.data = None, moved.new_empty(0)

    def rest(self) -> None:
        if isinstance(self.model, FSDPModule):
            self.model.reshard()  # else the next pass would take the weights of this one for its own

    def whole_model(self) -> Transformer | None:
        weights = {}
        for name, parameter in self.model.named_parameters():
            held: Tensor = parameter.detach()
            whole = held.full_tensor() if isinstance(held, DTensor) else held
            if self.world.leads:
                weights[name] = whole.cpu()
        if not self.world.leads:
            return None
        adapter = self.model.adapter
        build = Transformer.of_weights if adapter is None else adapter.of_weights
        return build(self.model.config, weights)


def _is_piece(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def _divided_over(tensor: Tensor) -> tuple[dist.ProcessGroup, ...]:
    if not isinstance(tensor, DTensor):
        return ()
    placed = enumerate(tensor.placements)
    return tuple(tensor.device_mesh.get_group(dimension) for dimension, place in placed if not place.is_replicate())
