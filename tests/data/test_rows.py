"""Rows of any format are the same rows, and what is broken is named."""

from __future__ import annotations

import bz2
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from seedbed.data.rows import numbered_rows, row_files
from seedbed.errors import DataError

ROWS = [{"prompt": 'He said "no",\nor so', "response": "ä 木"}, {"prompt": "b", "response": ""}]
TABLE = b'\xef\xbb\xbfprompt,response\r\n"He said ""no"",\r\nor so",' + "ä 木".encode() + b"\r\nb,\r\n"


def contents(tmp_path):
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "made")
    files = {
        "a.json": json.dumps(ROWS, indent=1).encode(),
        "a.jsonl": b"\xef\xbb\xbf" + lines,
        "A.CSV": TABLE,
        "a.ndjson": lines,
        "a.tsv": TABLE.replace(b"prompt,", b"prompt\t").replace(b'so",', b'so"\t').replace(b"b,", b"b\t"),
        "a.parquet": (tmp_path / "made").read_bytes(),
    }
    packed = {"zst": zstandard.compress, "gz": gzip.compress, "bz2": bz2.compress}
    return files | {f"{name}.{ending}": pack(raw) for name, raw in files.items() for ending, pack in packed.items()}


PLAIN = ["a.json", "a.jsonl", "a.ndjson", "A.CSV", "a.tsv", "a.parquet"]


@pytest.mark.parametrize("name", [*PLAIN, "a.json.zst", "a.jsonl.gz", "A.CSV.bz2"])
def test_the_format_of_a_file_does_not_change_its_rows(name, tmp_path):
    (tmp_path / name).write_bytes(contents(tmp_path)[name])
    assert list(numbered_rows(tmp_path / name)) == [(1, ROWS[0]), (2, ROWS[1])]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ([{"a": [1]}], [{"a": [1]}]),
        ({"data": [{"a": 1}, {"a": 2}]}, [{"a": 1}, {"a": 2}]),
        ({"a": 1}, [{"a": 1}]),
        ({"messages": [{"role": "user", "content": "a"}]}, [{"messages": [{"role": "user", "content": "a"}]}]),
        ({"version": 1, "data": []}, [{"version": 1, "data": []}]),
        ({}, [{}]),
        (3, [3]),
    ],
)
def test_a_json_file_holds_a_list_of_rows_or_one_row(content, rows, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert [row for _, row in numbered_rows(tmp_path / "a.json")] == rows


def test_lists_of_messages_and_nulls_come_out_of_parquet_as_they_went_in(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a"}], "n": None}, {"messages": [], "n": 2}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [row for _, row in numbered_rows(tmp_path / "a.parquet")] == rows


@pytest.mark.parametrize(
    ("name", "raw", "problem"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", "row 2: it has 1 fields, the header 2"),
        ("a.csv", b'a,b\n1,"2\n', "row 1: not valid CSV"),
        ("a.csv", b"a,b\n1,2\n\xff,1\n", "row 2: not valid CSV"),
        ("a.parquet", b"PAR1 no PAR1", "not Parquet that can be read"),
        ("a.csv", b"a,b,a\n1,2,3\n", "two columns of its first line are called 'a'"),
        ("a.jsonl", b"{}\n{\n", "row 2: not valid JSON"),
        ("a.txt", b"hello", "holds no rows by its name"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(name, raw, problem, tmp_path):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=problem) as caught:
        list(numbered_rows(tmp_path / name))
    assert name in caught.value.problem


def test_a_glob_names_the_files_it_matches_by_name_and_a_file_with_such_signs_itself(tmp_path):
    for name in ("train-2.jsonl", "train-1.jsonl", "test-1.jsonl", "a[1].jsonl", "a1.jsonl"):
        (tmp_path / name).touch()
    assert row_files(tmp_path / "train-*.jsonl") == [tmp_path / "train-1.jsonl", tmp_path / "train-2.jsonl"]
    assert row_files(tmp_path / "a[1].jsonl") == [tmp_path / "a[1].jsonl"]
    assert row_files(tmp_path / "none.jsonl") == [tmp_path / "none.jsonl"]  # told by who reads it
    with pytest.raises(DataError, match=r"val-\*.jsonl matches no file"):
        row_files(tmp_path / "val-*.jsonl")


@pytest.mark.parametrize("name", ["none.json", "none.csv", "none.parquet"])
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(DataError, match=f"cannot read .*{name}"):
        list(numbered_rows(tmp_path / name))
