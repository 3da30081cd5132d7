"""A tokenizer's folder as Hugging Face lays it out, read with suspicion: ours, or one of a stranger's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seedbed.errors import CorruptionError, DataError
from seedbed.runs import json_name, parse_json

LARGEST = 1 << 28
"""Bytes of a file; the largest known have some 40 MB."""

NAMES = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
}
"""What Hugging Face calls them in tokenizer_config.json. Padding is never the end token: the end is learned."""

CONFIGS = ("special_tokens_map.json", "tokenizer_config.json")
"""Files that say which token is special for what; what the later says counts."""

MAKER = (
    "A tokenizer folder is made by: seedbed tokenizer --corpus CORPUS --kind KIND --out TOKENIZER\n"
    "or of another tool's files by: seedbed tokenizer --import_from PATH --out TOKENIZER"
)


def read_folder(folder: Path) -> tuple[str, dict[str, Any], str | None]:
    """The text of tokenizer.json, what the files beside it say (empty where there is none), and the chat template: of
    several the one called default.

    DataError when tokenizer.json is not there or too large, CorruptionError for a file that is not what it should be.
    Whether tokenizer.json is a tokenizer is not looked at.
    """
    source = read_text(folder / "tokenizer.json")
    config: dict[str, Any] = {}
    for path in (folder / name for name in CONFIGS):
        if path.is_file():
            config |= _read_config(path)
    template = config.pop("chat_template", None)
    # transformers saves the template in a file of its own, which then counts.
    if (folder / "chat_template.jinja").is_file():
        template = read_text(folder / "chat_template.jinja")
    return source, config, template


def read_text(path: Path) -> str:
    """A file of a tokenizer as text; CorruptionError when it is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptionError(f"{path} is not UTF-8: {error}") from error


def read_bytes(path: Path) -> bytes:
    """A file of a tokenizer; DataError when it cannot be read or is larger than any."""
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} holds more than {LARGEST:,} bytes: that is no tokenizer")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", MAKER) from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(read_bytes(path))
        if not isinstance(config, dict):
            raise ValueError(f"it must be a JSON object, not {json_name(config)}")
        for name in NAMES:
            token = config.get(name)
            token = token.get("content", 0) if isinstance(token, dict) else token
            if not (token is None or isinstance(token, str)):
                raise ValueError(f"its {name} is not a text")
        if "chat_template" in config:
            config["chat_template"] = _one_template(config["chat_template"])
    except ValueError as error:
        raise CorruptionError(f"{path} cannot be used: {error}") from error
    return config


def _one_template(template: Any) -> str | None:
    """The template itself, or of a list [{name, template}, …] the default one."""
    if isinstance(template, list):
        if not all(isinstance(one, dict) and isinstance(one.get("template"), str) for one in template):
            raise ValueError("its chat_template is neither a text nor a list of named ones")
        template = next((one["template"] for one in template if one.get("name") == "default"), None)
    if not (template is None or isinstance(template, str)):
        raise ValueError("its chat_template is not a text")
    return template
