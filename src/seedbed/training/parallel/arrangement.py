"""Which way of training together a config asks for."""

from __future__ import annotations

from torch.distributed.device_mesh import init_device_mesh

from seedbed.errors import ConfigError
from seedbed.model.transformer import Transformer
from seedbed.training.config import TrainConfig
from seedbed.training.parallel.parallel import Parallel
from seedbed.training.parallel.replicas import Replicas, SharedOptimizer
from seedbed.training.parallel.world import World


def arrange(model: Transformer, config: TrainConfig) -> Parallel:
    """Divides the model, in place, among the processes that are here. ConfigError when they cannot be divided so."""
    world = World.here()
    parts = config.tensor_parallel
    if world.size % parts:
        there = "is one process" if world.size == 1 else f"are {world.size} processes, no multiple of it"
        raise ConfigError(
            f"train.tensor_parallel is {parts}, but there {there}",
            f"Give --train.devices {parts} or a multiple, or start as many by torchrun.",
        )
    if world.size == 1:
        return Parallel(model, world)
    replicas = world.size // parts
    group = config.shard_group or replicas
    if config.parallel == "fsdp" and replicas % group:
        raise ConfigError(f"train.shard_group is {group}, but there are {replicas} replicas, no multiple of it")
    if config.parallel == "fsdp" or parts > 1:
        from seedbed.training.parallel.sharded import Sharded

        shards = group if config.parallel == "fsdp" else 1
        device = next(model.parameters()).device.type
        names = ("replicate", "shard", "tensor")
        return Sharded(
            model, world, init_device_mesh(device, (replicas // shards, shards, parts), mesh_dim_names=names)
        )
    if config.parallel == "zero1":
        return SharedOptimizer(model, world)
    return Replicas(model, world, world.rank, world.size)
