"""`seedbed ppo` learns with a critic on the policy's own blocks; a run that dies goes on to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.alignment.policy.advantages import generalised
from seedbed.alignment.policy.config import PpoConfig
from seedbed.alignment.policy.credit import EpisodeCredit
from seedbed.alignment.policy.objective import EpisodeObjective, PolicyLoss
from seedbed.alignment.policy.ppo import ppo
from seedbed.alignment.policy.reading import Reading
from seedbed.alignment.policy.rollout import Rollout
from seedbed.alignment.policy.rollouts import Rollouts
from seedbed.configuration import from_arguments
from seedbed.errors import SeedbedError
from seedbed.model.folder import load_model
from seedbed.model.score_head import with_critic, without_critic
from seedbed.model.weights import read_header
from seedbed.training.observers.observer import Observer
from tests.alignment.policy.test_grpo import Death, outcome
from tests.alignment.policy.test_rollouts import source
from tests.tiny import records, same_bits

FAST = ("--max_tokens=4", "--train.batch=8", "--train.log_every=1", "--train.device=cpu", "--optimizer.rate=0.003")


def config(base: Path, problems: Path, out: Path, *arguments: str) -> PpoConfig:
    return from_arguments(PpoConfig, [f"--model={base}", f"--data={problems}", f"--out={out}", *FAST, *arguments])


def credit(**changes: Any) -> EpisodeCredit:
    usual = {"kl": 0.0, "target": None, "horizon": 100, "discount": 1.0, "decay": 0.9, "whiten": False}
    return EpisodeCredit(**{**usual, "bootstraps": True, "rows_at_once": 5, **changes})


@pytest.fixture
def rollouts(base, problems) -> Rollouts:
    """Of a policy whose critic expects something; some answers are cut off."""
    made = source(base, problems, max_tokens=3)
    with torch.no_grad():
        made.learner = with_critic(made.learner)
        made.learner.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    made.credit = credit()
    return made


def test_a_policy_with_its_critic_says_what_it_said_alone(base):
    model, _ = load_model(base)
    tokens_BT = torch.arange(10)[None] + 40
    both = with_critic(model)
    assert both.config.head == "both" and not both.value(both.hidden(tokens_BT)).any()
    assert torch.equal(both(tokens_BT), model(tokens_BT))
    alone = without_critic(both)
    assert alone.config == model.config and torch.equal(alone(tokens_BT), model(tokens_BT))
    assert alone.embedding.weight.data_ptr() == model.embedding.weight.data_ptr()


def test_a_reading_tells_what_was_expected_before_and_after_each_token(rollouts):
    batch = rollouts.batch(0, 8)
    reading = Reading(rollouts.learner, batch.tokens_BT, batch.said_BT)
    values_BT, after_B = reading.values().detach(), reading.values_after().detach()
    for row in range(8):
        places = batch.said_BT[row].nonzero().flatten().tolist()
        alone_T = rollouts.learner.value(rollouts.learner.hidden(batch.tokens_BT[row : row + 1, : places[-1] + 1]))[0]
        for t in places:
            assert float(values_BT[row, t]) == pytest.approx(float(alone_T[t - 1].detach()), abs=1e-5)
        assert float(after_B[row]) == pytest.approx(float(alone_T[-1].detach()), abs=1e-5)
    assert not values_BT[~batch.said_BT].any() and torch.allclose(values_BT, batch.values_BT, atol=1e-5)


@pytest.mark.parametrize("bootstraps", [True, False])
def test_an_episode_that_was_cut_off_goes_on_and_one_that_ended_does_not(bootstraps, rollouts):
    rollouts.credit = credit(bootstraps=bootstraps, kl=0.3)
    batch = rollouts.batch(0, 8)
    assert batch.ended_B.any() and not batch.ended_B.all()
    after_B = Reading(rollouts.learner, batch.tokens_BT, batch.said_BT).values_after().detach()
    expected_B = torch.where(batch.ended_B, 0.0, after_B) if bootstraps else torch.zeros(8)
    rewards_BT = torch.where(batch.said_BT, -0.3 * (batch.old_BT - batch.reference_BT), 0.0)
    for row in range(8):
        rewards_BT[row, int(batch.said_BT[row].nonzero().max())] += float(batch.rewards_BF[row, 0])
    wanted_BT = generalised(rewards_BT, batch.values_BT, expected_B, batch.said_BT, discount=1.0, decay=0.9)
    assert torch.allclose(batch.advantages_BT, wanted_BT, atol=1e-4)
    assert torch.allclose(batch.returns_BT, torch.where(batch.said_BT, wanted_BT + batch.values_BT, 0.0), atol=1e-4)


def test_advantages_can_be_whitened_and_returns_stay(rollouts):
    plain = rollouts.batch(0, 8)
    rollouts.credit = credit(whiten=True)
    rollouts.number.fill_(-1)
    white = rollouts.batch(0, 8)
    assert float(white.advantages_BT[white.said_BT].mean()) == pytest.approx(0, abs=1e-6)
    assert torch.equal(white.returns_BT, plain.returns_BT)


def test_what_a_nat_costs_follows_its_target(rollouts):
    """Ziegler et al. 2019, arXiv:1909.08593, §2.2."""
    batch = rollouts.batch(0, 8)

    def after(divergence: float) -> float:
        adaptive = credit(kl=0.5, target=2.0, horizon=100)
        adaptive.begin()
        away_BT = torch.zeros_like(batch.old_BT)
        away_BT[torch.arange(8), batch.said_BT.int().argmax(1)] = divergence
        adaptive.assign(replace(batch, old_BT=away_BT, reference_BT=away_BT * 0), torch.zeros(8), rollouts.learner)
        return float(adaptive.coefficient)

    with torch.no_grad():
        assert after(2.0) == pytest.approx(0.5)
        assert after(2.2) == pytest.approx(0.5 * (1 + 0.1 * 8 / 100))
        assert after(50.0) == pytest.approx(0.5 * (1 + 0.2 * 8 / 100))
        assert after(0.0) == pytest.approx(0.5 * (1 - 0.2 * 8 / 100))


def test_a_run_begins_with_what_a_nat_costs_by_its_config(rollouts):
    rollouts.credit = credit(kl=0.5, target=2.0)
    rollouts.credit.tensors["kl_coefficient"].fill_(9.0)  # as another run left it
    rollouts.learn(rollouts.learner, rollouts.precision)
    assert float(rollouts.credit.coefficient) == 0.5


def test_the_loss_is_that_of_the_paper(rollouts):
    """Clipped policy and value losses, means over tokens (Schulman et al. 2017, eq. 9; trl 0.11, PPOTrainer.loss)."""
    batch = rollouts.batch(0, 8)
    generator = torch.Generator().manual_seed(1)

    def moved(numbers_BT: torch.Tensor) -> torch.Tensor:
        return torch.where(batch.said_BT, numbers_BT + 0.5 * torch.randn(numbers_BT.shape, generator=generator), 0.0)

    batch = replace(batch, fresh=False, old_BT=moved(batch.sampler_BT), values_BT=moved(batch.values_BT))
    settings: dict[str, Any] = {"level": "token", "normaliser": "token", "clip_low": 0.2, "clip_high": 0.2, "kl": 0.0}
    settings |= {"estimator": "k1", "temperature": 1.0, "longest": 3, "leaves_out_cut": False, "has_reference": False}
    objective = EpisodeObjective(
        PolicyLoss(**settings), ["own"], [1.0], credit=rollouts.credit, value_weight=0.1, value_clip=0.2
    )
    loss = objective.loss(rollouts.learner, batch)
    logits_BTV = rollouts.learner(batch.tokens_BT)[:, :-1].double().log_softmax(-1)
    logprobs_BT = logits_BTV.gather(-1, batch.tokens_BT[:, 1:, None]).squeeze(-1)
    values_BT = rollouts.learner.value(rollouts.learner.hidden(batch.tokens_BT))[:, :-1].double()
    total, count = 0.0, 0
    for b, t in batch.said_BT.nonzero().tolist():
        ratio = float((logprobs_BT[b, t - 1] - batch.old_BT[b, t]).exp().detach())
        advantage, target, old = (float(x[b, t]) for x in (batch.advantages_BT, batch.returns_BT, batch.values_BT))
        total += max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.2))
        value = float(values_BT[b, t - 1].detach())
        held = min(max(value, old - 0.2), old + 0.2)
        total += 0.1 * 0.5 * max((value - target) ** 2, (held - target) ** 2)
        count += 1
    assert loss.units == count and float(loss.sum.detach()) == pytest.approx(total, rel=1e-4)


def test_explained_variance_is_what_the_critic_knew(rollouts):
    batch = rollouts.batch(0, 8)
    policy = PolicyLoss("token", "token", 0.2, 0.2, 0.0, "k1", 1.0, 3, False, False)
    objective = EpisodeObjective(policy, ["own"], [1.0], credit=rollouts.credit, value_weight=0.1, value_clip=None)

    def explained(batch: Rollout) -> float:
        from seedbed.training.objective import Tally

        return objective.report(Tally() + objective.loss(rollouts.learner, batch))["explained_variance"]

    returns_N, values_N = batch.returns_BT[batch.said_BT], batch.values_BT[batch.said_BT]
    wanted = 1 - float((returns_N - values_N).var(correction=0) / returns_N.var(correction=0))
    assert explained(batch) == pytest.approx(wanted, abs=1e-4)
    assert explained(replace(batch, values_BT=batch.returns_BT)) == pytest.approx(1, abs=1e-4)
    assert explained(replace(batch, values_BT=torch.zeros_like(batch.returns_BT))) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    "ways", [("--answers=16", "--passes=2", "--kl_target=0.01"), ("--passes=1", "--kl_target=0.01")]
)
def test_a_run_that_dies_goes_on_to_the_same_bits(ways, base, problems, tmp_path):
    settings = (*ways, "--kl_horizon=50", "--train.steps=7", "--train.checkpoint.steps=1")
    result = ppo(config(base, problems, tmp_path / "whole", *settings))
    for death in (2, 3, 5):
        with pytest.raises(KeyboardInterrupt):
            ppo(config(base, problems, tmp_path / "cut", *settings), [Death(death)])
    ppo(config(base, problems, tmp_path / "cut", *settings))
    assert same_bits(tmp_path / "whole", tmp_path / "cut")
    steps = [record for record in records(tmp_path / "whole") if "loss" in record]
    wanted = {"value_error", "explained_variance", "kl_coefficient", "kl", "policy_loss", "clip_fraction", "reward"}
    assert all(wanted <= record.keys() for record in steps) and result["finished"]
    assert len({record["kl_coefficient"] for record in steps}) > 1  # it adapts, and not by what a resume forgot


def test_what_is_saved_is_the_policy_alone(base, problems, tmp_path):
    ppo(config(base, problems, tmp_path / "run", "--train.steps=2", "--kl=0"))
    model, _ = load_model(tmp_path / "run")
    assert model.config.head == "tokens" and model.score is None
    assert (tmp_path / "run" / "model" / "config.json").is_file()  # transformers loads it as it stands
    again = ppo(
        config(tmp_path / "run" / "checkpoints" / "step_00000002", problems, tmp_path / "on", "--train.steps=1")
    )
    assert again["finished"]


LORA = ("--method=lora", "--lora.rank=2", "--optimizer.rate=0.01")


@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "ia3", "adapter"])
def test_under_an_adapter_the_critic_learns_and_the_base_rests(method, base, problems, tmp_path):
    """The policy of the folder is base and adapter alone; the critic stays in the checkpoints."""
    out = tmp_path / "run"
    watch = Weights()
    settings = (f"--method={method}", "--optimizer.rate=0.01", "--train.steps=4", "--passes=2", "--kl=0.1")
    result = ppo(config(base, problems, out, *settings), [watch])
    assert watch.resting() and not watch.before["score.weight"].any() and watch.now["score.weight"].any()
    moved = [name for name in watch.before if not torch.equal(watch.before[name], watch.now[name])]
    assert "score.weight" in moved and len(moved) > 1
    found = [record for record in records(out) if "loss" in record]
    assert found[0]["ratio"] == 1 and found[2]["ratio"] == 1 and found[1]["ratio"] != 1  # two steps a rollout
    assert found[0]["kl"] == pytest.approx(0, abs=1e-6) and found[-1]["kl"] > 0
    assert Path(result["adapter"]).is_dir() and not (out / "model").exists()
    stored = read_header(out / "adapter" / "adapter_model.safetensors")
    assert stored and not [name for name in stored if "score" in name]
    with torch.no_grad():
        tokens_BT, learner = torch.arange(10)[None] + 40, without_critic(watch.model).eval()
        opened = load_model(out)[0]
        assert opened.config.head == "tokens" and torch.allclose(opened(tokens_BT), learner(tokens_BT), atol=1e-4)


class Weights(Observer):
    """Those that move, as they were and are, and the others."""

    def begin(self, trainer):
        self.model = trainer.model
        self.before = {name: weight.detach().clone() for name, weight in self.model.moving.items()}
        self.rest = {name: weight.clone() for name, weight in self._resting()}

    def _resting(self):
        return [(n, w) for n, w in self.model.state_dict().items() if n not in self.model.moving]

    @property
    def now(self):
        return {name: weight.detach() for name, weight in self.model.moving.items()}

    def resting(self) -> bool:
        """Whether what does not move has not, to the bit."""
        return bool(self.rest) and all(torch.equal(weight, self.rest[name]) for name, weight in self._resting())


def test_a_run_with_an_adapter_that_dies_goes_on_to_the_same_bits(base, problems, tmp_path):
    settings = (*LORA, "--answers=16", "--passes=2", "--train.steps=6", "--train.checkpoint.steps=1")
    ppo(config(base, problems, tmp_path / "whole", *settings))
    for death in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            ppo(config(base, problems, tmp_path / "cut", *settings), [Death(death)])
    ppo(config(base, problems, tmp_path / "cut", *settings))
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "cut")
    assert (tmp_path / "whole" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--kl=0", "--kl_target=6"], "kl_target is what kl follows, and kl is 0"),
        (["--kl_horizon=50"], "kl_horizon does nothing without kl_target"),
        (["--shaping.potential=1"], "shaping.potential is the score of reward models, and there is none"),
        (["--reward_models.caution=1"], "reward_models.caution does nothing without runs"),
        (["--shaping.repetition_run=3"], "shaping.repetition_run does nothing with repetition_weight 0"),
        (["--decay=1.1"], "decay must be between 0 and 1"),
        (["--clip=1"], "clip must be between 0 and 0.99"),
        (["--answers=12"], "answers must be a multiple of train.batch"),
    ],
)
def test_a_setting_that_cannot_be_is_told_in_a_line(arguments, problem, base, problems, tmp_path):
    with pytest.raises(SeedbedError, match=problem):
        ppo(config(base, problems, tmp_path / "run", "--train.steps=1", *arguments))
