"""What a policy says to prompts, as batches: the engine answers over the live weights, rules reward, credit is given.

A rollout is a function of the weights, the seed and its number alone: each answer is drawn by (seed, rollout, prompt,
sample), so nothing depends on a clock, on who stood beside it in the engine, or on how a step accumulates. Of several
processes each answers its share of the prompts and reads its share of the answers, and all have the whole. Where a
rollout is learned from in one step, a run that goes on makes it again from the weights of its checkpoint; where it is
learned from in several, the weights that made it are gone, and it lies in the checkpoint itself.

Shape suffixes: B answers, T positions, D model width, N tokens that were said, F rewards, S steps of shaping, P
problems. A number of a token stands at its own position, nought where nothing was said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from seedbed.alignment.policy.advantages import alike
from seedbed.alignment.policy.asking import Asked, Asking
from seedbed.alignment.policy.reading import Reading, shared_rows
from seedbed.alignment.policy.rollout import Rollout
from seedbed.alignment.rewards.rewards import Rewards, Worth
from seedbed.data.batches.order import Epochs, Permutation
from seedbed.data.problems import EncodedProblem
from seedbed.inference.generation import Completion
from seedbed.inference.live import seed_of
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.parallel.world import World
from seedbed.training.precision import Precision

logger = logging.getLogger(__name__)

CANDIDATES = 2
"""Prompts that are looked at for each that is asked, where the order is learnable."""


class Credit(Protocol):
    """Who gives each token its advantage."""

    @property
    def needs_old(self) -> bool:
        """Whether it reads `old_BT`."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its state, which lies in a checkpoint."""

    def begin(self) -> None:
        """A run begins: the state is what it is at first."""

    def assign(self, rollout: Rollout, rewards_B: Tensor, model: Transformer) -> Rollout:
        """The rollout with its advantages, from what its answers are worth; the model is the one that answered."""


class Rollouts(Asked):
    """A batch source of what the learner itself says. Sample i is an answer, learned from in step i // batch."""

    def __init__(
        self,
        problems: Sequence[EncodedProblem],
        tokenizer: Tokenizer,
        rewards: Rewards,
        asking: Asking,
        credit: Credit,
        *,
        pad_id: int = 0,
        compares: bool = False,
        reference: Transformer | None = None,
        rows_at_once: int = 64,
    ):
        """`compares`: with `reference`, frozen; left out, with what the learner does without the adapter that it wears.
        `rows_at_once`: of passes that nothing is learned in."""
        super().__init__(problems, tokenizer, rewards, asking)
        self.credit, self.pad_id, self.rows_at_once = credit, pad_id, rows_at_once
        self.compares, self.reference = compares, reference
        self.spread_P = torch.full((len(problems),), torch.inf)
        """How unequal the rewards of each problem's answers were when it was last asked: their standard deviation."""
        self.number = torch.tensor(-1)
        """Of the rollout that is held."""
        self.held = self._empty(asking.answers)
        self.table: list[dict[str, Any]] = []
        """The answers of the newest rollout that was made here, for people."""
        self._made_by: tuple[int, int] | None = None

    def learn(self, learner: Transformer, precision: Precision) -> None:
        """A run begins: nothing is held from an earlier one."""
        super().learn(learner, precision)
        if self.reference is not None:
            self.reference.to(precision.device).eval().requires_grad_(False)
        self.number.fill_(-1)
        self.spread_P.fill_(torch.inf)
        self.credit.begin()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by name: what cannot be made again from its weights."""
        state = {f"rollouts.{name}": tensor for name, tensor in self.credit.tensors.items()}
        if self.asking.order == "learnable":
            state["rollouts.spread"] = self.spread_P
        if self.asking.steps > 1:
            state["rollouts.number"] = self.number
            # Files of tensors know no bool; a view of its bytes is the same memory.
            held = (
                (name, tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor)
                for name, tensor in self.held.tensors.items()
            )
            state |= {f"rollouts.held.{name}": tensor for name, tensor in held}
        return state

    @property
    def samples(self) -> int:
        """Answers that are learned from while every problem is asked once."""
        return len(self.problems) * self.asking.group * self.asking.passes

    def batch(self, first: int, count: int) -> Rollout:
        """Answers first … first + count − 1, all of one step."""
        step, begin = divmod(first, self.asking.batch)
        if begin + count > self.asking.batch:
            raise ValueError(f"samples {first} to {first + count - 1} are not all of step {step}")
        number, place = divmod(step, self.asking.steps)
        self._hold(number)
        rows = self._order(number, place)[begin : begin + count]
        return self.held.rows(torch.from_numpy(rows), fresh=place == 0)

    def _order(self, number: int, place: int) -> np.ndarray:
        """The rows of one of a rollout's steps: in each pass all of them, in an order of its own."""
        answers, batch = self.asking.answers, self.asking.batch
        if self.asking.steps == 1:
            return np.arange(answers)
        turn, part = divmod(place, answers // batch)
        shuffled = Permutation(answers, f"{self.asking.seed}/rollout {number}/pass {turn}")
        return np.asarray(shuffled(np.arange(part * batch, (part + 1) * batch)))

    def _hold(self, number: int) -> None:
        """Makes the rollout unless it is there: made by these very weights, or, where several steps learn from it,
        before them or in a checkpoint."""
        assert self.learner is not None
        maker = (id(self.learner), sum(weight._version for weight in self.learner.parameters()))
        if int(self.number) == number and (self.asking.steps > 1 or self._made_by == maker):
            return
        made = self._make(number)
        for name, tensor in self.held.tensors.items():
            tensor.copy_(made.tensors[name])
        self.number.fill_(number)
        self._made_by = maker

    def _make(self, number: int) -> Rollout:
        prompts, answers, worth, share = self._asked(number)
        rollout = self._rows(prompts, answers)
        shaped_B, added_BS = self.rewards.shaping.together(worth.shaped_B, worth.added_BS)
        rollout = replace(rollout, rewards_BF=worth.rewards_BF, added_BS=added_BS, shaped_B=shaped_B)
        rollout = replace(rollout, alike_B=torch.full_like(rollout.alike_B, share))
        assert self.learner is not None
        training = self.learner.training
        self.learner.eval()
        with torch.no_grad():
            if self.asking.steps > 1 or self.credit.needs_old:
                rollout = replace(rollout, old_BT=self._logprobs(self.learner, rollout, self.asking.temperature))
            if self.compares:
                rollout = replace(rollout, reference_BT=self._reference(rollout))
            rollout = self.credit.assign(rollout, rollout.shaped_B, self.learner)
        self.learner.train(training)
        self.table = self._for_people(prompts, answers, rollout)
        return rollout

    def _asked(self, number: int) -> tuple[list[int], list[Completion], Worth, float]:
        """The number of the prompt of each answer, the answers, what they are worth, and the share of prompts whose
        answers were all worth the same. Those are asked in vain: where there are attempts left, others take their
        places (dynamic sampling: DAPO, arXiv:2503.14476, §3.2)."""
        group, wanted = self.asking.group, self.asking.answers // self.asking.group
        kept: list[tuple[int, list[Completion], Worth]] = []
        spare: list[tuple[int, list[Completion], Worth]] = []
        with self.answering() as engine:
            for attempt in range(self.asking.attempts):
                prompts = self._prompts(number, attempt, wanted)
                seeds = [seed_of(f"{self.asking.seed}/{number}/{attempt}/{place}") for place in range(wanted)]
                mine = World.here().share(wanted)
                said = self.answers(engine, prompts[mine], seeds[mine], group, self.asking.temperature)
                parts = World.here().gather((said, self.judged(np.repeat(prompts[mine], group).tolist(), said)))
                answers = [answer for some, _ in parts for answer in some]
                worth = Worth.joined([some for _, some in parts])
                for place, prompt in enumerate(prompts):
                    here = slice(group * place, group * (place + 1))
                    some = worth.rows(here)
                    self.spread_P[prompt] = some.shaped_B.std(correction=0)
                    useful = group > 1 and not bool(alike(some.shaped_B, group))
                    (kept if useful else spare).append((prompt, answers[here], some))
                if len(kept) >= wanted:
                    break
        asked = len(kept) + len(spare)
        chosen = (kept + spare)[:wanted]
        share = len(spare) / asked if group > 1 else 0.0
        prompts = [prompt for prompt, some, _ in chosen for _ in some]
        answers = [answer for _, some, _ in chosen for answer in some]
        return prompts, answers, Worth.joined([some for _, _, some in chosen]), share

    def _prompts(self, number: int, attempt: int, wanted: int) -> list[int]:
        """A function of the rollout's number; where the order is learnable, of what earlier ones were worth too."""
        candidates = wanted * (CANDIDATES if self.asking.order == "learnable" else 1)
        first = (number * self.asking.attempts + attempt) * candidates
        if self.asking.order == "given":
            return [place % len(self.prompts) for place in range(first, first + candidates)]
        places = torch.from_numpy(Epochs(len(self.prompts), self.asking.seed)(first, candidates))
        if self.asking.order == "learnable":
            best = torch.argsort(self.spread_P[places], descending=True, stable=True)[:wanted]
            places = places[best.sort().values]
        return places.tolist()

    def _empty(self, answers: int) -> Rollout:
        return Rollout.empty(answers, self.longest, len(self.rewards.names), len(self.rewards.shaping.names))

    def _rows(self, prompts: Sequence[int], answers: Sequence[Completion]) -> Rollout:
        """Prompts and answers as rows."""
        rollout = self._empty(len(answers))
        rollout.tokens_BT.fill_(self.pad_id)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            asked = self.prompts[prompt]
            said = slice(len(asked), len(asked) + len(answer.said))
            rollout.tokens_BT[row, : len(asked)] = torch.tensor(asked)
            rollout.tokens_BT[row, said] = torch.tensor(answer.said)
            rollout.sampler_BT[row, said] = torch.tensor([each.logprob for each in answer.likelihoods])
            rollout.said_BT[row, said] = True
            rollout.ended_B[row] = answer.reason == "end"
        return rollout

    def _logprobs(self, model: Transformer, rollout: Rollout, temperature: float) -> Tensor:
        """Of what was said, by a model as it is (B, T)."""
        assert self.precision is not None
        found_BT = torch.zeros_like(rollout.old_BT)
        for index_B in shared_rows(len(found_BT), self.rows_at_once):
            part = rollout.rows(index_B, fresh=False).to(self.precision.device)
            with self.precision.compute():
                logprobs_BT = Reading(model, part.tokens_BT, part.said_BT).logprobs(temperature)
            found_BT[index_B, : logprobs_BT.shape[1]] = logprobs_BT.float().cpu()
        return World.here().join(found_BT)

    def _reference(self, rollout: Rollout) -> Tensor:
        """Log-probabilities (B, T) by what the policy is held near to."""
        if self.reference is not None:
            return self._logprobs(self.reference, rollout, self.asking.temperature)
        assert self.learner is not None and self.learner.adapter is not None
        with self.learner.adapter.off(self.learner):
            return self._logprobs(self.learner, rollout, self.asking.temperature)

    def _for_people(
        self, prompts: Sequence[int], answers: Sequence[Completion], rollout: Rollout
    ) -> list[dict[str, Any]]:
        """A table of the answers."""
        names, advantages = self.rewards.names, rollout.advantages_BT.sum(1).tolist()
        rows = zip(prompts, answers, rollout.rewards_BF.tolist(), rollout.shaped_B.tolist(), advantages, strict=True)
        return [
            {
                "prompt": self.problems[prompt].problem.prompt[-1]["content"],
                "text": answer.text,
                "rewards": dict(zip(names, rewards, strict=True)),
                "shaped": shaped,
                "advantage": round(advantage / max(1, len(answer.likelihoods)), 6),
                "tokens": len(answer.likelihoods),
                "ended": answer.reason == "end",
            }
            for prompt, answer, rewards, shaped, advantage in rows
        ]
