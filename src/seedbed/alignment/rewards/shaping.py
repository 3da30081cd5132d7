"""What is done to rewards before a policy learns from them.

Shape suffixes: C completions, T tokens or steps of an episode, S steps of shaping.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from seedbed.alignment.rewards.config import ShapingConfig

Said = Sequence[Sequence[int]]
"""The tokens of each answer, the one that ends it among them."""

Step = Callable[[Tensor, Said], Tensor]
"""From rewards (C) to rewards (C)."""


def clip(rewards_C: Tensor, size: float) -> Tensor:
    """None beyond ±size: no single answer decides a step."""
    return rewards_C.clamp(-size, size)


def scale(rewards_C: Tensor, mean: float, deviation: float) -> Tensor:
    """(r − mean)/deviation, of a reward model's scores by what its `result.json` tells of the validation data
    (val_score and val_score_deviation), so that models of other units can be taken for one another."""
    return (rewards_C - mean) / max(deviation, 1e-8)


def whiten(rewards_C: Tensor, *, shift: bool = True) -> Tensor:
    """Variance 1 over a batch, and mean 0 unless `shift` is off. All alike: nought, or as they are without shift."""
    mean = rewards_C.mean()
    whitened_C = (rewards_C - mean) * (rewards_C.var(correction=0) + 1e-8).rsqrt()
    return whitened_C if shift else whitened_C + mean


def length_penalty(lengths_C: Tensor, limit: int, buffer: int) -> Tensor:
    """What is added for long completions: nought up to limit − buffer tokens, from there down to −1 at the limit, and
    −1 beyond it (DAPO's soft overlong punishment: Yu et al. 2025, arXiv:2503.14476, eq. 13)."""
    return ((limit - buffer - lengths_C) / buffer).clamp(-1, 0)


def repetition_penalty(completions: Sequence[Sequence[Hashable]], n: int = 4) -> Tensor:
    """What is added (C) for saying the same again: minus the share of the runs of n tokens that stood earlier in the
    same completion. Nought for one of fewer than n tokens."""
    found = []
    for tokens in completions:
        runs = [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]
        found.append(len(set(runs)) / len(runs) - 1 if runs else 0.0)
    return torch.tensor(found)


def potential_based(rewards_T: Tensor, potentials_T: Tensor, gamma: float = 1.0) -> Tensor:
    """r_t + γ·Φ(s_{t+1}) − Φ(s_t), where Φ after the end is nought: hints about how good a state is, of which no policy
    becomes better or worse than it was (Ng, Harada & Russell 1999, theorem 1). Along the last dimension."""
    following_T = torch.cat([potentials_T[..., 1:], torch.zeros_like(potentials_T[..., :1])], dim=-1)
    return rewards_T + gamma * following_T - potentials_T


class Shaping:
    """What is done to the summed rewards of answers, one step after the other; and what each of them added."""

    def __init__(self, config: ShapingConfig, longest: int):
        """`longest`: tokens of an answer. ConfigError for a penalty on all answers."""
        config.refuse(longest)
        self.config = config
        self.steps: dict[str, Step] = {}
        """Those that look at one answer, by name."""
        if (size := config.clip) is not None:
            self.steps["clip"] = lambda rewards_C, said: clip(rewards_C, size)
        if config.length_buffer:
            self.steps["length"] = lambda rewards_C, said: (
                rewards_C
                + config.length_weight
                * length_penalty(torch.tensor([len(tokens) for tokens in said]), longest, config.length_buffer)
            )
        if config.repetition_weight:
            self.steps["repetition"] = lambda rewards_C, said: (
                rewards_C + config.repetition_weight * repetition_penalty(said, config.repetition_run)
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of all steps, in their order."""
        return (*self.steps, "whiten") if self.config.whiten else tuple(self.steps)

    def __call__(self, rewards_C: Tensor, said: Said) -> tuple[Tensor, Tensor]:
        """Rewards after the steps that look at one answer (C), and what each step adds (C, S)."""
        added_CS = torch.zeros(len(rewards_C), len(self.names))
        for place, step in enumerate(self.steps.values()):
            before_C, rewards_C = rewards_C, step(rewards_C, said)
            added_CS[:, place] = rewards_C - before_C
        return rewards_C, added_CS

    def together(self, rewards_C: Tensor, added_CS: Tensor) -> tuple[Tensor, Tensor]:
        """The same after the step that looks at all answers of a rollout."""
        if not self.config.whiten:
            return rewards_C, added_CS
        whitened_C = whiten(rewards_C, shift=self.config.shift)
        return whitened_C, torch.cat([added_CS[:, :-1], (whitened_C - rewards_C)[:, None]], dim=1)
