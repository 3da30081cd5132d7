"""What answers to problems are worth: what rules say, and models that have learned it.

A Python program, or a file of a person's own, may bring more rules.

Shape suffixes: B answers, F rewards, S steps of shaping.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from seedbed.alignment.rewards.config import ShapingConfig
from seedbed.alignment.rewards.rules import REWARDS, Answer, Reward, Rule, refuse
from seedbed.alignment.rewards.shaping import Shaping
from seedbed.data.preferences import LARGEST, Problem
from seedbed.errors import ConfigError, DataError


class Judge(Protocol):
    """Reward models."""

    @property
    def weight(self) -> float:
        """Of what they say beside other rewards."""

    @property
    def fingerprint(self) -> Mapping[str, object]:
        """Of what decides what they say."""

    def __call__(self, answers: Sequence[Answer]) -> Tensor:
        """What each is worth (B), also one that was cut off."""


JUDGED = "reward_model"
"""The name of what reward models say, beside those of rules."""


@dataclass(frozen=True)
class Worth:
    """What answers are worth."""

    rewards_BF: Tensor
    """What each reward says, before weighing."""
    added_BS: Tensor
    """What each step of shaping adds to their weighed sum."""
    shaped_B: Tensor
    """What is learned from."""

    def rows(self, some: slice) -> Worth:
        return Worth(self.rewards_BF[some], self.added_BS[some], self.shaped_B[some])

    @classmethod
    def joined(cls, parts: Sequence[Worth]) -> Worth:
        rewards, added, shaped = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("rewards_BF", "added_BS", "shaped_B")
        )
        return cls(rewards, added, shaped)


PLAIN = Shaping(ShapingConfig(), 1)
"""Nothing is done."""


class Rewards:
    """Several rewards, each with its weight, and what is done to their sum."""

    def __init__(
        self,
        weights: Mapping[str, float],
        own: Mapping[str, Reward] | None = None,
        *,
        judge: Judge | None = None,
    ):
        """`weights` by the names of `REWARDS`, or of `own`, which a person brings. ConfigError for another."""
        known = REWARDS | {name: _asked(name, reward) for name, reward in (own or {}).items()}
        if unknown := [name for name in weights if name not in known]:
            near = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            own_too = "" if own else " Functions of a file of yours are given by --own_rewards FILE."
            raise ConfigError(f"there is no reward {unknown[0]!r}{hint}", f"There are: {', '.join(known)}.{own_too}")
        if not weights and judge is None:
            raise ConfigError("no reward is given", f"There are: {', '.join(known)}; or give --reward_models.runs.")
        self.rules = {name: known[name] for name in weights}
        self.judge, self.shaping = judge, PLAIN
        judged = {} if judge is None else {JUDGED: judge.weight}
        self.names, self.weights = (*weights, *judged), (*weights.values(), *judged.values())

    def shaped(self, shaping: Shaping) -> Rewards:
        """The same, with that done to their sum."""
        made = copy(self)
        made.shaping = shaping
        return made

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides what answers are worth, but for Python programs."""
        return {
            "rewards": dict(zip(self.names, self.weights, strict=True)),
            "judge": {} if self.judge is None else dict(self.judge.fingerprint),
            "shaping": dict(vars(self.shaping.config)),
        }

    def total(self, rewards_BF: Tensor) -> Tensor:
        """Their weighed sum (B)."""
        return rewards_BF @ torch.tensor(self.weights)

    def __call__(self, answers: Sequence[Answer]) -> Worth:
        """DataError, naming the row, for what is no finite number.

        An answer that was cut off is worth nothing by any rule here; by a person's own, which may give less than that,
        what it gives, at most nothing. Otherwise, where wrong answers cost something, it would be best never to end.
        """
        rewards_BF = torch.zeros(len(answers), len(self.names))
        for column, (name, rule) in enumerate(self.rules.items()):
            places = [place for place, answer in enumerate(answers) if answer.ended or name not in REWARDS]
            asked = [answers[place] for place in places]
            for place, answer, value in zip(places, asked, rule(asked), strict=True):
                if not abs(value) < LARGEST:  # NaN too
                    row = answer.problem.name
                    raise DataError(f"{row}: the reward {name} is {value} for the answer {answer.text[:60]!r}")
                rewards_BF[place, column] = value if answer.ended else min(value, 0.0)
        if self.judge is not None:
            rewards_BF[:, -1] = self.judge(answers)
        shaped_B, added_BS = self.shaping(self.total(rewards_BF), [answer.said for answer in answers])
        return Worth(rewards_BF, added_BS, shaped_B)

    @property
    def reads_rows(self) -> bool:
        """Whether one of them compares with what a row holds beside its prompt."""
        return any(name in REWARDS for name in self.rules)

    def refuse(self, problems: Sequence[Problem]) -> None:
        """DataError, naming the row, for a problem that one of the rules cannot judge. Before a run, not in it."""
        rules = [name for name in self.rules if name in REWARDS]
        for problem in problems:
            for name in rules:
                refuse(problem, name)


def _asked(name: str, reward: Reward) -> Rule:
    """The rule that asks a person's own reward of one answer after the other. DataError, naming the row, where that
    fails."""

    def rule(answers: Sequence[Answer]) -> list[float]:
        found = []
        for answer in answers:
            try:
                # A copy: what it changes there would be another problem to those who answer it next.
                found.append(float(reward(deepcopy(answer.problem), answer.text)))
            except (Exception, SystemExit) as error:  # whatever a person's own code may raise
                raise DataError(
                    f"{answer.problem.name}: the reward {name} failed, {type(error).__name__}: {error}",
                    "It is called as function(problem, answer), an answer being a text, and gives a number.",
                ) from error
        return found

    return rule
