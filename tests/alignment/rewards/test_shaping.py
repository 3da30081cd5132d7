"""Each shaping does to rewards what its formula says, at the edges too."""

from __future__ import annotations

import itertools

import pytest
import torch

from seedbed.alignment.rewards.shaping import clip, length_penalty, potential_based, repetition_penalty, scale, whiten

REWARDS = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 4 + 2


def test_clipping_leaves_what_is_small_enough():
    clipped = clip(REWARDS, 3.0)
    assert clipped.abs().max() == 3 and torch.equal(clipped[REWARDS.abs() < 3], REWARDS[REWARDS.abs() < 3])


def test_scaling_gives_mean_nought_and_deviation_one_of_what_was_told():
    scaled = scale(REWARDS, float(REWARDS.mean()), float(REWARDS.std()))
    assert abs(float(scaled.mean())) < 1e-6 and float(scaled.std()) == pytest.approx(1, abs=1e-6)
    assert torch.isfinite(scale(REWARDS, 0.0, 0.0)).all()


@pytest.mark.parametrize("shift", [True, False])
def test_whitening_gives_deviation_one_and_leaves_the_mean_where_it_is_told_to(shift):
    whitened = whiten(REWARDS, shift=shift)
    assert float(whitened.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert float(whitened.mean()) == pytest.approx(0.0 if shift else float(REWARDS.mean()), abs=1e-5)


def test_whitening_of_equal_rewards_is_nought():
    assert not whiten(torch.full((4,), 3.0)).any()


def test_long_answers_cost_from_the_buffer_on_and_never_more_than_one():
    lengths = torch.tensor([0, 80, 90, 100, 500])
    assert length_penalty(lengths, limit=100, buffer=20).tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_repeating_costs_the_share_of_what_was_said_before():
    words = "a b c d a b c d a b c d".split()  # noqa: SIM905 (shorter)
    assert repetition_penalty([words, list("abcdefgh"), list("abc"), []], n=4).tolist() == pytest.approx(
        [4 / 9 - 1, 0.0, 0.0, 0.0]
    )


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_potentials_change_no_policy(gamma):
    """The shaped return of every episode differs from its own by the same −Φ(s₀)."""
    potentials = {state: float(i) ** 2 - 3 for i, state in enumerate("abc")}
    discounts = gamma ** torch.arange(4).double()
    for episode in itertools.product("bc", repeat=3):
        states = ["a", *episode]
        rewards_T = torch.tensor([ord(state) % 5 for state in states]).double()
        potentials_T = torch.tensor([potentials[state] for state in states]).double()
        shaped = (discounts * potential_based(rewards_T, potentials_T, gamma)).sum()
        assert float(shaped - (discounts * rewards_T).sum()) == pytest.approx(-potentials["a"])
