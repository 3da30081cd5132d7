"""Active selection: which rows are learned from, and that the choice follows from weights and step alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from seedbed.data.batches.batch import IGNORE
from seedbed.errors import ConfigError, DataError
from seedbed.runs import read_manifest
from seedbed.tokenizers import characters
from seedbed.training.batch_schedule import BatchSchedule
from seedbed.training.precision import Precision
from seedbed.training.selection import Selected
from tests.tiny import (
    Rows,
    make_tokens,
    random_rows,
    records,
    same_bits,
    save_tiny_model,
    tiny_model,
    tiny_run,
    tiny_trainer,
)

CPU = Precision("fp32", torch.device("cpu"))


def other_model():
    model = tiny_model()
    with torch.no_grad():
        model.embedding.weight.mul_(0.3)
    return model


def selected(source: Rows, candidates: int = 4, batch: int = 3) -> Selected:
    made = Selected(source, other_model(), candidates, BatchSchedule([(0, batch), (2, 2 * batch)]))
    made.score_by(tiny_model(), CPU)
    return made


def mean_losses(model, batch) -> list[float]:
    """A plain second way: the mean loss of each row's targets."""
    logs_BTV = model.eval()(batch.tokens_BT).log_softmax(-1).detach()
    means = []
    for row, targets in enumerate(batch.targets_BT.tolist()):
        losses = [-float(logs_BTV[row, t, target]) for t, target in enumerate(targets) if target != IGNORE]
        means.append(sum(losses) / len(losses) if losses else float("nan"))
    return means


@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_rows_with_the_highest_reducible_loss_are_chosen_in_their_order(step):
    source = random_rows(60, targets=[1 + row % 12 for row in range(60)])
    made = selected(source)
    begin, count = made.batch_schedule.first(step), made.batch_schedule.size(step)
    pool = source.batch(4 * begin, 4 * count)
    pairs = zip(mean_losses(tiny_model(), pool), mean_losses(other_model(), pool), strict=True)
    worth = [own - theirs for own, theirs in pairs]
    best = sorted(sorted(range(4 * count), key=lambda row: -worth[row])[:count])
    assert torch.equal(made.batch(begin, count).tokens_BT, pool.tokens_BT[best])
    assert torch.equal(made.batch(begin, count).targets_BT, pool.targets_BT[best])


def test_a_step_has_the_same_rows_however_it_is_cut_and_is_scored_once(monkeypatch):
    made = selected(random_rows(60), batch=6)
    scored = []
    worth = Selected.worth
    monkeypatch.setattr(Selected, "worth", lambda self, *given: scored.append(1) or worth(self, *given))
    whole = made.batch(6, 6).tokens_BT
    assert torch.equal(torch.cat([made.batch(first, 2).tokens_BT for first in (6, 8, 10)]), whole)
    assert len(scored) == 1
    with torch.no_grad():
        next(made.learner.parameters()).mul_(1.5)
    made.batch(6, 6)
    assert len(scored) == 2  # other weights, another choice
    with pytest.raises(ValueError, match="not all of step"):
        made.batch(4, 4)


def test_a_row_without_a_target_is_chosen_last_and_scoring_leaves_no_trace():
    made = selected(random_rows(12, targets=[0, 0, 0, 0, 3, 3, 3, 0, 0, 0, 0, 0]))
    before = torch.get_rng_state()
    made.learner.train()
    batch = made.batch(0, 3)
    assert (batch.targets_BT != IGNORE).any(1).all()
    assert made.learner.training and torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is None for weight in [*made.learner.parameters(), *made.reference.parameters()])


def test_noise_that_nobody_can_learn_is_passed_over(tmp_path):
    """Half of the rows are drawn at random; a reference that knows the other half tells them apart."""
    pattern = torch.arange(12).repeat(40, 1) + 20
    noise = random_rows(40, seed=5).tokens_NT
    tokens_NT = torch.stack([pattern, noise], dim=1).flatten(0, 1)
    source = Rows(tokens_NT[:, :-1], tokens_NT[:, 1:])
    clean = Rows(pattern[:, :-1], pattern[:, 1:])
    reference = tiny_trainer(tmp_path / "reference", clean, steps=60)
    for _ in range(60):
        reference.step()
    made = Selected(source, reference.model, 2, BatchSchedule([(0, 8)]))
    made.score_by(tiny_model(), CPU)
    chosen = made.batch(0, 8).tokens_BT
    assert (chosen[:, 0] == 20).sum() == 8


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tokens, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("reference") / "run"
    tiny_run(tokens, run, "--train.steps=30")
    return run


def test_a_run_resumes_and_accumulates_to_the_same(tokens, reference, tmp_path):
    """With rows that a curriculum cuts, growing batches, workers, and steps done in between by another process."""
    given = (f"--selection.reference={reference}", "--selection.candidates=3", "--train.steps=8")
    given += ("--train.checkpoint.steps=3", "--train.batches=[{from_step: 5, batch: 6}]")
    given += ("--data.lengths=[{from_step: 0, length: 8}, {from_step: 4, length: 16}]",)
    tiny_run(tokens, tmp_path / "whole", *given)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    where = tmp_path / "cut" / "checkpoints" / "step_00000006"
    tiny_run(tokens, tmp_path / "cut", *given, "--data.workers=2", f"--resume={where}")
    assert same_bits(tmp_path / "cut", tmp_path / "whole")
    tiny_run(tokens, tmp_path / "small", *given, "--train.micro_batch=1")
    for one, other in zip(records(tmp_path / "whole"), records(tmp_path / "small"), strict=True):
        assert one == pytest.approx(other, rel=2e-4)
    assert read_manifest(tmp_path / "whole").inputs["reference"] == read_manifest(reference / "model").hash


def test_a_reference_that_cannot_read_the_rows_is_refused(tokens, tmp_path):
    short = save_tiny_model(tmp_path / "short", context=8)
    with pytest.raises(ConfigError, match="a context of 8"):
        tiny_run(tokens, tmp_path / "run", f"--selection.reference={short}", "--train.steps=1")
    (tmp_path / "other").mkdir()
    other = make_tokens(tmp_path / "other", characters.train(["the seed of a small tree"]))
    with pytest.raises(DataError, match="this tokenizer has 263 tokens"):
        tiny_run(other, tmp_path / "run", f"--selection.reference={save_tiny_model(tmp_path / 'm')}", "--train.steps=1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["selection.reference", "consolidation.tokens"])
def test_what_needs_whole_models_is_refused_where_they_are_divided(key, tokens, reference, tmp_path):
    value = reference if key == "selection.reference" else tokens
    given = (f"--{key}={value}", f"--init={reference}", "--train.steps=1", "--train.parallel=fsdp")
    with pytest.raises(ConfigError, match=f"{key.partition('.')[0]} needs the whole model"):
        tiny_run(tokens, tmp_path / "run", *given)


def test_a_source_of_another_choice_has_another_fingerprint():
    prints = {selected(random_rows(12), candidates).fingerprint for candidates in (2, 3)} | {
        random_rows(12).fingerprint
    }
    assert len(prints) == 3
