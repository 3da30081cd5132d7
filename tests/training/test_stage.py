"""What a stage does around its loop: budget, the folder of the run, the model at its end."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.configuration import load_config
from seedbed.data.tokens import open_tokens
from seedbed.errors import ConfigError, CorruptionError, DataError, StorageError
from seedbed.model.folder import CHECKPOINTS, load_model
from seedbed.runs import MANIFEST, open_folder, read_manifest
from seedbed.training import stage
from seedbed.training.budget import Costs, few_steps, fit
from seedbed.training.config import PretrainConfig, TrainConfig
from seedbed.training.pretrain import pretrain
from tests.disks import small_disk, unprivileged
from tests.tiny import pretrain_config, records, tiny_run, weights


@pytest.fixture(scope="module")
def run(tokens, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stage") / "run"
    tiny_run(tokens, out, "--train.steps=8", "--train.checkpoint.steps=4")
    return out


def test_a_run_describes_itself(run):
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {
        *("config.yaml", "metrics.jsonl", "timings.jsonl", "training.log", "checkpoints", "tokenizer"),
        *("model", "README.md", "result.json", "manifest.json", "loss.svg"),
    }
    manifest = open_folder(run, "run", verify="all")
    assert "metrics.jsonl" in manifest.files and "timings.jsonl" not in manifest.files
    assert "step 0 of 8" in (run / "training.log").read_text()
    card = (run / "README.md").read_text()
    assert "model of" in card and "(loss.svg)" in card and (run / "loss.svg").read_text().startswith("<svg")
    assert f"- target tokens: {8 * 4 * 16}\n" in card
    for folder in (run, run / "model"):
        assert f"seedbed generate --model {run} " in (folder / "README.md").read_text()
    assert "loss.svg" in manifest.files


def test_a_run_names_what_it_was_made_from(run, tokens):
    assert read_manifest(run).inputs == {"tokens": read_manifest(tokens).hash}
    assert read_manifest(run / "model").inputs == {"tokens": read_manifest(tokens).hash}


def test_the_same_run_in_another_folder_has_the_same_weights_and_metrics(run, tokens, tmp_path):
    tiny_run(tokens, tmp_path / "other", "--train.steps=8", "--train.checkpoint.steps=3")
    assert weights(tmp_path / "other") == weights(run)
    assert (tmp_path / "other" / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_another_seed_gives_another_model(run, tokens, tmp_path):
    tiny_run(tokens, tmp_path / "other", "--train.steps=8", "--train.seed=1")
    assert weights(tmp_path / "other") != weights(run)


# Budget --------------------------------------------------------------------------------------------------------------


def test_a_run_learns_from_the_training_text_and_validates_on_the_other(tokens, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr("seedbed.training.pretrain.run_stage", lambda stage, config: begun.append(stage) or {})
    pretrain(pretrain_config(tokens, tmp_path / "run", "--train.steps=1"))
    opened = open_tokens(tokens)
    assert begun[0].source.store.fingerprint == opened.train.fingerprint
    assert begun[0].validation.store.fingerprint == opened.val.fingerprint != opened.train.fingerprint


def test_minutes_become_a_step_count_in_the_config(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "measure", lambda trainer, seconds, phases: Costs(10.0, 2.0, 0.5))
    config = pretrain_config(tokens, tmp_path / "run", "--train.minutes=5")
    result = pretrain(config)
    expected = int((0.98 * 300 - 5) / (10 + 2.5 / 2))  # one validation and checkpoint every two steps
    assert result["steps"] in (expected - 2, expected - 1, expected)  # opening the tokens took a moment, too
    assert load_config(tmp_path / "run" / "config.yaml", PretrainConfig).train.steps == result["steps"]
    monkeypatch.setattr(stage, "measure", lambda trainer, seconds, phases: pytest.fail("measured again"))
    assert pretrain(config)["steps"] == result["steps"]


def test_what_a_stage_did_before_it_trains_belongs_to_its_minutes(tokens, tmp_path, monkeypatch):
    """Such as reading a million conversations."""
    costs = Costs(10.0, 0.0, 0.0)
    monkeypatch.setattr(stage, "measure", lambda trainer, seconds, phases: costs)
    config = pretrain_config(tokens, tmp_path / "run", "--train.minutes=5")
    monkeypatch.setattr("seedbed.training.pretrain.run_stage", lambda stage, config: {"stage": stage})
    late = replace(pretrain(config)["stage"], began=time.perf_counter() - 200)
    result = stage.run_stage(late, config)
    assert result["steps"] == fit(config.train, costs, 99).steps == 9
    assert result["seconds"] > 200


def test_what_is_measured_leaves_no_trace(tokens, tmp_path, monkeypatch):
    measured = []
    measure = stage.measure

    def note(*given: Any) -> Costs:
        measured.append(measure(*given))
        return Costs(0.1, 0.1, 0.1)

    monkeypatch.setattr(stage, "measure", note)
    (tmp_path / "timed" / stage.MEASURING).mkdir(parents=True)  # a process was killed while it measured
    (tmp_path / "timed" / stage.MEASURING / "metrics.jsonl").write_text("left")
    result = tiny_run(tokens, tmp_path / "timed", "--train.minutes=0.05")
    assert 0 < measured[0].step < 5 and 0 < measured[0].validation < 5 and 0 < measured[0].checkpoint < 5
    assert not (tmp_path / "timed" / stage.MEASURING).exists()
    assert records(tmp_path / "timed")[0]["step"] == 0
    tiny_run(tokens, tmp_path / "counted", f"--train.steps={result['steps']}")
    assert weights(tmp_path / "timed") == weights(tmp_path / "counted")


def test_minutes_that_hold_too_few_steps_are_told(tokens, tmp_path, capsys):
    result = tiny_run(tokens, tmp_path / "run", "--train.minutes=0.001")
    assert result["steps"] == 1 and "1 step is all that is done in 0.001 minutes: too few" in result["warning"]
    assert f"seedbed: {result['warning']}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("minutes", "steps", "told"), [(1.0, 99, True), (1.0, 100, False), (None, 3, False)])
def test_only_few_steps_in_minutes_are_told(minutes, steps, told):
    words = few_steps(TrainConfig(minutes=minutes, steps=steps, batch=4))
    assert words is None if not told else "99 steps fit into 1 minutes: too few" in words


@pytest.mark.parametrize(
    ("threads", "told"), [("1", "Try more minutes."), ("2", "Try OMP_NUM_THREADS=1, or more minutes.")]
)
def test_one_thread_is_advised_where_there_are_more(threads, told, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert few_steps(TrainConfig(minutes=1.0, steps=9, batch=4)).endswith(told)


def test_epochs_become_steps(tokens, tmp_path):
    steps = round(0.1 * ((open_tokens(tokens).train.n_tokens - 1) // 16) / 4)
    assert tiny_run(tokens, tmp_path / "run", "--train.epochs=0.1")["steps"] == steps > 1
    assert tiny_run(tokens, tmp_path / "run", "--train.epochs=0.1")["resumed_at"] == steps


def test_a_run_without_a_budget_is_refused_and_leaves_nothing(tokens, tmp_path):
    with pytest.raises(ConfigError, match="needs a budget"):
        tiny_run(tokens, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", ["epochs", "minutes"])
def test_a_run_with_two_budgets_is_refused_and_leaves_nothing(other, tokens, tmp_path):
    with pytest.raises(ConfigError, match=f"one budget, not steps and {other}"):
        tiny_run(tokens, tmp_path / "run", "--train.steps=1", f"--train.{other}=1")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_refused_and_leaves_nothing(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device cuda"):
        tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--train.device=cuda")
    assert not (tmp_path / "run").exists()


def test_rows_longer_than_the_context_are_refused(tokens, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.length is 33, longer than model\.context 32"):
        tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--data.length=33")
    assert not (tmp_path / "run").exists()


def test_another_vocabulary_than_the_tokens_have_is_refused(tokens, tmp_path):
    with pytest.raises(ConfigError, match="vocab_size is 300, but the tokenizer has 263"):
        tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--model.vocab_size=300")
    assert not (tmp_path / "run").exists()


def test_text_shorter_than_one_row_is_refused(tokens, tmp_path):
    arguments = ("--train.steps=1", "--data.length=9000", "--model.context=9000")
    with pytest.raises(DataError, match="fewer than one window"):
        tiny_run(tokens, tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


# Its end -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("select", "step"), [("best", 0), ("last", 6)])
def test_the_selected_weights_become_the_model(select, step, tokens, tmp_path):
    """At a rate far too high the fresh model stays the best."""
    arguments = ("--train.steps=6", "--train.validate_every=2", "--optimizer.name=adamw", "--optimizer.rate=3")
    result = tiny_run(tokens, tmp_path / "run", *arguments, f"--train.select={select}", "--train.checkpoint.keep=1")
    validations = {record["step"]: record["val_loss"] for record in records(tmp_path / "run") if "val_loss" in record}
    assert min(validations, key=lambda at: validations[at]) == 0
    assert result["selected_step"] == step and result["val_loss"] == validations[step]
    saved = load_model(tmp_path / "run" / "checkpoints" / f"step_{step:08d}")[0].state_dict()
    model = load_model(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(model[name], weight) for name, weight in saved.items())


def stop_at_3(monkeypatch, number: signal.Signals) -> None:
    from seedbed.training.trainer import Trainer

    run_step = Trainer.run_step

    def step(trainer: Trainer) -> None:
        run_step(trainer)
        if trainer.progress.step == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(Trainer, "run_step", step)


def test_a_run_that_is_asked_to_stop_has_no_model_yet_but_a_result(tokens, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at_3(patch, signal.SIGTERM)
        result = tiny_run(tokens, tmp_path / "run", "--train.steps=8")
    assert result["finished"] is False and result["steps"] == 3
    assert not (tmp_path / "run" / "model").exists() and not (tmp_path / "run" / MANIFEST).exists()
    result = tiny_run(tokens, tmp_path / "run", "--train.steps=8")
    assert result["finished"] and result["resumed_at"] == 3


def test_a_run_that_is_asked_to_stop_in_its_last_step_is_finished_and_tells_both(tokens, tmp_path, monkeypatch):
    stop_at_3(monkeypatch, signal.SIGINT)
    result = tiny_run(tokens, tmp_path / "run", "--train.steps=3")
    assert result["finished"] and result["asked_to_stop"] and "interrupted" not in result
    assert (tmp_path / "run" / "model").exists()


# As a model ----------------------------------------------------------------------------------------------------------


def same_model(one: Path, other: Path) -> bool:
    (model, tokenizer), (second, second_tokenizer) = load_model(one), load_model(other)
    weights = zip(model.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in weights) and tokenizer.hash == second_tokenizer.hash


def test_a_run_its_model_and_its_last_checkpoint_are_the_same_model(run):
    assert same_model(run, run / "model")
    assert same_model(run, run / CHECKPOINTS / "step_00000008")
    assert not same_model(run, run / CHECKPOINTS / "step_00000004")


def test_a_run_in_progress_is_its_newest_checkpoint(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / CHECKPOINTS / "step_00000008")
    (tmp_path / "run" / CHECKPOINTS / ".step_00000008.partial-1").mkdir()
    assert same_model(tmp_path / "run", run / CHECKPOINTS / "step_00000004")


def test_a_changed_byte_in_a_checkpoint_is_no_model(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = next((tmp_path / "run" / CHECKPOINTS / "step_00000008").glob("*.safetensors"))
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CorruptionError, match=file.name):
        load_model(tmp_path / "run" / CHECKPOINTS / "step_00000008")


def test_tensors_laid_beside_those_of_a_checkpoint_are_refused(run, tmp_path):
    """The reader takes every file of tensors that is there."""
    shutil.copytree(run, tmp_path / "run")
    steps = tmp_path / "run" / CHECKPOINTS
    file = next((steps / "step_00000004").glob("*.safetensors"))
    shutil.copy(file, steps / "step_00000008" / "z.safetensors")
    with pytest.raises(CorruptionError, match=r"z\.safetensors is not listed"):
        load_model(steps / "step_00000008")


def test_a_run_without_a_checkpoint_is_no_model(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="is not complete"):
        load_model(tmp_path / "run")


# Disks ---------------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_a_run_with_a_clear_error_and_no_half_checkpoint(tokens, tmp_path):
    with small_disk(tmp_path / "small"):
        out = tmp_path / "small" / "run"
        arguments = ("--train.steps=9", "--train.checkpoint.steps=1", "--train.checkpoint.keep=9", "--model.width=48")
        with pytest.raises(StorageError, match=r"no space left|larger than files may be"):
            tiny_run(tokens, out, *arguments)
        assert list(out.glob("checkpoints/.*")) == []
        for path in out.glob("checkpoints/*"):
            open_folder(path, "checkpoint", verify="all")
        assert not (out / MANIFEST).exists() and not (out / "model").exists()


def test_a_disk_that_fills_up_while_the_model_is_saved_leaves_no_half_model(tokens, tmp_path, monkeypatch):
    from seedbed.training.checkpoint import Checkpoints

    monkeypatch.setattr(Checkpoints, "save", lambda *given, **how: None)
    with small_disk(tmp_path / "small"):
        with pytest.raises(StorageError, match=r"no space left|larger than files may be"):
            tiny_run(tokens, tmp_path / "small" / "run", "--train.steps=1", "--model.width=192")
        names = {path.name for path in (tmp_path / "small" / "run").iterdir()}
        assert MANIFEST not in names and not any("model" in name for name in names)


def test_a_folder_that_this_user_may_not_write_is_told(tokens, tmp_path):
    place = tmp_path / "theirs"
    place.mkdir()
    config = pretrain_config(tokens, place / "run", "--train.steps=1")
    for folder in [tokens, *tokens.parents]:
        if tmp_path.parents[1] in folder.parents or folder == tmp_path.parents[1]:
            folder.chmod(folder.stat().st_mode | 0o055)
    with unprivileged(place), pytest.raises(StorageError, match="this user may not write"):
        pretrain(config)
    assert list(place.iterdir()) == []


# Verifying -----------------------------------------------------------------------------------------------------------


def test_verify_hashes_the_tokens_before_anything_is_written(tokens, tmp_path):
    shutil.copytree(tokens, tmp_path / "tokens")
    raw = bytearray((tmp_path / "tokens" / "train.bin").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "tokens" / "train.bin").write_bytes(raw)
    with pytest.raises(CorruptionError, match=r"train\.bin was changed: its SHA-256"):
        tiny_run(tmp_path / "tokens", tmp_path / "run", "--train.steps=1", "--verify=true")
    assert not (tmp_path / "run").exists()


def test_a_run_is_the_same_verified_or_not(run, tokens, tmp_path):
    given = ("--train.steps=8", "--train.checkpoint.steps=4")
    tiny_run(tokens, tmp_path / "run", *given, "--verify=true")
    assert weights(tmp_path / "run") == weights(run)
    assert "verify: true" not in (tmp_path / "run" / "config.yaml").read_text()
    assert tiny_run(tokens, tmp_path / "run", *given)["resumed_at"] == 8


@pytest.mark.parametrize("budget", ["steps=10**15", "epochs=1e308", "minutes=1e308", "checkpoint.epochs=1e308"])
def test_a_budget_beyond_all_counting_is_refused(budget, tokens, tmp_path):
    key, _, value = budget.partition("=")
    with pytest.raises(ConfigError, match=rf"train\.{key} must be between"):
        pretrain_config(tokens, tmp_path, f"--train.{key}={eval(value)}")
