"""`train.attention`: how a run computes attention."""

from __future__ import annotations

import torch

from seedbed.model.attention_paths.reference import ReferenceAttention
from seedbed.model.transformer import Transformer
from tests.tiny import tiny_run


def test_a_run_attends_by_what_it_is_told(tokens, tmp_path, monkeypatch):
    made = []
    attends = Transformer.attends
    monkeypatch.setattr(Transformer, "attends", lambda *given: made.append(attends(*given)) or made[-1])
    tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--train.attention=reference")
    assert made and all(isinstance(attend, ReferenceAttention) for layers in made for attend in layers)


def test_a_model_with_windows_trains(tokens, tmp_path):
    result = tiny_run(tokens, tmp_path / "run", "--train.steps=2", "--model.window=4", "--model.window_pattern=SL")
    assert result["finished"] and torch.isfinite(torch.tensor(result["loss"]))
