"""transformers' Llama, trained for a time on the rows that seedbed reads: what time_to_quality.py compares with.

As one sets it up today for a CPU: fp32, SDPA, fused AdamW with decay on matrices alone, the gradient's norm clipped to
1, a linear warm-up and then a cosine. Rates follow the clock, so that the cosine ends exactly with the budget.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from seedbed.data.batches.batch import BatchSource, TokenBatch

WARMUP = 0.05
"""Share of the budget over which the rate rises."""


@dataclass(frozen=True, kw_only=True)
class Llama:
    """One run of the peer."""

    sizes: dict[str, Any]
    """Of a LlamaConfig."""
    rate: float
    batch: int
    seed: int

    def build(self) -> tuple[LlamaForCausalLM, torch.optim.AdamW]:
        torch.manual_seed(self.seed)
        model = LlamaForCausalLM(LlamaConfig(**self.sizes, use_cache=False, attn_implementation="sdpa")).train()
        matrices = [weight for weight in model.parameters() if weight.ndim > 1]
        norms = [weight for weight in model.parameters() if weight.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
        return model, torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.95), fused=True)

    def seconds_of_a_step(self, source: BatchSource[TokenBatch], warm: int, counted: int) -> float:
        """The median, on a model that is thrown away."""
        model, optimizer = self.build()
        seconds = [self.step(model, optimizer, source, number) for number in range(warm + counted)]
        return statistics.median(seconds[warm:])

    def train(
        self, source: BatchSource[TokenBatch], budget: float, seconds_of_a_step: float
    ) -> tuple[LlamaForCausalLM, int, float]:
        """The model after so many seconds of training, the steps it took and the seconds it really took."""
        model, optimizer = self.build()
        steps, spent = 0, 0.0
        while spent < budget:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * multiple(spent / budget, seconds_of_a_step / budget)
            spent += self.step(model, optimizer, source, steps)
            steps += 1
        return model.eval(), steps, spent

    def step(
        self, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, source: BatchSource[TokenBatch], number: int
    ) -> float:
        """One optimizer step; the seconds of all of it, reading the rows included."""
        began = time.perf_counter()
        batch = source.batch(number * self.batch, self.batch)
        logits_BTV: Tensor = model(input_ids=batch.tokens_BT).logits
        cross_entropy(logits_BTV.flatten(0, 1), batch.targets_BT.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began


def multiple(spent: float, step: float) -> float:
    """Of the peak rate, for the step that begins when this share of the budget is spent and takes that share."""
    if spent < WARMUP:
        return min(1.0, (spent + step) / WARMUP)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (spent - WARMUP) / (1 - WARMUP))))
