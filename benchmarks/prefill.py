"""Claim: a 72M Llama in int8 reads a prompt of 512 tokens at ≥ 2 × the speed of llama.cpp's Q8_0.

Model, peers and their installation are those of `decode.py`; tokens a second are those of the prompt until the first
answer, of one prompt alone, two threads. One that is not there is null. Each measurement is a process of its own, in
turns.
Run: python benchmarks/prefill.py --node FOLDER --json   (about 3 minutes)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers.generating import KINDS, THREADS, arguments_of, in_turns, is_there, measure

LENGTHS = (128, 512)


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a peer that is not there is not judged."""
    found = figures["tokens_512"]
    peer = found["llama_cpp_q8"]
    return {} if peer is None else {"int8: 2 × llama_cpp_q8 for 512 tokens": found["ours_int8"] >= 2 * peer}


def main() -> None:
    arguments = arguments_of(__doc__, "LENGTH")
    if arguments.only:
        print(json.dumps(measure(arguments.only[0], 1, int(arguments.only[1]), 1, arguments.node)))
        return
    places = [(kind, length) for length in LENGTHS for kind in KINDS if is_there(kind, arguments.node)]
    found = in_turns(__file__, places, arguments.rounds, arguments.node, quiet=arguments.json)

    def speed(kind: str, length: int) -> float | None:
        """Tokens of the prompt a second."""
        measured = [figures["first_ms"] for figures in found.get((kind, length), [])]
        return round(1e3 * length / statistics.median(measured), 1) if measured else None

    figures: dict[str, Any] = {f"tokens_{length}": {kind: speed(kind, length) for kind in KINDS} for length in LENGTHS}
    figures |= {"threads": THREADS, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
