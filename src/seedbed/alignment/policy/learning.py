"""What every policy needs to learn: a model, problems, rewards, a source of rollouts, and the one loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from seedbed.alignment.policy.asking import Asking, HeldOut
from seedbed.alignment.policy.config import PolicyConfig
from seedbed.alignment.policy.judging import RewardModels
from seedbed.alignment.policy.objective import PolicyObjective
from seedbed.alignment.policy.problems import answer_room, read_problems
from seedbed.alignment.policy.rollouts import Credit, Rollouts
from seedbed.alignment.policy.watching import AnswerTable, Pathologies
from seedbed.alignment.rewards.own import ROLE as OWN_REWARDS
from seedbed.alignment.rewards.own import read_rewards
from seedbed.alignment.rewards.rewards import Rewards
from seedbed.alignment.rewards.rules import Reward
from seedbed.alignment.rewards.shaping import Shaping
from seedbed.devices import choose_device
from seedbed.errors import ConfigError
from seedbed.model.score_head import with_critic, without_critic
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.observers.observer import Observer
from seedbed.training.precision import Precision
from seedbed.training.stage import Stage, run_stage
from seedbed.tuning.equipment import equipped, load_base, opened, stage_inputs


def load_policy(config: PolicyConfig) -> tuple[Transformer, Tokenizer]:
    """The policy as it begins: the same weights at every call."""
    model, tokenizer = load_base(config)
    return without_critic(model) if model.config.head == "both" else model, tokenizer


class Learning:
    """One stage of policy learning, from its config to its run."""

    def __init__(self, config: PolicyConfig, group: int, attempts: int, own: Mapping[str, Reward] | None):
        """`config` is resolved. `own`: rewards that a Python program brings."""
        self.config = config
        self.device = choose_device(config.train.device)
        model, self.tokenizer = opened(config, load_policy)
        if config.temperature != 1 and model.config.logit_softcap is not None:
            raise ConfigError("temperature must be 1: the model bends its logits (model.logit_softcap)")
        self.architecture = model.config
        self.judge = (
            RewardModels.load(config.reward_models, self.tokenizer, self.device) if config.reward_models.runs else None
        )
        if config.own_rewards is not None:
            own = {**read_rewards(config.own_rewards, config.rewards), **(own or {})}
        rewards = Rewards(config.rewards, own, judge=self.judge)
        self.problems, held_out, self.counts = read_problems(config, model.config, self.tokenizer, rewards)
        longest = answer_room(config, model.config, [*self.problems, *held_out])
        self.config = config = replace(config, max_tokens=longest)
        self.rewards = rewards.shaped(Shaping(config.shaping, longest))
        self.asking = Asking(
            answers=config.rollout,
            group=group,
            passes=config.passes,
            batch=config.train.batch,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            order=config.order,
            attempts=attempts,
            engine_rows=config.engine_rows,
            seed=config.train.seed,
        )
        self.held_out = HeldOut(held_out, self.tokenizer, self.rewards, self.asking)
        if self.judge is not None:
            self.judge.refuse(max(len(problem.prompt) for problem in [*self.problems, *held_out]) + longest)

    def source(self, credit: Credit) -> Rollouts:
        """Of rollouts. Where the policy is to be kept near its beginning, that is the base of its adapter, or a frozen
        copy."""
        return Rollouts(
            self.problems,
            self.tokenizer,
            self.rewards,
            self.asking,
            credit,
            pad_id=self.tokenizer.pad_id or 0,
            compares=self.config.kl > 0,
            reference=load_policy(self.config)[0] if self.config.kl and self.config.method == "full" else None,
            rows_at_once=self.config.train.micro_batch or self.config.train.batch,
        )

    def run(
        self,
        name: str,
        source: Rollouts,
        objective: PolicyObjective,
        observers: Sequence[Observer],
        began: float,
        *,
        has_critic: bool = False,
    ) -> dict[str, Any]:
        """Trains; the result. With a critic the model has a score head beside its own, which is not saved with it."""
        config = self.config
        precision = Precision(config.train.precision, self.device)

        def starting_model() -> Transformer:
            model = load_policy(self.config)[0]
            model = equipped(with_critic(model) if has_critic else model, config)
            for asked in (source, self.held_out):
                asked.learn(model, precision)
            return model

        inputs = stage_inputs(config, config.data)
        if config.own_rewards is not None:
            inputs[OWN_REWARDS] = config.own_rewards
        if self.judge is not None:
            inputs |= self.judge.inputs
        watching: list[Observer] = [Pathologies(config.warnings)]
        if config.table:
            watching.append(AnswerTable(source, config.table, config.table_every))
        stage = Stage(
            name=name,
            architecture=self.architecture,
            model=starting_model,
            tokenizer=self.tokenizer,
            source=source,
            validation=self.held_out,
            objective=objective,
            length=source.longest,
            inputs=inputs,
            notes={"prompts": {fate: self.counts[fate] for fate in ("kept", "truncated", "too long")}},
            observers=[*watching, *observers],
            state=source.tensors,
            saved=without_critic if has_critic else lambda model: model,
            began=began,
        )
        return run_stage(stage, config)
