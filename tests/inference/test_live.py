"""A model that learns answers as it is at that moment, and is left as it was."""

from __future__ import annotations

import pytest
import torch

from seedbed.inference.answers import answers
from seedbed.inference.config import SamplingConfig
from seedbed.inference.live import live_engine, seed_of
from seedbed.model.folder import load_model
from tests.tiny import save_tiny_model

SAMPLING = SamplingConfig(max_tokens=6, temperature=0.0, logprobs=0)


@pytest.fixture
def opened(tmp_path):
    return load_model(save_tiny_model(tmp_path / "model"), learns=True)


def said(opened) -> list[tuple[int, ...]]:
    prompts = [opened[1].encode(text) for text in ("abc", "b", "ca")]
    with live_engine(*opened, rows=2, longest=16) as engine:
        return [completion.said for completion in answers(engine, prompts, SAMPLING)]


def test_it_answers_by_the_weights_as_they_are(opened):
    before = said(opened)
    with torch.no_grad():
        for weight in opened[0].parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(weight))))
    after = said(opened)
    assert after != before and said(opened) == after


@pytest.mark.parametrize("training", [True, False])
def test_the_model_goes_on_in_the_mode_that_it_was_in_also_after_an_error(opened, training):
    model = opened[0].train(training)
    said(opened)
    assert model.training is training and torch.is_grad_enabled()
    with pytest.raises(RuntimeError), live_engine(*opened, rows=1, longest=16):
        raise RuntimeError
    assert model.training is training and torch.is_grad_enabled()


def test_what_was_said_has_the_token_that_ended_it(opened):
    model, tokenizer = opened
    with live_engine(model, tokenizer, rows=1, longest=32) as engine:
        sampling = SamplingConfig(
            max_tokens=16, temperature=1.0, seed=1, logprobs=0, logit_bias={str(tokenizer.eos_id): 9.0}
        )
        (completion,) = answers(engine, [tokenizer.encode("ab")], sampling)
    assert completion.reason == "end" and completion.said == (*completion.tokens, tokenizer.eos_id)


def test_a_place_has_one_seed_and_another_place_another():
    seeds = [seed_of(f"{run}/{row}") for run in range(20) for row in range(20)]
    assert len(set(seeds)) == 400 and seed_of("0/0") == seeds[0]
    assert all(0 <= seed < 2**63 for seed in seeds) and max(seeds) > 2**61
