"""Noise on embeddings is as large as the paper says, and only there while a model learns."""

from __future__ import annotations

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.finetune import finetune
from seedbed.tuning.noise import add_noise
from tests.tiny import records, tiny_model
from tests.tuning.test_finetune import config, facts

TOKENS_BT = torch.arange(7, 71).view(4, 16)


def test_it_is_uniform_within_alpha_by_the_root_of_length_and_width():
    model = tiny_model()
    plain = model.embedding(TOKENS_BT)
    add_noise(model, 5.0)
    most = 5 / (16 * 16) ** 0.5
    noise = torch.stack([model.train().embedding(TOKENS_BT) - plain for _ in range(20)])
    assert noise.abs().max() <= most * 1.0001
    assert float(noise.std()) == pytest.approx(most / 3**0.5, rel=0.03)
    assert torch.equal(model.eval().embedding(TOKENS_BT), plain)


def test_a_run_with_noise_goes_on_to_the_same_bits(base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    given = ("--train.steps=6", "--train.checkpoint.steps=2", "--train.validate_every=2", "--noise=5")
    for name in ("whole", "broken"):
        finetune(config(base, data, tmp_path / name, *given))
    (tmp_path / "broken" / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    assert finetune(config(base, data, tmp_path / "broken", *given))["resumed_at"] == 4
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert one == other
    finetune(config(base, data, tmp_path / "plain", *given[:-1]))
    assert records(tmp_path / "plain") != records(tmp_path / "whole")


@pytest.mark.parametrize("noise", [0, -1])
def test_noise_of_no_size_is_refused(noise, base, tmp_path):
    with pytest.raises(ConfigError, match="noise must be > 0"):
        FinetuneConfig(model=base, data=base, out=tmp_path, noise=noise)
