"""A mixture of experts keeps every promise of the loop: accumulation, packing, recomputing, resuming."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.model.config import ModelConfig
from seedbed.model.experts import BalancedRouter
from seedbed.model.routing import find_routers
from seedbed.optim.config import OptimizerConfig
from seedbed.optim.groups import build_optimizers, parameter_kinds
from seedbed.training.config import CheckpointConfig
from seedbed.training.objective import NextToken
from tests.tiny import VOCABULARY, random_rows, records, tiny_model, tiny_trainer

MIXED = ModelConfig(
    vocab_size=VOCABULARY,
    layers=2,
    width=16,
    heads=2,
    context=32,
    experts=4,
    experts_shared=1,
    expert_width=16,
    balance_loss=0.1,
    balance_rate=0.01,
    router_z_loss=0.1,
).resolve()
UNEVEN = [12, 1, 0, 7, 3, 12, 5, 2]
"""Targets of 8 rows."""


def stepped(place, monkeypatch, micro_batch):
    """A step of 8 rows: its metrics, the gradients as the optimizers see them, and the biases behind it."""
    trainer = tiny_trainer(
        place, random_rows(8, targets=UNEVEN), model=MIXED, batch=8, micro_batch=micro_batch, clip=1e9
    )
    found = {}
    for optimizer in trainer.optimizers:
        monkeypatch.setattr(optimizer, "step", lambda: None)
    trainer.optimizers[0].step = lambda: found.update(
        {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    )
    metrics = trainer.objective.report(trainer.step().tally)
    return metrics, found, [router.bias for router in find_routers(trainer.model).values()]


def test_losses_of_routers_and_biases_do_not_depend_on_accumulation(tmp_path, monkeypatch):
    metrics, gradients, biases = stepped(tmp_path / "1 x 8", monkeypatch, 8)
    other_metrics, other_gradients, other_biases = stepped(tmp_path / "8 x 1", monkeypatch, 1)
    assert {"loss", "balance_loss", "router_z_loss", "expert_load_max", "experts_dead"} <= metrics.keys()
    assert other_metrics == pytest.approx(metrics, rel=1e-6)
    assert any(name.endswith("router.weight") for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=0, atol=1e-6)
    assert all(map(torch.equal, biases, other_biases)) and all(bias.any() for bias in biases)


def test_losses_of_routers_do_not_depend_on_packing():
    """Two documents in one row, padding behind them; and one in each row."""
    model = tiny_model(MIXED).double()
    tokens, targets = (torch.randint(7, VOCABULARY, (12,), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    segments = torch.tensor([[0] * 5 + [1] * 5 + [-1] * 2])
    positions = torch.tensor([[*range(5), *range(5), 0, 0]])
    padded = torch.cat([targets[:10], torch.full((2,), IGNORE)])
    packed = TokenBatch(tokens[None], padded[None], segments, positions)
    alone = TokenBatch(tokens[:10].view(2, 5), targets[:10].view(2, 5))
    one, other = (NextToken().loss(model, batch) for batch in (packed, alone))
    torch.testing.assert_close(one.sum, other.sum, rtol=0, atol=1e-10)
    assert one.totals == pytest.approx(other.totals, abs=1e-6)


def test_validation_is_the_loss_without_those_of_routers():
    model, rows = tiny_model(MIXED), random_rows(4).batch(0, 4)
    training = NextToken().loss(model.train(), rows)
    validation = NextToken().loss(model.eval(), rows)
    assert not validation.totals and float(training.sum.detach()) > float(validation.sum.detach()) + 1
    assert training.totals["cross_entropy"] == float(validation.sum.detach())
    added = 0.1 * (training.totals["balance_loss"] + training.totals["router_z_loss"]) * MIXED.layers
    assert float(training.sum.detach() - validation.sum.detach()) == pytest.approx(added, rel=1e-4)


@pytest.mark.parametrize("what", ["full", "selective"])
def test_a_mixture_that_recomputes_has_the_bits_of_one_that_does_not(what, tmp_path):
    runs = [tiny_trainer(tmp_path / how, model=MIXED, recompute=how, steps=3) for how in ("none", what)]
    for trainer in runs:
        trainer.train()
    assert records(tmp_path / "none") == records(tmp_path / what)
    assert all(map(torch.equal, *(run.model.parameters() for run in runs)))


def test_a_mixture_resumes_to_the_same_bits(tmp_path):
    settings = {"model": MIXED, "steps": 8, "checkpoint": CheckpointConfig(steps=4)}
    whole = tiny_trainer(tmp_path / "whole", **settings)
    whole.train()
    broken = tiny_trainer(tmp_path / "broken", **settings)
    for _ in range(4):
        broken.run_step()
    broken.checkpoints.wait()
    resumed = tiny_trainer(tmp_path / "broken", **settings)
    assert resumed.resume() == 4
    assert all(router.bias.any() for router in find_routers(resumed.model).values())
    resumed.train()
    assert all(map(torch.equal, whole.model.parameters(), resumed.model.parameters()))
    assert records(tmp_path / "whole") == records(tmp_path / "broken")


def test_a_skewed_router_is_evened_out_by_its_bias_alone():
    """All tokens prefer the same two of eight experts at first."""
    config = dataclasses.replace(MIXED, experts=8, router="sigmoid", balance_rate=0.002)
    router = BalancedRouter(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        router.weight.normal_(std=0.3, generator=generator)
    x_ND = torch.randn(512, 16, generator=generator) + 2 * router.weight[0] + 2 * router.weight[1]

    def loads() -> torch.Tensor:
        return router(x_ND).chosen_NC.flatten().bincount(minlength=8)

    assert int(loads().max()) > 400  # of 512 tokens, 128 would be even
    weight = router.weight.clone()
    for _ in range(1000):
        router.balance(loads())
    assert int(loads().min()) > 64 and int(loads().max()) < 192
    assert torch.equal(router.weight, weight)


def test_muon_moves_each_expert_as_a_matrix_and_adamw_the_router():
    model = tiny_model(MIXED)
    kinds = parameter_kinds(model)
    block = model.blocks[0].feedforward
    of = {id(parameter): kind for kind, found in kinds.items() for parameter in found}
    assert [of[id(stack.weight)] for stack in (block.gate, block.up, block.down)] == ["matrix"] * 3
    assert of[id(block.router.weight)] == "head" and id(block.router.bias) not in of
    muon = build_optimizers(model, OptimizerConfig())[0]
    before = block.up.weight.detach().clone()
    model(random_rows(16).tokens_NT).square().sum().backward()
    muon.step()
    for update in (block.up.weight - before).detach():
        values = torch.linalg.svdvals(update)
        assert values[-1] > 0.1 * values[0]  # of each expert by itself
