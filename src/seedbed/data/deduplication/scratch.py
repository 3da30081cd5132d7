"""Arrays on disk: memory-mapped, so that the system keeps in memory what is in use and drops what is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from seedbed.runs import writing


def disk_array(path: Path, dtype: DTypeLike, shape: int | tuple[int, ...]) -> NDArray[Any]:
    """A new array of zeros in a file. Raises StorageError when the disk has no room for it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with writing(path), open(path, "wb") as file:
        if not size:  # an empty file cannot be mapped
            return np.zeros(shape, dtype)
        if hasattr(os, "posix_fallocate"):  # else a full disk would be a bus error at the first write to the map
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape).view(np.ndarray)
