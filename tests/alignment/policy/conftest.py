"""A tiny model that answers with a few random letters, and problems for it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from seedbed.configuration import from_arguments
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.finetune import finetune
from tests.tiny import save_tiny_model

PROMPTS = [f"{'#' * (number % 5)}{number}" for number in range(30)]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("policy")
    fresh = save_tiny_model(place / "fresh", context=80, width=32, layers=2)
    draw = random.Random(0)
    rows = [
        {"prompt": prompt, "response": "".join(draw.choices("abcdef", k=draw.randint(1, 4)))} for prompt in PROMPTS * 4
    ]
    settings = (f"--model={fresh}", f"--data={write(place / 'rows.jsonl', rows)}", f"--out={place / 'run'}")
    rates = [f"--optimizer.{rate}" for rate in ("matrix_rate=0.02", "embedding_rate=0.05", "head_rate=0.01")]
    finetune(from_arguments(FinetuneConfig, [*settings, *rates, "--train.steps=60", "--train.device=cpu"]))
    return place / "run" / "model"


@pytest.fixture(scope="session")
def problems(tmp_path_factory) -> Path:
    """Whose answers are right when they have an a."""
    rows = [{"prompt": prompt, "answer": ".*a.*", "reward": "regex"} for prompt in PROMPTS]
    return write(tmp_path_factory.mktemp("problems") / "problems.jsonl", rows)
