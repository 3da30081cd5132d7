"""Every command of the way, by the real command line, each on what the one before it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedbed.data.skills import SKILLS, held_out_items
from seedbed.evaluation.skills import write_items
from seedbed.model.folder import load_model
from seedbed.runs import open_folder, sha256_file

TINY = (
    *("--model.layers", 1, "--model.width", 16, "--model.heads", 2, "--model.ff_width", 32, "--model.context", 128),
    *("--data.length", 32, "--train.batch", 4),
)
PREPARE = ("prepare", "--source", "text.jsonl", "--out", "corpus", "--validation_fraction", 0.2)
COMMANDS: dict[str, tuple[Any, ...]] = {
    "prepare": PREPARE,
    "tokenizer": ("tokenizer", "--corpus", "corpus", "--kind", "byte_pair", "--vocab_size", 280, "--out", "tokenizer"),
    "tokenize": ("tokenize", "--corpus", "corpus", "--tokenizer", "tokenizer", "--out", "tokens"),
    "pretrain": ("pretrain", "--data.tokens", "tokens", "--out", "run", "--train.steps", 5, *TINY),
    "finetune": ("finetune", "--model", "run", "--data", "facts.jsonl", "--out", "tuned", "--train.steps", 2),
    "evaluate": ("evaluate", "--model", "tuned", "--data_dir", ".", "--out", "report"),
    "generate": ("generate", "--model", "tuned/model", "--prompt", "Es war", "--max_tokens", 5),
    "chat": ("chat", "--model", "tuned", "--max_tokens", 5),
    "inspect": ("inspect", "--model", "run"),
}


@pytest.fixture(scope="module")
def way(text, in_folder, tmp_path_factory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder in which all was done, and what each command said with --json."""
    place = tmp_path_factory.mktemp("whole way")
    (place / "text.jsonl").write_bytes(text.read_bytes())
    rows = [{"prompt": f"say {n}", "response": str(n)} for n in range(6)]
    (place / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_items(place / "skills.jsonl", held_out_items(1))
    said = {}
    for name, arguments in COMMANDS.items():
        done = in_folder(place, *arguments, "--json", typed="Hallo\n\nNoch da?\n")
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert "Traceback" not in done.stderr
        said[name] = json.loads(done.stdout.splitlines()[-1])
    return place, said


def test_every_command_says_what_it_did_in_json(way):
    _, said = way
    assert said["prepare"]["stage"] == "prepare"
    assert said["tokenizer"]["out"] == "tokenizer"
    assert said["pretrain"]["steps"] == 5 and said["pretrain"]["val_bits_per_byte"] > 0
    assert said["finetune"]["finished"] is True
    assert said["evaluate"]["tasks"]["skills"]["by_skill"].keys() == SKILLS.keys()
    assert said["generate"]["completions"][0]["prompt"] == "Es war"
    assert [message["role"] for message in said["chat"]["messages"]] == ["user", "assistant"] * 2
    assert said["chat"]["messages"][2]["content"] == "Noch da?"
    assert said["inspect"]["parameters"]["total"] == sum(
        weight.numel() for weight in load_model(way[0] / "run")[0].parameters()
    )


@pytest.mark.parametrize("folder", ["corpus", "tokenizer", "tokens", "run", "tuned", "report"])
def test_every_folder_holds_its_result(folder, way):
    place, said = way
    names = {"corpus": "prepare", "tokens": "tokenize", "run": "pretrain", "tuned": "finetune", "report": "evaluate"}
    result = json.loads((place / folder / "result.json").read_text())
    expected = said[names.get(folder, folder)]
    assert {key: result[key] for key in result.keys() & expected.keys()} == {
        key: expected[key] for key in result.keys() & expected.keys()
    }
    assert result.keys() & expected.keys()


def test_a_report_can_be_traced_to_the_raw_text(way):
    place, _ = way
    folders = {
        name: open_folder(place / name, kind, verify="all")
        for name, kind in {
            **{"corpus": "corpus", "tokenizer": "tokenizer", "tokens": "tokens", "run": "run", "run/model": "model"},
            **{"tuned": "run", "tuned/model": "model", "report": "report"},
        }.items()
    }
    assert folders["report"].inputs["model"] == folders["tuned/model"].hash
    assert folders["tuned/model"].inputs["model"] == folders["run/model"].hash
    assert folders["tuned/model"].inputs["data"] == sha256_file(place / "facts.jsonl")
    assert folders["run/model"].inputs["tokens"] == folders["tokens"].hash
    assert folders["tokens"].inputs["corpus"] == folders["corpus"].hash
    assert folders["tokens"].inputs["tokenizer"] == folders["tokenizer"].hash
    assert folders["tokenizer"].inputs["corpus"] == folders["corpus"].hash
    assert len(folders["corpus"].inputs["source"]) == 64


def test_a_folder_that_is_there_is_never_overwritten(way, in_folder):
    place, _ = way
    before = (place / "corpus" / "manifest.json").read_bytes()
    again = in_folder(place, *PREPARE)
    assert again.returncode == 0 and "nothing was done" in again.stdout
    other = in_folder(place, *PREPARE, "--validation_fraction=0.5")
    assert other.returncode == 2 and "exists and is not empty" in other.stderr
    assert (place / "corpus" / "manifest.json").read_bytes() == before
