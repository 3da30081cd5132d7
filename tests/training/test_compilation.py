"""Compiled blocks compute what the plain ones do, and are compiled only where that pays."""

from __future__ import annotations

import functools
import shutil

import pytest
import torch

from seedbed.configuration import load_config
from seedbed.errors import ConfigError
from seedbed.model.linears import linear
from seedbed.training import compilation, stage
from seedbed.training.checkpoint import Checkpoints
from seedbed.training.compilation import check_compiler, compile_blocks, pays
from seedbed.training.config import CheckpointConfig, PretrainConfig
from tests.tiny import records, tiny_run, tiny_trainer

CPU = torch.device("cpu")


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_compiling_pays_only_for_long_runs_on_a_machine_that_can():
    assert not pays(60, CPU)
    assert pays(1e6, CPU) == (compilation.compiler_problem(CPU) is None)
    assert not pays(1e6, torch.device("mps"))


def test_without_a_compiler_auto_stays_plain_and_on_is_refused_in_one_line(without_compiler):
    assert not pays(1e9, CPU)
    with pytest.raises(ConfigError, match=r"^compiling for a CPU needs g\+\+"):
        check_compiler(CPU)


def test_what_auto_chose_stands_in_the_config_and_holds_when_the_run_goes_on(tokens, tmp_path, monkeypatch):
    run = tmp_path / "run"
    tiny_run(tokens, run, "--train.steps=2")
    assert load_config(run / "config.yaml", PretrainConfig).train.compile == "off"
    monkeypatch.setattr(stage, "pays", lambda seconds, device: True)  # would now be chosen otherwise
    assert tiny_run(tokens, run, "--train.steps=2")["steps"] == 2
    assert tiny_run(tokens, run, "--train.steps=4")["steps"] == 4
    assert load_config(run / "config.yaml", PretrainConfig).train.compile == "off"
    with pytest.raises(ConfigError, match=r"was begun with train\.compile off, now it is on"):
        tiny_run(tokens, run, "--train.steps=4", "--train.compile=on")


def test_a_long_run_is_estimated_long(tokens, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stage, "pays", lambda seconds, device: asked.append(seconds) or False)
    monkeypatch.setattr(stage, "gemm_peak", lambda device: 1e9)
    tiny_run(tokens, tmp_path / "steps", "--train.steps=3")
    tiny_run(tokens, tmp_path / "minutes", "--train.minutes=0.01")
    assert 1e-4 < asked[0] < 1 and asked[1] == 0.6


def test_blocks_run_compiled_only_where_a_gradient_is_wanted(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda run, **options: lambda *given: (calls.append(options), run(*given))[1])
    trainer = tiny_trainer(tmp_path, validation=None)
    names = [name for name, _ in trainer.model.named_parameters()]
    compile_blocks(trainer.model)
    trainer.step()
    assert calls == [{"dynamic": False}] * len(trainer.model.blocks)
    with torch.no_grad():
        trainer.model(torch.zeros(1, 4, dtype=torch.long))
    assert len(calls) == len(trainer.model.blocks)
    assert [name for name, _ in trainer.model.named_parameters()] == names


@pytest.mark.skipif(compilation.compiler_problem(CPU) is not None, reason="needs a compiler")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.proof)])
def test_a_compiled_run_is_near_the_plain_one_and_resumes_to_the_same_bits(backend, tmp_path, monkeypatch):
    """The graphs that PyTorch makes of a block; as a proof also the code that g++ makes of them."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr(linear, "WORTH", 0)  # products of a real size go through an operator of our own
    settings = {"steps": 6, "checkpoint": CheckpointConfig(steps=3)}
    plain = tiny_trainer(tmp_path / "plain", **settings)
    whole = tiny_trainer(tmp_path / "whole", compile="on", **settings)
    plain.train()
    whole.train()
    losses = [[record["loss"] for record in records(tmp_path / name)] for name in ("plain", "whole")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    broken = tiny_trainer(tmp_path / "broken", compile="on", recompute="full", **settings)
    for _ in range(3):
        broken.run_step()
    broken.checkpoints.wait()
    assert Checkpoints(tmp_path / "broken").steps() == [3]
    torch.compiler.reset()  # as a new process: only what is on the disk is left
    resumed = tiny_trainer(tmp_path / "broken", compile="on", **settings)
    assert resumed.resume() == 3
    resumed.train()
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters, resumed.parameters, strict=True))
