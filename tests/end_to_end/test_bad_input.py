"""Bad input by the real command line: exit code 2, one clear line, at most a line of advice, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.disks import small_disk, unprivileged
from tests.tiny import TINY_ARGUMENTS, make_tokens


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return make_tokens(tmp_path_factory.mktemp("tokens"))


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says what was wrong."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and not done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("seedbed: ")]
    assert len(lines) == 1, done.stderr
    assert len(done.stderr[done.stderr.index(lines[0]) :].splitlines()) <= 2, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.txt", None, "missing.txt"),
        ("empty.txt", b"", "empty.txt"),
        ("blank.txt", b" \n\n", "blank.txt"),
        ("garbage.txt", bytes(range(256)) * 9, "garbage.txt"),
        ("garbage.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(range(200)), "garbage.jsonl.zst"),
        ("wrong.txt", "Bäume".encode("latin-1") * 99, "not UTF-8"),
        ("wrong.jsonl", b'{"text": "a"}\n{"text": \n', "wrong.jsonl:2: not valid JSON"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(99), "picture.png"),
    ],
)
def test_text_that_cannot_be_read_is_named(name, content, said, seedbed, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert said in told(seedbed("prepare", "--source", name, "--out", "made/corpus"))
    # At most the hidden units of work, from which a plan that accepts more bad records goes on.
    left = {path.name for folder in (tmp_path, tmp_path / "made") for path in folder.glob("*")} - {"made"}
    assert left <= {name, ".corpus.units"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data.tokens=nowhere",), "nowhere does not exist"),
        (("--model.vocab_size=300",), "vocab_size is 300, but the tokenizer has 263"),
        (("--train.stepps=3",), "train.stepps"),
        (("--train.batch=viele",), "train.batch"),
    ],
)
def test_training_that_cannot_begin_is_told(arguments, said, seedbed, tmp_path, tokens):
    given = (f"--data.tokens={tokens}", "--out=made/run", "--train.steps=1", *TINY_ARGUMENTS, *arguments)
    assert said in told(seedbed("pretrain", *given))
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_smaller_than_one_window_is_told(seedbed, tmp_path):
    (tmp_path / "short.txt").write_text("Kurz.\n\nEnde.\n")
    folders = ("--corpus", "corpus", "--tokenizer", "tokenizer", "--out", "tokens")
    for arguments in (
        ("prepare", "--source", "short.txt", "--out", "corpus", "--validation_fraction", 0.5),
        ("tokenizer", "--corpus", "corpus", "--kind", "bytes", "--out", "tokenizer"),
        ("tokenize", *folders),
    ):
        done = seedbed(*arguments)
        assert done.returncode == 0, done.stderr
    line = told(seedbed("pretrain", "--data.tokens=tokens", "--out=run", "--train.steps=1", *TINY_ARGUMENTS))
    assert "fewer than one window of 16 + 1" in line
    assert not (tmp_path / "run").exists()


def test_too_many_gradients_that_are_no_numbers_end_the_run_with_an_error(seedbed, tmp_path, tokens):
    """At a rate without bound the weights overflow."""
    given = (f"--data.tokens={tokens}", "--out=run", "--train.steps=40", *TINY_ARGUMENTS, "--optimizer.name=adamw")
    given = (*given, "--optimizer.rate=1e38", "--train.checkpoint.steps=1", "--train.nonfinite_limit=3")
    done = seedbed("pretrain", *given)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "seedbed: no finite gradient 3 times in a row" in done.stderr
    assert done.stderr.count("left out: its gradient is not finite") == 3  # each is told as it comes
    assert list((tmp_path / "run" / "checkpoints").glob("step_*"))
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("left_out") == 3


def test_a_benchmark_passes_on_the_one_line(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "quickstart.py"
    command = [sys.executable, str(script), "--corpus", "nowhere.txt", "--json"]
    assert "nowhere.txt" in told(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True))


def test_a_full_disk_is_told(in_folder, tmp_path, tokens):
    given = ("--train.steps=9", *TINY_ARGUMENTS, "--model.width=64", "--train.checkpoint.steps=1")
    with small_disk(tmp_path / "small"):
        done = in_folder(tmp_path, "pretrain", f"--data.tokens={tokens}", "--out=small/run", *given)
        line = told(done)
        assert "no space left" in line or "larger than files may be" in line
        made = tmp_path / "small" / "run"
        assert not (made / "manifest.json").exists() and list(made.glob("checkpoints/.*")) == []


def test_a_folder_that_this_user_may_not_write_is_told(tmp_path):
    """In a fork of a process without its rights: what it runs has none either."""
    from seedbed.cli import main

    source = tmp_path / "text.txt"
    source.write_text("Ein Baum.\n\nNoch ein Baum.\n" * 40)
    place = tmp_path / "theirs"
    place.mkdir()
    errors = tmp_path / "errors"
    errors.touch()
    errors.chmod(0o666)
    with unprivileged(place):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(errors, os.O_WRONLY), 2)
            os._exit(main(["prepare", "--source", str(source), "--out", str(place / "corpus")]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert list(place.iterdir()) == []
