"""A completion's log-probability is the sum over its tokens, whatever surrounds it in the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seedbed.alignment.completions import NOBODY, CompletionBatch, collate
from seedbed.alignment.log_probabilities import completion_log_probabilities, token_log_probabilities
from seedbed.data.batches.batch import IGNORE, TokenBatch
from tests.random_models import random_model


def some_completions(count=5, vocabulary=50, seed=0):
    """Of several lengths, each with a prompt of 2 to 6 tokens."""
    chance = np.random.default_rng(seed)
    encoded = []
    for _ in range(count):
        prompt, answer = chance.integers(2, 7), chance.integers(1, 8)
        ids = chance.integers(1, vocabulary, prompt + answer).astype(np.uint32)
        encoded.append((ids, np.arange(len(ids)) >= prompt))
    return encoded


@torch.no_grad()
def by_hand(model, encoded):
    """From all logits, in fp64, one completion at a time."""
    model = model.double()
    found = []
    for ids, mask in encoded:
        tokens_T = torch.from_numpy(ids.astype(np.int64))
        logs_TV = model(tokens_T[None])[0].log_softmax(-1)
        found.append(sum(float(logs_TV[t - 1, tokens_T[t]]) for t in np.flatnonzero(mask)))
    model.float()
    return torch.tensor(found)


@pytest.mark.parametrize("length", [None, 32, 64], ids=["a row each", "packed", "packed into long rows"])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_each_completion_has_the_sum_of_its_tokens(length, softcap):
    model, encoded = random_model(logit_softcap=softcap), some_completions()
    with torch.no_grad():
        found_C = completion_log_probabilities(model, collate(encoded, pad_id=0, length=length))
    torch.testing.assert_close(found_C.double(), by_hand(model, encoded).double(), rtol=0, atol=1e-5)


def test_packing_puts_several_into_a_row_and_forgets_none():
    encoded = some_completions(12)
    batch = collate(encoded, pad_id=0, length=40)
    assert len(batch.rows.tokens_BT) < 12
    assert batch.lengths_C.tolist() == [int(mask.sum()) for _, mask in encoded]
    for number, (ids, mask) in enumerate(encoded):
        assert batch.rows.targets_BT[batch.completion_BT == number].tolist() == ids[mask].tolist()


def test_prompt_and_padding_leave_the_log_probability_bitwise_equal():
    """Neither is a target, and what stands on padding is read by nobody."""
    model, batch = random_model(), collate(some_completions(), pad_id=0)
    with torch.no_grad():
        wanted_C = completion_log_probabilities(model, batch)
        sizes = [len(ids) for ids, _ in some_completions()]
        tokens_BT = batch.rows.tokens_BT.clone()
        for b, size in enumerate(sizes):
            tokens_BT[b, size:] = 7
        other = replace(batch, rows=replace(batch.rows, tokens_BT=tokens_BT))
        assert not torch.equal(tokens_BT, batch.rows.tokens_BT)
        assert torch.equal(completion_log_probabilities(model, other), wanted_C)


def test_left_and_right_padding_are_the_same():
    model, encoded = random_model(), some_completions()
    right = collate(encoded, pad_id=0)
    shape = right.rows.tokens_BT.shape
    left = {name: torch.full(shape, value) for name, value in (("tokens", 0), ("targets", IGNORE), ("owner", NOBODY))}
    segments, positions = torch.full(shape, -1, dtype=torch.int32), torch.zeros(shape, dtype=torch.int64)
    for b, (ids, _) in enumerate(encoded):
        for name, whole in zip(left, (right.rows.tokens_BT, right.rows.targets_BT, right.completion_BT), strict=True):
            left[name][b, -len(ids) :] = whole[b, : len(ids)]
        segments[b, -len(ids) :], positions[b, -len(ids) :] = 0, torch.arange(len(ids))
    rows = TokenBatch(left["tokens"], left["targets"], segments, positions)
    with torch.no_grad():
        found_C = completion_log_probabilities(model, CompletionBatch(rows, left["owner"], len(encoded)))
        torch.testing.assert_close(found_C, completion_log_probabilities(model, right), rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_whole_logits():
    model, batch = random_model(), collate(some_completions(), pad_id=0)
    weights_C = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0])
    parameters = list(model.parameters())
    found = torch.autograd.grad((completion_log_probabilities(model, batch) * weights_C).sum(), parameters)
    logs_BTV = model(batch.rows.tokens_BT).log_softmax(-1)
    counted_BT = batch.rows.targets_BT != IGNORE
    logs_N = logs_BTV[counted_BT].gather(1, batch.rows.targets_BT[counted_BT][:, None])[:, 0]
    wanted = torch.autograd.grad((logs_N * weights_C[batch.owner_N]).sum(), parameters)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_tokens_come_in_the_order_of_their_rows():
    model, batch = random_model(), collate(some_completions(), pad_id=0)
    with torch.no_grad():
        logs_N = token_log_probabilities(model, batch.rows)
        for number in range(batch.count):
            alone = collate([some_completions()[number]], pad_id=0)
            torch.testing.assert_close(logs_N[batch.owner_N == number], token_log_probabilities(model, alone.rows))
