"""Which parameter is moved by which optimizer at which rate."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW, Optimizer

from seedbed.optim.config import OptimizerConfig
from seedbed.optim.muon import Muon


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """The optimizers that together move every parameter that asks for a gradient.

    Each group carries its peak rate as `peak`; the trainer sets `lr` from it at every step.
    """
    kinds = parameter_kinds(model)
    rates = {
        "matrix": config.matrix_rate,
        "embedding": config.embedding_rate,
        "head": config.head_rate,
        "vector": config.vector_rate,
    }
    optimizers: list[Optimizer] = []
    if config.name == "muon" and kinds["matrix"]:
        matrices = kinds.pop("matrix")
        optimizers.append(
            Muon(
                matrices,
                lr=config.matrix_rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                steps=config.newton_schulz_steps,
            )
        )
    groups = [
        {
            "params": parameters,
            "lr": (config.rate or config.default_rate) if config.name == "adamw" else rates[kind],
            "weight_decay": config.weight_decay if kind in ("matrix", "head") else 0.0,
        }
        for kind, parameters in kinds.items()
        if parameters
    ]
    if groups:
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
        beta1, epsilon = (0.9, 1e-8) if config.name == "adamw" else (0.8, 1e-10)
        betas = (beta1 if config.beta1 is None else config.beta1, config.beta2)
        optimizers.append(AdamW(groups, betas=betas, eps=config.epsilon or epsilon, fused=fused))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def parameter_kinds(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that ask for a gradient, as "embedding", "head", "vector" (norm weights and other one-dimensional
    ones) or "matrix".

    What a parameter is follows from the module that holds it, not from its name, which wrappers change: an embedding
    is an `nn.Embedding`, a head says so by its `parameter_kind`.
    """
    kinds: dict[str, list[nn.Parameter]] = {"matrix": [], "embedding": [], "head": [], "vector": []}
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
