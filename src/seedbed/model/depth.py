"""What `model.depth` makes of a model and of its training, by the rules of `optim/scaling.py`. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seedbed.model.accounting import multiplied_parameters
from seedbed.model.config import ModelConfig
from seedbed.optim.config import LIKE_MUON, RATES, OptimizerConfig
from seedbed.optim.scaling import (
    ANCHOR_WIDTH,
    TOKENS_PER_PARAMETER,
    batch_tokens,
    batch_tokens_for,
    rate_factor,
    weight_decay,
    width_factor,
)

TOKENS_AT_ONCE = 16_384
"""That pass through the model together: more are hardly faster, and their activations fill memory."""

WIDTH_POWERS = {"matrix_rate": 0.0, "embedding_rate": -0.5, "head_rate": -0.5, "vector_rate": 0.0}
"""How the rates beside Muon go with the width."""

ONE_RATE = ("adamw", "lion", "adafactor")
"""Optimizers with one rate for all, whose steps do not grow with the gradient: it goes with 1/width (µP)."""


@dataclass(frozen=True)
class Derived:
    """A setting that was left out, what it became, and by which rule."""

    key: str
    value: float
    rule: str


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is given of a run's size; what is None follows."""

    batch: int | None = None
    """Rows of a step."""
    micro_batch: int | None = None
    steps: int | None = None
    tokens: float | None = None
    """In all."""
    timed: bool = False
    """Minutes are given: how many tokens fit in is measured later, and nothing that hangs on it is derived."""
    horizon: float | None = None
    """Tokens a parameter."""


def derive_sizes(given: ModelConfig, model: ModelConfig) -> list[Derived]:
    """Sizes that `given` leaves to its depth, as they stand in the resolved `model`."""
    rules = {
        "layers": "depth",
        "width": "64 × depth, in whole heads (Karpathy 2025)",
        "heads": f"of {model.head_width}; 64, from 16 layers on 128",
    }
    return [
        Derived(f"model.{name}", getattr(model, name), rule)
        for name, rule in rules.items()
        if getattr(given, name) is None
    ]


def derive_training(model: ModelConfig, length: int, optimizer: OptimizerConfig, budget: Budget) -> list[Derived]:
    """Batch, steps, rates and decay that are left out, for a resolved model and rows of `length` tokens."""
    found: list[Derived] = []
    parameters, horizon = multiplied_parameters(model), budget.horizon or TOKENS_PER_PARAMETER
    tokens = budget.tokens
    if tokens is None and budget.steps is None and not budget.timed:
        tokens = horizon * parameters

    batch = budget.batch
    if batch is None and not budget.timed:
        wanted = batch_tokens(tokens) if tokens is not None else batch_tokens_for(budget.steps or 1)
        batch = 2 ** max(0, round(math.log2(wanted / length)))
        rule = f"62.7·D^0.383 = {wanted:,.0f} tokens, a power of 2 (Bergsma et al. 2025)"
        found.append(Derived("train.batch", batch, rule))
    at_once = max(1, TOKENS_AT_ONCE // length)
    if budget.micro_batch is None and batch is not None and batch > at_once:
        found.append(Derived("train.micro_batch", at_once, f"{TOKENS_AT_ONCE:,} tokens at once"))

    steps = budget.steps
    if steps is None and tokens is not None and batch is not None:
        steps = max(1, round(tokens / (batch * length)))
        if budget.tokens is None:
            rule = f"{horizon:g} tokens for each of {parameters:,} parameters (Hoffmann et al. 2022)"
            found.append(Derived("train.steps", steps, rule))
    if steps is not None and batch is not None:
        tokens = float(steps * batch * length)

    factor, rule = 1.0, "1: minutes are given, and so the tokens are not known"
    if tokens is not None and batch is not None:
        factor = rate_factor(batch * length, tokens)
        rule = "√B (Malladi et al. 2022), D^-0.32 (Bjorck et al. 2024)"
    rates = _rates(optimizer, model.width, factor, rule)
    found += rates
    if optimizer.weight_decay is None and steps is not None and tokens is not None:
        name = "matrix_rate" if optimizer.name in LIKE_MUON else "rate"
        rate = next(
            (item.value for item in rates if item.key == f"optimizer.{name}"), getattr(optimizer.resolve(), name)
        )
        decay = _short(weight_decay(rate, steps, tokens / parameters))
        rule = "1/(rate·steps·τ), τ = 1.084·(D/N)^-0.527 (Wang & Aitchison 2024; Bergsma et al. 2025)"
        found.append(Derived("optimizer.weight_decay", decay, rule))
    return found


def _rates(optimizer: OptimizerConfig, width: int, factor: float, rule: str) -> list[Derived]:
    """The rates that are left out, each times `factor` and a power of the width."""
    if optimizer.name in LIKE_MUON:
        bases, powers = RATES, WIDTH_POWERS
    elif optimizer.name in ONE_RATE:
        bases, powers = {"rate": optimizer.resolve().rate or 0.0}, {"rate": -1.0}
    else:
        return []
    found = []
    for name, power in powers.items():
        if getattr(optimizer, name) is None:
            of_width = {0.0: "", -0.5: f", √({ANCHOR_WIDTH}/width) (Karpathy 2025)"}.get(
                power, f", {ANCHOR_WIDTH}/width (Yang et al. 2022)"
            )
            value = _short(bases[name] * factor * width_factor(width, power))
            found.append(Derived(f"optimizer.{name}", value, f"{bases[name]:g} × {rule}{of_width}"))
    return found


def _short(value: float) -> float:
    """Three digits: more would promise what the rules do not hold."""
    return float(f"{value:.2e}")


def table(derived: Sequence[Derived]) -> str:
    """A setting a line: what it became, and by which rule."""
    names = [item.key for item in derived]
    values = [f"{item.value:,}" for item in derived]
    width, size = max(map(len, names)), max(map(len, values))
    lines = [
        f"  {name:<{width}}  {value:>{size}}  {item.rule}"
        for name, value, item in zip(names, values, derived, strict=True)
    ]
    return "\n".join(["depth makes, of what was left out:", *lines])
