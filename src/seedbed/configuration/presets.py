"""Presets: config files that come with the package, found by name."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from seedbed.configuration.hints import shown
from seedbed.errors import ConfigError

PRESETS = Path(__file__).parents[1] / "presets"


@dataclass(frozen=True)
class Preset:
    """A YAML file that comes with the package. Its first line reads `# COMMAND: what it is for`; the second one may
    read `# vocabulary: N`."""

    name: str
    path: Path
    command: str
    about: str
    vocabulary: int | None = None
    """Token ids that a model is meant for which leaves their number to the tokenizer."""


def list_presets() -> list[Preset]:
    """Every preset by name; those in folders are named `folder/name`."""
    return [_read_preset(path) for path in sorted(PRESETS.rglob("*.yaml"))]


def _read_preset(path: Path) -> Preset:
    with path.open(encoding="utf-8") as lines:
        command, _, about = lines.readline().lstrip("# ").rstrip().partition(": ")
        key, _, size = lines.readline().lstrip("# ").partition(": ")
    vocabulary = int(size) if key == "vocabulary" else None
    return Preset(path.relative_to(PRESETS).with_suffix("").as_posix(), path, command, about, vocabulary)


def find_preset(name_or_path: str | Path) -> Path:
    """The file of a preset, or the file at a path. A preset wins over a file of the same name unless a suffix is given.

    Raises ConfigError, with the nearest names, when there is neither.
    """
    name, path = str(name_or_path), Path(name_or_path)
    presets = {preset.name: preset.path for preset in list_presets()}
    if name in presets:
        return presets[name]
    if name and os.path.isfile(name):
        return path
    if name and os.path.isdir(name):
        raise ConfigError(f"config must be a preset or a YAML file, but {name} is a folder")
    near = difflib.get_close_matches(name, presets, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(
        f"config: there is no preset and no file named {shown(name)}{hint}",
        f"Presets: {', '.join(presets)}" if presets else None,
    )


def check_command(path: Path, prog: str) -> None:
    """ConfigError when the file at `path` is a preset of another command than `prog`."""
    if not path.is_relative_to(PRESETS) or prog == "seedbed":
        return
    preset = _read_preset(path)
    if preset.command != prog.removeprefix("seedbed "):
        raise ConfigError(f"preset {preset.name} is for seedbed {preset.command}, not for {prog}")
