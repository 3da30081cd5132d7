"""What the quickstart tells at its end."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from seedbed.quickstart import page
from seedbed.quickstart.page import print_summary

SCORES = {"skills_exact": 0.5, "by_skill": {"copying": 0.5}}
STAGES = [{"stage": stage, **SCORES} for stage in ("pretrain", "finetune", "dpo", "grpo")]
RESULT = {"baseline": SCORES, "stages": STAGES, "seconds": 60, "peak_rss_mb": 1, "model": "grpo/model"}


def talk(capsys, out: Path) -> list[str]:
    print_summary(out, RESULT)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("talk"))
    return shlex.split(line)[1:]


@pytest.mark.parametrize(
    ("on_path", "called", "words"),
    [
        ("/usr/bin/seedbed", ".venv/bin/seedbed", ["seedbed"]),
        (None, ".venv/bin/seedbed", [".venv/bin/seedbed"]),
        (None, "/x/seedbed/__main__.py", [sys.executable, "-m", "seedbed"]),
    ],
)
def test_the_last_line_is_a_command_that_runs_from_there(on_path, called, words, capsys, monkeypatch):
    monkeypatch.setattr(page.shutil, "which", lambda name: on_path)
    monkeypatch.setattr(sys, "argv", [called])
    out = Path("my runs") / ("long" * 30)
    assert talk(capsys, out) == [*words, "chat", "--model", str(out / "grpo" / "model")]


def test_only_losses_of_tokens_stand_beside_each_other():
    stages = {name: {"seconds": 1.0, "steps": 2, "val_loss": 3.0} for name in page.TITLES}
    assert [row[-1] for row in page._stages_table(stages).rows] == ["3.000", "3.000", "", ""]
