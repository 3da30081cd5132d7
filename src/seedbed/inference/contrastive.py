"""Contrastive search (Su et al. 2022, arXiv:2202.06417, §3.2, eq. 5): likely, and not what was said before.

Of the k likeliest tokens the one with the largest (1 − α) · probability − α · likeness follows. The likeness of a token
is the largest cosine of what the model makes of it with what it made of any token before it.

Shape suffixes: K candidates, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from seedbed.inference.branches import Branches
from seedbed.inference.config import SearchConfig
from seedbed.inference.generation import Completion, Likelihood
from seedbed.inference.sampling import exact, likeliest, no_choice

if TYPE_CHECKING:
    from seedbed.inference.engine import Engine


@torch.inference_mode()
def contrastive_search(
    engine: Engine, ids: Sequence[int], config: SearchConfig, adapter: str | None = None
) -> Completion:
    """The continuation. `penalty_alpha` and `top_k` must be set."""
    assert config.penalty_alpha is not None and config.top_k is not None
    alpha = config.penalty_alpha
    with Branches(engine) as branches:
        branch = engine.begin(ids, config, adapter=adapter)
        branches.grow(branch, most=min(config.top_k, engine.vocabulary), apart=branch.limit - 1)
        # What the model makes of each token of the prompt is needed, and no block keeps it: all is read.
        parts = []
        while branch.missing:
            parts.append(branches.read([branch]))
        x_D, directions_TD = parts[-1][-1], F.normalize(torch.cat(parts).float(), dim=-1)
        while branch.reason is None:
            if branch.deadline is not None and branch.deadline <= time.monotonic():
                engine.choosing.end(branch, "timeout")
                break
            logits_V = engine.model.logits(x_D)[: engine.vocabulary]
            probabilities_V = exact(engine.choosing.adjusted(logits_V[None], [branch])[0]).softmax(-1)
            tokens = [token for _, token in likeliest(probabilities_V[None].log(), config.top_k)]
            if not tokens:
                raise no_choice(logits_V)
            candidates = [branches.fork(branch) for _ in tokens]
            for candidate, token in zip(candidates, tokens, strict=True):
                candidate.tokens.append(token)
            branches.drop(branch)
            x_KD = branches.read(candidates)
            directions_KD = F.normalize(x_KD.float(), dim=-1)
            likeness_K = (directions_KD @ directions_TD.T).amax(-1)
            best = int(((1 - alpha) * probabilities_V[tokens] - alpha * likeness_K.to(probabilities_V)).argmax())
            branch, x_D = candidates.pop(best), x_KD[best]
            for candidate in candidates:
                branches.drop(candidate)
            directions_TD = torch.cat([directions_TD, directions_KD[best : best + 1]])
            if config.logprobs is not None:
                branch.likelihoods.append(Likelihood.of(tokens[best], logits_V, config.logprobs))
            branch.tokens.pop()  # `take` adds it, and its text
            engine.choosing.take(branch, tokens[best])
    return branch.completion
