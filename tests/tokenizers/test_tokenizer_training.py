"""From a corpus folder to a tokenizer folder."""

from __future__ import annotations

import random

import pytest

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.runs import new_folder, open_folder
from seedbed.shards import RowWriter
from seedbed.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from seedbed.tokenizers.training import PIECE, corpus_texts, sample


@pytest.fixture
def corpus(tmp_path, texts):
    out = tmp_path / "corpus"
    with new_folder(out, "corpus") as folder:
        for name, rows in {"train-00000": texts[:2], "train-00001": texts[2:], "val-00000": texts[:1]}.items():
            with RowWriter(folder / f"{name}.jsonl.zst") as shard:
                for text in rows:
                    shard.write({"text": text})
    return out


@pytest.mark.parametrize(("kind", "vocab_size"), [("byte_pair", 500), ("bytes", None), ("characters", None)])
def test_a_corpus_becomes_a_tokenizer_folder_with_its_figures(corpus, tmp_path, texts, kind, vocab_size):
    config = TokenizerConfig(corpus=corpus, kind=kind, vocab_size=vocab_size, out=tmp_path / "out")
    result = train_tokenizer(config)
    manifest = open_folder(tmp_path / "out", "tokenizer", verify="all")
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert manifest.inputs == {"corpus": open_folder(corpus, "corpus").hash}
    assert (result["hash"], result["vocab_size"]) == (tokenizer.hash, tokenizer.vocab_size)
    held_out = len(texts[0].encode()) / len(tokenizer.encode(texts[0]))
    assert result["val_bytes_per_token"] == pytest.approx(held_out, abs=1e-3)
    used = set().union(*(tokenizer.encode(text) for text in texts))
    assert result["unused_tokens"] == tokenizer.vocab_size - len(used | set(tokenizer.special_ids.values()))
    assert max(map(len, result["longest_tokens"])) >= 1
    assert "seedbed tokenizer" in (tmp_path / "out" / "README.md").read_text()


def test_the_same_corpus_gives_the_same_folder(corpus, tmp_path):
    for name in ("a", "b"):
        train_tokenizer(TokenizerConfig(corpus=corpus, vocab_size=400, out=tmp_path / name))
    assert open_folder(tmp_path / "a", "tokenizer").hash == open_folder(tmp_path / "b", "tokenizer").hash


def test_a_failure_leaves_nothing_behind(corpus, tmp_path):
    with pytest.raises(DataError, match="tokens at most"):
        train_tokenizer(TokenizerConfig(corpus=corpus, vocab_size=50_000, out=tmp_path / "out"))
    with pytest.raises(DataError, match="does not exist"):
        train_tokenizer(TokenizerConfig(corpus=tmp_path / "none", out=tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("byte_pair", {"vocab_size": 262}, "vocab_size must be between 263 and"),
        ("characters", {"vocab_size": 7}, "vocab_size must be between 8 and"),
        ("bytes", {"vocab_size": 300}, "vocab_size must be 263 or left out"),
        ("byte_pair", {"max_bytes": 0}, "max_bytes must be > 0"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, kind, options, problem):
    with pytest.raises(ConfigError, match=problem):
        TokenizerConfig(corpus=tmp_path, out=tmp_path, kind=kind, **options)


def test_a_sample_is_bounded_spread_and_the_same_each_time():
    draw = random.Random(1)
    documents = ["".join(draw.choices("abc de\n", k=draw.randrange(1, 3 * PIECE))) for _ in range(200)]
    size = sum(map(len, documents))
    chosen = sample(iter(documents), size // 10)
    assert size // 12 < sum(map(len, chosen)) <= size // 10
    assert chosen == sample(iter(documents), size // 10)
    whole = "".join(documents)
    places = [whole.find(piece) / len(whole) for piece in chosen if len(piece) > 50]
    assert places == sorted(places)
    quarters = [sum(1 for place in places if quarter <= 4 * place < quarter + 1) for quarter in range(4)]
    assert min(quarters) > 0


def test_a_sample_of_what_fits_is_everything():
    documents = ["x" * (5 * PIECE), "some words " * PIECE, "", "é"]
    assert "".join(sample(documents, 10**9)) == "".join(documents)


def test_a_folder_that_is_no_corpus_is_named(tmp_path):
    with pytest.raises(DataError, match="not a folder seedbed made"):
        list(corpus_texts(tmp_path, "val"))


def test_verify_hashes_what_would_not_be_read(tmp_path):
    with new_folder(tmp_path / "corpus", "corpus") as folder:
        for split in ("train", "val"):
            with RowWriter(folder / f"{split}-00000.jsonl.zst") as rows:
                rows.write({"text": "some words", "source": "x"})
        (folder / "stats.json").write_text("{ }")
    (tmp_path / "corpus" / "stats.json").write_text("{x}")
    given = {"corpus": tmp_path / "corpus", "kind": "bytes"}
    train_tokenizer(TokenizerConfig(**given, out=tmp_path / "trusting"))
    with pytest.raises(CorruptionError, match=r"stats\.json was changed"):
        train_tokenizer(TokenizerConfig(**given, out=tmp_path / "strict", verify=True))
