"""Text comes out of every kind of file as it went in, and what is not text is refused by name and line."""

from __future__ import annotations

import json
import os
import re

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data import sources
from seedbed.data.sources import Document, paragraph_boundary, read_documents
from seedbed.errors import DataError

TEXTS = ["One.\n\nTwo — näh 木 🌱\r\n", "", "three"]


def write(path, texts):
    """A file of any kind with these texts."""
    rows = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts).encode()
    if path.name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"n": [1] * len(texts), "text": texts}), path)
    elif path.name.endswith(".zst"):
        half = len(rows) // 2  # two frames, as `cat` joins files
        path.write_bytes(zstandard.compress(rows[:half]) + zstandard.compress(rows[half:]))
    else:
        path.write_bytes(rows)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet", "ä b.JSONL"])
def test_rows_come_back_as_they_were_written(tmp_path, name):
    path = write(tmp_path / name, TEXTS)
    assert list(read_documents(path)) == [Document(text, f"{name}:{i}") for i, text in enumerate(TEXTS, 1)]
    assert list(read_documents(str(path))) == list(read_documents(path))


@pytest.mark.parametrize("name", ["a.txt", "a.md", "ä b.TXT"])
def test_a_text_file_is_one_document_byte_for_byte(tmp_path, name):
    (tmp_path / name).write_bytes(TEXTS[0].encode())
    assert list(read_documents(tmp_path / name)) == [Document(TEXTS[0], name)]


def test_a_byte_order_mark_is_not_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "row"}\n')
    assert [document.text for document in read_documents(tmp_path)] == ["text", "row"]


def test_blank_lines_between_rows_are_passed_over_but_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"text": "row"}\n  \n\n')
    assert list(read_documents(tmp_path / "a.jsonl")) == [Document("row", "a.jsonl:2")]


def test_a_folder_is_read_by_name_through_links_without_hidden_and_foreign_files(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("2")
    (tmp_path / "a.md").write_text("1")
    (tmp_path / "c.jsonl").write_text('{"text": "3"}')
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("x")
    elsewhere = tmp_path / ".elsewhere.txt"
    elsewhere.write_text("4")
    (tmp_path / "d.txt").symlink_to(elsewhere)
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    found = [(document.text, document.name) for document in read_documents(tmp_path)]
    assert found == [("1", "a.md"), ("2", "b/two.txt"), ("3", "c.jsonl:1"), ("4", "d.txt")]


def test_the_standard_library_is_there_without_its_tests():
    documents = list(read_documents("stdlib"))
    names = [document.name for document in documents]
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    assert names == [document.name for document in read_documents("stdlib")]
    assert not [name for name in names if re.search(r"(^|/)(tests?|site-packages|idlelib|lib2to3|__pycache__)/", name)]
    assert sum(len(document.text) for document in documents) > 5_000_000


def test_without_a_standard_library_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="--source PATH"):
        list(read_documents("stdlib"))


BAD = {
    "wrong.txt": (b"line one\nline \xff two", "line 2: the byte 0xff is not UTF-8"),
    "cut.txt": ("ends in half a tree 🌱".encode()[:-1], "line 1: the byte 0xf0 is not UTF-8"),
    "nul.txt": (b"one\ntwo\nthr\0ee", "line 3: a NUL byte"),
    "utf16.txt": ("text".encode("utf-16"), "line 1: the byte 0xff"),
    "garbage.bin": (os.urandom(64), "is of no kind that can be read"),
    "no_ending": (b"text", "is of no kind that can be read"),
    "empty.txt": (b"", "is empty"),
    "blank.txt": (b" \n\n ", "is empty"),
    "empty.jsonl": (b"", "is empty"),
    "empty.jsonl.zst": (b"", "is cut off"),
    "blank.jsonl": (b'{"text": " "}\n', "is empty"),
    "cut.jsonl": (b'{"text": "a"}\n{"text": "b', "line 2: not valid JSON"),
    "list.jsonl": (b'["a"]\n', "line 1: a JSON object .* not a list"),
    "key.jsonl": (b'{"text": "a"}\n{"txt": "b"}\n', r'line 2: there is no "text" in this row \(it has txt\)'),
    "null.jsonl": (b'{"text": null}\n', 'line 1: "text" must be a text, not null'),
    "number.jsonl": (b'{"text": 1}\n', 'line 1: "text" must be a text, not a number'),
    "nul.jsonl": (b'{"text": "a\\u0000"}\n', 'line 1: "text" holds a NUL'),
    "surrogate.jsonl": (b'{"text": "a\\ud800"}\n', r"line 1: not valid JSON \(it holds U\+D800"),
    "wrong.jsonl": (b'{"text": "a"}\n{"text": "\xe4"}\n', "line 2: the byte 0xe4 is not UTF-8"),
    "deep.jsonl": (b'{"text": ' + b"[" * 200_000 + b"\n", "line 1: not valid JSON"),
    "garbage.jsonl.zst": (b"not compressed at all", "is broken"),
    "cut.jsonl.zst": (zstandard.compress(b'{"text": "a"}\n' * 9)[:-3], "is cut off"),
    "garbage.parquet": (b"PAR1 not really PAR1", "is not a Parquet file"),
    "empty.parquet": (b"", "is not a Parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_text_is_refused_with_its_name_and_line(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}.*{message}") as raised:
        list(read_documents(path))
    assert "\n" not in raised.value.problem


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_characters_cut_by_the_end_of_a_block_are_whole_and_errors_keep_their_line(tmp_path, monkeypatch, block):
    monkeypatch.setattr(sources, "BLOCK", block)
    (tmp_path / "a.txt").write_bytes(TEXTS[0].encode())
    assert [document.text for document in read_documents(tmp_path / "a.txt")] == [TEXTS[0]]
    for name in ("wrong.txt", "cut.txt", "nul.txt"):
        content, message = BAD[name]
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            list(read_documents(tmp_path / name))


def test_parquet_without_texts_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"content": ["x"]}), path)
    with pytest.raises(DataError, match=r'no column "text" \(it has content\)'):
        list(read_documents(path))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", None]}), path)
    with pytest.raises(DataError, match=r'row 2: "text" must be a text, not null'):
        list(read_documents(path))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * 1000] * 500}), path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="is not a Parquet file"):
        list(read_documents(path))


def test_what_is_not_there_or_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere.txt: No such file"):
        list(read_documents(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match=r"No such file.*\nA source is `stdlib`, a file or a folder"):
        list(read_documents("stdlb"))
    with pytest.raises(DataError, match="holds no files that can be read"):
        list(read_documents(tmp_path))
    (tmp_path / "link.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"link.txt"):
        list(read_documents(tmp_path))
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe.txt is neither a file nor a folder"):
        list(read_documents(tmp_path / "pipe.txt"))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_long_document_is_cut_at_paragraphs_and_nothing_is_lost(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "LONGEST_DOCUMENT", 1000)
    monkeypatch.setattr(sources, "BLOCK", 300)
    text = "".join(f"Paragraph {i} has its words.\n\n" for i in range(300))
    (tmp_path / name).write_text(text if name.endswith("txt") else json.dumps({"text": text}))
    documents = list(read_documents(tmp_path / name))
    assert "".join(document.text for document in documents) == text
    assert len(documents) > 3 and max(len(document.text) for document in documents) <= 2000
    assert all(document.text.startswith("Paragraph") and document.text.endswith("\n\n") for document in documents)
    where = name if name.endswith("txt") else f"{name}:1"
    assert [document.name for document in documents] == [f"{where}#{i}" for i in range(1, len(documents) + 1)]


@given(st.text(st.sampled_from("ab \n\r\t."), min_size=2), st.integers(-5, 500))
def test_a_cut_is_always_inside(text, near):
    assert 0 < paragraph_boundary(text, near) < len(text)


def test_a_cut_prefers_blank_lines_then_lines_then_words():
    assert paragraph_boundary("a" * 40 + "\n\n" + "b" * 40, 41) == 42
    assert paragraph_boundary("a" * 40 + "\r\n\r\n" + "b" * 40, 41) == 44
    assert paragraph_boundary("a a" * 20 + "\n" + "b b" * 20, 60) == 61
    assert paragraph_boundary("word " * 10, 22) in (20, 25)
    assert paragraph_boundary("a" * 100, 37) == 37


def test_a_name_that_is_not_utf8_is_named_with_what_to_do(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "w") as file:
        file.write("text")
    with pytest.raises(DataError, match=r"caf\\xe9\.txt is not UTF-8") as raised:
        list(read_documents(tmp_path))
    assert raised.value.fix == "Rename that file."
