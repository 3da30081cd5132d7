"""Texts that the model writes while it learns."""

from __future__ import annotations

import pytest

from seedbed.errors import DataError
from seedbed.inference.engine import Engine
from tests.tiny import records, tiny_run

SAMPLES = ("--train.steps=5", "--samples.every=2", "--samples.prompts=[the seed, rain]", "--samples.max_tokens=6")


def test_prompts_are_continued_every_so_many_steps_and_at_the_end(tokens, tmp_path):
    tiny_run(tokens, tmp_path / "run", *SAMPLES)
    found = records(tmp_path / "run", "samples.jsonl")
    assert [(line["step"], line["prompt"]) for line in found] == [
        (n, p) for n in (2, 4, 5) for p in ("the seed", "rain")
    ]
    engine = Engine.load(tmp_path / "run" / "model")
    last = engine.generate(["the seed", "rain"], max_tokens=6, temperature=0.8, seed=5)
    assert [line["text"] for line in found[-2:]] == last  # the same as the finished model says


def test_a_prompt_that_does_not_fit_is_told_before_the_first_step(tokens, tmp_path):
    with pytest.raises(DataError, match=r"^samples\.prompts, 'long long .*the model's context is 32\nGive --samples"):
        tiny_run(tokens, tmp_path / "run", *SAMPLES, f"--samples.prompts=[{'long ' * 20}]")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
