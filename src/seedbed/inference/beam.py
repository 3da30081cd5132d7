"""Beam search: the likeliest continuations, as far as following a few of them side by side finds them.

Of all ways to go on from all beams by one token the likeliest are followed; those that have ended are kept aside. A
score is the sum of log-probabilities / length^length_penalty, the length with the token that ended it, as transformers
has it (Wu et al. 2016, arXiv:1609.08144, §7, divide by ((5 + length) / 6)^penalty). In diverse beam search (Vijayakumar
et al. 2016, arXiv:1610.02424, algorithm 1, with Hamming diversity) beams are in groups, of which each avoids the tokens
that those before it take in the same step; what it avoids decides who is followed, and is no part of a score.

Shape suffixes: B beams, D model width, V vocabulary.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seedbed.inference.branches import Branches
from seedbed.inference.config import SearchConfig
from seedbed.inference.generation import Completion, Generation, Likelihood
from seedbed.inference.sampling import exact, likeliest, no_choice

if TYPE_CHECKING:
    from seedbed.inference.engine import Engine


@torch.inference_mode()
def beam_search(
    engine: Engine, ids: Sequence[int], config: SearchConfig, adapter: str | None = None
) -> list[Completion]:
    """The `best` of what is found, the best first, no two with the same tokens. `beams` must be set."""
    assert config.beams is not None
    with Branches(engine) as branches:
        first = engine.begin(ids, config, adapter=adapter)
        engine.scheduler.find_beginning(first)
        branches.grow(first, most=config.beams, apart=len(ids))
        while first.missing:
            x_BD = branches.read([first])[-1:]
        groups = [Group(branches, first, config) for _ in range(config.beam_groups)]
        x_BD = x_BD.expand(len(groups), -1)
        branches.drop(first)
        while beams := [beam.branch for group in groups for beam in group.beams]:
            if first.deadline is not None and first.deadline <= time.monotonic():
                for group in groups:
                    group.stop()
                break
            _advance(groups, beams, engine.model.logits(x_BD)[:, : engine.vocabulary], engine)
            if beams := [beam.branch for group in groups for beam in group.beams]:
                x_BD = branches.read(beams)
    return _best(groups, config.best)


def _advance(groups: Sequence[Group], beams: Sequence[Generation], logits_BV: Tensor, engine: Engine) -> None:
    """All beams by one token, group after group."""
    logprobs_BV = exact(engine.choosing.adjusted(logits_BV, beams)).log_softmax(-1)
    # A beam that has no possible token, or no numbers, cannot go on.
    possible_BV = logprobs_BV.nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    taken: Counter[int] = Counter()
    at = 0
    for group in groups:
        here = slice(at, at := at + len(group.beams))
        if group.beams:
            taken.update(group.advance(logits_BV[here], possible_BV[here], taken))
    if not any(group.beams or group.finished for group in groups):
        raise no_choice(logits_BV)


def _best(groups: Sequence[Group], count: int) -> list[Completion]:
    found: dict[tuple[int, ...], Completion] = {}
    for group in groups:
        for tokens, completion in group.finished.items():
            if tokens not in found or _score(found[tokens]) < _score(completion):
                found[tokens] = completion
    return sorted(found.values(), key=_score, reverse=True)[:count]


def _score(completion: Completion) -> float:
    assert completion.score is not None
    return completion.score


@dataclass(frozen=True)
class Beam:
    """A continuation that is followed."""

    branch: Generation
    total: float
    """The logarithm of its probability."""


class Group:
    """Beams that are compared with one another, and the best of those that have ended."""

    def __init__(self, branches: Branches, first: Generation, config: SearchConfig):
        assert config.beams is not None
        self.branches, self.config, self.width = branches, config, config.beams // config.beam_groups
        self.longest = first.limit - first.prompt
        self.beams = [Beam(branches.fork(first), 0.0)]
        self.finished: dict[tuple[int, ...], Completion] = {}
        """By their tokens: one that ended by another end token is the same."""

    def advance(self, logits_BV: Tensor, logprobs_BV: Tensor, taken: Counter[int]) -> list[int]:
        """By one token. `taken`: how many beams of earlier groups took each. Gives the tokens of those that go on."""
        engine, beams = self.branches.engine, self.beams
        totals_BV = torch.tensor([[beam.total] for beam in beams], device=logprobs_BV.device) + logprobs_BV
        ranks_BV = totals_BV.clone()
        for token, count in taken.items():
            ranks_BV[:, token] -= self.config.diversity * count
        # So many that enough of them go on when each beam's likeliest tokens are those that end.
        candidates = likeliest(ranks_BV, self.width * (1 + max(1, len(engine.tokenizer.end_ids))))
        self.beams = []
        for rank, (parent, token) in enumerate(candidates):
            if len(self.beams) == self.width:
                break
            branch, total = self.branches.fork(beams[parent].branch), totals_BV[parent, token].item()
            if self.config.logprobs is not None:
                branch.likelihoods.append(Likelihood.of(token, logits_BV[parent], self.config.logprobs))
            engine.choosing.take(branch, token)
            if branch.reason is None:
                self.beams.append(Beam(branch, total))
                continue
            self.branches.drop(branch)
            if rank < self.width:
                self._finish(branch, total)
        for beam in beams:
            self.branches.drop(beam.branch)
        if self._is_done():
            self._drop()
        return [beam.branch.tokens[-1] for beam in self.beams]

    def stop(self) -> None:
        """The time is over: beams count as they are."""
        for beam in self.beams:
            self.branches.engine.choosing.end(beam.branch, "timeout")
            self._finish(beam.branch, beam.total)
        self._drop()

    def _drop(self) -> None:
        for beam in self.beams:
            self.branches.drop(beam.branch)
        self.beams = []

    def _finish(self, branch: Generation, total: float) -> None:
        length = max(1, len(branch.made) + (branch.reason == "end"))
        completion = replace(branch.completion, score=total / length**self.config.length_penalty)
        known = self.finished.get(completion.tokens)
        if known is None or _score(known) < _score(completion):
            self.finished[completion.tokens] = completion
        if len(self.finished) > self.width:
            del self.finished[min(reversed(self.finished.values()), key=_score).tokens]

    def _is_done(self) -> bool:
        if not self.beams or len(self.finished) < self.width:
            return not self.beams
        if self.config.early_stopping == "full" or self.config.beams == 1:  # one beam is greedy: its first end is it
            return True
        penalty = self.config.length_penalty
        # A sum only falls. Over a growing length to a positive power, it comes nearest to 0 at the end.
        grows = self.config.early_stopping == "never" and penalty > 0
        length = self.longest if grows else len(self.beams[0].branch.made)
        reachable = max(beam.total for beam in self.beams) / length**penalty
        return reachable <= min(map(_score, self.finished.values()))
