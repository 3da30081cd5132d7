"""Advantages are those of the papers: by groups as trl computes them, over episodes as a loop in fp64 does."""

from __future__ import annotations

import pytest
import torch

from seedbed.alignment.policy.advantages import alike, by_group, generalised, whitened


def rewards(answers: int = 24) -> torch.Tensor:
    return torch.randn(answers, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_advantages_by_group_are_those_of_trl():
    """trl 0.24, GRPOTrainer._generate_and_score_completions."""
    rewards_B = rewards()
    mean = rewards_B.view(-1, 6).mean(dim=1).repeat_interleave(6, dim=0)
    deviation = rewards_B.view(-1, 6).std(dim=1).repeat_interleave(6, dim=0)
    wanted = {
        "none": rewards_B - mean,
        "group": (rewards_B - mean) / (deviation + 1e-4),
        "batch": (rewards_B - mean) / (rewards_B.std() + 1e-4),
    }
    for scale, advantages_B in wanted.items():
        assert torch.allclose(by_group(rewards_B, 6, "mean", scale), advantages_B, atol=1e-12)


def test_the_baseline_of_an_answer_is_what_the_others_were_worth():
    """RLOO, arXiv:2402.14740, eq. 8."""
    rewards_B = rewards(8)
    found_B = by_group(rewards_B, 4, "others", "none")
    for i in range(8):
        others = [rewards_B[j] for j in range(i // 4 * 4, i // 4 * 4 + 4) if j != i]
        assert found_B[i] == pytest.approx(float(rewards_B[i] - sum(others) / 3))


def test_answers_that_are_all_worth_the_same_teach_nothing():
    rewards_B = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert alike(rewards_B, 2).tolist() == [True, False, True]
    for scale in ("group", "batch", "none"):
        advantages_B = by_group(rewards_B, 2, "mean", scale)
        assert advantages_B[[0, 1, 4, 5]].tolist() == [0.0] * 4 and advantages_B.isfinite().all()


def episodes() -> tuple[torch.Tensor, ...]:
    """Rewards, values, values after the end and where something was said, of answers of several lengths and places."""
    generator = torch.Generator().manual_seed(1)
    rewards_BT, values_BT = (torch.randn(5, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    said_BT = torch.zeros(5, 9, dtype=torch.bool)
    for row, (first, end) in enumerate([(1, 9), (3, 5), (2, 3), (4, 9), (1, 2)]):
        said_BT[row, first:end] = True
    after_B = torch.tensor([0.0, 0.7, 0.0, -1.3, 0.4], dtype=torch.float64)  # those that are not 0 were cut off
    return rewards_BT, values_BT, after_B, said_BT


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.7, 0.0)])
def test_generalised_advantages_are_those_of_a_loop(discount, decay):
    rewards_BT, values_BT, after_B, said_BT = episodes()
    found_BT = generalised(rewards_BT, values_BT, after_B, said_BT, discount=discount, decay=decay)
    for row in range(5):
        places = said_BT[row].nonzero().flatten().tolist()
        for number, t in enumerate(places):
            # The definition: a sum of discounted surprises from here to the end (arXiv:1506.02438, eq. 16).
            total = 0.0
            for steps, later in enumerate(places[number:]):
                expected = float(values_BT[row, later + 1]) if later + 1 in places else float(after_B[row])
                surprise = float(rewards_BT[row, later]) + discount * expected - float(values_BT[row, later])
                total += (discount * decay) ** steps * surprise
            assert float(found_BT[row, t]) == pytest.approx(total, abs=1e-12)
    assert not found_BT[~said_BT].any()


def test_what_was_not_said_has_no_part_in_an_advantage():
    rewards_BT, values_BT, after_B, said_BT = episodes()
    settings = {"discount": 0.9, "decay": 0.8}
    noise_BT = torch.where(said_BT, 0.0, torch.full_like(rewards_BT, 1e9))
    plain_BT = generalised(rewards_BT, values_BT, after_B, said_BT, **settings)
    assert torch.equal(generalised(rewards_BT + noise_BT, values_BT + noise_BT, after_B, said_BT, **settings), plain_BT)


def test_whitening_is_over_what_was_said():
    numbers_BT, _, _, said_BT = episodes()
    white_BT = whitened(torch.where(said_BT, numbers_BT, torch.inf), said_BT)
    assert float(white_BT[said_BT].mean()) == pytest.approx(0, abs=1e-12)
    assert float(white_BT[said_BT].var(correction=0)) == pytest.approx(1, abs=1e-6)
    assert not white_BT[~said_BT].any()
