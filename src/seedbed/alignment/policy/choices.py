"""What a policy's losses and rollouts have the choice of. No torch here."""

from __future__ import annotations

from typing import Literal

Order = Literal["shuffled", "given", "learnable"]
"""Of prompts. shuffled: each epoch in another order. given: that of the file, such as from easy to hard, over and over.
learnable: of twice as many, shuffled, those whose answers had the most unequal rewards when they were last asked; a
prompt that was never asked comes first (as in Foster & Foerster 2025, arXiv:2502.12272)."""

Baseline = Literal["mean", "others"]
"""What is expected of an answer. mean: the mean reward of the answers to its prompt (GRPO). others: that of the others
(RLOO), which the answer itself does not move: without bias."""

Scale = Literal["group", "batch", "none"]
"""What advantages are divided by. group: the standard deviation of the rewards of the same prompt (GRPO), which makes
prompts that are nearly always, or never, answered rightly count more. batch: that of all answers. none: nothing
(Dr. GRPO)."""

Level = Literal["token", "sequence"]
"""Whose ratio it is. token: each token has its own. sequence: those of an answer share the geometric mean of theirs
(GSPO: Zheng et al. 2025, arXiv:2507.18071, eq. 7)."""

Normaliser = Literal["answer", "token", "longest", "none"]
"""What the losses of tokens are divided by, so that they add up to that of a step.

answer: by the length of their answer, then by the answers of the step: a word of a long answer weighs less (GRPO: Shao
et al. 2024, arXiv:2402.03300, eq. 3). token: by all tokens of the step: each weighs the same (DAPO: Yu et al. 2025,
arXiv:2503.14476, eq. 8). longest: by the longest that an answer may be, then by the answers: each weighs the same in
every step, too (Dr. GRPO: Liu et al. 2025, arXiv:2503.20783, §3.2). none: by the answers alone, which is the gradient
of the expected reward itself (RLOO: Ahmadian et al. 2024, arXiv:2402.14740, eq. 8)."""

Estimator = Literal["k1", "k2", "k3"]
"""Of the divergence from the reference (Schulman 2020). k1 = log π/π_ref is right in the reward only; k2 = ½(log
π/π_ref)² and k3 = π_ref/π − 1 − log π_ref/π are for the loss."""
