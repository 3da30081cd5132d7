"""Settings that do nothing beside the others are refused when they are given as options, and pass in files."""

from __future__ import annotations

import pytest

from seedbed.cli import parser
from seedbed.configuration import list_presets, load_config, save_config
from seedbed.errors import ConfigError
from seedbed.training.config import PretrainConfig, StageConfig

GIVEN = {
    "pretrain": ("--data.tokens=t", "--out=r", "--train.steps=9"),
    "finetune": ("--model=m", "--data=d", "--out=r", "--train.steps=9"),
}


def read(*options: str, command: str = "pretrain") -> StageConfig:
    config: StageConfig = parser(command).read([*GIVEN[command], *options]).config
    return config


@pytest.mark.parametrize(
    ("idle", "needed"),
    [
        ("--optimizer.matrix_rate=0.01 --optimizer.name=adamw", "--optimizer.name=normuon"),
        ("--optimizer.newton_schulz_steps=4 --optimizer.name=lion", "--optimizer.name=muon"),
        ("--schedule.decay=0.3 --schedule.name=cosine", "--schedule.name=warmup_stable_decay"),
        ("--schedule.final=0.3 --schedule.name=inverse_sqrt", "--schedule.name=linear"),
        ("--samples.prompts=[a,b]", "--samples.every=9"),
        ("--samples.max_tokens=3", "--samples.every=9"),
        ("--statistics.rows=3", "--statistics.every=9"),
        ("--probes.functions=[a:b]", "--probes.every=9"),
        ("--profile.from_step=3", "--profile.steps=1"),
        ("--alerts.webhook=HOOK", "--alerts.on_nonfinite=log"),
        ("--alerts.on_spike=stop", "--alerts.spike=2"),
        ("--alerts.on_stall=stop", "--alerts.stall=9"),
        ("--train.rollback.skip=3", "--train.rollback.spike=2"),
        ("--selection.candidates=3", "--selection.reference=m"),
        ("--consolidation.strength=3", "--consolidation.tokens=t --init=m"),
        ("--masked_share=0.3", "--objective=masked --model.causal=false"),
    ],
)
def test_an_option_that_does_nothing_is_refused_unless_what_it_is_for_is_given(idle, needed, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    key = idle.partition("=")[0].removeprefix("--")
    with pytest.raises(ConfigError, match=rf"^{key} does nothing [^\n]+\nLeave it out, or give what it is for\.$"):
        read(*idle.split())
    read(*idle.split(), *needed.split())


def test_so_are_those_of_fine_tuning():
    with pytest.raises(ConfigError, match=r"replay\.share does nothing without tokens"):
        read("--replay.share=0.1", command="finetune")
    with pytest.raises(ConfigError, match=r"optimizer\.head_rate does nothing under sgd, it is for muon"):
        read("--optimizer.head_rate=0.1", "--optimizer.name=sgd", command="finetune")


@pytest.mark.parametrize(
    ("idle", "when"),
    [
        ("--optimizer.momentum=0.9 --optimizer.name=lion", "under lion, which has beta1 and beta2"),
        ("--optimizer.beta1=0.9 --optimizer.name=sgd", "under sgd, which has momentum"),
        ("--optimizer.epsilon=1e-8 --optimizer.name=adafactor", "under adafactor, which has none of its kind"),
        ("--optimizer.polynomial=polar_express --optimizer.name=sgd", "under sgd, it is for muon and normuon"),
    ],
)
def test_so_are_those_of_another_optimizer(idle, when):
    with pytest.raises(ConfigError, match=rf"does nothing {when}"):
        read(*idle.split())


def test_how_processes_divide_the_work_may_be_said_where_there_is_one():
    """A run of several goes on with one."""
    assert read("--train.parallel=fsdp").train.parallel == "fsdp"


@pytest.mark.parametrize(
    "preset", [preset for preset in list_presets() if preset.command in GIVEN], ids=lambda preset: preset.name
)
def test_a_preset_takes_another_optimizer_and_schedule_by_their_names_alone(preset):
    config = read(f"--config={preset.name}", "--optimizer.name=adamw", "--schedule.name=cosine", command=preset.command)
    assert (config.optimizer.name, config.schedule.name) == ("adamw", "cosine")


def test_so_does_a_depth():
    assert read("--model.depth=3", "--optimizer.name=adamw").optimizer.name == "adamw"


def test_the_config_of_a_run_which_is_written_whole_still_loads(tmp_path):
    config = read("--optimizer.name=muon", "--optimizer.matrix_rate=0.01", "--train.devices=2", "--train.parallel=fsdp")
    save_config(tmp_path / "run.yaml", config)
    path = tmp_path / "run.yaml"
    assert load_config(path, PretrainConfig) == config
    again = parser("pretrain").read([f"--config={path}", "--optimizer.name=adamw", "--train.devices=1"]).config
    assert (again.train.parallel, again.optimizer.matrix_rate) == ("fsdp", 0.01)
