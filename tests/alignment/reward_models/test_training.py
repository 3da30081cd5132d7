"""A reward model learns to score the better answer higher, and tells by which token, length and step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import seedbed.alignment.stage as room
from seedbed.alignment.answers import encode_steps
from seedbed.alignment.completions import collate
from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.alignment.reward_models.ensemble import Ensemble, RewardModel
from seedbed.alignment.reward_models.losses import bradley_terry_loss, centring_term, ranking_loss, step_loss
from seedbed.alignment.reward_models.scores import completion_scores, target_scores
from seedbed.alignment.reward_models.training import ProcessObjective, RewardObjective, reward
from seedbed.alignment.source import AnswerRow, AnswerSource
from seedbed.errors import ConfigError, DataError
from seedbed.inference.engine import Engine
from seedbed.model.folder import find_config, load_model
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.training.objective import Tally
from tests.alignment.judged import PREFERENCES, config, write_rows
from tests.alignment.test_log_probabilities import some_completions
from tests.random_models import random_model
from tests.tiny import records, same_bits, save_tiny_model

TOKENIZER = byte_tokenizer.build()
SOLUTIONS = [
    {"prompt": f"{a}+{b}?", "steps": ["sum", str(a + b) if right else "no"], "labels": [True, right]}
    for a in range(5)
    for b in range(4)
    for right in ((a + b) % 2 == 0,)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "model", context=96, width=32, layers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "preferences.jsonl", PREFERENCES)


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    reward(config(RewardConfig, base, data, out, "--train.steps=25"))
    return out


def settings(**others) -> RewardConfig:
    given = (f"--{key}={value}" for key, value in others.items())
    return config(RewardConfig, Path("m"), Path("d"), Path("o"), *given).resolve()


def some_pairs(margins=(math.nan,) * 6, **source):
    encoded = some_completions(12)
    rows = [AnswerRow((encoded[2 * i], encoded[2 * i + 1]), (margin,)) for i, margin in enumerate(margins)]
    return AnswerSource(rows, seed=0, pad_id=0, length=48, **source)


def conversation(prompt, answer):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


# Losses --------------------------------------------------------------------------------------------------------------


def test_losses_are_their_papers_formulas():
    chosen, rejected = torch.randn(2, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    margin = torch.rand(300, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for found, formula in (
        (bradley_terry_loss(chosen, rejected), lambda w, r, m: -math.log(math.exp(w) / (math.exp(w) + math.exp(r)))),
        (
            bradley_terry_loss(chosen, rejected, margin),
            lambda w, r, m: -math.log(math.exp(w - m) / (math.exp(w - m) + math.exp(r))),
        ),
        (ranking_loss(chosen, rejected, margin), lambda w, r, m: max(0.0, m - w + r)),
        (centring_term(chosen, rejected), lambda w, r, m: (w + r) ** 2),
    ):
        rows = zip(chosen.tolist(), rejected.tolist(), margin.tolist(), strict=True)
        wanted = torch.tensor([formula(*row) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    right = (margin > 0.5).double()
    chance = 1 / (1 + torch.exp(-chosen))
    wanted = -(right * chance.log() + (1 - right) * (1 - chance).log())
    torch.testing.assert_close(step_loss(chosen, right), wanted, rtol=0, atol=1e-6)


# Scores --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [None, 48], ids=["a row each", "packed"])
def test_the_score_is_that_of_the_last_token(length):
    model, encoded = random_model(head="score"), some_completions(7)
    with torch.no_grad():
        found_C = completion_scores(model, collate(encoded, 0, length))
        for (ids, _), score in zip(encoded, found_C, strict=True):
            alone_T = model.value(model.hidden(torch.from_numpy(ids.astype(np.int64))[None]))[0]
            torch.testing.assert_close(score, alone_T[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [None, 64], ids=["a row each", "packed"])
def test_scores_of_steps_come_in_the_order_of_answers(length):
    model, encoded = random_model(head="score"), some_completions(7)
    with torch.no_grad():
        found_N = target_scores(model, collate(encoded, 0, length))
        wanted = []
        for ids, mask in encoded:
            alone_T = model.value(model.hidden(torch.from_numpy(ids.astype(np.int64))[None]))[0]
            wanted.append(alone_T[torch.from_numpy(mask)])
        torch.testing.assert_close(found_N, torch.cat(wanted), rtol=0, atol=1e-5)


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bradley_terry", "ranking"])
def test_the_better_answer_scores_higher_for_prompts_it_has_not_seen(loss, base, data, tmp_path):
    result = reward(config(RewardConfig, base, data, tmp_path / "out", f"--loss={loss}", "--train.steps=25"))
    assert result["val_accuracy"] == 1 and result["val_margin"] > 0.3
    assert load_model(tmp_path / "out", scores=True)[0].config.head == "score"
    assert "reward model" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("method", ["lora", "ia3", "adapter", "qlora"])
def test_a_reward_model_can_be_an_adapter_with_a_head(method, base, data, tmp_path):
    """The base rests; the folder opens as any reward model, and no one takes it for a model that speaks."""
    out = tmp_path / "out"
    settings = (f"--method={method}", "--train.steps=40", "--optimizer.name=adamw", "--optimizer.rate=0.02")
    result = reward(config(RewardConfig, base, data, out, *settings))
    assert result["val_accuracy"] >= 0.9 and Path(result["adapter"]).is_dir()
    model = RewardModel.load(out)
    scores = model.score([conversation("q?", "yesq"), conversation("q?", "no")])
    assert scores[0] > scores[1] and find_config(out).head == "score"
    with pytest.raises(ConfigError, match="is a reward model or a critic: it gives scores, no tokens"):
        load_model(out)
    if method == "lora":
        with pytest.raises(DataError, match="is the adapter of a reward model: it gives scores"):
            Engine.load(base, adapters={"judge": out})


def test_right_and_wrong_steps_are_told_apart(base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", SOLUTIONS)
    settings = ("--loss=process", "--train.steps=60", "--train.batch=8")
    result = reward(config(RewardConfig, base, data, tmp_path / "out", *settings))
    assert result["val_accuracy"] > 0.9 and result["val_accuracy_wrong"] > 0.9
    model = RewardModel.load(tmp_path / "out")
    prompt = [{"role": "user", "content": "1+3?"}]
    right, wrong = model.score_steps(prompt, ["sum", "4"]), model.score_steps(prompt, ["sum", "no"])
    assert right[1] > 0.5 > wrong[1] and right[0] > 0.5
    assert right[0] == pytest.approx(wrong[0], abs=1e-5)  # what comes later says nothing of a step


def test_the_accuracy_of_wrong_steps_counts_those_alone():
    """A model that calls every step right is right about none of them."""
    encoded = some_completions(4)
    right = [float(number % 3 > 0) for number in range(sum(int(mask.sum()) for _, mask in encoded))]
    rows, at = [], 0
    for ids, mask in encoded:
        rows.append(AnswerRow(((ids, mask),), tuple(right[at : (at := at + int(mask.sum()))])))
    model, objective = random_model(head="score"), ProcessObjective()
    batch = AnswerSource(rows, seed=0, pad_id=0, length=48).chosen(range(4))
    with torch.no_grad():
        score_N = target_scores(model, batch.completions)
        found = objective.report(Tally() + objective.loss(model, batch))
    wrong_N = batch.told_L == 0
    assert found["right"] == pytest.approx(sum(right) / len(right))
    assert found["accuracy"] == pytest.approx(float(((score_N > 0) != wrong_N).float().mean()))
    assert found["accuracy_wrong"] == pytest.approx(float((score_N[wrong_N] <= 0).float().mean()))
    assert found["accuracy_wrong"] != found["accuracy"]


def test_at_the_beginning_every_score_is_nought(base, data, tmp_path):
    reward(config(RewardConfig, base, data, tmp_path / "out", "--train.steps=1"))
    first = records(tmp_path / "out")[0]
    assert first["val_loss"] == pytest.approx(0.693147, abs=1e-5) and first["val_score"] == 0


def test_centring_keeps_scores_around_nought(base, data, tmp_path):
    """Preferences alone leave the sum of both scores where it drifts."""
    means = {}
    for centring in (0.0, 1.0):
        out = tmp_path / f"{centring}"
        result = reward(config(RewardConfig, base, data, out, f"--centring={centring}", "--train.steps=25"))
        means[centring] = abs(result["val_score"])
    assert means[1.0] < 0.2 and means[1.0] < means[0.0]


def test_a_reward_model_can_go_on_learning(trained, data, tmp_path):
    result = reward(config(RewardConfig, trained, data, tmp_path / "more", "--train.steps=1"))
    assert result["val_accuracy"] == 1


def test_the_same_run_ends_in_the_same_bits(base, data, tmp_path, trained):
    reward(config(RewardConfig, base, data, tmp_path / "again", "--train.steps=25"))
    assert same_bits(trained, tmp_path / "again")


# The objective -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bradley_terry", "ranking"])
def test_the_loss_is_the_same_however_it_is_cut_and_packed(loss):
    objective, model = RewardObjective(settings(loss=loss)), random_model(head="score")
    margins = (0.5, math.nan, 2.0, math.nan, 0.1, 1.0)
    whole = objective.loss(model, some_pairs(margins).batch(0, 6))
    for packing, pieces in ((False, (2, 1, 3)), (True, (6,)), (True, (4, 2))):
        at, tally = 0, Tally()
        for count in pieces:
            tally += objective.loss(model, some_pairs(margins, packing=packing).batch(at, count))
            at += count
        assert objective.report(tally) == pytest.approx(objective.report(Tally() + whole), rel=1e-4, abs=1e-5)


def test_margins_that_rows_tell_are_asked_for():
    model = random_model(head="score")
    margins = (0.5, math.nan, 2.0, math.nan, 0.1, 1.0)
    source = some_pairs(margins)
    with torch.no_grad():
        scores_KS = completion_scores(model, source.chosen(range(6)).completions).unflatten(0, (2, -1))
        for given, wanted_S in (
            ({}, bradley_terry_loss(*scores_KS, torch.tensor([0.5, 0, 2, 0, 0.1, 1]))),
            (
                {"loss": "ranking", "margin": 0.7},
                ranking_loss(*scores_KS, torch.tensor([0.5, 0.7, 2, 0.7, 0.1, 1])),
            ),
        ):
            objective = RewardObjective(settings(centring=0, **given))
            found = float(objective.loss(model, source.chosen(range(6))).sum)
            assert found == pytest.approx(float(wanted_S.sum()), rel=1e-5)
        ignoring = RewardObjective(settings(centring=0, use_margins="false"))
        wanted = float(bradley_terry_loss(*scores_KS).sum())
        assert float(ignoring.loss(model, source.chosen(range(6))).sum) == pytest.approx(wanted, rel=1e-5)


def test_the_report_tells_whether_length_is_rewarded():
    model, source = random_model(head="score"), some_pairs()
    batch = source.chosen(range(6))
    objective = RewardObjective(settings())
    with torch.no_grad():
        report = objective.report(Tally() + objective.loss(model, batch))
        scores_KS = completion_scores(model, batch.completions).unflatten(0, (2, -1)).double().numpy()
    lengths_KS = np.array([[r.completions[k][1].sum() for r in source.rows] for k in range(2)])
    assert report["length_correlation"] == pytest.approx(np.corrcoef(scores_KS.ravel(), lengths_KS.ravel())[0, 1])
    right, longer = scores_KS[0] > scores_KS[1], lengths_KS[0] > lengths_KS[1]
    assert report["accuracy"] == pytest.approx(right.mean())
    assert report["accuracy_longer"] == pytest.approx(right[longer].mean())
    assert report["accuracy_shorter"] == pytest.approx(right[lengths_KS[0] < lengths_KS[1]].mean())
    assert report["score_deviation"] == pytest.approx(scores_KS.std())


def test_the_loss_of_steps_is_of_those_that_are_marked():
    model = random_model(head="score")
    encoded = some_completions(6)
    labels = [tuple(float((i + j) % 2) for j in range(int(mask.sum()))) for i, (_, mask) in enumerate(encoded)]
    rows = [AnswerRow((one,), told) for one, told in zip(encoded, labels, strict=True)]
    with torch.no_grad():
        losses = {
            packing: ProcessObjective().loss(
                model, AnswerSource(rows, seed=0, pad_id=0, length=64, packing=packing).chosen(range(6))
            )
            for packing in (False, True)
        }
        score_N = target_scores(model, collate(encoded, 0))
    right_N = torch.tensor([number for told in labels for number in told])
    wanted = float(torch.nn.functional.binary_cross_entropy_with_logits(score_N, right_N, reduction="sum"))
    for loss in losses.values():
        assert loss.units == len(right_N) and float(loss.sum) == pytest.approx(wanted, rel=1e-5)
    report = ProcessObjective().report(Tally() + losses[False])
    assert report["accuracy"] == pytest.approx(float(((score_N > 0) == (right_N > 0)).double().mean()))


# Steps ---------------------------------------------------------------------------------------------------------------


def test_steps_end_where_their_text_ends():
    steps = ["First, näh.", "木", "So: 4"]
    row = encode_steps(TOKENIZER, "a row", [{"role": "user", "content": "why?"}], steps)
    ids, mask = row.answers[0]
    ends = np.flatnonzero(mask)
    assert [TOKENIZER.decode(ids[: end + 1].tolist()) for end in ends] == [
        "First, näh.",
        "First, näh.\n木",
        "\n".join(steps),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "steps": ["b"], "labels": []}, "it has 1 steps, but 0 labels"),
        ({"prompt": "a", "labels": [True]}, "steps must be a list of texts"),
        ({"prompt": "a", "steps": ["b", " "], "labels": [True, False]}, "a step is empty"),
        ({"prompt": "a", "steps": ["b"], "labels": ["yes"]}, "labels must be a list of true and false"),
    ],
)
def test_steps_that_cannot_be_learned_from_are_named(row, said, base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", [*SOLUTIONS[:4], row])
    with pytest.raises(DataError, match=rf"d\.jsonl, row 5: .*{said}"):
        reward(config(RewardConfig, base, data, tmp_path / "out", "--loss=process", "--train.steps=1"))


def test_an_answer_that_is_cut_keeps_the_labels_of_its_whole_steps(base, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: seen.append(stage) or {})
    rows = [*SOLUTIONS, {"prompt": "z", "steps": ["a", "b", "c" * 200], "labels": [True, False, True]}]
    data = write_rows(tmp_path / "d.jsonl", rows)
    reward(config(RewardConfig, base, data, tmp_path / "out", "--loss=process", "--overlong=truncate"))
    kept = [
        row
        for source in (seen[0].source, seen[0].validation)
        for row in source.rows
        if len(row.completions[0][0]) == 96
    ]
    assert [row.told for row in kept] == [(1.0, 0.0)] and seen[0].notes["left_out"] == {"truncated": 1}


# Scoring -------------------------------------------------------------------------------------------------------------


def test_a_folder_scores_conversations_whatever_their_neighbours(trained):
    model = RewardModel.load(trained)
    asked = [conversation("q?", "yesq"), conversation("q?", "no"), conversation("longer?", "no" * 8)]
    scores = model.score(asked)
    assert scores[0] > scores[1]
    for messages, score in zip(asked, scores, strict=True):
        assert model.score([messages]) == pytest.approx([score], abs=1e-5)
    assert model.score([]) == []


def test_scores_are_those_that_it_was_trained_with(base, data, tmp_path, trained):
    """The same tokens, to the one that ends the answer."""
    model = RewardModel.load(trained)
    row = PREFERENCES[0]
    (found,) = model.score([conversation(row["prompt"], row["chosen"])])
    text = (
        f"{TOKENIZER.token_text(TOKENIZER.bos_id)}<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = [*_special(text + row["chosen"] + "<|im_end|>")]
    with torch.no_grad():
        wanted = model.model.value(model.model.hidden(torch.tensor([ids])))[0, -1]
    assert found == pytest.approx(float(wanted), abs=1e-5)


def _special(text):
    import re

    _, tokenizer = TOKENIZER, TOKENIZER
    for piece in re.split(r"(<\|im_start\|>|<\|im_end\|>|<s>)", text):
        if piece in tokenizer.special_ids:
            yield tokenizer.special_ids[piece]
        else:
            yield from tokenizer.encode(piece)


def test_what_the_template_writes_after_an_answer_takes_no_room(trained):
    """The end of the answer may be the last token that the model reads."""
    model = RewardModel.load(trained)
    room = 96 - len(model._encode(1, conversation("a", "b"))[0])
    assert len(model.score([conversation("a", "b" + "c" * room)])) == 1
    with pytest.raises(DataError, match="conversation 1 has 97 tokens"):
        model.score([conversation("a", "b" + "c" * (room + 1))])


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "hi"}], "conversation 2: its last message is not the assistant's"),
        (conversation("a", "b" * 200), "conversation 2 has .* tokens, the model's context 96"),
    ],
)
def test_what_cannot_be_scored_is_named(trained, messages, said):
    with pytest.raises(DataError, match=said):
        RewardModel.load(trained).score([conversation("a", "b"), messages])


def test_a_language_model_scores_nothing(base):
    with pytest.raises(ConfigError, match=f"{base} gives tokens, no scores"):
        RewardModel.load(base)


def test_an_ensemble_is_the_mean_less_what_its_members_disagree_by(trained, base, data, tmp_path):
    reward(config(RewardConfig, base, data, tmp_path / "other", "--train.steps=25", "--train.seed=7"))
    asked = [conversation("q?", "yesq"), conversation("strange", "thing")]
    scores = np.array([RewardModel.load(run).score(asked) for run in (trained, tmp_path / "other")])
    assert not np.array_equal(scores[0], scores[1])
    plain, careful = (Ensemble.load([trained, tmp_path / "other"], caution=caution) for caution in (0.0, 2.0))
    assert plain.score(asked) == pytest.approx(scores.mean(0), abs=1e-5)
    assert careful.score(asked) == pytest.approx(scores.mean(0) - 2 * scores.std(0), abs=1e-5)
    with pytest.raises(ConfigError, match="at least one"):
        Ensemble([])


def test_settings_of_another_loss_are_told_apart():
    told = replace(settings(), loss="process").unused()
    assert {"margin", "use_margins", "centring"} <= set(told)
