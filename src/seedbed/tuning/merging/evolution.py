"""Weights of a merge found by trying: CMA-ES on the loss of held-out text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from seedbed.data.batches.loader import WindowSource
from seedbed.data.tokens import open_tokens
from seedbed.model.transformer import Transformer
from seedbed.progress import progress
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import NextToken, Tally, refuse_both_ways
from seedbed.tuning.merging.config import EvolveConfig
from seedbed.tuning.merging.recipe import Weights

ROWS = 8
"""That go through the model at once."""


@dataclass
class Found:
    """The best weights of all trials."""

    weights: list[float]
    loss: float = math.inf
    losses: list[float] = field(default_factory=list)
    """Of each trial, in their order."""

    def add(self, weights: Sequence[float], loss: float) -> None:
        self.losses.append(loss)
        if loss < self.loss:
            self.weights, self.loss = list(weights), loss


def evolve(start: Sequence[float], measure: Callable[[Sequence[float]], float], config: EvolveConfig) -> Found:
    """Tries `config.trials` weights, those given first; a loss that is no number counts as infinite."""
    found = Found(list(start))
    with progress("trying weights", total=config.trials, unit="trials") as advance:

        def tried(weights: Sequence[float]) -> float:
            loss = measure(weights)
            loss = loss if math.isfinite(loss) else math.inf
            found.add(weights, loss)
            advance(1)
            return loss

        tried(start)
        strategy = _strategy(start, config)
        while (left := config.trials - len(found.losses)) > 0 and not strategy.stop():
            candidates = strategy.ask()
            if left < len(candidates):
                for candidate in candidates[:left]:
                    tried(candidate.tolist())
                break
            strategy.tell(candidates, [tried(candidate.tolist()) for candidate in candidates])
    return found


def _strategy(start: Sequence[float], config: EvolveConfig) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no matplotlib
        import cma
    options = {"seed": config.seed + 1, "verbose": -9, "verb_log": 0, "verb_disp": 0}  # its 0 is the clock
    return cma.CMAEvolutionStrategy(list(start), config.spread, options)


class HeldOut:
    """The loss of a model on validation text."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, config: EvolveConfig):
        """`model` is what the weights are put into."""
        assert config.tokens is not None
        refuse_both_ways(model.config)
        tokens = open_tokens(config.tokens)
        tokens.check(tokenizer)
        source = WindowSource(tokens.val, model.config.context, seed=0)
        rows = min(config.rows, source.samples)
        self.model = model
        self.batches = [source.batch(first, min(ROWS, rows - first)) for first in range(0, rows, ROWS)]

    @torch.inference_mode()
    def __call__(self, weights: Weights) -> float:
        """Nats a token."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])
        objective, tally = NextToken(), Tally()
        for batch in self.batches:
            tally += objective.loss(self.model, batch)
        return objective.report(tally)["loss"]
