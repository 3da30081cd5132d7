"""Each loss is its paper's formula: here written again, from probabilities where the paper has them, in fp64."""

from __future__ import annotations

import math

import pytest
import torch

from seedbed.alignment.direct.losses import (
    conservative_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    odds_ratio_loss,
    robust_loss,
    sigmoid_loss,
    simpo_loss,
)

BETA, EPSILON = 0.1, 0.2


def logs(seed, count=200, size=8.0):
    return -size * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.01


P_W, P_L, Q_W, Q_L = map(logs, range(4))
MARGIN = BETA * ((P_W - Q_W) - (P_L - Q_L))


def each(formula, *values):
    rows = zip(*(value.tolist() for value in values), strict=True)
    return torch.tensor([formula(*numbers) for numbers in rows], dtype=torch.float64)


def sigma(x):
    return 1 / (1 + math.exp(-x))


def preferred(p_w, p_l, q_w, q_l):
    """The chance that the better answer wins, under β·log p/q as its reward: from the probabilities themselves."""
    better = (math.exp(p_w) / math.exp(q_w)) ** BETA
    worse = (math.exp(p_l) / math.exp(q_l)) ** BETA
    return better / (better + worse)


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_dpo_is_minus_the_log_of_the_chance_that_the_better_answer_wins():
    assert_same(sigmoid_loss(MARGIN), each(lambda *logs: -math.log(preferred(*logs)), P_W, P_L, Q_W, Q_L))


def test_conservative_dpo_is_the_cross_entropy_of_labels_that_may_be_flipped():
    def wanted(*logs):
        chance = preferred(*logs)
        return -(1 - EPSILON) * math.log(chance) - EPSILON * math.log(1 - chance)

    assert_same(conservative_loss(MARGIN, EPSILON), each(wanted, P_W, P_L, Q_W, Q_L))


def test_robust_dpo_is_on_average_over_flips_the_loss_of_the_true_preference():
    straight, flipped = robust_loss(MARGIN, EPSILON), robust_loss(-MARGIN, EPSILON)
    assert_same((1 - EPSILON) * straight + EPSILON * flipped, sigmoid_loss(MARGIN))

    def wanted(*logs):
        chance = preferred(*logs)
        return (-(1 - EPSILON) * math.log(chance) + EPSILON * math.log(1 - chance)) / (1 - 2 * EPSILON)

    assert_same(straight, each(wanted, P_W, P_L, Q_W, Q_L))


def test_ipo_is_the_squared_distance_of_the_log_ratios_from_their_target():
    def wanted(p_w, p_l, q_w, q_l):
        return (math.log(math.exp(p_w) * math.exp(q_l) / (math.exp(p_l) * math.exp(q_w))) - 1 / (2 * BETA)) ** 2

    assert_same(ipo_loss(MARGIN, BETA), each(wanted, P_W, P_L, Q_W, Q_L))


def test_hinge_is_nought_beyond_a_margin_of_one():
    margin = 10 * MARGIN
    assert_same(hinge_loss(margin), each(lambda m: max(0.0, 1 - m), margin))
    assert not hinge_loss(torch.tensor(1.5))


def test_simpo_takes_the_target_off_the_margin():
    lengths_w, lengths_l = torch.arange(200).double() % 7 + 1, torch.arange(200).double() % 5 + 1

    def wanted(p_w, p_l, n_w, n_l):
        return -math.log(sigma(2.0 / n_w * p_w - 2.0 / n_l * p_l - 0.7))

    found = simpo_loss(2.0 * P_W / lengths_w - 2.0 * P_L / lengths_l, 0.7)
    assert_same(found, each(wanted, P_W, P_L, lengths_w, lengths_l))


def test_orpo_is_the_likelihood_and_the_log_of_the_odds_ratio():
    def wanted(p_w, p_l):
        odds = [math.exp(p) / (1 - math.exp(p)) for p in (p_w, p_l)]
        return -p_w + BETA * -math.log(sigma(math.log(odds[0] / odds[1])))

    assert_same(odds_ratio_loss(P_W, P_L, BETA), each(wanted, P_W, P_L))


def test_orpo_stays_finite_where_an_answer_is_certain():
    certain = torch.zeros(1, requires_grad=True)
    odds_ratio_loss(certain, torch.tensor([-1.0]), BETA).sum().backward()
    assert torch.isfinite(certain.grad).all()


def test_kto_values_gains_and_losses_from_how_far_the_model_has_gone():
    wanted_S = torch.arange(200) % 3 == 0
    rewards, baseline = BETA * (P_W - Q_W), BETA * logs(9).abs()

    def wanted(reward, z, is_wanted):
        value = 1.5 * sigma(reward - z) if is_wanted else 0.7 * sigma(z - reward)
        return (1.5 if is_wanted else 0.7) - value  # λ_y − v(x, y)

    assert_same(kto_loss(rewards, baseline, wanted_S, 1.5, 0.7), each(wanted, rewards, baseline, wanted_S))


@pytest.mark.parametrize(
    "loss",
    [
        sigmoid_loss,
        lambda m: ipo_loss(m, BETA),
        lambda m: conservative_loss(m, EPSILON),
        lambda m: robust_loss(m, EPSILON),
        lambda m: simpo_loss(m, 1.0),
        lambda m: kto_loss(m, torch.zeros_like(m), m > 0, 1.0, 1.0),
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    margin = MARGIN[:20].clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, margin)


def test_large_margins_neither_overflow_nor_vanish():
    margin = torch.tensor([-500.0, 500.0], requires_grad=True)
    for loss in (sigmoid_loss(margin), conservative_loss(margin, 0.1), robust_loss(margin, 0.1)):
        assert torch.isfinite(loss).all()
    sigmoid_loss(margin).sum().backward()
    assert margin.grad.tolist() == [-1.0, -0.0]
