"""Elastic weight consolidation: its penalty, its Fisher information, and that less is forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seedbed.data.batches.batch import IGNORE
from seedbed.errors import ConfigError, CorruptionError
from seedbed.runs import open_folder, read_manifest
from seedbed.training.consolidation import FISHER, Consolidated, estimate_fisher
from seedbed.training.objective import NextToken
from tests.tiny import TINY, Rows, pretrain_config, random_rows, records, same_bits, tiny_model, tiny_run, tiny_trainer

SMALL = replace(TINY, vocab_size=7, width=4, heads=1, kv_heads=1, head_width=4, ff_width=4, pad_id=None)


def small_model():
    return tiny_model(SMALL).double()


def small_rows(count: int = 3, length: int = 4) -> Rows:
    generator = torch.Generator().manual_seed(1)
    tokens_NT = torch.randint(7, (count, length), generator=generator)
    targets_NT = torch.randint(7, (count, length), generator=generator)
    targets_NT[0, 1] = IGNORE
    return Rows(tokens_NT, targets_NT)


def held(model, fisher=None, strength: float = 3.0) -> Consolidated:
    objective = Consolidated(NextToken(), strength)
    objective.hold(model, fisher or {name: torch.rand_like(weight) for name, weight in model.named_parameters()})
    return objective


def moved(model):
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


def test_the_penalty_is_equation_3_and_its_gradient_the_closed_form():
    model = small_model()
    objective = held(model)
    assert float(objective.penalty(model).detach()) == 0.0
    penalty = objective.penalty(moved(model))
    gradients = torch.autograd.grad(penalty, list(model.parameters()))
    total = 0.0
    for (name, weight), gradient in zip(model.named_parameters(), gradients, strict=True):
        distance = weight.detach() - objective.start[name]
        total += float((objective.fisher[name] * distance**2).sum())
        assert torch.allclose(gradient, 3.0 * objective.fisher[name] * distance, rtol=1e-12, atol=0)
    assert float(penalty.detach()) == pytest.approx(3.0 / 2 * total, rel=1e-12)


def test_the_fisher_information_is_the_expected_squared_gradient_over_the_models_own_predictions():
    """Against the sum over every token that could be drawn, weighed by its probability, at each position alone."""
    model, source = small_model(), small_rows()
    exact = [torch.zeros_like(weight) for weight in model.parameters()]
    batch = source.batch(0, 3)
    places = (batch.targets_BT != IGNORE).nonzero().tolist()
    for row, position in places:
        for token in range(7):
            logs_V = model(batch.tokens_BT[row : row + 1])[0, position].log_softmax(-1)
            gradients = torch.autograd.grad(logs_V[token], list(model.parameters()), materialize_grads=True)
            for total, gradient in zip(exact, gradients, strict=True):
                total += float(logs_V[token].detach().exp()) * gradient.square() / len(places)
    found = estimate_fisher(model, source, 900, seed=4)  # each row 300 times
    one, other = (torch.cat([part.detach().flatten() for part in parts]) for parts in (found.values(), exact))
    assert float(one.sum()) == pytest.approx(float(other.sum()), rel=0.08)
    assert float((one - other).norm()) < 0.15 * float(other.norm())


def test_the_estimate_leaves_no_trace_and_is_the_same_each_time():
    model, source = small_model().train(), small_rows()
    before = torch.get_rng_state()
    one, other = (estimate_fisher(model, source, 5, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(one[name], other[name]) for name in one)
    third = estimate_fisher(model, source, 5, seed=2)
    assert any(not torch.equal(one[name], third[name]) for name in one)


def test_the_penalty_counts_once_a_step_however_it_is_cut(tmp_path):
    reports = []
    for micro_batch in (None, 1, 3):
        trainer = tiny_trainer(
            tmp_path / str(micro_batch), random_rows(4, targets=[3, 9, 0, 5]), micro_batch=micro_batch
        )
        torch.manual_seed(0)
        objective = held(trainer.model)
        moved(trainer.model)
        trainer.objective = objective
        report = trainer.step()
        reports.append((report.gradient_norm, *objective.report(report.tally).values()))
    assert reports[1] == pytest.approx(reports[0], rel=1e-5) and reports[2] == pytest.approx(reports[0], rel=1e-5)


def test_the_loss_that_is_told_is_that_of_the_text(tmp_path):
    trainer = tiny_trainer(tmp_path / "run", random_rows(4), validation=random_rows(4))
    plain = trainer.validate()
    trainer.objective = objective = held(trainer.model)
    moved(trainer.model)
    with torch.no_grad():
        wanted = float(NextToken().loss(trainer.model, random_rows(4).batch(0, 4)).sum) / 48
        penalty = float(objective.penalty(trainer.model))
    report = objective.report(trainer.step().tally)
    assert report["loss"] == pytest.approx(wanted, rel=1e-5) and report["penalty"] == pytest.approx(penalty, rel=1e-5)
    assert set(trainer.validate()) == set(plain) == {"loss"}


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tokens, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("base") / "run"
    tiny_run(tokens, run, "--train.steps=60")
    return run


def given(tokens: Path, base: Path, *others: str) -> tuple[str, ...]:
    held = (f"--init={base}", f"--consolidation.tokens={tokens}", "--consolidation.rows=8")
    return (*held, "--train.steps=8", "--train.checkpoint.steps=3", *others)


def test_the_fisher_information_is_kept_and_a_run_resumes_to_the_same_bits(tokens, base, tmp_path, monkeypatch):
    tiny_run(tokens, tmp_path / "whole", *given(tokens, base))
    manifest = open_folder(tmp_path / "whole" / FISHER, "fisher", verify="all")
    assert manifest.inputs == {"init": read_manifest(base / "model").hash, "consolidation": read_manifest(tokens).hash}
    assert records(tmp_path / "whole")[-2]["penalty"] > 0
    tiny_run(tokens, tmp_path / "cut", *given(tokens, base))
    monkeypatch.setattr("seedbed.training.consolidation.estimate_fisher", None)  # it is not estimated again
    where = tmp_path / "cut" / "checkpoints" / "step_00000006"
    assert tiny_run(tokens, tmp_path / "cut", *given(tokens, base, f"--resume={where}"))["resumed_at"] == 6
    assert same_bits(tmp_path / "cut", tmp_path / "whole")


def test_a_changed_byte_of_the_fisher_information_is_refused(tokens, base, tmp_path):
    tiny_run(tokens, tmp_path / "run", *given(tokens, base))
    file = tmp_path / "run" / FISHER / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x77")
    with pytest.raises(CorruptionError, match="fisher"):
        tiny_run(tokens, tmp_path / "run", *given(tokens, base))


def test_a_run_that_died_with_only_its_fisher_information_begins(tokens, base, tmp_path):
    tiny_run(tokens, tmp_path / "run", *given(tokens, base))
    for entry in (tmp_path / "run").iterdir():
        if entry.name not in (FISHER, "training.log"):
            entry.rename(tmp_path / f"gone {entry.name}")
    assert tiny_run(tokens, tmp_path / "run", *given(tokens, base))["finished"]


def test_a_fresh_model_has_nothing_to_forget(tokens, tmp_path):
    with pytest.raises(ConfigError, match="needs init"):
        pretrain_config(tokens, tmp_path / "run", f"--consolidation.tokens={tokens}", "--train.steps=1")
