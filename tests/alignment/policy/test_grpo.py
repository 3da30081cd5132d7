"""`seedbed grpo` learns from rewards of its own answers; a run that dies goes on to the same bits."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.alignment.direct.config import DirectConfig
from seedbed.alignment.policy.config import LOSSES, GrpoConfig, WarningsConfig
from seedbed.alignment.policy.credit import GroupCredit
from seedbed.alignment.policy.grpo import grpo
from seedbed.alignment.policy.learning import Learning
from seedbed.alignment.policy.objective import PolicyLoss, PolicyObjective
from seedbed.alignment.policy.watching import Pathologies
from seedbed.cli import main
from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError, DataError, SeedbedError
from seedbed.model.folder import load_model
from seedbed.runs import sha256_file
from seedbed.tokenizers.chat import encode_prompt
from seedbed.training.objective import Tally
from seedbed.training.observers.observer import Observer
from tests.alignment.policy.conftest import PROMPTS, write
from tests.alignment.policy.test_rollouts import move, source
from tests.sandbox.boxed import boxed
from tests.tiny import records, save_tiny_model

FAST = (
    "--max_tokens=4",
    "--group=4",
    "--train.batch=8",
    "--train.log_every=1",
    "--train.device=cpu",
    "--table_every=2",
)
RATE = "--optimizer.rate=0.003"


def config(base: Path, problems: Path, out: Path, *arguments: str) -> GrpoConfig:
    return from_arguments(GrpoConfig, [f"--model={base}", f"--data={problems}", f"--out={out}", *FAST, *arguments])


def test_what_is_rewarded_becomes_more_frequent(base, problems, tmp_path):
    """A model that answers with random letters learns to say an a."""
    steps = ("--train.steps=20", "--train.batch=32", "--group=8", "--optimizer.rate=0.005")
    result = grpo(config(base, problems, tmp_path / "run", *steps))
    rewards = [record["reward"] for record in records(tmp_path / "run") if "reward" in record]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    assert result["finished"] and result["stage"] == "grpo" and result["prompts"]["kept"] == 30
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_the_records_hold_what_the_field_reads(base, problems, tmp_path):
    grpo(config(base, problems, tmp_path / "run", "--train.steps=4", "--kl=0.1", "--shaping.length_buffer=2", RATE))
    steps = [record for record in records(tmp_path / "run") if "loss" in record]
    wanted = {
        "reward",
        "reward/check",
        "shaping/length",
        "shaped_reward",
        "kl",
        "clip_fraction",
        "entropy",
        "length",
        "ended",
        "ratio",
    }
    wanted |= {"approximate_kl", "zero_variance_groups", "sampler_gap", "loss", "gradient_norm"}
    assert all(wanted <= record.keys() for record in steps) and len(steps) == 4
    assert all(record["sampler_gap"] <= 1e-5 for record in steps)
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6) and steps[-1]["kl"] > 0
    assert all(
        record["shaped_reward"] == pytest.approx(record["reward"] + record["shaping/length"]) for record in steps
    )
    table = records(tmp_path / "run", "samples.jsonl")
    assert [row["step"] for row in table] == [1] * 8 + [3] * 8
    assert table[0].keys() == {"step", "prompt", "text", "rewards", "shaped", "advantage", "tokens", "ended"}
    validations = [record for record in records(tmp_path / "run") if "val_loss" in record]
    assert all(record["val_loss"] == -record["val_reward"] for record in validations)


def test_a_policy_that_has_not_moved_has_the_ratio_one_exactly(base, problems, tmp_path):
    """Later steps of a rollout are of a policy that has."""
    grpo(
        config(
            base,
            problems,
            tmp_path / "run",
            "--train.steps=8",
            "--answers=16",
            "--passes=2",
            RATE,
            "--shaping.length_buffer=3",
        )
    )
    found = [record for record in records(tmp_path / "run") if "ratio" in record]
    for step, record in enumerate(found):
        if step % 4 == 0:
            assert record["ratio"] == 1 and record["approximate_kl"] == 0 and "sampler_gap" in record
        else:
            assert record["ratio"] != 1 and record["approximate_kl"] > 0 and "sampler_gap" not in record


def test_at_another_temperature_the_gap_is_between_log_probabilities_of_the_model_alone(base, problems, tmp_path):
    settings = ("--train.steps=3", "--temperature=0.7", "--passes=2", RATE, "--shaping.length_buffer=3")
    grpo(config(base, problems, tmp_path / "run", *settings))
    steps = [record for record in records(tmp_path / "run") if "ratio" in record]
    assert [record["sampler_gap"] <= 1e-5 for record in steps if "sampler_gap" in record] == [True, True]
    assert steps[0]["ratio"] == 1 and abs(steps[1]["ratio"] - 1) < 0.2  # the policy's, as it was drawn from


def test_the_gap_is_how_far_both_are_apart_either_way(base, problems):
    rollouts = source(base, problems)
    batch = rollouts.batch(0, 8)
    sign_BT = torch.where(torch.arange(batch.said_BT.shape[1]) % 2 == 0, 1.0, -1.0)
    batch = replace(batch, sampler_BT=torch.where(batch.said_BT, batch.sampler_BT + 0.1 * sign_BT, 0.0))
    policy = PolicyLoss("token", "token", 0.2, 0.2, 0.0, "k3", 1.0, 6, False, False)
    objective = PolicyObjective(policy, rollouts.rewards.names, rollouts.rewards.weights)
    found = objective.report(Tally() + objective.loss(rollouts.learner, batch))
    assert found["sampler_gap"] == pytest.approx(0.1, abs=1e-4)


def test_by_k1_an_answer_is_worth_less_the_further_it_is_from_the_reference(base, problems):
    rollouts = source(base, problems)
    batch = rollouts.batch(0, 8)
    near_BT = torch.where(batch.said_BT, torch.full_like(batch.old_BT, -1.0), 0.0)
    away_B = torch.arange(8).float()
    first_BT = torch.arange(batch.said_BT.shape[1]) == batch.said_BT.int().argmax(1, keepdim=True)
    batch = replace(batch, old_BT=near_BT + first_BT * away_B[:, None], reference_BT=near_BT)
    found = GroupCredit(4, "mean", "none", kl=0.5).assign(batch, torch.full((8,), 3.0), rollouts.learner)
    assert GroupCredit(4, "mean", "none", kl=0.5).needs_old
    wanted_B = -0.5 * torch.tensor([-1.5, -0.5, 0.5, 1.5] * 2)
    assert torch.allclose(found.advantages_BT, torch.where(batch.said_BT, wanted_B[:, None], 0.0), atol=1e-6)


class Death(Observer):
    def __init__(self, step: int):
        self.step = step

    def after_step(self, trainer, report):
        if trainer.progress.step == self.step:
            raise KeyboardInterrupt


def outcome(run: Path) -> list[bytes]:
    """Every byte of what was learned, and of the metrics."""
    return [path.read_bytes() for path in (*sorted(run.glob("[am]*/*.safetensors")), run / "metrics.jsonl")]


WAYS = {
    "on policy": (),
    "several steps a rollout": ("--answers=16", "--passes=2", "--kl=0.05", "--loss=dapo"),
    "an adapter": ("--method=lora", "--lora.rank=2", "--kl=0.05", "--passes=2"),
    "by what was learnable": ("--order=learnable", "--kl=0.05", "--kl_estimator=k1"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_dies_goes_on_to_the_same_bits(way, base, problems, tmp_path):
    settings = (*WAYS[way], "--train.steps=9", "--train.checkpoint.steps=1", "--shaping.length_buffer=3", RATE)
    grpo(config(base, problems, tmp_path / "whole", *settings))
    for death in (2, 3, 7):  # also in the middle of a rollout
        with pytest.raises(KeyboardInterrupt):
            grpo(config(base, problems, tmp_path / "cut", *settings), [Death(death)])
    grpo(config(base, problems, tmp_path / "cut", *settings))
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "cut")
    assert max(record.get("gradient_norm", 0.0) for record in records(tmp_path / "whole")) > 0.1  # it learned something
    tables = [(tmp_path / name / "samples.jsonl").read_bytes() for name in ("whole", "cut")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("method", LOSSES)
def test_the_gradient_does_not_depend_on_accumulation(method, base, problems):
    said = from_arguments(GrpoConfig, [*("--model=m", "--data=d", "--out=o"), f"--loss={method}", "--kl=0.1"]).resolve()
    rollouts = source(base, problems, answers=16, batch=16)
    rollouts.credit = GroupCredit(4, said.baseline, said.scale)
    names = ("level", "normaliser", "clip_low", "clip_high")
    policy = PolicyLoss(
        **{name: getattr(said, name) for name in names},
        **{"kl": 0.1, "estimator": "k3", "temperature": 1.0, "longest": 6},
        **{"leaves_out_cut": False, "has_reference": True},
    )
    objective, model = PolicyObjective(policy, rollouts.rewards.names, rollouts.rewards.weights), rollouts.learner
    rollouts.compares, rollouts.reference = True, load_model(base)[0]
    move(rollouts)
    gradients, losses = [], []
    for size in (16, 3):
        model.zero_grad()
        tally = Tally()
        for first in range(0, 16, size):
            loss = objective.loss(model, rollouts.batch(first, min(size, 16 - first)))
            loss.sum.backward()
            tally += loss
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]) / tally.units)
        losses.append(objective.report(tally))
    assert torch.allclose(*gradients, atol=1e-6) and float(gradients[0].abs().max()) > 1e-4
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_answers_that_were_cut_off_can_be_left_out(base, problems):
    rollouts = source(base, problems, answers=16, batch=16, max_tokens=3)
    batch = rollouts.batch(0, 16)
    settings: dict[str, Any] = {"level": "token", "normaliser": "token", "clip_low": 0.2, "clip_high": 0.2, "kl": 0.0}
    settings |= {"estimator": "k3", "temperature": 1.0, "longest": 6, "has_reference": False}
    whole, without = (PolicyLoss(**settings, leaves_out_cut=out) for out in (False, True))
    _, logprobs_BT, old_BT = whole.read(rollouts.learner, batch)
    _, units, _ = whole(logprobs_BT, old_BT, batch)
    total, kept, _ = without(logprobs_BT, old_BT, batch)
    ended_BT = batch.said_BT & batch.ended_B[:, None]
    assert units == int(batch.said_BT.sum()) > kept == int(ended_BT.sum())
    assert float(total.detach()) == pytest.approx(-float(batch.advantages_BT[ended_BT].sum()), abs=1e-5)


def test_an_adapter_has_its_base_as_reference(base, problems, tmp_path):
    """No second copy; and it begins as nothing, so the first divergence is none."""
    settings = ("--method=lora", "--kl=0.1", "--train.steps=5", "--optimizer.rate=0.02", "--shaping.length_buffer=3")
    result = grpo(config(base, problems, tmp_path / "run", *settings))
    steps = [record for record in records(tmp_path / "run") if "kl" in record]
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6) and steps[-1]["kl"] > 1e-5
    assert all(record["sampler_gap"] <= 1e-5 for record in steps)
    assert Path(result["adapter"]).is_dir() and not (tmp_path / "run" / "model").exists()


def test_a_rule_of_ones_own_can_be_named(base, problems, tmp_path):
    arguments = ("--train.steps=2", '--rewards={"mine": 2, "check": 0.5}')
    result = grpo(config(base, problems, tmp_path / "run", *arguments), rewards={"mine": lambda problem, answer: 1.0})
    (last,) = [record for record in records(tmp_path / "run") if record["step"] == 2 and "reward" in record]
    assert last["reward"] == pytest.approx(2 * last["reward/mine"] + 0.5 * last["reward/check"])
    assert result["finished"]


BREVITY = "def brevity(problem, answer):\n    return 1 / (1 + len(answer))\n"


def test_the_command_line_takes_rewards_of_a_file(base, tmp_path, capsys):
    """A run that goes on reads the file again, and knows one that has changed."""
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    (tmp_path / "rewards.py").write_text(BREVITY)
    rewards = ("--own_rewards", str(tmp_path / "rewards.py"), "--rewards", '{"brevity": 0.5}')
    given = ["grpo", f"--model={base}", f"--data={prompts}", f"--out={tmp_path / 'run'}", *FAST]
    assert main([*given, *rewards, "--train.steps=2"]) == 0
    (last,) = [record for record in records(tmp_path / "run") if record["step"] == 2 and "reward" in record]
    assert last["reward"] == pytest.approx(0.5 * last["reward/brevity"]) and last["reward"] > 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["inputs"]["file of rewards"] == sha256_file(tmp_path / "rewards.py")

    assert main([*given, *rewards, "--train.steps=3"]) == 0
    assert main([*given, "--rewards", '{"brevity": 0.5}', "--train.steps=4"]) == 2  # the run does not bring it along
    assert "there is no reward 'brevity'" in capsys.readouterr().err
    (tmp_path / "rewards.py").write_text(BREVITY + "\n")
    assert main([*given, *rewards, "--train.steps=4"]) == 2
    assert "was begun with another file of rewards than is given now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("context", "longest", "wanted"), [(80, 41, 39), (80, 61, None), (1024, 41, 256), (256, 41, 215)]
)
def test_an_answer_has_the_room_that_the_longest_prompt_leaves(context, longest, wanted, tmp_path):
    """At least a quarter of the context, and at most 256 tokens."""
    model = save_tiny_model(tmp_path / "model", context=context)
    tokenizer = load_model(model)[1]
    around = len(encode_prompt(tokenizer, [{"role": "user", "content": ""}]))
    prompts = ["#" * (longest - around), "a", "b"]
    data = write(tmp_path / "rows.jsonl", [{"prompt": prompt, "answer": "x"} for prompt in prompts])
    said = [f"--model={model}", f"--data={data}", f"--validation={data}", f"--out={tmp_path / 'run'}"]
    made = from_arguments(GrpoConfig, [*said, "--train.batch=8", "--train.device=cpu"]).resolve()
    if wanted is None:
        with pytest.raises(DataError, match="row 1: it has 61 tokens, 60 are allowed"):
            Learning(made, 8, 1, None)
    else:
        learning = Learning(made, 8, 1, None)
        assert learning.config.max_tokens == learning.asking.max_tokens == wanted
        assert learning.held_out.longest == longest + wanted <= context


def test_a_model_of_a_short_context_needs_no_settings(base, problems, tmp_path):
    said = [f"--model={base}", f"--data={problems}", f"--out={tmp_path / 'run'}", "--train.steps=1"]
    assert grpo(from_arguments(GrpoConfig, [*said, "--train.batch=8", "--train.device=cpu"]))["finished"]


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "changes"), LOSSES.items())
def test_a_method_fills_in_what_is_left_out(method, changes):
    required = ["--model=m", "--data=d", "--out=o", f"--loss={method}"]
    found = from_arguments(GrpoConfig, required).resolve()
    assert {name: getattr(found, name) for name in changes} == changes
    assert from_arguments(GrpoConfig, [*required, "--normaliser=token"]).resolve().normaliser == "token"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--group=3"], "8 answers do not make groups of 3"),
        (["--answers=12"], "answers must be a multiple of train.batch, 8, got 12"),
        (["--group=1"], "group must be between 2 and 4096"),
        (["--shaping.length_buffer=4"], "shaping.length_buffer must be less than max_tokens, 4"),
        (["--clip_low=1"], "clip_low must be below 1"),
        (["--max_tokens=79"], "context of 80 tokens does not hold a prompt of 2 and an answer of 79"),
        (['--rewards={"taste": 1}'], "there is no reward 'taste'"),
        (["--kl_estimator=k2"], "kl_estimator does nothing with kl 0"),
        (["--train.batches=[{from_step: 3, batch: 8}]"], "train.batches cannot change the batch"),
        (["--method=prefix"], "the method prefix is for finetune"),
        (["--train.parallel=fsdp"], "a policy answers with whole weights"),
        (["--prompt_tokens=12"], "problems.jsonl, row 1: it has .* tokens, 12 are allowed"),
        (["--prompt_tokens=12", "--overlong=drop"], "no prompt in .* has at most 12 tokens"),
    ],
)
def test_a_setting_that_cannot_be_is_told_in_a_line(arguments, problem, base, problems, tmp_path):
    with pytest.raises(SeedbedError, match=problem):
        grpo(config(base, problems, tmp_path / "run", "--train.steps=1", *arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "c"}, "row 2: it has neither answer, reference nor tests"),
        ({"prompt": "c", "answer": "x", "reward": "taste"}, "row 2: reward must be one of"),
        ({"answer": "x"}, "row 2: it has no prompt"),
        pytest.param({"prompt": "c", "tests": "assert ("}, "row 2: the tests are no Python", marks=boxed),
    ],
)
def test_a_bad_problem_is_named_with_its_row(row, problem, base, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps(each) for each in ({"prompt": "a", "answer": "b"}, row, {"prompt": "d", "answer": "e"}))
    )
    with pytest.raises((DataError, ConfigError), match=problem):
        grpo(config(base, path, tmp_path / "run", "--train.steps=1"))


# Warnings ------------------------------------------------------------------------------------------------------------

HEALTHY = {"length": 10.0, "entropy": 1.0, "approximate_kl": 0.01, "zero_variance_groups": 0.3, "reward": 0.5}


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"length": 21.0}, "length hacking at step 20: answers have 21 tokens, at first 10"),
        ({"entropy": 0.09}, "entropy collapse at step 20: 0.09 nats a token, at first 1"),
        ({"approximate_kl": 1.1}, "KL blow-up at step 20: 1.1 nats a token away"),
        ({"kl": 1.1}, "KL blow-up at step 20: 1.1 nats a token away"),
        (
            {"zero_variance_groups": 0.95},
            "reward saturation at step 20: 95% of prompts have answers all worth the same",
        ),
        ({}, None),
    ],
)
def test_a_known_pathology_is_told_once(change, warning, caplog):
    observer = Pathologies(WarningsConfig())
    with caplog.at_level(logging.WARNING, logger="seedbed.alignment.policy.watching"):
        for step in range(1, 31):
            record = {"step": step, **HEALTHY, **(change if step > 10 else {})}
            observer.recorded(None, "metrics", record)
            observer.recorded(None, "metrics", {"step": step, "val_loss": 0.0})
            observer.recorded(None, "samples", record)
    assert len(caplog.messages) == (warning is not None)
    assert warning is None or caplog.messages[0].startswith(warning)


def test_muon_has_the_rates_of_alignment_and_not_those_of_fresh_weights():
    given = ["--model=m", "--data=d", "--out=o", "--optimizer.name=muon"]
    policy, direct = (from_arguments(kind, given).optimizer for kind in (GrpoConfig, DirectConfig))
    assert (policy.matrix_rate, policy.embedding_rate) == (direct.matrix_rate, direct.embedding_rate)
    assert policy.default_rate == 1e-6
