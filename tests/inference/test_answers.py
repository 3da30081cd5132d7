"""Many prompts are answered as each would be alone, in order, and none waits for another one to be done."""

from __future__ import annotations

import pytest
import torch

from seedbed.errors import DataError
from seedbed.inference.answers import answers
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.folder import load_model
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Engine:
    model, tokenizer = load_model(save_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))
    return Engine(model, tokenizer, EngineConfig(rows=2))


def test_they_are_those_of_each_prompt_alone_in_order(engine):
    prompts = [engine.encode("abc"[: 1 + number % 3] * 3) for number in range(9)]
    sampling = SamplingConfig(max_tokens=6)
    assert list(answers(engine, prompts, sampling, n=2)) == engine.complete(prompts, sampling, n=2)
    assert list(answers(engine, [], sampling)) == []


def test_one_that_takes_long_holds_up_nobody(engine, monkeypatch):
    """Its followers are asked while it is under way, and no more of them at a time than there are rows."""
    under_way, most, asked = [], [], []
    submit, step = engine.submit, engine.step

    def noting(ids, sampling, **other):
        sampling = SamplingConfig(**({"min_tokens": 24, "max_tokens": 24} if not asked else {"max_tokens": 1}))
        asked.append(submit(ids, sampling, **other))
        return asked[-1]

    def watching():
        most.append(sum(generation.reason is None for generation in asked))
        under_way.append(asked[0].reason is None and len(asked) == 12)
        return step()

    monkeypatch.setattr(engine, "submit", noting)
    monkeypatch.setattr(engine, "step", watching)
    assert len(list(answers(engine, [engine.encode("a")] * 12, SamplingConfig()))) == 12
    assert any(under_way) and max(most) == 2


def test_what_cannot_be_answered_is_told(engine):
    with pytest.raises(DataError, match="prompt 2: the prompt is empty"):
        list(answers(engine, [engine.encode("a"), [], engine.encode("a")], SamplingConfig(max_tokens=2)))
    assert not engine.scheduler.running and not engine.scheduler.waiting


def test_one_that_fails_is_named_and_the_others_are_taken_back(engine, monkeypatch):
    monkeypatch.setattr(engine.model, "logits", lambda x_BD: torch.full((len(x_BD), engine.vocabulary), torch.nan))
    with pytest.raises(DataError, match="prompt 1: the model's scores are not numbers"):
        list(answers(engine, [engine.encode("a")] * 3, SamplingConfig(max_tokens=2)))
    assert not engine.scheduler.running and not engine.scheduler.waiting


def test_who_stops_listening_takes_back_what_is_not_done(engine):
    listening = answers(engine, [engine.encode("a")] * 9, SamplingConfig(max_tokens=3))
    next(listening)
    listening.close()
    assert not engine.scheduler.running and not engine.scheduler.waiting


def test_each_prompt_may_have_a_sampling_of_its_own(engine):
    prompts = [engine.encode("abc"[: 1 + number % 3]) for number in range(5)]
    samplings = [SamplingConfig(max_tokens=1 + number, temperature=1.0, seed=number) for number in range(5)]
    alone = [engine.complete([prompt], own)[0] for prompt, own in zip(prompts, samplings, strict=True)]
    assert list(answers(engine, prompts, samplings)) == alone
