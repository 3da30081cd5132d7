"""A curriculum brings every conversation once in the first epoch, the easier ones sooner."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import seedbed.tuning.finetune as room
from seedbed.data.batches.packing import PackedSource
from seedbed.tuning.curriculum import difficulties
from seedbed.tuning.finetune import finetune
from tests.tiny import tiny_model
from tests.tuning.test_finetune import config, write_rows


def documents(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of 2 to 9 tokens; each of tokens of its own."""
    return [
        (np.arange(10 * i, 10 * i + 2 + i % 8, dtype=np.uint32), np.ones(2 + i % 8, np.bool_)) for i in range(count)
    ]


def read(source: PackedSource, epoch: int) -> list[list[int]]:
    """The numbers of the documents of each row."""
    batch = source.batch(epoch * source.samples, source.samples)
    return [
        sorted({int(token) // 10 for token, segment in zip(row, segments, strict=True) if segment >= 0})
        for row, segments in zip(batch.tokens_BT, batch.segments_BT, strict=True)
    ]


def test_each_epoch_has_every_document_once_and_the_first_goes_from_low_ranks_to_high():
    ranks = [float((7 * i) % 200) for i in range(200)]
    source = PackedSource(documents(200), 24, 0, 0, ranks=ranks)
    for epoch in range(2):
        assert sorted(document for row in read(source, epoch) for document in row) == list(range(200))
    means = [np.mean([ranks[document] for document in row]) for row in read(source, 0)]
    assert all(later > earlier - 20 for earlier, later in itertools.pairwise(means))
    assert np.corrcoef(means, range(len(means)))[0, 1] > 0.95
    later = [np.mean([ranks[document] for document in row]) for row in read(source, 1)]
    assert abs(np.corrcoef(later, range(len(later)))[0, 1]) < 0.5


def test_without_ranks_rows_are_those_that_they_were_and_ranks_make_another_source():
    plain = PackedSource(documents(50), 24, 0, 0)
    assert plain.fingerprint == PackedSource(documents(50), 24, 0, 0).fingerprint
    ranked = PackedSource(documents(50), 24, 0, 0, ranks=list(range(50)))
    assert len({plain.fingerprint, ranked.fingerprint}) == 2


def test_difficulty_is_the_mean_loss_of_what_is_learned():
    model = tiny_model()
    ids, mask = np.array([9, 20, 30, 40], np.uint32), np.array([0, 0, 1, 1], np.bool_)
    (found,) = difficulties(model, [(ids, mask)])
    logprobs_TV = model(torch.tensor(ids[None].astype(np.int64)))[0].log_softmax(-1)
    assert found == pytest.approx(-float(logprobs_TV[1, 30] + logprobs_TV[2, 40]) / 2, rel=1e-5)


@pytest.mark.parametrize("curriculum", ["short_first", "easy_first"])
def test_a_run_begins_with_what_is_short_or_easy(curriculum, base, tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: stages.append(stage) or {})
    rows = [{"prompt": f"say {i}", "response": "x" * (1 + i % 30)} for i in range(60)]
    data = write_rows(tmp_path / "d.jsonl", rows)
    finetune(config(base, data, tmp_path / "out", f"--curriculum={curriculum}", "--length=64"))
    source = stages[0].source
    batch = source.batch(0, source.samples)
    losses = [stages[0].objective.loss(stages[0].model(), source.batch(row, 1)) for row in range(source.samples)]
    if curriculum == "short_first":
        learned = [loss.units / int(row.max() + 1) for loss, row in zip(losses, batch.segments_BT, strict=True)]
    else:
        learned = [float(loss.sum) / loss.units for loss in losses]
    third = len(learned) // 3
    assert np.mean(learned[:third]) < np.mean(learned[-third:])
