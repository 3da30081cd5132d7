"""Tokenizers of other tools: Hugging Face's tokenizer.json, SentencePiece's .model, tiktoken's ranks. They are read as
data; ids are those of the tool they come from, or the import is refused."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.tokenizers import byte_pair, sentence_piece
from seedbed.tokenizers.model_file import read_model
from seedbed.tokenizers.splits import Digits, Split
from seedbed.tokenizers.tokenizer import NAMES, Tokenizer

LARGEST = 1 << 28
"""Bytes of a file; the largest known have some 40 MB."""

KNOWN_NAMES = {
    "bos_token": ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "<|endoftext|>"),
    "eos_token": ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"),
    "unk_token": ("<unk>", "[UNK]"),
    "pad_token": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
    "mask_token": ("<mask>", "[MASK]"),
}
"""What special tokens are called, where no file beside tokenizer.json says which is which."""


def read_foreign(
    path: Path, *, split: Split | None = None, digits: Digits | None = None, specials: bool = True
) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, a tokenizer.json, a .model or a .tiktoken file.

    A .tiktoken file says neither how text is split nor what is special: `split` must be given, and seedbed's special
    tokens are put behind its own unless `specials` is off. DataError for a tokenizer that cannot be run exactly,
    CorruptionError for a file that cannot be parsed.
    """
    path = find_file(path)
    if path.suffix != ".tiktoken" and (split, digits) != (None, None):
        raise ConfigError(f"split and digits are for training and for .tiktoken files; {path} tells them itself")
    try:
        if path.suffix == ".json":
            return _hugging_face(path)
        if path.suffix == ".model":
            return sentence_piece.from_model(read_model(_bytes(path)))
        if path.suffix == ".tiktoken":
            if split is None:
                raise ConfigError(f"{path} does not say how text is split", "Give --split gpt-2, llama-3 or qwen2.")
            return byte_pair.from_ranks(_ranks(_bytes(path)), split=split, digits=digits, specials=specials)
    except CorruptionError as error:
        raise CorruptionError(f"{path}: {error.problem}", error.fix) from error
    except DataError as error:
        raise DataError(f"{path}: {error.problem}", error.fix) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptionError(f"{path} cannot be used: {error}") from error
    raise DataError(f"{path} is no tokenizer that is known", "Give a folder, tokenizer.json, .model or .tiktoken.")


def find_file(path: Path) -> Path:
    """The file that holds a tokenizer: the path itself, or what is in that folder. DataError when none is there."""
    names = ("tokenizer.json", "tokenizer.model")
    found = next((path / name for name in names if (path / name).is_file()), None) if path.is_dir() else path
    if found is None or not found.is_file():
        raise DataError(f"{path} holds neither {' nor '.join(names)}" if path.is_dir() else f"{path} is not there")
    return found


def _hugging_face(path: Path) -> Tokenizer:
    source = _bytes(path).decode("utf-8")
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if path.name == "tokenizer.json" and (path.parent / name).is_file():
            config |= json.loads(_bytes(path.parent / name))
    template = config.pop("chat_template", None)
    if isinstance(template, list):  # several by name
        template = next((one["template"] for one in template if one["name"] == "default"), None)
    if path.name == "tokenizer.json" and (path.parent / "chat_template.jinja").is_file():
        template = _bytes(path.parent / "chat_template.jinja").decode("utf-8")
    if not any(config.get(name) for name in NAMES):
        there = {token["content"] for token in json.loads(source).get("added_tokens", []) if token["special"]}
        for name, known in KNOWN_NAMES.items():
            config[name] = next((token for token in known if token in there), None)
    return Tokenizer(source, {"tokenizer_class": "PreTrainedTokenizerFast"} | config, template)


def _ranks(raw: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"line {number:,} is no token with its rank") from error
    if len(set(ranks.values())) < len(ranks) or min(ranks.values(), default=0) < 0 or b"" in ranks:
        raise ValueError("a rank stands twice, is negative or has no token")
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise ValueError("it does not hold all 256 bytes")
    return ranks


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} holds more than {LARGEST:,} bytes: that is no tokenizer")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
