"""Where `--out` may point: each place works, or is refused in one line with nothing harmed and nothing left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from seedbed.cli import main
from seedbed.runs import open_folder
from tests.damages import contents
from tests.tiny import TINY_ARGUMENTS, make_tokens, write_text

TRAINING = ("--train.steps=1", *TINY_ARGUMENTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A text, and all that is made of it up to a run."""
    place = tmp_path_factory.mktemp("made")
    make_tokens(place)
    (place / "text").mkdir()
    write_text(place / "text" / "text.jsonl")
    (place / "facts.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "d"}\n')
    assert main(["pretrain", f"--data.tokens={place / 'tokens'}", f"--out={place / 'run'}", *TRAINING]) == 0
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


COMMANDS = {
    "prepare": ("prepare", "--source=text"),
    "tokenizer": ("tokenizer", "--corpus=corpus", "--kind=bytes"),
    "tokenize": ("tokenize", "--corpus=corpus", "--tokenizer=tokenizer"),
    "tokens": ("tokens", "export", "--format=megatron", "--tokens=tokens"),
    "pretrain": ("pretrain", "--data.tokens=tokens", *TRAINING),
    "finetune": ("finetune", "--model=run", "--data=facts.jsonl", "--train.steps=1", "--train.device=cpu"),
    "quantize": ("quantize", "--model=run"),
    "evaluate": ("evaluate", "--model=run", "--data_dir=.", "--tasks=[bits_per_byte]"),
    "benchmark": ("benchmark", "--model=run", "--batch=1", "--prompt_tokens=4", "--output_tokens=4"),
}
INPUTS = [
    *(("prepare", "text"), ("tokenizer", "corpus"), ("tokenize", "corpus"), ("tokenize", "tokenizer")),
    *(
        ("tokens", "tokens"),
        ("pretrain", "tokens"),
        ("finetune", "run"),
        ("finetune", "run/model"),
        ("quantize", "run"),
        ("quantize", "run/model"),
        ("evaluate", "run"),
        ("benchmark", "run"),
    ),
]


def told(capsys) -> str:
    """The one line of an error."""
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("seedbed: ")]
    assert len(lines) == 1 and "Traceback" not in said, said
    return lines[0]


@pytest.mark.parametrize(("command", "folder"), INPUTS)
def test_a_folder_that_is_read_is_never_written_over(command, folder, place, capsys):
    before = contents(place)
    assert main([*COMMANDS[command], f"--out={folder}"]) == 2
    assert folder in told(capsys)
    assert contents(place) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_is_never_written_over(command, place, capsys):
    for out in ("facts.jsonl", "facts.jsonl/inside"):
        before = contents(place)
        assert main([*COMMANDS[command], f"--out={out}"]) == 2
        assert "facts.jsonl" in told(capsys)
        assert contents(place) == before


@pytest.mark.parametrize("command", ["prepare", "pretrain"])
def test_a_place_inside_the_folder_that_is_read_changes_nothing_of_it_and_gives_the_same(command, place):
    inside = {"prepare": "text/made/out", "pretrain": "tokens/made/out"}[command]
    before = {name: raw for name, raw in contents(place).items() if not name.startswith(inside)}
    assert main([*COMMANDS[command], "--out=../elsewhere"]) == 0
    assert main([*COMMANDS[command], f"--out={inside}"]) == 0
    kind = {"prepare": "corpus", "pretrain": "run"}[command]
    one, other = (open_folder(place / out, kind, verify="all") for out in (inside, "../elsewhere"))
    # Those of JSON and YAML may name paths; tensors of a checkpoint stand in any order.
    names = {
        name for name in one.files if not name.endswith((".json", ".yaml")) and not name.startswith("checkpoints/")
    }
    assert names and {name: one.files[name] for name in names} == {name: other.files[name] for name in names}
    after = contents(place)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("command", ["prepare", "pretrain"])
@pytest.mark.parametrize(
    "name", ["two words", " ", "Bäume — 木 🌱", 'it\'s "quoted" $HOME;', "-dash", "x" * 200, "木" * 70]
)
def test_any_name_that_the_disk_takes_will_do(command, name, place):
    assert main([*COMMANDS[command], f"--out=new/{name}"]) == 0
    open_folder(place / "new" / name, {"prepare": "corpus", "pretrain": "run"}[command], verify="all")
    assert os.listdir(place / "new") == [name]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_too_long_for_the_disk_is_told(command, place, capsys):
    before = contents(place)
    assert main([*COMMANDS[command], f"--out=new/{'x' * 300}"]) == 2
    assert "ame too long" in told(capsys)
    assert contents(place) == before and not (place / "new").exists()


@pytest.mark.parametrize("command", ["prepare", "pretrain"])
def test_a_link_is_followed_and_stays(command, place, tmp_path):
    (tmp_path / "there").mkdir()
    (place / "link").symlink_to(tmp_path / "there")
    (place / "ahead").symlink_to(tmp_path / "later")
    for out, real in (("link", "there"), ("ahead", "later"), ("link/inside", "there/inside")):
        if out == "link/inside":
            shutil.rmtree(tmp_path / "there")
            (tmp_path / "there").mkdir()
        assert main([*COMMANDS[command], f"--out={out}"]) == 0
        open_folder(tmp_path / real, {"prepare": "corpus", "pretrain": "run"}[command], verify="all")
    assert (place / "link").is_symlink() and (place / "ahead").is_symlink()


@pytest.mark.parametrize("command", COMMANDS)
def test_links_that_lead_nowhere_are_told(command, place, capsys):
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    assert main([*COMMANDS[command], "--out=one"]) == 2
    assert "one" in told(capsys)
