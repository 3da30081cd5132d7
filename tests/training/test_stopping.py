"""What a run that was stopped says, and how its command ends; what its folder says when it is used."""

from __future__ import annotations

import signal

import pytest

from seedbed.cli import main
from seedbed.training.trainer import Trainer
from tests.tiny import TINY_ARGUMENTS


@pytest.fixture
def stop(monkeypatch, tokens, tmp_path):
    """Runs `seedbed pretrain` that a signal meets in its third step; the exit code."""
    run_step = Trainer.run_step

    def run(number: signal.Signals) -> int:
        def stop_at_3(trainer: Trainer) -> None:
            if trainer.progress.step == 2:
                signal.raise_signal(number)
            run_step(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "run_step", stop_at_3)
            given = (f"--data.tokens={tokens}", f"--out={tmp_path / 'run'}", "--train.steps=8", *TINY_ARGUMENTS)
            return main(["pretrain", *given])

    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_stopped_command_says_that_it_is_saved_and_how_it_goes_on(number, code, stop, capsys):
    assert stop(number) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seedbed: ")]
    assert said == ["seedbed: stopped at step 3 of 8 and saved; the same command goes on"]


@pytest.mark.parametrize("command", ["generate", "chat", "evaluate", "finetune"])
def test_a_command_on_an_unfinished_run_says_which_checkpoint_stands_for_it(
    command, stop, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    stop(signal.SIGTERM)
    capsys.readouterr()
    monkeypatch.setattr("builtins.input", lambda prompt: "/exit")
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "d"}\n')
    (tmp_path / "skills.jsonl").write_text('{"skill": "s", "prompt": "a", "answer": "b"}\n')
    given = {
        "generate": ["--prompt=a", "--max_tokens=1"],
        "chat": [],
        "evaluate": [f"--data_dir={tmp_path}", f"--out={tmp_path / 'report'}", "--tasks=skills"],
        "finetune": [f"--data={tmp_path / 'd.jsonl'}", f"--out={tmp_path / 'tuned'}", "--train.steps=1"],
    }
    main([command, f"--model={run}", *given[command]])
    assert capsys.readouterr().err.count(f"{run} is not finished: step_00000003 is taken\n") == 1


def test_a_finished_run_is_used_without_a_word(tokens, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["pretrain", f"--data.tokens={tokens}", f"--out={run}", "--train.steps=1", *TINY_ARGUMENTS]) == 0
    capsys.readouterr()
    assert main(["generate", f"--model={run}", "--prompt=a", "--max_tokens=1"]) == 0
    assert capsys.readouterr().err == ""
