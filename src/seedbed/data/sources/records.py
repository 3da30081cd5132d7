"""The documents in a block. What cannot be read as what it claims to be is a Reject that says why, never a guess."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from seedbed.data.config import ReadingConfig
from seedbed.data.messages import SYSTEMS, TEXTS, TURNS, first_key, message_of, pair_of, row_of
from seedbed.data.sources.blocks import BLANK_LINES, Block
from seedbed.extras import missing
from seedbed.runs import json_name, parse_json

EXCERPT = 200
"""Characters of a bad record that the rejects file shows."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it comes from: a path inside the source, with a line or part where a file holds several."""

    text: str
    name: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no text."""

    name: str
    reason: str
    """A few fixed words, which are counted."""
    detail: str
    excerpt: str


class _Bad(Exception):
    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def read_documents(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    """What a block holds, record by record. Blank records of a file with several are passed over."""
    yield from FORMATS[block.format](block, reading)


def _reject(name: str, bad: _Bad, data: bytes) -> Reject:
    return Reject(name, bad.reason, bad.detail, data[: 4 * EXCERPT].decode("utf-8", errors="replace")[:EXCERPT])


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Bad("not UTF-8", f"line {line}: the byte 0x{data[error.start]:02x} is not UTF-8 text") from error
    if "\0" in text:
        raise _Bad("NUL byte", f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL byte is not text")
    return text


# Text ----------------------------------------------------------------------------------------------------------------


def _text(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    name = block.name if block.whole else f"{block.name}#{block.first}"
    try:
        yield Document(_decode(block.data), name)
    except _Bad as bad:
        yield _reject(name, bad, block.data)


def _lines(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    for number, line in enumerate(block.data.split(b"\n"), start=block.first):
        if line.strip():
            yield from _record(f"{block.name}:{number}", line, reading, lambda line: _decode(line.removesuffix(b"\r")))


def _paragraphs(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    line, start = block.first, 0
    gaps = [gap.span() for gap in BLANK_LINES.finditer(block.data)]
    for end, following in [*gaps, (len(block.data), len(block.data))]:
        paragraph = block.data[start:end].rstrip(b"\r\n")
        if paragraph.strip():
            text = re.sub(rb"\A(?:[ \t\r]*\n)+", b"", paragraph)
            above = paragraph.count(b"\n") - text.count(b"\n")
            yield from _record(f"{block.name}:{line + above}", text, reading, _decode)
        line += block.data.count(b"\n", start, following)
        start = following


def _record(
    name: str, data: bytes, reading: ReadingConfig, read: Callable[[bytes], str]
) -> Iterator[Document | Reject]:
    try:
        if len(data) > reading.longest_row:
            raise _Bad("record too long", f"{len(data):,} bytes, more than reading.longest_row {reading.longest_row:,}")
        yield Document(read(data), name)
    except _Bad as bad:
        yield _reject(name, bad, data)


def _html(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    try:
        import trafilatura  # here, because it takes half a second
    except ImportError as error:
        raise missing("reading .html", "trafilatura", "data") from error
    try:
        text = trafilatura.extract(_decode(block.data), include_comments=False, output_format="txt")
        if not text:
            raise _Bad("no text in HTML", "trafilatura finds no main text in this page")
        yield Document(text, block.name)
    except _Bad as bad:
        yield _reject(block.name, bad, block.data)


# Rows ----------------------------------------------------------------------------------------------------------------


def _rows(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    def read(line: bytes) -> str:
        try:
            row = parse_json(line)
        except UnicodeDecodeError as error:
            raise _Bad("not UTF-8", f"the byte 0x{line[error.start]:02x} is not UTF-8 text") from error
        except ValueError as error:
            raise _Bad("invalid JSON", f"not valid JSON ({error})") from error
        return _row_text(row, reading.text_field)

    for number, line in enumerate(block.data.split(b"\n"), start=block.first):
        if line.strip():
            yield from _record(f"{block.name}:{number}", line, reading, read)


def _csv(block: Block, reading: ReadingConfig, delimiter: str = ",") -> Iterator[Document | Reject]:
    """The records of a table. One that breaks off or cannot be read costs its first line: the next begins behind it, so
    that a quote too many takes no other record along."""
    csv.field_size_limit(min(reading.longest_row, sys.maxsize))
    text = block.data.decode("utf-8", errors="surrogateescape")  # a wrong byte spoils its own row only
    lines = list(io.StringIO(text, newline=""))
    table = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    try:
        header = next(table, [])
    except csv.Error as error:
        yield _reject(f"{block.name}:1", _Bad("invalid CSV", f"its header: {error}"), block.data)
        return
    at = table.line_num
    shift = block.first - (at if block.first > 1 else 0)  # later blocks repeat the header
    while at < len(lines):
        table = csv.reader((lines[i] for i in range(at, len(lines))), delimiter=delimiter, strict=True)
        begin = at
        while at < len(lines):
            name = f"{block.name}:{at + shift}"
            try:
                fields = next(table, [])
                at = begin + table.line_num
                if fields:
                    row = dict(itertools.zip_longest(header, fields[: len(header)]))
                    yield Document(_row_text(row, reading.text_field), name)
            except csv.Error as error:
                reason = "record too long" if "field limit" in str(error) else "invalid CSV"
                yield _reject(name, _Bad(reason, str(error)), lines[at].encode(errors="backslashreplace"))
                at += 1
                break
            except _Bad as bad:
                yield _reject(name, bad, json.dumps(row).encode())


def _tsv(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    yield from _csv(block, reading, "\t")


def _row_text(row: Any, field: str | None) -> str:
    """The text of a row. `field` names where it is; else it is looked for."""
    if not isinstance(row, dict):
        raise _Bad("not an object", f'a JSON object with a "text" is needed, not {json_name(row)}')
    said = row_of(row)
    if field is None:
        field = first_key(said, TEXTS)
    if field is not None:
        if field not in row:
            raise _Bad("no text field", f'there is no "{field}" in this row (it has {_keys(row)})')
        return _checked(row[field], field)
    turns, pair = first_key(said, TURNS), pair_of(said)
    if turns:
        parts, labels = _turns(said, turns), True
    elif pair and pair[1] in said:
        labels = any(isinstance(said[key], list) for key in pair)
        parts = _said(said, pair[0], "user: " * labels)
        if pair[0] == "instruction" and "input" in said:
            parts.append(_checked(said["input"], "input"))
        parts += _said(said, pair[1], "assistant: " * labels)
    elif empty := first_key(row, TEXTS):
        return _checked(row[empty], empty)
    else:
        raise _Bad("no text field", f'there is no "text" in this row (it has {_keys(row)})')
    system = first_key(said, SYSTEMS)
    if system and said[system] != "" and not (labels and parts and parts[0].startswith("system: ")):
        parts.insert(0, "system: " * labels + _checked(said[system], system))
    return "\n\n".join(part for part in parts if part.strip())


def _said(row: dict[str, Any], key: str, label: str) -> list[str]:
    """A prompt or an answer: a text, or messages."""
    return _turns(row, key) if isinstance(row[key], list) else [label + _checked(row[key], key)]


def _turns(row: dict[str, Any], key: str) -> list[str]:
    """Who said what. Unlike `messages.turns_of` it takes any speaker, and replies without a word."""
    if not isinstance(row[key], list):
        raise _Bad("wrong type", f'"{key}" must be a list, not {json_name(row[key])}')
    said = []
    for turn in row[key]:
        if not isinstance(turn, dict):
            raise _Bad("wrong type", f"a turn of a conversation must be an object, not {json_name(turn)}")
        message = message_of(turn)
        said.append(f"{_checked(message.get('role'), 'role')}: {_checked(message.get('content'), 'content')}")
    return said


def _keys(row: dict[str, Any]) -> str:
    keys = ", ".join(map(str, list(row)[:8])) or "nothing"
    return keys.encode(errors="backslashreplace").decode()[:EXCERPT]


def _checked(text: Any, field: str) -> str:
    """A field's text, if it is one."""
    if text is None:
        raise _Bad("null", f'"{field}" must be a text, not null')
    if not isinstance(text, str):
        raise _Bad("wrong type", f'"{field}" must be a text, not {json_name(text)}')
    if "\0" in text:
        raise _Bad("NUL byte", f'"{field}" holds a NUL character')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if "\udc80" <= text[error.start] <= "\udcff":  # how a wrong byte of a .csv file came through
            byte = ord(text[error.start]) - 0xDC00
            raise _Bad("not UTF-8", f'"{field}" holds the byte 0x{byte:02x}, which is not UTF-8 text') from error
        lone = f"U+{ord(text[error.start]):04X}"
        raise _Bad("lone surrogate", f'"{field}" holds {lone}, half of a character, which UTF-8 cannot hold') from error
    return text


def _broken(block: Block, reading: ReadingConfig) -> Iterator[Document | Reject]:
    reason, _, detail = block.data.decode().partition("\n")
    yield Reject(f"{block.name}:{block.first}", reason, detail, "")


FORMATS: dict[str, Callable[[Block, ReadingConfig], Iterator[Document | Reject]]] = {
    "text": _text,
    "lines": _lines,
    "paragraphs": _paragraphs,
    "html": _html,
    "rows": _rows,
    "csv": _csv,
    "tsv": _tsv,
    "bad": _broken,
}
"""How to read a block, by its format."""
