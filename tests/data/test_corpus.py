"""The corpus holds the source's text, split so that nothing stands on both sides, and says what was dropped."""

from __future__ import annotations

import json
import os
import random
import shutil
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data import corpus as corpus_module
from seedbed.data.config import PrepareConfig
from seedbed.data.corpus import Corpus, prepare
from seedbed.data.sources import Document
from seedbed.errors import ConfigError, CorruptionError, DataError, StorageError
from seedbed.runs import open_folder
from tests.disks import small_disk, unprivileged

WORDS = ["seed", "tree", "soil", "rain", "leaf", "root"]


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def different(count: int, size: int) -> list[str]:
    chance = random.Random(count)
    return [f"{i} " + " ".join(chance.choices(WORDS, k=size // 5)) for i in range(count)]


def splits(folder: Path) -> tuple[list[str], list[str]]:
    corpus = Corpus.open(folder, verify="all")
    return tuple([document.text for document in corpus.documents(split)] for split in ("train", "val"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "result.json"}


def test_the_same_source_gives_the_same_bytes(tmp_path):
    source = write(tmp_path / "a.jsonl", different(50, 200))
    for out in ("one", "two é"):
        prepare(PrepareConfig(source=source, out=tmp_path / out))
    assert files(tmp_path / "one") == files(tmp_path / "two é")
    assert set(files(tmp_path / "one")) == {
        "train-00000.jsonl.zst", "val-00000.jsonl.zst", "stats.json", "DATA_CARD.md", "manifest.json",
    }  # fmt: skip


def test_a_corpus_traces_its_source(tmp_path):
    texts = different(9, 100)
    hashes = []
    for name, content in (("a", texts), ("b", texts), ("c", texts[:-1])):
        prepare(PrepareConfig(source=write(tmp_path / f"{name}.jsonl", content), out=tmp_path / name))
        hashes.append(open_folder(tmp_path / name, "corpus").inputs["source"])
    assert hashes[0] == hashes[1] != hashes[2]
    row = next(Corpus.open(tmp_path / "a").documents("train"))
    assert row == Document(texts[int(row.text.split()[0])], f"a.jsonl:{int(row.text.split()[0]) + 1}")


@given(
    texts=st.lists(st.text(st.sampled_from("ab \n木"), max_size=60), min_size=1, max_size=30),
    fraction=st.sampled_from([0.01, 0.1, 0.5]),
    seed=st.integers(0, 3),
)
@settings(max_examples=30)
def test_every_text_is_on_one_side_and_both_sides_have_some(tmp_path_factory, texts, fraction, seed):
    place = tmp_path_factory.mktemp("p")
    source = write(place / "a.jsonl", texts)
    kept = list(dict.fromkeys(text for text in texts if text.strip()))
    try:
        stats = prepare(PrepareConfig(source=source, out=place / "out", validation_fraction=fraction, seed=seed))
    except DataError as error:
        assert "too small" in str(error) or "holds no text" in str(error)
        assert os.listdir(place) == ["a.jsonl"]
        assert len(kept) < 2
        return
    train, val = splits(place / "out")
    assert train and val and all(text.strip() for text in train + val)
    if stats["validation"] == "whole documents":
        assert sorted(train + val) == sorted(kept)
        assert not set(train) & set(val)
        assert sum(len(text.encode()) for text in val) <= sum(len(text.encode()) for text in kept) / 2
    else:
        assert len(val) == 1
        assert sorted([*train[:-1], train[-1] + val[0]]) == sorted(kept) or any(text + val[0] in kept for text in train)
        assert sum(map(len, train + val)) == sum(map(len, kept))
    assert stats["documents"]["read"] == len(texts)
    assert stats["dropped"]["empty"] == sum(not text.strip() for text in texts)
    assert stats["dropped"]["repeated"] == len(texts) - stats["dropped"]["empty"] - len(kept)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
def test_the_share_of_bytes_is_near_what_was_asked_for(tmp_path, fraction):
    """82 books of very different lengths."""
    chance = random.Random(0)
    texts = [text for i in range(82) for text in different(1, int(chance.lognormvariate(9.5, 1)))]
    source = write(tmp_path / "a.jsonl", [f"{i} {text}" for i, text in enumerate(texts)])
    stats = prepare(PrepareConfig(source=source, out=tmp_path / "out", validation_fraction=fraction))
    assert stats["validation"] == "whole documents"
    assert fraction <= stats["validation_fraction"] <= 2 * fraction


def test_the_split_depends_on_texts_and_seed_not_on_order_or_names(tmp_path):
    texts = different(60, 100)
    chosen = []
    for name, content, seed in (("a", texts, 0), ("b", texts[::-1], 0), ("c", texts, 1)):
        source = write(tmp_path / f"{name}.jsonl", content)
        prepare(PrepareConfig(source=source, out=tmp_path / name, validation_fraction=0.2, seed=seed))
        chosen.append(set(splits(tmp_path / name)[1]))
    assert chosen[0] == chosen[1] != chosen[2]


def test_one_document_gives_its_tail_cut_at_a_paragraph(tmp_path):
    text = "".join(f"Paragraph {i} about seeds.\n\n" for i in range(4000))
    (tmp_path / "book.txt").write_text(text)
    stats = prepare(PrepareConfig(source=str(tmp_path / "book.txt"), out=tmp_path / "out"))
    (train,), (val,) = splits(tmp_path / "out")
    assert train + val == text
    assert val.startswith("Paragraph ") and train.endswith("\n\n")
    assert stats["validation"] == "tail of one document"
    assert stats["validation_fraction"] == pytest.approx(0.02, abs=0.001)
    assert "tail of the largest document" in (tmp_path / "out" / "DATA_CARD.md").read_text()


def test_two_books_give_a_tail_rather_than_half_of_all(tmp_path):
    texts = ["\n\n".join(different(3000, 100)), "\n\n".join(different(2999, 100))]
    stats = prepare(PrepareConfig(source=write(tmp_path / "a.jsonl", texts), out=tmp_path / "out"))
    assert stats["validation_fraction"] == pytest.approx(0.02, abs=0.002)
    train, val = splits(tmp_path / "out")
    assert train[0] + val[0] == texts[0] and train[1] == texts[1]


def test_a_sample_takes_documents_by_hash_and_cuts_the_last_to_fit(tmp_path):
    texts = ["\n\n".join(different(i + 20, 100)) for i in range(40)]
    size = sum(len(text.encode()) for text in texts)
    source = write(tmp_path / "a.jsonl", texts)
    kept = []
    for name, max_bytes in (("third", size // 3), ("half", size // 2), ("all", size)):
        stats = prepare(PrepareConfig(source=source, out=tmp_path / name, max_bytes=max_bytes))
        assert sum(stats["bytes"].values()) == pytest.approx(max_bytes, abs=120)
        train, val = splits(tmp_path / name)
        kept.append(set(train) | set(val))
        assert len(kept[-1] - set(texts)) <= 1  # the one that was cut
        assert stats["dropped"]["beyond max_bytes"] == len(texts) - len(kept[-1])
        assert f"{max_bytes:,} bytes" in (tmp_path / name / "DATA_CARD.md").read_text()
    assert len(kept[0] & kept[1]) >= len(kept[0]) - 1  # a larger sample holds the smaller
    assert kept[2] == set(texts)


def test_a_sample_of_one_book_is_its_beginning(tmp_path):
    text = "\n\n".join(different(2000, 100))
    (tmp_path / "book.txt").write_text(text)
    stats = prepare(PrepareConfig(source=str(tmp_path / "book.txt"), out=tmp_path / "out", max_bytes=20_000))
    train, val = splits(tmp_path / "out")
    assert text.startswith(train[0] + val[0])
    assert sum(stats["bytes"].values()) == pytest.approx(20_000, abs=200)


def test_shards_are_bounded_and_read_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "SHARD_BYTES", 5_000)
    texts = different(100, 500)
    prepare(PrepareConfig(source=write(tmp_path / "a.jsonl", texts), out=tmp_path / "out", validation_fraction=0.1))
    corpus = Corpus.open(tmp_path / "out")
    assert len(corpus.shards("train")) > 5
    train, val = splits(tmp_path / "out")
    assert train == [text for text in texts if text in set(train)]
    assert len(train) + len(val) == 100


def test_memory_does_not_grow_with_the_text(tmp_path):
    peaks = []
    for megabytes in (4, 16):
        folder = tmp_path / str(megabytes)
        folder.mkdir()
        for i in range(megabytes):
            (folder / f"{i}.txt").write_text(f"{i} " + "seed and tree\n\n" * (1 << 16))
        tracemalloc.start()
        prepare(PrepareConfig(source=str(folder), out=folder / "out", validation_fraction=0.2))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    versions = iter([different(5, 100), different(6, 100)])
    monkeypatch.setattr(
        corpus_module, "read_documents", lambda source: (Document(text, "a") for text in next(versions))
    )
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(PrepareConfig(source="a", out=tmp_path / "out"))
    versions = iter([different(5, 100), different(5, 100)[:4]])
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(PrepareConfig(source="a", out=tmp_path / "out"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "   \n", "x"])
def test_too_little_text_is_refused_and_leaves_nothing(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match=r"is empty|too small"):
        prepare(PrepareConfig(source=str(tmp_path / "a.txt"), out=tmp_path / "made" / "out"))
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 0.0}, "validation_fraction must be > 0"),
        ({"validation_fraction": 0.6}, "validation_fraction must be between 0 and 0.5"),
        ({"validation_fraction": float("nan")}, "validation_fraction must be"),
        ({"max_bytes": 1}, "max_bytes must be at least 2"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"source": ""}, "source must be"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        PrepareConfig(out=tmp_path / "out", **options)


def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path):
    chance = random.Random(0)
    source = write(tmp_path / "a.jsonl", [chance.randbytes(4000).hex() for _ in range(200)])
    with small_disk(tmp_path / "disk"):
        with pytest.raises(StorageError, match=r"no space left|larger than files may be"):
            prepare(PrepareConfig(source=source, out=tmp_path / "disk" / "out"))
        assert os.listdir(tmp_path / "disk") == []


def test_a_folder_this_user_may_not_write_is_told_as_such(tmp_path):
    (tmp_path / "theirs").mkdir()
    with unprivileged(tmp_path / "theirs"):
        with pytest.raises(StorageError, match=f"may not write {tmp_path / 'theirs'}"):
            prepare(PrepareConfig(out=tmp_path / "theirs" / "out"))
        assert os.listdir(tmp_path / "theirs") == []


@pytest.mark.parametrize("name", ["train-00000.jsonl.zst", "val-00000.jsonl.zst", "stats.json"])
def test_a_changed_or_missing_file_of_a_corpus_is_named(tmp_path, corpus_folder, name):
    shutil.copytree(corpus_folder, tmp_path / "out")
    path = tmp_path / "out" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptionError, match=f"{name} was changed") as raised:
        for split in ("train", "val"):
            list(Corpus.open(tmp_path / "out").documents(split))
    assert "make it again: seedbed prepare --source" in str(raised.value)
    path.unlink()
    with pytest.raises(CorruptionError, match=name):
        Corpus.open(tmp_path / "out")
