"""Reading conversations in the shapes people have them."""

from __future__ import annotations

import json

import pytest
import zstandard

from seedbed.data.conversations import Conversation, PlainText, read_conversations
from seedbed.errors import CorruptionError, DataError
from seedbed.tokenizers.bytes import build

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
ROWS = [
    CHAT | {"skill": "greeting"},
    {"prompt": "1+1", "response": "2", "id": 7},
    {"instruction": "Spell it.", "input": "kat", "output": "cat"},
    {"instruction": "Say hi.", "input": "", "output": "hi"},
    {"instruction": "Say ho.", "output": "ho", "source": None},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "messages": None},
    {"conversation": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "model": "x"},
    {"prompt": "a", "completion": "b"},
    {"question": "a", "answer": "b", "system": "c"},
    {"prompt": CHAT["messages"] + [{"role": "user", "content": "a"}], "completion": CHAT["messages"][1:]},
    {"text": "Once."},
    {"instruction": "a", "output": "b", "text": "a b", "system": ""},
    {"markdown": "Twice.", "text": None},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "model", "content": "Hello"}]},
    {"prompt": "no answer", "question": "a", "answer": "b"},
    {"prompt": "a", "completion": "b", "label": "news", "chosen": 1},
    {
        "messages": [
            {"role": "developer", "content": "c"},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "b"}]},
        ]
    },
]


def pair(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


SPELL = {"role": "user", "content": "Spell it.\n\nkat", "instruction": "Spell it.", "input": "kat"}
EXPECTED = [
    Conversation(pair("Hi", "Hello"), 1),
    Conversation(pair("1+1", "2"), 2),
    Conversation([SPELL, {"role": "assistant", "content": "cat"}], 3),
    Conversation(pair("Say hi.", "hi"), 4),
    Conversation(pair("Say ho.", "ho"), 5),
    Conversation(pair("Hi", "Hello"), 6),
    Conversation(pair("Hi", "Hello"), 7),
    Conversation(pair("a", "b"), 8),
    Conversation([{"role": "system", "content": "c"}, *pair("a", "b")], 9),
    Conversation([*pair("Hi", "Hello"), *pair("a", "Hello")], 10),
    PlainText("Once.", 11),
    Conversation(pair("a", "b"), 12),
    PlainText("Twice.", 13),
    Conversation(pair("Hi", "Hello"), 14),
    Conversation(pair("a", "b"), 15),
    Conversation(pair("a", "b"), 16),
    Conversation([{"role": "system", "content": "c"}, *pair("a", "b\nb")], 17),
]
PICTURE = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "x"}}]
CALL = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_each_shape_is_read(tmp_path):
    (tmp_path / "chat.jsonl").write_bytes(lines(ROWS))
    assert list(read_conversations(tmp_path / "chat.jsonl")) == EXPECTED


def test_a_json_file_may_hold_one_conversation(tmp_path):
    (tmp_path / "chat.json").write_text(json.dumps(CHAT))
    assert list(read_conversations(tmp_path / "chat.json")) == EXPECTED[:1]


def test_the_roles_of_sharegpt_are_ours(tmp_path):
    said = {"system": "a", "human": "b", "gpt": "c", "tool": "d", "function": "e", "assistant": "f", "user": "g"}
    turns = [{"from": name, "value": text, "weight": None} for name, text in said.items()]
    (tmp_path / "chat.jsonl").write_bytes(lines([{"conversations": turns, "system": "not this"}]))
    (conversation,) = read_conversations(tmp_path / "chat.jsonl")
    roles = ["system", "user", "assistant", "tool", "tool", "assistant", "user"]
    assert conversation.messages == [{"role": r, "content": t} for r, t in zip(roles, said.values(), strict=True)]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("text", "an object is needed, got a text"),
        (None, "got null"),
        ({"words": "x"}, "neither messages nor prompt, question, instruction or text; its keys: 'words'"),
        ({"role": "user", "content": "x"}, "neither messages nor prompt.* its keys: 'role', 'content'"),
        ({"text": ""}, "text is empty"),
        ({"text": ["x"]}, "text must be a text, got a list"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "message 1 has the role 'alien'"),
        ({"conversations": [{"from": "gpt"}]}, r"message 1 \(assistant\) needs a text"),
        (
            {"question": "a", "response": "b"},
            "it has question, but no answer to it in answer; its keys: 'question', 'r",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "it is a preference between two answers"),
        ({"chosen": CHAT["messages"], "rejected": CHAT["messages"]}, "it is a preference between two answers"),
        ({"input": CHAT, "preferred_output": [], "non_preferred_output": []}, "it is a preference between two answers"),
        ({"prompt": "a", "completion": "b", "label": False}, "it is a judgement"),
        ({"prompt": "a", "response": "b", "label": False}, "it is a judgement"),
        ({**CHAT, "label": False}, "it is a judgement"),
        (
            {"messages": [{"role": "user", "content": PICTURE}]},
            r"message 1 \(user\) holds a part of the type 'image_url'",
        ),
        ({"messages": [{"role": "user", "content": []}]}, r"message 1 \(user\) needs a text"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": CALL}]}, r"says nothing but calls a tool"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}, "message 1 has the weight 0.5"),
        ({"prompt": CHAT["messages"], "response": "b"}, "prompt ends with a message of the assistant"),
        ({"prompt": "a", "completion": CHAT["messages"]}, "completion must begin and end with a message of the assist"),
        ({"prompt": "a", "response": "b", "system": 3}, "system must be a text, got 3"),
        ({}, "its keys: none"),
        ({"prompt": "a"}, "it has prompt, but no answer to it in response or completion; its keys: 'prompt'"),
        ({"prompt": "a", "response": 3}, "response must be a text, got 3"),
        ({"prompt": "", "response": "b"}, "prompt is empty"),
        ({"instruction": "a", "input": [], "output": "b"}, "input must be a text, got a list"),
        ({"instruction": "a", "output": ""}, "output is empty"),
        ({"messages": "hi"}, "messages must be a list, got a text"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user"}]}, r"message 1 \(user\) needs a text"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "message 1 is an empty reply"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "message 1 has the role 'narrator'"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_bad_row_is_named_with_what_is_wrong(tmp_path, row, problem, suffix):
    path = tmp_path / f"chat.{suffix}"
    path.write_bytes(json.dumps([CHAT, row]).encode() if suffix == "json" else lines([CHAT, row]))
    with pytest.raises(DataError, match=rf"chat\.{suffix}, row 2: .*{problem}"):
        list(read_conversations(path))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b"", "not valid JSON"),
        ("a.json", b"[]", "holds no conversation"),
        ("a.json", b"3", "row 1: an object is needed, got 3"),
        ("a.json", b"\xff\xfe", "not valid JSON"),
        ("a.jsonl", b"", "holds no conversation"),
        ("a.jsonl", b"\x00\x01\n", "row 1: not valid JSON"),
        ("a.jsonl", lines([CHAT]) + b"\n" + lines([CHAT]), "row 2: not valid JSON"),
        ("a.tab", b"x", "holds no rows by its name"),
        ("a.csv", b"", "holds no conversation"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        list(read_conversations(tmp_path / name))
    assert name in caught.value.problem


def test_what_datasets_has_saved_to_disk_is_told_how_to_become_rows(tmp_path):
    for name in ("dataset_info.json", "state.json", "data-00000-of-00001.arrow"):
        (tmp_path / name).write_text("{}")
    for path in (tmp_path, tmp_path / "data-00000-of-00001.arrow"):
        with pytest.raises(DataError, match=r"load_from_disk\(FOLDER\)\.to_parquet\(FILE\)"):
            list(read_conversations(path))


def test_of_a_folder_its_files_of_rows_are_named(tmp_path):
    with pytest.raises(DataError, match="is a folder; files of rows are needed here\nKnown are"):
        list(read_conversations(tmp_path))
    for name in ("b.parquet", "a.jsonl.zst", "c.csv", "d.JSON", "manifest.json", "x.txt"):
        (tmp_path / name).touch()
    with pytest.raises(
        DataError,
        match=r"Give one of the 4 in it \(a.jsonl.zst, b.parquet, c.csv …\), or several as .*/\*\.jsonl\.zst'",
    ):
        list(read_conversations(tmp_path))


def test_missing_and_cut_off_files_are_told(tmp_path):
    with pytest.raises(DataError, match=r"hub:a/b is not there; (.|\n)*hf download"):
        list(read_conversations("hub:a/b"))
    for name in ("none.json", "none.jsonl", "none.jsonl.zst"):
        with pytest.raises(DataError, match=f"cannot read .*{name}"):
            list(read_conversations(tmp_path / name))
    (tmp_path / "cut.jsonl.zst").write_bytes(zstandard.compress(lines(ROWS))[:-5])
    with pytest.raises(CorruptionError, match="cut off"):
        list(read_conversations(tmp_path / "cut.jsonl.zst"))


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (b"[" * 900 + b"]" * 900, "nested more than 100 deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested more than 100 deep"),
        (b'"\\ud800"', "it holds U+D800, half of a character"),
        (b'{"\\uDFFF": 1}', "it holds U+DFFF, half of a character"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_rows_that_no_loop_can_follow_or_no_file_hold_are_refused(tmp_path, name, extra, said):
    row = json.dumps(CHAT).encode()[:-1] + b', "extra": ' + extra + b"}"
    (tmp_path / name).write_bytes(row if name.endswith("l") else b"[" + row + b"]")
    with pytest.raises(DataError) as caught:
        list(read_conversations(tmp_path / name))
    assert said in caught.value.problem


def test_brackets_in_a_text_and_whole_pairs_of_surrogates_are_text(tmp_path):
    row = {"prompt": "[{" * 900, "response": "\U0001f333"}
    (tmp_path / "a.jsonl").write_bytes(lines([row]))
    assert next(read_conversations(tmp_path / "a.jsonl")).messages == pair(row["prompt"], row["response"])


# Plain text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("specials", [True, False])
def test_of_plain_text_all_is_learned_but_what_nothing_precedes(specials):
    tokenizer = build(specials=specials)
    ids, mask = PlainText("Hé", 1).encode(tokenizer)
    assert tokenizer.decode(ids, skip_special=False) == ("<s>Hé</s>" if specials else "Hé")
    assert mask.tolist() == [False] + [True] * (len(ids) - 1)


def test_a_text_of_one_token_teaches_nothing():
    with pytest.raises(DataError, match="nothing in it can be predicted"):
        PlainText("a", 1).encode(build(specials=False))
