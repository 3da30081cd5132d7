"""What a step computes in, and how fp16 keeps its gradients within range."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, replace

import pytest
import torch

from seedbed.errors import Alarm, ConfigError, TrainingError
from seedbed.runs import read_record, write_json
from seedbed.training import precision as module
from seedbed.training.config import CheckpointConfig
from seedbed.training.observers.alerts import Alerts
from seedbed.training.observers.config import AlertsConfig
from seedbed.training.precision import FIRST_SCALE, GROW_AFTER, LEAST_SCALE, Precision, choose_precision
from seedbed.training.run_state import FIRST_FIELDS, RunState
from tests.tiny import random_rows, records, tiny_model, tiny_trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize("narrow", ["bf16", "fp16"])
def test_a_narrow_run_learns_as_the_wide_one_does_with_wide_weights(narrow, tmp_path):
    wide, other = (tiny_trainer(tmp_path / name, random_rows(4), steps=60, precision=name) for name in ("fp32", narrow))
    assert wide.train() and other.train()
    losses = [[record["loss"] for record in records(tmp_path / name)] for name in ("fp32", narrow)]
    assert losses[0] != losses[1] and losses[1][-1] < 0.3 * losses[1][0]
    assert losses[1][:3] == pytest.approx(losses[0][:3], rel=0.02)
    state = [value for optimizer in other.optimizers for state in optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in (*other.parameters, *state)} == {torch.float32}


def test_products_are_narrow_and_so_are_those_of_a_validation(tmp_path):
    trainer = tiny_trainer(tmp_path, precision="bf16", validation=random_rows(4))
    seen = set()
    trainer.model.blocks[0].feedforward.up.register_forward_hook(lambda module, given, result: seen.add(result.dtype))
    trainer.step()
    trainer.validate()
    assert seen == {torch.bfloat16}


def test_the_scale_of_the_loss_changes_neither_gradient_norm_nor_weights_much(tmp_path):
    trainers = [tiny_trainer(tmp_path / str(scale), precision="fp16") for scale in (4, 2048)]
    for trainer, scale in zip(trainers, (4.0, 2048.0), strict=True):
        trainer.progress = RunState(loss_scale=scale)
    one, other = (trainer.step() for trainer in trainers)
    assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-2)
    assert trainers[0].progress.loss_scale == 4.0


def overflowing(trainer, above: float) -> None:
    """Its gradients overflow at every scale above this."""
    backward = trainer.precision.backward

    def poisoned(loss, progress):
        backward(loss * (math.inf if trainer.precision.scale(progress) > above else 1.0), progress)

    trainer.precision.backward = poisoned


def test_an_overflow_leaves_the_step_out_halves_the_scale_and_is_no_failure(tmp_path):
    trainer = tiny_trainer(tmp_path, precision="fp16", nonfinite_limit=2, steps=8)
    overflowing(trainer, above=FIRST_SCALE / 16)
    before = [parameter.detach().clone() for parameter in trainer.parameters]
    for number in range(1, 5):
        assert not trainer.step().applied
        assert trainer.progress.loss_scale == FIRST_SCALE / 2**number and trainer.progress.skipped_in_row == 0
    assert all(torch.equal(one, other) for one, other in zip(trainer.parameters, before, strict=True))
    assert trainer.train() and trainer.progress.loss_scale == FIRST_SCALE / 16


def test_an_overflow_is_neither_warned_of_nor_alerted_and_one_at_the_least_scale_is(tmp_path, caplog):
    alerts = Alerts(AlertsConfig(on_nonfinite="stop"))
    trainer = tiny_trainer(tmp_path, precision="fp16", steps=100, observers=[alerts])
    overflowing(trainer, above=0.0)
    halvings = int(math.log2(FIRST_SCALE / LEAST_SCALE))
    with caplog.at_level(logging.INFO, "seedbed"), pytest.raises(Alarm, match=f"at step {halvings + 1}"):
        trainer.train()
    said = [record for record in caplog.records if "left out" in record.message]
    assert [record.levelname for record in said] == ["INFO"] * halvings + ["WARNING"]
    assert said[0].message == "step 1 left out: too large for fp16, the next scale is 128"


def test_at_the_least_scale_an_overflow_is_a_failure(tmp_path):
    trainer = tiny_trainer(tmp_path, precision="fp16", nonfinite_limit=3, steps=100)
    overflowing(trainer, above=0.0)
    with pytest.raises(TrainingError, match="3 times in a row"):
        trainer.train()
    assert trainer.progress.step == 3 + math.log2(FIRST_SCALE / LEAST_SCALE)


def test_a_loss_that_is_no_number_is_a_failure_at_any_scale():
    fp16 = Precision("fp16", CPU)
    assert fp16.overflowed(RunState(), 1.0, math.nan)
    assert not fp16.overflowed(RunState(), math.nan, math.nan)
    assert not Precision("fp32", CPU).overflowed(RunState(), 1.0, math.nan)


def test_the_scale_doubles_after_many_steps_without_overflow():
    fp16, state = Precision("fp16", CPU), RunState()
    for _ in range(GROW_AFTER - 1):
        state = fp16.adjusted(state, overflowed=False)
    assert state.loss_scale == FIRST_SCALE
    assert fp16.adjusted(state, overflowed=False) == replace(state, loss_scale=2 * FIRST_SCALE, steps_at_scale=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_a_narrow_run_resumes_to_the_same_bits(precision, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROW_AFTER", 3)  # so that the scale moves before and after the break
    monkeypatch.setattr("seedbed.model.linears.int8_products.WORTH", 0)  # else no product of these is large enough
    settings = {"steps": 10, "precision": precision, "checkpoint": CheckpointConfig(steps=5)}
    whole = tiny_trainer(tmp_path / "whole", **settings)
    whole.train()
    broken = tiny_trainer(tmp_path / "broken", **settings)
    for _ in range(5):
        broken.run_step()
    broken.checkpoints.wait()
    resumed = tiny_trainer(tmp_path / "broken", **settings)
    assert resumed.resume() == 5
    resumed.train()
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters, resumed.parameters, strict=True))
    assert resumed.progress == whole.progress
    assert records(tmp_path / "whole") == records(tmp_path / "broken")


def test_a_checkpoint_from_before_there_were_scales_still_loads(tmp_path):
    state = asdict(RunState(step=3, units=9))
    del state["loss_scale"], state["steps_at_scale"]
    write_json(tmp_path / "state.json", state)
    found = read_record(RunState, tmp_path / "state.json", required=FIRST_FIELDS)
    assert found == RunState(step=3, units=9)


def test_auto_is_fp32_on_a_cpu_and_fp8_is_refused_in_one_line():
    assert choose_precision("auto", CPU) == "fp32"
    with pytest.raises(ConfigError, match=r"^precision fp8 needs an NVIDIA GPU .*; the device is cpu"):
        choose_precision("fp8", CPU)


def test_int8_is_refused_where_nothing_can_round(monkeypatch):
    assert choose_precision("int8", CPU) == "int8"
    with pytest.raises(ConfigError, match=r"^precision int8 needs a CPU and a C\+\+ compiler; the device is cuda"):
        choose_precision("int8", torch.device("cuda"))
    monkeypatch.setattr("seedbed.training.precision.available", lambda file: False)
    with pytest.raises(ConfigError, match=r"^precision int8 needs a CPU and a C\+\+ compiler"):
        choose_precision("int8", CPU)


def test_fp8_products_are_near_the_exact_ones_and_keep_the_weights():
    """On the CPU, whose kernel for them is slow but exact."""
    from seedbed.model.linears.float8 import Float8Linear, use_float8

    model = tiny_model()
    linear = model.blocks[0].feedforward.up
    names = list(model.state_dict())
    x_ND = torch.randn(3, 7, 16, requires_grad=True)
    exact = linear(x_ND)
    upstream = torch.randn_like(exact)
    expected = torch.autograd.grad(exact, (x_ND, linear.weight), upstream)
    use_float8(model)
    assert type(model.blocks[0].feedforward.up) is Float8Linear and list(model.state_dict()) == names
    narrow = linear(x_ND)
    found = torch.autograd.grad(narrow, (x_ND, linear.weight), upstream.bfloat16())
    for one, other in zip((narrow, *found), (exact, *expected), strict=True):
        error = (one.float() - other).norm() / other.norm()
        assert 1e-3 < error < 0.1
    assert found[1].dtype == torch.float32
