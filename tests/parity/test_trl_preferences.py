"""Losses of preferences and judgements are those that trl's own trainers compute, with their gradients.

Peer: trl, the installed version; its name stands in the ids of the tests. One policy and one reference, each as a model
of ours and as one of transformers, read the same tokens in fp64; the losses are of whole batches, with answers of
several lengths.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from seedbed.alignment.completions import collate
from seedbed.alignment.direct.config import DirectConfig, KtoConfig
from seedbed.alignment.direct.dpo import DirectObjective
from seedbed.alignment.direct.kto import KtoObjective
from seedbed.alignment.direct.losses import conservative_loss, ipo_loss, odds_ratio_loss, simpo_loss
from seedbed.alignment.log_probabilities import completion_log_probabilities
from seedbed.alignment.source import AnswerBatch
from tests.alignment.judged import config
from tests.parity.twins import Twins, gradient_norm, make_twins

QUIET = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True}
BETA, FLIPPED = 0.3, 0.2
WORDS = ["yes", "no, not at all", "b", "perhaps so", "42", "näh"]
ROWS = [
    {"prompt": f"{word}?", "chosen": WORDS[number - 1], "rejected": WORDS[number - 4]}
    for number, word in enumerate(WORDS)
]


@pytest.fixture(autouse=True, params=[f"trl {trl.__version__}"])
def peer(request) -> str:
    """Names each test."""
    return request.param


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The policy, the reference, the tokenizer, and a folder."""
    place = tmp_path_factory.mktemp("twins")
    policy, tokenizer = make_twins(place / "policy", 5)
    reference, _ = make_twins(place / "reference", 6)
    return policy, reference, tokenizer, place


def settings(kind, **others):
    arguments = (f"--{key}={value}" for key, value in others.items())
    return config(kind, Path("m"), Path("d"), Path("o"), *arguments).resolve()


def encoded(batch, prefix: str = ""):
    """The rows of a batch of trl's as completions of ours."""
    ids_CT, there_CT, mask_CT = (batch[prefix + name] for name in ("input_ids", "attention_mask", "completion_mask"))
    return [
        (ids_T[there_T.bool()].numpy().astype(np.uint32), mask_T[there_T.bool()].bool().numpy())
        for ids_T, there_T, mask_T in zip(ids_CT, there_CT, mask_CT, strict=True)
    ]


def our_batch(completions, told_S: torch.Tensor, reference: Twins) -> AnswerBatch:
    """Packed, which trl's batch is not."""
    batch = collate(completions, pad_id=0, length=64)
    with torch.no_grad():
        reference_KS = completion_log_probabilities(reference.ours, batch).unflatten(0, (2, -1))
    return AnswerBatch(batch, told_S, reference_KS.T)


def assert_same_losses(ours, theirs, policy: Twins) -> None:
    """Losses, and the gradients of all weights together."""
    mean = ours.sum / ours.units
    assert float(mean.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    assert gradient_norm(policy.ours, mean) == pytest.approx(gradient_norm(policy.theirs, theirs), rel=1e-5)


# DPO and its relatives -----------------------------------------------------------------------------------------------


def compare_direct(models, loss: str, theirs: str, at_once=None, tokens=None, smoothing=0.0, **others):
    """`at_once`: rows that trl sees together, if not all; `tokens`: how many of each answer are kept, if not all."""
    policy, reference, tokenizer, place = models
    asked = {"loss_type": theirs, "beta": BETA, "label_smoothing": smoothing}
    trainer = trl.DPOTrainer(
        policy.theirs,
        reference.theirs,
        args=trl.DPOConfig(str(place / "out"), **QUIET, **asked),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    trainer.model.eval()
    answers = ("chosen_ids", "rejected_ids")
    examples = [row | {name: row[name][:tokens] for name in answers} for row in trainer.train_dataset]
    step = at_once or len(ROWS)
    batches = [trainer.data_collator(examples[i : i + step]) for i in range(0, len(ROWS), step)]
    loss_of_trl = torch.stack([trainer._compute_loss(trainer.model, batch, False) for batch in batches]).mean()
    completions = encoded(trainer.data_collator(examples))
    objective = DirectObjective(settings(DirectConfig, loss=loss, beta=BETA, **others))
    ours = objective.loss(policy.ours, our_batch(completions, torch.zeros(len(ROWS)), reference))
    assert_same_losses(ours, loss_of_trl, policy)


@pytest.mark.parametrize("loss", ["sigmoid", "hinge"])
def test_the_loss_of_dpo_is_that_of_trl(loss, models):
    compare_direct(models, loss, loss)


def test_the_loss_of_robust_dpo_is_that_of_trl(models):
    compare_direct(models, "robust", "robust", smoothing=FLIPPED, flipped=FLIPPED)


def test_the_loss_of_conservative_dpo_is_that_of_trl(models):
    """trl 1 smooths labels no longer under sigmoid, but under aot, which sorts the margins of a batch and is else the
    same: of one row there is nothing to sort."""
    compare_direct(models, "conservative", "aot", at_once=1, smoothing=FLIPPED, flipped=FLIPPED)


def test_the_loss_of_ipo_is_that_of_trl_where_an_answer_is_one_token(models):
    """And else not, on purpose: trl divides log-ratios by the tokens of their answer, which the paper (eq. 17) does
    not."""
    compare_direct(models, "ipo", "ipo", tokens=1)


def test_ipo_of_log_ratios_that_are_divided_by_tokens_is_that_of_trl():
    chosen_S, rejected_S = log_probabilities()
    theirs_S, *_ = of_cpo("ipo", chosen_S, rejected_S)
    assert_close(ipo_loss(BETA * (chosen_S - rejected_S), BETA), theirs_S)


# Without a reference: trl's methods that take log-probabilities -------------------------------------------------------


def log_probabilities() -> torch.Tensor:
    """Of better and worse answers, each divided by its tokens."""
    return -3 * torch.rand(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.01


def of_cpo(loss: str, chosen_S, rejected_S, gamma: float = 0.0, smoothing: float = 0.0):
    asked = {"loss_type": loss, "beta": BETA, "simpo_gamma": gamma, "label_smoothing": smoothing, "alpha": 0.0}
    trainer = SimpleNamespace(**asked, accelerator=SimpleNamespace(device="cpu"))
    return CPOTrainer.cpo_loss(trainer, chosen_S, rejected_S)


def assert_close(ours_S, theirs_S) -> None:
    torch.testing.assert_close(ours_S, theirs_S, rtol=0, atol=1e-6)


def test_simpo_is_that_of_trl():
    chosen_S, rejected_S = log_probabilities()
    theirs_S, *_ = of_cpo("simpo", chosen_S, rejected_S, gamma=0.7)
    assert_close(simpo_loss(BETA * chosen_S - BETA * rejected_S, 0.7), theirs_S)


def test_smoothed_labels_are_those_of_trl():
    chosen_S, rejected_S = log_probabilities()
    theirs_S, *_ = of_cpo("sigmoid", chosen_S, rejected_S, smoothing=FLIPPED)
    assert_close(conservative_loss(BETA * (chosen_S - rejected_S), FLIPPED), theirs_S)


def test_the_odds_ratio_of_orpo_is_that_of_trl():
    """The likelihood beside it is another there: of prompt and answer, where the paper (eq. 6) has the answer's."""
    chosen_S, rejected_S = log_probabilities()
    trainer = SimpleNamespace(beta=BETA, accelerator=SimpleNamespace(device="cpu"))
    gains_S, *_ = ORPOTrainer.odds_ratio_loss(trainer, chosen_S, rejected_S)
    # They compute in fp32.
    torch.testing.assert_close(
        odds_ratio_loss(chosen_S, rejected_S, BETA) + chosen_S, -gains_S.double(), rtol=0, atol=1e-6
    )


# KTO -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True], ids=["divergence above 0", "below"])
def test_the_loss_of_kto_is_that_of_trl(swapped, models):
    """trl estimates the divergence from a whole batch; so does a group as large. Where it is below 0 it counts as 0."""
    one, other, tokenizer, place = models
    policy, reference = (other, one) if swapped else (one, other)
    asked = {"beta": BETA, "desirable_weight": 1.3, "undesirable_weight": 0.6}
    trainer = trl.KTOTrainer(
        policy.theirs,
        reference.theirs,
        args=trl.KTOConfig(str(place / "out"), **QUIET, **asked, per_device_train_batch_size=len(WORDS)),
        train_dataset=Dataset.from_list(
            [{"prompt": f"{word}?", "completion": word, "label": number % 3 > 0} for number, word in enumerate(WORDS)]
        ),
        processing_class=tokenizer,
    )
    trainer.model.eval()
    batch = trainer.data_collator(list(trainer.train_dataset))
    objective = KtoObjective(settings(KtoConfig, beta=BETA, wanted_weight=1.3, unwanted_weight=0.6, group=len(WORDS)))
    completions = [*encoded(batch), *encoded(batch, "KL_")]
    ours = objective.loss(policy.ours, our_batch(completions, batch["label"].float(), reference))
    assert_same_losses(ours, trainer._compute_loss(trainer.model, batch, False), policy)
    assert ours.totals["divergence"] / ours.units == pytest.approx(trainer._metrics["eval"]["kl"][0], rel=1e-5)
