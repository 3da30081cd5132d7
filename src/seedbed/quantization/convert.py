"""The layers of a model, replaced by those in few bits, and what was lost in each.

Shape suffixes: N rows of text, T positions, D inputs.
"""

from __future__ import annotations

import re
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
from seedbed.model.linears.linear import linear
from seedbed.model.linears.matrix import Matrix
from seedbed.model.linears.storage import Storage
from seedbed.model.transformer import Transformer
from seedbed.model.weights import not_finite
from seedbed.progress import progress
from seedbed.quantization.moments import readers, second_moments
from seedbed.quantization.walk import Part, walk

Plain = nn.Linear | nn.Embedding | Stack
Round = Callable[[str, Plain, Tensor | None], Matrix]
"""The matrix in few bits for a layer, by its name, its weights and the second moments of its inputs, where asked for.
"""

Prepare = Callable[[Transformer, Part, Sequence[str]], None]


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
        """As `weights`, of the products with what comes; None where no text went through it."""
        lost, whole = self.squares.tolist()
        return (lost / whole) ** 0.5 if whole else None


def choose(model: Transformer, exclude: Sequence[str]) -> dict[str, Plain]:
    """The layers to be stored in few bits, by name. ConfigError for a pattern that fits no name, or all."""
    layers = storable(model)
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in layers):
            known = ", ".join(dict.fromkeys(re.sub(r"^blocks\.\d+", "blocks.*", name) for name in layers))
            raise ConfigError(f"exclude has {pattern!r}, which no layer is called", f"Layers: {known}")
    left = {n: layer for n, layer in layers.items() if not any(fnmatchcase(n, pattern) for pattern in exclude)}
    if not left:
        raise ConfigError("exclude leaves no layer to be stored in fewer bits", "Exclude less.")
    return left


def refuse_broken(model: Transformer) -> None:
    """DataError, naming the first weight, unless all are numbers."""
    if broken := not_finite(dict(model.named_parameters())):
        raise DataError(f"{broken} holds what is no number: the model is broken", "Use an earlier checkpoint.")


@torch.no_grad()
def convert(
    model: Transformer,
    layers: Mapping[str, Plain],
    round_: Round,
    sample_NT: Tensor | None,
    *,
    calibrates: bool = False,
    prepare: Prepare | None = None,
) -> dict[str, Loss]:
    """Replaces layers of the model in its order; what each lost, with sample text also of its outputs. `calibrates`:
    the moments of what each layer reads, once those before it are replaced, are told to `round_`. `prepare` changes
    layers of a part before any of them is replaced."""
    losses: dict[str, Loss] = {}
    with progress("quantizing", total=len(layers), unit="layers") as advance:

        def replace(names: Sequence[str], second_DD: Tensor | None = None) -> None:
            for name in names:
                plain = layers[name]
                matrix = round_(name, plain, second_DD)
                losses[name] = _loss(plain, matrix, second_DD)
                bias_O = plain.bias if isinstance(plain, nn.Linear) else None
                put(model, name, matrix, None if bias_O is None else bias_O.detach())
                advance(1)

        if sample_NT is None:
            replace(list(layers))
            return losses
        replace([name for name in layers if name != "head" and not name.startswith("blocks.")])  # all reads them
        for part in walk(model, sample_NT):
            own = [name for name in layers if name.startswith(part.name)]
            multiplied = {name: layer for name in own if isinstance(layer := layers[name], nn.Linear)}
            if prepare is not None:
                prepare(model, part, list(multiplied))
            for names in readers(model, part, list(multiplied)) if calibrates else ():
                replace(names, second_moments(model, part, names[0]))
            replace([name for name in own if name not in losses])
            untold = {name: layer for name, layer in multiplied.items() if losses[name].outputs is None}
            if untold or part.name != "head":  # what the head makes, nobody reads
                with _watched(model, untold, losses):
                    part.run()
    return {name: losses[name] for name in layers}


def _loss(plain: Plain, matrix: Matrix, second_DD: Tensor | None) -> Loss:
    """Of a matrix that is multiplied with what comes as it is, the moments of that tell the outputs too."""
    weight = plain.weight.detach().double()
    size = sum(part.nbytes for part in matrix.parts().values())
    missed = matrix.dense() - weight
    found = Loss(matrix.storage, size, float(missed.norm()) / (float(weight.norm()) or 1.0))
    if second_DD is not None and matrix.storage.activations == "stored":
        found.squares = torch.stack([((each @ second_DD) * each).sum() for each in (missed, weight)])
    return found


@contextmanager
def _watched(model: Transformer, layers: Mapping[str, nn.Linear], losses: Mapping[str, Loss]) -> Iterator[None]:
    """Within it the outputs of replaced layers are compared with those of the layers that were there."""

    def compare(name: str, plain: nn.Linear) -> Callable[..., None]:
        def hook(_: nn.Module, given: Any, output: Tensor) -> None:
            product = linear(given[0], plain.weight)
            missed = output - product if plain.bias is None else output - product - plain.bias
            losses[name].squares += torch.stack([each.double().square().sum() for each in (missed, product)])

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(compare(name, layer)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
