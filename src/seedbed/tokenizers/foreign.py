"""Tokenizers of other tools: Hugging Face's tokenizer.json, SentencePiece's .model, tiktoken's ranks. They are read as
data; ids are those of the tool they come from, or the import is refused."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.runs import parse_json
from seedbed.tokenizers import byte_pair, sentence_piece
from seedbed.tokenizers.folder import NAMES, read_bytes, read_folder, read_text
from seedbed.tokenizers.model_file import read_model
from seedbed.tokenizers.splits import Digits, Split
from seedbed.tokenizers.tokenizer import Tokenizer

FILES = ("tokenizer.json", "tokenizer.model")
"""Of a folder, in this order: the first that is there is its tokenizer."""

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
    if path.suffix == ".json":
        # One of another name is alone: what lies beside it belongs to a tokenizer.json.
        parts = read_folder(path.parent) if path.name == "tokenizer.json" else (read_text(path), {}, None)
    elif path.suffix in (".model", ".tiktoken"):
        raw = read_bytes(path)
    else:
        raise DataError(f"{path} is no tokenizer that is known", "Give a folder, tokenizer.json, .model or .tiktoken.")
    try:
        if path.suffix == ".json":
            return _hugging_face(*parts)
        if path.suffix == ".model":
            return sentence_piece.from_model(read_model(raw))
        if split is None:
            raise ConfigError(f"{path} does not say how text is split", "Give --split gpt-2, llama-3 or qwen2.")
        return byte_pair.from_ranks(_ranks(raw), split=split, digits=digits, specials=specials)
    except CorruptionError as error:
        raise CorruptionError(f"{path}: {error.problem}", error.fix) from error
    except DataError as error:
        raise DataError(f"{path}: {error.problem}", error.fix) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptionError(f"{path} cannot be used: {error}") from error


def find_file(path: Path) -> Path:
    """The file that holds a tokenizer: the path itself, or what is in that folder. DataError when none is there."""
    found = next((path / name for name in FILES if (path / name).is_file()), None) if path.is_dir() else path
    if found is None or not found.is_file():
        raise DataError(
            f"{path} holds neither {' nor '.join(FILES)}" if path.is_dir() else f"{path} is not there",
            "A file or folder on this machine is needed. Of the hub: hf download OWNER/NAME --include 'tokenizer*' "
            "--local-dir DIR",
        )
    return found


def _hugging_face(source: str, config: dict[str, Any], template: str | None) -> Tokenizer:
    if not any(config.get(name) for name in NAMES):
        there = {token["content"] for token in parse_json(source.encode()).get("added_tokens", []) if token["special"]}
        config |= {
            name: next((token for token in known if token in there), None) for name, known in KNOWN_NAMES.items()
        }
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
