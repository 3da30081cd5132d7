"""A run that is watched is the run that nobody watched."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from seedbed.errors import TrainingError
from seedbed.training.config import CheckpointConfig
from seedbed.training.observers.observer import Observer, undisturbed
from tests.tiny import random_rows, records, tiny_run, tiny_trainer, weights

RUN = ("--train.steps=8", "--train.validate_every=4", "--train.checkpoint.steps=2")
WATCHED = (
    *("--statistics.every=2", "--samples.every=3", "--samples.prompts=[the seed, wa]", "--samples.max_tokens=5"),
    *("--probes.every=2", "--probes.functions=[tests.training.observers.test_probes:weight_and_chance]"),
    *("--profile.steps=2", "--profile.from_step=3", "--track=[tensorboard]", "--statistics.histograms=true"),
    *("--alerts.spike=1.5", "--alerts.stall=600", "--log.format=json"),
)


def checkpoint(run) -> dict[str, torch.Tensor]:
    """Everything that the last one holds, the optimizer's state too."""
    (file,) = (run / "checkpoints" / "step_00000008").glob("*.safetensors")
    return load_file(file)


class Diary(Observer):
    """Notes what it is told."""

    def __init__(self):
        self.told: list[str] = []

    def begin(self, trainer):
        self.told.append(f"begin {trainer.progress.step}")

    def before_update(self, trainer, norm):
        self.told.append(f"update {trainer.progress.step}")

    def after_step(self, trainer, report):
        self.told.append(f"step {trainer.progress.step}, checkpoints {trainer.checkpoints.steps()}")

    def recorded(self, trainer, name, record):
        self.told.append(name)

    def end(self, trainer):
        self.told.append(f"end {trainer.progress.step}")


@pytest.fixture(scope="module")
def plain(tokens, tmp_path_factory):
    run = tmp_path_factory.mktemp("plain") / "run"
    tiny_run(tokens, run, *RUN)
    return run


@pytest.fixture(scope="module")
def watched(tokens, tmp_path_factory):
    run = tmp_path_factory.mktemp("watched") / "run"
    tiny_run(tokens, run, *RUN, *WATCHED)
    return run


def test_a_run_that_everything_watches_ends_in_the_same_bits(plain, watched):
    assert weights(watched) == weights(plain)
    assert (watched / "metrics.jsonl").read_bytes() == (plain / "metrics.jsonl").read_bytes()
    one, other = checkpoint(watched), checkpoint(plain)
    assert one.keys() == other.keys() > {"optimizer.embedding.weight:exp_avg"}
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert not (plain / "statistics.jsonl").exists() and not (plain / "samples.jsonl").exists()


def test_a_watched_run_that_goes_on_writes_the_same_statistics_and_samples(watched, tokens, tmp_path, monkeypatch):
    from seedbed.training.trainer import Trainer

    step = Trainer.step

    def die_at_5(trainer):
        if trainer.progress.step == 5:
            raise MemoryError
        return step(trainer)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Trainer, "step", die_at_5)
        tiny_run(tokens, tmp_path / "run", *RUN, *WATCHED)
    assert tiny_run(tokens, tmp_path / "run", *RUN, *WATCHED)["resumed_at"] == 4
    for name in ("metrics", "statistics", "samples"):
        assert (tmp_path / "run" / f"{name}.jsonl").read_bytes() == (watched / f"{name}.jsonl").read_bytes(), name
    assert weights(tmp_path / "run") == weights(watched)
    assert [sample["step"] for sample in records(watched, "samples.jsonl")] == [3, 3, 6, 6, 8, 8]


def test_a_run_may_go_on_watched_otherwise(watched, plain, tokens):
    assert tiny_run(tokens, watched, *RUN)["resumed_at"] == 8
    assert tiny_run(tokens, plain, *RUN, "--log.level=debug")["resumed_at"] == 8


def test_the_manifest_of_a_run_lists_its_records_and_not_what_other_tools_wrote(watched):
    files = json.loads((watched / "manifest.json").read_bytes())["files"]
    assert {"metrics.jsonl", "statistics.jsonl", "samples.jsonl"} <= files.keys()
    assert not [name for name in files if name.startswith(("tracking", "profile"))]


def test_observers_are_told_of_a_step_before_a_checkpoint_claims_it(tmp_path):
    diary = Diary()
    settings = {"steps": 2, "validate_every": 1, "checkpoint": CheckpointConfig(background=False)}
    tiny_trainer(tmp_path, validation=random_rows(4), observers=[diary], **settings).train()
    step = ["metrics", "timings"]
    assert diary.told == [
        *("begin 0", "metrics"),
        *("update 0", *step, "step 1, checkpoints []", "metrics"),
        *("update 1", *step, "step 2, checkpoints [1]", "metrics", "end 2"),
    ]


def test_who_began_hears_of_the_end_whatever_it_is(tmp_path):
    class Refusing(Observer):
        def after_step(self, trainer, report):
            raise TrainingError("enough")

    diary = Diary()
    with pytest.raises(TrainingError, match="enough"):
        tiny_trainer(tmp_path, observers=[diary, Refusing()]).train()
    assert diary.told[-1] == "end 1"


def test_what_is_undisturbed_goes_on_as_if_nothing_had_happened(tmp_path):
    trainer = tiny_trainer(tmp_path)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with undisturbed(trainer):
            assert not trainer.model.training and not torch.is_grad_enabled()
            drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.model.training and torch.is_grad_enabled()
