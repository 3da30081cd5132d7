"""Weights in safetensors files: one `model.safetensors`, or shards and their index, as Hugging Face lays them out.

What the headers promise is read first and held against what a model needs, so that no number in a stranger's file
decides how much memory is taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.runs import parse_json, read_json, write_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4_000_000_000
"""Weights of more bytes than this are divided into several files."""
HEADER_BYTES = 100_000_000
"""The format's own limit."""

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
"""What weights may be, by the names of config.json."""
_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
_STORED |= {"U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it."""

    name: str
    """In the file."""
    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The name of the first that holds infinity or what is no number."""
    return next((name for name, weight in weights.items() if not weight.isfinite().all()), None)


def find_dtype(name: torch.dtype | str) -> torch.dtype:
    """The dtype called "float32", "bfloat16", "float16" or "float64". ConfigError for another one."""
    named = str(name).removeprefix("torch.")
    if named not in FLOATS:
        raise ConfigError(f"dtype must be one of {', '.join(FLOATS)}, got {named}")
    return FLOATS[named]


# Headers -------------------------------------------------------------------------------------------------------------


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, by name. CorruptionError unless they make up exactly the bytes of the file."""
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size - 8, HEADER_BYTES):
                raise ValueError(f"its header claims {length:,} bytes")
            entries = parse_json(stream.read(length))  # a name that stands twice makes safetensors refuse the file
        if not isinstance(entries, dict):
            raise ValueError("its header is not a JSON object")
        entries.pop("__metadata__", None)
        tensors = {name: _stored(file, name, entry) for name, entry in entries.items()}
        promised = sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())
        if promised != size - 8 - length:
            raise ValueError(f"its header promises {promised:,} bytes of tensors, it holds {size - 8 - length:,}")
    except (OSError, ValueError) as error:
        raise CorruptionError(f"{file} cannot be read: {error}") from error
    return tensors


def _stored(file: Path, name: str, entry: Any) -> StoredTensor:
    """ValueError for an entry that is none."""
    shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
    if not isinstance(dtype, str) or dtype not in _STORED:
        raise ValueError(f"{name[:60]} has no dtype that is known here ({', '.join(_STORED)})")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**48 for n in shape):
        raise ValueError(f"{name[:60]} has no shape")
    return StoredTensor(name, file, tuple(shape), _STORED[dtype])


def read_headers(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder's weights, by name: of `model.safetensors`, or of all shards that its index names."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return read_header(folder / WEIGHTS)
    files = read_json(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and re.fullmatch(r"[\w-]+\.safetensors", file) for file in files.values()
    ):
        raise CorruptionError(f"{folder / INDEX}: weight_map must say in which .safetensors file each weight is")
    headers = {file: read_header(folder / file) for file in sorted(set(files.values()))}
    for file, header in headers.items():
        for name in header:
            if files.get(name) != file:
                raise CorruptionError(f"{folder / INDEX}: weight_map does not say that {name[:60]} is in {file}")
    for name, file in files.items():
        if name not in headers[file]:
            raise CorruptionError(f"{folder / INDEX}: weight_map has {name[:60]} in {file}, which does not hold it")
    return {name: headers[file][name] for name, file in files.items()}


def stored_dtype(folder: Path) -> torch.dtype | None:
    """The dtype of a model folder's weights; None for a folder of something else, such as a checkpoint, and where they
    are of several."""
    if not ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file()):
        return None
    dtypes = {tensor.dtype for tensor in read_headers(folder).values()}
    return dtypes.pop() if len(dtypes) == 1 else None


def check_shapes(promised: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """DataError, naming the first weight, unless `found` are exactly the weights of a model, both by our names."""
    for name in sorted(promised.keys() ^ found.keys()):
        problem = "missing" if name in promised else "not one of this architecture"
        raise DataError(f"{source}: the weight {name[:60]} is {problem}")
    for name, shape in promised.items():
        if shape != found[name]:
            raise DataError(f"{source}: {name} has shape {found[name]}, the config promises {shape}")


def one_dtype(folder: Path, stored: Mapping[str, StoredTensor]) -> torch.dtype:
    """The dtype that all weights have. DataError when they differ or are no floating-point numbers."""
    dtypes = {tensor.dtype for tensor in stored.values()}
    if len(dtypes) > 1 or not dtypes <= set(FLOATS.values()):
        named = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise DataError(f"{folder}: the weights must be of one floating-point dtype, they are {named}")
    return dtypes.pop()


# Contents ------------------------------------------------------------------------------------------------------------


def read_weights(stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The tensors themselves, by the same keys, in memory of their own."""
    weights = {}
    for file in sorted({tensor.file for tensor in stored.values()}):
        try:
            with safe_open(file, framework="pt") as tensors:
                for key, tensor in stored.items():
                    if tensor.file == file:
                        # A copy: in the file's pages it would lie at any address, and kernels choose by alignment.
                        weights[key] = tensors.get_tensor(tensor.name).clone()
        except (SafetensorError, OSError) as error:
            raise CorruptionError(f"{file}: {error}") from error
    return weights


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes `model.safetensors`, or shards of at most SHARD_BYTES and their index when there is more than that."""
    shards = _shards(weights)
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [WEIGHTS]
    for file, names in zip(files, shards, strict=True):
        write_file(folder / file, {name: weights[name] for name in names})
    if len(shards) > 1:
        total = sum(weight.nbytes for weight in weights.values())
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(weights: Mapping[str, Tensor]) -> list[list[str]]:
    """The names of each file's weights, in their order; a weight larger than a file may be has one of its own."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, weight in weights.items():
        if shards[-1] and size + weight.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += weight.nbytes
    return shards


def write_file(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file; an error of the operating system, which safetensors tells in words, as an OSError."""
    file.touch()
    mode = file.stat().st_mode  # what this user's files have; safetensors' own are for nobody else
    try:
        held = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
        save_file(held, file, metadata={"format": "pt"})
        file.chmod(mode)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
