"""The loss of a student, against its formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.training.objective import NextToken, Tally
from seedbed.tuning.distilling import objective as room
from seedbed.tuning.distilling.config import DistillationConfig
from seedbed.tuning.distilling.objective import Distillation, divergence
from seedbed.tuning.distilling.projections import put_projections, without_projections
from tests.random_models import random_model


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(student: list[float], teacher: list[float], name: str, temperature: float, beta: float) -> float:
    def softmax(values: list[float]) -> list[float]:
        weights = [math.exp(value / temperature) for value in values]
        return [weight / sum(weights) for weight in weights]

    def kl(p: list[float], q: list[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    p, q = softmax(teacher), softmax(student)
    mixture = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    found = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "jensen_shannon": beta * kl(p, mixture) + (1 - beta) * kl(q, mixture),
    }
    return temperature**2 * found[name]


@pytest.mark.parametrize("name", ["forward", "reverse", "jensen_shannon"])
@pytest.mark.parametrize("temperature, beta", [(1.0, 0.5), (2.0, 0.1), (0.7, 0.9)])
def test_each_divergence_is_that_of_its_paper(name, temperature, beta):
    config = DistillationConfig(divergence=name, temperature=temperature, beta=beta)
    student, teacher = logits(0, 5, 7), logits(1, 5, 7)
    expected = [by_hand(*row, name, temperature, beta) for row in zip(student.tolist(), teacher.tolist(), strict=True)]
    torch.testing.assert_close(divergence(student, teacher, config), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", ["forward", "reverse", "jensen_shannon"])
def test_its_gradient_is_right_and_nought_where_both_say_the_same(name):
    config = DistillationConfig(divergence=name, beta=0.3)
    student, teacher = logits(0, 3, 6).requires_grad_(), logits(1, 3, 6)
    assert torch.autograd.gradcheck(lambda student: divergence(student, teacher, config), student)
    (gradient,) = torch.autograd.grad(divergence(student, student.detach(), config).sum(), student)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("beta, name", [(0.001, "forward"), (0.999, "reverse")])
def test_jensen_shannon_comes_near_either_kl_at_its_ends(beta, name):
    """GKD, §3.1: divided by β, or 1 − β, it becomes the one or the other."""
    student, teacher = logits(0, 4, 5), logits(1, 4, 5)
    between = divergence(student, teacher, DistillationConfig(divergence="jensen_shannon", beta=beta))
    one = divergence(student, teacher, DistillationConfig(divergence=name))
    torch.testing.assert_close(between / min(beta, 1 - beta), one, rtol=0.02, atol=0)


def batch(rows: int = 3, length: int = 9, hidden: int = 4) -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 50, (rows, length + 1), generator=generator)
    targets = tokens[:, 1:].clone()
    targets[:, :hidden] = IGNORE
    return TokenBatch(tokens[:, :-1], targets)


def gradients(model, loss: Tensor) -> list[Tensor]:
    return [gradient.clone() for gradient in torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_the_loss_in_chunks_is_the_loss_of_all_logits(chunk, monkeypatch):
    monkeypatch.setattr(room, "rows_at_once", lambda *_: chunk)
    student, teacher, rows = random_model(0), random_model(1, layers=3), batch()
    config = DistillationConfig(share=0.7, temperature=1.5)
    loss = Distillation(teacher, [], config).loss(student, rows)

    counted = rows.targets_BT != IGNORE
    ours, theirs = student(rows.tokens_BT)[counted], teacher(rows.tokens_BT)[counted].detach()
    text = torch.nn.functional.cross_entropy(ours, rows.targets_BT[counted], reduction="sum")
    whole = 0.7 * divergence(ours, theirs, config).sum() + 0.3 * text
    assert loss.units == int(counted.sum()) == 15
    torch.testing.assert_close(loss.sum, whole)
    for one, other in zip(gradients(student, loss.sum), gradients(student, whole), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_a_share_it_is_fine_tuning():
    student, rows = random_model(0), batch()
    loss = Distillation(random_model(1), [], DistillationConfig(share=0.0)).loss(student, rows)
    torch.testing.assert_close(loss.sum, NextToken().loss(student, rows).sum)


def test_hidden_states_are_those_of_the_blocks_named():
    student, teacher, rows = random_model(0), random_model(1, layers=3), batch()
    config = DistillationConfig(share=0.0, hidden=0.5)
    seen = {}
    for name, model, block in (("s0", student, 0), ("s1", student, 1), ("t1", teacher, 1), ("t2", teacher, 2)):
        model.blocks[block].register_forward_hook(lambda *found, name=name: seen.__setitem__(name, found[2].detach()))
    loss = Distillation(teacher, [(0, 1), (1, 2)], config).loss(student, rows)
    counted = rows.targets_BT != IGNORE
    apart = [(seen[a] - seen[b])[counted].square().mean(-1).sum() for a, b in (("s0", "t1"), ("s1", "t2"))]
    text = NextToken().loss(student, rows).sum
    torch.testing.assert_close(loss.sum, text + 0.5 * sum(apart) / 2)
    assert all(gradient is not None for gradient in gradients(student, loss.sum))


def test_hidden_states_of_another_width_are_compared_through_a_matrix_that_learns():
    """FitNets, eq. 3, with a linear regressor."""
    student, teacher, rows = random_model(0), random_model(1, layers=3, width=24), batch()
    put_projections(student, 2, 24, seed=0)
    seen = {}
    for name, model, block in (("s0", student, 0), ("s1", student, 1), ("t1", teacher, 1), ("t2", teacher, 2)):
        model.blocks[block].register_forward_hook(lambda *found, name=name: seen.__setitem__(name, found[2]))
    loss = Distillation(teacher, [(0, 1), (1, 2)], DistillationConfig(share=0.0, hidden=0.5)).loss(student, rows)
    found = gradients(student, loss.sum)

    text = NextToken().loss(student, rows).sum  # the student's states are now those of this pass
    counted = rows.targets_BT != IGNORE
    maps = [student.get_parameter(f"beside.{number}.weight") for number in (0, 1)]
    apart = [
        (seen[ours][counted] @ map_ED.T - seen[theirs][counted]).square().mean(-1).sum()
        for map_ED, ours, theirs in zip(maps, ("s0", "s1"), ("t1", "t2"), strict=True)
    ]
    whole = text + 0.5 * sum(apart) / 2
    torch.testing.assert_close(loss.sum, whole)
    for one, other in zip(found, gradients(student, whole), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert without_projections(student) is student and not hasattr(student, "beside")


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it():
    student, rows = random_model(0), batch()
    loss = Distillation(random_model(0), [(1, 1)], DistillationConfig(share=1.0, hidden=1.0)).loss(student, rows)
    assert abs(float(loss.sum.detach())) < 1e-4
    assert max(float(gradient.abs().max()) for gradient in gradients(student, loss.sum)) < 1e-3


def test_the_teacher_does_not_learn():
    teacher = random_model(1)
    loss = Distillation(teacher, [(1, 1)], DistillationConfig(hidden=1.0)).loss(random_model(0), batch())
    loss.sum.backward()
    assert all(weight.grad is None for weight in teacher.parameters()) and not teacher.training


def test_rows_without_a_target_count_for_nothing_and_are_no_nan():
    student, rows = random_model(0), batch(hidden=9)
    loss = Distillation(random_model(1), [(1, 1)], DistillationConfig(hidden=1.0)).loss(student, rows)
    assert loss.units == 0 and float(loss.sum.detach()) == 0
    assert all(gradient.isfinite().all() for gradient in gradients(student, loss.sum))


def test_metrics_are_means_over_the_targets():
    objective = Distillation(random_model(1), [], DistillationConfig(share=0.5))
    tally = Tally()
    for _ in range(2):
        tally += objective.loss(random_model(0), batch())
    told = objective.report(tally)
    assert told["loss"] == pytest.approx(0.5 * told["cross_entropy"] + 0.5 * told["divergence"], rel=1e-5)


# What the student said itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forward", "reverse", "jensen_shannon"])
def test_of_its_own_rows_a_student_learns_the_divergence_alone(name):
    student, teacher, rows = random_model(0), random_model(1, layers=3), batch()
    config = DistillationConfig(share=0.7, temperature=1.5, divergence=name, beta=0.3)
    loss = Distillation(teacher, [], config).loss(student, replace(rows, own_B=torch.tensor([False, True, True])))

    ours, theirs = student(rows.tokens_BT).double(), teacher(rows.tokens_BT).double().detach()
    whole = torch.zeros((), dtype=torch.float64)
    for b, row in enumerate(rows.targets_BT.tolist()):
        for t, target in enumerate(row):
            if target != IGNORE:
                apart = divergence(ours[b, t], theirs[b, t], config)
                whole = whole + (0.7 * apart - 0.3 * ours[b, t].log_softmax(-1)[target] if b == 0 else apart)
    assert loss.units == 15
    torch.testing.assert_close(loss.sum.double(), whole, rtol=1e-6, atol=0)
    for one, other in zip(gradients(student, loss.sum), gradients(student, whole), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_of_an_own_row_only_the_places_of_the_answer_count_and_not_which_token_was_drawn():
    student, config = random_model(0), DistillationConfig(share=0.5)
    rows = replace(batch(), own_B=torch.ones(3).bool())
    other = replace(rows, targets_BT=torch.where(rows.targets_BT == IGNORE, IGNORE, 3))
    one, same = (Distillation(random_model(1), [], config).loss(student, each) for each in (rows, other))
    assert torch.equal(one.sum, same.sum) and one.units == same.units == 15

    states: list[Tensor] = []
    hook = student.final_norm.register_forward_hook(lambda *found: states.append(found[2]))
    (gradient_BTD,) = torch.autograd.grad(Distillation(random_model(1), [], config).loss(student, rows).sum, states)
    hook.remove()
    assert torch.equal(gradient_BTD.any(-1), rows.targets_BT != IGNORE)


def test_rows_that_nobody_said_himself_are_learned_from_as_ever():
    student, rows, config = random_model(0), batch(), DistillationConfig(share=0.7)
    plain = Distillation(random_model(1), [], config).loss(student, rows)
    told = Distillation(random_model(1), [], config).loss(student, replace(rows, own_B=torch.zeros(3).bool()))
    assert torch.equal(plain.sum, told.sum) and plain.totals == told.totals


def test_what_is_told_of_text_and_of_own_rows_are_means_of_each():
    student, teacher, rows = random_model(0), random_model(1), batch()
    objective = Distillation(teacher, [], DistillationConfig(share=0.5))
    text, own = (TokenBatch(rows.tokens_BT[part], rows.targets_BT[part]) for part in (slice(0, 1), slice(1, 3)))
    told = objective.report(Tally() + objective.loss(student, text))
    said = objective.report(Tally() + objective.loss(student, replace(own, own_B=torch.ones(2).bool())))
    both = objective.report(Tally() + objective.loss(student, replace(rows, own_B=torch.tensor([False, True, True]))))
    assert "own_divergence" not in told and "cross_entropy" not in said and "divergence" not in said
    assert both["cross_entropy"] == pytest.approx(told["cross_entropy"], rel=1e-5)
    assert both["divergence"] == pytest.approx(told["divergence"], rel=1e-5)
    assert both["own_divergence"] == pytest.approx(said["own_divergence"], rel=1e-5) == said["loss"]
    assert both["own_share"] == pytest.approx(2 / 3) and said["own_share"] == 1
    assert both["loss"] == pytest.approx((told["loss"] + 2 * said["loss"]) / 3, rel=1e-5)
