"""Tensor parallelism: the heads and the feed-forward's inner width of each block are divided among processes (Shoeybi
et al. 2019, arXiv:1909.08053, §3). Embedding, norms and head are whole in each of them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from seedbed.errors import ConfigError
from seedbed.model.transformer import Transformer

DIVIDES_OUTPUT = ("attention.query", "attention.key", "attention.value", "feedforward.gate", "feedforward.up")
"""Each process has some of the outputs: its heads, its inner width …"""
DIVIDES_INPUT = ("attention.output", "feedforward.down")
"""… which these read, and whose results are added up."""


def split_blocks(model: Transformer, mesh: DeviceMesh) -> None:
    """Divides every block in place. ConfigError when heads or inner width cannot be divided by the processes."""
    config, count = model.config, mesh.size()
    if config.value_embeddings or config.positions == "alibi" or not config.is_gated:
        raise ConfigError(
            "train.tensor_parallel divides models with a gated feed-forward, without value embeddings and ALiBi",
            "Take train.parallel fsdp for this one.",
        )
    if config.experts:
        raise ConfigError("train.tensor_parallel divides no experts", "Take train.parallel fsdp for this one.")
    for name in ("kv_heads", "ff_width"):
        if getattr(config, name) % count:
            raise ConfigError(
                f"train.tensor_parallel is {count}, but model.{name} is {getattr(config, name)}, no multiple of it"
            )
    for block in model.blocks:
        plan: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in DIVIDES_OUTPUT}
        plan |= {name: RowwiseParallel() for name in DIVIDES_INPUT}
        parallelize_module(block, mesh, plan)


def head_norms(model: nn.Module) -> Iterator[nn.Parameter]:
    """Weights that all heads share: each process has seen only its own heads' part of their gradient."""
    for name, parameter in model.named_parameters():
        if ".query_norm." in name or ".key_norm." in name:
            yield parameter
