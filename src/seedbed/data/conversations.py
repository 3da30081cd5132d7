"""Conversations in files, in the shapes people have them.

A .json file holds a list of rows, a .jsonl or .jsonl.zst file one row a line. A row is one of:

    {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}, …]}
    {"prompt": …, "response": …}
    {"instruction": …, "input": …, "output": …}          (Alpaca; "input" may be missing or empty)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.errors import DataError
from seedbed.runs import parse_json
from seedbed.shards import read_lines
from seedbed.tokenizers.chat import check_messages

SHAPES = "A row is {messages: [{role, content}, …]}, {prompt, response or completion} or {instruction, input, output}."


@dataclass(frozen=True)
class Conversation:
    """One row of a file: who said what, and whatever else the row holds."""

    messages: list[dict[str, Any]]
    row: int
    """Its number in the file, from 1, for messages to people."""


def read_conversations(path: Path | str) -> Iterator[Conversation]:
    """The conversations of a .json, .jsonl or .jsonl.zst file, in order.

    Raises DataError naming the file, the row and what is wrong with it; also for a file without any row, or that cannot
    be read. A broken .zst stream is a CorruptionError.
    """
    path = Path(path)
    conversation = None
    for number, row in _rows(path):
        try:
            conversation = _conversation(row, number)
        except DataError as error:
            raise DataError(f"{path}, row {number}: {error.problem}", error.fix) from error
        yield conversation
    if conversation is None:
        raise DataError(f"{path} holds no conversation", SHAPES)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    if path.name.endswith(".json"):
        rows = _array(path)
        if not isinstance(rows, list):
            raise DataError(f"{path} must hold a JSON list of rows, got {_name(rows)}", SHAPES)
        yield from enumerate(rows, start=1)
    elif path.name.endswith((".jsonl", ".jsonl.zst")):
        for number, line in read_lines(path):
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise DataError(f"{path}, row {number}: not valid JSON ({error})", SHAPES) from error
    else:
        raise DataError(f"{path} is no file of conversations by its name", "Use a .json, .jsonl or .jsonl.zst file.")


def _array(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error})", "One JSON object a line is a .jsonl file.") from error


def _conversation(row: Any, number: int) -> Conversation:
    if not isinstance(row, Mapping):
        raise DataError(f"an object is needed, got {_name(row)}", SHAPES)
    if "messages" in row:
        messages = row["messages"]
        if not isinstance(messages, list):
            raise DataError(f"messages must be a list, got {_name(messages)}", SHAPES)
    elif "prompt" in row:
        answer = "completion" if "completion" in row and "response" not in row else "response"
        messages = _pair(_text(row, "prompt"), _text(row, answer))
    elif "instruction" in row:
        instruction, given = _text(row, "instruction"), _text(row, "input", required=False)
        messages = _pair(f"{instruction}\n\n{given}" if given else instruction, _text(row, "output"))
    else:
        keys = ", ".join(map(repr, row)) or "none"
        raise DataError(f"it has neither messages nor prompt nor instruction; its keys: {keys}", SHAPES)
    check_messages(messages)
    return Conversation(messages, number)


def _pair(prompt: str, response: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def _text(row: Mapping[str, Any], key: str, required: bool = True) -> str:
    """A text of the row. An empty one is an error where one is required."""
    value = row.get(key)
    if not required and value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{key} must be a text, got {'nothing' if value is None else _name(value)}", SHAPES)
    if required and not value:
        raise DataError(f"{key} is empty")
    return value


def _name(value: Any) -> str:
    """What a JSON value is called in JSON."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
