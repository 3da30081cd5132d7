"""From a corpus, or from another tool's tokenizer, to a tokenizer folder."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seedbed.data.config import TokenizerConfig
from seedbed.data.corpus import Corpus, Split
from seedbed.data.tokenizer_report import report, table
from seedbed.runs import Manifest, command, finished_result, new_folder, write_card, write_result
from seedbed.tokenizers import byte_pair, characters, sentence_piece
from seedbed.tokenizers.bytes import build as build_bytes
from seedbed.tokenizers.foreign import find_file, read_foreign
from seedbed.tokenizers.splits import CHOICES, choose
from seedbed.tokenizers.tokenizer import Tokenizer

PIECE = 16_384
"""Characters of a document that are kept or left out together when a corpus is sampled."""

DEFAULT_VOCABULARY = 8_192

REPORT_BYTES = 2**20
"""Bytes of text the report's figures are measured on."""


def train_tokenizer(config: TokenizerConfig) -> dict[str, Any]:
    """Makes the tokenizer folder `config.out` and returns what result.json says about it.

    Raises DataError for a corpus or tokenizer that is not there or too small for the vocabulary, ConfigError when `out`
    is taken.
    """
    corpus = None if config.corpus is None else Corpus.open(config.corpus, "all" if config.verify else "sizes")
    inputs: dict[str, Path | Manifest | str] = {} if corpus is None else {"corpus": corpus.manifest}
    if config.import_from is not None:
        inputs["import_from"] = find_file(config.import_from)
    names = ("kind", "algorithm", "vocab_size", "max_bytes", "split", "digits", "special_tokens", "extra_tokens")
    settings = {name: getattr(config, name) for name in names}
    done = finished_result(config.out, "tokenizer", lambda: inputs, settings)
    if done is not None and set(done.get("compared", {})) == set(map(str, config.compare)):
        return done
    others = {str(path): read_foreign(path, split=_split_of(path, config)) for path in config.compare}
    with new_folder(config.out, "tokenizer", inputs=inputs, config=settings) as folder:
        tokenizer = _make(config, corpus)
        tokenizer.save(folder)
        samples = [[] if corpus is None else sample(_texts(corpus, of), REPORT_BYTES) for of in ("train", "val")]
        result: dict[str, Any] = {
            "command": command("tokenizer", config),
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "hash": tokenizer.hash,
            "out": str(config.out),
            **report(tokenizer, *samples),
        }
        compared = {
            name: {"kind": other.kind, "vocab_size": other.vocab_size, **report(other, *samples)}
            for name, other in others.items()
        }
        if compared:
            result["compared"] = compared
        write_result(folder, result)
        _write_card(folder, result, config)
    return result


def _make(config: TokenizerConfig, corpus: Corpus | None) -> Tokenizer:
    tokenizer = _grow(config, corpus)
    return tokenizer.with_tokens(config.extra_tokens) if config.extra_tokens else tokenizer


def _grow(config: TokenizerConfig, corpus: Corpus | None) -> Tokenizer:
    if config.import_from is not None:
        return read_foreign(
            config.import_from, split=config.split, digits=config.digits, specials=config.special_tokens
        )
    if config.kind == "bytes":
        return build_bytes(specials=config.special_tokens)
    assert corpus is not None  # the config sees to it
    if config.kind == "characters":
        most = config.vocab_size and config.vocab_size - len(config.extra_tokens)
        return characters.train(_texts(corpus, "train"), most)
    texts = sample(_texts(corpus, "train"), config.max_bytes)
    size = (config.vocab_size or DEFAULT_VOCABULARY) - len(config.extra_tokens)
    if config.kind == "byte_pair":
        return byte_pair.train(texts, size, split=config.split, digits=config.digits)
    alone = config.digits != "free"
    return sentence_piece.train(texts, size, algorithm=config.algorithm or "unigram", individual_digits=alone)


def _split_of(path: Path, config: TokenizerConfig) -> Any:
    """A file of ranks does not say how text is split: as for the tokenizer it is beside, or as cl100k is."""
    return (config.split or "llama-3") if path.suffix == ".tiktoken" else None


def _texts(corpus: Corpus, split: Split) -> Iterator[str]:
    return (document.text for document in corpus.documents(split))


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


def _write_card(folder: Path, result: dict[str, Any], config: TokenizerConfig) -> None:
    does = ["longest tokens: " + " ".join(f"`{text!r}`" for text in result["longest_tokens"])]
    if config.corpus is not None:
        does = [
            f"unknown characters in a sample of held-out text: {result['val_unknown']:,}",
            f"tokens a sample of the training text never uses: {result['unused_tokens']:,}",
            *does,
        ]
    if result["kind"] == "byte_pair" and config.import_from is None:
        does.append(f"text is split as llama.cpp does for `{CHOICES[choose(config.split, config.digits)]}`")
    write_card(
        folder,
        f"Tokenizer: {result['kind']}, {result['vocab_size']:,} tokens",
        {
            "Bytes per token": table({"this": result, **result.get("compared", {})}),
            "What it does": does,
            "How it was made": [f"`{result['command']}`", "The hashes of what it was made from are in manifest.json."],
            "How to use it": "`seedbed tokenize --tokenizer` this folder, or transformers' "
            "`AutoTokenizer.from_pretrained`.",
        },
    )
