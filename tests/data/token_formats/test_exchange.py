"""Tokens go to other tools' files and come back as they were; files that are not what they claim are refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seedbed.cli import main
from seedbed.data.config import PrepareConfig, TokenizeConfig, TokenizerConfig, TokensConfig
from seedbed.data.corpus import SPLITS, Corpus
from seedbed.data.prepare import prepare
from seedbed.data.token_formats import files, int32
from seedbed.data.tokenize import tokenize
from seedbed.data.tokens import open_tokens
from seedbed.data.vocabulary import train_tokenizer
from seedbed.errors import ConfigError, CorruptionError, DataError, SeedbedError
from seedbed.runs import open_folder
from seedbed.tokenizers.foreign import read_foreign
from tests.damages import extend, flip, shift, swap, truncate, zero
from tests.data.conftest import some_texts, write_jsonl
from tests.data.token_formats.samples import (
    KINDS,
    content,
    documents,
    export,
    result,
    save_tokenizer,
    take_in,
    tokenizer_of,
    write_tokens,
)
from tests.tiny import pretrain_config, tiny_run
from tests.tokenizers.test_foreign import like_llama_2

FORMATS = ("megatron", "nanogpt", "int32")


@pytest.fixture(scope="module", autouse=True)
def small_pieces():
    """So that documents and indices of a few entries are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "PIECE", 5)
        yield


def ending(format: str, kind: str) -> dict[str, int | None]:
    return {"end_of_text": tokenizer_of(kind).eos_id} if format == "nanogpt" else {}


@given(
    splits=st.tuples(*[st.lists(st.lists(st.integers(0, 255), max_size=14), min_size=1, max_size=12)] * 2),
    kind=st.sampled_from(KINDS),
    format=st.sampled_from(FORMATS),
)
@settings(max_examples=30)
def test_documents_of_any_length_come_back_with_every_byte(tmp_path_factory, splits, kind, format):
    assume(kind != "none" or all(any(split) for split in splits))
    place = tmp_path_factory.mktemp("round")
    tokenizer = tokenizer_of(kind)
    write_tokens(place / "tokens", tokenizer, train=splits[0], val=splits[1])
    export(place / "tokens", place / "files", format)
    back = take_in(place / "files", place / "back", format, place / "files" / "tokenizer", **ending(format, kind))
    if format == "nanogpt" and kind == "none":  # nothing says where documents end
        assert documents(back.train) == [[id for ids in splits[0] for id in ids]]
        assert content(place / "back")["val.bin"] == content(place / "tokens")["val.bin"]
    else:
        assert content(place / "back") == content(place / "tokens")


@given(splits=st.lists(st.lists(st.integers(0, 262), max_size=14), min_size=1, max_size=12))
@settings(max_examples=6)
def test_special_tokens_inside_documents_stay(tmp_path_factory, splits):
    place = tmp_path_factory.mktemp("round")
    write_tokens(place / "tokens", tokenizer_of("both"), train=splits, val=splits)
    for format in ("megatron", "int32"):
        export(place / "tokens", place / format, format)
        take_in(place / format, place / f"{format}-back", format, place / format / "tokenizer")
        assert content(place / f"{format}-back") == content(place / "tokens")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A corpus, tokenizers of several kinds, and the corpus' tokens by each."""
    place = tmp_path_factory.mktemp("place")
    source = write_jsonl(place / "source.jsonl", [*some_texts(20, 40), " begins with a space", "x"])
    prepare(PrepareConfig(source=str(source), out=place / "corpus", validation_fraction=0.2))
    for kind, size in (("byte_pair", 300), ("sentence_piece", 372), ("characters", None)):
        train_tokenizer(TokenizerConfig(corpus=place / "corpus", out=place / kind, kind=kind, vocab_size=size))
    like_llama_2(some_texts(1, 100)).save(str(place / "llama.json"))
    save_tokenizer(place / "llama", read_foreign(place / "llama.json"))
    for name in KINDS:
        save_tokenizer(place / name, tokenizer_of(name))
    for name in TOKENIZERS:
        tokenize(TokenizeConfig(corpus=place / "corpus", tokenizer=place / name, out=place / f"{name}-tokens"))
    return place


TOKENIZERS = (*KINDS, "byte_pair", "sentence_piece", "characters", "llama")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_import_is_what_tokenize_makes_of_the_same_texts(place, name, tmp_path):
    """Also of files without <s>, </s> or either, and with the bytes of each text, which only its tokens tell."""
    made = open_tokens(place / f"{name}-tokens")
    begin, end = made.tokenizer.bos_id, made.tokenizer.eos_id
    corpus = Corpus.open(place / "corpus")
    for bos, eos in ((False, False), (False, True), (True, True)):
        folder = tmp_path / f"{bos}-{eos}"
        folder.mkdir()
        for split in SPLITS:
            records, offsets = b"", [0]
            for document in corpus.documents(split):
                ids = made.tokenizer.encode(document.text)
                ids = [begin] * (bos and begin is not None) + ids + [end] * (eos and end is not None)
                records += np.array([len(ids), *ids], "<i4").tobytes()
                offsets.append(len(records))
            (folder / f"{split}.bin").write_bytes(records)
            (folder / f"{split}.index").write_bytes(np.array(offsets, "<i8").tobytes())
        take_in(folder, folder / "tokens", "int32", place / name)
        assert content(folder / "tokens") == content(place / f"{name}-tokens")


def test_both_splits_go_by_the_names_they_are_given(place, tmp_path):
    names = {"train": "books.v1_text_document", "val": "held.out"}
    export(place / "both-tokens", tmp_path / "files", "megatron", **names)
    found = {path.name for path in (tmp_path / "files").glob("*.*") if path.suffix in (".bin", ".idx")}
    assert found == {f"{name}{suffix}" for name in names.values() for suffix in (".bin", ".idx")}
    take_in(tmp_path / "files", tmp_path / "back", "megatron", place / "both", **names)
    assert content(tmp_path / "back") == content(place / "both-tokens")


def test_folders_say_what_they_were_made_from(place, tmp_path):
    export(place / "byte_pair-tokens", tmp_path / "files", "int32")
    tokens = open_tokens(place / "byte_pair-tokens")
    assert open_folder(tmp_path / "files", "export", "all").inputs == {"tokens": tokens.manifest.hash}
    told = result(tmp_path / "files")
    assert told["train"] == {"documents": tokens.train.n_docs, "tokens": tokens.train.n_tokens}
    back = take_in(tmp_path / "files", tmp_path / "back", "int32", place / "byte_pair")
    assert back.manifest.inputs["tokenizer"] == open_folder(place / "byte_pair", "tokenizer").hash
    assert {*back.manifest.inputs} == {"tokenizer", "train.bin", "train.index", "val.bin", "val.index"}
    told = result(tmp_path / "back")
    assert told["val"]["bytes"] == int(tokens.val.doc_bytes.sum()) and told["command"].startswith("seedbed tokens ")
    assert "seedbed pretrain" in (tmp_path / "back" / "README.md").read_text(encoding="utf-8")


def test_pretrain_takes_an_import(place, tmp_path):
    export(place / "both-tokens", tmp_path / "files", "megatron")
    take_in(tmp_path / "files", tmp_path / "back", "megatron", place / "both")
    assert pretrain_config(tmp_path / "back", tmp_path / "run").data.tokens == tmp_path / "back"
    assert tiny_run(tmp_path / "back", tmp_path / "run", "--train.steps=1")["steps"] == 1


def test_the_command_line_goes_both_ways(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    out, back = tmp_path / "files", tmp_path / "back"
    assert main(["tokens", "export", "--tokens=one-tokens", "--format=nanogpt", f"--out={out}"]) == 0
    more = [f"--tokens={out}", "--tokenizer=one", "--end_of_text=259", f"--out={back}"]
    assert main(["tokens", "import", "--format=nanogpt", *more]) == 0
    assert "documents" in capsys.readouterr().out
    assert content(back) == content(place / "one-tokens")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"action": "import"}, "tokenizer is needed for an import"),
        ({"action": "export", "tokenizer": Path("t")}, "tokenizer is for an import"),
        ({"action": "export", "end_of_text": 1}, "end_of_text is for the import of nanogpt"),
        ({"action": "import", "tokenizer": Path("t"), "end_of_text": 1}, "end_of_text is for the import of nanogpt"),
        ({"action": "export", "train": "a/b"}, "train must be the name of a file"),
        ({"action": "export", "validation_fraction": 0.1}, "validation_fraction is for an import"),
        ({"action": "import", "tokenizer": Path("t"), "validation_fraction": 0.6}, "validation_fraction must be "),
        ({"action": "export", "val": ""}, "val must be the name of a file"),
        ({"action": "export", "val": "train"}, "val must be another name"),
    ],
)
def test_settings_that_do_not_go_together_are_named(given, problem):
    with pytest.raises(ConfigError, match=problem):
        TokensConfig(**{"format": "int32", "tokens": Path("x"), "out": Path("y")} | given)


@pytest.mark.parametrize(
    ("id", "problem"), [(258, "begins documents with this tokenizer"), (263, "below the vocabulary of 263, got 263")]
)
def test_an_end_of_text_that_ends_no_text_is_refused(place, tmp_path, id, problem):
    with pytest.raises(ConfigError, match=problem):
        take_in(place / "both-tokens", tmp_path / "back", "nanogpt", place / "both", end_of_text=id)


@pytest.mark.parametrize("format", FORMATS)
def test_ids_beyond_the_vocabulary_are_named_and_leave_nothing(format, tmp_path):
    texts = [[1] * 9, [2] * 7 + [259], [3]]
    write_tokens(tmp_path / "tokens", tokenizer_of("both"), train=texts, val=[[1]])
    export(tmp_path / "tokens", tmp_path / "files", format)
    save_tokenizer(tmp_path / "small", tokenizer_of("none"))
    with pytest.raises(DataError, match=r"train\.bin: document 0 has the token 258, but .* ids 0 to 255") as raised:
        take_in(tmp_path / "files", tmp_path / "back", format, tmp_path / "small")
    assert "--tokenizer" in raised.value.fix
    assert not [path for path in tmp_path.iterdir() if "back" in path.name]


def test_negative_ids_are_named(tmp_path):
    save_tokenizer(tmp_path / "tokenizer", tokenizer_of("none"))
    for split in SPLITS:
        (tmp_path / f"{split}.bin").write_bytes(np.array([8, 8, 8, 8, 8, 8, 8, 8, -5], "<i4").tobytes())
        (tmp_path / f"{split}.index").write_bytes(np.array([0, 36], "<i8").tobytes())
    with pytest.raises(DataError, match="document 0 has the token -5"):
        take_in(tmp_path, tmp_path / "back", "int32", tmp_path / "tokenizer")


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_not_there_and_one_without_tokens_are_named(format, tmp_path):
    save_tokenizer(tmp_path / "tokenizer", tokenizer_of("none"))
    write_tokens(tmp_path / "tokens", tokenizer_of("none"), train=[[1]], val=[[1]])
    export(tmp_path / "tokens", tmp_path / "files", format)
    with pytest.raises(DataError, match=r"nothing\.bin is not there"):
        take_in(tmp_path / "files", tmp_path / "back", format, tmp_path / "tokenizer", val="nothing")
    if format == "nanogpt":
        (tmp_path / "files" / "val.bin").write_bytes(b"")
        with pytest.raises(DataError, match=r"val\.bin holds no tokens"):
            take_in(tmp_path / "files", tmp_path / "back", format, tmp_path / "tokenizer")


def test_a_document_too_long_for_32_bits_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 10)
    write_tokens(tmp_path / "tokens", tokenizer_of("none"), train=[[1], [1] * 11], val=[[1]])
    for format in ("megatron", "int32"):
        with pytest.raises(DataError, match=r"document 1 of .*train\.bin has 11 tokens, but .* 32 bits"):
            export(tmp_path / "tokens", tmp_path / "files", format)


def test_text_beyond_what_a_document_holds_is_refused(tmp_path, monkeypatch):
    """As a whole nanoGPT file of more than 4 GiB of text, when nobody says what ends its documents."""
    monkeypatch.setattr("seedbed.data.tokens.MOST_BYTES", 100)
    write_tokens(tmp_path / "tokens", tokenizer_of("both"), train=[[1] * 60] * 2, val=[[1]])
    export(tmp_path / "tokens", tmp_path / "files", "nanogpt")
    tokenizer = tmp_path / "files" / "tokenizer"
    with pytest.raises(DataError, match="120 bytes of text; one holds at most 100"):
        take_in(tmp_path / "files", tmp_path / "back", "nanogpt", tokenizer)
    assert take_in(tmp_path / "files", tmp_path / "back", "nanogpt", tokenizer, end_of_text=259).train.n_docs == 2


def test_tokens_that_changed_are_not_exported(tmp_path):
    folder = write_tokens(tmp_path / "tokens", tokenizer_of("none"), train=[[1] * 99], val=[[1]])
    raw = bytearray((folder / "train.bin").read_bytes())
    raw[50] ^= 1
    (folder / "train.bin").write_bytes(raw)
    with pytest.raises(CorruptionError, match=r"train\.bin was changed"):
        export(folder, tmp_path / "files", "int32")
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_are_one_clear_error_or_valid_tokens(format, tmp_path):
    chance = random.Random(1)
    texts = [[chance.randrange(256) for _ in range(chance.randrange(30))] for _ in range(20)]
    write_tokens(tmp_path / "tokens", tokenizer_of("both"), train=texts, val=texts)
    export(tmp_path / "tokens", tmp_path / "files", format)
    pair = sorted((tmp_path / "files").glob("train.*"))
    assert len(pair) == (1 if format == "nanogpt" else 2)
    refused = 0
    for round in range(60):
        path = pair[round % len(pair)]
        before = path.read_bytes()
        raw = bytearray(before)
        (flip, truncate, extend, zero, swap, shift)[round // 2 % 6](raw, chance)
        path.write_bytes(raw)
        out = tmp_path / f"back-{round}"
        try:
            more = {"end_of_text": 259} if format == "nanogpt" else {}
            tokens = take_in(tmp_path / "files", out, format, tmp_path / "files" / "tokenizer", **more)
            assert max(id for ids in documents(tokens.train) for id in ids) < 263
        except SeedbedError as error:
            refused += 1
            assert str(tmp_path) in error.problem and "\n" not in error.problem
            assert not out.exists()
        path.write_bytes(before)
    assert refused > 20


def test_a_record_that_names_its_own_length_is_not_believed(tmp_path):
    """int32: the index is right in itself, the record says more than there is."""
    (tmp_path / "x.bin").write_bytes(np.array([2**31 - 1, 5], "<i4").tobytes())
    (tmp_path / "x.index").write_bytes(np.array([0, 8], "<i8").tobytes())
    with pytest.raises(DataError, match=r"record 0 says 2,147,483,647 tokens, but its index gives it 1"):
        int32.read(tmp_path, "x")


@pytest.mark.parametrize("format", FORMATS)
def test_of_one_file_documents_at_even_distances_become_validation(format, tmp_path):
    """As Megatron's tools write one; every document is on one side."""
    tokenizer = tokenizer_of("both")
    texts = [[65 + i, 66, 67][: 1 + i % 3] for i in range(20)]
    framed = [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in texts]
    tokens = write_tokens(tmp_path / "tokens", tokenizer, train=texts, val=texts[:1])
    theirs = export(tokens, tmp_path / "theirs", format)
    (theirs / "val.bin").unlink()
    more = {"format": format, "tokenizer": tokens / "tokenizer", **ending(format, "both")}
    ours = take_in(theirs, tmp_path / "ours", **more, validation_fraction=0.1)
    assert documents(ours.val) == [framed[9], framed[19]]
    assert documents(ours.train) == [ids for i, ids in enumerate(framed) if i not in (9, 19)]
    assert result(tmp_path / "ours")["begins"] == "A"
    with pytest.raises(DataError, match=r"too few documents to keep 0\.02 of them apart"):
        take_in(theirs, tmp_path / "none", **more, validation_fraction=0.02)
    assert not (tmp_path / "none").exists()
