"""Row files: what is written comes back, and nothing broken is read in silence."""

from __future__ import annotations

import random

import pytest
import zstandard

from seedbed.compression import PIECE
from seedbed.errors import CorruptionError, DataError, StorageError
from seedbed.shards import RowWriter, read_rows, write_rows

ROWS = [{"text": "one\n"}, {"text": "zwei 🎈\u2028", "n": 2}, {"text": ""}, {"text": "long " * PIECE}, {"text": "end"}]


def write(path, rows=ROWS):
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return path


def test_rows_come_back_and_the_same_rows_make_the_same_bytes(tmp_path):
    one, two = write(tmp_path / "a.jsonl.zst"), write(tmp_path / "b.jsonl.zst")
    assert list(read_rows(one)) == ROWS
    assert one.read_bytes() == two.read_bytes()


def test_plain_rows_come_back_and_appear_only_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    write_rows(path, iter(ROWS))
    assert list(read_rows(path)) == ROWS
    before = path.read_bytes()
    for row in ({"n": float("nan")}, {"text": "\ud800"}, {"n": object()}):
        with pytest.raises(DataError, match=r"row 2 of a\.jsonl cannot be written as JSON"):
            write_rows(path, [{"text": ""}, row])
    assert path.read_bytes() == before


def test_files_of_several_frames_and_plain_files_are_read(tmp_path):
    frames = write(tmp_path / "a.jsonl.zst").read_bytes() + write(tmp_path / "b.jsonl.zst", ROWS[:2]).read_bytes()
    (tmp_path / "both.jsonl.zst").write_bytes(frames)
    assert list(read_rows(tmp_path / "both.jsonl.zst")) == ROWS + ROWS[:2]
    (tmp_path / "plain.jsonl").write_text('{"a": 1}\r\n{"b": 2}')
    assert list(read_rows(tmp_path / "plain.jsonl")) == [{"a": 1}, {"b": 2}]
    (tmp_path / "marked.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert list(read_rows(tmp_path / "marked.jsonl")) == [{"a": 1}]


def test_every_cut_and_every_changed_bit_is_found(tmp_path):
    whole = write(tmp_path / "a.jsonl.zst", [{"text": str(i) * (i % 7)} for i in range(300)]).read_bytes()
    draw = random.Random(11)
    cuts = [whole[:length] for length in range(len(whole))]
    flips = []
    for at in draw.sample(range(len(whole)), 150):
        flips.append(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
    path = tmp_path / "broken.jsonl.zst"
    for broken in cuts + flips:
        path.write_bytes(broken)
        with pytest.raises(CorruptionError, match=r"broken\.jsonl\.zst, row \d+"):
            list(read_rows(path))


def test_no_rows_make_a_file_too(tmp_path):
    assert list(read_rows(write(tmp_path / "a.jsonl.zst", []))) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [(b"{", "not valid JSON"), (b"[1]", "object is needed, got a list"), (b"", "not valid JSON"),
     (b'{"a": NaN}', "NaN is not JSON"), (b'{"a": "\xff"}', "utf-8"), (b"[" * 100_000, "nested too deeply")],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path, line, problem):
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"a": 1}\n' + line + b"\n"))
    with pytest.raises(CorruptionError, match=f"row 2: .*{problem}"):
        list(read_rows(path))


def test_a_missing_file_and_an_unwritable_place_are_told(tmp_path):
    with pytest.raises(DataError, match="none"):
        list(read_rows(tmp_path / "none.jsonl"))
    with pytest.raises(StorageError):
        RowWriter(tmp_path / "no" / "folder.jsonl.zst")


def test_a_row_that_is_not_json_is_refused_and_the_file_stays_unfinished(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    with pytest.raises(DataError, match="row 2"), RowWriter(path) as writer:
        writer.write({"text": "fine"})
        writer.write({"text": "\ud800"})
    with pytest.raises(CorruptionError):
        assert list(read_rows(path)) == []
