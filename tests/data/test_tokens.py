"""The token store gives back what was put in, and notices everything that changed since."""

from __future__ import annotations

import json
import re
import shutil
import struct
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.cli import main
from seedbed.data.config import TokenizeConfig, TokenizerConfig
from seedbed.data.corpus import Corpus
from seedbed.data.tokenize import open_tokenizer, tokenize
from seedbed.data.tokens import HEADER, StoreWriter, TokenStore, check_vocabulary, open_tokens
from seedbed.data.vocabulary import train_tokenizer
from seedbed.errors import ConfigError, CorruptionError, DataError, StorageError
from seedbed.runs import new_folder, open_folder, seal
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.tokenizer import Tokenizer
from tests.damages import DAMAGES, damages
from tests.disks import small_disk


@dataclass
class FakeTokenizer:
    """What a store needs to know of a tokenizer, for vocabularies of any size."""

    vocab_size: int
    bos_id: int | None = None
    eos_id: int | None = None
    hash: str = "ab" * 32


def write_store(folder: Path, documents: list[list[int]], tokenizer: FakeTokenizer) -> TokenStore:
    folder.mkdir()
    with StoreWriter(folder, "train", tokenizer) as writer:
        for ids in documents:
            writer.add(np.array(ids, dtype=np.uint32), 2 * len(ids))
    return TokenStore(folder, "train", seal(folder, "tokens"))


@given(
    documents=st.lists(st.lists(st.integers(0, 2**32 - 3), max_size=40), min_size=1, max_size=20),
    specials=st.tuples(*[st.one_of(st.none(), st.integers(0, 200))] * 2),
    wide=st.booleans(),
)
@settings(max_examples=60)
def test_documents_come_back_as_they_went_in(tmp_path_factory, documents, specials, wide):
    vocab_size = 2**32 - 2 if wide else 2**16
    documents = [[id % vocab_size for id in ids] for ids in documents]
    bos, eos = specials
    whole = [[bos] * (bos is not None) + ids + [eos] * (eos is not None) for ids in documents]
    if not any(whole):
        return
    store = write_store(tmp_path_factory.mktemp("s") / "s", documents, FakeTokenizer(vocab_size, bos, eos))
    assert [store.documents(i).tolist() for i in range(store.n_docs)] == whole
    assert store.read(0, store.n_tokens).tolist() == [id for ids in whole for id in ids]
    assert store.doc_bytes.tolist() == [2 * len(ids) for ids in documents]
    assert (store.n_tokens, store.n_docs) == (sum(map(len, whole)), len(documents))
    assert store.vocab_size == vocab_size
    assert store.dtype == (np.dtype("<u4") if wide else np.dtype("<u2"))


@pytest.mark.parametrize(("vocab_size", "width"), [(65_536, 2), (65_537, 4)])
def test_the_width_of_a_token_is_the_least_that_holds_the_largest_id(vocab_size, width, tmp_path):
    store = write_store(tmp_path / "s", [[vocab_size - 1, 0]], FakeTokenizer(vocab_size))
    assert store.documents(0).tolist() == [vocab_size - 1, 0] and store.dtype.itemsize == width


def test_the_bin_file_is_raw_tokens_and_the_header_has_64_bytes(tokens_folder):
    """The formats other programs rely on: nanoGPT's .bin, and ours as documented."""
    store = open_tokens(tokens_folder).val
    raw = np.memmap(tokens_folder / "val.bin", dtype=np.uint16, mode="r")
    assert np.array_equal(raw, store.read(0, store.n_tokens))
    index = (tokens_folder / "val.index").read_bytes()
    assert HEADER.size == 64 and index[:8] == b"SEEDTOK\1"
    offsets = np.frombuffer(index, "<u8", store.n_docs + 1, 64)
    assert offsets[-1] == store.n_tokens
    assert np.frombuffer(index, "<u4", store.n_docs, 64 + offsets.nbytes).tolist() == store.doc_bytes.tolist()
    blocks = np.frombuffer(index, "<u8", -1, 64 + offsets.nbytes + 4 * store.n_docs)
    assert blocks[0] == xxhash.xxh3_64_intdigest(raw.tobytes()[: 1 << 20])


def test_tokenizing_keeps_every_document_and_traces_where_it_came_from(tokens_folder, corpus_folder, tokenizer_folder):
    tokens = open_tokens(tokens_folder, verify=True)
    corpus = Corpus.open(corpus_folder)
    for split, store in (("train", tokens.train), ("val", tokens.val)):
        texts = [document.text for document in corpus.documents(split)]
        assert store.n_docs == len(texts)
        for i in (0, store.n_docs - 1):
            assert store.documents(i).tolist() == tokens.tokenizer.encode(texts[i], bos=True, eos=True)
            assert store.doc_bytes[i] == len(texts[i].encode())
    assert tokens.manifest.inputs["corpus"] == corpus.manifest.hash
    assert tokens.manifest.inputs["tokenizer"] == tokens.tokenizer.hash  # that folder has no manifest
    result = json.loads((tokens_folder / "result.json").read_text())
    assert result["train"] == {
        "documents": tokens.train.n_docs,
        "tokens": tokens.train.n_tokens,
        "bytes": int(tokens.train.doc_bytes.sum()),
    }
    assert result["bytes_per_token"] == pytest.approx(1, abs=0.001) and result["tokens_per_second"] > 0


def test_tokenizing_twice_gives_the_same_bytes(tokens_folder, corpus_folder, tmp_path):
    with new_folder(tmp_path / "tokenizer", "tokenizer") as folder:
        byte_tokenizer.build().save(folder)
    manifests = []
    for name in ("one", "two"):
        tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tmp_path / "tokenizer", out=tmp_path / name))
        manifests.append((tmp_path / name / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    inputs = open_folder(tmp_path / "one", "tokens").inputs
    assert inputs["tokenizer"] == open_folder(tmp_path / "tokenizer", "tokenizer").hash
    assert (tmp_path / "one" / "train.bin").read_bytes() == (tokens_folder / "train.bin").read_bytes()


def test_a_command_given_again_says_what_it_said(corpus_folder, tmp_path, capsys):
    tokenizer = ["tokenizer", "--corpus", corpus_folder, "--out", tmp_path / "tokenizer", "--vocab_size", 280]
    tokens = [
        "tokenize",
        "--corpus",
        corpus_folder,
        "--tokenizer",
        tmp_path / "tokenizer",
        "--out",
        tmp_path / "tokens",
    ]
    export = ["tokens", "export", "--format", "nanogpt", "--tokens", tmp_path / "tokens", "--out", tmp_path / "other"]
    back = ["tokens", "import", "--format", "nanogpt", "--tokens", tmp_path / "other", "--out", tmp_path / "back"]
    back += ["--tokenizer", tmp_path / "tokenizer"]
    for arguments in (tokenizer, tokens, export, back):
        words = [str(word) for word in [*arguments, "--json"]]
        assert main(words) == 0
        said = json.loads(capsys.readouterr().out)
        assert main(words) == 0
        again = json.loads(capsys.readouterr().out)
        assert again.pop("note").startswith("nothing was done") and again == said
    other = [str(word) for word in [*tokenizer, "--compare", tmp_path / "tokenizer"]]
    assert main(other) == 2 and "exists and is not empty" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "tokenizer")
    assert main([str(word) for word in tokenizer[:-1]] + ["270"]) == 0
    assert main([str(word) for word in tokens]) == 2 and "exists and is not empty" in capsys.readouterr().err


def test_another_tokenizer_in_the_same_place_is_another_tokenizer(corpus_folder, tmp_path):
    """In one process, as a notebook does it."""
    for kind, vocab_size in (("bytes", 263), ("byte_pair", 280)):
        train_tokenizer(
            TokenizerConfig(corpus=corpus_folder, kind=kind, vocab_size=vocab_size, out=tmp_path / "tokenizer")
        )
        tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tmp_path / "tokenizer", out=tmp_path / "tokens"))
        text = next(Corpus.open(corpus_folder).documents("val")).text
        ids = Tokenizer.load(tmp_path / "tokenizer").encode(text, bos=True, eos=True)
        assert open_tokens(tmp_path / "tokens").val.documents(0).tolist() == ids
        shutil.rmtree(tmp_path / "tokenizer")
        shutil.rmtree(tmp_path / "tokens")


@pytest.mark.parametrize(("kind", "vocab_size"), [("bytes", 263), ("byte_pair", 280)])
def test_any_number_of_processes_gives_the_same_bytes(corpus_folder, tmp_path, kind, vocab_size, monkeypatch):
    monkeypatch.setattr("seedbed.data.tokenize.BATCH_DOCUMENTS", 3)  # 14 groups, more than are under way
    settings = {"kind": kind, "vocab_size": vocab_size}
    train_tokenizer(TokenizerConfig(corpus=corpus_folder, out=tmp_path / "tokenizer", **settings))
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tmp_path / "tokenizer", out=out, workers=workers))
    for name in ("train.bin", "train.index", "val.bin", "val.index", "manifest.json"):
        assert len({(tmp_path / workers / name).read_bytes() for workers in "123"}) == 1


def test_a_vocabulary_of_256_runs_documents_together(corpus_folder, tmp_path):
    train_tokenizer(
        TokenizerConfig(corpus=corpus_folder, kind="bytes", special_tokens=False, out=tmp_path / "tokenizer")
    )
    tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tmp_path / "tokenizer", out=tmp_path / "tokens"))
    tokens = open_tokens(tmp_path / "tokens")
    assert (tokens.val.vocab_size, tokens.tokenizer.bos_id, tokens.tokenizer.eos_id) == (256, None, None)
    texts = [document.text for document in Corpus.open(corpus_folder).documents("val")]
    assert tokens.val.read(0, tokens.val.n_tokens).astype(np.uint8).tobytes() == "".join(texts).encode()


def test_a_clock_that_stands_still_stops_no_tokenizing(corpus_folder, tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    result = tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tokenizer_folder, out=tmp_path / "out"))
    assert result["seconds"] == 0 and result["tokens_per_second"] > 0


# Corruption


FILES = ("train.bin", "train.index", "val.bin", "val.index", "manifest.json")


@pytest.fixture
def restored(tokens_folder):
    """Puts the files back."""
    before = {name: (tokens_folder / name).read_bytes() for name in FILES}
    yield before
    for name, raw in before.items():
        (tokens_folder / name).write_bytes(raw)


def read_everything(folder: Path) -> list[bytes]:
    """As a training run would, without verification up front."""
    tokens = open_tokens(folder)
    read = [bytes.fromhex(tokens.tokenizer.hash)]
    for store in (tokens.train, tokens.val):
        read += [
            store.read(start, min(start + 100_000, store.n_tokens)).tobytes()
            for start in range(0, store.n_tokens, 100_000)
        ]
        read.append(store.doc_bytes.tobytes())
    return read


@pytest.fixture
def other_tokens(tokens_folder, tmp_path) -> Path:
    """A tokens folder whose files have the same sizes and the same tokenizer, but hold other tokens."""
    tokens = open_tokens(tokens_folder)
    with new_folder(tmp_path / "other", "tokens") as folder:
        shutil.copytree(tokens_folder / "tokenizer", folder / "tokenizer")
        for name in ("README.md", "result.json"):
            shutil.copy(tokens_folder / name, folder)
        for split, store in (("train", tokens.train), ("val", tokens.val)):
            with StoreWriter(folder, split, tokens.tokenizer) as writer:
                for i in range(store.n_docs):
                    writer.add(store.documents(i)[-2:0:-1].astype(np.uint32), int(store.doc_bytes[i]))
    return tmp_path / "other"


def test_of_250_random_damages_to_tokens_each_is_named_or_does_no_harm(tokens_folder, other_tokens, tmp_path):
    """Those to checkpoints are 250 more. Sizes of the other folder agree, so that nothing but hashes tells."""
    for name in FILES:
        assert (tokens_folder / name).stat().st_size == (other_tokens / name).stat().st_size or name == "manifest.json"
    whole, found = read_everything(tokens_folder), Counter()
    for damage in damages(tokens_folder, other_tokens, tmp_path / "copy", count=250, seed=3):
        try:
            read = read_everything(tmp_path / "copy")
        except (CorruptionError, DataError) as error:
            harmed = {name for name in damage.harmed if name in str(error)}
            assert harmed or "manifest.json" in damage.harmed, (damage, str(error))
            assert re.search("ake (it|one)", str(error)) and "seedbed tokenize --corpus" in str(error), (
                damage,
                str(error),
            )
            found[damage.kind] += 1
        else:
            assert read == whole and damage.harmed <= {"README.md", "result.json"}, damage
    assert all(found[kind] >= 12 for kind in DAMAGES if kind != "add"), found


def test_both_files_of_another_store_are_not_taken_for_these(tokens_folder, other_tokens, tmp_path):
    """They agree with one another, and their sizes with the manifest: only its hash of the index tells."""
    shutil.copytree(tokens_folder, tmp_path / "copy")
    for name in ("train.bin", "train.index"):
        shutil.copy(other_tokens / name, tmp_path / "copy" / name)
    with pytest.raises(CorruptionError, match=r"train.index was changed"):
        open_tokens(tmp_path / "copy")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tokens_folder, restored, name):
    (tokens_folder / name).unlink()
    with pytest.raises((CorruptionError, DataError), match=name):
        open_tokens(tokens_folder)


def test_changed_bytes_that_were_not_read_are_found_by_verifying(tokens_folder, restored):
    raw = bytearray(restored["train.bin"])
    raw[-1] ^= 1
    (tokens_folder / "train.bin").write_bytes(raw)
    tokens = open_tokens(tokens_folder)
    tokens.train.read(0, 10)
    with pytest.raises(CorruptionError, match=r"train.bin was changed: block"):
        tokens.train.read(tokens.train.n_tokens - 1, tokens.train.n_tokens)
    with pytest.raises(CorruptionError, match=r"train.bin was changed: its SHA-256"):
        open_tokens(tokens_folder, verify=True)


def test_verify_reaches_the_bytes_that_tokenizing_does_not_hash(corpus_folder, tmp_path):
    with new_folder(tmp_path / "tokenizer", "tokenizer") as folder:
        byte_tokenizer.build().save(folder)
    file = tmp_path / "tokenizer" / "tokenizer.json"
    file.write_bytes(file.read_bytes().replace(b"\n", b" ", 1))
    folders = {"corpus": corpus_folder, "tokenizer": tmp_path / "tokenizer"}
    tokenize(TokenizeConfig(**folders, out=tmp_path / "trusting"))
    with pytest.raises(CorruptionError, match=r"tokenizer\.json was changed"):
        tokenize(TokenizeConfig(**folders, out=tmp_path / "strict", verify=True))
    assert not (tmp_path / "strict").exists()


def test_a_changed_tokenizer_is_found(tokens_folder):
    path = tokens_folder / "tokenizer" / "tokenizer.json"
    raw = path.read_bytes()
    try:
        path.write_bytes(raw.replace(b"a", b"b", 1))
        with pytest.raises(CorruptionError, match=r"tokenizer.json was changed"):
            open_tokens(tokens_folder)
    finally:
        path.write_bytes(raw)


FIELDS = ("magic", "version", "width", "vocab", "n_docs", "n_tokens", "bos", "eos", "tokenizer", "checksum")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("magic", b"NOTTOKEN"),
        ("version", 2),
        ("width", 4),
        ("width", 3),
        ("width", 0),
        ("vocab", 1 << 20),
        ("n_docs", 2**63),
        ("n_docs", 0),
        ("n_tokens", 2**64 - 1),
        ("n_tokens", 0),
    ],
)
def test_a_forged_header_is_refused_even_where_all_hashes_agree(tmp_path, field, value):
    """As a broken writer would leave it: no allocation follows the counts, and no error of struct or numpy gets out."""
    write_store(tmp_path / "s", [[1, 2, 3], [4]], FakeTokenizer(300, 0, 1))
    path = tmp_path / "s" / "train.index"
    raw = path.read_bytes()
    values = list(HEADER.unpack_from(raw))
    values[FIELDS.index(field)] = value
    header = HEADER.pack(*values)[:56]
    path.write_bytes(header + struct.pack("<Q", xxhash.xxh3_64_intdigest(header + raw[64:])) + raw[64:])
    manifest = seal(tmp_path / "s", "tokens")
    with pytest.raises(CorruptionError, match=r"train\.(index|bin)"):
        TokenStore(tmp_path / "s", "train", manifest)


def test_offsets_that_go_back_are_refused_even_where_all_hashes_agree(tmp_path):
    write_store(tmp_path / "s", [[1, 2, 3], [4]], FakeTokenizer(300))
    path = tmp_path / "s" / "train.index"
    raw = bytearray(path.read_bytes())
    raw[72:80] = struct.pack("<Q", 5)
    raw[56:64] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(raw[:56] + raw[64:])))
    path.write_bytes(raw)
    with pytest.raises(CorruptionError, match="offsets"):
        TokenStore(tmp_path / "s", "train", seal(tmp_path / "s", "tokens"))


def test_files_of_another_store_are_not_taken_for_these(tokens_folder, restored):
    """Sizes may agree by chance; the hashes of the blocks do not."""
    raw = restored["val.bin"]
    (tokens_folder / "val.bin").write_bytes(bytes(reversed(raw)))
    with pytest.raises(CorruptionError, match=r"val.bin was changed"):
        read_everything(tokens_folder)
    shutil.copy(tokens_folder / "train.index", tokens_folder / "val.index")
    with pytest.raises(CorruptionError, match=r"val.index"):
        read_everything(tokens_folder)


def test_a_full_disk_leaves_no_tokens(corpus_folder, tokenizer_folder, tmp_path):
    with small_disk(tmp_path / "disk"):
        with pytest.raises(StorageError, match=r"no space left|larger than files may be"):
            tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tokenizer_folder, out=tmp_path / "disk" / "out"))
        assert list((tmp_path / "disk").iterdir()) == []


# Tokenizers


def test_a_tokenizer_that_did_not_make_the_tokens_is_refused(tokens_folder, tmp_path):
    tokens = open_tokens(tokens_folder)
    check_vocabulary(tokens.train, tokens.tokenizer)
    with pytest.raises(DataError, match=r"train.bin was made with a vocabulary of 263, but this tokenizer has 300"):
        check_vocabulary(tokens.train, FakeTokenizer(300))
    with pytest.raises(DataError, match=r"but this one is abababababab…: the vocabularies differ"):
        check_vocabulary(tokens.train, FakeTokenizer(tokens.tokenizer.vocab_size))


def test_a_folder_whose_tokenizer_was_exchanged_is_refused(tokens_folder, tmp_path):
    shutil.copytree(tokens_folder, tmp_path / "tokens")
    config = tmp_path / "tokens" / "tokenizer" / "tokenizer_config.json"
    written = json.loads(config.read_text())
    config.write_text(json.dumps({**written, "chat_template": "{{ messages }}"}))
    seal(tmp_path / "tokens", "tokens")
    assert Tokenizer.load(tmp_path / "tokens" / "tokenizer").chat_template == "{{ messages }}"
    with pytest.raises(DataError, match="the vocabularies differ"):
        open_tokens(tmp_path / "tokens")


def test_an_id_beyond_the_vocabulary_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(DataError, match="the id 300, but has only 300 tokens"):
        write_store(tmp_path / "s", [[300]], FakeTokenizer(300))


# Use


def test_reading_outside_is_an_index_error(tokens_folder):
    store = open_tokens(tokens_folder).val
    assert store.read(5, 5).tolist() == []
    with pytest.raises(ValueError, match="read-only"):
        store.read(0, 1)[0] = 1
    for start, stop in ((-1, 1), (2, 1), (0, store.n_tokens + 1)):
        with pytest.raises(IndexError):
            store.read(start, stop)
    for index in (-1, store.n_docs):
        with pytest.raises(IndexError):
            store.documents(index)
    for starts, length in (([0], 0), ([-1], 2), ([store.n_tokens - 1], 2)):
        with pytest.raises(IndexError):
            store.windows(np.array(starts), length)


def test_folders_of_another_kind_are_refused_and_nothing_is_written(corpus_folder, tokenizer_folder, tmp_path):
    with pytest.raises(DataError, match="is a corpus folder; a tokens folder is needed"):
        open_tokens(corpus_folder)
    for corpus, tokenizer in ((tokenizer_folder, tokenizer_folder), (corpus_folder, corpus_folder)):
        with pytest.raises(DataError):
            tokenize(TokenizeConfig(corpus=corpus, tokenizer=tokenizer, out=tmp_path / "out"))
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ConfigError, match="taken is a file"):
        tokenize(TokenizeConfig(corpus=corpus_folder, tokenizer=tokenizer_folder, out=tmp_path / "taken"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


@pytest.mark.parametrize("given", ["", "train.bin", "train.idx"])
def test_tokens_of_another_tool_are_told_how_they_become_ours(given, tmp_path):
    for name in ("train.bin", "train.idx", "meta.pkl"):
        (tmp_path / name).write_bytes(b"\0" * 8)
    with pytest.raises(DataError, match=r"holds tokens of another tool; a tokens folder is needed here") as caught:
        open_tokens(tmp_path / given)
    assert caught.value.fix is not None and f"seedbed tokens import --tokens {tmp_path} --format" in caught.value.fix


def test_a_file_given_as_a_tokenizer_is_told_what_to_give(tmp_path):
    for name, said in (("tokenizer.json", f"Give the folder it is in: {tmp_path}"), ("a.model", "--import_from")):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=f"{name} is a file; a tokenizer folder is needed here") as caught:
            open_tokenizer(tmp_path / name)
        assert said in (caught.value.fix or "")
