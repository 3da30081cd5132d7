"""Claim: 200 requests that come at random moments are answered at ≥ 4 × the tokens a second of transformers.

Prompts of 16 to 512 tokens, answers of 8 to 256, half of the prompts with the same 256 first tokens; arrivals are a
Poisson process of 20 a second, faster than any side answers. The model is the 72M Llama of `decode.py`, greedy, no end
token, two threads. transformers answers in static batches: all who are waiting when it is free, 32 at most, padded on
the left, until the longest answer is done. Ours is told in int8 and in fp32; the claim is of int8. Times are of the
first token since arrival, and between two tokens of one answer.
Run: python benchmarks/serving_mix.py --json   (about 10 minutes)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers.generating import SIZES, THREADS, our_engine, theirs

REQUESTS, RATE, ROWS = 200, 20.0, 32
SHARED = 256
KINDS = ("ours_int8", "ours_fp32", "transformers")


@dataclass
class Request:
    arrival: float
    tokens: list[int]
    new: int
    times: list[float] = field(default_factory=list)
    """Of its tokens, since the beginning."""


def requests() -> list[Request]:
    """The same for all sides."""
    drawn = np.random.default_rng(0)
    arrivals = np.cumsum(drawn.exponential(1 / RATE, REQUESTS))
    prefix = drawn.integers(3, SIZES["vocab_size"], SHARED).tolist()
    made = []
    for number, arrival in enumerate(arrivals):
        shares = number % 2 == 0
        length = int(drawn.integers(SHARED + 16 if shares else 16, 513))
        tokens = drawn.integers(3, SIZES["vocab_size"], length).tolist()
        tokens = prefix + tokens[SHARED:] if shares else tokens
        made.append(Request(float(arrival), tokens, int(drawn.integers(8, 257))))
    return made


def ours(scheme: str) -> list[Request]:
    from seedbed.inference.config import SamplingConfig

    engine = our_engine(scheme, rows=ROWS)
    engine.complete([[5] * 64] * 2, SamplingConfig(max_tokens=8, temperature=0))  # kernels are compiled by now
    everyone, began = requests(), time.perf_counter()
    coming, under_way = list(everyone), {}
    while coming or under_way:
        now = time.perf_counter() - began
        while coming and coming[0].arrival <= now:
            request = coming.pop(0)
            sampling = SamplingConfig(max_tokens=request.new, temperature=0)
            under_way[engine.submit(request.tokens, sampling)] = request
        if not under_way:
            time.sleep(max(0.0, coming[0].arrival - now))
            continue
        told = engine.step()
        now = time.perf_counter() - began
        for generation, _ in told:
            under_way[generation].times.append(now)
            if generation.reason is not None:
                del under_way[generation]
    return everyone


def transformers() -> list[Request]:
    import torch
    from transformers import GenerationConfig, StoppingCriteria

    class Clock(StoppingCriteria):
        """Asked after each step."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, tokens: Any, scores: Any, **other: Any) -> Any:
            self.times.append(time.perf_counter() - began)
            return torch.zeros(len(tokens), dtype=torch.bool)

    peer = theirs()
    everyone, began = requests(), time.perf_counter()
    coming = list(everyone)
    while coming:
        now = time.perf_counter() - began
        batch = [request for request in coming[:ROWS] if request.arrival <= now]
        if not batch:
            time.sleep(max(0.0, coming[0].arrival - now))
            continue
        del coming[: len(batch)]
        longest, clock = max(len(request.tokens) for request in batch), Clock()
        tokens = torch.tensor([[0] * (longest - len(request.tokens)) + request.tokens for request in batch])
        mask = torch.tensor([[int(place >= longest - len(r.tokens)) for place in range(longest)] for r in batch])
        new = max(request.new for request in batch)
        how = GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
        with torch.inference_mode():
            peer.generate(tokens, attention_mask=mask, generation_config=how, stopping_criteria=[clock])
        for request in batch:
            request.times = clock.times[: request.new]
    return everyone


def measure(kind: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(THREADS)
    answered = transformers() if kind == "transformers" else ours(kind.removeprefix("ours_"))
    assert all(len(request.times) == request.new for request in answered)
    first = [request.times[0] - request.arrival for request in answered]
    between = np.concatenate([np.diff(request.times) for request in answered])
    seconds = max(request.times[-1] for request in answered)
    return {
        "tokens_per_s": sum(request.new for request in answered) / seconds,
        **{f"first_s_p{p}": float(np.percentile(first, p)) for p in (50, 99)},
        **{f"between_ms_p{p}": 1e3 * float(np.percentile(between, p)) for p in (50, 99)},
    }


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a peer that is not there is not judged."""
    return {} if figures["ratio"] is None else {"4 × transformers in static batches": figures["ratio"] >= 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=KINDS, help="one measurement, here")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only)))
        return
    figures: dict[str, Any] = {}
    for kind in KINDS if importlib.util.find_spec("transformers") else KINDS[:2]:
        command = [sys.executable, __file__, "--only", kind]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        figures |= {f"{kind}_{key}": round(value, 3) for key, value in found.items()}
        if not arguments.json:
            print(kind, found, flush=True)
    peer = figures.get("transformers_tokens_per_s")
    figures["ratio"] = None if peer is None else round(figures["ours_int8_tokens_per_s"] / peer, 2)
    figures |= {"threads": THREADS, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
