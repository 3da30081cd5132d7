"""How results read for people."""

from __future__ import annotations

import pytest

from seedbed.runs import words


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (123456.7, "123,457"),
        (2.0, "2"),
        (-1999.6, "-2,000"),
        (True, "yes"),
        ("runs/a_b", "runs/a_b"),
    ],
)
def test_values_have_four_digits_and_thousands_are_told_apart(value, told):
    assert words.value(value) == told


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("units", "target tokens"),
        ("tasks.bits_per_byte.perplexity", "tasks, bits per byte, perplexity a token"),
        ("skills_exact", "answered exactly"),
        ("by_skill.looking_up", "by skill, looking up"),
    ],
)
def test_keys_are_words(key, told):
    assert words.name(key) == told


@pytest.mark.parametrize("stage", ["dpo", "kto", "reward", "grpo", "ppo"])
def test_a_loss_of_answers_is_not_told_in_nats_a_token(stage):
    assert words.name("val_loss", stage) == "validation loss"
    assert words.name("units", stage) == "counted in the loss"
    assert words.name("val_loss", "finetune") == "validation loss, nats a token"
