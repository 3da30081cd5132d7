"""Reward models reward a policy: by the very tokens that it said, as they learned to score them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seedbed.alignment.policy.config import GrpoConfig, PpoConfig
from seedbed.alignment.policy.credit import Potential
from seedbed.alignment.policy.grpo import grpo
from seedbed.alignment.policy.judging import RewardModels
from seedbed.alignment.policy.ppo import ppo
from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.alignment.reward_models.ensemble import RewardModel
from seedbed.alignment.reward_models.training import reward
from seedbed.alignment.rewards.config import RewardModelsConfig
from seedbed.alignment.rewards.rewards import Rewards
from seedbed.alignment.rewards.rules import Answer
from seedbed.configuration import from_arguments
from seedbed.data.preferences import Problem
from seedbed.errors import ConfigError, DataError, SeedbedError
from seedbed.model.folder import load_model, save_model
from seedbed.runs import input_hash, read_manifest
from seedbed.tokenizers.chat import encode_prompt
from tests.alignment.judged import config, write_rows
from tests.alignment.policy.conftest import PROMPTS, write
from tests.alignment.policy.counting import counted, counting_model
from tests.alignment.policy.test_grpo import FAST, Death
from tests.alignment.policy.test_ppo import credit
from tests.alignment.policy.test_rollouts import source
from tests.alignment.reward_models.test_training import SOLUTIONS
from tests.random_models import random_model
from tests.tiny import records, same_bits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def counters(base, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("counters")
    return {letter: counting_model(base, place / letter, letter) for letter in "ab"}


@pytest.fixture(scope="module")
def open_prompts(tmp_path_factory) -> Path:
    """Rows that hold nothing but a prompt."""
    return write(tmp_path_factory.mktemp("open") / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])


def arguments(base: Path, data: Path, out: Path, models: list[Path], *others: str) -> list[str]:
    runs = f"--reward_models.runs={json.dumps([str(path) for path in models])}"
    return [f"--model={base}", f"--data={data}", f"--out={out}", runs, *FAST[:1], "--train.batch=8", *others]


def loaded(base: Path, runs: list[Path], **others) -> RewardModels:
    return RewardModels.load(RewardModelsConfig(runs=runs, **others), load_model(base)[1], CPU)


def asked(base: Path, prompt: str, text: str, *, ended: bool = True) -> Answer:
    tokenizer = load_model(base)[1]
    messages = [{"role": "user", "content": prompt}]
    said = tokenizer.encode(text) + ([tokenizer.special_ids["<|im_end|>"]] if ended else [])
    problem = Problem("row 1", messages, None, "exact", ())
    return Answer(problem, text, encode_prompt(tokenizer, messages), said, ended)


# Scores --------------------------------------------------------------------------------------------------------------


def test_an_answer_is_worth_what_the_model_says_at_its_end(base, counters):
    """A model made by hand; its score is known without it."""
    answers = [asked(base, "1", "a"), asked(base, "abc", "aab"), asked(base, "2", "b"), asked(base, "1", "")]
    letter = load_model(base)[1].encode("a")[0]
    wanted = [counted([*answer.prompt, *answer.said], letter) for answer in answers]
    assert loaded(base, [counters["a"]])(answers).tolist() == pytest.approx(wanted, rel=1e-4)
    assert len({round(each, 3) for each in wanted}) == 4


def test_the_score_is_that_of_the_conversation_as_the_reward_model_learned_it(base, tmp_path):
    """Whatever template and tokenizer make of the text (`RewardModel.score` encodes it anew)."""
    model, tokenizer = random_model(tokenizer=load_model(base)[1], head="score"), load_model(base)[1]
    save_model(tmp_path / "random", model, tokenizer, inputs={}, card={})
    answers = [asked(base, "1", "abc"), asked(base, "##7", "f"), asked(base, "long prompt", "de")]
    conversations = [[*each.problem.prompt, {"role": "assistant", "content": each.text}] for each in answers]
    wanted = RewardModel.load(tmp_path / "random").score(conversations)
    assert loaded(base, [tmp_path / "random"])(answers).tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("gain", [4.0, -4.0])
def test_an_answer_that_was_cut_off_is_worth_less_than_one_that_ended_there_and_than_nought(gain, base, tmp_path):
    counter = counting_model(base, tmp_path / "counter", "a", gain)
    whole, cut = asked(base, "1", "ab"), asked(base, "1", "aba", ended=False)
    scores = loaded(base, [counter], cut_penalty=0.75)([whole, cut]).tolist()
    assert (scores[0] > 0) == (gain > 0)
    assert scores[1] == pytest.approx(min(scores[0], 0.0) - 0.75, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "together"),
    [
        ({}, lambda one, other: (one + other) / 2),
        ({"caution": 2.0}, lambda one, other: (one + other) / 2 - 2 * abs(one - other) / 2),
        ({"combine": "least"}, min),
    ],
)
def test_several_are_asked_together(settings, together, base, counters):
    answers = [asked(base, "1", text) for text in ("aab", "bba", "c")]
    one, other = (loaded(base, [counters[letter]])(answers).tolist() for letter in "ab")
    found = loaded(base, list(counters.values()), **settings)(answers).tolist()
    assert found == pytest.approx([together(*pair) for pair in zip(one, other, strict=True)], abs=1e-5)
    assert one != other


def test_scores_can_be_told_in_the_deviations_of_a_run(base, counters):
    (counters["a"].parent / "result.json").unlink(missing_ok=True)
    answers = [asked(base, "1", text) for text in ("aab", "c")]
    plain = loaded(base, [counters["a"]])(answers)
    with pytest.raises(ConfigError, match="does not tell the scores of its validation data"):
        loaded(base, [counters["a"]], standardise=True)
    (counters["a"] / "result.json").write_text(json.dumps({"val_score": 0.5, "val_score_deviation": 2.0}))
    scaled = loaded(base, [counters["a"]], standardise=True)
    (counters["a"] / "result.json").unlink()
    assert torch.allclose(scaled(answers), (plain - 0.5) / 2)
    assert scaled.fingerprint != loaded(base, [counters["a"]]).fingerprint


def test_they_stand_beside_rules_each_by_its_weight(base, counters):
    answers = [asked(base, "1", "aab"), asked(base, "1", "c"), asked(base, "1", "ab", ended=False)]
    judge = loaded(base, [counters["a"]], weight=0.25)
    worth = Rewards({"own": 2.0}, {"own": lambda problem, text: float(len(text))}, judge=judge)(answers)
    assert torch.equal(worth.rewards_BF, torch.stack([torch.tensor([3.0, 1.0, 0.0]), judge(answers)], dim=1))
    assert torch.allclose(worth.shaped_B, worth.rewards_BF @ torch.tensor([2.0, 0.25]))


# Potentials ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bootstraps", [True, False])
def test_each_token_has_what_it_adds_to_the_score(bootstraps, base, problems, counters):
    """r_t + γ·Φ(s_{t+1}) − Φ(s_t), after the end nought (Ng, Harada & Russell 1999), Φ by the formula of the model."""
    rollouts = source(base, problems, max_tokens=3)
    judge = loaded(base, [counters["a"]])
    with torch.no_grad():
        rollouts.learner = with_values(rollouts.learner)
    seen = {}
    for hinted in (False, True):
        potential = Potential(judge.models, 0.5, 3) if hinted else None
        rollouts.credit = credit(bootstraps=bootstraps, discount=0.9, decay=0.0, potential=potential)
        rollouts.number.fill_(-1)
        rollouts._made_by = None
        seen[hinted] = rollouts.batch(0, 8)
    plain, batch = seen[False], seen[True]
    assert batch.ended_B.any() and not batch.ended_B.all()
    letter = load_model(base)[1].encode("a")[0]
    for row in range(8):
        places = batch.said_BT[row].nonzero().flatten().tolist()
        ids = batch.tokens_BT[row].tolist()
        before = [0.5 * counted(ids[:place], letter) for place in places]
        goes_on = bootstraps and not batch.ended_B[row]
        last = 0.5 * counted(ids[: places[-1] + 1], letter) if goes_on else 0.0
        added = [0.9 * after - value for value, after in zip(before, [*before[1:], last], strict=True)]
        # With λ = 0 an advantage is the surprise of its own token: what the hint adds stands alone.
        found = (batch.advantages_BT - plain.advantages_BT)[row, places].tolist()
        assert found == pytest.approx(added, abs=1e-4)
        assert float(batch.hints_B[row]) == pytest.approx(sum(added), abs=1e-4)
    assert not plain.hints_B.any()


def with_values(model):
    from seedbed.model.score_head import with_critic

    both = with_critic(model)
    both.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    return both


# Runs ----------------------------------------------------------------------------------------------------------------


def test_a_policy_learns_what_reward_models_like_from_prompts_alone(base, open_prompts, counters, tmp_path):
    settings = ("--train.steps=20", "--optimizer.rate=0.005", "--kl=0", "--train.log_every=1", "--passes=1")
    given = arguments(base, open_prompts, tmp_path / "run", [counters["a"]], *settings, "--train.device=cpu")
    result = ppo(from_arguments(PpoConfig, [*given, "--train.batch=32"]))
    found = [record for record in records(tmp_path / "run") if "reward/reward_model" in record]
    worth = [record["reward"] for record in found]
    assert sum(worth[-5:]) > sum(worth[:5]) + 0.5 and result["finished"]
    assert all(record["reward"] == pytest.approx(record["reward/reward_model"]) for record in found)
    inputs = read_manifest(tmp_path / "run").inputs
    assert inputs["reward model"] == input_hash(counters["a"])
    assert not [path for path in (tmp_path / "run").rglob("*") if counters["a"].name == path.name]  # no copy of it


def test_what_shaping_does_is_logged_and_rewards_stay_raw(base, open_prompts, counters, tmp_path):
    shaping = (
        "--shaping.clip=1",
        "--shaping.repetition_weight=0.5",
        "--shaping.repetition_run=1",
        "--shaping.whiten=true",
    )
    others = ("--shaping.potential=0.1", "--reward_models.weight=2", "--train.steps=2", "--train.log_every=1")
    models = list(counters.values())
    given = arguments(base, open_prompts, tmp_path / "run", models, *shaping, *others, "--train.device=cpu")
    ppo(from_arguments(PpoConfig, given))
    found = [record for record in records(tmp_path / "run") if "loss" in record]
    for record in found:
        added = sum(record[f"shaping/{name}"] for name in ("clip", "repetition", "whiten"))
        assert record["reward"] == pytest.approx(2 * record["reward/reward_model"], abs=1e-5)
        assert record["shaped_reward"] == pytest.approx(record["reward"] + added, abs=1e-5)
        assert record["shaped_reward"] == pytest.approx(0, abs=1e-5) and record["shaping/potential"] != 0
    assert read_manifest(tmp_path / "run").inputs.keys() >= {"reward model 1", "reward model 2", "model", "data"}


def test_a_run_with_reward_models_that_dies_goes_on_to_the_same_bits(base, open_prompts, counters, tmp_path):
    settings = ("--train.steps=4", "--train.checkpoint.steps=1", "--answers=16", "--passes=2", "--shaping.whiten=true")
    settings = (*settings, "--shaping.potential=0.2", "--optimizer.rate=0.003", "--train.device=cpu")

    def run(name: str, letters: str = "ab", observers=()):
        models = [counters[letter] for letter in letters]
        given = arguments(base, open_prompts, tmp_path / name, models, *settings)
        return ppo(from_arguments(PpoConfig, given), observers)

    run("whole")
    for death in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run("cut", observers=[Death(death)])
    with pytest.raises(SeedbedError):  # another reward model is another run
        run("cut", letters="ba")
    run("cut")
    assert same_bits(tmp_path / "whole", tmp_path / "cut")


def test_a_reward_model_that_was_trained_raises_its_own_reward(base, open_prompts, tmp_path):
    """`seedbed reward`, then `seedbed grpo` by it: answers with a b win."""
    rows = [
        {"prompt": prompt, "chosen": f"{letter}b{letter}", "rejected": f"{letter}{letter}"}
        for prompt in PROMPTS
        for letter in "acdef"
    ]
    data = write(tmp_path / "preferences.jsonl", rows)
    settings = [f"--model={base}", f"--data={data}", f"--out={tmp_path / 'judge'}", "--train.steps=40"]
    reward(from_arguments(RewardConfig, [*settings, "--optimizer.rate=0.005", "--train.device=cpu"]))
    steps = ("--train.steps=20", "--optimizer.rate=0.005", "--group=8", "--train.log_every=1", "--train.device=cpu")
    given = arguments(base, open_prompts, tmp_path / "run", [tmp_path / "judge"], *steps)
    grpo(from_arguments(GrpoConfig, [*given, "--train.batch=32", "--reward_models.standardise=true"]))
    worth = [record["reward"] for record in records(tmp_path / "run") if "loss" in record]
    assert sum(worth[-5:]) / 5 > sum(worth[:5]) / 5 + 0.5


# What cannot be ------------------------------------------------------------------------------------------------------


def test_rows_without_an_answer_are_for_reward_models_alone(base, open_prompts, counters, tmp_path):
    given = arguments(
        base, open_prompts, tmp_path / "run", [counters["a"]], '--rewards={"check": 1}', "--train.steps=1"
    )
    with pytest.raises(DataError, match="row 1: it has neither answer, reference nor tests"):
        ppo(from_arguments(PpoConfig, given))


def test_a_reward_model_must_read_the_tokens_of_the_policy(base, open_prompts, counters, tmp_path):
    given = arguments(base, open_prompts, tmp_path / "run", [counters["a"]], "--template=llama3", "--train.steps=1")
    with pytest.raises(ConfigError, match="has another tokenizer, or chat template, than the policy"):
        ppo(from_arguments(PpoConfig, given))
    given = arguments(base, open_prompts, tmp_path / "run", [base], "--train.steps=1")
    with pytest.raises(ConfigError, match=f"{base} gives tokens, no scores"):
        ppo(from_arguments(PpoConfig, given))
    assert not (tmp_path / "run").exists()


def test_a_reward_model_of_steps_is_refused(base, open_prompts, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", SOLUTIONS)
    reward(config(RewardConfig, base, data, tmp_path / "steps", "--loss=process", "--train.steps=1"))
    given = arguments(base, open_prompts, tmp_path / "run", [tmp_path / "steps"], "--train.steps=1")
    with pytest.raises(ConfigError, match="steps scores steps, not answers"):
        ppo(from_arguments(PpoConfig, given))


def test_a_reward_model_must_hold_the_longest_prompt_and_answer(base, counters):
    loaded(base, [counters["a"]]).refuse(80)
    with pytest.raises(ConfigError, match="may have 81 tokens, and a reward model reads 80"):
        loaded(base, [counters["a"]]).refuse(81)


def test_settings_for_more_models_are_told_apart():
    several = RewardModelsConfig(runs=[Path("a"), Path("b")])
    assert set(replace(several, runs=[Path("a")]).unused()) == {"combine", "caution"}
    assert several.unused() == {} and set(replace(several, combine="least").unused()) == {"caution"}
    assert "standardise" in RewardModelsConfig().unused()
