"""The signatures of one unit's documents: what is needed to find their duplicates without reading the texts again.

The file is a safetensors file, so that any tool opens it and arrays are read through a memory map, page by page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from seedbed.errors import CorruptionError
from seedbed.runs import write_atomic

DTYPES: dict[str, np.dtype[Any]] = {"U32": np.dtype("<u4"), "U64": np.dtype("<u8")}


@dataclass(frozen=True, eq=False, kw_only=True)
class Signatures:
    """Arrays over D documents with B bands, S shingles and L spans (lines or paragraphs) in all."""

    settings: str
    """What the signatures depend on; only those of equal settings can be compared."""

    ties: NDArray[np.uint64]
    """[D], the first 64 bits of the SHA-256 of the text in UTF-8, which order texts of one length."""

    lengths: NDArray[np.uint32]
    """[D], characters."""

    digests: NDArray[np.uint64]
    """[D, 2], 128-bit BLAKE2b of the normalised text."""

    bands: NDArray[np.uint64]
    """[B, D], hash of the MinHash rows of each band."""

    shingle_starts: NDArray[np.uint64]
    """[D + 1], where the shingles of a document begin."""

    shingles: NDArray[np.uint32]
    """[S], hashes; sorted and unique in each document."""

    span_starts: NDArray[np.uint64]
    """[D + 1], where the spans of a document begin."""

    span_hashes: NDArray[np.uint64]
    """[L], of the normalised words; odd for paragraphs, even for lines."""

    spans: NDArray[np.uint32]
    """[L, 2], first character and the one behind the last."""

    def __len__(self) -> int:
        return len(self.lengths)

    def shingles_of(self, document: int) -> NDArray[np.uint32]:
        """The sorted shingle hashes of one document."""
        return self.shingles[int(self.shingle_starts[document]) : int(self.shingle_starts[document + 1])]

    def save(self, path: Path) -> None:
        """Writes the file atomically, the same bytes for the same signatures. Raises StorageError."""
        from safetensors.numpy import save

        # One entry: safetensors writes several in any order, and the file shall be the same every time.
        metadata = {"seedbed": json.dumps({"settings": self.settings, "checksum": self._checksum()})}
        write_atomic(path, save({name: np.ascontiguousarray(array) for name, array in self._arrays()}, metadata))

    @classmethod
    def load(cls, path: Path, verify: bool = True) -> Signatures:
        """Opens a file as a memory map; `verify` reads all of it once, to know that no byte has changed.

        Raises CorruptionError for a file that is damaged, cut off or not there.
        """
        try:
            data = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
            begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
            header: dict[str, Any] = json.loads(data[8:begin].tobytes())
            metadata = json.loads(header.pop("__metadata__")["seedbed"])
            arrays = {name: _array(data[begin:], **entry) for name, entry in header.items()}
            signatures = cls(settings=metadata["settings"], **arrays)
            sound = not verify or metadata["checksum"] == signatures._checksum()
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _damaged(path) from error
        if not sound:
            raise _damaged(path)
        return signatures

    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "settings"]

    def _checksum(self) -> str:
        checksum = xxhash.xxh3_128(self.settings.encode())
        for name, array in self._arrays():
            checksum.update(f"{name} {array.dtype.str} {array.shape}".encode())
            checksum.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return checksum.hexdigest()


def _array(data: NDArray[Any], dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    return data[data_offsets[0] : data_offsets[1]].view(DTYPES[dtype]).reshape(shape)


def _damaged(path: Path) -> CorruptionError:
    return CorruptionError(f"{path} is damaged: it is not what was written", "Remove it: its unit is then done again.")
