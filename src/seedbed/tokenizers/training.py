"""From a corpus folder to a tokenizer folder."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seedbed.errors import CorruptionError, DataError
from seedbed.runs import command, new_folder, open_folder, verify_file, write_card, write_result
from seedbed.shards import read_rows
from seedbed.tokenizers import byte_pair, characters
from seedbed.tokenizers.bytes import build as build_bytes
from seedbed.tokenizers.config import TokenizerConfig
from seedbed.tokenizers.tokenizer import Tokenizer

PIECE = 16_384
"""Characters of a document that are kept or left out together when a corpus is sampled."""

DEFAULT_VOCABULARY = 8_192

REPORT_BYTES = 2**20
"""Bytes of text the report's figures are measured on."""


def train_tokenizer(config: TokenizerConfig) -> dict[str, Any]:
    """Makes the tokenizer folder `config.out` from a corpus folder and returns what result.json says about it.

    Raises DataError for a corpus that is not there or too small for the vocabulary, ConfigError when `out` is taken.
    """
    manifest = open_folder(config.corpus, "corpus")
    settings = {"kind": config.kind, "vocab_size": config.vocab_size, "max_bytes": config.max_bytes}
    with new_folder(config.out, "tokenizer", inputs={"corpus": manifest}, config=settings) as folder:
        tokenizer = _train(config)
        tokenizer.save(folder)
        result = {
            "command": command("tokenizer", config),
            "out": str(config.out),
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "hash": tokenizer.hash,
            **measure(tokenizer, config.corpus),
        }
        write_result(folder, result)
        _write_card(folder, result, manifest.hash)
    return result


def _train(config: TokenizerConfig) -> Tokenizer:
    if config.kind == "bytes":
        return build_bytes()
    if config.kind == "characters":
        return characters.train(corpus_texts(config.corpus, "train"), config.vocab_size)
    texts = sample(corpus_texts(config.corpus, "train"), config.max_bytes)
    return byte_pair.train(texts, config.vocab_size or DEFAULT_VOCABULARY)


def corpus_texts(corpus: Path, split: str) -> Iterator[str]:
    """The texts of a corpus folder's documents, shard after shard. DataError when the split has no shards."""
    manifest = open_folder(corpus, "corpus")
    shards = sorted(name for name in manifest.files if name.startswith(f"{split}-"))
    if not shards:
        raise DataError(f"{corpus} holds no {split}-*.jsonl.zst")
    for shard in shards:
        verify_file(corpus, manifest, shard)
        for number, row in enumerate(read_rows(corpus / shard), start=1):
            if not isinstance(row.get("text"), str):
                raise CorruptionError(f"{corpus / shard}, row {number}: it has no text")
            yield row["text"]


def sample(texts: Iterable[str], max_bytes: int) -> list[str]:
    """Pieces of the texts, in their order, at most `max_bytes` of UTF-8 together: everything when it fits, else an even
    random choice. One pass, memory bounded by `max_bytes`, the same choice each time.

    Each piece draws a number, and those with the smallest stay (bottom-k sampling), which needs no count beforehand.
    """
    draw = random.Random(0)
    kept: list[tuple[float, int, int, str]] = []  # a heap with the largest draw on top, hence the minus below
    total = 0
    for order, piece in enumerate(piece for text in texts for piece in _pieces(text)):
        size = len(piece.encode("utf-8", errors="surrogatepass"))
        heapq.heappush(kept, (-draw.random(), order, size, piece))
        total += size
        while total > max_bytes:
            total -= heapq.heappop(kept)[2]
    return [piece for _, _, _, piece in sorted(kept, key=lambda entry: entry[1])]


def _pieces(text: str) -> Iterator[str]:
    """Pieces of about PIECE characters, cut before white space where there is some soon, so that words stay whole."""
    start = 0
    while start < len(text):
        end = start + PIECE
        while end < min(len(text), start + 2 * PIECE) and not text[end].isspace():
            end += 1
        yield text[start:end]
        start = end


def measure(tokenizer: Tokenizer, corpus: Path) -> dict[str, Any]:
    """How a tokenizer fits a corpus: bytes per token on held-out text, and on training text the tokens never used."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    figures: dict[str, float] = {}
    for split in ("val", "train"):
        texts = sample(corpus_texts(corpus, split), REPORT_BYTES)
        ids = [ids for ids in tokenizer.encode_batch(texts) if len(ids)]
        tokens = sum(map(len, ids))
        size = sum(len(text.encode("utf-8")) for text in texts)
        figures[f"{split}_bytes_per_token"] = round(size / tokens, 4) if tokens else 0.0
        figures[f"{split}_unknown"] = sum(int((i == tokenizer.unk_id).sum()) for i in ids)
        if split == "train":
            for i in ids:
                counts += np.bincount(i, minlength=tokenizer.vocab_size)
    special = set(tokenizer.special_ids.values())
    unused = [id for id in np.flatnonzero(counts == 0).tolist() if id not in special]
    sizes = tokenizer.token_bytes()
    longest = np.argsort(-sizes, kind="stable")[:10].tolist()
    return {
        **figures,
        "unused_tokens": len(unused),
        "longest_tokens": [tokenizer.token_text(id) for id in longest],
    }


def _write_card(folder: Path, result: dict[str, Any], corpus_hash: str) -> None:
    write_card(
        folder,
        f"Tokenizer: {result['kind']}, {result['vocab_size']:,} tokens",
        {
            "What it does": [
                f"{result['val_bytes_per_token']:.2f} bytes of held-out text per token "
                f"({result['train_bytes_per_token']:.2f} of training text)",
                f"unknown characters in a sample of held-out text: {result['val_unknown']:,}",
                f"tokens a sample of the training text never uses: {result['unused_tokens']:,}",
                "longest tokens: " + " ".join(f"`{text!r}`" for text in result["longest_tokens"]),
            ],
            "What it is made from": [f"corpus `{corpus_hash}`", f"by `{result['command']}`"],
            "How to use it": "`seedbed tokenize --tokenizer` this folder, or transformers' "
            "`AutoTokenizer.from_pretrained`.",
        },
    )
