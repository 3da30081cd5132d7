"""How matrices are stored in fewer bits, as a folder tells it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seedbed.configuration import between
from seedbed.errors import ConfigError, CorruptionError
from seedbed.runs import json_name, make_record, read_json

LARGEST_GROUP = 2**20
Scheme = Literal["int8", "int4", "nf4"]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Of one matrix."""

    scheme: Scheme
    """int8: whole numbers of 8 bits, a scale for each row. int4: of 4 bits, a scale for each group of a row.
    nf4: normal floats of 4 bits."""

    group: int | None = None
    """Of int4: inputs that share a scale."""

    activations: Literal["stored", "int8"] = "stored"
    """What it is multiplied with: as it comes, or, with int8, in 8-bit whole numbers too."""

    def __post_init__(self) -> None:
        if (self.scheme == "int4") != (self.group is not None):
            raise ConfigError("group is for int4, which needs one")
        between(self, 1, LARGEST_GROUP, "group")
        if self.activations == "int8" and self.scheme != "int8":
            raise ConfigError("activations int8 is for the scheme int8")


STORED = "stored"
"""Key of seedbed.json, and of the manifest's config, of models some of whose layers are in few bits."""


def read_storages(path: Path) -> dict[str, Storage]:
    """How the layers of a model are stored that are in few bits, by name, as its seedbed.json tells; none in most.
    CorruptionError, naming the layer, for one that cannot be."""
    found = read_json(path).get(STORED, {})
    if not isinstance(found, dict):
        raise CorruptionError(f"{path}: stored must be an object, got {json_name(found)}")
    stored = {}
    for name, values in found.items():
        where = f"{path}: stored.{name[:60]}"
        if not isinstance(values, dict) or values.keys() != Storage.__dataclass_fields__.keys():
            raise CorruptionError(f"{where} must have {', '.join(Storage.__dataclass_fields__)}")
        try:
            stored[name] = make_record(Storage, values, f"{where}.")
        except ConfigError as error:
            raise CorruptionError(f"{where}: {error.problem}") from error
    return stored


def describe(stored: Mapping[str, Storage]) -> str:
    """The schemes in few words."""
    return " and ".join(sorted({storage.scheme for storage in stored.values()}))
