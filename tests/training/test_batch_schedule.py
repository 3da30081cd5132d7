"""Which rows a step takes is a pure function of the step, also when batches grow."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.errors import ConfigError
from seedbed.training.batch_schedule import BatchSchedule
from seedbed.training.config import BatchPhase, TrainConfig
from tests.tiny import random_rows, tiny_trainer

GROWING = [BatchPhase(from_step=2, batch=6), BatchPhase(from_step=3, batch=9)]


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), max_size=4, unique_by=lambda phase: phase[0]),
)
def test_the_first_sample_of_a_step_is_the_sum_of_all_batches_before(batch, later):
    schedule = BatchSchedule([(0, batch), *sorted(later)])
    sizes = [schedule.size(step) for step in range(50)]
    for step in range(50):
        assert sizes[step] == dict([(0, batch), *sorted(later)])[max([0, *(f for f, _ in later if f <= step)])]
    for step, samples in enumerate([0, *itertools.accumulate(sizes)]):
        assert schedule.first(step) == samples
        assert schedule.steps_for(samples) == step
        if step < 50:
            assert schedule.steps_for(samples + 0.5 * sizes[step]) == step + 0.5


def test_steps_of_a_growing_batch_take_every_row_once_in_micro_batches_of_any_size(tmp_path):
    for micro_batch in (None, 4):
        trainer = tiny_trainer(tmp_path, random_rows(64), batch=4, batches=GROWING, micro_batch=micro_batch)
        taken = [batch.tokens_BT for step in range(5) for batch in trainer.micro_batches(step)]
        rows = trainer.source.batch(0, 4 + 4 + 6 + 9 + 9).tokens_BT
        assert [row.tolist() for batch in taken for row in batch] == rows.tolist()
        assert [len(batch) for batch in taken] == (
            [4, 4, 6, 9, 9] if micro_batch is None else [4] * 3 + [2, 4, 4, 1] + [4, 4, 1]
        )


def test_checkpoints_by_epochs_come_when_the_rows_have_gone_by(tmp_path):
    from seedbed.training.config import CheckpointConfig

    when = CheckpointConfig(epochs=1, keep=9)  # of 8 rows, with batches of 4, 4, 6, 9, 9, 9
    trainer = tiny_trainer(tmp_path, random_rows(8), steps=6, batch=4, batches=GROWING, checkpoint=when)
    trainer.train()
    assert trainer.checkpoints.steps() == [2, 4, 5, 6]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"batches": list(reversed(GROWING))}, "batches must follow one another, got from_step 3, 2"),
        ({"batches": [GROWING[0], GROWING[0]]}, "batches must follow one another, got from_step 2, 2"),
    ],
)
def test_phases_that_do_not_follow_one_another_are_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        TrainConfig(**settings)


def test_a_phase_from_the_beginning_is_refused():
    with pytest.raises(ConfigError, match="from_step must be between 1 and"):
        BatchPhase(from_step=0, batch=4)
