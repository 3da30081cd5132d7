"""SentencePiece: its own ids on every text, and every text comes back."""

from __future__ import annotations

import sys
from itertools import product

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.tokenizers import sentence_piece
from seedbed.tokenizers.model_file import read_model
from seedbed.tokenizers.scheme import SPACE
from seedbed.tokenizers.tokenizer import PIECE_CHARACTERS, SPECIALS, Tokenizer

quick = settings(max_examples=200, deadline=None)

any_text = st.text() | st.lists(
    st.sampled_from([*SPECIALS, "<0x0A>", "<", " ", "  ", "\n", "12", "the ", "e", "ee", "é", "🎈", "\0", "\r\n"])
).map("".join)
without_mark = any_text.filter(lambda text: SPACE not in text)
"""SentencePiece takes U+2581 for a space."""


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def model(request, texts):
    return sentence_piece.train_model(texts, 700, algorithm=request.param, individual_digits=True)


@pytest.fixture(scope="module")
def grown(model, texts):
    """What `train` makes of the same texts, and the oracle."""
    algorithm = read_model(model).algorithm
    tokenizer = sentence_piece.train(texts, 700, algorithm=algorithm)
    return tokenizer, sentencepiece.SentencePieceProcessor(model_proto=model)


@quick
@given(text=without_mark)
def test_ids_are_those_of_sentencepiece(grown, text):
    tokenizer, oracle = grown
    assert tokenizer.encode(text) == oracle.encode(text)


def test_equally_probable_splits_are_decided_alike(grown):
    """In long repetitions the order of the same pieces is free, and rounding would decide."""
    tokenizer, oracle = grown
    pieces = [tokenizer.token_text(id) for id in range(len(SPECIALS) + 256, tokenizer.vocab_size)]
    texts = [
        piece * times for piece in [*pieces, *map("".join, product("aetsr-.=", repeat=2))] for times in (7, 33, 90)
    ]
    assert [text for text in texts if tokenizer.encode(text) != oracle.encode(text)] == []


@quick
@given(text=any_text)
def test_an_imported_model_gives_the_ids_of_sentencepiece_on_any_text(model, text):
    imported = sentence_piece.from_model(read_model(model))
    assert imported.encode(text) == sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)
    assert imported.decode(imported.encode(text)) == text.replace(SPACE, " ")


def test_the_mark_of_a_space_comes_back_as_it_was(grown):
    tokenizer, oracle = grown
    text = f"a{SPACE}b {SPACE} c"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert oracle.decode(oracle.encode(text)) == "a b   c"


def test_special_tokens_have_the_same_ids_in_every_kind_and_all_ascii_is_known(grown):
    tokenizer, _ = grown
    assert list(tokenizer.special_ids.values()) == list(range(len(SPECIALS)))
    ascii_text = "".join(map(chr, range(32, 127)))
    assert b"".join(tokenizer.pieces[id] for id in tokenizer.encode(ascii_text)) == ascii_text.encode()
    single = {piece for piece in tokenizer.pieces[len(SPECIALS) + 256 :] if len(piece) == 1}
    assert {character.encode() for character in ascii_text} <= single


def test_the_same_texts_give_the_same_model(model, texts):
    algorithm = read_model(model).algorithm
    assert sentence_piece.train_model(iter(texts), 700, algorithm=algorithm, individual_digits=True) == model


def test_a_long_text_is_encoded_in_pieces_with_the_ids_of_the_whole(grown, texts):
    tokenizer, oracle = grown
    text = "\n".join(texts)
    text *= 1 + 2 * PIECE_CHARACTERS // len(text)
    assert tokenizer._cuts and len(text) > 2 * PIECE_CHARACTERS
    lines = [line + "\n" for line in text.split("\n")]  # no piece crosses a line
    expected = [id for line in lines for id in oracle.encode(line)][:-1]
    assert tokenizer.encode(text) == expected


def test_too_little_text_says_how_large_a_vocabulary_may_be(texts):
    with pytest.raises(DataError, match=r"vocabulary of 50,000 cannot be learned .* <= \d+"):
        sentence_piece.train(texts, 50_000)


def test_a_missing_package_is_named_with_what_brings_it(texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match="needs the package sentencepiece") as caught:
        sentence_piece.train(texts, 700)
    assert caught.value.fix is not None and "[data]" in caught.value.fix


# Models of others ----------------------------------------------------------------------------------------------------


def train_other(tmp_path, texts, **options):
    """A .model as other people train theirs."""
    (tmp_path / "text").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(
        **{"input": str(tmp_path / "text"), "model_prefix": str(tmp_path / "m"), "vocab_size": 500, "minloglevel": 2}
        | {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
        | options
    )
    return (tmp_path / "m.model").read_bytes()


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_model_like_llama_2_has_the_ids_and_decodes_as_sentencepiece(tmp_path, texts, algorithm, byte_fallback):
    """A space before each text, its own special tokens, and <unk> where there are no bytes."""
    ascii_known = {"required_chars": sentence_piece.ASCII}
    raw = train_other(tmp_path, texts, model_type=algorithm, byte_fallback=byte_fallback, **ascii_known)
    imported, oracle = (
        sentence_piece.from_model(read_model(raw)),
        sentencepiece.SentencePieceProcessor(model_proto=raw),
    )
    assert (imported.bos_id, imported.eos_id, imported.pad_id) == (1, 2, None)
    imported.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)

    @quick
    @given(text=any_text)
    def agree(text):
        ids = oracle.encode(text)
        assert loaded.encode(text) == ids
        if byte_fallback:
            assert loaded.decode(ids) == oracle.decode(ids)
            stream = loaded.stream()
            assert "".join([*map(stream.push, ids), stream.flush()]) == loaded.decode(ids)

    agree()
    assert loaded.decode(loaded.encode("Text", continues=True), continues=True) == "Text"
    assert loaded.decode(loaded.encode("Text"), continues=True) == " Text"
    word = oracle.encode("Text wrapping")[-1]
    assert loaded.decode([word]) == loaded.decode([word], continues=True).removeprefix(" ")
    long = "the words of Text and lines\n" * (3 * PIECE_CHARACTERS // 28)
    assert loaded.encode(long) == oracle.encode(long)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"normalization_rule_name": "nmt_nfkc"}, "rules of normalisation"),
        ({"remove_extra_whitespaces": True}, "removes spaces"),
        ({"treat_whitespace_as_suffix": True}, "marks spaces behind words"),
        ({"model_type": "unigram", "user_defined_symbols": ["<tool>"]}, "user-defined symbols"),
        ({"model_type": "unigram"}, "the character '.' is in a token but is none itself"),
        ({"model_type": "char", "vocab_size": 300, "hard_vocab_limit": False}, "of the type char"),
    ],
)
def test_a_model_that_cannot_be_run_exactly_is_refused_with_the_reason(tmp_path, texts, options, problem):
    with pytest.raises(DataError, match=problem):
        sentence_piece.from_model(read_model(train_other(tmp_path, texts, **options)))


def test_user_symbols_of_byte_pairs_are_found_in_any_text(tmp_path, texts):
    raw = train_other(tmp_path, texts, model_type="bpe", add_dummy_prefix=False, user_defined_symbols=["<tool>", "\n"])
    imported, oracle = (
        sentence_piece.from_model(read_model(raw)),
        sentencepiece.SentencePieceProcessor(model_proto=raw),
    )
    for text in ["a<tool>b", "<tool><tool>", "<too\nl>", "\n\n the lines\n"]:
        assert imported.encode(text) == oracle.encode(text)


@quick
@given(data=st.data())
def test_a_broken_model_file_is_an_error_that_says_so(model, data):
    at = data.draw(st.integers(0, len(model) - 1))
    broken = data.draw(st.sampled_from([model[:at], model[:at] + b"\xff" * 12 + model[at:], b"", b"\x08"]))
    try:
        read_model(broken)
    except CorruptionError as error:
        assert "SentencePiece" in error.problem
