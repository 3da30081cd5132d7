"""The parts of matrices in few bits, as they lie in a model folder: beside one another, under the name of the weight
and what the format adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from seedbed.errors import CorruptionError, DataError
from seedbed.model.linears.layers import MATRICES, no_such_matrix
from seedbed.model.linears.matrix import Matrix, Shape
from seedbed.model.linears.storage import Storage
from seedbed.model.names import Table, their_name
from seedbed.model.weights import StoredTensor, read_weights


class Part(NamedTuple):
    """What a file is to hold."""

    dtype: torch.dtype
    shape: Shape


def written_parts(matrices: Mapping[str, Matrix], table: Table) -> dict[str, Tensor]:
    """The tensors of matrices, which are given by the names of our layers."""
    return {
        f"{their_name(name, table)}{added}": part
        for name, matrix in matrices.items()
        for added, part in matrix.parts().items()
    }


def check_stored(stored: Mapping[str, Storage], shapes: Mapping[str, Shape], source: Path) -> None:
    """DataError, naming `source` and the first, unless each is a matrix of a model whose weights have these shapes."""
    for name in stored:
        if len(shapes.get(f"{name}.weight", ())) not in (2, 3):
            raise no_such_matrix(name, source)


def promised_parts(stored: Mapping[str, Storage], shapes: Mapping[str, Shape], table: Table) -> dict[str, Part]:
    """Of which dtypes and shapes those tensors are, in a model whose weights have these shapes."""
    promised = {}
    for name, storage in stored.items():
        shape = shapes[f"{name}.weight"]
        for added, part in MATRICES[storage.scheme].promised(shape, storage).items():
            promised[f"{their_name(name, table)}{added}"] = Part(*part)
    return promised


def check_dtypes(promised: Mapping[str, Part], found: Mapping[str, StoredTensor], source: Path) -> None:
    """DataError, naming the first, unless each part is of the dtype that was promised."""
    for name, part in promised.items():
        if found[name].dtype != part.dtype:
            kinds = (str(dtype).removeprefix("torch.") for dtype in (found[name].dtype, part.dtype))
            raise DataError("{}: {} is {}, it must be {}".format(source, name, *kinds))


def read_matrices(
    stored: Mapping[str, Storage], shapes: Mapping[str, Shape], table: Table, found: Mapping[str, StoredTensor]
) -> dict[str, Matrix]:
    """The matrices, by the names of our layers, whose parts have been checked."""
    matrices = {}
    for name, storage in stored.items():
        kind, shape, theirs = MATRICES[storage.scheme], shapes[f"{name}.weight"], their_name(name, table)
        parts = read_weights({added: found[f"{theirs}{added}"] for added in kind.promised(shape, storage)})
        try:
            matrices[name] = kind.of_parts(parts, shape, storage)
        except ValueError as error:
            raise CorruptionError(f"{found[next(iter(found))].file}: {theirs}: {error}") from error
    return matrices
