"""Advantages and losses of policies are those that trl's own trainers compute, with their gradients.

Peer: trl, the installed version; its name stands in the ids of the tests. Its trainers answer prompts, reward the
answers and compute; we read the same answers, with the padding elsewhere, by models of ours with the same weights, in
fp64.

Shape suffixes: B answers, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from torch import Tensor

from seedbed.alignment.policy.config import GrpoConfig
from seedbed.alignment.policy.credit import GroupCredit
from seedbed.alignment.policy.objective import PolicyLoss
from seedbed.alignment.policy.reading import Reading
from seedbed.alignment.policy.rollout import Rollout
from tests.parity.twins import Twins, gradient_norm, make_twins

PROMPTS, GROUP, MAX_TOKENS, TEMPERATURE = ["ab", "what?", "3 + 4 ="], 4, 40, 0.8
ANSWERS = len(PROMPTS) * GROUP
KL = 0.3


@pytest.fixture(autouse=True, params=[f"trl {trl.__version__}"])
def peer(request) -> str:
    """Names each test."""
    return request.param


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The policy, the reference, the tokenizer, and a folder."""
    place = tmp_path_factory.mktemp("twins")
    policy, tokenizer = make_twins(place / "policy", 5)
    reference, _ = make_twins(place / "reference", 6)
    return policy, reference, tokenizer, place


def worth(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Not the same for nearly any two answers."""
    return [sum(ids) % 17 / 4 for ids in completion_ids]


@dataclass(frozen=True)
class Answered:
    """One rollout: as trl has it, and as we do."""

    trainer: Any
    theirs: dict[str, Any]
    ours: Rollout

    @property
    def rewards_B(self) -> Tensor:
        return self.ours.rewards_BF[:, 0]

    def spread(self, numbers_BT: Tensor) -> Tensor:
        """Numbers of tokens from their places in trl's completions to those in our rows."""
        placed_BT = torch.zeros(self.ours.said_BT.shape, dtype=numbers_BT.dtype)
        return placed_BT.masked_scatter(self.ours.said_BT, numbers_BT[self.theirs["completion_mask"].bool()])


def answered(models, *classes, **asked) -> Answered:
    policy, reference, *_ = models
    trainer, theirs = by_trl(models, *classes, **asked)
    return Answered(trainer, theirs, ours_of(theirs, policy, reference, ended_ids=trainer.eos_token_ids))


def by_trl(models, trainer_class=trl.GRPOTrainer, config_class=trl.GRPOConfig, **asked):
    """A trainer of trl's, and its rollout: the same answers at each call."""
    policy, reference, tokenizer, place = models
    usual = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "temperature": TEMPERATURE}
    sizes = {"num_generations": GROUP, "per_device_train_batch_size": ANSWERS, "max_completion_length": MAX_TOKENS}
    trainer = trainer_class(
        policy.theirs,
        reward_funcs=[worth],
        args=config_class(str(place / "out"), **usual, **sizes, seed=3, **asked),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
        processing_class=tokenizer,
    )
    if trainer.ref_model is not None:  # the model as it began: too near
        trainer.ref_model.double().load_state_dict(reference.theirs.state_dict())
    rows = [{"prompt": prompt} for prompt in PROMPTS for _ in range(GROUP)]
    theirs = trainer._generate_and_score_completions(rows)
    trainer.model.eval()
    return trainer, theirs


@torch.no_grad()
def ours_of(theirs: dict[str, Any], policy: Twins, reference: Twins, ended_ids: list[int]) -> Rollout:
    """The same answers, as rows from the left on."""
    prompts = [ids[there.bool()] for ids, there in zip(theirs["prompt_ids"], theirs["prompt_mask"], strict=True)]
    said = [ids[there.bool()] for ids, there in zip(theirs["completion_ids"], theirs["completion_mask"], strict=True)]
    rollout = Rollout.empty(ANSWERS, max(map(len, prompts)) + MAX_TOKENS, 1, 0)
    for row, (prompt, answer) in enumerate(zip(prompts, said, strict=True)):
        rollout.tokens_BT[row, : len(prompt) + len(answer)] = torch.cat([prompt, answer])
        rollout.said_BT[row, len(prompt) : len(prompt) + len(answer)] = True
        rollout.ended_B[row] = int(answer[-1]) in ended_ids
    logprobs = [Reading(m.ours, rollout.tokens_BT, rollout.said_BT).logprobs(TEMPERATURE) for m in (policy, reference)]
    rewards_BF = torch.tensor(worth([answer.tolist() for answer in said]), dtype=torch.float64)[:, None]
    return replace(rollout, old_BT=logprobs[0], reference_BT=logprobs[1], rewards_BF=rewards_BF)


def our_loss(loss: str, **others) -> PolicyLoss:
    """That of `seedbed grpo`."""
    config = GrpoConfig(model=Path("m"), data=Path("d"), out=Path("o"), loss=loss).resolve()
    said = {name: getattr(config, name) for name in ("level", "normaliser", "clip_low", "clip_high", "kl")}
    usual = {"estimator": "k3", "temperature": TEMPERATURE, "longest": MAX_TOKENS}
    return PolicyLoss(**said | usual | {"leaves_out_cut": False, "has_reference": bool(others.get("kl"))} | others)


def our_mean(policy_loss: PolicyLoss, model, rollout: Rollout) -> Tensor:
    _, logprobs_BT, old_BT = policy_loss.read(model, rollout)
    total, units, _ = policy_loss(logprobs_BT, old_BT, rollout)
    return total / units


def with_advantages(rollout: Rollout, advantages_B: Tensor) -> Rollout:
    return replace(rollout, advantages_BT=torch.where(rollout.said_BT, advantages_B[:, None].double(), 0.0))


# Advantages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_advantages_of_grpo_are_those_of_trl(scale, models):
    rollout = answered(models, scale_rewards=scale)
    lengths_B = rollout.ours.said_BT.sum(1)
    assert len(set(lengths_B.tolist())) > 2 and 0 < rollout.ours.ended_B.sum() < ANSWERS
    assert_advantages(rollout, GroupCredit(GROUP, "mean", scale))


@pytest.mark.parametrize("kl", [0.0, KL])
def test_the_advantages_of_rloo_are_those_of_trl(kl, models):
    """Where it has a cost, the divergence from the reference is taken from the reward."""
    rollout = answered(models, trl.RLOOTrainer, trl.RLOOConfig, beta=kl)
    assert_advantages(rollout, GroupCredit(GROUP, "others", "none", kl))


def assert_advantages(rollout: Answered, credit: GroupCredit) -> None:
    ours_BT = credit.assign(rollout.ours, rollout.rewards_B, None).advantages_BT
    wanted_B = rollout.theirs["advantages"].double()
    assert len(set(wanted_B.tolist())) > 5
    wanted_BT = with_advantages(rollout.ours, wanted_B).advantages_BT
    # trl sums the log-probabilities of an answer in fp32.
    torch.testing.assert_close(ours_BT, wanted_BT, rtol=2e-6, atol=1e-6)


# Losses --------------------------------------------------------------------------------------------------------------

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
}
"""What trl is told for what we call so."""


def compare(rollout: Answered, policy: Twins, policy_loss: PolicyLoss) -> None:
    """One loss, and its gradients, of a policy that has moved since it answered."""
    noise_BT = 0.3 * torch.randn(
        rollout.theirs["completion_mask"].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    trainer = rollout.trainer
    with torch.no_grad():
        ids_BT, there_BT = (
            torch.cat([rollout.theirs[f"prompt_{what}"], rollout.theirs[f"completion_{what}"]], 1)
            for what in ("ids", "mask")
        )
        now_BT, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids_BT, there_BT, noise_BT.shape[1])
    given = rollout.theirs | {"old_per_token_logps": now_BT + noise_BT}
    theirs = trainer._compute_loss(trainer.model, given)
    ours = with_advantages(rollout.ours, rollout.theirs["advantages"])
    ours = replace(ours, old_BT=ours.old_BT + rollout.spread(noise_BT))
    mean = our_mean(policy_loss, policy.ours, ours)
    assert abs(float(theirs.detach())) > 1e-3
    assert float(mean.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    assert gradient_norm(policy.ours, mean) == pytest.approx(gradient_norm(policy.theirs, theirs), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_of_trl(loss, models):
    compare(answered(models, beta=0.0, **LOSSES[loss]), models[0], our_loss(loss))


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_the_loss_with_a_divergence_is_that_of_trl(loss, models):
    """Where trl weighs it by the ratio, as we always do (DeepSeek-AI 2025, arXiv:2512.02556, eq. 7).

    Not under gspo: that ratio is each token's own with us, and the answer's in trl."""
    rollout = answered(models, beta=KL, use_bias_correction_kl=True, **LOSSES[loss])
    compare(rollout, models[0], our_loss(loss, kl=KL))


@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_the_loss_without_answers_that_were_cut_off_is_that_of_trl(loss, models):
    whole = answered(models, **LOSSES[loss])
    trainer, left_out = by_trl(models, mask_truncated_completions=True, **LOSSES[loss])
    assert torch.equal(whole.theirs["completion_ids"], left_out["completion_ids"])
    assert (left_out["completion_mask"].sum(1) == 0).tolist() == (~whole.ours.ended_B).tolist()
    theirs = trainer._compute_loss(trainer.model, left_out)
    ours = with_advantages(whole.ours, whole.theirs["advantages"])
    mean = our_mean(our_loss(loss, leaves_out_cut=True), models[0].ours, ours)
    assert float(mean.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    assert gradient_norm(models[0].ours, mean) == pytest.approx(gradient_norm(models[0].theirs, theirs), rel=1e-5)


def test_the_gradient_of_rloo_is_that_of_trl_where_the_policy_has_not_moved(models):
    """Elsewhere they differ on purpose: trl has one ratio for an answer, the product of those of its tokens, which
    leaves the band as soon as the answer is long; we have one for each token."""
    rollout = answered(models, trl.RLOOTrainer, trl.RLOOConfig, beta=0.0)
    theirs = rollout.trainer._compute_loss(rollout.trainer.model, rollout.theirs)
    mean = our_mean(our_loss("rloo"), models[0].ours, with_advantages(rollout.ours, rollout.theirs["advantages"]))
    found, wanted = gradient_norm(models[0].ours, mean), gradient_norm(models[0].theirs, theirs)
    assert wanted > 0.1 and found == pytest.approx(wanted, rel=1e-5)
