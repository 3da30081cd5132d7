"""A rollout is a function of the weights and its number, and says what the engine said and what it was worth."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.alignment.policy.asking import Asking, HeldOut
from seedbed.alignment.policy.credit import GroupCredit
from seedbed.alignment.policy.objective import PolicyLoss
from seedbed.alignment.policy.reading import Reading
from seedbed.alignment.policy.rollouts import Rollouts
from seedbed.alignment.rewards.config import ShapingConfig
from seedbed.alignment.rewards.rewards import Rewards
from seedbed.alignment.rewards.rules import Reward
from seedbed.alignment.rewards.shaping import Shaping
from seedbed.data.preferences import Problem, read_rows
from seedbed.data.problems import ProblemEncoder
from seedbed.inference.config import SamplingConfig
from seedbed.model.folder import load_model
from seedbed.training.precision import Precision

ASKING = Asking(answers=8, group=4, passes=1, batch=8, max_tokens=6, temperature=1.0, engine_rows=8, seed=3)


def words(problem: Problem, answer: str) -> float:
    """Worth something, and not the same, for nearly any two answers."""
    return float(sum(answer.encode()) % 7)


def source(
    base: Path, problems: Path, own: Reward = words, shaping: ShapingConfig | None = None, **changes: Any
) -> Rollouts:
    model, tokenizer = load_model(base, learns=True)
    encoded = list(ProblemEncoder(tokenizer, 64).problems(read_rows(Problem, problems)))
    asking = replace(ASKING, **changes)
    rewards = Rewards({"own": 1.0}, {"own": own}).shaped(Shaping(shaping or ShapingConfig(), asking.max_tokens))
    made = Rollouts(encoded, tokenizer, rewards, asking, GroupCredit(asking.group, "mean", "none"))
    made.learn(model.train(), Precision("fp32", torch.device("cpu")))
    return made


def move(rollouts: Rollouts) -> None:
    """One update of the weights."""
    with torch.no_grad():
        for weight in rollouts.learner.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(weight))))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_a_row_is_a_prompt_and_what_was_said_to_it(base, problems):
    rollouts = source(base, problems)
    batch = rollouts.batch(0, 8)
    assert batch.said_BT.any(1).all() and not batch.said_BT[:, 0].any()
    end = rollouts.tokenizer.end_ids
    for row, told in enumerate(rollouts.table):
        said = batch.tokens_BT[row][batch.said_BT[row]].tolist()
        prompt = batch.tokens_BT[row, : int(batch.said_BT[row].int().argmax())].tolist()
        assert prompt in rollouts.prompts
        assert told["ended"] == (said[-1] in end) == bool(batch.ended_B[row])
        assert told["text"] == rollouts.tokenizer.decode([token for token in said if token not in end])
        worth = words(None, told["text"]) if told["ended"] else 0.0
        assert told["rewards"] == {"own": worth} and batch.rewards_BF[row].tolist() == [worth]
    assert batch.tokens_BT[0, 0] == batch.tokens_BT[3, 0]  # four answers to one prompt stand side by side
    assert [told["prompt"] for told in rollouts.table[:4]] == [rollouts.table[0]["prompt"]] * 4


def test_the_engines_log_probabilities_are_the_trainers(base, problems):
    rollouts = source(base, problems)
    move(rollouts)
    batch = rollouts.batch(0, 8)
    logprobs_BT = Reading(rollouts.learner, batch.tokens_BT, batch.said_BT).logprobs().detach()
    assert float((logprobs_BT - batch.sampler_BT).abs().max()) <= 1e-5
    assert (batch.sampler_BT[batch.said_BT] < 0).all() and not batch.sampler_BT[~batch.said_BT].any()


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.4])
def test_a_reading_at_a_temperature_is_that_of_the_logits_divided_by_it(temperature, base, problems):
    rollouts = source(base, problems)
    batch = rollouts.batch(0, 8)
    with torch.no_grad():
        reading = Reading(rollouts.learner, batch.tokens_BT, batch.said_BT)
        logs_BTV = (rollouts.learner(batch.tokens_BT).double() / temperature).log_softmax(-1)
        logprobs_BT = torch.zeros_like(batch.old_BT).double()
        logprobs_BT[:, 1:] = logs_BTV[:, :-1].gather(-1, batch.tokens_BT[:, 1:, None]).squeeze(-1)
        entropy = -(logs_BTV.exp() * logs_BTV).sum(-1)[:, :-1][batch.said_BT[:, 1:]].sum()
        found_BT = reading.logprobs(temperature).double()
    assert torch.allclose(found_BT, torch.where(batch.said_BT, logprobs_BT, 0.0), atol=1e-5)
    assert reading.entropy(temperature) == pytest.approx(float(entropy), rel=1e-4)


def test_the_reference_is_read_at_the_temperature_of_the_policy(base, problems):
    rollouts = source(base, problems, temperature=0.7, answers=16)
    rollouts.compares, rollouts.reference = True, load_model(base)[0]
    batch = rollouts.batch(0, 8)
    assert torch.allclose(batch.reference_BT, batch.old_BT, atol=1e-5)
    assert not torch.allclose(batch.old_BT, batch.sampler_BT, atol=1e-2)


def test_dropout_is_off_where_it_is_told_what_the_policy_was(base, problems):
    rollouts = source(base, problems, answers=16)
    weights = dict(rollouts.learner.named_parameters())
    wet = type(rollouts.learner).of_weights(replace(rollouts.learner.config, dropout=0.5), weights)
    rollouts.learn(wet.train(), rollouts.precision)
    batch = rollouts.batch(0, 8)
    assert torch.allclose(batch.old_BT, batch.sampler_BT, atol=1e-5) and wet.training
    policy = PolicyLoss("token", "token", 0.2, 0.2, 0.0, "k3", 1.0, 6, False, False)
    _, logprobs_BT, _ = policy.read(wet, batch)
    assert torch.allclose(logprobs_BT, batch.sampler_BT, atol=1e-5)


def test_the_micro_batches_of_a_step_share_one_rollout(base, problems, monkeypatch):
    whole = source(base, problems).batch(0, 8)
    rollouts = source(base, problems)
    made = []
    monkeypatch.setattr(rollouts, "_make", lambda number, make=rollouts._make: made.append(number) or make(number))
    parts = [rollouts.batch(first, 2) for first in (0, 2, 4, 6)]
    assert made == [0]
    for place, part in enumerate(parts):
        length = part.tokens_BT.shape[1]
        assert torch.equal(part.tokens_BT, whole.tokens_BT[2 * place : 2 * place + 2, :length])
        assert torch.equal(part.advantages_BT, whole.advantages_BT[2 * place : 2 * place + 2, :length])


def test_an_answer_does_not_depend_on_who_is_answered_beside_it(base, problems):
    assert torch.equal(
        source(base, problems, engine_rows=8).batch(8, 8).tokens_BT,
        source(base, problems, engine_rows=3).batch(8, 8).tokens_BT,
    )


def test_each_rollout_prompt_and_sample_is_drawn_by_numbers_of_its_own(base, problems):
    first = source(base, problems)
    texts = [told["text"] for number in (0, 1) for told in (first.batch(8 * number, 8), first.table)[1]]
    assert len(set(texts)) > 8
    other = source(base, problems, seed=4)
    other.batch(0, 8)
    assert [told["text"] for told in other.table] != texts[:8]


def test_a_prompt_that_comes_again_is_answered_by_other_draws(base, problems):
    rollouts = source(base, problems, order="given")  # 30 prompts, two at a time
    first, again = ([answer.text for answer in rollouts._asked(number)[1]] for number in (0, 15))
    assert rollouts._prompts(0, 0, 2) == rollouts._prompts(15, 0, 2) and first != again


def test_after_an_update_the_new_weights_answer(base, problems):
    """Nothing that the engine kept of earlier weights is read: the rollout is that of a source made afterwards."""
    rollouts = source(base, problems)
    before = rollouts.batch(0, 8)
    move(rollouts)
    after = rollouts.batch(0, 8)
    fresh = source(base, problems)
    move(fresh)
    assert not torch.equal(before.sampler_BT, after.sampler_BT)
    assert same(after, fresh.batch(0, 8))


def test_a_rollout_of_several_steps_stays_what_it_was(base, problems):
    rollouts = source(base, problems, answers=16, passes=2)
    first, second = rollouts.batch(0, 8), rollouts.batch(8, 8)
    assert first.fresh and not second.fresh and rollouts.asking.steps == 4
    assert torch.allclose(first.old_BT, first.sampler_BT, atol=1e-5)
    move(rollouts)
    assert same(rollouts.batch(8, 8), second)
    seen = torch.cat([torch.from_numpy(rollouts._order(0, place)) for place in (2, 3)])
    assert sorted(seen.tolist()) == list(range(16))
    assert rollouts.batch(32, 8).fresh  # the next rollout


def test_the_tensors_of_a_source_bring_back_its_rollout(base, problems):
    rollouts, other = (source(base, problems, answers=16) for _ in range(2))
    kept = rollouts.batch(8, 8)
    for name, tensor in other.tensors.items():
        tensor.copy_(rollouts.tensors[name])
    move(other)
    assert same(other.batch(8, 8), kept)
    assert source(base, problems).tensors == {}  # of one step: made again


def test_a_new_run_begins_without_the_rollout_of_another(base, problems):
    rollouts = source(base, problems, answers=16)
    first = rollouts.batch(0, 8)
    move(rollouts)
    rollouts.learn(rollouts.learner, rollouts.precision)
    assert not torch.equal(rollouts.batch(0, 8).sampler_BT, first.sampler_BT)


def test_the_learner_is_left_as_it_was(base, problems):
    rollouts = source(base, problems)
    state = torch.get_rng_state()
    rollouts.batch(0, 8)
    assert rollouts.learner.training and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("given", "cut"), [(5.0, 0.0), (-1.0, -1.0)])
def test_what_is_cut_off_is_worth_nothing_and_no_more_than_if_it_had_ended(given, cut, base, problems):
    rollouts = source(base, problems, own=lambda problem, answer: given, max_tokens=2, answers=32, batch=32)
    batch = rollouts.batch(0, 32)
    assert int((~batch.ended_B).sum()) > 0
    assert batch.rewards_BF[:, 0].tolist() == [given if ended else cut for ended in batch.ended_B]


def test_what_is_learned_from_is_the_sum_after_each_step_of_shaping(base, problems):
    """Clip, penalties (DAPO, arXiv:2503.14476, eq. 13; shares of what was said before), whiten; by plain formulas."""
    shaping = ShapingConfig(clip=3.0, length_buffer=4, length_weight=2.0, repetition_weight=0.5, repetition_run=1)
    rollouts = source(base, problems, answers=64, batch=64, shaping=replace(shaping, whiten=True))
    batch = rollouts.batch(0, 64)
    assert rollouts.rewards.shaping.names == ("clip", "length", "repetition", "whiten")
    sums = []
    for row, told in enumerate(rollouts.table):
        own, said = float(batch.rewards_BF[row, 0]), batch.tokens_BT[row][batch.said_BT[row]].tolist()
        clipped = min(own, 3.0)
        length = 2 * (-1.0 if not batch.ended_B[row] else min(0.0, (2 - len(said)) / 4))
        again = 0.5 * (len(set(said)) / len(said) - 1)
        sums.append(clipped + length + again)
        assert told["rewards"] == {"own": own} and told["shaped"] == float(batch.shaped_B[row])
        wanted = [clipped - own, length, again]
        assert batch.added_BS[row, :3].tolist() == pytest.approx(wanted, abs=1e-6)
    mean, deviation = statistics.fmean(sums), statistics.pstdev(sums)
    assert batch.shaped_B.tolist() == pytest.approx([(each - mean) / deviation for each in sums], abs=1e-5)
    assert batch.added_BS.sum(1).tolist() == pytest.approx((batch.shaped_B - batch.rewards_BF[:, 0]).tolist(), abs=1e-5)
    lasts = (batch.rewards_BF.max(), (batch.added_BS != 0).sum(0).min())
    assert lasts[0] > 3 and lasts[1] > 5  # each step had something to do
    by_group = batch.shaped_B.view(-1, 4) - batch.shaped_B.view(-1, 4).mean(1, keepdim=True)
    found = torch.where(batch.said_BT, by_group.flatten()[:, None], 0.0)
    assert torch.allclose(batch.advantages_BT, found, atol=1e-6)  # and nothing else is learned from


def test_whitening_can_leave_the_mean(base, problems):
    rollouts = source(base, problems, answers=64, batch=64, shaping=ShapingConfig(whiten=True, shift=False))
    batch = rollouts.batch(0, 64)
    assert float(batch.shaped_B.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert float(batch.shaped_B.mean()) == pytest.approx(float(batch.rewards_BF.mean()), abs=1e-5)


def odd(problem: Problem, answer: str) -> float:
    """Only answers to prompts with an odd number are ever worth something."""
    return words(problem, answer) if int(problem.prompt[-1]["content"].strip("#")) % 2 else 0.0


@pytest.fixture
def ends(monkeypatch):
    """Every answer counts as one that the model ended."""
    judged = Rollouts.judged

    def all_end(self, prompts, answers):
        return judged(self, prompts, [replace(answer, reason="end") for answer in answers])

    monkeypatch.setattr(Rollouts, "judged", all_end)


def test_prompts_that_teach_nothing_are_replaced(base, problems, ends):
    plain = source(base, problems, own=odd, answers=32, batch=32)
    assert 0.1 < float(plain.batch(0, 32).alike_B[0]) < 0.9
    rollouts = source(base, problems, own=odd, answers=32, batch=32, attempts=6)
    batch = rollouts.batch(0, 32)
    assert batch.rewards_BF.view(8, 4).std(1).min() > 0
    assert 0.1 < float(batch.alike_B[0]) < 0.9  # of all that were asked
    assert same(batch, source(base, problems, own=odd, answers=32, batch=32, attempts=6).batch(0, 32))


def test_where_attempts_run_out_the_rest_teaches_nothing(base, problems):
    rollouts = source(base, problems, own=lambda problem, answer: 0.0, attempts=2)
    batch = rollouts.batch(0, 8)
    assert float(batch.alike_B[0]) == 1 and not batch.advantages_BT.any()


def test_the_most_unequal_prompts_are_asked_again(base, problems):
    rollouts = source(base, problems, order="learnable")
    rollouts.spread_P.zero_()
    candidates = rollouts._prompts(0, 0, 2)
    rollouts.spread_P[candidates[0]] = 0.5
    asked = source(base, problems, order="shuffled")._prompts(0, 0, 4)
    worth = dict.fromkeys(asked, 0.0) | {asked[2]: 0.3, asked[3]: 0.4}
    for prompt, spread in worth.items():
        rollouts.spread_P[prompt] = spread
    assert rollouts._prompts(0, 0, 2) == asked[2:]
    rollouts.batch(0, 8)
    assert rollouts.tensors.keys() == {"rollouts.spread"}
    assert sum(float(rollouts.spread_P[prompt]) != spread for prompt, spread in worth.items()) > 0


def test_given_prompts_come_in_their_order(base, problems):
    rollouts = source(base, problems, order="given")
    assert [rollouts._prompts(number, 0, 4) for number in (0, 1, 7)] == [[0, 1, 2, 3], [4, 5, 6, 7], [28, 29, 0, 1]]


def test_validation_answers_greedily(base, problems):
    rollouts = source(base, problems)
    held_out = HeldOut(rollouts.problems, rollouts.tokenizer, rollouts.rewards, rollouts.asking)
    held_out.learn(rollouts.learner, rollouts.precision)
    answers = held_out.batch(0, 5)
    assert len(answers.rewards_B) == 5 and answers.rewards_BF.shape == (5, 1) and held_out.samples == 30
    assert torch.equal(answers.rewards_B, held_out.batch(0, 5).rewards_B)
    assert torch.equal(held_out.batch(30, 5).lengths_B, answers.lengths_B)
    sampling = SamplingConfig(temperature=0, max_tokens=6)
    with held_out.answering() as engine:
        greedy = engine.complete(held_out.prompts[:5], sampling)
    ended = [answer.reason == "end" for answer in greedy]
    assert answers.ended_B.tolist() == ended
    worth = [words(None, answer.text) if end else 0.0 for answer, end in zip(greedy, ended, strict=True)]
    assert answers.rewards_B.tolist() == worth


def test_rows_of_another_step_are_refused(base, problems):
    with pytest.raises(ValueError, match="samples 6 to 9 are not all of step 0"):
        source(base, problems).batch(6, 4)
