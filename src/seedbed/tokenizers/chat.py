"""Conversations as tokens: a Jinja template renders them as in transformers, and the loss mask marks the replies.

Two promises go beyond `apply_chat_template`:

- What people write stays text. Special tokens come from the template alone: "<|im_end|>" inside a message is encoded
  as the ten characters it is, so nobody speaks with another's voice by writing it.
- Training equals generation. The tokens before a reply are those `encode_prompt` gives for the same conversation: no
  token straddles the place where the reply begins. Otherwise ids are those of `apply_chat_template`; the two can differ
  only where white space meets there: a reply that begins with some, or a template that ends its prompt with more than
  one line end ("Assistant: ", llama3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import ConfigError, DataError
from seedbed.runs import json_name
from seedbed.tokenizers.rendering import compile_template, render_template

if TYPE_CHECKING:
    from seedbed.tokenizers.tokenizer import Tokenizer

Message = Mapping[str, Any]
"""{"role": …, "content": …}; a template may read further keys."""

Encoded = tuple[NDArray[np.uint32], NDArray[np.bool_]]
"""Ids, and which of them are to be learned."""

ROLES = ("system", "user", "assistant", "tool")

TEMPLATES = Path(__file__).parent / "templates"

# Unicode sets these aside for a program's own use: never part of a text that is exchanged.
_MARKERS = [chr(point) for point in range(0xFDD0, 0xFDF0)]


def find_template(name: str | Path) -> str:
    """The Jinja source of a template that comes with seedbed, by name, or of a .jinja file, by path. Jinja source
    itself, known by its {{ or {%, is its own."""
    is_source = "{{" in str(name) or "{%" in str(name)
    template = str(name) if is_source else _read_template(name)
    compile_template(template)
    return template


def _read_template(name: str | Path) -> str:
    known = {path.stem: path for path in sorted(TEMPLATES.glob("*.jinja"))}
    path = known.get(str(name), Path(name))
    if str(name) not in known and path.suffix != ".jinja":
        raise ConfigError(
            f"no chat template named {str(name)!r}; there are: {', '.join(known)}",
            "Or give a .jinja file, or Jinja source.",
        )
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the chat template {path}: {error}") from error


def check_messages(messages: Sequence[Message]) -> None:
    """DataError, naming the message, unless each has a known role and a text, and no reply is empty."""
    if not isinstance(messages, list | tuple) or not messages:
        raise DataError("a conversation must be a list of at least one message")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise DataError(f"message {number} must be an object with role and content, got {json_name(message)}")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise DataError(f"message {number} has the role {role!r}; the roles are {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise DataError(f"message {number} ({role}) needs a text as its content, got {json_name(content)}")
        if role == "assistant" and message.get("weight", 1) not in (0, 1):
            raise DataError(
                f"message {number} has the weight {message['weight']!r}; it is 1, or 0 for what is not learned"
            )
        if role == "assistant" and not content:
            raise DataError(f"message {number} is an empty reply of the assistant: there is nothing to learn from it")


def render(tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """The conversation as the text that transformers' `apply_chat_template(tokenize=False)` gives."""
    check_messages(messages)
    return _render(tokenizer, messages, add_generation_prompt)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to where the assistant's next reply begins."""
    ids: list[int] = _encode(tokenizer, messages, add_generation_prompt=True)[0].tolist()
    return ids


def encode_conversation(tokenizer: Tokenizer, messages: Sequence[Message]) -> Encoded:
    """The ids of a conversation, and which of them the assistant says: each reply with the token that ends it, but for
    those of `"weight": 0` (as in OpenAI's files), which are only read.

    Raises DataError when there is no reply to learn, a reply is empty, or the template does not end replies with a
    token that ends generation (a model trained on it would never stop).
    """
    ids, mask = _encode(tokenizer, messages, add_generation_prompt=False)
    if not mask.any():
        raise DataError("the conversation has no reply of the assistant: there is nothing to learn from it")
    return ids, mask


def encode_answer(tokenizer: Tokenizer, prompt: Sequence[Message], answer: Sequence[Message]) -> Encoded:
    """The ids of an answer from where `encode_prompt(prompt)` ends to the token that ends it, and which of them the
    assistant says: all, unless the answer calls tools in between.

    The ids of prompt and answer together are those of `encode_conversation`, for each answer to the same prompt.
    Raises DataError as that does, and when the answer does not begin and end with the assistant's words.
    """
    if not answer or any(answer[place]["role"] != "assistant" for place in (0, -1)):
        raise DataError("an answer must begin and end with a message of the assistant")
    if any(message.get("weight") == 0 for message in answer):
        raise DataError("a message of the answer has the weight 0: an answer is learned as a whole")
    ids, mask = _encode(tokenizer, [*prompt, *answer], add_generation_prompt=False, after=len(prompt))
    end = int(np.flatnonzero(mask)[-1]) + 1
    return ids[:end], mask[:end]


# Encoding ------------------------------------------------------------------------------------------------------------


def _encode(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool, after: int = 0) -> Encoded:
    """With `after`, that many messages are left out, up to where the reply to them begins."""
    check_messages(messages)
    marker = _free_marker(messages)
    specials = _special_pattern(tuple(tokenizer.special_ids))
    marked = [_mark(message, specials, tuple(tokenizer.special_ids), marker) for message in messages]
    text = _render(tokenizer, marked, add_generation_prompt)
    replies = [i for i, message in enumerate(marked) if message["role"] == "assistant" and i >= after]
    spans = [_reply_span(tokenizer, marked, number, text, specials, marker) for number in replies]
    edges = [spans[0][0] if after else 0, *(edge for span in spans for edge in span), len(text)]
    ids, mask = [], []
    for i, (start, end) in enumerate(pairwise(edges)):
        piece = _encode_marked(tokenizer, text[start:end], specials, marker)
        ids.append(piece)
        said = i % 2 == 1  # between the two edges of a span: the assistant's words
        mask.append(np.full(len(piece), said and messages[replies[i // 2]].get("weight") != 0))
    return np.concatenate(ids), np.concatenate(mask)


def _reply_span(
    tokenizer: Tokenizer, messages: Sequence[Message], number: int, text: str, specials: re.Pattern[str], marker: str
) -> tuple[int, int]:
    """Where in `text` the reply `messages[number]` begins, and where the token that ends it ends.

    It begins after what the template renders of the messages before it with a generation prompt; that is also where
    generation begins.
    """
    before = _render(tokenizer, messages[:number], add_generation_prompt=True)
    upto = _render(tokenizer, messages[: number + 1], add_generation_prompt=False)
    if not (upto.startswith(before) and text.startswith(upto)):
        raise DataError(
            f"the chat template renders message {number + 1} differently when it is the last: "
            "where the reply begins and ends cannot be told",
            "Use a template that renders each message the same wherever it stands, such as chatml.",
        )
    if before == _render(tokenizer, messages[:number], add_generation_prompt=False):
        probe = [*messages[:number], {**messages[number], "content": marker}]
        header, found_marker, _ = _render(tokenizer, probe, add_generation_prompt=False)[len(before) :].partition(
            marker
        )
        if found_marker and header.strip():  # the model would have to say it before each reply
            raise DataError(
                f"the chat template writes {header!r} before a reply, but not when it is asked for one",
                "Let it write that where add_generation_prompt is true, as the templates of seedbed do.",
            )
    ends = [
        found
        for found in specials.finditer(upto, len(before))
        if tokenizer.special_ids[found.group()] in tokenizer.end_ids
    ]
    if not ends:
        raise DataError(
            f"the chat template does not end the reply in message {number + 1} with a token that ends generation",
            "A model trained on it would never stop: let the template write {{ eos_token }} after a reply.",
        )
    if not upto[len(before) : ends[0].start()].strip(marker):
        raise DataError(
            f"message {number + 1} is an empty reply of the assistant once the chat template has trimmed it"
        )
    return len(before), ends[-1].end()


def _encode_marked(tokenizer: Tokenizer, text: str, specials: re.Pattern[str], marker: str) -> NDArray[np.uint32]:
    """The ids of a rendered text: special tokens as such, all between them as plain text without markers."""
    ids: list[NDArray[np.uint32]] = []
    at = 0
    for found in specials.finditer(text):
        ids.append(tokenizer.encode_batch([text[at : found.start()].replace(marker, "")])[0])
        ids.append(np.array([tokenizer.special_ids[found.group()]], dtype=np.uint32))
        at = found.end()
    ids.append(tokenizer.encode_batch([text[at:].replace(marker, "")])[0])
    return np.concatenate(ids)


def _free_marker(messages: Sequence[Message]) -> str:
    """A character that occurs nowhere in the conversation."""
    everything = json.dumps(list(messages), ensure_ascii=False, default=str)
    for marker in _MARKERS:
        if marker not in everything:
            return marker
    raise DataError("the conversation holds all the noncharacters U+FDD0 to U+FDEF: it is not text")


def _mark(value: Any, specials: re.Pattern[str], names: tuple[str, ...], marker: str) -> Any:
    """The same message with a marker inside the name of every special token in its texts, which is a special token no
    more; also where a name could be completed by the text the template puts before or after."""
    if isinstance(value, Mapping):
        return {key: _mark(item, specials, names, marker) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(item, specials, names, marker) for item in value]
    if not isinstance(value, str):
        return value
    while specials.search(value):  # one name may overlap the next, as "ab" and "bc" in "abc"
        value = specials.sub(lambda found: found.group()[0] + marker + found.group()[1:], value)
    # Inside the outer spaces, so that a template which trims or looks at the first character sees what it would have.
    core = value.strip()
    lead = len(value) - len(value.lstrip())
    if any(core.endswith(name[:cut]) for name in names for cut in range(1, len(name))):
        value = value[: lead + len(core)] + marker + value[lead + len(core) :]
    if any(core in name or core.startswith(name[cut:]) for name in names for cut in range(1, len(name))):
        value = value[:lead] + marker + value[lead:]
    return value


@lru_cache(maxsize=16)
def _special_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _render(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    if tokenizer.chat_template is None:
        raise ConfigError("this tokenizer has no chat template", "Give one with --template, such as chatml.")
    return render_template(
        tokenizer.chat_template,
        messages=list(messages),
        tools=None,
        documents=None,
        add_generation_prompt=add_generation_prompt,
        **tokenizer.named_specials(),
    )
