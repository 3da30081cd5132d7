"""Tokenizers of other tools keep their ids; what cannot be run exactly is refused."""

from __future__ import annotations

import base64
import json
import random

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.tokenizers import Tokenizer
from seedbed.tokenizers.foreign import read_foreign
from seedbed.tokenizers.scheme import byte_characters
from seedbed.tokenizers.splits import GPT_2, LLAMA_3, QWEN_2, pre_tokenizer
from seedbed.tokenizers.tokenizer import PIECE_CHARACTERS, SPECIALS

quick = settings(max_examples=100, deadline=None)
any_text = st.text() | st.lists(
    st.sampled_from(["<|endoftext|>", "<think>", "the ", "def ", "  ", "\n", "2026", "don't", "É", "é", "🎈", "\u0301"])
).map("".join)


def write_ranks(path, ranks):
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


def some_ranks(size, seed=0):
    """The bytes, then tokens joined at random: many of them can be made in several ways, or in none."""
    draw = random.Random(seed)
    ranks = {bytes([byte]): byte for byte in range(256)}
    pool = [bytes([byte]) for byte in b" abcdefgh\n123'"]
    while len(ranks) < size:
        token = draw.choice(pool) + draw.choice(pool)
        if draw.random() < 0.1:
            token = bytes(draw.choices(b"abcdefgh", k=5))  # nothing merges to it
        if len(token) < 9 and token not in ranks:
            ranks[token] = len(ranks)
            pool.append(token)
    return ranks


@pytest.mark.parametrize(
    ("split", "expression"), [("gpt-2", GPT_2), ("llama-3", LLAMA_3), ("qwen2", QWEN_2), ("none", r"[\s\S]+")]
)
def test_ranks_of_tiktoken_give_the_ids_of_tiktoken(tmp_path, split, expression):
    ranks = some_ranks(800)
    oracle = tiktoken.Encoding("other", pat_str=expression, mergeable_ranks=ranks, special_tokens={})
    path = write_ranks(tmp_path / "other.tiktoken", ranks)
    imported = read_foreign(path, split=split, digits="free" if split == "none" else None)
    assert [imported.special_ids[name] for name in SPECIALS] == list(range(800, 807))
    assert read_foreign(path, split=split, digits=None if split != "none" else "free", specials=False).vocab_size == 800

    @quick
    @given(text=any_text | st.text(alphabet="abcdefgh 12'\n", max_size=200))
    def agree(text):
        assert imported.encode(text) == oracle.encode_ordinary(text)
        assert imported.decode(imported.encode(text)) == text

    agree()


def test_a_file_of_ranks_needs_its_split_and_sound_lines(tmp_path):
    path = write_ranks(tmp_path / "other.tiktoken", some_ranks(300))
    with pytest.raises(ConfigError, match="does not say how text is split"):
        read_foreign(path)
    good = path.read_bytes()
    for raw, problem in (
        (b"", "does not hold all 256 bytes"),
        (good + b"YWI= x\n", "line 301 is no token"),
        (good + b"*** 300\n", "line 301 is no token"),
        (good + b"enp6 0\n", "a rank stands twice"),
    ):
        path.write_bytes(raw)
        with pytest.raises(CorruptionError, match=problem):
            read_foreign(path, split="gpt-2")


# Hugging Face --------------------------------------------------------------------------------------------------------


def byte_level(texts, split="gpt-2", digits="free", **bpe):
    """As people train theirs: <|endoftext|> is all that is special."""
    backend = tokenizers.Tokenizer(models.BPE(**bpe))
    backend.pre_tokenizer = pre_tokenizer(split, digits)
    backend.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=sorted(byte_characters().values())
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return backend


def like_qwen_2(texts):
    backend = byte_level(texts, "qwen2", "individual")
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return backend


def like_llama_2(texts, metaspace=False):
    raw = {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | raw
    letters = sorted({c for text in texts for c in text if c.isascii() and c.isprintable() and c != " "})
    vocabulary |= {token: 259 + i for i, token in enumerate(["▁", *letters, "th", "▁th", "▁the", "in", "▁in"])}
    merges = [("t", "h"), ("▁", "th"), ("▁th", "e"), ("i", "n"), ("▁", "in")]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(strip)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    return backend


def unigram(texts):
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=300, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>"
    )
    backend.train_from_iterator(texts, trainer)
    return backend


OTHERS = {
    "GPT-2": byte_level,
    "Llama 3": lambda texts: byte_level(texts, "llama-3", "groups_of_3", ignore_merges=True),
    "Qwen 2": like_qwen_2,
    "Llama 2": like_llama_2,
    "Llama 2, newer": lambda texts: like_llama_2(texts, metaspace=True),
    "T5": unigram,
}


@pytest.mark.parametrize("name", OTHERS)
def test_tokenizers_of_known_families_keep_their_ids(tmp_path, texts, name):
    OTHERS[name](texts).save(str(tmp_path / "tokenizer.json"))
    imported = read_foreign(tmp_path)
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    peer.encode_special_tokens = True
    assert imported.eos_id is not None and imported.kind == ("sentence_piece" if name[0] in "TL" and name != "Llama 3"
                                                             else "byte_pair")  # fmt: skip

    @quick
    @given(text=any_text)
    def agree(text):
        ids = peer.encode(text, add_special_tokens=False).ids
        assert imported.encode(text) == ids
        lossy = "▁" in text or (text.startswith(" ") and name == "Llama 2, newer")
        if not name.startswith(("T5", "Qwen")) and not lossy:
            assert imported.decode(ids) == text

    agree()
    long = "\n".join([*texts, "<think> the É\u0301 def  <|endoftext|>"]) * (3 * PIECE_CHARACTERS // 9_000)
    assert len(long) > 2 * PIECE_CHARACTERS
    assert imported.encode(long) == peer.encode(long, add_special_tokens=False).ids


def test_names_of_special_tokens_come_from_the_files_beside_it(tmp_path, texts):
    byte_level(texts).save(str(tmp_path / "tokenizer.json"))
    assert read_foreign(tmp_path / "tokenizer.json").bos_id == 600  # by its name
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]})
    )
    imported = read_foreign(tmp_path)
    assert (imported.bos_id, imported.eos_id, imported.chat_template) == (None, 600, "y")


def test_a_tokenizer_of_another_family_is_refused_with_what_it_is(tmp_path):
    words = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="WordPiece with the pre-tokenizer"):
        read_foreign(tmp_path)


def test_what_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tokenizer that is known"):
        read_foreign(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"holds neither tokenizer\.json nor tokenizer\.model"):
        read_foreign(tmp_path / "empty")
    with pytest.raises(DataError, match="is not there"):
        read_foreign(tmp_path / "none.model")
    with pytest.raises(CorruptionError, match="cannot be used"):
        read_foreign(tmp_path)
    with pytest.raises(ConfigError, match="tells them itself"):
        read_foreign(tmp_path, split="gpt-2")


def test_an_import_is_saved_and_loaded_with_the_same_hash(tmp_path, texts):
    byte_level(texts).save(str(tmp_path / "tokenizer.json"))
    imported = read_foreign(tmp_path)
    (tmp_path / "out").mkdir()
    imported.save(tmp_path / "out")
    assert Tokenizer.load(tmp_path / "out").hash == imported.hash
