"""Encoding by tiktoken gives the ids of `tokenizers`, or is not done."""

from __future__ import annotations

import json
import random

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.errors import DataError
from seedbed.tokenizers import Tokenizer, bulk, byte_pair
from seedbed.tokenizers.tokenizer import BULK_CHARACTERS, SPECIALS

quick = settings(max_examples=150, deadline=None)
SPLITS = [("gpt-2", "individual"), ("gpt-2", "free"), ("llama-3", None), ("qwen2", None), ("none", "free")]

any_text = st.text() | st.lists(
    st.sampled_from([*SPECIALS, *"\n\t\r \u00a0É\u0301٣Ⅷ²…🎈", "   ", "12345", "x2 ", "don't", "I'LL", "'ſ"])
).map("".join)


@pytest.fixture(scope="module", params=SPLITS, ids=lambda choice: f"{choice[0]}-{choice[1]}")
def grown(request, texts):
    split, digits = request.param
    return byte_pair.train(texts, 700, split=split, digits=digits)


@pytest.fixture(scope="module")
def encoder(grown):
    built = bulk.build(grown._source, grown._scheme, [])
    assert built is not None
    return built


@quick
@given(text=any_text)
def test_ids_are_those_of_the_tokenizers_library(grown, encoder, text):
    ids = encoder.encode(text)
    assert ids is None or ids.tolist() == grown.encode(text)


@quick
@given(text=any_text)
def test_any_text_comes_back_under_every_split(grown, text):
    assert grown.decode(grown.encode(text)) == text


def test_the_libraries_disagree_on_the_newest_scripts_alone():
    """In the versions of requirements.lock: digits that came with Unicode 17, which only one of them knows."""
    blocks = [*range(0x34), *range(0x4D, 0x50), *range(0x9E, 0xD8), *range(0xF9, 0x180), *range(0x1BC, 0x200)]
    assert [block for block in blocks if not bulk.engines_agree(block)] == [0x11D, 0x16F]


def test_a_text_with_characters_the_libraries_disagree_on_is_left_to_tokenizers(encoder, monkeypatch):
    monkeypatch.setattr(bulk, "engines_agree", lambda block: block != 0x4E)
    assert encoder.encode("a 一 b") is None and encoder.encode("a é b") is not None


def test_texts_are_normalised_and_added_tokens_found_as_by_tokenizers(texts):
    """As Qwen 2 does it: NFC, which may bring characters of other blocks, and tokens that are no special ones."""

    def like_qwen(described):
        described["normalizer"] = {"type": "NFC"}
        token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
        described["added_tokens"].append({"id": 700, "content": "<é>", **token})

    other = changed(byte_pair.train(texts, 700, split="qwen2"), like_qwen)
    encoder = bulk.build(other._source, other._scheme, other._added)
    for text in ("a e\u0301 \u212b", "\uf900 12", "e\u0301e\u0301"):
        assert encoder.encode(text).tolist() == other.encode(text)
    assert other.encode("<e\u0301>") == [700] and encoder.encode("<e\u0301>") is None
    assert encoder.encode("<é>") is None


def test_a_much_too_long_run_is_left_to_tokenizers(grown, encoder):
    run = " " * (bulk.LONGEST + 1)
    assert encoder.encode(run) is None
    assert grown.decode(grown.encode_batch([run])[0]) == run


def test_a_large_batch_has_the_ids_of_its_texts(grown, texts):
    draw = random.Random(0)
    batch = ["".join(draw.choices(["x y ", "é", *texts], k=5)) for _ in range(5)]
    batch += ["", "a", "\n".join(batch)]
    assert sum(map(len, batch)) > BULK_CHARACTERS
    peer = tokenizers.Tokenizer.from_str(grown._source)
    peer.encode_special_tokens = True
    expected = [peer.encode(text, add_special_tokens=False).ids for text in batch]
    assert [ids.tolist() for ids in grown.encode_batch(batch)] == expected


def test_a_lone_surrogate_in_a_large_batch_is_refused_and_placed(grown):
    with pytest.raises(DataError, match=f"U\\+D800 at character {BULK_CHARACTERS:,}"):
        grown.encode_batch(["fine", "a" * BULK_CHARACTERS + "\ud800"])


def changed(tokenizer, change):
    described = json.loads(tokenizer._source)
    change(described)
    return Tokenizer(json.dumps(described), tokenizer._config, None)


def swap_merges(described):
    merges = described["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]


def forget_a_merge(described):
    """Its product stays a token that others are made of, and none can be reached."""
    del described["model"]["merges"][0]


def forget_a_byte(described):
    described["model"]["vocab"]["?!"] = described["model"]["vocab"].pop("!")


def unknown_expression(described):
    described["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\s+|\S+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }


def lowercase(described):
    described["normalizer"] = {"type": "Lowercase"}


def random_merges(described):
    described["model"]["dropout"] = 0.5


@pytest.mark.parametrize(
    "change", [swap_merges, forget_a_merge, forget_a_byte, unknown_expression, lowercase, random_merges]
)
def test_where_the_proof_fails_tiktoken_is_not_used(pairs, change):
    other = changed(pairs, change)
    assert bulk.build(other._source, other._scheme, []) is None


def test_a_mistake_of_the_proof_is_found_when_the_encoder_is_built(pairs, monkeypatch):
    """As if the ranks of two tokens had been exchanged."""
    sound = bulk._ranks

    def wrong(model):
        ranks = sound(model)
        one, other = list(ranks)[-2:]
        ranks[one], ranks[other] = ranks[other], ranks[one]
        return ranks

    monkeypatch.setattr(bulk, "_ranks", wrong)
    assert bulk.build(pairs._source, pairs._scheme, []) is None


def test_tokens_that_only_a_whole_word_can_be_are_found(texts):
    """`ignore_merges`, as in Llama 3."""

    def whole_words(described):
        described["model"]["ignore_merges"] = True
        described["model"]["vocab"]["zqxj"] = 700

    other = changed(byte_pair.train(texts, 700), whole_words)
    encoder = bulk.build(other._source, other._scheme, [])
    for text in ("zqxj", "zqxj.", "azqxj", " zqxj"):
        assert encoder.encode(text).tolist() == other.encode(text)
    assert other.encode("zqxj") == [700]
