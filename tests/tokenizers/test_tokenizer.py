"""What every kind of tokenizer promises, and that transformers 5 agrees."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.errors import ConfigError, CorruptionError, DataError, SeedbedError
from seedbed.tokenizers import Tokenizer, byte_pair, characters
from seedbed.tokenizers.bytes import build
from seedbed.tokenizers.tokenizer import PIECE_CHARACTERS, SPECIALS

any_text = st.text() | st.lists(st.sampled_from([*SPECIALS, "<", "|>", " ", "\n", "12", "don't", "é", "🎈"])).map(
    "".join
)
quick = settings(max_examples=150, deadline=None)


@quick
@given(text=any_text)
def test_any_text_comes_back_as_it_was(byte_tokenizer, text):
    ids = byte_tokenizer.encode(text)
    assert byte_tokenizer.decode(ids) == text
    assert byte_tokenizer.decode(byte_tokenizer.encode(text, bos=True, eos=True)) == text


@quick
@given(text=any_text)
def test_special_tokens_in_a_text_stay_text(tokenizer, text):
    specials = set(tokenizer.special_ids.values()) - {tokenizer.unk_id}
    assert not specials & set(tokenizer.encode(text))


@quick
@given(text=any_text)
def test_ids_are_those_of_the_tokenizers_library(tokenizer, text):
    peer = tokenizers.Tokenizer.from_str(tokenizer._source)
    peer.encode_special_tokens = True
    assert tokenizer.encode(text) == peer.encode(text, add_special_tokens=False).ids


@quick
@given(text=any_text)
def test_token_bytes_add_up_to_the_text(byte_tokenizer, text):
    ids = byte_tokenizer.encode(text, bos=True, eos=True)
    assert byte_tokenizer.token_bytes()[ids].sum() == len(text.encode())


@pytest.mark.parametrize("model_type", [None, "qwen3", "llama", "gpt2"])
def test_the_saved_folder_loads_untouched_in_transformers(tokenizer, saved, texts, model_type):
    """Parity with transformers 5: ids, special tokens, decoding; also where a config.json names a model's own class."""
    folder, peer = saved(tokenizer, model_type)
    for text in [*texts, "", " ", "  two\n\n\nlines ", "1234567", "unknown: ஐ", "<|im_start|", "tab\tend "]:
        ids = tokenizer.encode(text)
        assert peer(text)["input_ids"] == [tokenizer.bos_id, *ids]
        assert peer(text, add_special_tokens=False)["input_ids"] == ids
        assert peer.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert list(peer("a")) == ["input_ids", "attention_mask"]
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    assert "token_type_ids" not in stored["model_input_names"]  # what transformers 4 would send to generate()
    names = [peer.pad_token, peer.unk_token, peer.bos_token, peer.eos_token, peer.mask_token]
    assert names == ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    assert [peer.pad_token_id, peer.bos_token_id] == [tokenizer.pad_id, tokenizer.bos_id]
    assert len(peer) == tokenizer.vocab_size
    assert peer("</s><|im_end|>", add_special_tokens=False)["input_ids"] == list(tokenizer.end_ids)
    assert Tokenizer.load(folder).hash == tokenizer.hash


def test_what_transformers_saves_again_is_read_with_the_same_ids(pairs, saved, tmp_path):
    _, peer = saved(pairs)
    peer.save_pretrained(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert again.chat_template == pairs.chat_template
    assert again.encode("def f(x): return 12") == pairs.encode("def f(x): return 12")
    assert (again.pad_id, again.bos_id, again.end_ids) == (pairs.pad_id, pairs.bos_id, pairs.end_ids)


def test_a_loaded_tokenizer_is_the_saved_one(tokenizer, tmp_path, texts):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.hash, loaded.kind, loaded.vocab_size) == (tokenizer.hash, tokenizer.kind, tokenizer.vocab_size)
    assert (loaded.pad_id, loaded.unk_id, loaded.bos_id, loaded.eos_id) == tuple(
        tokenizer.special_ids[name] for name in SPECIALS[:4]
    )
    assert loaded.end_ids == (tokenizer.special_ids["</s>"], tokenizer.special_ids["<|im_end|>"])
    assert loaded.encode(texts[0]) == tokenizer.encode(texts[0])


def test_the_hash_follows_the_template(pairs):
    other = Tokenizer(pairs._source, pairs._config, "{{ bos_token }}")
    assert other.hash != pairs.hash


def test_a_batch_gives_the_ids_of_its_texts(tokenizer, texts):
    batch = tokenizer.encode_batch([*texts, "", "a"])
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in [*texts, "", "a"]]
    assert all(ids.dtype == np.uint32 for ids in batch)


def test_a_long_text_is_encoded_in_pieces_with_the_ids_of_the_whole(pairs):
    draw = random.Random(3)
    words = ["word", "Don't", "12", " ", "\n", "  ", "...", "é", "x\n", "(a", "ß", "'s", "\t", "I'll", "<s>"]
    text = "".join(draw.choice(words) + draw.choice(["", " ", "  "]) for _ in range(PIECE_CHARACTERS))
    assert len(text) > 3 * PIECE_CHARACTERS
    peer = tokenizers.Tokenizer.from_str(pairs._source)
    peer.encode_special_tokens = True
    assert pairs.encode(text) == peer.encode(text, add_special_tokens=False).ids
    assert pairs.decode(pairs.encode("é" * 200_000)) == "é" * 200_000  # no place to cut


@quick
@given(data=st.data())
def test_a_stream_gives_what_decode_gives_and_only_whole_characters(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    for skip_special in (True, False):
        stream = tokenizer.stream(skip_special=skip_special)
        assert "".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids, skip_special=skip_special)


@quick
@given(text=st.text())
def test_a_stream_never_shows_half_a_character(text):
    bytes_ = build()
    stream, shown = bytes_.stream(), ""
    for id in bytes_.encode(text):
        shown += stream.push(id)
        assert text.startswith(shown)
    assert stream.flush() == "" and shown == text


@quick
@given(data=st.data())
def test_invalid_bytes_decode_as_in_the_tokenizers_library(data):
    bytes_ = build()
    ids = data.draw(st.lists(st.sampled_from([*range(256), 0xE2, 0x82, 0xF0, 0x9F, 259]), max_size=12))
    peer = tokenizers.Tokenizer.from_str(bytes_._source)
    assert bytes_.decode(ids) == peer.decode(ids, skip_special_tokens=True)


def test_ids_outside_the_vocabulary_are_refused(tokenizer):
    for id in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match="outside this tokenizer's vocabulary"):
            tokenizer.decode([id])


def test_a_lone_surrogate_is_refused_and_placed(tokenizer):
    with pytest.raises(DataError, match="U\\+D800 at character 1"):
        tokenizer.encode_batch(["fine", "a\ud800"])


def test_bytes_are_their_own_ids():
    assert build().encode("é\n") == [0xC3, 0xA9, 0x0A]
    assert [build().special_ids[name] for name in SPECIALS] == list(range(256, 263))


def test_bytes_without_specials_have_exactly_256_ids(tmp_path):
    plain = build(specials=False)
    assert (plain.vocab_size, plain.bos_id, plain.pad_id, plain.end_ids) == (256, None, None, ())
    assert plain.decode(plain.encode("<s>é")) == "<s>é"
    with pytest.raises(ConfigError, match="no token for the end"):
        plain.encode("a", eos=True)
    plain.save(tmp_path)
    assert Tokenizer.load(tmp_path).hash == plain.hash
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path)("é")["input_ids"] == [0xC3, 0xA9]


# Byte pairs ----------------------------------------------------------------------------------------------------------


def test_byte_pair_has_exactly_the_size_asked_for_and_is_the_same_each_time(texts):
    first, second = byte_pair.train(texts, 600), byte_pair.train(iter(texts), 600)
    assert first.vocab_size == 600
    assert first.hash == second.hash


def test_too_little_text_says_how_large_a_vocabulary_it_gives():
    with pytest.raises(DataError, match=r"tokens at most") as caught:
        byte_pair.train(["the cat the cat"] * 3, 5_000)
    possible = int(caught.value.fix.split("--vocab_size ")[1].split(",")[0])
    assert byte_pair.train(["the cat the cat"] * 3, possible).vocab_size == possible
    with pytest.raises(ConfigError, match="263"):
        byte_pair.train(["a"], 262)


def test_each_digit_is_a_token_and_numbers_never_merge(texts):
    pairs = byte_pair.train([*texts, "2026 2026 1234 " * 500], 600)
    assert [pairs.token_text(id) for id in pairs.encode("x 2026")] == ["x", " ", "2", "0", "2", "6"]
    assert not [id for id in range(600) if sum(c.isdigit() for c in pairs.token_text(id)) > 1]


def test_no_token_joins_words_across_the_chat_format(texts):
    pairs = byte_pair.train(["<|im_end|>\n<|im_start|>user\n" * 500, *texts], 600)
    assert not set(pairs.special_ids.values()) & set(pairs.encode("<|im_end|>\n<|im_start|>user\n"))
    assert pairs.decode(pairs.encode("<|im_end|>")) == "<|im_end|>"


# Characters ----------------------------------------------------------------------------------------------------------


def test_characters_round_trip_on_their_alphabet_and_lose_what_is_outside():
    letters = characters.train(["hello wörld\n🎈"])
    assert letters.decode(letters.encode("dör 🎈\nwhole")) == "dör 🎈\nwhole"
    assert letters.encode("hzh")[1] == letters.unk_id
    assert letters.decode(letters.encode("hz\U0010ffffh")) == "hh"
    assert letters.vocab_size == len(SPECIALS) + len(set("hello wörld\n🎈"))


def test_characters_keep_the_most_frequent_that_fit():
    letters = characters.train(["aaabbc"], vocab_size=len(SPECIALS) + 2)
    assert letters.decode(letters.encode("abc")) == "ab"
    with pytest.raises(DataError, match="no character"):
        characters.train([""])


# Folders that are not right ------------------------------------------------------------------------------------------


def test_a_missing_tokenizer_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.json") as caught:
        Tokenizer.load(tmp_path / "none")
    assert "seedbed tokenizer" in caught.value.fix


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_broken_files_are_named_and_never_crash(pairs, tmp_path, name):
    pairs.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    draw = random.Random(5)
    for attempt in range(60):
        cut = draw.randrange(len(whole))
        if attempt % 2:
            broken = whole[:cut]
        else:
            broken = whole[:cut] + bytes([whole[cut] ^ (1 << draw.randrange(8))]) + whole[cut + 1 :]
        (tmp_path / name).write_bytes(broken)
        try:
            assert Tokenizer.load(tmp_path).encode("The text.") is not None  # a changed byte can leave a valid file
        except SeedbedError as error:
            assert name in str(error)
        else:
            assert attempt % 2 == 0, "a file that is cut off was read"


def test_other_kinds_and_wrong_special_tokens_are_refused(pairs, tmp_path):
    pairs.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<nope>"}))
    with pytest.raises(CorruptionError, match="<nope>"):
        Tokenizer.load(tmp_path)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    (tmp_path / "tokenizer.json").write_text(words.to_str())
    with pytest.raises(DataError, match="WordLevel"):
        Tokenizer.load(tmp_path)
