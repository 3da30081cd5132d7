"""Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019, GPT-2).

Text is split by a regular expression first (`splits`), and merges never cross the splits. Unless told otherwise it is
GPT-2's with each digit on its own, so that numbers of one length take one number of tokens: the split llama.cpp knows
as "smollm" and "starcoder".
"""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, trainers

from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers.bulk import last_pair
from seedbed.tokenizers.chat import find_template
from seedbed.tokenizers.scheme import byte_characters
from seedbed.tokenizers.splits import Digits, Split, choose, pre_tokenizer
from seedbed.tokenizers.tokenizer import SPECIALS, Tokenizer

SMALLEST = len(SPECIALS) + 256
"""The special tokens and the bytes: the vocabulary without a single merge."""

LEAST_FREQUENCY = 2
"""A pair seen only once is chance, not language."""


def train(
    texts: Iterable[str], vocab_size: int, *, split: Split | None = None, digits: Digits | None = None
) -> Tokenizer:
    """Learns exactly `vocab_size` tokens, the special ones and the 256 bytes among them; the same texts in the same
    order give the same tokenizer.

    Memory grows with the number of different words, so bound the texts (`vocabulary.sample`); without a split each line
    is a word. ConfigError for a vocabulary smaller than the bytes or a split that does not go with the digits,
    DataError for texts too few to learn that many; it says how many they give.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(f"vocab_size must be >= {SMALLEST} (256 bytes and {len(SPECIALS)} special tokens)")
    split, digits = choose(split, digits)
    backend = _byte_level(models.BPE(), split, digits)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=LEAST_FREQUENCY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(byte_characters().values()),
        show_progress=False,
    )
    if split == "none":
        texts = (line for text in texts for line in text.split("\n"))
    backend.train_from_iterator(texts, trainer)
    reached = backend.get_vocab_size()
    if reached != vocab_size:
        raise DataError(
            f"these texts are too few for a vocabulary of {vocab_size:,}: they give {reached:,} tokens at most",
            f"Give more text, or --vocab_size {reached}, or --kind bytes.",
        )
    return Tokenizer.build(backend, find_template("chatml"))


def from_ranks(
    ranks: dict[bytes, int], *, split: Split | None = None, digits: Digits | None = None, specials: bool = True
) -> Tokenizer:
    """The tokenizer that tiktoken is with these ranks, which must hold the 256 bytes, and that split; the special
    tokens follow behind the ranks.

    tiktoken merges any neighbours that make a token; the list of merges holds for each token the two parts it really
    merges last. A token it never merges to can still be a whole word.
    """
    character_of = byte_characters()

    def name(token: bytes) -> str:
        return "".join(character_of[byte] for byte in token)

    by_rank = sorted(ranks, key=lambda token: ranks[token])
    pairs = [last_pair(ranks, token) for token in by_rank]
    vocabulary = {name(token): ranks[token] for token in by_rank}
    if specials:
        first = ranks[by_rank[-1]] + 1
        vocabulary |= {token: first + i for i, token in enumerate(SPECIALS)}
    model = models.BPE(
        vocab=vocabulary, merges=[(name(pair[0]), name(pair[1])) for pair in pairs if pair], ignore_merges=True
    )
    backend = _byte_level(model, *choose(split, digits or ("free" if split == "gpt-2" else None)))
    return Tokenizer.build(backend, find_template("chatml") if specials else None)


def _byte_level(model: models.BPE, split: Split, digits: Digits) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizer(split, digits)
    backend.decoder = decoders.ByteLevel()
    return backend
