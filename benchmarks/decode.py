"""Claim: a 72M Llama (12 × 512, feed-forward 1408, vocabulary 32768) in int8 makes ≥ 1, 1.8 and 3 × the tokens a second
of llama.cpp's Q8_0 at batch 1, 8 and 32, and ≥ 4, 4 and 5 × those of transformers; in fp32 ≥ 1 × llama.cpp's F32.

64 tokens in, 64 out, two threads, greedy, no end token; tokens a second are those after the first of each row. All have
the same weights, drawn at random; int8 gives the same bits whoever else is served. Peers: transformers (PyPI) and
llama.cpp, prebuilt in node-llama-cpp (npm). One that is not there is null. Each measurement is a process of its own, in
turns.
Run: npm install --prefix FOLDER --ignore-scripts --omit=optional node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
     pip install gguf
     python benchmarks/decode.py --node FOLDER --json   (about 10 minutes)
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

BATCHES = (1, 8, 32)
PROMPT = NEW = 64
CLAIMS = {  # of int8, by batch: times llama.cpp's Q8_0, times transformers
    1: (1.0, 4.0),
    8: (1.8, 4.0),
    32: (3.0, 5.0),
}


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a peer that is not there is not judged."""
    claims = {}
    for batch, (llama, peer) in CLAIMS.items():
        found = figures[f"batch_{batch}"]
        for name, times in (("llama_cpp_q8", llama), ("transformers", peer)):
            if found[name] is not None:
                claims[f"int8 at batch {batch}: {times:g} × {name}"] = found["ours_int8"] >= times * found[name]
        if found["llama_cpp_f32"] is not None:
            claims[f"fp32 at batch {batch}: 1 × llama_cpp_f32"] = found["ours_fp32"] >= found["llama_cpp_f32"]
    return claims


def main() -> None:
    arguments = arguments_of(__doc__, "BATCH")
    if arguments.only:
        print(json.dumps(measure(arguments.only[0], int(arguments.only[1]), PROMPT, NEW, arguments.node)))
        return
    places = [(kind, batch) for batch in BATCHES for kind in KINDS if is_there(kind, arguments.node)]
    found = in_turns(__file__, places, arguments.rounds, arguments.node, quiet=arguments.json)

    def median(kind: str, batch: int, key: str) -> float | None:
        measured = [figures[key] for figures in found.get((kind, batch), [])]
        return round(statistics.median(measured), 1) if measured else None

    figures: dict[str, Any] = {
        f"batch_{batch}": {kind: median(kind, batch, "tokens_per_s") for kind in KINDS} for batch in BATCHES
    }
    figures |= {f"first_ms_{batch}": {kind: median(kind, batch, "first_ms") for kind in KINDS} for batch in BATCHES}
    figures |= {"threads": THREADS, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
