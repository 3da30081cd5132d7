"""Conversations in files (`rows` says which), in the shapes people have them. A row is one of:

    {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}, …]}
    {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]}     (ShareGPT)
    {"prompt": …, "response": … or "completion": …}        (each a text, or messages)
    {"question": …, "answer": …}
    {"instruction": …, "input": …, "output": …}            (Alpaca; "input" may be missing or empty)
    {"text": …}                                            (no conversation: all is learned; also "content", …)
    {"message_id": …, "parent_id": …, "role": …, "text": …, "rank": …}                     (Open Assistant)

A "system" text beside them comes first. Rows of Open Assistant are the messages of trees: each tree becomes one
conversation, which follows the best answer from its root on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from seedbed.data.messages import (
    ANSWERS,
    TEXTS,
    TURNS,
    Messages,
    answer_of,
    first_key,
    pair_of,
    prompt_of,
    row_of,
    text_of,
    turns_of,
    with_system,
)
from seedbed.data.rows import naming, numbered_rows, row_name
from seedbed.data.trees import is_tree_message, read_trees
from seedbed.errors import DataError
from seedbed.tokenizers.chat import Encoded, encode_conversation
from seedbed.tokenizers.tokenizer import Tokenizer

SHAPES = (
    "A row is {messages: [{role, content}, …]}, {conversations: [{from, value}, …]}, {prompt, response or completion}, "
    "{question, answer}, {instruction, input, output} or {text}."
)


PREFERENCES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
"""Fields of the better and the worse answer: trl's and OpenAI's."""


@dataclass(frozen=True)
class Conversation:
    """One row of a file: who said what."""

    messages: Messages
    row: int
    """Its number in the file, from 1, for messages to people."""

    def encode(self, tokenizer: Tokenizer) -> Encoded:
        """Its ids; what the assistant says is learned. Raises DataError where nothing is to be learned."""
        return encode_conversation(tokenizer, self.messages)


@dataclass(frozen=True)
class PlainText:
    """A row that is no conversation."""

    text: str
    row: int

    def encode(self, tokenizer: Tokenizer) -> Encoded:
        """Its ids between <s> and </s>, as in pretraining; all are learned but the first, which nothing precedes."""
        has_start, has_end = tokenizer.bos_id is not None, tokenizer.eos_id is not None
        ids = np.array(tokenizer.encode(self.text, bos=has_start, eos=has_end), dtype=np.uint32)
        if len(ids) < 2:
            raise DataError("the text is one token: nothing in it can be predicted")
        return ids, np.arange(len(ids)) > 0


Example = Conversation | PlainText
"""What fine-tuning learns from."""


def read_conversations(path: Path | str) -> Iterator[Example]:
    """The conversations of a file, in order.

    Raises DataError naming the file, the row and what is wrong with it; also for a file without any row, or that cannot
    be read. A broken compressed stream is a CorruptionError.
    """
    path = Path(path)
    rows = numbered_rows(path)
    head = next(rows, None)
    if head is None:
        raise DataError(f"{path} holds no conversation", SHAPES)
    rows = chain([head], rows)
    if is_tree_message(head[1]):
        for number, messages in read_trees(path, rows):
            yield Conversation(messages, number)
        return
    for number, value in rows:
        with naming(row_name(path, number)):
            conversation = _conversation(row_of(value), number)
        yield conversation


def _conversation(row: dict[str, Any], number: int) -> Example:
    if turns := first_key(row, TURNS):
        _refuse_judgement(row, turns)
        return Conversation(with_system(row, turns_of(row, turns)), number)
    pair = pair_of(row)
    if pair is None or pair[1] not in row:
        _refuse_preference(row)
    if pair:
        asked, answer = pair
        if answer not in row:
            answers = " or ".join(ANSWERS[asked])
            raise DataError(f"it has {asked}, but no answer to it in {answers}; its keys: {_keys(row)}", SHAPES)
        _refuse_judgement(row, answer)
        return Conversation([*prompt_of(row, asked), *answer_of(row, answer)], number)
    if "role" not in row and (text := first_key(row, TEXTS)):  # else it is one turn, without those around it
        return PlainText(text_of(row, text), number)
    raise DataError(
        f"it has neither messages nor prompt, question, instruction or text; its keys: {_keys(row)}", SHAPES
    )


def _refuse_preference(row: dict[str, Any]) -> None:
    better = next((names[0] for names in PREFERENCES if row.keys() >= set(names)), None)
    if better:
        raise DataError(
            f"it is a preference between two answers; fine-tuning learns from one. Its keys: {_keys(row)}",
            f"To teach the better answers, write rows of what {better} holds: {{prompt, response}}, or {{messages}} "
            "where it is a whole conversation. To learn from preferences: seedbed dpo.",
        )


def _refuse_judgement(row: dict[str, Any], answer: str) -> None:
    if answer in ("completion", "response", *TURNS) and isinstance(row.get("label"), bool):
        raise DataError(
            f"it is a judgement ({answer} with label): unwanted answers would be learned like wanted ones",
            "Keep the rows whose label is true, without the label. To learn from judgements: seedbed kto.",
        )


def _keys(row: dict[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "none"
