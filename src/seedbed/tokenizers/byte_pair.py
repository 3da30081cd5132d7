"""Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019, GPT-2).

Text is split by GPT-2's regular expression with each digit on its own, so that numbers of one length take one number of
tokens; merges never cross the splits. This is the split llama.cpp knows as "smollm" and "starcoder".
"""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers.chat import find_template
from seedbed.tokenizers.tokenizer import SPECIALS, Tokenizer

SMALLEST = len(SPECIALS) + 256
"""The special tokens and the bytes: the vocabulary without a single merge."""

LEAST_FREQUENCY = 2
"""A pair seen only once is chance, not language."""


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns exactly `vocab_size` tokens, the special ones and the 256 bytes among them; the same texts in the same
    order give the same tokenizer.

    Memory grows with the number of different words, so bound the texts (`training.sample`). ConfigError for a
    vocabulary smaller than the bytes, DataError for texts too few to learn that many; it says how many they give.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(f"vocab_size must be >= {SMALLEST} (256 bytes and {len(SPECIALS)} special tokens)")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=LEAST_FREQUENCY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    reached = backend.get_vocab_size()
    if reached != vocab_size:
        raise DataError(
            f"these texts are too few for a vocabulary of {vocab_size:,}: they give {reached:,} tokens at most",
            f"Give more text, or --vocab_size {reached}, or --kind bytes.",
        )
    return Tokenizer.build(backend, find_template("chatml"))
