"""Claim: text is tokenized at ≥ 3 MB/s a core with the ids of `tokenizers`, on all of books and on 10,000 random
Unicode documents; a vocabulary of 16,384 is trained on books (36 MB) in ≤ 40 s and under 1.5 GB.

Peer: tokenizers (PyPI), one thread, the same tokenizer.json and texts, in turns.
Run: python benchmarks/tokenize.py --json   (books is ../shared/data/books.jsonl.zst; --text names another .jsonl.zst)
"""

from __future__ import annotations

import os
import sys

# Python looks beside the script first, and the standard library has a module of this file's name: whoever imports it,
# here or in another benchmark, is to get that one.
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [place for place in sys.path if os.path.abspath(place) != HERE]
if __name__ == "tokenize":
    del sys.modules["tokenize"]
    __import__("tokenize")

import argparse
import json
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOOKS = Path(__file__).parents[2] / "shared" / "data" / "books.jsonl.zst"
DOCUMENTS = 10_000
PEER_BYTES = 4 << 20
"""The peer is timed on the first texts only: it takes several times as long."""
TRAIN = """
import sys
from pathlib import Path
from seedbed.data.vocabulary import sample
from seedbed.shards import read_rows
from seedbed.tokenizers import byte_pair
texts = sample((row["text"] for row in read_rows(sys.argv[1])), 64 << 20)
byte_pair.train(texts, 16_384).save(Path(sys.argv[2]))
"""


def random_documents(count: int) -> list[str]:
    """Texts of up to 400 characters: of one script or of all, among English words, spaces, digits and signs."""
    draw = random.Random(0)
    scripts = [(0x20, 0x7F), (0x80, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x2000, 0x2C00)]
    scripts += [
        (0x3000, 0xA000),
        (0xAC00, 0xD7A4),
        (0xE000, 0x10000),
        (0x10000, 0x20000),
        (0x1F300, 0x1FB00),
        (0, 0x110000),
    ]
    words = [
        "the ",
        "Don't",
        "I'LL",
        "  ",
        "\n\n",
        "\t",
        "\r\n",
        "12345",
        " 3.14",
        "...",
        "<s>",
        "<|im_end|>",
        "\u00a0",
        "\u0301",
    ]
    documents = []
    for _ in range(count):
        low, high = draw.choice(scripts)
        characters = (chr(draw.randrange(low, high)) for _ in range(draw.randrange(200)))
        parts = [c if draw.random() < 0.7 else draw.choice(words) for c in characters if not "\ud800" <= c <= "\udfff"]
        documents.append("".join(parts))
    return documents


def ids_of_the_peer(peer: Any, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in peer.encode_batch_fast(texts, add_special_tokens=False)]


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "at least 3 MB/s a core": figures["mb_per_s_core"] >= 3,
        "the ids of tokenizers": figures["identical_ids"] is True,
        "16k vocabulary within 40 s": figures["train_seconds"] <= 40,
        "16k vocabulary under 1.5 GB": figures["train_rss_mb"] < 1500,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=BOOKS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a core; training is a process of its own
    import numpy as np
    import tokenizers

    from seedbed.shards import read_rows
    from seedbed.tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
        subprocess.run([sys.executable, "-c", TRAIN, str(arguments.text), folder], check=True, env=environment)
        train_seconds = time.perf_counter() - began
        train_rss_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
        tokenizer = Tokenizer.load(folder)
        peer = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    peer.encode_special_tokens = True
    texts = [row["text"] for row in read_rows(arguments.text)]
    size = sum(len(text.encode()) for text in texts)
    few: list[str] = []
    for text in texts:
        few.append(text[: PEER_BYTES - sum(map(len, few))])
    few = [text for text in few if text]
    speeds: dict[str, list[float]] = {"ours": [], "tokenizers": []}
    for _ in range(arguments.runs + 1):  # the first round builds what encodes fast and is dropped
        began = time.process_time()
        ours = tokenizer.encode_batch(texts)
        speeds["ours"].append(size / 1e6 / (time.process_time() - began))
        began = time.process_time()
        ids_of_the_peer(peer, few)
        speeds["tokenizers"].append(sum(len(text.encode()) for text in few) / 1e6 / (time.process_time() - began))
    documents = random_documents(DOCUMENTS)
    same = [
        np.array_equal(ids, expected)
        for batch, found in ((texts, ours), (documents, tokenizer.encode_batch(documents)))
        for ids, expected in zip(found, ids_of_the_peer(peer, batch), strict=True)
    ]
    bulk = tokenizer._bulk
    speed, peer_speed = (statistics.median(values[1:]) for values in speeds.values())
    figures = {
        "mb_per_s_core": round(speed, 2),
        "identical_ids": all(same),
        "train_seconds": round(train_seconds, 1),
        "train_rss_mb": round(train_rss_mb),
        "mb_per_s_core_tokenizers": round(peer_speed, 2),
        "bulk": bulk is not None,
        "documents_compared": len(same),
        # The others hold characters of which the two disagree, and go through tokenizers here too.
        "random_documents_bulk": sum(bulk is not None and bulk.encode(text) is not None for text in documents),
        "bytes_per_token": round(size / sum(map(len, ours)), 3),
    }
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
