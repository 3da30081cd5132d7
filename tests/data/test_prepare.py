"""The corpus holds the source's text, split so that nothing stands on both sides, and says what was dropped."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data import corpus as corpus_module
from seedbed.data import prepare as prepare_module
from seedbed.data import units as units_module
from seedbed.data.config import CleaningConfig, DeduplicationConfig, PrepareConfig, ReadingConfig
from seedbed.data.corpus import Corpus
from seedbed.data.prepare import prepare
from seedbed.data.sources.blocks import read_blocks
from seedbed.data.sources.records import Document
from seedbed.errors import ConfigError, CorruptionError, DataError, StorageError
from seedbed.runs import lock, open_folder, seal
from seedbed.shards import read_rows
from tests.deaths import killed_at_call
from tests.disks import small_disk, unprivileged

WORDS = ["seed", "tree", "soil", "rain", "leaf", "root"]


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def different(count: int, size: int, seed: int | None = None) -> list[str]:
    chance = random.Random(count if seed is None else seed)
    return [f"{i if seed is None else (seed, i)} " + " ".join(chance.choices(WORDS, k=size // 5)) for i in range(count)]


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
    kept = [text for text in texts if text.strip()]
    try:
        stats = prepare(
            PrepareConfig(
                source=source,
                out=place / "out",
                validation_fraction=fraction,
                seed=seed,
                deduplicate=DeduplicationConfig(exact=False),
            )
        )
    except DataError as error:
        assert "too small" in str(error) or "holds no text" in str(error)
        assert os.listdir(place) == ["a.jsonl"]
        assert len(set(kept)) < 2
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
    assert stats["records"] == len(texts)
    assert stats["dropped"].get("empty", 0) == len(texts) - len(kept)


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
    assert "tail of the largest record" in (tmp_path / "out" / "DATA_CARD.md").read_text()


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
        assert stats["dropped"].get("beyond max_bytes", 0) == len(texts) - len(kept[-1])
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
            (folder / f"{i}.txt").write_text(f"{i} " + random.Random(i).randbytes(1 << 19).hex())
        tracemalloc.start()
        prepare(PrepareConfig(source=str(folder), out=folder / "out", validation_fraction=0.2, unit_bytes=1 << 20))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def work_in_processes(place: Path, out: str, workers: int, executor: str = "local", **environment: str) -> int:
    """`seedbed prepare` in a process of its own; returns its exit code."""
    words = ["prepare", "--source", place / "source", "--out", place / out, "--workers", workers]
    words += ["--executor", executor, "--unit_bytes", 4096, "--deduplicate.near", 0.8, "--clean.max_characters", 400]
    words += ["--deduplicate.lines", "true", "--validation_fraction", 0.2, "--clean.min_characters", 20]
    run = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, -signal.SIGKILL), run.stderr
    return run.returncode


KILLED = """
import os, sys
from seedbed.data import units
from seedbed.cli import main

left = int(os.environ.get("KILL_AFTER", -1))

def moment():
    global left
    if left == 0:
        os.kill(os.getpid(), 9)
    left -= 1

for name in ("open", "replace", "rename", "fsync"):
    real = getattr(os, name)
    setattr(os, name, lambda *a, real=real, **k: (moment(), real(*a, **k))[1])
sys.exit(main(sys.argv[1:]))
"""
"""Kills itself before the n-th file operation of those that matter."""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Four files of several units each: rows, compressed rows, a table, a long text; with copies across them."""
    place = tmp_path_factory.mktemp("place")
    folder = place / "source"
    folder.mkdir()
    texts = ["\n".join(different(6, 120, seed=i)) for i in range(60)]
    texts += [texts[3], texts[7] + " and more", "same line of text here\n" + texts[8][:200]]
    write(folder / "a.jsonl", texts[:30])
    raw = "".join(json.dumps({"text": text}) + "\n" for text in [*texts[20:], "same line of text here\nother"])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(raw.encode()))
    (folder / "c.txt").write_text("\n\n".join(different(80, 150, seed=99)))
    assert work_in_processes(place, "whole", 1) == 0
    return place


def test_the_result_is_the_same_for_any_number_of_workers(source):
    assert work_in_processes(source, "three", 3) == 0
    assert files(source / "three") == files(source / "whole")
    stats = json.loads((source / "whole" / "stats.json").read_text())
    assert stats["dropped"]["exact duplicate"] and stats["dropped"]["near duplicate"]


def test_the_result_is_the_same_on_ray(source):
    pytest.importorskip("ray")
    assert work_in_processes(source, "ray", 2, executor="ray") == 0
    assert files(source / "ray") == files(source / "whole")


def test_a_killed_run_goes_on_to_the_same_bytes_and_does_nothing_twice(source):
    """Killed again and again, each time a little later; what was done stays done."""
    kills = 0
    while work_in_processes(source, "killed", 1, KILL_AFTER=str(25 + 10 * kills)) != 0:
        kills += 1
        assert not (source / "killed").exists() or (source / "killed" / "manifest.json").exists()
    assert kills >= 3
    assert files(source / "killed") == files(source / "whole")
    assert not (source / ".killed.units").exists()


@pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.proof)])
def test_a_run_killed_while_units_are_compared_and_written_ends_in_the_same_bytes(stride, tmp_path):
    texts = different(60, 300)
    source = write(tmp_path / "a.jsonl", [*texts, *(f"{text} again" for text in texts[:20])])
    rules = DeduplicationConfig(near=0.8, lines=True)
    config = PrepareConfig(source=source, out=tmp_path / "whole", deduplicate=rules, unit_bytes=8 << 10, workers=1)
    prepare(config)
    kills = 0
    while killed_at_call(stride * kills + 1, lambda: prepare(replace(config, out=tmp_path / "out"))):
        kills += 1
        prepare(replace(config, out=tmp_path / "out"))
        assert files(tmp_path / "out") == files(tmp_path / "whole")
        assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "out", "whole"]
        shutil.rmtree(tmp_path / "out")
    assert kills > 5


def test_only_unfinished_units_are_done_again(source, monkeypatch):
    done: list[int] = []
    real = units_module.work

    def work(unit, plan, folder):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(unit.number)
        return real(unit, plan, folder)

    config = PrepareConfig(source=str(source / "source"), out=source / "stopped", unit_bytes=4096, workers=1)
    monkeypatch.setattr(prepare_module, "work", work)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    first = list(done)
    assert not (source / "stopped").exists()
    done.clear()
    damaged = source / ".stopped.units" / f"{first[2]:08d}.json"
    damaged.write_text("{")
    monkeypatch.setattr(prepare_module, "work", lambda *a, **k: (done.append(a[0].number), real(*a, **k))[1])
    prepare(config)
    assert done[0] == first[2] and not set(done[1:]) & set(first)
    assert done[1:] == list(range(max(first) + 1, max(done) + 1))


def test_a_changed_plan_or_file_makes_its_units_again(tmp_path):
    source = write(tmp_path / "a.jsonl", different(50, 200))
    config = PrepareConfig(source=source, out=tmp_path / "out")
    plan = units_module.Plan.of(config)
    (unit,) = units_module.cut_units(read_blocks(source, config.reading, 1 << 20), 1 << 20)
    units_module.work(unit, plan, tmp_path)
    result = units_module.UnitResult(tmp_path, 0)
    assert result.is_done(unit, plan)
    report = tmp_path / "00000000.json"
    whole = report.read_bytes()
    for broken in (b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, None):
        report.unlink() if broken is None else report.write_bytes(broken)
        assert not result.is_done(unit, plan)
    report.write_bytes(whole)
    other = replace(config, reading=ReadingConfig(max_bad_fraction=0.5))
    assert result.is_done(unit, units_module.Plan.of(other))  # judged at the end
    other = replace(config, clean=CleaningConfig(min_characters=5))
    assert not result.is_done(unit, units_module.Plan.of(other))
    write(tmp_path / "a.jsonl", different(50, 200)[::-1])
    (unit,) = units_module.cut_units(read_blocks(source, config.reading, 1 << 20), 1 << 20)
    assert not result.is_done(unit, plan)


def test_a_unit_that_is_made_again_is_vouched_for_by_no_old_report(tmp_path, monkeypatch):
    """Killed between its files, under another plan."""
    source = write(tmp_path / "a.jsonl", different(50, 200))
    config = PrepareConfig(source=source, out=tmp_path / "out")
    plan = units_module.Plan.of(config)
    (unit,) = units_module.cut_units(read_blocks(source, config.reading, 1 << 20), 1 << 20)
    units_module.work(unit, plan, tmp_path)

    def killed(*given):
        raise KeyboardInterrupt

    other = units_module.Plan.of(replace(config, clean=CleaningConfig(min_characters=5)))
    monkeypatch.setattr(units_module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        units_module.work(unit, other, tmp_path)
    assert not units_module.UnitResult(tmp_path, 0).is_done(unit, plan)


def test_a_source_that_is_bad_from_somewhere_on_is_refused_also_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "JUDGED_EARLY", 100)
    rows = [json.dumps({"text": text}) for text in different(400, 60)]
    rows[150:250] = ["{"] * 100
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    config = PrepareConfig(source=str(tmp_path / "a.jsonl"), out=tmp_path / "out", unit_bytes=2048, workers=1)
    real = units_module.work
    left = 5

    def work(*given, **named):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(prepare_module, "work", work)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.setattr(prepare_module, "work", real)
    with pytest.raises(DataError, match="cannot be read: invalid JSON"):
        prepare(config)


def test_bad_records_are_counted_kept_apart_and_bounded(tmp_path):
    rows = [json.dumps({"text": text}) for text in different(50, 100)] + ["{", '{"txt": 1}', '{"text": null}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"a.jsonl:51.*3 of 53 records .*invalid JSON: 1, .*\n.*max_bad_fraction 0.057"):
        prepare(PrepareConfig(source=str(tmp_path / "a.jsonl"), out=tmp_path / "out"))
    reading = ReadingConfig(max_bad_fraction=0.06)
    stats = prepare(PrepareConfig(source=str(tmp_path / "a.jsonl"), out=tmp_path / "out", reading=reading))
    assert stats["bad"] == {"invalid JSON": 1, "no text field": 1, "null": 1}
    rejects = list(read_rows(tmp_path / "out" / "rejects.jsonl"))
    assert [reject["name"] for reject in rejects] == ["a.jsonl:51", "a.jsonl:52", "a.jsonl:53"]
    assert rejects[1]["excerpt"] == '{"txt": 1}'


def test_the_advice_of_too_many_bad_records_is_enough_and_costs_no_unit_again(tmp_path, monkeypatch):
    rows = [json.dumps({"text": text}) for text in different(40, 100)] + ["{"] * 20  # a third: 0.33 would not do
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    done: list[int] = []
    real = units_module.work
    monkeypatch.setattr(prepare_module, "work", lambda *a, **k: (done.append(a[0].number), real(*a, **k))[1])
    config = PrepareConfig(source=str(tmp_path / "a.jsonl"), out=tmp_path / "out", unit_bytes=1024, workers=1)
    with pytest.raises(DataError, match=r"go on from what is done: --reading.max_bad_fraction 0\.34$") as caught:
        prepare(config)
    assert len(done) > 3 and done == sorted(set(done))
    share = float(caught.value.fix.split()[-1])
    stats = prepare(replace(config, reading=ReadingConfig(max_bad_fraction=share)))
    assert stats["records"] == 60 and len(done) == len(set(done))
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "out"]


def test_a_source_of_bad_records_alone_leaves_nothing_and_no_share_is_offered(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body_text": "a"}\n{"body_text": "b"}\n')
    with pytest.raises(DataError, match="2 of 2 records") as caught:
        prepare(PrepareConfig(source=str(tmp_path / "a.jsonl"), out=tmp_path / "out"))
    assert caught.value.fix == "Mend the source, or name the field that holds its text: --reading.text_field FIELD."
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_file_that_breaks_off_is_named_aloud_with_what_was_read_of_it(tmp_path, capsys):
    folder, texts = tmp_path / "texts", different(300, 400)
    folder.mkdir()
    rows = [json.dumps({"text": text}).encode() + b"\n" for text in texts]
    (folder / "a.jsonl").write_bytes(b"".join(rows[:100]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(rows[100:]))[:-1000])
    stats = prepare(PrepareConfig(source=str(folder), out=tmp_path / "out"))
    assert stats["bad"] == {"broken file": 1} and 150 < stats["records"] < 301
    size = sum(map(len, rows[100 : stats["records"] - 1]))
    told = f"the compressed stream is cut off; only {size:,} bytes before that were read"
    assert stats["broken_files"] == {"b.jsonl.gz": told}
    assert capsys.readouterr().err == f"seedbed: b.jsonl.gz: {told}\n"
    assert f"broken: 'b.jsonl.gz': {told}" in (tmp_path / "out" / "DATA_CARD.md").read_text()


def test_a_file_of_which_nothing_can_be_read_is_no_single_bad_record(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "a.jsonl", different(300, 100))
    (folder / "b.jsonl.zst").write_bytes(b"no Zstandard at all")
    config = PrepareConfig(source=str(folder), out=tmp_path / "out")
    with pytest.raises(DataError, match=r"^b.jsonl.zst: .*nothing of it was read \(1 of 2 files .*\n.*_fraction 0.5"):
        prepare(config)
    stats = prepare(replace(config, reading=ReadingConfig(max_bad_fraction=0.5)))
    assert stats["records"] == 301 and list(stats["broken_files"]) == ["b.jsonl.zst"]


def test_the_same_command_given_again_says_that_it_is_done(tmp_path):
    source = write(tmp_path / "a.jsonl", different(50, 200))
    config = PrepareConfig(source=source, out=tmp_path / "out")
    result, made = prepare(config), files(tmp_path / "out")
    again = prepare(replace(config, workers=2))
    assert again.pop("note").startswith("nothing was done") and again == json.loads(json.dumps(result))
    assert files(tmp_path / "out") == made
    with pytest.raises(ConfigError, match="exists and is not empty"):
        prepare(replace(config, seed=1))
    write(tmp_path / "a.jsonl", different(51, 200))
    with pytest.raises(ConfigError, match="exists and is not empty"):
        prepare(config)
    (tmp_path / "out" / "train-00000.jsonl.zst").write_bytes(b"")
    write(tmp_path / "a.jsonl", different(50, 200))
    with pytest.raises(CorruptionError, match="cut off"):
        prepare(config)


def test_stats_and_card_tell_how_large_the_largest_group_of_duplicates_is(tmp_path):
    texts = different(20, 100)
    source = write(tmp_path / "a.jsonl", [*texts, *texts[:2], texts[1]])
    stats = prepare(PrepareConfig(source=source, out=tmp_path / "out"))
    assert stats["largest_group_of_duplicates"] == {"exact": 3}
    assert "largest group of exact duplicates: 3 documents" in (tmp_path / "out" / "DATA_CARD.md").read_text()
    stats = prepare(PrepareConfig(source=write(tmp_path / "b.jsonl", texts), out=tmp_path / "other"))
    assert stats["largest_group_of_duplicates"] == {}


def test_files_of_other_kinds_are_counted_and_the_card_says_so(tmp_path):
    (tmp_path / "texts").mkdir()
    write(tmp_path / "texts" / "a.jsonl", different(20, 100))
    for name in ("b.bin", "c.bin", "Makefile"):
        (tmp_path / "texts" / name).write_bytes(b"x")
    stats = prepare(PrepareConfig(source=str(tmp_path / "texts"), out=tmp_path / "out"))
    assert stats["ignored"] == {"(none)": 1, ".bin": 2}
    assert "files of other kinds: (none) 1, .bin 2" in (tmp_path / "out" / "DATA_CARD.md").read_text()


def test_a_corpus_can_be_prepared_again(tmp_path):
    """Its documents are the source, not its card and statistics."""
    texts = different(40, 200)
    prepare(PrepareConfig(source=write(tmp_path / "a.jsonl", texts), out=tmp_path / "one"))
    stats = prepare(PrepareConfig(source=str(tmp_path / "one"), out=tmp_path / "two"))
    assert stats["records"] == 40 and not stats["bad"]
    train, val = splits(tmp_path / "two")
    assert sorted(train + val) == sorted(texts)


def test_two_at_once_do_not_disturb_each_other(tmp_path):
    source = write(tmp_path / "a.jsonl", different(50, 200))
    with lock(tmp_path / ".out.units"), pytest.raises(StorageError, match="in use"):
        prepare(PrepareConfig(source=source, out=tmp_path / "out"))
    prepare(PrepareConfig(source=source, out=tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "out"]


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


@pytest.mark.parametrize("stats", ["[]", "{", '{"records": NaN}'])
def test_stats_that_are_no_json_object_are_named(tmp_path, corpus_folder, stats):
    shutil.copytree(corpus_folder, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    (tmp_path / "out" / "stats.json").write_text(stats)
    seal(tmp_path / "out", "corpus")
    with pytest.raises(CorruptionError, match=r"stats\.json"):
        Corpus.open(tmp_path / "out")


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
