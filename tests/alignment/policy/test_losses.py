"""Losses of policies are those of trl and of the papers, and the gradient of each KL estimator is that of the KL."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seedbed.alignment.policy.losses import clipped, clipped_error, divergence, ratios, units, weigh
from seedbed.alignment.policy.objective import PolicyLoss
from seedbed.alignment.policy.rollout import Rollout


def tokens() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    said_BT = torch.zeros(6, 11, dtype=torch.bool)
    for row, (first, end) in enumerate([(1, 11), (3, 5), (2, 3), (4, 9), (1, 2), (5, 11)]):
        said_BT[row, first:end] = True
    logprobs_BT, old_BT, reference_BT = (
        torch.where(said_BT, -torch.rand(6, 11, generator=generator, dtype=torch.float64) * 2, 0.0) for _ in range(3)
    )
    advantages_B = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    return {
        "logprobs": logprobs_BT,
        "old": old_BT,
        "reference": reference_BT,
        "advantages": torch.where(said_BT, advantages_B, 0.0),
        "said": said_BT,
    }


def ours(level: str, normaliser: str, low: float, high: float, kl: float) -> float:
    given = tokens()
    ratios_BT = ratios(given["logprobs"], given["old"], given["said"], level)
    loss_BT, _ = clipped(ratios_BT, given["advantages"], low, high)
    if kl:
        token_BT = ratios(given["logprobs"], given["old"], given["said"], "token")
        loss_BT = loss_BT + kl * divergence(given["logprobs"], given["reference"], token_BT, "k3")
    weights_BT = weigh(given["said"], normaliser, 20)
    return float((loss_BT * weights_BT).sum()) / units(given["said"], normaliser)


def by_trl(level: str, loss_type: str, low: float, high: float, kl: float) -> float:
    """trl 0.26, GRPOTrainer._compute_loss, on the same tensors; without its accumulation, one process."""
    given = tokens()
    per_token_logps, old_per_token_logps, mask = given["logprobs"], given["old"], given["said"].to(torch.float64)
    advantages = torch.tensor([float(row[said][0]) for row, said in zip(given["advantages"], given["said"])])  # noqa: B905
    advantages = advantages.double().unsqueeze(1)
    log_ratio = per_token_logps - old_per_token_logps
    if level == "token":
        log_importance_weights = log_ratio
    else:
        log_importance_weights = (log_ratio * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)
        log_importance_weights = log_importance_weights.unsqueeze(-1)
    coef_1 = torch.exp(log_importance_weights)
    coef_2 = torch.clamp(coef_1, 1 - low, 1 + high)
    per_token_loss = -torch.min(coef_1 * advantages, coef_2 * advantages)
    if kl:
        ref = given["reference"]
        per_token_kl = torch.exp(ref - per_token_logps) - (ref - per_token_logps) - 1
        per_token_kl = per_token_kl * torch.exp(log_ratio)  # use_bias_correction_kl
        per_token_loss = per_token_loss + kl * per_token_kl
    if loss_type == "grpo":
        return float(((per_token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean())
    if loss_type in ("bnpo", "dapo"):
        return float((per_token_loss * mask).sum() / mask.sum().clamp(min=1.0))
    assert loss_type == "dr_grpo"
    return float((per_token_loss * mask).sum() / (per_token_loss.size(0) * 20))


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (3e-4, 4e-4)])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("normaliser", "loss_type"), [("answer", "grpo"), ("token", "dapo"), ("longest", "dr_grpo")])
def test_the_loss_is_that_of_trl(level, normaliser, loss_type, low, high, kl):
    assert ours(level, normaliser, low, high, kl) == pytest.approx(by_trl(level, loss_type, low, high, kl), abs=1e-6)


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("normaliser", "loss_type"), [("answer", "grpo"), ("token", "dapo"), ("longest", "dr_grpo")])
def test_a_step_puts_it_together_as_trl_does(level, normaliser, loss_type, kl):
    """Also for whole answers is the divergence one of tokens."""
    given = tokens()
    empty = Rollout.empty(6, 11, 1, 0)
    batch = replace(
        empty, said_BT=given["said"], advantages_BT=given["advantages"], reference_BT=given["reference"], fresh=False
    )
    policy = PolicyLoss(level, normaliser, 0.2, 0.28, kl, "k3", 1.0, 20, False, True)
    total, units, totals = policy(given["logprobs"], given["old"], batch)
    assert float(total) / units == pytest.approx(by_trl(level, loss_type, 0.2, 0.28, kl), abs=1e-6)
    ratio_BT = ratios(given["logprobs"], given["old"], given["said"], level)
    pushed_BT = torch.where(given["advantages"] > 0, ratio_BT > 1.28, (ratio_BT < 0.8) & (given["advantages"] < 0))
    assert totals["clip_fraction"] == int((pushed_BT & given["said"]).sum()) > 0
    assert totals["ratio"] == pytest.approx(float(ratio_BT[given["said"]].sum()))


def test_without_a_normaliser_the_gradient_is_that_of_the_expected_reward():
    """RLOO on the policy itself: Σ A·∇log π of whole answers, over their number (arXiv:2402.14740, eq. 8)."""
    given = tokens()
    logprobs_BT = given["logprobs"].clone().requires_grad_()
    loss_BT, _ = clipped(ratios(logprobs_BT, given["logprobs"], given["said"], "token"), given["advantages"], 0.2, 0.2)
    (loss_BT * weigh(given["said"], "none", 20)).sum().div(units(given["said"], "none")).backward()
    assert torch.allclose(logprobs_BT.grad, -given["advantages"] / 6)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_ratio_of_a_policy_to_itself_is_one(level):
    given = tokens()
    assert torch.equal(
        ratios(given["logprobs"], given["logprobs"], given["said"], level), torch.ones_like(given["old"])
    )


def test_a_band_holds_back_only_what_goes_further_the_way_it_is_pushed():
    ratios_4 = torch.tensor([1.5, 1.5, 0.5, 0.5], requires_grad=True)
    loss_4, held_4 = clipped(ratios_4, torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2, 0.3)
    loss_4.sum().backward()
    assert held_4.tolist() == [True, False, False, True]
    assert loss_4.tolist() == pytest.approx([-1.3, 1.5, -0.5, 0.8])
    assert ratios_4.grad.tolist() == [0.0, 1.0, -1.0, 0.0]


# The divergence from a reference -------------------------------------------------------------------------------------


def distributions(old_is_new: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a policy, and log-probabilities of the one that answered and of the reference, over seven tokens."""
    generator = torch.Generator().manual_seed(2)
    policy_V, old_V, reference_V = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    old_V = policy_V if old_is_new else old_V
    return policy_V, old_V.log_softmax(0), reference_V.log_softmax(0)


def true_gradient(policy_V: torch.Tensor, reference_V: torch.Tensor) -> torch.Tensor:
    logits_V = policy_V.clone().requires_grad_()
    logs_V = logits_V.log_softmax(0)
    (logs_V.exp() * (logs_V - reference_V)).sum().backward()
    return logits_V.grad


def expected_gradient(
    policy_V: torch.Tensor, old_V: torch.Tensor, reference_V: torch.Tensor, estimator: str
) -> torch.Tensor:
    """Over every token that the old policy may say, by how likely it says it: exact."""
    logits_V = policy_V.clone().requires_grad_()
    logs_V = logits_V.log_softmax(0)
    estimates_V = divergence(logs_V, reference_V, (logs_V - old_V).exp(), estimator)
    (old_V.exp() * estimates_V).sum().backward()
    return logits_V.grad


@pytest.mark.parametrize("old_is_new", [True, False])
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_gradient_of_a_kl_estimator_is_that_of_the_kl(estimator, old_is_new):
    """Also where another policy answered than the one that learns."""
    policy_V, old_V, reference_V = distributions(old_is_new)
    found_V = expected_gradient(policy_V, old_V, reference_V, estimator)
    assert torch.allclose(found_V, true_gradient(policy_V, reference_V), atol=1e-12)


def test_k3_without_its_ratio_has_the_gradient_of_another_divergence():
    """Why it is multiplied: it would be that of KL(π_ref ‖ π)."""
    policy_V, old_V, reference_V = distributions(True)
    logits_V = policy_V.clone().requires_grad_()
    away_V = reference_V - logits_V.log_softmax(0)
    (old_V.exp() * (away_V.exp() - 1 - away_V)).sum().backward()
    assert not torch.allclose(logits_V.grad, true_gradient(policy_V, reference_V), atol=1e-2)
    assert torch.allclose(logits_V.grad, policy_V.softmax(0) - reference_V.exp(), atol=1e-12)


def test_k1_in_the_reward_has_the_gradient_of_the_kl():
    policy_V, old_V, reference_V = distributions(True)
    logits_V = policy_V.clone().requires_grad_()
    penalty_V = (old_V - reference_V).detach()  # taken from the reward: the loss of a token is log π times it
    (old_V.exp() * penalty_V * logits_V.log_softmax(0)).sum().backward()
    assert torch.allclose(logits_V.grad, true_gradient(policy_V, reference_V), atol=1e-12)


def test_a_value_is_held_near_the_old_one_where_that_costs_more():
    """trl 0.11's PPOTrainer.loss: half the larger of two squares."""
    values_4, old_4 = torch.tensor([1.0, 1.0, 1.0, 0.1]), torch.zeros(4)
    returns_4 = torch.tensor([2.0, 0.0, 0.3, 0.2])
    error_4, held_4 = clipped_error(values_4, old_4, returns_4, 0.2)
    assert error_4.tolist() == pytest.approx([0.5 * 1.8**2, 0.5 * 1.0, 0.5 * 0.7**2, 0.5 * 0.1**2])
    assert held_4.tolist() == [True, False, False, False]
    assert clipped_error(values_4, old_4, returns_4, None)[0].tolist() == pytest.approx([0.5, 0.5, 0.245, 0.005])
