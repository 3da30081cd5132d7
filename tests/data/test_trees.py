"""Open Assistant's trees become the conversations their best answers make."""

from __future__ import annotations

import json
import random

import pytest

import seedbed.data.trees as room
from seedbed.data.conversations import Conversation, read_conversations
from seedbed.errors import DataError


def say(id, parent, text, *, rank=None, role=None, **more):
    role = role or ("assistant" if text.isupper() else "prompter")
    return {"message_id": id, "parent_id": parent, "role": role, "text": text, "rank": rank, "lang": "en", **more}


TREES = [
    say("1", None, "hi"),
    say("2", "1", "WORSE", rank=1.0),
    say("3", "1", "BEST", rank=0.0),
    say("4", "1", "UNRANKED"),
    say("5", "3", "and then"),
    say("6", "5", "GONE", rank=0, deleted=True),
    say("7", "5", "THIS", rank=1),
    say("8", "7", "nobody answered"),
    say("9", None, "lonely"),
    say("10", None, "equals"),
    say("11", "10", "FIRST"),
    say("12", "10", "SECOND"),
]


def read(tmp_path, rows):
    (tmp_path / "trees.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_conversations(tmp_path / "trees.jsonl"))


def chat(*texts):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, texts, strict=False)]


def test_a_tree_becomes_its_best_branch_up_to_the_last_answer(tmp_path):
    expected = [Conversation(chat("hi", "BEST", "and then", "THIS"), 1), Conversation(chat("equals", "FIRST"), 10)]
    assert read(tmp_path, TREES) == expected


def test_the_order_of_the_rows_does_not_matter_where_ranks_decide(tmp_path):
    rows = TREES[:9]
    random.Random(1).shuffle(rows)
    assert [conversation.messages for conversation in read(tmp_path, rows)] == [chat("hi", "BEST", "and then", "THIS")]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([*TREES, say("3", None, "x")], "row 13: its message_id '3' is also that of row 3"),
        ([*TREES, say("20", "19", "X")], "row 13: its parent '19' is not in the file"),
        ([*TREES, {"message_id": "20", "role": "prompter"}], "row 13: text must be a text, got nothing"),
        ([*TREES, say("20", "1", "X", rank="best")], "row 13: rank must be a number, got a text"),
        ([*TREES, {"prompt": "a", "response": "b"}], "row 13: "),
        ([say("1", None, "a", role="robot"), say("2", "1", "B")], "row 1: message 1 has the role 'robot'"),
        ([say("1", None, "a")], "in none does an assistant answer"),
    ],
)
def test_a_tree_that_is_none_is_named(tmp_path, rows, problem):
    with pytest.raises(DataError, match=problem):
        read(tmp_path, rows)


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_MESSAGES", 11)
    with pytest.raises(DataError, match="row 12: trees of more than 11 messages"):
        read(tmp_path, TREES)
