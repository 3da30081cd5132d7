"""Fill in the middle: parts of a document change places, so that a model learns to write between two texts.

Bavarian et al. 2022, arXiv:2207.14255: with probability `rate` a document is cut at two random places and becomes
<PRE> prefix <SUF> suffix <MID> middle, or, half of the time, <PRE> <SUF> suffix <MID> prefix middle (§3, SPM). It is
done inside each row ("context level", §4.3), document by document; what the marks push beyond its end is left out.

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.errors import ConfigError
from seedbed.runs import sha256_json
from seedbed.tokenizers.tokenizer import Tokenizer

MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
"""Special tokens, by the names that StarCoder and Qwen use."""


class Infilling:
    """A batch source over another of plain rows. Which documents change, and where, depends on seed and sample."""

    def __init__(self, source: BatchSource[TokenBatch], tokenizer: Tokenizer, rate: float, seed: int):
        """ConfigError when the tokenizer has no marks."""
        if not all(mark in tokenizer.special_ids for mark in MARKS):
            raise ConfigError(
                f"filling in the middle needs the special tokens {', '.join(MARKS)} in the tokenizer",
                f"Make one that has them, and tokenize with it: seedbed tokenizer --extra_tokens '{','.join(MARKS)}' …",
            )
        self.source, self.rate, self.seed = source, rate, seed
        self._marks = [tokenizer.special_ids[mark] for mark in MARKS]
        self._borders = [id for id in (tokenizer.bos_id, tokenizer.eos_id) if id is not None]

    @cached_property
    def fingerprint(self) -> str:
        return sha256_json({"infilling": [self.rate, self.seed, self._marks], "of": self.source.fingerprint})

    @property
    def samples(self) -> int:
        return self.source.samples

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1. ValueError when the source's rows are packed or masked."""
        batch = self.source.batch(first, count)
        if batch.segments_BT is not None or batch.units != batch.tokens:
            raise ValueError("filling in the middle takes plain rows, each position with a target")
        rows_BT = torch.cat([batch.tokens_BT, batch.targets_BT[:, -1:]], dim=1).numpy()
        rows_BT = np.stack([self._row(row, first + b) for b, row in enumerate(rows_BT)])
        return TokenBatch(torch.from_numpy(rows_BT[:, :-1].copy()), torch.from_numpy(rows_BT[:, 1:].copy()))

    def _row(self, row_T: NDArray[np.int64], sample: int) -> NDArray[np.int64]:
        chance = np.random.Generator(np.random.Philox(key=[self.seed, sample]))
        borders = np.flatnonzero(np.isin(row_T, self._borders))
        parts, start = [], 0
        for end in [*borders.tolist(), len(row_T)]:
            parts += [self._document(row_T[start:end], chance), row_T[end : end + 1]]
            start = end + 1
        return np.concatenate(parts)[: len(row_T)]

    def _document(self, text: NDArray[np.int64], chance: np.random.Generator) -> NDArray[np.int64]:
        if len(text) < 3 or chance.random() >= self.rate:
            return text
        low, high = np.sort(chance.integers(0, len(text) + 1, 2))
        prefix, middle, suffix = text[:low], text[low:high], text[high:]
        before, after, between = ([mark] for mark in self._marks)
        if chance.random() < 0.5:
            return np.concatenate([before, prefix, after, suffix, between, middle]).astype(np.int64)
        return np.concatenate([before, after, suffix, between, prefix, middle]).astype(np.int64)
