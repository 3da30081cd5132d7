"""Text comes out of every kind of file as it went in, and what is not text is a reject that says why."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import random
import re
import sys

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.config import ReadingConfig
from seedbed.data.sources import files
from seedbed.data.sources.blocks import read_blocks
from seedbed.data.sources.files import find_files
from seedbed.data.sources.records import Document, Reject, read_documents
from seedbed.errors import DataError

TEXTS = ["One.\n\nTwo — näh 木 🌱\r\n", "", 'three, "3"']
SQUEEZE = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


def read(source, block_bytes=1 << 20, **reading) -> list[Document | Reject]:
    config = ReadingConfig(**reading)
    return [item for block in read_blocks(str(source), config, block_bytes) for item in read_documents(block, config)]


def texts_of(source, block_bytes=1 << 20, **reading) -> list[str]:
    return [item.text for item in read(source, block_bytes, **reading)]


def csv_of(texts) -> str:
    return "n,text\r\n" + "".join('1,"{}"\r\n'.format(text.replace('"', '""')) for text in texts)


def write(path, texts):
    """A file of any kind with these texts."""
    name = path.name.lower()
    if ".parquet" in name:
        pyarrow.parquet.write_table(pyarrow.table({"n": [1] * len(texts), "text": texts}), path)
        return path
    rows = [{"text": text, "n": 1} for text in texts]
    if ".json" in name and ".jsonl" not in name:
        raw = json.dumps(rows)
    elif ".csv" in name:
        raw = csv_of(texts)
    elif ".tsv" in name:
        raw = csv_of(texts).replace("n,text", "n\ttext").replace('1,"', '1\t"')
    else:
        raw = "".join(json.dumps(row) + "\n" for row in rows)
    data = raw.encode()
    squeeze = SQUEEZE.get(path.suffix)
    half = len(data) // 2  # two members, as `cat` joins files
    path.write_bytes(squeeze(data[:half]) + squeeze(data[half:]) if squeeze else data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl",
        "a.ndjson",
        "a.jsonl.zst",
        "a.jsonl.gz",
        "a.jsonl.bz2",
        "a.json",
        "a.json.gz",
        "a.parquet",
        "ä b.JSONL",
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 20])
def test_rows_come_back_as_they_were_written(tmp_path, name, block_bytes):
    path = write(tmp_path / name, TEXTS)
    assert read(path, block_bytes) == [Document(text, f"{name}:{i}") for i, text in enumerate(TEXTS, 1)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz"])
@pytest.mark.parametrize("block_bytes", [1, 30, 1 << 20])
def test_a_table_comes_back_with_its_quotes_and_line_ends_wherever_it_is_cut(tmp_path, name, block_bytes):
    path = write(tmp_path / name, TEXTS)
    found = read(path, block_bytes)
    assert [item.text for item in found] == TEXTS
    assert [item.name for item in found] == [f"{name}:{line}" for line in (2, 6, 7)]


@given(
    texts=st.lists(st.text(st.sampled_from('ab",;\n\r ä木'), max_size=20), min_size=1, max_size=12),
    block_bytes=st.integers(1, 60),
    kind=st.sampled_from(["a.csv", "a.jsonl", "a.json", "a.parquet", "a.jsonl.gz"]),
)
def test_no_cut_into_blocks_changes_what_is_read(tmp_path_factory, texts, block_bytes, kind):
    path = write(tmp_path_factory.mktemp("p") / kind, texts)
    assert texts_of(path, block_bytes) == texts


@pytest.mark.parametrize("name", ["a.txt", "a.md", "ä b.TXT", "a.txt.gz"])
def test_a_text_file_is_one_document_byte_for_byte(tmp_path, name):
    raw = TEXTS[0].encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert read(tmp_path / name) == [Document(TEXTS[0], name)]


@given(lines=st.lists(st.text(st.sampled_from("ab 木\t"), max_size=6), max_size=20), block_bytes=st.integers(1, 40))
def test_lines_and_paragraphs_of_a_text_file_can_be_its_documents(tmp_path_factory, lines, block_bytes):
    path = tmp_path_factory.mktemp("p") / "a.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = read(path, block_bytes, documents="line")
    assert [(item.text, item.name) for item in found] == [
        (line, f"a.txt:{i}") for i, line in enumerate(lines, 1) if line.strip()
    ]
    paragraphs = [
        re.sub(r"^([ \t]*\n)+", "", part).strip("\n") for part in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines))
    ]
    found = read(path, block_bytes, documents="paragraph")
    assert [item.text for item in found] == [part for part in paragraphs if part.strip()]
    for item in found:
        assert lines[int(item.name.split(":")[1]) - 1] == item.text.split("\n")[0]


def test_a_byte_order_mark_is_not_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "row"}\n')
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbftext\ncell\n")
    assert texts_of(tmp_path) == ["text", "row", "cell"]


def test_blank_lines_between_rows_are_passed_over_but_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"text": "row"}\n  \n\n')
    assert read(tmp_path / "a.jsonl") == [Document("row", "a.jsonl:2")]


ROWS = [
    ({"text": "a", "content": "b"}, "a"),
    ({"content": "b"}, "b"),
    ({"prompt": "p", "response": "r"}, "p\n\nr"),
    ({"instruction": "i", "input": "", "output": "o"}, "i\n\no"),
    ({"instruction": "i", "input": "n", "output": "o"}, "i\n\nn\n\no"),
    ({"text": None, "instruction": "i", "input": None, "output": "o", "system": "s"}, "s\n\ni\n\no"),
    ({"prompt": "no answer", "question": "q", "answer": "a"}, "q\n\na"),
    ({"prompt": [{"role": "user", "content": "u"}], "completion": "a"}, "user: u\n\nassistant: a"),
    ({"system": "s", "messages": [{"from": "human", "value": "u"}]}, "system: s\n\nuser: u"),
    ({"system": "", "messages": [{"role": "prompter", "content": "u"}]}, "user: u"),
    ({"system": "s", "messages": [{"role": "system", "content": "t"}]}, "system: t"),
    ({"messages": []}, ""),
    (
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]},
        "user: u\n\nassistant: a",
    ),
    ({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}, "user: u\n\nassistant: a"),
]


@pytest.mark.parametrize(("row", "text"), ROWS)
def test_the_text_of_a_row_is_found(tmp_path, row, text):
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "other": b"\xff"}]), tmp_path / "b.parquet")
    assert texts_of(tmp_path) == [text, text]


def test_a_field_can_be_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "body": "b"}\n{"text": "c"}')
    found = read(tmp_path / "a.jsonl", text_field="body")
    assert found[0].text == "b" and found[1].reason == "no text field"


def test_a_json_file_may_hold_one_array_in_an_object_or_one_row(tmp_path):
    (tmp_path / "a.json").write_text('{"data": [{"text": "a"}]}')
    (tmp_path / "b.json").write_text('{"text": "b"}')
    assert texts_of(tmp_path) == ["a", "b"]


def test_a_json_file_may_hold_a_row_a_line(tmp_path):
    (tmp_path / "a.json").write_text('{"text": "a"}\n{"text": "b"}\n[1]\n')
    first, second, bad = read(tmp_path / "a.json")
    assert (first.text, second.text, bad.reason) == ("a", "b", "not an object")


def test_the_main_text_of_a_page_is_taken(tmp_path):
    pytest.importorskip("trafilatura")
    story = "<p>" + "The seed lies in dark soil and waits for the rain of spring. " * 5 + "</p>"
    menu = "<nav><a href='/'>Home</a><a href='/x'>Imprint</a></nav>"
    (tmp_path / "a.html").write_text(f"<html><body>{menu}<article><h1>A tree</h1>{story}</article></body></html>")
    (tmp_path / "b.html").write_text("<html></html>")
    page, empty = read(tmp_path)
    assert "waits for the rain" in page.text and "Imprint" not in page.text
    assert empty.reason == "no text in HTML"


def test_standard_input_is_rows_or_text(tmp_path, monkeypatch):
    for raw, texts in ((b'{"text": "a"}\n{"text": "b"}', ["a", "b"]), (b"plain\ntext", ["plain\ntext"])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        assert texts_of("-") == texts


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
    found = [(document.text, document.name) for document in read(tmp_path)]
    assert found == [("1", "a.md"), ("2", "b/two.txt"), ("3", "c.jsonl:1"), ("4", "d.txt")]


def test_a_glob_is_a_source_in_the_order_of_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.txt", "a.txt", "c.md", "[d].txt"):
        (tmp_path / name).write_text(name)
    assert texts_of("*.txt") == ["[d].txt", "a.txt", "b.txt"]
    assert texts_of("[d].txt") == ["[d].txt"]  # a file of that name comes first
    with pytest.raises(DataError, match="holds no files"):
        read("*.jsonl")


@pytest.mark.parametrize("pattern", ["**/*.txt", "**", "{here}/**/*.txt", "*/../**/b/../**/*.txt", "./**/**/*.txt"])
def test_a_recursive_glob_ends_where_links_lead_upwards_and_in_circles(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b", "b/[c] \n🌱", ".hidden"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text(folder)
        (tmp_path / folder / "up").symlink_to(tmp_path)  # Python's own glob would take 40 turns of each, and of all
        (tmp_path / folder / "here").symlink_to(tmp_path / folder)
    (tmp_path / "top.txt").write_text("top")
    found = sorted({os.path.realpath(file.path) for file in find_files(pattern.format(here=tmp_path))})
    inside = {"a/x.txt", "b/x.txt", "b/[c] \n🌱/x.txt", "top.txt"}
    assert {os.path.relpath(path, tmp_path) for path in found} == inside


def test_the_standard_library_is_there_without_its_tests():
    documents = read("stdlib")
    names = [document.name for document in documents]
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    assert not [name for name in names if re.search(r"(^|/)(tests?|site-packages|idlelib|lib2to3|__pycache__)/", name)]
    assert sum(len(document.text) for document in documents) > 5_000_000


def test_without_a_standard_library_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="--source PATH"):
        read("stdlib")


BAD = {
    "wrong.txt": (b"line one\nline \xff two", "not UTF-8", "line 2: the byte 0xff is not UTF-8"),
    "cut.txt": ("ends in half a tree 🌱".encode()[:-1], "not UTF-8", "line 1: the byte 0xf0 is not UTF-8"),
    "nul.txt": (b"one\ntwo\nthr\0ee", "NUL byte", "line 3: a NUL byte"),
    "utf16.txt": ("text".encode("utf-16"), "not UTF-8", "line 1: the byte 0xff"),
    "empty.jsonl.zst": (b"", "broken file", "is cut off"),
    "cut.jsonl": (b'{"text": "a"}\n{"text": "b', "invalid JSON", "not valid JSON"),
    "list.jsonl": (b'["a"]\n', "not an object", "a JSON object .* not a list"),
    "key.jsonl": (b'{"text": "a"}\n{"txt": "b"}\n', "no text field", r'no "text" in this row \(it has txt\)'),
    "null.jsonl": (b'{"text": null}\n', "null", '"text" must be a text, not null'),
    "number.jsonl": (b'{"text": 1}\n', "wrong type", '"text" must be a text, not 1'),
    "turn.jsonl": (b'{"messages": [{"role": "user"}]}\n', "null", '"content" must be a text, not null'),
    "turns.jsonl": (b'{"messages": ["hi"]}\n', "wrong type", "must be an object, not a text"),
    "nul.jsonl": (b'{"text": "a\\u0000"}\n', "NUL byte", '"text" holds a NUL'),
    "surrogate.jsonl": (b'{"text": "a\\ud800"}\n', "invalid JSON", r"it holds U\+D800, half of a character"),
    "wrong.jsonl": (b'{"text": "a"}\n{"text": "\xe4"}\n', "not UTF-8", "the byte 0xe4 is not UTF-8"),
    "deep.jsonl": (b'{"text": ' + b"[" * 200_000 + b"\n", "invalid JSON", "not valid JSON"),
    "garbage.jsonl.zst": (b"not compressed at all", "broken file", "is broken"),
    "garbage.txt.gz": (b"not compressed at all", "broken file", "is broken"),
    "cut.jsonl.zst": (zstandard.compress(b'{"text": "a"}\n' * 9)[:-3], "broken file", "is cut off"),
    "cut.txt.bz2": (bz2.compress(b"text" * 99)[:-3], "broken file", "is cut off"),
    "garbage.parquet": (b"PAR1 not really PAR1", "broken file", "not a Parquet file"),
    "empty.parquet": (b"", "broken file", "not a Parquet file"),
    "garbage.json": (b"[1, 2", "invalid JSON", "Expecting"),
    "numbers.json": (b"[1]", "not an object", "not 1"),
    "wrong.csv": (b"text\na\n\xe4\n", "not UTF-8", '"text" holds the byte 0xe4'),
    "short.csv": (b"n,text\n1\n", "null", '"text" must be a text, not null'),
    "key.csv": (b"n,m\n1,2\n", "no text field", "it has n, m"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_text_is_rejected_with_its_name_and_reason(tmp_path, name):
    content, reason, detail = BAD[name]
    (tmp_path / name).write_bytes(content)
    *_, bad = read(tmp_path / name)
    assert isinstance(bad, Reject) and bad.name.startswith(name)
    assert bad.reason == reason and re.search(detail, bad.detail)
    assert "\n" not in bad.detail and len(bad.excerpt) <= 200


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "lines.txt.gz"])
def test_the_whole_records_before_a_break_count_and_the_half_one_does_not(tmp_path, name):
    random.seed(0)
    texts = [random.randbytes(40).hex() for _ in range(500)]
    kind = name.split(".")[1]
    lines = {"jsonl": [f'{{"text": "{text}"}}' for text in texts], "csv": ["text", *texts], "txt": texts}[kind]
    (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode())[:-2_000])
    *good, bad = read(tmp_path / name, documents="line")
    assert 300 < len(good) < 500 and [document.text for document in good] == texts[: len(good)]
    size = len("\n".join(lines[: len(good) + (kind == "csv")])) + 1
    assert bad.reason == "broken file" and f"is cut off; only {size:,} bytes before that were read" in bad.detail


def test_a_bad_row_costs_no_other(tmp_path):
    rows = [b'{"text": "a"}', b'{"text": "\xe4"}', b'{"text": "b', b"[]", b'{"text": "c"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    (tmp_path / "b.csv").write_bytes(b'text,n\na,1\n"\xe4",2\nc,3\n')
    found = read(tmp_path)
    assert [item.text if isinstance(item, Document) else item.name for item in found] == [
        "a", "a.jsonl:2", "a.jsonl:3", "a.jsonl:4", "c", "a", "b.csv:3", "c",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.csv", "lines.txt"])
def test_a_record_too_long_is_passed_over_in_bounded_memory(tmp_path, name):
    huge, kind = "x" * (300 << 10), name.split(".")[1]
    if kind == "txt":
        (tmp_path / name).write_text(f"a\n{huge}\nb\n")
    else:
        write(tmp_path / name, ["a", huge, "b"])
    options = {"documents": "line"} if kind == "txt" else {}
    found = read(tmp_path / name, 1 << 10, longest_row=64 << 10, **options)
    assert [item.text if isinstance(item, Document) else item.reason for item in found] == ["a", "record too long", "b"]
    assert found[2].name == f"{name}:{4 if kind == 'csv' else 3}"


def test_a_quote_too_many_costs_one_line_of_a_table(tmp_path):
    rows = [f"{i},row {i}" for i in range(300)]
    rows[100] = '100,"open'
    (tmp_path / "a.csv").write_text("n,text\n" + "\n".join(rows))
    for block_bytes in (500, 1 << 20):
        found = read(tmp_path / "a.csv", block_bytes, longest_row=2000)
        texts = [item.text for item in found if isinstance(item, Document)]
        assert texts == [f"row {i}" for i in range(300) if i != 100]
        assert [item.name for item in found if isinstance(item, Reject)] == ["a.csv:102"]


@pytest.mark.parametrize(("header", "said"), [(b'"te"xt,b', "its header"), (b"t\xe9xt,b", "no text field")])
def test_a_damaged_header_is_told(tmp_path, header, said):
    (tmp_path / "a.csv").write_bytes(header + b"\n1,2\n")
    bad = read(tmp_path / "a.csv")[0]
    assert said in bad.detail or said == bad.reason
    bad.detail.encode()


def test_text_of_a_table_without_types_is_text_and_a_date_is_none(tmp_path):
    table = {"text": ["näh".encode(), b"\xff"]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    good, bad = read(tmp_path / "a.parquet")
    assert good.text == "näh" and isinstance(bad, Reject)
    for value, reason in ((0, "wrong type"), (10**15, "broken file")):
        dates = pyarrow.array([value], pyarrow.timestamp("ms"))
        pyarrow.parquet.write_table(pyarrow.table({"text": dates}), tmp_path / "b.parquet")
        assert [item.reason for item in read(tmp_path / "b.parquet")] == [reason]


def test_text_without_a_blank_line_is_one_record_too_long(tmp_path):
    (tmp_path / "a.txt").write_text("line\n" * 50_000 + " \nshort\n\nend")
    found = read(tmp_path / "a.txt", 1 << 12, longest_row=1 << 15, documents="paragraph")
    assert [item.reason if isinstance(item, Reject) else item.text for item in found] == [
        "record too long", "short", "end",
    ]  # fmt: skip


def test_what_is_not_there_or_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere.txt: No such file"):
        read(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match=r"No such file.*\nA source is a file, a folder, a glob"):
        read("stdlb")
    with pytest.raises(DataError, match="cannot read"):
        read("a\0b")
    with pytest.raises(DataError, match="holds no files that can be read"):
        read(tmp_path)
    for name in ("garbage.bin", "no_ending"):
        (tmp_path / name).write_bytes(os.urandom(64))
        with pytest.raises(DataError, match="is of no kind that can be read"):
            read(tmp_path / name)
    (tmp_path / "link.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"link.txt"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe.txt is neither a file nor a folder"):
        read(tmp_path / "pipe.txt")


def test_a_name_that_is_not_utf8_is_told(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"b\xff.txt")).write_text("x")
    except OSError:  # some file systems hold UTF-8 names only
        return
    with pytest.raises(DataError, match=r"the name of .*b\\xff.txt is not UTF-8"):
        read(tmp_path)


def test_a_long_text_file_is_cut_at_paragraphs_and_nothing_is_lost(tmp_path):
    text = "".join(f"Paragraph {i} has its words.\n\n" for i in range(300))
    (tmp_path / "a.txt").write_text(text)
    documents = read(tmp_path / "a.txt", 1000)
    assert "".join(document.text for document in documents) == text
    assert len(documents) > 3 and max(len(document.text) for document in documents) <= 1000
    assert all(document.text.startswith("Paragraph") and document.text.endswith("\n\n") for document in documents)
    assert [document.name for document in documents] == [f"a.txt#{i}" for i in range(1, len(documents) + 1)]


@given(st.text(st.sampled_from("a木🌱 \n"), min_size=1, max_size=60), st.integers(4, 30))
def test_no_cut_goes_through_a_character(tmp_path_factory, text, block_bytes):
    path = tmp_path_factory.mktemp("p") / "a.txt"
    path.write_text(text, encoding="utf-8")
    assert "".join(texts_of(path, block_bytes)) == text
