"""What the quickstart fine-tunes on: single questions, and conversations of several."""

from __future__ import annotations

import json
from collections import Counter

from seedbed.configuration import from_arguments
from seedbed.data.conversations import read_conversations
from seedbed.data.skills import SkillItem, held_out_items, training_items
from seedbed.quickstart.questions import MOST, ROW, conversations, tokens_of, write_conversations
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.chat import encode_conversation
from seedbed.tuning.config import FinetuneConfig


def test_every_question_is_asked_once_and_about_a_third_of_the_conversations_ask_several():
    items = list(training_items(3000, seed=1))
    made = list(conversations(items, seed=1))
    assert Counter(item for asked in made for item in asked) == Counter(items)
    assert 0.25 < sum(len(asked) > 1 for asked in made) / len(made) < 0.35
    assert {len(asked) for asked in made} == set(range(1, MOST + 1))
    assert list(conversations(items, seed=1)) == made != list(conversations(items, seed=2))


def test_no_conversation_is_longer_than_a_row_of_the_preset(tmp_path):
    """Counted as fine-tuning encodes them, and both sides of every one are there."""
    path = tmp_path / "c.jsonl"
    write_conversations(path, [*training_items(300), *held_out_items(20)], seed=0)
    tokenizer = byte_tokenizer.build()
    lengths = []
    for conversation in read_conversations(path):
        ids, mask = encode_conversation(tokenizer, conversation.messages)
        said = "".join(m["content"] + "<|im_end|>" for m in conversation.messages if m["role"] == "assistant")
        assert tokenizer.decode(ids[mask].tolist(), skip_special=False) == said
        assert len(conversation.extra["skills"]) == len(conversation.messages) / 2
        lengths.append(len(ids))
    preset = ["--config=finetune/quickstart", "--model=m", "--data=d", "--out=o"]
    assert max(lengths) <= ROW == from_arguments(FinetuneConfig, preset).length
    with path.open() as lines:
        texts = [[m["content"] for m in json.loads(line)["messages"]] for line in lines]
    asked = [[SkillItem("", "", *pair) for pair in zip(t[::2], t[1::2], strict=True)] for t in texts]
    assert [tokens_of(items) for items in asked] == lengths


def test_a_question_too_long_to_share_a_row_stands_alone():
    items = [SkillItem("copying", str(i), "x" * 50, "y" * 30) for i in range(40)]
    assert {len(asked) for asked in conversations(items, seed=0)} == {1}
