"""The tensors of a checkpoint: weights and optimizer state.

They lie in safetensors files (no pickle), of several processes by torch.distributed.checkpoint, and another number of
processes can read them. A weight's name is ours after `model.`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from seedbed.errors import CorruptionError, SeedbedError
from seedbed.model.weights import StoredTensor, read_header, read_headers, write_weights

MODEL = "model."
"""Before the name of a weight."""
BESIDE = "beside."
"""Before our name of one that learns with a model and is no part of it."""


def write_state(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Writes tensors by name; OSError when the disk refuses. The processes of a group write together, each a file of
    its pieces, and of what all have alike a part."""
    tensors = dict(sorted(tensors.items()))
    if group is None:
        write_weights(folder, tensors)  # DCP would build each file in memory first
        return
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _plain_errors():
        dcp.save(tensors, storage_writer=writer, process_group=group)


def describe_state(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name, none of them read. CorruptionError when its files are not what they claim.

    Shapes are those of whole tensors, also where several processes wrote a part each.
    """
    parts = sorted(folder.glob("shard-*.safetensors"))
    for part in parts:
        read_header(part)
    if not parts:
        read_headers(folder)
    with _unreadable(folder):
        found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    described = {}
    for name, metadata in found.items():
        assert isinstance(metadata, TensorStorageMetadata)  # all that safetensors files hold
        described[name] = StoredTensor(name, folder, tuple(metadata.size), metadata.properties.dtype)
    return described


def weight_state(described: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Those that are the model's weights, by our names."""
    return {name.removeprefix(MODEL): tensor for name, tensor in described.items() if name.startswith(MODEL)}


def read_state(
    folder: Path, stored: Mapping[str, StoredTensor], places: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The tensors themselves, by the same keys, each put into its place, which may be the piece of a whole that this
    process holds; into new memory of the CPU where `places` has none. CorruptionError when a part of one is missing."""
    with _unreadable(folder):
        found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    for tensor in stored.values():
        metadata = found[tensor.name]
        assert isinstance(metadata, TensorStorageMetadata)
        if sum(prod(chunk.sizes) for chunk in metadata.chunks) != prod(metadata.size):
            raise CorruptionError(f"{folder} does not hold all of {tensor.name[:60]}, or some of it twice")
    places = places or {}
    tensors = {
        key: places[key] if key in places else torch.empty(tensor.shape, dtype=tensor.dtype)
        for key, tensor in stored.items()
    }
    with _unreadable(folder):
        by_name = {stored[key].name: tensor for key, tensor in tensors.items()}
        dcp.load(by_name, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return tensors


@contextlib.contextmanager
def _unreadable(folder: Path) -> Iterator[None]:
    """Every byte was verified and the headers fit their files: what fails now is another version's file."""
    try:
        with _plain_errors():
            yield
    except SeedbedError:
        raise
    except Exception as error:
        raise CorruptionError(f"{folder} cannot be read by this version of seedbed: {error}") from error


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """DCP wraps what goes wrong, such as a full disk, in an exception that `except Exception` does not catch; unwraps
    it. And it warns that there is no process group, which is meant."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None
