"""The whole way in one command: what it leaves, and that it can be stopped anywhere."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from seedbed.cli import parser
from seedbed.configuration import from_arguments
from seedbed.data.skills import SKILLS
from seedbed.errors import ConfigError
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.folder import load_model
from seedbed.quickstart import stages
from seedbed.quickstart.config import QuickstartConfig
from seedbed.runs import open_folder
from seedbed.tokenizers.chat import encode_prompt
from tests.tiny import write_text

STAGES = {
    **{"corpus": "corpus", "tokenizer": "tokenizer", "tokens": "tokens", "questions": "questions"},
    **{"pretrain": "run", "evaluation/pretrain": "report", "finetune": "run", "evaluation/finetune": "report"},
}


TINY = ("--model.layers=1", "--model.width=16", "--model.heads=2")


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """The same way with a tiny model and few questions."""
    training = stages.Quickstart.training

    def tiny_training(self: stages.Quickstart, stage: str, share: float) -> list[str]:
        return [*training(self, stage, share), *(TINY if stage == "pretrain" else ())]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "HELD_OUT_PER_SKILL", 2)
        patch.setattr(stages.Quickstart, "training", tiny_training)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("source") / "text.jsonl", documents=20, words=400)


def config(source: Path, out: Path, *arguments: str) -> QuickstartConfig:
    """As short as it goes: a step or a few of each training."""
    settings = (f"--corpus={source}", f"--out={out}", "--minutes=0.01", "--device=cpu")
    return from_arguments(QuickstartConfig, [*settings, *arguments])


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory) -> Path:
    """One that was killed in the middle of each training and of each evaluation, and given again each time."""
    out = tmp_path_factory.mktemp("quickstart") / "demo"
    patch = pytest.MonkeyPatch()
    for name in ("training_items", "evaluate", "finetune", "build_page"):
        work = getattr(stages, name)

        def die(*given: object, **settings: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(stages, name, die)
        with pytest.raises(KeyboardInterrupt):
            stages.quickstart(config(source, out))
        patch.setattr(stages, name, work)
    stages.quickstart(config(source, out))
    patch.undo()
    return out


def test_the_result_holds_what_was_promised(finished):
    result = json.loads((finished / "result.json").read_text())
    assert [stage["stage"] for stage in result["stages"]] == ["pretrain", "finetune"]
    for stage in [*result["stages"], result["baseline"]]:
        assert stage["by_skill"].keys() == SKILLS.keys()
        assert 0 <= stage["skills_exact"] <= 1
    for stage in result["stages"]:
        assert 1 < stage["val_bits_per_byte"] < 20
    assert result["seconds"] > 0 and result["peak_rss_mb"] > 100 and result["finished"] is True
    assert not Path(result["model"]).is_absolute()
    assert load_model(finished / result["model"])[1].kind == "bytes"


@pytest.mark.parametrize("folder", STAGES)
def test_every_stage_leaves_a_complete_folder(folder, finished):
    open_folder(finished / folder, STAGES[folder], verify="all")
    assert json.loads((finished / folder / "result.json").read_text())["seconds"] >= 0


def test_the_report_shows_the_curve_the_table_and_samples(finished):
    markdown = (finished / "report.md").read_text()
    assert "loss.svg" in markdown and (finished / "loss.svg").read_text().lstrip().startswith("<svg")
    assert all(f"| {skill.replace('_', ' ')} |" in markdown for skill in SKILLS)
    assert "Once upon a time" in markdown
    top = markdown.partition("## ")[0]
    assert "pretrain: " in top and "steps fit into" in top  # 0.01 minutes are few
    assert "Asked after another question" in markdown
    page = (finished / "report.html").read_text()
    assert "<svg" in page and "Held-out questions" in page and "http" not in page.replace("http://www.w3.org", "")


def test_given_again_it_does_nothing_twice(finished, source, monkeypatch):
    for name in ("prepare", "train_tokenizer", "tokenize", "pretrain", "finetune", "evaluate"):
        monkeypatch.setattr(stages, name, lambda *given: pytest.fail("a stage was done again"))
    before = json.loads((finished / "result.json").read_text())
    result = stages.quickstart(config(source, finished))
    assert result["stages"] == before["stages"]
    assert result["seconds"] == pytest.approx(before["seconds"], abs=0.1)


@pytest.mark.parametrize("setting", ["seed=1", "minutes=0.02", "corpus=stdlib"])
def test_another_setting_in_the_same_folder_is_refused(setting, finished, source):
    key, _, value = setting.partition("=")
    with pytest.raises(ConfigError, match=f"was begun with {key} .*, now it is {value}"):
        stages.quickstart(config(source, finished, f"--{setting}"))


def test_a_folder_of_something_else_is_refused(source, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        stages.quickstart(config(source, tmp_path))
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"mine.txt"}


def test_no_held_out_question_is_learned_in_any_wording(finished):
    """By their prompts here; tests of the generator check their arguments."""
    with (finished / "questions" / "train.jsonl").open() as lines:
        learned = {message["content"] for line in lines for message in json.loads(line)["messages"]}
    with (finished / "questions" / "skills.jsonl").open() as lines:
        asked = [json.loads(line) for line in lines]
    assert len(asked) == 2 * len(SKILLS) and len(learned) > 300
    assert not learned & {item["prompt"] for item in asked}


def test_questions_are_complete_at_once(source, tmp_path):
    """A process that dies right after it made them has not to make them again, where they would be in the way."""
    way = stages.Quickstart(config(source, tmp_path))
    way.questions()
    assert way.stage("questions", lambda: pytest.fail("made again"))["held_out_per_skill"] == stages.HELD_OUT_PER_SKILL


def test_a_stage_that_is_asked_to_stop_says_how_to_go_on(source, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "pretrain", lambda config: {"finished": False, "steps": 3})
    result = stages.quickstart(config(source, tmp_path / "demo"))
    assert result["stopped_in"] == "pretrain" and result["finished"] is False
    words = shlex.split(result["go_on"])
    assert words[:2] == ["seedbed", "quickstart"]
    # What it says is a command that the same folder accepts.
    assert parser("quickstart").read(words[2:]).config == config(source, tmp_path / "demo")
    assert not (tmp_path / "demo" / "report.html").exists()


def test_the_model_folder_loads_untouched_in_transformers(finished):
    """As the quickstart left it; tests/parity compares more of it, on random models."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished / "finetune" / "model"
    theirs, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    engine = Engine.load(folder)
    ids = engine.encode("def grow(seed):")
    assert tokens("def grow(seed):")["input_ids"] == ids
    with torch.no_grad():
        batch = torch.tensor([ids])
        assert (theirs(batch).logits - engine.model(batch)).abs().max() <= 1e-5
        greedy = theirs.generate(batch, do_sample=False, max_new_tokens=20)[0, len(ids) :]
    ours = engine.complete([ids], SamplingConfig(temperature=0, max_tokens=20))[0].tokens
    ended = [token for token in greedy.tolist() if token not in engine.tokenizer.end_ids]
    assert ended == list(ours)
    messages = [{"role": "user", "content": "Copy seed"}]
    chat = tokens.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert chat == encode_prompt(engine.tokenizer, messages)


@pytest.mark.proof
def test_the_command_killed_in_training_goes_on_to_the_end(source, tmp_path):
    command = [sys.executable, "-m", "seedbed", "quickstart", f"--corpus={source}", "--minutes=0.3", "--out=demo"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    metrics = tmp_path / "demo" / "finetune" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size > 0):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["finished"] and result["stages"][1]["stage"] == "finetune"
    assert "corpus" not in done.stderr.replace("→ ", "→").split("→")[1]  # what was done is not done again
    assert Engine.load(tmp_path / "demo" / result["model"]).generate("Es", max_tokens=3)
