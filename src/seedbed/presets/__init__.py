"""The presets, one YAML file each, and the command that lists, shows and creates such files: `seedbed config`.

The first line of a preset reads `# COMMAND: what it is for`; the keys below are those of that command's config class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seedbed.cli import parser
from seedbed.configuration import find_preset, list_presets, to_dict, to_yaml
from seedbed.errors import ConfigError
from seedbed.runs import write_atomic


@dataclass(frozen=True, kw_only=True)
class PresetsConfig:
    """List the presets (`list`), show one (`show NAME`), create a commented file to edit (`create --for COMMAND`)."""

    action: Literal["list", "show", "create"] = "list"
    """What to do."""

    name: str | None = None
    """Preset to show, or to start the created file from; of `list`, the folder to list, such as data. Left out of
    `create`: the defaults."""

    for_: str | None = None
    """Command whose keys the created file holds. Left out: that of the preset named."""

    out: str | None = None
    """File to create. Left out: print it."""

    def __post_init__(self) -> None:
        if self.action == "show" and self.name is None:
            raise ConfigError("name is required: the preset to show", "seedbed config list names them.")
        if self.action == "create" and self.name is None and self.for_ is None:
            raise ConfigError(
                "for is required: the command to create a config file for", "Give --for, as --for pretrain."
            )


def presets(config: PresetsConfig) -> dict[str, Any]:
    """Carry out the action; the result holds what was printed or written. Raises ConfigError, StorageError."""
    if config.action == "list":
        return _list(config.name)
    if config.action == "show":
        path = find_preset(config.name or "")
        text = path.read_text(encoding="utf-8")
        print(text, end="")
        return {"name": config.name, "path": str(path), "text": text}
    return _create(config)


def _list(folder: str | None) -> dict[str, Any]:
    found = [preset for preset in list_presets() if folder is None or preset.name.startswith(f"{folder}/")]
    if not found:
        folders = ", ".join(sorted({preset.name.split("/")[0] for preset in list_presets()}))
        raise ConfigError(f"name: there are no presets in {folder!r}", f"There are some in {folders}.")
    width = max((len(preset.name) for preset in found), default=0)
    for preset in found:
        print(f"{preset.name:<{width}}  {preset.command}: {preset.about}")
    return {"presets": [{"name": p.name, "command": p.command, "about": p.about} for p in found]}


def _create(config: PresetsConfig) -> dict[str, Any]:
    command = config.for_ or next((p.command for p in list_presets() if p.name == config.name), None)
    if command is None:
        raise ConfigError("for is required: the command to create a config file for", "Give --for, as --for pretrain.")
    reader = parser(command)
    values = reader.values(["--config", config.name] if config.name else [])
    head = f"# {command}: made by seedbed config create{' ' + config.name if config.name else ''}\n"
    text = head + to_yaml(reader.config_class, to_dict(values), comments=True)
    if config.out is None:
        print(text, end="")
    else:
        if Path(config.out).exists():
            raise ConfigError(f"out: {config.out} is there already", "Choose another name, or remove it.")
        write_atomic(Path(config.out), text)
        print(f"{config.out} written; use it: seedbed {command} --config {config.out}")
    return {"command": command, "out": config.out, "text": text}
