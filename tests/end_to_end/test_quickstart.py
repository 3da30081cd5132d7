"""The whole way in one command: what it leaves, and that it can be stopped anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.cli import parser
from seedbed.configuration import from_arguments, save_config
from seedbed.data.config import TokenizeConfig
from seedbed.data.skills import SKILLS
from seedbed.errors import ConfigError, CorruptionError, DataError, StorageError
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.folder import load_model
from seedbed.quickstart import beginning, page, stages
from seedbed.quickstart.config import QuickstartConfig
from seedbed.runs import open_folder
from seedbed.tokenizers.chat import encode_prompt
from tests.damages import contents
from tests.tiny import write_text

STAGES = {
    **{"corpus": "corpus", "tokenizer": "tokenizer", "tokens": "tokens", "questions": "questions"},
    **{"pretrain": "run", "evaluation/pretrain": "report", "finetune": "run", "evaluation/finetune": "report"},
    **{"preferences": "preferences", "dpo": "run", "evaluation/dpo": "report"},
    **{"grpo": "run", "evaluation/grpo": "report"},
}


TINY = ("--model.layers=1", "--model.width=16", "--model.heads=2")


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """The same way with a tiny model and few questions."""
    training = stages.Quickstart.training

    def tiny_training(self: stages.Quickstart, stage: str, minutes: float) -> list[str]:
        return [*training(self, stage, minutes), *(TINY if stage == "pretrain" else ())]

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
    for name in ("training_items", "evaluate", "finetune", "write_preferences", "dpo", "grpo", "build_page"):
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
    assert [stage["stage"] for stage in result["stages"]] == ["pretrain", "finetune", "dpo", "grpo"]
    for stage in [*result["stages"], result["baseline"]]:
        assert stage["by_skill"].keys() == SKILLS.keys()
        assert 0 <= stage["skills_exact"] <= 1
    for stage in result["stages"]:
        assert 1 < stage["val_bits_per_byte"] < 20
    assert result["seconds"] > 0 and result["peak_rss_mb"] > 100 and result["finished"] is True
    assert result["model"] == "grpo/model"  # that of the last stage, wherever the folder is moved to
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
    assert "pretrain: " in top and "too few to learn" in top  # 0.01 minutes are few
    assert "Asked after another question" in markdown
    html = (finished / "report.html").read_text()
    assert "<svg" in html and "Held-out questions" in html and "http" not in html.replace("http://www.w3.org", "")


def test_samples_come_from_the_seed_and_the_device_that_were_chosen(finished, source, monkeypatch):
    devices, texts = [], {}
    monkeypatch.setattr(page, "choose_device", lambda wanted: devices.append(wanted) or torch.device("cpu"))
    for seed in (0, 1):
        blocks = page.build_samples(replace(config(source, finished, "--device=mps"), seed=seed))
        texts[seed] = [block.text for block in blocks]
    assert devices == ["mps", "mps"]
    assert texts[0][1] != texts[1][1]  # a text that it makes up
    assert texts[0][-1] == texts[1][-1]  # the answers, which were given before


def test_given_again_it_does_nothing_twice(finished, source, monkeypatch):
    works = ("prepare", "train_tokenizer", "tokenize", "pretrain", "finetune", "dpo", "grpo", "evaluate")
    for name in (*works, "write_preferences"):
        monkeypatch.setattr(stages, name, lambda *given: pytest.fail("a stage was done again"))
    before = json.loads((finished / "result.json").read_text())
    result = stages.quickstart(config(source, finished))
    assert result["stages"] == before["stages"]
    assert result["seconds"] >= 0.5 * before["seconds"]  # what was spent before counts; the report is written again


def test_fine_tuning_has_the_minutes_that_are_left_and_goes_on_with_them(source, tmp_path, monkeypatch):
    """Of 600 seconds 200 are spent, and a part is for DPO and GRPO; evaluating and the report will take as long as
    evaluating took."""
    begun = []
    monkeypatch.setattr(stages, "finetune", lambda config: begun.append(config) or {})
    way = stages.Quickstart(replace(config(source, tmp_path), minutes=10))
    way.results = {"corpus": {"seconds": 30}, "pretrain": {"seconds": 120}, "evaluation/pretrain": {"seconds": 50}}
    way.finetune()
    assert begun[0].train.minutes == pytest.approx((600 - 200 - 50) / 60 - 10 * (stages.DPO_SHARE + stages.GRPO_SHARE))
    assert begun[0].replay.tokens == tmp_path / "tokens"
    (tmp_path / "finetune").mkdir()
    save_config(tmp_path / "finetune" / "config.yaml", replace(begun[0], train=replace(begun[0].train, steps=70)))
    way.results["corpus"]["seconds"] = 31  # the second sitting counts otherwise; the run's steps are counted already
    way.finetune()
    assert begun[1].train.minutes == begun[0].train.minutes
    way.results["pretrain"]["seconds"] = 900
    (tmp_path / "finetune" / "config.yaml").unlink()
    way.finetune()
    assert begun[2].train.minutes == 1  # a tenth, though nothing is left


def test_a_text_that_has_changed_is_refused_and_a_copy_of_it_is_none(finished, source, tmp_path):
    mine = tmp_path / "text.jsonl"
    shutil.copytree(finished, tmp_path / "demo")
    remembered = tmp_path / "demo" / beginning.REMEMBERED
    remembered.write_text(remembered.read_text().replace(str(source), str(mine)))
    shutil.copyfile(source, mine)  # another file, of another time
    way = config(mine, tmp_path / "demo")
    beginning.remember(way)
    mine.write_text(source.read_text().replace("seed", "weed", 1))  # of the same size
    with pytest.raises(DataError, match=r"text\.jsonl has changed since .*demo was begun") as told:
        stages.quickstart(way)
    assert "another --out" in told.value.fix
    mine.unlink()  # what is gone is not needed any more
    beginning.remember(way)


def test_a_text_too_large_to_be_read_again_is_not_compared_and_that_is_said(finished, source, monkeypatch, capsys):
    monkeypatch.setattr(beginning, "COMPARED_BYTES", source.stat().st_size - 1)
    monkeypatch.setattr(beginning, "hash_source", lambda source: pytest.fail("read again"))
    beginning.remember(config(source, finished))
    assert "whether it has changed is not checked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "content", "said"),
    [
        ("corpus", "", "cannot be read"),
        ("corpus", "[" * 100_000, "nested too deeply"),
        ("tokens", "[]", "must hold a JSON object, got a list"),
        ("questions", '{"seconds": "long"}', 'seconds must be a number, got a text ("long")'),
        ("pretrain", '{"seconds": 1, "steps": []}', "steps must be a number, got a list"),
        ("pretrain", '{"seconds": NaN}', "NaN is not JSON"),
        ("evaluation/pretrain", '{"seconds": 1}', "tasks.bits_per_byte.bits_per_byte must be a number, got null"),
        ("evaluation/pretrain", '{"tasks": 3}', "tasks.bits_per_byte.bits_per_byte must be a number"),
    ],
)
def test_a_damaged_result_of_a_stage_is_told(stage, content, said, finished, source):
    file = finished / stage / "result.json"
    whole = file.read_bytes()
    file.write_text(content)
    try:
        with pytest.raises(CorruptionError) as caught:
            stages.quickstart(config(source, finished))
        assert str(file) in caught.value.problem and said in caught.value.problem
        assert caught.value.fix == f"Remove {file.parent}, then give the same command again."
    finally:
        file.write_bytes(whole)


def test_a_changed_file_of_a_stage_is_found_before_it_is_gone_on_with(finished, source):
    file = finished / "evaluation" / "finetune" / "skills.jsonl"
    whole = file.read_bytes()
    file.write_bytes(b"[" + whole[1:])
    try:
        with pytest.raises(CorruptionError, match=r"skills\.jsonl was changed"):
            stages.quickstart(config(source, finished))
    finally:
        file.write_bytes(whole)


def test_a_process_that_died_before_it_wrote_the_seconds_goes_on(finished, source):
    file = finished / "questions" / "result.json"
    whole = file.read_bytes()
    file.write_text('{"stage": "questions"}')
    try:
        assert stages.quickstart(config(source, finished))["finished"]
    finally:
        file.write_bytes(whole)


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


def test_of_two_at_once_the_second_is_told_that_the_folder_is_in_use_and_the_first_goes_on(source, tmp_path):
    out, (asked, ask), (answered, answer) = tmp_path / "demo", os.pipe(), os.pipe()
    torch.set_num_threads(1)  # the threads of torch do not come along into a fork
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException), pytest.MonkeyPatch.context() as patch:
            tokenize = stages.tokenize

            def wait(given: TokenizeConfig) -> dict[str, Any]:
                os.write(ask, b"x")
                os.read(answered, 1)
                return tokenize(given)

            patch.setattr(stages, "tokenize", wait)
            code = 0 if stages.quickstart(config(source, out))["finished"] else 1
        os._exit(code)
    os.read(asked, 1)
    before = contents(out)
    for arguments in ((), ("--seed=1",)):
        with pytest.raises(StorageError, match=f"demo is in use by process {child} on"):
            stages.quickstart(config(source, out, *arguments))
    assert contents(out) == before
    os.write(answer, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    open_folder(out / "grpo" / "model", "model", verify="all")


def test_no_held_out_question_is_learned_in_any_wording(finished):
    """By their prompts here; tests of the generator check their arguments."""
    with (finished / "questions" / "train.jsonl").open() as lines:
        learned = {message["content"] for line in lines for message in json.loads(line)["messages"]}
    for file in ("preferences/train.jsonl", "questions/problems.jsonl"):
        with (finished / file).open() as lines:
            learned |= {json.loads(line)["prompt"] for line in lines}
    with (finished / "questions" / "skills.jsonl").open() as lines:
        asked = [json.loads(line) for line in lines]
    assert len(asked) == 2 * len(SKILLS) and len(learned) > 300
    assert not learned & {item["prompt"] for item in asked}


def test_questions_are_complete_at_once(source, tmp_path):
    """A process that dies right after it made them has not to make them again, where they would be in the way."""
    way = stages.Quickstart(config(source, tmp_path))
    way.questions()
    assert way.stage("questions", lambda: pytest.fail("made again"))["held_out_per_skill"] == stages.HELD_OUT_PER_SKILL


@pytest.mark.parametrize("told", [{"finished": False}, {"finished": True, "asked_to_stop": True}])
def test_a_stage_that_is_asked_to_stop_says_how_to_go_on(told, source, tmp_path, monkeypatch):
    """Also when it was in its last step."""
    monkeypatch.setattr(stages, "pretrain", lambda config: {**told, "steps": 3})
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

    folder = finished / "grpo" / "model"
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
@pytest.mark.parametrize("stage", ["finetune", "dpo", "grpo"])
def test_the_command_killed_in_training_goes_on_to_the_end(stage, source, tmp_path):
    command = [sys.executable, "-m", "seedbed", "quickstart", f"--corpus={source}", "--minutes=0.3", "--out=demo"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    metrics = tmp_path / "demo" / stage / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size > 0):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["finished"] and result["stages"][-1]["stage"] == "grpo"
    assert "corpus" not in done.stderr.replace("→ ", "→").split("→")[1]  # what was done is not done again
    assert Engine.load(tmp_path / "demo" / result["model"]).generate("Es", max_tokens=3)
