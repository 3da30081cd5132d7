"""What a folder of `seedbed quickstart` was begun with, and with which it alone goes on."""

from __future__ import annotations

import sys

from seedbed.configuration import load_config, save_config, to_dict
from seedbed.data.config import PrepareConfig
from seedbed.data.prepare import hash_source
from seedbed.data.sources.files import find_files
from seedbed.errors import ConfigError, DataError
from seedbed.quickstart.config import QuickstartConfig
from seedbed.runs import MANIFEST, read_manifest

REMEMBERED = "quickstart.yaml"
"""In the folder: the config that it was begun with."""

BYTES_PER_MINUTE = 2_000_000
"""A sample of a large corpus is enough: a CPU reads far less than this in a minute of training."""

COMPARED_BYTES = 1_000_000_000
"""A corpus up to this large is read again to see whether it has changed."""


def remember(config: QuickstartConfig) -> None:
    """Writes the config to the folder, or checks that it is the one the folder was begun with."""
    path = config.out / REMEMBERED
    if path.exists() and (config.out / "corpus" / MANIFEST).is_file():
        for key, began in to_dict(load_config(path, QuickstartConfig)).items():
            if key not in ("out", "device") and to_dict(config)[key] != began:
                raise ConfigError(
                    f"{config.out} was begun with {key} {began}, now it is {to_dict(config)[key]}",
                    "Give the same settings to go on with it, or another --out.",
                )
        _refuse_other_text(config)
        return
    if any(entry.name != path.name and not entry.name.startswith(".") for entry in config.out.iterdir()):
        raise ConfigError(f"{config.out} exists and is not empty", "Choose another --out, or remove that folder first.")
    save_config(path, config)


def _refuse_other_text(config: QuickstartConfig) -> None:
    """DataError when the text that a corpus was made from has changed since. Text that is gone is not missed."""
    try:
        files = find_files(config.corpus)
    except DataError:
        return
    if sum(file.path.stat().st_size for file in files if file.path.is_file()) > COMPARED_BYTES:
        print(f"{config.corpus} is large: whether it has changed is not checked", file=sys.stderr)
    elif hash_source(preparing(config)) != read_manifest(config.out / "corpus").inputs["source"]:
        raise DataError(
            f"{config.corpus} has changed since {config.out} was begun with it",
            "Give another --out to begin anew with it, or the text as it was to go on.",
        )


def preparing(config: QuickstartConfig) -> PrepareConfig:
    """How its corpus is prepared."""
    limit = max(100_000, int(BYTES_PER_MINUTE * config.minutes))
    return PrepareConfig(source=config.corpus, out=config.out / "corpus", max_bytes=limit, seed=config.seed)
