"""Rows of a data set on the Hugging Face hub, as they stream by; nothing is kept on disk.

A name may be a folder too that holds files in the data set's schema, such as a local download.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from seedbed.data.config import HubConfig
from seedbed.errors import DataError
from seedbed.extras import missing

SCALE = 2**64


def stream_rows(name: str, hub: HubConfig) -> Iterator[dict[str, Any]]:
    """The rows of a data set that the plan asks for, in the data set's own order.

    DataError, with the hub's own words, when it cannot be reached or holds no such configuration or split; ConfigError
    when the package `datasets` is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise missing("reading from the hub", "datasets", "data") from error
    try:
        stream = datasets.load_dataset(
            name,
            hub.subset,
            split=hub.split,
            data_dir=hub.data_dir,
            data_files=hub.data_files,
            revision=hub.revision,
            streaming=True,
        )
        for number, row in enumerate(stream):
            if all(str(_at(row, path)) == value for path, value in hub.where.items()) and _taken(number, hub.fraction):
                yield row
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # what `datasets` and its file systems raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"cannot read hub:{name}: {reason}",
            "Check the name, `reading.hub` and the network; a gated data set wants `hf auth login`.",
        ) from error


def _at(row: Any, path: str) -> Any:
    """A field, or one inside it: meta.pile_set_name."""
    for key in path.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row


def _taken(number: int, fraction: float) -> bool:
    """Whether a row comes into a sample: by a hash of its number, so that a larger sample holds the smaller."""
    if fraction >= 1:
        return True
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8], "big") < fraction * SCALE
