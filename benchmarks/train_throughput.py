"""Claim: a training step of a 16.9M Llama (6 × 384, vocabulary 8192, 8 rows of 256, fp32) is ≥ 1.1 times as fast as
that of transformers and peaks at ≤ 0.7 of its memory, each as it is usually begun; at `llama-small` (12 × 512,
vocabulary 32768, context 1024) the products of the model alone, causal attention counted in full, are ≥ 75% of the
fastest product of matrices measured beside it; Muon takes ≤ 15% of a step more than AdamW.

Ours is the whole step of the trainer: batch, loss, backward pass, clipping, optimizer. The peer is transformers (PyPI),
eager, its own loss, no clipping. Both have fused AdamW. Each runs in processes of its own, in turns: ours with the
settings that the command `seedbed` gives itself (huge pages, glibc's tunables), the peer without. Memory is the most
that a process ever held, imports included. Told but not judged: `turns_ratio`, of both taking turns step by step in one
process, whose settings and neighbour cost the peer time; `alike_…`, the peer in a process of its own with our settings;
`full_…`, ours with `recompute: full`; `int8_ratio`, how many times as long as with `precision: int8` a step
of `llama-small` takes in fp32, in turns. Muon is measured at the default batch, 16 rows of 512, against AdamW for
everything.
Run: python benchmarks/train_throughput.py --json   (about 15 minutes on 2 cores)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seedbed.__main__ import SPARING

SIZES = {"vocab_size": 8192, "layers": 6, "width": 384, "heads": 6, "ff_width": 1024, "context": 256}
SMALL = {"vocab_size": 32768, "layers": 12, "width": 512, "heads": 8, "ff_width": 2048, "context": 1024}
WITH_PEER = ("turns", "peer", "alike")
KINDS = (*WITH_PEER, "ours", "full", "small", "int8", "muon", "adamw")
"""What is measured, each in a process of its own."""
WARM = 2
"""Steps that are not counted: memory is taken, kernels are chosen."""


class Noise:
    """Rows of random tokens: what they say does not change how long they take."""

    fingerprint = "noise"
    samples = 10**9

    def __init__(self, vocabulary: int, length: int):
        self.vocabulary, self.length = vocabulary, length

    def batch(self, first: int, count: int) -> Any:
        import torch

        from seedbed.data.batches.batch import TokenBatch

        generator = torch.Generator().manual_seed(first)
        rows = torch.randint(self.vocabulary, (count, self.length + 1), generator=generator)
        return TokenBatch(rows[:, :-1], rows[:, 1:])


def our_step(
    sizes: Mapping[str, int], rows: int, optimizer: str, folder: Path, **train: Any
) -> tuple[Any, Callable[[], object]]:
    """A trainer, and its step."""
    import torch

    from seedbed.model.config import ModelConfig
    from seedbed.model.transformer import Transformer
    from seedbed.optim.config import OptimizerConfig, ScheduleConfig
    from seedbed.training.config import TrainConfig
    from seedbed.training.display import Display
    from seedbed.training.objective import NextToken
    from seedbed.training.trainer import Trainer

    torch.manual_seed(0)
    trainer = Trainer(
        Transformer(ModelConfig(**sizes)),
        NextToken(),
        Noise(sizes["vocab_size"], sizes["context"]),
        None,
        config=TrainConfig(**{"steps": 10**6, "batch": rows, "precision": "fp32", "compile": "off"} | train),
        optimizer=OptimizerConfig(name=optimizer),
        schedule=ScheduleConfig(),
        run=folder,
        display=Display("", flops_per_token=1, peak_flops=1, quiet=True),
    )
    return trainer, trainer.step


def peer_step(sizes: Mapping[str, int], rows: int) -> Callable[[], object]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sizes["vocab_size"],
        num_hidden_layers=sizes["layers"],
        hidden_size=sizes["width"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["ff_width"],
        max_position_embeddings=sizes["context"],
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    source = Noise(sizes["vocab_size"], sizes["context"])

    def step() -> None:
        batch = source.batch(0, rows)
        model(input_ids=batch.tokens_BT, labels=batch.tokens_BT).loss.backward()  # it shifts the targets itself
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(step: Callable[[], object], steps: int) -> float:
    """Seconds of a step, the median of so many."""
    seconds = []
    for _ in range(WARM + steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM:])


def in_turns(ours: Callable[[], object], peers: Callable[[], object], steps: int) -> dict[str, float]:
    """Seconds of a step of each, and how many times as long the peer's takes."""
    seconds: dict[Callable[[], object], list[float]] = {ours: [], peers: []}
    for _ in range(WARM + steps):
        for step, taken in seconds.items():
            began = time.perf_counter()
            step()
            taken.append(time.perf_counter() - began)
    pairs = list(zip(seconds[ours][WARM:], seconds[peers][WARM:], strict=True))
    return {
        "ours_seconds": statistics.median(one for one, _ in pairs),
        "peer_seconds": statistics.median(other for _, other in pairs),
        "ratio": statistics.median(other / one for one, other in pairs),
    }


def measure(what: str, steps: int) -> dict[str, float]:
    """In a process of its own."""
    import torch

    from seedbed.devices import gemm_peak, peak_memory_mb
    from seedbed.model.accounting import training_flops

    if what in ("peer", "alike"):
        seconds = timed(peer_step(SIZES, 8), steps)
        return {"peak_mb": peak_memory_mb(), "seconds": seconds}
    with tempfile.TemporaryDirectory() as folder:
        if what == "turns":
            _, step = our_step(SIZES, 8, "adamw", Path(folder))
            return in_turns(step, peer_step(SIZES, 8), 2 * steps)
        if what in ("ours", "full"):
            _, step = our_step(SIZES, 8, "adamw", Path(folder), recompute="none" if what == "ours" else what)
            seconds = timed(step, steps)
            return {"peak_mb": peak_memory_mb(), "seconds": seconds}
        if what == "int8":
            steps_of = [
                our_step(SMALL, 4, "adamw", Path(folder) / precision, precision=precision)[1]
                for precision in ("int8", "fp32")
            ]
            return {"ratio": in_turns(*steps_of, steps)["ratio"]}
        if what in ("muon", "adamw"):
            trainer, step = our_step({**SIZES, "context": 512}, 16, what, Path(folder))
            seconds = timed(step, steps)
            for _, batch in trainer.micro_batches(0):
                trainer.objective.loss(trainer.model, batch).sum.backward()
            return {"seconds": seconds, "optimizer": timed(lambda: [part.step() for part in trainer.optimizers], steps)}
        trainer, step = our_step(SMALL, 4, "adamw", Path(folder))
        peak = gemm_peak.__wrapped__
        before = peak(torch.device("cpu"))
        seconds = timed(step, steps)
        fastest = max(before, peak(torch.device("cpu")))
        flops = training_flops(trainer.model.config, SMALL["context"]) * 4 * SMALL["context"]
        return {"seconds": seconds, "gemm_fraction": flops / seconds / fastest, "gemm_gflops": fastest / 1e9}


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none, a peer that is not there is not judged."""
    claims = {
        "75% of the GEMM peak": figures["gemm_fraction"] >= 0.75,
        "Muon at most 15% of a step more than AdamW": figures["muon_overhead"] <= 0.15,
    }
    if figures["ratio"] is not None:
        claims["at least 1.1 times transformers"] = figures["ratio"] >= 1.1
        claims["at most 0.7 of its memory"] = figures["memory_ratio"] <= 0.7
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, in turns")
    parser.add_argument("--steps", type=int, default=8, help="steps that count in each")
    parser.add_argument("--only", choices=KINDS, help="one measurement, here")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.steps)))
        return
    try:
        from importlib.metadata import version

        peer: str | None = version("transformers")
    except ImportError:
        peer = None
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for what in KINDS if peer else KINDS[len(WITH_PEER) :]:
            command = [sys.executable, __file__, "--only", what, "--steps", str(arguments.steps)]
            # How memory is taken: what the command `seedbed` sets for itself, and what a program of the peer's has.
            memory = {"THP_MEM_ALLOC_ENABLE": "0"} if what == "peer" else {"THP_MEM_ALLOC_ENABLE": "1", **SPARING}
            environment = os.environ | memory
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            found.setdefault(what, []).append(json.loads(done.stdout.splitlines()[-1]))

    def median(what: str, key: str) -> float:
        return statistics.median(figures[key] for figures in found[what])

    figures: dict[str, Any] = {
        "ratio": median("peer", "seconds") / median("ours", "seconds") if peer else None,
        "memory_ratio": median("ours", "peak_mb") / median("peer", "peak_mb") if peer else None,
        "memory_ratio_alike": median("ours", "peak_mb") / median("alike", "peak_mb") if peer else None,
        "gemm_fraction": median("small", "gemm_fraction"),
        "muon_overhead": (median("muon", "optimizer") - median("adamw", "optimizer")) / median("muon", "seconds"),
        **{f"{what}_{key}": median(what, key) for what, kinds in found.items() for key in kinds[0]},
    }
    figures = {key: value if value is None else round(value, 3) for key, value in figures.items()}
    figures |= {"transformers": peer, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
