"""What a step computes, and what a run does beside its steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.devices import set_determinism
from seedbed.errors import ConfigError, TrainingError
from seedbed.model.transformer import Transformer
from seedbed.optim.config import USUAL, OptimizerConfig
from seedbed.optim.groups import build_optimizers as build
from seedbed.training.config import CheckpointConfig, TrainConfig
from seedbed.training.objective import Loss, NextToken, Tally
from seedbed.training.trainer import StepReport, Trainer
from tests.tiny import Rows, random_rows, records, tiny_model, tiny_trainer

UNEVEN = [12, 1, 0, 7, 3, 12, 0, 0, 5, 2, 1, 12, 9, 0, 4, 6] * 2
"""Targets of 32 rows, some of them none at all."""


def gradients_of_step(trainer: Trainer, monkeypatch) -> tuple[StepReport, dict[str, torch.Tensor]]:
    """The gradients as the optimizers see them."""
    seen: dict[str, torch.Tensor] = {}

    def look() -> None:
        seen.update({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None})

    for optimizer in trainer.optimizers:
        monkeypatch.setattr(optimizer, "step", look)
    return trainer.step(), seen


def plain_gradients(rows: Rows, count: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the mean over all targets, by the formula, without accumulation."""
    model = tiny_model()
    logits_BTV = model(rows.tokens_NT[:count])
    loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), rows.targets_NT[:count].flatten())
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("micro_batch", [32, 8, 1, 5, None])
def test_loss_and_gradients_do_not_depend_on_accumulation(micro_batch, tmp_path, monkeypatch):
    rows = random_rows(32, targets=UNEVEN)
    trainer = tiny_trainer(tmp_path, rows, batch=32, micro_batch=micro_batch, clip=1e9)
    report, gradients = gradients_of_step(trainer, monkeypatch)
    loss, expected = plain_gradients(rows, 32)
    assert report.tally.units == sum(UNEVEN) and report.tokens == 32 * 12
    assert report.tally.sum / report.tally.units == pytest.approx(loss, abs=1e-6)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], rtol=0, atol=1e-6), name
        assert gradient.abs().max() > 1e-5  # the comparison is one of numbers, not of noughts


@pytest.mark.parametrize("name", USUAL)
def test_under_no_optimizer_do_the_weights_depend_on_accumulation(name, tmp_path):
    """In fp64, where gradients differ by so little that even their signs agree."""
    moved = []
    for micro_batch in (None, 5, 1):
        rows = random_rows(32, targets=UNEVEN)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "seedbed.training.trainer.build_optimizers", lambda model, config: build(model.double(), config)
            )
            patch.setattr(torch.Tensor, "float", lambda tensor: tensor)
            optimizer = OptimizerConfig(name=name, weight_decay=0.1)
            trainer = tiny_trainer(tmp_path, rows, batch=32, micro_batch=micro_batch, optimizer=optimizer)
            for _ in range(3):
                trainer.step()
        moved.append([weight.detach() for weight in trainer.model.parameters()])
    for other in moved[1:]:
        for weight, expected in zip(other, moved[0], strict=True):
            assert weight.dtype == torch.float64
            torch.testing.assert_close(weight, expected, rtol=0, atol=1e-9)


def test_a_micro_batch_that_does_not_divide_the_batch_takes_every_row_once(tmp_path):
    trainer = tiny_trainer(tmp_path, batch=16, micro_batch=5)
    sizes = [len(batch.tokens_BT) for _, batch in trainer.micro_batches(0)]
    assert sizes == [5, 5, 5, 1]
    rows = torch.cat([batch.tokens_BT for _, batch in trainer.micro_batches(3)])
    assert torch.equal(rows, trainer.source.batch(48, 16).tokens_BT)


@pytest.mark.parametrize("clip", [0.01, 1e9, 0.0, None])
def test_clipping_is_the_plain_formula(clip, tmp_path, monkeypatch):
    rows = random_rows(8, targets=UNEVEN[:8])
    trainer = tiny_trainer(tmp_path, rows, batch=8, micro_batch=3, clip=clip)
    report, gradients = gradients_of_step(trainer, monkeypatch)
    _, expected = plain_gradients(rows, 8)
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in expected.values()))
    assert report.gradient_norm == pytest.approx(norm, rel=1e-5) and norm > 0.01
    for name, gradient in gradients.items():
        scale = min(1.0, clip / norm) if clip else 1.0  # switched off, it changes nothing
        assert torch.allclose(gradient, expected[name] * scale, rtol=1e-4, atol=1e-8), name


def test_the_gradient_is_gone_after_the_step(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.step()
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_step_without_any_target_makes_no_nan(tmp_path):
    rows = random_rows(4, targets=[0, 0, 0, 0])
    trainer = tiny_trainer(tmp_path, rows, validation=rows, steps=2)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    assert trainer.train()
    for parameter, old in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    assert all("loss" not in record for record in records(tmp_path))
    assert records(tmp_path)[-1]["step"] == 2


def test_rates_follow_the_schedule(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=100)
    first = trainer.step()
    assert 0 < first.rate_multiple < 1
    assert all(
        group["lr"] == first.rate_multiple * group["peak"] for o in trainer.optimizers for group in o.param_groups
    )
    assert trainer.step().rate_multiple > first.rate_multiple


def test_a_run_learns_its_rows(tmp_path):
    rows = random_rows(4)
    trainer = tiny_trainer(tmp_path, rows, steps=100)
    trainer.train()
    losses = [record["loss"] for record in records(tmp_path)]
    assert losses[0] > 4 and losses[-1] < 0.5


def test_the_model_validates_without_dropping_its_training_mode(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(6, seed=1), validation_rows=5, micro_batch=2)
    modes: list[bool] = []
    loss = trainer.objective.loss
    trainer.objective.loss = lambda model, batch: (modes.append(model.training), loss(model, batch))[1]
    whole = trainer.validate()
    assert modes == [False] * 3 and trainer.model.training
    rows = random_rows(6, seed=1)
    with torch.no_grad():
        logits_BTV = trainer.model(rows.tokens_NT[:5])
    expected = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), rows.targets_NT[:5].flatten())
    assert whole["loss"] == pytest.approx(float(expected), abs=1e-5)


# Gradients that are not finite ---------------------------------------------------------------------------------------


class Poisoned(NextToken):
    """Next tokens, with NaN in the loss of some of the calls, counted from 1."""

    def __init__(self, when: Callable[[int], bool]):
        super().__init__()
        self.when = when
        self.calls = 0

    def loss(self, model: Transformer, batch: TokenBatch) -> Loss:
        self.calls += 1
        loss = super().loss(model, batch)
        return Loss(loss.sum * math.nan, loss.units) if self.when(self.calls) else loss


def test_a_poisoned_step_leaves_the_weights_and_the_optimizers_untouched(tmp_path):
    trainer = tiny_trainer(tmp_path, micro_batch=2)
    trainer.step()
    before = [tensor.detach().clone() for tensor in tensors(trainer)]
    trainer.objective = Poisoned(lambda call: call == 2)  # the second half of the batch
    report = trainer.step()
    assert not report.applied and math.isnan(report.gradient_norm)
    assert all(torch.equal(one, other) for one, other in zip(tensors(trainer), before, strict=True))
    assert trainer.progress.skipped_in_row == 1
    trainer.step()
    assert trainer.progress.skipped_in_row == 0 and trainer.progress.step == 3


def tensors(trainer: Trainer) -> list[torch.Tensor]:
    states = [value for o in trainer.optimizers for state in o.state.values() for value in state.values()]
    return [*trainer.model.parameters(), *states]


def test_a_poisoned_step_is_noted(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.objective = Poisoned(lambda call: call == 2)
    assert trainer.train()
    assert [(record["step"], record.get("left_out", False)) for record in records(tmp_path)] == [
        (1, False),
        (2, True),
        (3, False),
        (4, False),
    ]
    assert records(tmp_path)[1] == {"step": 2, "left_out": True}


def test_too_many_poisoned_steps_end_the_run_and_the_last_checkpoint_stays(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=20, nonfinite_limit=3, checkpoint=CheckpointConfig(steps=2))
    trainer.objective = Poisoned(lambda call: call > 5)
    with pytest.raises(TrainingError, match="no finite gradient 3 times in a row, up to step 8"):
        trainer.train()
    assert [record["step"] for record in records(tmp_path) if "left_out" in record] == [6, 7, 8]
    other = tiny_trainer(tmp_path, steps=20)
    assert other.resume() == 4, "none is saved in the middle of the trouble"
    assert all(parameter.isfinite().all() for parameter in other.model.parameters())


def test_fewer_poisoned_steps_in_a_row_than_the_limit_do_not_end_the_run(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=12, nonfinite_limit=3)
    trainer.objective = Poisoned(lambda call: call % 3 != 0)  # two in a row, again and again
    assert trainer.train()


# Validation, early stopping, the best weights ------------------------------------------------------------------------


def scripted(trainer: Trainer, losses: list[float]) -> Trainer:
    """Its validations give these losses, one after the other."""
    remaining = iter(losses)
    trainer.validate = lambda: {"loss": next(remaining)}  # type: ignore[method-assign]
    return trainer


def test_validation_happens_at_the_start_every_so_often_and_at_the_end(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4, seed=1), steps=7, validate_every=3)
    trainer.train()
    assert [record["step"] for record in records(tmp_path) if "val_loss" in record] == [0, 3, 6, 7]


def test_a_run_without_gain_stops_early_and_saves(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=50, validate_every=2, patience=3)
    assert scripted(trainer, [5.0, 4.0, 4.0, 3.9, 4.5, 4.2, 3.9, 1.0]).train()
    assert trainer.progress.step == 12  # the best at step 6, then three without gain
    assert (trainer.progress.best_step, trainer.progress.best_loss) == (6, 3.9)
    assert trainer.checkpoints.steps() == [6, 10, 12]  # the best, and the two newest


def test_a_run_that_stopped_early_is_finished_when_it_is_taken_up_again(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=50, validate_every=2, patience=1)
    scripted(trainer, [5.0, 5.5]).train()
    other = scripted(tiny_trainer(tmp_path, validation=random_rows(4), steps=50, validate_every=2, patience=1), [])
    assert other.resume() == 2 and other.train() and other.progress.step == 2


def test_a_validation_that_is_no_number_is_never_the_best(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=3, validate_every=1)
    scripted(trainer, [5.0, math.nan, 4.0, math.inf]).train()
    assert trainer.progress.best_step == 2 and trainer.progress.validations_without_gain == 1
    validated = [record for record in records(tmp_path) if "loss" not in record]
    assert [record.get("val_loss") for record in validated] == [5.0, None, 4.0, None]


@pytest.mark.parametrize(("losses", "best"), [([5.0, 4.0, 3.0, 6.0, 7.0], 2), ([1.0, 2.0, 3.0, 4.0, 5.0], 0)])
def test_the_best_weights_can_be_put_back(losses, best, tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), validate_every=1, select="best")
    seen = {}
    run_step = trainer.run_step

    def note() -> None:
        seen[trainer.progress.step] = trainer.model.embedding.weight.detach().clone()
        run_step()

    trainer.run_step = note  # type: ignore[method-assign]
    scripted(trainer, losses).train()
    assert not torch.equal(trainer.model.embedding.weight, seen[best])
    assert trainer.load_best() == best
    assert torch.equal(trainer.model.embedding.weight, seen[best])


def test_there_is_no_best_without_validation(tmp_path):
    trainer = tiny_trainer(tmp_path, select="best")
    trainer.train()
    assert trainer.load_best() is None


def test_a_run_killed_before_its_first_step_validates_once(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), select="best")
    trainer.record_validation()
    trainer.save()
    other = tiny_trainer(tmp_path, validation=random_rows(4), select="best")
    other.resume()
    other.train()
    assert [record["step"] for record in records(tmp_path) if "val_loss" in record] == [0, 1, 2, 3, 4]


# Checkpoints ---------------------------------------------------------------------------------------------------------


def saved_steps(trainer: Trainer) -> list[int]:
    saved = []
    save = trainer.checkpoints.save
    trainer.checkpoints.save = lambda *given, **how: (saved.append(given[2].step), save(*given, **how))  # type: ignore[method-assign]
    trainer.train()
    return saved


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (CheckpointConfig(), [1, 2, 3, 4, 5, 6, 7]),  # every validation
        (CheckpointConfig(steps=3), [3, 6, 7]),
        (CheckpointConfig(epochs=0.5), [2, 4, 6, 7]),  # 16 rows, 4 a step
        (CheckpointConfig(on_improvement=True), [0, 1, 4, 7]),
        (CheckpointConfig(steps=5, on_improvement=True), [0, 1, 4, 5, 7]),
    ],
)
def test_checkpoints_are_written_when_asked(when, expected, tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=7, validate_every=1, checkpoint=when)
    assert saved_steps(scripted(trainer, [9.0, 8.0, 8.5, 8.0, 7.0, 7.0, 7.0, 7.0])) == expected
    assert len(trainer.checkpoints.steps()) <= 2 + 1  # `keep` and the best stay, however many were written


def test_a_run_that_selects_the_best_is_saved_when_it_gets_no_better_too(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=4, validate_every=1, select="best")
    assert saved_steps(scripted(trainer, [9.0, 8.0, 8.5, 8.5, 8.5])) == [0, 1, 2, 3, 4]


def test_the_best_is_a_step_that_can_be_saved(tmp_path, monkeypatch):
    """A validation after a step that was left out is of weights that are measured already, and are not saved."""
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=4, validate_every=1, select="best")
    scripted(trainer, [9.0, 8.0, 1.0, 5.0, 5.0])
    take = trainer.normalise_gradients

    def poisoned(units: int) -> float:
        return math.nan if trainer.progress.step == 1 else take(units)

    monkeypatch.setattr(trainer, "normalise_gradients", poisoned)
    trainer.train()
    assert trainer.progress.best_step == 3 and trainer.load_best() == 3


def test_a_checkpoint_is_never_ahead_of_the_records(tmp_path):
    """Going back, the run first drops the checkpoints, then the records."""
    trainer = tiny_trainer(tmp_path, checkpoint=CheckpointConfig(steps=1, keep=9))
    trainer.train()
    other = tiny_trainer(tmp_path)

    def die(step: int) -> None:
        raise KeyboardInterrupt

    other.metrics.cut = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        other.resume(tmp_path / "checkpoints" / "step_00000002")
    assert other.checkpoints.steps() == [1, 2]


# Records -------------------------------------------------------------------------------------------------------------


def test_metrics_hold_no_clock_and_timings_hold_the_speed(tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=5, validate_every=5)
    trainer.train()
    first, *steps, last = records(tmp_path)
    assert first.keys() == {"step", "val_loss"} == last.keys()
    assert all(step.keys() == {"step", "loss", "gradient_norm", "rate_multiple", "units"} for step in steps)
    assert [step["units"] for step in steps] == [48, 96, 144, 192, 240]
    timings = records(tmp_path, "timings.jsonl")
    assert [timing["step"] for timing in timings] == [1, 2, 3, 4, 5]
    for timing in timings:
        speed, use = {"tokens_per_s", "seconds_per_step", "mfu"}, {"peak_rss_mb", "samples_per_s", "data_wait_share"}
        assert timing.keys() > {"step", "cpu_percent"} | speed | use
        assert timing["mfu"] == timing["tokens_per_s"] > 0  # one operation a token, a peak of one a second
        assert timing["tokens_per_s"] == pytest.approx(48 / timing["seconds_per_step"])
        assert 10 < timing["peak_rss_mb"] < 1e5


def test_two_runs_write_the_same_metrics(tmp_path):
    for name in ("one", "two"):
        tiny_trainer(tmp_path / name, validation=random_rows(4)).train()
    assert (tmp_path / "one" / "metrics.jsonl").read_bytes() == (tmp_path / "two" / "metrics.jsonl").read_bytes()


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.train()
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole + b'{"step": 5, "lo')
    assert [record["step"] for record in trainer.metrics.records()] == [1, 2, 3, 4]
    trainer.metrics.cut(4)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    trainer.metrics.cut(2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_bits_per_byte_are_the_loss_over_the_bytes():
    token_bytes = torch.arange(263)
    objective = NextToken(token_bytes)
    rows = random_rows(2, targets=[3, 5])
    loss = objective.loss(tiny_model(), rows.batch(0, 2))
    bytes_ = int(rows.targets_NT[rows.targets_NT != IGNORE].sum())
    report = objective.report(Tally() + loss)
    assert report["bits_per_byte"] == pytest.approx(float(loss.sum.detach()) / math.log(2) / bytes_)
    assert report["loss"] == pytest.approx(float(loss.sum.detach()) / 8)


@pytest.fixture
def deterministic():
    set_determinism(True)
    yield
    set_determinism(False)


def test_a_step_needs_no_algorithm_that_is_not_deterministic(deterministic, tmp_path):
    assert torch.are_deterministic_algorithms_enabled()
    tiny_trainer(tmp_path).train()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 1.0, "minutes": 1.0}, "got epochs and minutes"),
        ({"batch": 0}, "batch"),
        ({"clip": -0.1}, "clip"),
        ({"patience": 0}, "patience"),
        ({"minutes": -1.0}, "minutes"),
        ({"nonfinite_limit": 0}, "nonfinite_limit"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**settings)
