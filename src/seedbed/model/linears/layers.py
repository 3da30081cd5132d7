"""Layers whose matrix is stored in few bits, in the places of a model's own.

They compute what the plain ones do with the matrix that the bits stand for. That matrix is made each time: who answers
many prompts packs the model first (`model/packed/`).

Shape suffixes: D inputs, O outputs, B batch, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.experts import Stack
from seedbed.model.linears.int4 import Int4Matrix
from seedbed.model.linears.int8 import W8A8, Int8Linear, Int8Matrix
from seedbed.model.linears.linear import linear
from seedbed.model.linears.matrix import Matrix
from seedbed.model.linears.nf4 import NF4Matrix
from seedbed.model.linears.storage import Storage
from seedbed.model.positions import LearnedPositions
from seedbed.model.skips import ValueGate
from seedbed.model.transformer import Transformer

MATRICES: Mapping[str, type[Matrix]] = {"int8": Int8Matrix, "int4": Int4Matrix, "nf4": NF4Matrix}
"""By scheme."""
NF4 = Storage(scheme="nf4")


class StoredLayer(nn.Module):
    """Its matrix, and the vector that is added to the product, where there is one."""

    bias_O: Tensor | None

    def __init__(self, matrix: Matrix, bias_O: Tensor | None = None):
        super().__init__()
        self.matrix = matrix
        self.register_buffer("bias_O", bias_O, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The matrix, fp32, made anew each time."""
        return self.matrix.dense()


class StoredLinear(StoredLayer):
    """x · weightᵀ + bias."""

    def __init__(self, matrix: Matrix, bias_O: Tensor | None = None):
        super().__init__(matrix, bias_O)
        self.out_features, self.in_features = matrix.shape

    def forward(self, x_D: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x_D.requires_grad:
            out_O: Tensor = _Product.apply(x_D, self.matrix, self.bias_O)
            return out_O
        return linear(x_D, self.weight, self.bias_O)


class _Product(torch.autograd.Function):
    """The matrix is made again in the backward pass, where it would otherwise be kept whole."""

    @staticmethod
    def forward(ctx: Any, x_D: Tensor, matrix: Matrix, bias_O: Tensor | None) -> Tensor:
        ctx.matrix = matrix
        return linear(x_D, matrix.dense(), bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_O: Tensor) -> tuple[Tensor | None, ...]:
        return linear(gradient_O, ctx.matrix.dense().to(gradient_O.dtype).T), None, None


class StoredEmbedding(StoredLayer):
    """A row for each token."""

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.matrix.rows(tokens_BT)


class StoredStack(StoredLayer):
    """A matrix for each expert, which experts read as their own."""


def storable(model: Transformer) -> dict[str, nn.Linear | nn.Embedding | Stack]:
    """The layers whose matrix may be stored in few bits, by name, in the order of the model. Gates, routers, learned
    positions and the one row of a score head are too small to be worth it."""
    small = ["score"] + [
        f"{name}.{inside}"
        for name, module in model.named_modules()
        if isinstance(module, ValueGate | LearnedPositions)
        for inside, _ in module.named_modules()
    ]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | Stack) and name not in small
    }


def stored_layers(model: Transformer) -> dict[str, StoredLayer | Int8Linear]:
    """The layers that are stored in few bits, by name; not a head that is the embedding."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, StoredLayer | Int8Linear) and not (name == "head" and model.config.tied)
    }


def put(model: Transformer, name: str, matrix: Matrix, bias_O: Tensor | None = None) -> None:
    """Puts a matrix in the place of a layer's own. That of a tied embedding becomes the head's too."""
    room, _, last = name.rpartition(".")
    plain = model.get_submodule(name)
    if isinstance(plain, nn.Embedding):
        made: nn.Module = StoredEmbedding(matrix)
    elif isinstance(plain, Stack):
        made = StoredStack(matrix)
    else:
        made = _linear(matrix, bias_O)
    setattr(model.get_submodule(room), last, made)
    if name == "embedding" and model.config.tied:
        model.head = _linear(matrix)


def _linear(matrix: Matrix, bias_O: Tensor | None = None) -> nn.Module:
    if isinstance(matrix, Int8Matrix) and matrix.storage.activations == "int8":
        return Int8Linear(matrix.weight_OD, matrix.scale_O, bias_O)
    return StoredLinear(matrix, bias_O)


def quantise(model: Transformer) -> Transformer:
    """The same model with 8-bit layers in the place of its own, the head among them; tables and routed experts stay as
    they are. It learns no more."""
    for name, layer in storable(model).items():
        if isinstance(layer, nn.Linear):
            bias_O = None if layer.bias is None else layer.bias.detach()
            put(model, name, Int8Matrix.of(layer.weight.detach(), W8A8), bias_O)
    if model.head is None:
        model.head = _linear(Int8Matrix.of(model.embedding.weight.detach(), W8A8))
    return model


def nf4(model: Transformer) -> Transformer:
    """The same model with NF4 matrices in the place of all that may be stored so, tables among them. They rest."""
    for name, layer in storable(model).items():
        bias_O = None if (bias := getattr(layer, "bias", None)) is None else bias.detach()
        put(model, name, NF4Matrix.of(layer.weight.detach(), NF4), bias_O)
    return model


def made_whole(model: Transformer) -> Transformer:
    """The model whose weights are those that the bits of this one stand for."""
    weights: dict[str, Tensor] = {name: weight.detach() for name, weight in model.named_parameters()}
    for name, layer in stored_layers(model).items():
        weights[f"{name}.weight"] = layer.matrix.dense()
        if layer.bias_O is not None:
            weights[f"{name}.bias"] = layer.bias_O
    return Transformer.of_weights(model.config, weights).train(model.training)


def of_weights(
    config: ModelConfig, weights: Mapping[str, Tensor], matrices: Mapping[str, Matrix], source: Path
) -> Transformer:
    """The model whose weights are these, fp32, and of some layers these matrices, by name. DataError, naming `source`,
    for a layer that is none of those which may be stored so."""
    rest = {name: weight.float() for name, weight in weights.items()}
    with torch.device("meta"):
        model = Transformer(config)
    known = storable(model)
    for name, matrix in matrices.items():
        if name not in known:
            raise no_such_matrix(name, source)
        put(model, name, matrix, rest.pop(f"{name}.bias", None))
    model.load_state_dict(rest, assign=True)
    return model


def no_such_matrix(name: str, source: Path) -> DataError:
    """The error for a layer that is said to be in few bits and cannot be."""
    return DataError(f"{source}: stored has {name[:60]}, the model has no such matrix")


def storages(model: Transformer) -> dict[str, Storage]:
    """How each layer is stored that is in few bits, by name."""
    return {name: layer.matrix.storage for name, layer in stored_layers(model).items()}
