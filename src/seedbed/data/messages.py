"""Messages as rows spell them: texts, turns of several dialects, prompts. What conversations and preferences share."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from seedbed.errors import DataError
from seedbed.runs import json_name
from seedbed.tokenizers.chat import check_messages

Messages = list[dict[str, Any]]
Row = Mapping[str, Any]

SPEAKERS = {
    "human": "user",
    "prompter": "user",
    "developer": "system",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
}
"""Other words for the roles: ShareGPT's, Open Assistant's, Gemma's and OpenAI's."""

TEXTS = ("text", "content", "markdown", "body")
"""Fields that hold a text which is no conversation; the first that a row has counts."""

TURNS = ("messages", "conversations", "conversation")
"""Fields that hold a whole conversation."""

PROMPTS = ("prompt", "question", "instruction")
"""Fields that hold what is asked; the first that a row has counts. `input` adds to `instruction` (Alpaca)."""

ANSWERS = {"prompt": ("response", "completion"), "question": ("answer",), "instruction": ("output",)}
"""Fields that hold the answer to each kind of prompt."""

SYSTEMS = ("system", "system_prompt")
"""Fields that hold a text to put before a row's messages, as the system's."""

FIELDS = (*TEXTS, *TURNS, *PROMPTS, "input", *chain(*ANSWERS.values()), *SYSTEMS)
"""All fields that a text or a conversation may be in."""


def row_of(value: Any) -> dict[str, Any]:
    """A row without its nulls, which stand in tables for what a row does not have."""
    if not isinstance(value, Mapping):
        raise DataError(f"an object is needed, got {json_name(value)}")
    return {key: item for key, item in value.items() if item is not None}


def first_key(row: Row, keys: tuple[str, ...]) -> str | None:
    """The first of the keys that the row has."""
    return next((key for key in keys if key in row), None)


def pair_of(row: Row) -> tuple[str, str] | None:
    """The fields of the first prompt that is answered, and of its answer; without any answer those of the first prompt
    and of the answer it needs. None for a row without a prompt."""
    asked = [key for key in PROMPTS if key in row]
    pairs = [(key, answer) for key in asked for answer in ANSWERS[key] if answer in row]
    return next(iter([*pairs, *((key, ANSWERS[key][0]) for key in asked)]), None)


def text_of(row: Row, key: str) -> str:
    """A text that must be there, and not be empty."""
    if not isinstance(row.get(key), str):
        raise DataError(f"{key} must be a text, got {json_name(row[key]) if key in row else 'nothing'}")
    if not row[key]:
        raise DataError(f"{key} is empty")
    text: str = row[key]
    return text


def turns_of(row: Row, key: str) -> Messages:
    """A list of messages, each {role, content} or ShareGPT's {from, value}; checked."""
    turns = row[key]
    if not isinstance(turns, list):
        raise DataError(f"{key} must be a list, got {json_name(turns)}")
    messages = [message_of(turn) if isinstance(turn, Mapping) else turn for turn in turns]
    for number, message in enumerate(messages, start=1):
        if isinstance(message, Mapping):
            _refuse_what_is_no_text(message, f"message {number} ({message.get('role')})")
    check_messages(messages)
    return messages


def message_of(turn: Row) -> dict[str, Any]:
    """A turn as {role, content}, whatever the dialect; not checked. Contents in parts of text are one text, a part
    after another on lines of their own, as vLLM and llama.cpp join them."""
    message = {key: item for key, item in turn.items() if item is not None}
    if "from" in message and "role" not in message:
        message = {"role": message.pop("from"), "content": message.pop("value", None)} | message
    if isinstance(role := message.get("role"), str):
        message["role"] = SPEAKERS.get(role, role)
    parts = message.get("content")
    if isinstance(parts, list) and parts and all(_part_text(part) is not None for part in parts):
        message["content"] = "\n".join(map(str, map(_part_text, parts)))
    return message


def _part_text(part: Any) -> str | None:
    """The text of a part {type: text, text}, as OpenAI's contents hold; None for what is no text, such as a picture."""
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") in ("text", None) else part
    return text if isinstance(text, str) else None


def _refuse_what_is_no_text(message: Row, name: str) -> None:
    """DataError for pictures, sounds and calls of tools."""
    content = message.get("content")
    if isinstance(content, list):
        others = [part for part in content if _part_text(part) is None]
        kind = others[0].get("type") if others and isinstance(others[0], Mapping) else None
        if isinstance(kind, str) and kind != "text":
            raise DataError(
                f"{name} holds a part of the type {kind!r}; only text can be learned", "Leave such rows out."
            )
    if not content and (call := first_key(message, ("tool_calls", "function_call"))):
        raise DataError(
            f"{name} says nothing but calls a tool ({call}); only text can be learned",
            "Write the call as text into its content, or leave such rows out.",
        )


def prompt_of(row: Row, key: str) -> Messages:
    """What is asked in the field `key`: a text of the user's, or messages of which the last is not the assistant's."""
    if isinstance(row.get(key), list):
        messages = turns_of(row, key)
        if messages[-1]["role"] == "assistant":
            raise DataError(f"{key} ends with a message of the assistant: there is nothing to answer")
        return with_system(row, messages)
    text = text_of(row, key)
    given = row.get("input", "") if key == "instruction" else ""
    if not isinstance(given, str):
        raise DataError(f"input must be a text, got {json_name(given)}")
    message = {"role": "user", "content": text}
    if given:  # templates show both parts in one text, but for Alpaca's
        message = {"role": "user", "content": f"{text}\n\n{given}", "instruction": text, "input": given}
    return with_system(row, [message])


def answer_of(row: Row, key: str) -> Messages:
    """An answer: a text of the assistant's, or messages that begin and end with one."""
    if not isinstance(row.get(key), list):
        return [{"role": "assistant", "content": text_of(row, key)}]
    messages = turns_of(row, key)
    if any(messages[place]["role"] != "assistant" for place in (0, -1)):
        raise DataError(f"{key} must begin and end with a message of the assistant")
    return messages


def with_system(row: Row, messages: Messages) -> Messages:
    """The messages after the row's own text of the system, if it has one and they do not begin with one."""
    key = first_key(row, SYSTEMS)
    if key is None or row[key] == "" or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": text_of(row, key)}, *messages]
