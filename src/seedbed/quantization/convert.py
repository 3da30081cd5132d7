"""The layers of a model, replaced by those in few bits, and what was lost in each.

Shape suffixes: N rows of text, T positions, D inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError, DataError
from seedbed.model.experts import Stack
from seedbed.model.linears.layers import put, storable
from seedbed.model.linears.matrix import Matrix
from seedbed.model.linears.storage import Storage
from seedbed.model.transformer import Transformer
from seedbed.progress import progress
from seedbed.quantization.walk import walk

Plain = nn.Linear | nn.Embedding | Stack
Round = Callable[[str, Plain], Matrix]
"""The matrix in few bits for a layer of a name."""


@dataclass
class Loss:
    """What one layer lost."""

    storage: Storage
    bytes: int
    """Of all that is stored of its matrix."""
    weights: float
    """Distance of the matrix from what it was, as a share of its size (Frobenius norms)."""
    squares: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    """Of the outputs on sample text: of what changed, and of what they were."""

    @property
    def outputs(self) -> float | None:
        """As `weights`, of the outputs; None where no text went through it."""
        lost, whole = self.squares.tolist()
        return (lost / whole) ** 0.5 if whole else None


def choose(model: Transformer, exclude: Sequence[str]) -> dict[str, Plain]:
    """The layers to be stored in few bits, by name. ConfigError for a pattern that fits no name, or all."""
    layers = storable(model)
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ConfigError(f"exclude has {pattern!r}, which no layer is called", f"Layers: {', '.join(layers)}")
    left = {n: layer for n, layer in layers.items() if not any(fnmatchcase(n, pattern) for pattern in exclude)}
    if not left:
        raise ConfigError("exclude leaves no layer to be stored in fewer bits", "Exclude less.")
    return left


def refuse_broken(model: Transformer) -> None:
    """DataError, naming the first weight, unless all are numbers."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise DataError(f"{name} holds what is no number: the model is broken", "Use an earlier checkpoint.")


@torch.no_grad()
def convert(
    model: Transformer, layers: Mapping[str, Plain], round_: Round, sample_NT: Tensor | None
) -> dict[str, Loss]:
    """Replaces layers of the model in its order; what each lost, with sample text also of its outputs."""
    losses: dict[str, Loss] = {}
    with progress("quantizing", total=len(layers), unit="layers") as advance:

        def replace(names: Sequence[str]) -> None:
            for name in names:
                plain = layers[name]
                matrix = round_(name, plain)
                losses[name] = _loss(plain, matrix)
                bias_O = plain.bias if isinstance(plain, nn.Linear) else None
                put(model, name, matrix, None if bias_O is None else bias_O.detach())
                advance(1)

        if sample_NT is None:
            replace(list(layers))
            return losses
        replace([name for name in layers if name != "head" and not name.startswith("blocks.")])  # all reads them
        for part in walk(model, sample_NT):
            own = [name for name in layers if name.startswith(part.name)]
            replace(own)
            with _watched(model, {name: layers[name] for name in own}, losses):
                part.run()
    return {name: losses[name] for name in layers}


def _loss(plain: Plain, matrix: Matrix) -> Loss:
    weight = plain.weight.detach().float()
    size = sum(part.nbytes for part in matrix.parts().values())
    lost, whole = float((matrix.dense() - weight).norm()), float(weight.norm())
    return Loss(matrix.storage, size, lost / whole if whole else 0.0)


@contextmanager
def _watched(model: Transformer, layers: Mapping[str, Plain], losses: Mapping[str, Loss]) -> Iterator[None]:
    """Within it the outputs of replaced layers are compared with those of the layers that were there."""

    def compare(name: str, plain: nn.Linear) -> Callable[..., None]:
        def hook(_: nn.Module, given: Any, output: Tensor) -> None:
            wanted = plain(given[0])
            losses[name].squares += torch.stack(
                [(output - wanted).double().square().sum(), wanted.double().square().sum()]
            )

        return hook

    linear = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    hooks = [model.get_submodule(name).register_forward_hook(compare(name, layer)) for name, layer in linear.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
