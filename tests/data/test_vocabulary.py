"""From a corpus folder to a tokenizer folder."""

from __future__ import annotations

import inspect
import json
import random
import re
import textwrap
from pathlib import Path

import pytest

from seedbed.data.config import TokenizerConfig
from seedbed.data.corpus import Corpus
from seedbed.data.tokenizer_report import probes
from seedbed.data.vocabulary import PIECE, sample, train_tokenizer
from seedbed.errors import ConfigError, DataError
from seedbed.runs import new_folder, open_folder, write_json
from seedbed.shards import RowWriter
from seedbed.tokenizers import Tokenizer, byte_pair, sentence_piece


@pytest.fixture
def texts():
    return [inspect.getsource(textwrap), inspect.getsource(json), "Zwölf Boxkämpfer jagen Viktor, 東京 2026. 🎈\n" * 9]


@pytest.fixture
def corpus(tmp_path, texts):
    out = tmp_path / "corpus"
    with new_folder(out, "corpus") as folder:
        for name, rows in {"train-00000": texts[:2], "train-00001": texts[2:], "val-00000": texts[:1]}.items():
            with RowWriter(folder / f"{name}.jsonl.zst") as shard:
                for text in rows:
                    shard.write({"text": text, "source": "here"})
        write_json(folder / "stats.json", {})
    return out


@pytest.mark.parametrize(
    ("kind", "vocab_size"), [("byte_pair", 500), ("sentence_piece", 600), ("bytes", None), ("characters", None)]
)
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
    sizes = {name: len(text.encode()) / len(tokenizer.encode(text)) for name, text in probes().items()}
    assert result["bytes_per_token"] == pytest.approx(sizes, abs=1e-3)
    assert "seedbed tokenizer" in (tmp_path / "out" / "README.md").read_text()


def test_the_report_says_where_tokens_are_unknown(corpus, tmp_path):
    """Beside its bytes per token, which would look like the best of all."""
    result = train_tokenizer(TokenizerConfig(corpus=corpus, kind="characters", out=tmp_path / "out"))
    known = set("".join(document.text for document in Corpus.open(corpus).documents("train")))
    unknown = {name: sum(character not in known for character in text) / len(text) for name, text in probes().items()}
    assert result["unknown_share"] == pytest.approx({name: share for name, share in unknown.items() if share}, abs=1e-4)
    assert result["unknown_share"]["russian"] > 0.5 and "python" not in result["unknown_share"]
    assert f"({unknown['russian']:.0%} unknown) |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "vocab_size"), [("byte_pair", 500), ("sentence_piece", 600), ("bytes", 265), ("characters", 50)]
)
def test_more_special_tokens_come_last_and_stay_text_inside_a_text(corpus, tmp_path, kind, vocab_size):
    marks = ["<|fim_prefix|>", "<|tool|>"]
    given = {"corpus": corpus, "kind": kind, "vocab_size": vocab_size}
    train_tokenizer(TokenizerConfig(**given, extra_tokens=marks, out=tmp_path / "out"))
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.vocab_size == vocab_size
    assert [tokenizer.special_ids[mark] for mark in marks] == [vocab_size - 2, vocab_size - 1]
    ids = tokenizer.encode("def <|tool|> end")
    assert max(ids) < vocab_size - 2
    assert tokenizer.decode([vocab_size - 1, *tokenizer.encode("a")], skip_special=False) == "<|tool|>a"
    for wrong in (["<s>"], [""]):
        with pytest.raises(ConfigError, match="cannot be added"):
            tokenizer.with_tokens(wrong)


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
        ("bytes", {"vocab_size": 263, "special_tokens": False}, "vocab_size must be 256 or left out"),
        ("byte_pair", {"special_tokens": False}, "special_tokens can be off for the kind bytes only"),
        ("sentence_piece", {"vocab_size": 300}, "vocab_size must be between 359 and"),
        ("sentence_piece", {"digits": "groups_of_3"}, "digits must be individual or free"),
        ("sentence_piece", {"split": "qwen2"}, "split is for the kind byte_pair"),
        ("characters", {"digits": "free"}, "digits is for the kinds byte_pair and sentence_piece"),
        ("byte_pair", {"algorithm": "bpe"}, "algorithm is for the kind sentence_piece"),
        ("byte_pair", {"corpus": None}, "corpus is needed"),
        ("bytes", {"import_from": Path("x")}, "kind is what import_from brings"),
        ("byte_pair", {"import_from": Path("x"), "vocab_size": 500}, "vocab_size is what import_from brings"),
        ("byte_pair", {"import_from": Path("x"), "special_tokens": False}, "special_tokens is for bytes and"),
        ("byte_pair", {"split": "qwen2", "digits": "free"}, "split qwen2 goes with digits individual"),
        ("byte_pair", {"max_bytes": 0}, "max_bytes must be > 0"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, kind, options, problem):
    with pytest.raises(ConfigError, match=problem):
        TokenizerConfig(**{"corpus": tmp_path, "out": tmp_path, "kind": kind} | options)


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
        train_tokenizer(TokenizerConfig(corpus=tmp_path, out=tmp_path / "out"))


# Options -------------------------------------------------------------------------------------------------------------


def test_bytes_without_special_tokens_are_exactly_256(corpus, tmp_path):
    train_tokenizer(TokenizerConfig(corpus=corpus, kind="bytes", special_tokens=False, out=tmp_path / "out"))
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.special_ids) == (256, None, {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split": "gpt-2", "digits": "free"}, ["▁2026"]),
        ({"split": "gpt-2"}, ["2", "0", "2", "6"]),
        ({"split": "llama-3"}, ["202", "6"]),
        ({"split": "qwen2"}, ["2", "0", "2", "6"]),
        ({"kind": "sentence_piece", "digits": "free"}, ["▁2026"]),
        ({"kind": "sentence_piece", "algorithm": "bpe"}, ["2", "0", "2", "6"]),
    ],
)
def test_numbers_are_split_as_told(tmp_path, texts, options, expected):
    with new_folder(tmp_path / "corpus", "corpus") as folder:
        for split in ("train", "val"):
            with RowWriter(folder / f"{split}-00000.jsonl.zst") as shard:
                shard.write({"text": texts[0] + "\nin x 2026 of x 2026" * 300, "source": ""})
        write_json(folder / "stats.json", {})
    train_tokenizer(TokenizerConfig(corpus=tmp_path / "corpus", vocab_size=500, out=tmp_path / "out", **options))
    tokenizer = Tokenizer.load(tmp_path / "out")
    tokens = [tokenizer.token_text(id).replace(" ", "▁") for id in tokenizer.encode(" x 2026")]
    assert [token for token in tokens if re.search("[0-9]", token)] == expected


# Beside others, and from elsewhere -----------------------------------------------------------------------------------


def test_a_report_stands_beside_that_of_other_tokenizers(corpus, tmp_path, texts):
    (tmp_path / "other").mkdir()
    byte_pair.train(texts, 400, split="llama-3").save(tmp_path / "other")
    (tmp_path / "pieces.model").write_bytes(
        sentence_piece.train_model(texts, 600, algorithm="bpe", individual_digits=True)
    )
    paths = [tmp_path / "other", tmp_path / "pieces.model"]
    result = train_tokenizer(TokenizerConfig(corpus=corpus, kind="bytes", out=tmp_path / "out", compare=paths))
    found = {name: one["vocab_size"] for name, one in result["compared"].items()}
    assert found == {str(tmp_path / "other"): 400, str(tmp_path / "pieces.model"): 600}
    other = Tokenizer.load(tmp_path / "other")
    held_out = len(texts[0].encode()) / len(other.encode(texts[0]))
    assert result["compared"][str(tmp_path / "other")]["val_bytes_per_token"] == pytest.approx(held_out, abs=1e-3)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| this | {paths[0]} | {paths[1]} |" in card
    assert f"--compare {tmp_path / 'other'},{tmp_path / 'pieces.model'}" in result["command"]


def test_an_import_needs_no_corpus_and_names_what_it_was_made_from(tmp_path, texts):
    (tmp_path / "other").mkdir()
    other = byte_pair.train(texts, 400)
    other.save(tmp_path / "other")
    result = train_tokenizer(TokenizerConfig(import_from=tmp_path / "other", out=tmp_path / "out"))
    assert result["hash"] == other.hash and "val_bytes_per_token" not in result
    assert list(open_folder(tmp_path / "out", "tokenizer").inputs) == ["import_from"]
