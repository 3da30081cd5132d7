"""DPO raises the better answer over the worse; its loss depends on answers alone, and not on how they are cut."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import seedbed.alignment.reference as reference_room
import seedbed.alignment.stage as room
from seedbed.alignment.completions import collate
from seedbed.alignment.direct.config import DirectConfig
from seedbed.alignment.direct.dpo import DirectObjective, dpo
from seedbed.alignment.log_probabilities import completion_log_probabilities
from seedbed.alignment.source import AnswerBatch, AnswerRow, AnswerSource
from seedbed.cli import summary
from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.model.folder import load_model, save_model
from seedbed.training.stage import Stage
from tests.alignment.judged import PREFERENCES, config, write_rows
from tests.alignment.test_log_probabilities import some_completions
from tests.random_models import random_model
from tests.tiny import records, same_bits, save_tiny_model

LOSSES = ("sigmoid", "ipo", "hinge", "robust", "conservative", "simpo", "orpo")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "model", context=96, width=32, layers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "preferences.jsonl", PREFERENCES)


@pytest.fixture
def stages(monkeypatch) -> list[Stage]:
    """What the command hands to the loop, which is left out."""
    seen: list[Stage] = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: seen.append(stage) or {})
    return seen


def settings(loss="sigmoid", **others) -> DirectConfig:
    arguments = [f"--{key}={value}" for key, value in others.items()]
    return config(DirectConfig, Path("m"), Path("d"), Path("o"), f"--loss={loss}", *arguments).resolve()


def random_pairs(count=6, **source):
    """A source of pairs with random references, and the completions it holds."""
    encoded = some_completions(2 * count)
    rows = [AnswerRow((encoded[2 * i], encoded[2 * i + 1]), (0.0,)) for i in range(count)]
    pairs = AnswerSource(rows, seed=0, pad_id=0, length=48, **source)
    pairs.reference_NK = -20 * torch.rand(count, 2, generator=torch.Generator().manual_seed(1))
    return pairs


# What is learned -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_to_prefer_on_prompts_it_has_not_seen(loss, base, data, tmp_path):
    result = dpo(config(DirectConfig, base, data, tmp_path / "out", f"--loss={loss}", "--train.steps=25"))
    first = records(tmp_path / "out")[0]
    assert result["finished"] and result["val_accuracy"] == 1 and result["val_margin"] > first["val_margin"]
    assert result["val_chosen_reward"] - result["val_rejected_reward"] == pytest.approx(result["val_margin"], rel=1e-4)
    assert load_model(tmp_path / "out")[0].config.head == "tokens"


def test_at_the_beginning_nothing_is_preferred_and_the_loss_is_that_of_a_coin(base, data, tmp_path):
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=1"))
    first = records(tmp_path / "out")[0]
    assert first["val_loss"] == pytest.approx(0.693147, abs=1e-5) and abs(first["val_margin"]) < 1e-5


def test_only_answers_carry_loss_and_their_end_is_among_them(base, data, tmp_path, stages):
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--packing=false"))
    (stage,) = stages
    batch = stage.source.chosen([0]).completions
    found = [
        stage.tokenizer.decode(batch.rows.targets_BT[batch.completion_BT == number].tolist(), skip_special=False)
        for number in range(2)
    ]
    row = next(row for row in PREFERENCES if row["chosen"] in found[0])
    assert found == [f"{row['chosen']}<|im_end|>", f"{row['rejected']}<|im_end|>"]


def test_no_prompt_is_on_both_sides(base, tmp_path, stages):
    rows = [row | {"rejected": f"no{n}"} for row in PREFERENCES for n in range(3)]
    dpo(config(DirectConfig, base, write_rows(tmp_path / "d.jsonl", rows), tmp_path / "out", "--packing=false"))
    sides = []
    for source in (stages[0].source, stages[0].validation):
        ids = [row.completions[0][0][: int(row.completions[0][1].argmax())].tobytes() for row in source.rows]
        sides.append(set(ids))
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert len(stages[0].source.rows) + len(stages[0].validation.rows) == len(rows)


# The loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_same_however_it_is_cut_and_packed(loss):
    objective, model = DirectObjective(settings(loss)), random_model()
    whole = objective.loss(model, random_pairs().batch(0, 6))
    whole.sum.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    for packing, pieces in ((False, (2, 1, 3)), (True, (6,)), (True, (4, 2))):
        model.zero_grad()
        source, at, total = random_pairs(packing=packing), 0, 0.0
        for count in pieces:
            part = objective.loss(model, source.batch(at, count))
            part.sum.backward()
            at, total = at + count, total + float(part.sum.detach())
        assert total == pytest.approx(float(whole.sum.detach()), rel=1e-5)
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-3, atol=2e-4)


def test_padding_and_prompts_are_no_labels_so_changing_them_leaves_the_loss_bitwise_equal():
    objective, model = DirectObjective(settings()), random_model()
    batch = random_pairs().batch(0, 6)
    rows = batch.completions.rows
    read = torch.zeros_like(rows.tokens_BT, dtype=torch.bool)
    for b, size in enumerate(len(ids) for k in range(2) for ids in _ids(random_pairs(), k)):
        read[b, :size] = True
    padded = replace(rows, tokens_BT=torch.where(read, rows.tokens_BT, torch.full_like(rows.tokens_BT, 9)))
    assert not torch.equal(padded.tokens_BT, rows.tokens_BT)
    other = replace(batch, completions=replace(batch.completions, rows=padded))
    with torch.no_grad():
        assert torch.equal(objective.loss(model, other).sum, objective.loss(model, batch).sum)


def _ids(source, answer):
    order = source._order(0, 6).tolist()
    return [source.rows[number].completions[answer][0] for number in order]


def test_the_loss_is_that_of_whole_answers_by_hand():
    model, source = random_model(), random_pairs()
    with torch.no_grad():
        loss = DirectObjective(settings(beta=0.3)).loss(model, source.chosen(range(6)))
        total = 0.0
        for row, reference_K in zip(source.rows, source.reference_NK, strict=True):
            logs_K = [completion_log_probabilities(model, collate([answer], 0))[0] for answer in row.completions]
            margin = 0.3 * ((logs_K[0] - reference_K[0]) - (logs_K[1] - reference_K[1]))
            total -= float(torch.nn.functional.logsigmoid(margin))
    assert float(loss.sum) == pytest.approx(total, rel=1e-5) and loss.units == 6


def chance(x):
    """σ."""
    return 1 / (1 + math.exp(-x))


def orpo(p_w, p_l):
    odds_w, odds_l = (math.exp(p) / (1 - math.exp(p)) for p in (p_w, p_l))
    return -p_w - 0.3 * math.log(odds_w / (odds_w + odds_l))


BY_HAND = {
    "sigmoid": lambda margin, p_w, p_l: -math.log(chance(0.3 * margin)),
    "ipo": lambda margin, p_w, p_l: (margin - 1 / 0.6) ** 2,
    "hinge": lambda margin, p_w, p_l: max(0.0, 1 - 0.3 * margin),
    "conservative": lambda margin, p_w, p_l: (
        -0.8 * math.log(chance(0.3 * margin)) - 0.2 * math.log(chance(-0.3 * margin))
    ),
    "robust": lambda margin, p_w, p_l: (
        (-0.8 * math.log(chance(0.3 * margin)) + 0.2 * math.log(chance(-0.3 * margin))) / 0.6
    ),
    "simpo": lambda margin, p_w, p_l: -math.log(chance(0.3 * (p_w - p_l) - 0.7)),
    "orpo": lambda margin, p_w, p_l: orpo(p_w, p_l),
}
"""Of the margin between log-ratios, and of both log-probabilities divided by the tokens of their answers."""


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_each_name_is_its_own_with_the_numbers_of_the_config(loss):
    model, source = random_model(), random_pairs()
    numbers = {"robust": {"flipped": 0.2}, "conservative": {"flipped": 0.2}, "simpo": {"target_margin": 0.7}}
    wanted = 0.0
    with torch.no_grad():
        found = DirectObjective(settings(loss, beta=0.3, **numbers.get(loss, {}))).loss(model, source.chosen(range(6)))
        for row, (q_w, q_l) in zip(source.rows, source.reference_NK.tolist(), strict=True):
            p_w, p_l = (float(completion_log_probabilities(model, collate([one], 0))[0]) for one in row.completions)
            n_w, n_l = (int(mask.sum()) for _, mask in row.completions)
            wanted += BY_HAND[loss](p_w - q_w - p_l + q_l, p_w / n_w, p_l / n_l)
    assert float(found.sum) == pytest.approx(wanted, rel=1e-4)


def test_a_margin_of_nought_prefers_nothing():
    model, batch = random_model(), random_pairs().batch(0, 6)
    with torch.no_grad():
        logs_KS = completion_log_probabilities(model, batch.completions).unflatten(0, (2, -1))
        loss = DirectObjective(settings()).loss(model, replace(batch, reference_SK=logs_KS.T))
    assert loss.totals["accuracy"] == 0


def test_the_likelihood_of_the_better_answer_may_be_learned_too():
    model, batch = random_model(), random_pairs().batch(0, 6)
    with torch.no_grad():
        plain, both = (DirectObjective(settings(likelihood=a)).loss(model, batch).sum for a in (0.0, 0.7))
        logs_KS = completion_log_probabilities(model, batch.completions).unflatten(0, (2, -1))
        sizes_S = batch.completions.lengths_C[:6]
    assert float(both - plain) == pytest.approx(float(-0.7 * (logs_KS[0] / sizes_S).sum()), rel=1e-5)


def test_dropout_is_off(base, data, tmp_path, stages):
    model, tokenizer = load_model(base)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    wet = type(model).of_weights(replace(model.config, dropout=0.5), weights)
    save_model(tmp_path / "wet", wet, tokenizer, inputs={}, card={})
    dpo(config(DirectConfig, tmp_path / "wet", data, tmp_path / "out"))
    model = stages[0].model().train()
    batch = stages[0].source.batch(0, 2)
    with torch.no_grad():
        assert float(DirectObjective(settings()).loss(model, batch).sum) == pytest.approx(2 * 0.693147, abs=1e-4)


# The reference -------------------------------------------------------------------------------------------------------


def test_the_reference_is_computed_once_and_read_by_a_run_that_goes_on(base, data, tmp_path, monkeypatch):
    asked = []
    compute = reference_room.reference_log_probabilities
    monkeypatch.setattr(
        reference_room,
        "reference_log_probabilities",
        lambda *given: (asked.append(1), compute(*given))[1],
    )
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=2"))
    assert len(asked) == 2  # training and validation data
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=4"))
    assert len(asked) == 2
    longer = write_rows(tmp_path / "more.jsonl", [*PREFERENCES, {"prompt": "z", "chosen": "y", "rejected": "n"}])
    dpo(config(DirectConfig, base, longer, tmp_path / "other", "--train.steps=1"))
    assert len(asked) == 4


def test_a_run_that_died_with_nothing_but_its_reference_begins(base, data, tmp_path):
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=2"))
    (tmp_path / "died").mkdir()
    (tmp_path / "out" / "reference").rename(tmp_path / "died" / "reference")
    dpo(config(DirectConfig, base, data, tmp_path / "died", "--train.steps=2"))
    assert same_bits(tmp_path / "out", tmp_path / "died")


def test_a_reference_of_another_base_is_not_taken(base, data, tmp_path):
    """A run that died before its first checkpoint may be begun again over the base in few bits."""
    dpo(config(DirectConfig, base, data, tmp_path / "run", "--train.steps=1"))
    for path in (tmp_path / "run").iterdir():
        if path.name != "reference":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    dpo(config(DirectConfig, base, data, tmp_path / "run", "--train.steps=1", "--method=qlora"))
    assert records(tmp_path / "run")[1]["margin"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("other", ["model", "data", "precision"])
def test_a_reference_that_was_made_of_something_else_is_made_again(other, base, data, tmp_path):
    settings = ["--train.steps=2"]
    dpo(config(DirectConfig, base, data, tmp_path / "out", *settings))
    if other == "model":
        model, tokenizer = load_model(base)
        with torch.no_grad():
            model.head_weight.mul_(1.5)
        save_model(tmp_path / "louder", model, tokenizer, inputs={}, card={})
    if other == "data":  # as many rows, in the same places
        swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in PREFERENCES]
        data = write_rows(tmp_path / "swapped.jsonl", swapped)
    if other == "precision":
        settings.append("--train.precision=bf16")
    (tmp_path / "died").mkdir()
    (tmp_path / "out" / "reference").rename(tmp_path / "died" / "reference")
    for run in ("died", "fresh"):
        dpo(config(DirectConfig, tmp_path / "louder" if other == "model" else base, data, tmp_path / run, *settings))
    assert same_bits(tmp_path / "died", tmp_path / "fresh")


def test_a_changed_byte_of_it_is_told(base, data, tmp_path):
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=2"))
    file = tmp_path / "out" / "reference" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CorruptionError, match="was changed"):
        dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=3"))


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_losses_without_a_reference_compute_none(loss, base, data, tmp_path):
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=1", f"--loss={loss}"))
    assert not (tmp_path / "out" / "reference").exists()


def test_a_run_that_was_killed_ends_in_the_same_bits(base, data, tmp_path, monkeypatch):
    arguments = ("--train.steps=6", "--train.checkpoint.steps=2")
    dpo(config(DirectConfig, base, data, tmp_path / "whole", *arguments))
    from seedbed.training.trainer import Trainer

    step = Trainer.step

    def dying(self):
        if self.progress.step == 5:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        dpo(config(DirectConfig, base, data, tmp_path / "broken", *arguments))
    monkeypatch.undo()
    result = dpo(config(DirectConfig, base, data, tmp_path / "broken", *arguments))
    assert 0 < result["resumed_at"] < 6 and same_bits(tmp_path / "whole", tmp_path / "broken")


# What is refused and counted -----------------------------------------------------------------------------------------

GOOD = PREFERENCES[:6]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "chosen": "b"}, "it has no rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": "c" * 200}, "its longest answer 201, but a row holds 96"),
        ({"prompt": "a" * 200, "chosen": "b", "rejected": "c"}, "but a row holds 96"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "much"}, "margin must be a number"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_named(row, said, base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", [*GOOD, row])
    with pytest.raises(DataError, match=rf"d\.jsonl, row 7: .*{said}"):
        dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=1"))
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_counted_by_reason(base, tmp_path, stages):
    rows = [
        *GOOD,
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"prompt": "b", "chosen": "b", "rejected": ""},
        {"prompt": "c", "chosen": "b", "rejected": "c" * 200},
        {"prompt": "d" * 200, "chosen": "b", "rejected": "c"},
    ]
    data = write_rows(tmp_path / "d.jsonl", rows)
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--useless=drop", "--overlong=drop"))
    assert stages[0].notes["left_out"] == {
        **{"equal answers": 1, "empty answer": 1, "overlong answer": 1, "overlong prompt": 1}
    }
    assert sum(stages[0].notes["rows"].values()) == 6


def test_an_answer_that_is_too_long_may_lose_its_end_but_a_prompt_nothing(base, tmp_path, stages):
    rows = [
        *GOOD,
        {"prompt": "c", "chosen": "b", "rejected": "c" * 200},
        {"prompt": "e", "chosen": "x" * 200, "rejected": "x" * 201},
        {"prompt": "d" * 200, "chosen": "b", "rejected": "c"},
    ]
    data = write_rows(tmp_path / "d.jsonl", rows)
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--overlong=truncate"))
    notes = stages[0].notes["left_out"]
    assert notes == {"truncated": 1, "nothing left once truncated": 1, "overlong prompt": 1}
    longest = max(
        len(ids) for source in (stages[0].source, stages[0].validation) for r in source.rows for ids, _ in r.completions
    )
    assert longest == 96


def test_a_reward_model_does_not_learn_to_speak(data, tmp_path):
    scored = save_tiny_model(tmp_path / "scored", head="score", context=96)
    with pytest.raises(ConfigError, match="gives scores, no tokens"):
        dpo(config(DirectConfig, scored, data, tmp_path / "out", "--train.steps=1"))


def test_one_prompt_leaves_none_to_validate_on(base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "a", "chosen": c, "rejected": "n"} for c in "xyz"])
    with pytest.raises(DataError, match="holds one prompt"):
        dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=1"))


# Stopping ------------------------------------------------------------------------------------------------------------


def test_a_run_stops_when_the_margin_no_longer_grows(base, data, tmp_path):
    """A rate that destroys the model: the loss and the margin get worse, and the best step is the one of the margin."""
    arguments = ("--train.steps=60", "--train.validate_every=2", "--train.patience=2", "--train.select=best")
    result = dpo(config(DirectConfig, base, data, tmp_path / "out", *arguments))
    margins = {line["step"]: line["val_margin"] for line in records(tmp_path / "out") if "val_margin" in line}
    assert result["selected_step"] == max(margins, key=lambda step: margins[step])
    if result["steps"] < 60:
        assert max(margins.values()) not in list(margins.values())[-2:]


@pytest.mark.parametrize(("judge", "wanted"), [("margin", -2.0), ("accuracy", -0.5), ("loss", 0.3)])
def test_what_is_best_is_as_the_config_says(judge, wanted):
    objective = DirectObjective(settings(judge=judge))
    assert objective.judge({"loss": 0.3, "margin": 2.0, "accuracy": 0.5}) == wanted


def test_dropout_of_an_adapter_is_refused():
    with pytest.raises(ConfigError, match=r"lora\.dropout is 0\.1: answers are learned from without dropout"):
        settings(**{"method": "lora", "lora.dropout": 0.1})


def test_beta_is_a_tenth_but_for_simpo():
    assert settings().beta == settings("orpo").beta == 0.1 and settings("simpo").beta == 2
    plain = DirectConfig(model=Path("m"), data=Path("d"), out=Path("o")).resolve()
    assert plain.optimizer.name == "adamw" and plain.optimizer.rate == pytest.approx(5e-7)


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({}, 5e-6),
        ({"optimizer.name": "lion"}, 5e-7),
        ({"optimizer.rate": 3e-5}, 3e-5),
        ({"optimizer.name": "muon"}, None),
        ({"method": "full"}, 5e-7),
    ],
)
def test_an_adapter_has_ten_times_the_rate_where_none_is_given(given, rate):
    arguments = {"model": "m", "data": "d", "out": "o", "method": "lora", **given}
    config = from_arguments(DirectConfig, [f"--{key}={value}" for key, value in arguments.items()])
    for told in (config.resolve(), config.resolve().resolve()):
        assert told.optimizer.rate == rate


def test_the_command_line_shows_it(base, data, tmp_path, seedbed):
    done = seedbed(
        *("dpo", "--model", base, "--data", data, "--out", "out", "--train.steps=1", "--train.device=cpu", "--json")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["stage"] == "dpo"
    assert "val_accuracy" in json.loads((tmp_path / "out" / "result.json").read_text())


def test_what_is_shown_while_it_learns_is_of_answers_not_of_tokens(base, data, tmp_path, capfd):
    dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=1"))
    assert "% right" in capfd.readouterr().err
    assert ">loss<" in (tmp_path / "out" / "loss.svg").read_text()


def test_batches_are_on_the_device_they_are_asked_for():
    batch = random_pairs().batch(0, 2).to("meta")
    assert isinstance(batch, AnswerBatch) and batch.completions.rows.tokens_BT.device.type == "meta"
    assert batch.reference_SK.device.type == batch.told_L.device.type == "meta"


# Adapters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "dora", "qlora"])
def test_an_adapter_learns_over_a_base_that_rests_and_is_compared_with_it(method, base, data, tmp_path):
    result = dpo(config(DirectConfig, base, data, tmp_path / "out", f"--method={method}", "--train.steps=25"))
    first = records(tmp_path / "out")[0]
    assert first["val_loss"] == pytest.approx(0.693147, abs=1e-5) and result["val_accuracy"] == 1
    assert (tmp_path / "out" / "adapter").is_dir() and not (tmp_path / "out" / "model").exists()
    merged, plain = load_model(tmp_path / "out")[0], load_model(base)[0]
    assert torch.equal(merged.final_norm.weight, plain.final_norm.weight)
    assert not torch.equal(merged.blocks[0].attention.query.weight, plain.blocks[0].attention.query.weight)


def test_a_run_of_preferences_does_not_speak_of_tokens(base, data, tmp_path):
    result = dpo(config(DirectConfig, base, data, tmp_path / "out", "--train.steps=2"))
    shown = summary("dpo", result) + (tmp_path / "out" / "README.md").read_text()
    assert "nats a token" not in shown and "target tokens" not in shown
    assert "- counted in the loss: 8" in shown and "- val accuracy: " in shown
