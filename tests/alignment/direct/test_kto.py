"""KTO learns from single judgements, against an estimate of how far the model has gone that no cut changes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import seedbed.alignment.stage as room
from seedbed.alignment.completions import collate
from seedbed.alignment.direct.config import KtoConfig
from seedbed.alignment.direct.kto import KtoObjective, kto
from seedbed.alignment.log_probabilities import completion_log_probabilities
from seedbed.alignment.source import AnswerRow, AnswerSource
from seedbed.errors import ConfigError, DataError
from tests.alignment.judged import JUDGEMENTS, config, write_rows
from tests.alignment.test_log_probabilities import some_completions
from tests.random_models import random_model
from tests.tiny import records, save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "model", context=96, width=32, layers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "judgements.jsonl", JUDGEMENTS)


def settings(**others) -> KtoConfig:
    return config(KtoConfig, Path("m"), Path("d"), Path("o"), *(f"--{key}={value}" for key, value in others.items()))


def some_judgements(**source):
    encoded = some_completions(24)
    rows = [AnswerRow((encoded[i], encoded[i + 12]), (float(i % 3 > 0),)) for i in range(12)]
    judgements = AnswerSource(rows, seed=0, pad_id=0, length=48, **source)
    # Near enough to the model's that σ is not flat, on either side of nought.
    noise = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logs = [
            [completion_log_probabilities(random_model(), collate([one], 0))[0] for one in r.completions] for r in rows
        ]
    judgements.reference_NK = torch.tensor(logs) + 5 * noise
    return judgements


def test_wanted_answers_rise_and_others_fall_on_prompts_it_has_not_seen(base, data, tmp_path):
    result = kto(config(KtoConfig, base, data, tmp_path / "out", "--train.steps=25"))
    assert result["val_wanted_reward"] > 0 > result["val_unwanted_reward"]
    assert result["val_margin"] == pytest.approx(result["val_wanted_reward"] - result["val_unwanted_reward"])
    first = records(tmp_path / "out")[0]
    assert first["val_loss"] == pytest.approx(0.5, abs=1e-5) and first["val_divergence"] == pytest.approx(0, abs=1e-4)


def test_the_loss_is_the_papers_by_hand():
    model, source = random_model(), some_judgements(group=4)
    objective = KtoObjective(settings(beta=0.2, wanted_weight=1.3, unwanted_weight=0.6))
    numbers, total = [3, 0, 7, 11, 1, 2, 9, 4], 0.0
    with torch.no_grad():
        loss = objective.loss(model, source.chosen(numbers))
        for group in (numbers[:4], numbers[4:]):
            ratios = []
            for number in group:
                row, reference_K = source.rows[number], source.reference_NK[number]
                logs = [float(completion_log_probabilities(model, collate([one], 0))[0]) for one in row.completions]
                ratios.append([log - float(q) for log, q in zip(logs, reference_K, strict=True)])
            divergence = max(0.0, sum(other for _, other in ratios) / 4)
            for number, (ratio, _) in zip(group, ratios, strict=True):
                value = 0.2 * (ratio - divergence)
                if source.rows[number].told == (1.0,):
                    total += 1.3 * (1 - 1 / (1 + math.exp(-value)))
                else:
                    total += 0.6 * (1 - 1 / (1 + math.exp(value)))
    assert loss.units == 8 and float(loss.sum) == pytest.approx(total, rel=1e-5)


def test_the_loss_is_the_same_however_it_is_cut_and_packed():
    model, objective = random_model(), KtoObjective(settings())
    whole = objective.loss(model, some_judgements(group=4).batch(0, 3))
    whole.sum.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    for packing, pieces in ((False, (1, 2)), (True, (3,)), (True, (1, 1, 1))):
        model.zero_grad()
        at, total = 0, 0.0
        for count in pieces:
            part = objective.loss(model, some_judgements(group=4, packing=packing).batch(at, count))
            part.sum.backward()
            at, total = at + count, total + float(part.sum.detach())
        assert total == pytest.approx(float(whole.sum.detach()), rel=1e-5)
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-3, atol=1e-4)


def test_no_gradient_flows_through_the_estimate():
    """It is a baseline: an answer to another prompt is neither learned nor unlearned."""
    model, objective = random_model(), KtoObjective(settings(group=2))
    source = some_judgements(group=2)
    source.reference_NK[:, 1] -= 10  # the estimate is above nought
    loss = objective.loss(model, source.batch(0, 6))
    assert loss.totals["divergence"] > 0
    gradients = torch.autograd.grad(loss.sum, list(model.parameters()))
    alone = AnswerSource(
        [AnswerRow((r.completions[0], r.completions[0]), r.told) for r in source.rows], seed=0, pad_id=0, length=48
    )
    batch = alone.batch(0, 12)
    logs_S = completion_log_probabilities(model, batch.completions).unflatten(0, (2, -1))[0]
    order = alone._order(0, 12).tolist()
    reward_S = 0.1 * (logs_S - source.reference_NK[order, 0])
    with torch.no_grad():
        others = source.chosen(order)
        kl_S = 0.1 * (
            completion_log_probabilities(model, others.completions).unflatten(0, (2, -1))[1] - others.reference_SK[:, 1]
        )
        z_S = kl_S.unflatten(0, (-1, 2)).mean(1).clamp(min=0).repeat_interleave(2)
    sign_S = torch.where(batch.told_L > 0, 1.0, -1.0)
    by_hand = torch.autograd.grad((1 - torch.sigmoid(sign_S * (reward_S - z_S))).sum(), list(model.parameters()))
    for one, other in zip(gradients, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_each_prompt_also_stands_before_the_answer_of_another_row(base, data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: seen.append(stage) or {})
    kto(config(KtoConfig, base, data, tmp_path / "out"))
    rows = seen[0].source.rows
    for row, following in zip(rows, [*rows[1:], rows[0]], strict=True):
        (ids, mask), (other, other_mask) = row.completions
        start = int(mask.argmax())
        assert other[:start].tolist() == ids[:start].tolist() and not other_mask[:start].any()
        answer, answered = following.completions[0]
        assert other[start:].tolist() == answer[int(answered.argmax()) :].tolist()


def test_an_epoch_takes_every_judgement_in_groups():
    source = some_judgements(group=5)
    assert source.samples == 3
    found = source._order(0, 12).tolist()
    assert sorted(found) == list(range(12))
    batch = source.batch(0, 2)
    assert batch.told_L.tolist() == [source.rows[number].told[0] for number in found[:10]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "completion": "b"}, "label must be true or false, got 'nothing'"),
        ({"prompt": "a", "completion": "", "label": True}, "completion is empty"),
        ({"completion": "b", "label": True}, "it has no prompt"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_named(row, said, base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", [*JUDGEMENTS[:4], row])
    with pytest.raises(DataError, match=rf"d\.jsonl, row 5: .*{said}"):
        kto(config(KtoConfig, base, data, tmp_path / "out", "--train.steps=1"))


def test_a_group_may_be_larger_than_the_validation_data(base, data, tmp_path):
    result = kto(config(KtoConfig, base, data, tmp_path / "out", "--train.steps=1", "--group=20"))
    assert result["rows"]["validation"] < 20 and result["val_loss"] > 0


def test_nothing_left_to_learn_from_is_told_with_its_reasons(base, tmp_path):
    rows = [{"prompt": letter, "completion": "x" * 200, "label": True} for letter in "ab"]
    with pytest.raises(DataError, match=r"no row is left to learn from \(overlong answer 2\)"):
        kto(config(KtoConfig, base, write_rows(tmp_path / "d.jsonl", rows), tmp_path / "out", "--overlong=drop"))


@pytest.mark.parametrize("asked", ["--train.patience=1", "--train.select=best"])
def test_a_margin_is_not_judged_by_where_validation_data_have_one_label(asked, base, tmp_path):
    alike = write_rows(tmp_path / "d.jsonl", [row for row in JUDGEMENTS if row["label"]])
    arguments = KtoConfig, base, alike, tmp_path / "out", "--train.steps=2", asked
    with pytest.raises(ConfigError, match="4 judgements to validate on have one label"):
        kto(config(*arguments))
    assert kto(config(*arguments, "--judge=loss"))["selected_step"] > 0


def test_a_group_of_one_estimates_nothing():
    with pytest.raises(ConfigError, match="group must be between 2"):
        settings(group=1)
