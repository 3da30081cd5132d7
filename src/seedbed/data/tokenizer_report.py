"""How well a tokenizer fits: bytes per token on a corpus and on samples of prose, code and digits, beside others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from seedbed.tokenizers.tokenizer import Tokenizer

PROBES = Path(__file__).parent / "probes.json"
"""Samples of text by kind and name: nine languages, three programming languages, numbers."""

LONGEST_SHOWN = 10


@lru_cache(maxsize=1)
def probes() -> dict[str, str]:
    """The samples by name."""
    kinds = json.loads(PROBES.read_text(encoding="utf-8"))
    return {name: text for samples in kinds.values() for name, text in samples.items()}


def report(tokenizer: Tokenizer, training: Sequence[str], held_out: Sequence[str]) -> dict[str, Any]:
    """Every figure of one tokenizer. Those of a corpus are left out where no texts are given.

    `unused_tokens` is how many a sample of the training text never uses, special ones apart. `unknown_share`: of the
    probes that hold characters the tokenizer does not know, which share of their tokens is <unk>; bytes per token mean
    nothing there.
    """
    figures: dict[str, Any] = {}
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for split, texts in (("val", held_out), ("train", training)):
        if not texts:
            continue
        ids = np.concatenate(tokenizer.encode_batch(texts))
        size = sum(len(text.encode("utf-8")) for text in texts)
        figures[f"{split}_bytes_per_token"] = round(size / len(ids), 4) if len(ids) else 0.0
        figures[f"{split}_unknown"] = int((ids == tokenizer.unk_id).sum())
        if split == "train":
            counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    special = set(tokenizer.special_ids.values())
    if training:
        figures["unused_tokens"] = len(set(np.flatnonzero(counts == 0).tolist()) - special)
    longest = np.argsort(-tokenizer.token_bytes(), kind="stable")[:LONGEST_SHOWN].tolist()
    figures["longest_tokens"] = [tokenizer.token_text(id) for id in longest]
    figures["bytes_per_token"], figures["unknown_share"] = {}, {}
    for name, text in probes().items():
        found = tokenizer.encode(text)
        figures["bytes_per_token"][name] = round(len(text.encode("utf-8")) / max(1, len(found)), 4)
        if unknown := sum(id == tokenizer.unk_id for id in found):
            figures["unknown_share"][name] = round(unknown / len(found), 4)
    return figures


def table(reports: dict[str, dict[str, Any]]) -> str:
    """Bytes per token of several tokenizers as a Markdown table, a column each; where it says so, a share of the tokens
    is unknown."""
    rows = [["", *reports], ["---", *["---:"] * len(reports)]]
    rows.append(["vocabulary", *(f"{one['vocab_size']:,}" for one in reports.values())])
    for key, name in (("val_bytes_per_token", "held-out text"), ("train_bytes_per_token", "training text")):
        if all(key in one for one in reports.values()):
            rows.append([name, *(f"{one[key]:.2f}" for one in reports.values())])
    for name in probes():
        rows.append([name, *(_cell(one, name) for one in reports.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(figures: dict[str, Any], probe: str) -> str:
    unknown = figures["unknown_share"].get(probe)
    return f"{figures['bytes_per_token'][probe]:.2f}" + (f" ({unknown:.0%} unknown)" if unknown else "")
