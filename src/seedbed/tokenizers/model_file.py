"""SentencePiece's .model file: a protocol buffer (sentencepiece_model.proto), read as data without foreign code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from seedbed.errors import CorruptionError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces."""

MOST_PIECES = 1 << 24

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""

ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class ModelFile:
    """What counts in a .model file."""

    raw: bytes
    pieces: list[tuple[str, float, int]]
    """Text, score and type of each id."""
    scores_at: list[int]
    """Where each score stands in the file; -1 where it is left out, which means 0."""
    algorithm: str
    special_ids: dict[str, int]
    """Of unk, bos, eos and pad; -1 where there is none."""
    suffixes: bool
    """The mark of a space stands behind a word."""
    normalizes: bool
    """It holds rules of normalisation."""
    adds_prefix: bool
    """A space is put before each text."""
    removes_spaces: bool
    escapes: bool
    """Spaces are written as ▁."""

    def with_scores_rounded(self, step: float) -> bytes:
        """The file with the scores of all normal pieces as multiples of `step`."""
        changed = bytearray(self.raw)
        for (_, score, type), at in zip(self.pieces, self.scores_at, strict=True):
            if type == NORMAL and at >= 0:
                struct.pack_into("<f", changed, at, round(score / step) * step)
        return bytes(changed)


def read_model(raw: bytes) -> ModelFile:
    """Reads a .model file's bytes. CorruptionError when they are none."""
    try:
        return _read(raw)
    except (ValueError, IndexError, struct.error) as error:
        raise CorruptionError(f"no SentencePiece model can be read: {error}") from error


def _read(raw: bytes) -> ModelFile:
    pieces: list[tuple[str, float, int]] = []
    scores_at: list[int] = []
    trainer: dict[int, int] = {}
    rules: dict[int, int] = {}
    for field, start, end, _ in _fields(raw, 0, len(raw)):
        if field == 1:
            piece, score, type, at = "", 0.0, NORMAL, -1
            for part, first, last, value in _fields(raw, start, end):
                if part == 1:
                    piece = raw[first:last].decode("utf-8")
                elif part == 2:
                    score, at = struct.unpack_from("<f", raw, first)[0], first
                elif part == 3:
                    type = value
            pieces.append((piece, score, type))
            scores_at.append(at)
            if len(pieces) > MOST_PIECES:
                raise ValueError(f"it holds more than {MOST_PIECES:,} pieces")
        elif field in (2, 3):
            for part, first, last, value in _fields(raw, start, end):
                (trainer if field == 2 else rules)[part] = last - first if value < 0 else value
    names = [piece for piece, *_ in pieces]
    if not pieces or len(set(names)) < len(names) or not any(type == UNKNOWN for *_, type in pieces):
        raise ValueError("its pieces are none, the same twice, or without one for the unknown")
    ids = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}
    return ModelFile(
        raw,
        pieces,
        scores_at,
        algorithm=ALGORITHMS.get(trainer.get(3, 1), "unknown"),
        special_ids={name: _signed(trainer.get(at, left_out)) for name, (at, left_out) in ids.items()},
        suffixes=bool(trainer.get(24, 0)),
        normalizes=bool(rules.get(2, 0)),
        adds_prefix=bool(rules.get(3, 1)),
        removes_spaces=bool(rules.get(4, 1)),
        escapes=bool(rules.get(5, 1)),
    )


def _signed(value: int) -> int:
    """An int32 from the 64 bits a negative one is written in."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(raw: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, where the content starts and ends, and the value of an integer (else -1)."""
    while at < end:
        key, at = _varint(raw, at, end)
        wire, value, start = key & 7, -1, at
        if wire == VARINT:
            value, at = _varint(raw, at, end)
        elif wire == BYTES:
            length, start = _varint(raw, at, end)
            at = start + length
        elif wire in (FIXED_32, FIXED_64):
            at += 4 if wire == FIXED_32 else 8
        else:
            raise ValueError(f"unknown wire type {wire} at byte {at:,}")
        if at > end:
            raise ValueError(f"it is cut off at byte {end:,}")
        yield key >> 3, start, at, value


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError(f"it is cut off at byte {end:,}")
        value |= (raw[at] & 127) << shift
        at += 1
        if raw[at - 1] < 128:
            return value, at
    raise ValueError(f"a number at byte {at:,} has no end")
