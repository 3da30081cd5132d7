"""Claim: QLoRA holds its base in at most 30% of the bytes that it has in fp32, also at the peak of a step, and what it
has learned computes the same, to 1e-3, when it is merged into what the base's bits stand for.

A model of 8 × 256 takes one step of 8 tokens, so that what is held is the base and not activations: its own bits, the
small matrices, and whatever is made of them in passing, as the profiler counts allocations. Merged is compared with
worn after the small matrices were moved at random.
Run: python benchmarks/qlora_memory.py --json   (seconds). Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from seedbed.data.batches.batch import TokenBatch
from seedbed.model.adapters.adapter import LoraAdapter, merge
from seedbed.model.adapters.config import LoraConfig
from seedbed.model.config import ModelConfig
from seedbed.model.linears.layers import nf4
from seedbed.model.transformer import Transformer
from seedbed.training.objective import NextToken


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "the base in at most 30% of fp32": figures["base_share"] <= 0.3,
        "at most 30% at the peak of a step": figures["peak_share"] <= 0.3,
        "merged as worn": figures["merged_difference"] <= 1e-3,
    }


def measure() -> dict[str, float]:
    """Shares of the base's bytes in fp32, and the largest difference of a logit."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=1024, layers=8, width=256, heads=4, ff_width=768, context=32).resolve())
    with torch.no_grad():
        for weight in model.parameters():  # a fresh head says nothing
            weight += 0.05 * torch.randn(weight.shape)
    whole = sum(weight.nbytes for weight in model.parameters())
    model = LoraAdapter(LoraConfig(), Path("base"), over_nf4=True).put_on(nf4(model))
    tokens_BT = torch.randint(1024, (1, 8))
    held = sum(weight.nbytes for weight in model.parameters() if not weight.requires_grad)
    held += sum({buffer.data_ptr(): buffer.nbytes for buffer in model.buffers()}.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        NextToken().loss(model, TokenBatch(tokens_BT, tokens_BT.roll(-1, 1))).sum.backward()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    passing = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    with torch.no_grad():
        for weight in model.moving.values():
            weight += 0.05 * torch.randn(weight.shape)
        worn = model(tokens_BT)
        merge(model)
        difference = float((model(tokens_BT) - worn).abs().max())
    return {
        "base_share": held / whole,
        "peak_share": (held + max(passing)) / whole,
        "merged_difference": difference,
        "largest_logit": float(worn.abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    parser.parse_args()
    figures: dict[str, Any] = measure()
    figures["machine"] = f"{platform.machine()} {platform.system()}, Python {platform.python_version()}"
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
