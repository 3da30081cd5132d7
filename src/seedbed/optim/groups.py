"""Which parameter is moved by which optimizer at which rate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from seedbed.errors import ConfigError
from seedbed.optim.adafactor import Adafactor
from seedbed.optim.config import LIKE_MUON, OptimizerConfig, ParameterGroup
from seedbed.optim.lion import Lion
from seedbed.optim.muon import Muon
from seedbed.optim.sgd import SGD

KINDS = ("matrix", "embedding", "head", "vector", "adapter")


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """The optimizers that together move every parameter that asks for a gradient.

    Each group carries its peak rate as `peak`; the trainer sets `lr` from it at every step. ConfigError when one of
    `config.groups` fits no parameter.
    """
    config = config.resolve()
    matrices, others = _groups(model, config)
    optimizers: list[Optimizer] = []
    if matrices:
        optimizers.append(
            Muon(
                matrices,
                momentum=config.momentum,
                cautious=config.cautious_decay,
                steps=config.newton_schulz_steps,
                polynomial=config.polynomial,
                neuron_memory=config.beta2 if config.name == "normuon" else None,
            )
        )
    if others:
        optimizers.append(_optimizer_of_all(others, config))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _optimizer_of_all(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """The one that moves whatever shape a parameter has."""
    if config.name == "lion":
        return Lion(groups, betas=(config.beta1, config.beta2), cautious=config.cautious_decay)
    if config.name == "adafactor":
        return Adafactor(groups, relative=config.relative_step, cautious=config.cautious_decay)
    if config.name == "sgd":
        return SGD(groups, momentum=config.momentum, cautious=config.cautious_decay)
    fused = all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
    betas = (config.beta1, config.beta2)
    return AdamW(groups, betas=betas, eps=config.epsilon, fused=fused)


def _groups(model: nn.Module, config: OptimizerConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What Muon moves, and what the other optimizer moves: parameters of one rate and one decay together."""
    kinds = {parameter: kind for kind, found in parameter_kinds(model).items() for parameter in found}
    names = {parameter: name for name, parameter in model.named_parameters()}
    multiples = _rate_multiples(model)
    _refuse_unfitting(config, names, kinds)
    depth = 1 + max((_block(name) for name in names.values()), default=-1)
    found: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for parameter, kind in kinds.items():
        name, by_muon = names[parameter], config.name in LIKE_MUON
        rate: float = getattr(config, f"{kind}_rate" if by_muon else "rate")
        decay = config.weight_decay if kind in ("matrix", "head", "adapter") else 0.0
        for own in config.groups:
            if _fits(own, name, kind):
                rate = rate if own.rate is None else own.rate
                decay = decay if own.weight_decay is None else own.weight_decay
        rate *= multiples.get(parameter, 1.0)
        # The embedding is the layer below block 0; the final norm and the head are above them all.
        block = _block(name)
        if kind == "embedding" or block >= 0:
            rate *= config.layer_decay ** (depth - block)
        found.setdefault((by_muon and kind == "matrix", rate, decay), []).append(parameter)
    groups = [
        (by_muon, {"params": parameters, "lr": rate, "weight_decay": decay})
        for (by_muon, rate, decay), parameters in found.items()
    ]
    return [group for by_muon, group in groups if by_muon], [group for by_muon, group in groups if not by_muon]


def _rate_multiples(model: nn.Module) -> dict[nn.Parameter, float]:
    """What modules say by `rate_multiples`, by the names of their parameters: those move so many times as fast."""
    return {
        module.get_parameter(name): multiple
        for module in model.modules()
        for name, multiple in getattr(module, "rate_multiples", {}).items()
    }


def _fits(own: ParameterGroup, name: str, kind: str) -> bool:
    """Names are compared without what wrappers, such as those for many processes, put before them."""
    return own.of == kind or fnmatchcase(name, own.of) or fnmatchcase(name, f"*.{own.of}")


def _refuse_unfitting(
    config: OptimizerConfig, names: Mapping[nn.Parameter, str], kinds: Mapping[nn.Parameter, str]
) -> None:
    for own in config.groups:
        if own.of not in KINDS and not any(_fits(own, names[parameter], kind) for parameter, kind in kinds.items()):
            shown = ", ".join([*KINDS, *list(names.values())[:4]])
            raise ConfigError(f"optimizer.groups: no parameter is called {own.of}", f"There are {shown}, …")


def _block(name: str) -> int:
    """The number of the block that a parameter is in; −1 outside of them."""
    found = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    return int(found[1]) if found else -1


def parameter_kinds(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that ask for a gradient, as "embedding", "head", "adapter", "vector" (norm weights and other
    one-dimensional ones) or "matrix".

    What a parameter is follows from the module that holds it, not from its name, which wrappers change: an embedding
    is an `nn.Embedding`, a head or an adapter says so by its `parameter_kind`.
    """
    kinds: dict[str, list[nn.Parameter]] = {kind: [] for kind in KINDS}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        own = "embedding" if isinstance(module, nn.Embedding) else getattr(module, "parameter_kind", None)
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                kinds[own or ("vector" if parameter.ndim < 2 else "matrix")].append(parameter)
    return kinds


def set_rates(optimizers: list[Optimizer], multiple: float) -> None:
    """Every rate becomes this multiple of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * multiple
