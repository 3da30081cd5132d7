"""What a tokenizer.json does, as far as seedbed must know: its kind, what bytes a token stands for, where a text may be
cut. A scheme that seedbed cannot run exactly is refused here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from seedbed.errors import DataError
from seedbed.tokenizers.splits import DIGITS_ALONE, NOTHING, one_expression

SPACE = "▁"
"""U+2581, by which SentencePiece writes a space."""

BYTE = re.compile("<0x([0-9A-F]{2})>")
"""How a byte is called in a vocabulary that falls back to bytes."""


@dataclass(frozen=True)
class Scheme:
    """How a tokenizer.json works."""

    kind: str
    """bytes, byte_pair, characters or sentence_piece."""
    expression: str | None
    """The expression that splits the text, of byte-level kinds; None where it is not one that seedbed knows."""
    space: str
    """What stands for a space in the vocabulary."""
    falls_back: bool
    """<0xE2> stands for a byte."""
    prepends: bool
    """A space is put before a text, which decoding takes away."""
    plain: bool
    """What becomes of a character does not depend on those around it, before the model sees the text."""


def read_scheme(described: dict[str, Any]) -> Scheme:
    """The scheme of a parsed tokenizer.json; DataError, saying what is unknown, for one that seedbed cannot run."""
    model = described["model"]
    steps, normal, decoding = (
        _flat(described.get(part), many)
        for part, many in (("pre_tokenizer", "pretokenizers"), ("normalizer", "normalizers"), ("decoder", "decoders"))
    )
    types = [step.get("type") for step in steps]
    if model.get("type") == "BPE" and types[-1:] == ["ByteLevel"]:
        expression = one_expression(steps)
        whole = not normal and expression == NOTHING and not model["merges"]
        plain = [step.get("type") for step in normal] in ([], ["NFC"])
        return Scheme("bytes" if whole else "byte_pair", expression, " ", False, False, plain)
    if model.get("type") == "BPE" and not steps and not normal and not model["merges"]:
        return Scheme("characters", None, " ", False, False, True)
    if model.get("type") in ("BPE", "Unigram") and types in ([], ["Metaspace"]):
        return _sentence_piece(model, steps, normal, decoding)
    raise _unknown(f"its model {model.get('type')} with the pre-tokenizer {types} is none")


def _sentence_piece(
    model: dict[str, Any], steps: list[dict[str, Any]], normal: list[dict[str, Any]], decoding: list[dict[str, Any]]
) -> Scheme:
    space, prepends = " ", False
    for step in decoding:
        kind = step.get("type")
        if kind == "Replace" and step["pattern"].get("String") and step["content"] == " ":
            space = step["pattern"]["String"]
        elif kind == "Metaspace":
            space = step["replacement"]
            prepends |= step.get("prepend_scheme", "always") != "never"
        elif kind == "Strip" and (step["content"], step["start"], step["stop"]) == (" ", 1, 0):
            prepends = True
        elif kind not in ("ByteFallback", "Fuse"):
            raise _unknown(f"its decoder {kind} is none")
    replaces = [step for step in normal if step.get("type") in ("Replace", "Prepend")]
    plain = not steps and replaces == normal and all(step.get("content", SPACE) == space for step in replaces)
    return Scheme("sentence_piece", None, space, bool(model.get("byte_fallback")), prepends, plain)


def _flat(part: dict[str, Any] | None, many: str) -> list[dict[str, Any]]:
    """The steps of a part of tokenizer.json, which is nothing, one step or a sequence of them."""
    return [] if part is None else part.get(many, [part])


def _unknown(what: str) -> DataError:
    return DataError(f"{what} that seedbed reads (bytes, characters, byte_pair, sentence_piece)")


def without_prefix(source: str) -> str:
    """The tokenizer.json that encodes what follows in a text: no space is put before it."""
    described = json.loads(source)
    normal = _flat(described.get("normalizer"), "normalizers")
    kept = [step for step in normal if step.get("type") != "Prepend"]
    described["normalizer"] = {"type": "Sequence", "normalizers": kept}
    return json.dumps(described, ensure_ascii=False)


def may_cut(scheme: Scheme, pieces: list[bytes], added: list[str]) -> bool:
    """Whether the ids of a text are the ids of its parts when it is cut between an ASCII letter and a space."""
    if not scheme.plain or any(re.search("[A-Za-z] ", token) for token in added):
        return False
    if scheme.kind == "byte_pair" and scheme.expression not in (NOTHING, DIGITS_ALONE):
        return scheme.expression is not None
    return not any(re.search(b"[A-Za-z] ", piece) for piece in pieces)


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def token_bytes(scheme: Scheme, vocabulary: dict[str, int], added: set[int], size: int) -> list[bytes]:
    """The UTF-8 bytes that each id stands for; tokens added to the model stand for their names."""
    byte_of = {character: bytes([byte]) for byte, character in byte_characters().items()}
    texts = [b""] * size
    for token, id in vocabulary.items():
        if id in added or scheme.kind == "characters":
            texts[id] = token.encode("utf-8")
        elif scheme.kind == "sentence_piece":
            byte = BYTE.fullmatch(token) if scheme.falls_back else None
            texts[id] = bytes.fromhex(byte[1]) if byte else token.replace(scheme.space, " ").encode("utf-8")
        else:
            texts[id] = b"".join(byte_of[c] if c in byte_of else c.encode("utf-8") for c in token)
    return texts
