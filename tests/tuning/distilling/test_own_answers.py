"""What a student says itself: rows that are a function of its weights and of their number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.packing import PackedSource
from seedbed.errors import DataError
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.folder import load_model
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.chat import find_template
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.tuning.distilling.config import OnPolicyConfig
from seedbed.tuning.distilling.own_answers import OwnAnswers, prompts_of
from tests.random_models import randomise
from tests.tiny import save_tiny_model

LENGTH = 64
CONFIG = OnPolicyConfig(share=1.0, max_tokens=9)


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> tuple[Transformer, Tokenizer]:
    place = tmp_path_factory.mktemp("student")
    model, tokenizer = load_model(save_tiny_model(place / "model", context=96, width=32, layers=2), learns=True)
    return model, tokenizer.with_template(find_template("chatml"))


@pytest.fixture
def student(opened) -> Transformer:
    randomise(opened[0])
    return opened[0].train()


@pytest.fixture
def prompts(opened) -> list[list[int]]:
    return [opened[1].encode("ask " * (1 + number % 4) + str(number)) for number in range(10)]


def source(student: Transformer, tokenizer: Tokenizer, prompts: list[list[int]], **changes: Any) -> OwnAnswers:
    made = OwnAnswers(prompts, tokenizer, replace(CONFIG, **changes), length=LENGTH, seed=3, pad_id=0)
    made.learn(student)
    return made


def documents(batch: TokenBatch) -> list[tuple[list[int], list[int]]]:
    """Of all rows: its tokens, and those of them that are targets."""
    found = []
    for b, segments_T in enumerate(batch.segments_BT):
        for segment in range(int(segments_T.max()) + 1):
            here = segments_T == segment
            targets = batch.targets_BT[b][here]
            found.append((batch.tokens_BT[b][here].tolist(), targets[targets != IGNORE].tolist()))
    return found


def same(one: TokenBatch, other: TokenBatch) -> bool:
    return torch.equal(one.tokens_BT, other.tokens_BT) and torch.equal(one.targets_BT, other.targets_BT)


def test_every_prompt_is_answered_once_an_epoch_and_only_the_answer_counts(opened, student, prompts):
    own = source(student, opened[1], prompts)
    batch = own.batch(0, own.samples)
    assert batch.own_B.all() and len(batch.own_B) == own.samples and batch.tokens_BT.shape[1] == LENGTH
    asked = []
    for ids, answer in documents(batch):
        assert 1 <= len(answer) <= CONFIG.max_tokens and ids[-len(answer) :] == answer
        asked.append(ids[: -len(answer)])
    assert sorted(asked) == sorted(prompts)


def test_an_answer_is_what_the_engine_says_to_the_prompt(opened, student, prompts):
    """Greedily, so that no seed matters; with the token that ended it, where one did."""
    own = source(student, opened[1], prompts, temperature=0.0)
    engine = Engine(student.eval(), opened[1])
    for ids, answer in documents(own.batch(0, own.samples)):
        sampling = SamplingConfig(temperature=0.0, max_tokens=CONFIG.max_tokens, logprobs=0)
        (completion,) = engine.complete([ids[: -len(answer)]], sampling)
        assert answer == [each.token for each in completion.likelihoods]


def test_a_row_does_not_depend_on_the_rows_beside_it(opened, student, prompts):
    own = source(student, opened[1], prompts)
    whole = own.batch(1, 3)
    for b in range(3):
        alone = own.batch(1 + b, 1)
        assert torch.equal(alone.tokens_BT[0], whole.tokens_BT[b])


def test_each_epoch_has_other_answers_and_other_weights_have_too(opened, student, prompts):
    own = source(student, opened[1], prompts)
    first, second = own.batch(0, own.samples), own.batch(own.samples, own.samples)
    assert sorted(documents(first)) != sorted(documents(second))
    assert same(own.batch(0, own.samples), first)  # the same weights say the same again
    randomise(student, seed=1)
    assert not same(own.batch(0, own.samples), first)


def test_the_student_is_left_as_it_was(opened, student, prompts):
    own, state = source(student, opened[1], prompts), torch.get_rng_state()
    own.batch(0, 2)
    assert student.training and torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None and weight.requires_grad for weight in student.parameters())


def test_a_long_prompt_leaves_an_answer_what_is_left_of_the_row(opened, student):
    prompt = opened[1].encode("x" * (LENGTH - 4))
    own = source(student, opened[1], [prompt])
    assert own.rooms == [4]
    ((ids, answer),) = documents(own.batch(0, 1))
    assert ids[: -len(answer)] == prompt and len(ids) <= LENGTH


def test_prompts_are_all_that_comes_before_each_reply():
    ids = np.arange(10, 20, dtype=np.uint32)
    mask = np.array([0, 0, 0, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    assert prompts_of([(ids, mask)], ["row 1"]) == [[10, 11, 12], [10, 11, 12, 13, 14, 15, 16]]


def test_a_text_that_asks_nothing_is_refused():
    text = np.arange(5, dtype=np.uint32), np.arange(5) > 0
    with pytest.raises(DataError, match=r"b\.jsonl, row 3 is a text and no conversation"):
        prompts_of([text], ["b.jsonl, row 3"])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_among_the_datas_rows_they_have_their_share(opened, student, prompts, share):
    own = source(student, opened[1], prompts, share=share)
    encoded = [(np.array([*prompt, 5, 5], np.uint32), np.arange(len(prompt) + 2) >= len(prompt)) for prompt in prompts]
    data = PackedSource(encoded, LENGTH, 3, 0)
    mixed = own.among(data)
    assert abs(int(mixed.batch(0, 40).own_B.sum()) - 40 * share) <= 8
    assert (mixed.places(0, 1000)[0] == 1).sum() == 1000 * share
    assert min(data.samples, own.samples) <= mixed.samples <= max(data.samples, own.samples)
    targets = mixed.batch(0, 8).targets_BT[mixed.batch(0, 8).own_B]
    assert (targets != IGNORE).any()


def test_the_fingerprint_tells_what_the_rows_depend_on(opened, student, prompts):
    changed: list[dict[str, Any]] = [{"temperature": 0.5}, {"max_tokens": 8}]
    prints = {source(student, opened[1], prompts, **change).fingerprint for change in [{}, *changed]}
    prints.add(source(student, opened[1], prompts[:-1]).fingerprint)
    assert len(prints) == 4
