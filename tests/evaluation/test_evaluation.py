"""What a report says is what the model did."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import seedbed.evaluation.evaluate as room
from seedbed.data.config import PrepareConfig
from seedbed.data.corpus import Corpus
from seedbed.data.prepare import prepare
from seedbed.data.skills import SKILLS, SkillItem, constant_answers, held_out_items, training_items
from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.evaluation import skills
from seedbed.evaluation.config import EvaluateConfig
from seedbed.evaluation.evaluate import evaluate
from seedbed.evaluation.likelihood import measure_likelihood
from seedbed.evaluation.skills import read_items, score_constant, score_skills, write_items
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generation import Completion
from seedbed.model.folder import load_model
from seedbed.model.transformer import Transformer
from seedbed.runs import open_folder, read_manifest, sha256_file
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.tiny import TINY, save_tiny_model, tiny_model, write_text

TOKENIZER = byte_tokenizer.build()
TEXTS = ["näh — 木", "a", "Die Bäume wachsen langsam und still, sehr still.", "x" * 33, "y" * 32, "z" * 65]


# Bits per byte -------------------------------------------------------------------------------------------------------


def measure(model: Transformer, texts: Sequence[str], max_bytes: int = 10**6, batch: int = 2):
    return measure_likelihood(model.eval(), TOKENIZER, texts, max_bytes=max_bytes, batch=batch)


def test_a_model_that_knows_nothing_needs_log2_of_its_vocabulary_for_a_byte():
    """Closed form: with logits of nought every token costs log V, and here every token is a byte."""
    model = tiny_model()
    torch.nn.init.zeros_(model.head.weight)
    found = measure(model, TEXTS)
    size = sum(len(text.encode()) for text in TEXTS)
    assert found.bytes == found.tokens == size
    assert found.bits_per_byte == pytest.approx(math.log2(263), abs=1e-6)
    assert found.perplexity == pytest.approx(263, rel=1e-6)


def test_the_surprise_is_the_sum_over_windows_of_the_context():
    """By hand: each text begins with <s>, and is cut every 32 tokens, without overlap and without a gap."""
    model = tiny_model().eval()
    nats = 0.0
    with torch.no_grad():
        for text in TEXTS:
            ids = TOKENIZER.encode(text, bos=True)
            for start in range(0, len(ids) - 1, TINY.context):
                window = torch.tensor([ids[start : start + TINY.context + 1]])
                logprobs_TV = model(window[:, :-1])[0].log_softmax(-1)
                nats -= float(logprobs_TV.gather(-1, window[0, 1:, None]).sum())
    assert measure(model, TEXTS).nats == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_the_surprise_does_not_depend_on_the_batch(batch):
    model = tiny_model()
    one, other = measure(model, TEXTS, batch=batch), measure(model, TEXTS, batch=2)
    assert one.nats == pytest.approx(other.nats, rel=1e-5) and one.bytes == other.bytes


def test_the_beginning_of_every_text_is_read_and_no_more_bytes_than_allowed():
    texts = ["abcdXX", "efgYYY", "ijkl"]
    assert measure(tiny_model(), texts, max_bytes=10).bytes == 9
    short = measure(tiny_model(), ["abc", "efg", "ijk"])
    assert measure(tiny_model(), texts, max_bytes=10).nats == pytest.approx(short.nats)


def test_bytes_are_counted_not_characters():
    assert measure(tiny_model(), ["木" * 20, "木" * 20], max_bytes=62).bytes == 60


# Skills --------------------------------------------------------------------------------------------------------------


@dataclass
class FakeEngine:
    """Says what it is told to, and remembers what it was asked."""

    answers: dict[str, str]
    tokenizer = TOKENIZER
    context: int = 200

    def __post_init__(self) -> None:
        self.config = EngineConfig(rows=2)
        self.asked: list[str] = []

    def fits(self, ids: Sequence[int]) -> bool:
        return len(ids) < self.context

    def submit(self, ids: Sequence[int], sampling: SamplingConfig, **_: object) -> SimpleNamespace:
        assert sampling.temperature == 0
        asked = self.tokenizer.decode(list(ids), skip_special=False)
        self.asked.append(asked)
        last = asked.split("<|im_start|>user\n")[-1]
        said = next(said for question, said in self.answers.items() if last.startswith(f"{question}<"))
        return SimpleNamespace(reason="end", error=None, completion=Completion(said, (), "end"))

    def step(self) -> None:
        """All has been said already."""


ITEMS = [
    SkillItem("adding", "1", "one long question?", "1"),
    SkillItem("adding", "2", "two?", "2"),
    SkillItem("adding", "3", "three, a longer question?", "3"),
    SkillItem("saying", "4", "four?", "vier"),
    SkillItem("saying", "5", "five?", "fünf"),
]


def test_an_answer_counts_when_it_is_right_to_the_letter():
    given = {
        "one long question?": "1",
        "two?": " 2\n",  # blanks around it are no part of an answer
        "three, a longer question?": "3.",
        "four?": "Vier",
        "five?": "fünf",
    }
    engine = FakeEngine(given)
    scores = score_skills(engine, ITEMS)
    assert scores.by_skill == {"adding": 2 / 3, "saying": 1 / 2}
    assert scores.skills_exact == 3 / 5  # over all questions, not the mean of the skills
    assert [(row["prompt"], row["given"]) for row in scores.answers] == list(given.items())
    assert len(engine.asked) == 5 + 2
    assert all(prompt.endswith("<|im_start|>assistant\n") for prompt in engine.asked)


def test_some_questions_are_asked_again_after_another_and_its_right_answer():
    engine = FakeEngine({"one long question?": "1", "two?": "", "three, a longer question?": "", "five?": "5"})
    engine.answers["four?"] = "4"
    scores = score_skills(engine, ITEMS)
    assert scores.second_turn_exact == 1 / 2  # the first is right, the fifth is not
    assert scores.skills_exact == 1 / 5
    told = {item.prompt: item.answer for item in ITEMS}
    for prompt in engine.asked[5:]:
        _, earlier, answer, _, _ = prompt.split("<|im_start|>")
        question = earlier.removeprefix("user\n").removesuffix("<|im_end|>\n")
        assert answer == f"assistant\n{told[question]}<|im_end|>\n"


def test_no_question_is_asked_after_itself():
    pair = [SkillItem("s", "a", "a?", "1"), SkillItem("s", "b", "b?", "2")]
    engine = FakeEngine({"a?": "1", "b?": "2"})
    for (item, prompt), other in zip(skills._second_turns(engine, [*pair, *pair]), pair[1:], strict=True):
        text = engine.tokenizer.decode(prompt)
        assert item == pair[0] and text.index(other.prompt) < text.index(item.prompt)
    assert score_skills(engine, pair[:1]).second_turn_exact is None


@pytest.mark.parametrize(("context", "asked"), [(200, 2), (60, 1), (40, 0)])
def test_second_turns_that_the_context_does_not_hold_are_left_out_and_counted(context, asked):
    engine = FakeEngine(dict.fromkeys((item.prompt for item in ITEMS), "1"), context)
    scores = score_skills(engine, ITEMS)
    assert len(engine.asked) == 5 + asked
    assert scores.second_turns_left_out == 2 - asked
    assert (scores.second_turn_exact is None) == (asked == 0)


def test_the_baseline_is_one_answer_for_each_skill():
    training = [SkillItem("a", str(i), "", answer) for i, answer in enumerate(["x", "y", "y"])]
    training += [SkillItem("b", "1", "", "z")]
    items = [SkillItem("a", "7", "", "y"), SkillItem("a", "8", "", "x"), SkillItem("b", "9", "", "q")]
    assert constant_answers(training) == {"a": "y", "b": "z"}
    assert score_constant(items, constant_answers(training)) == {
        "skills_exact": 1 / 3,
        "by_skill": {"a": 0.5, "b": 0.0},
    }
    assert score_constant(items, {})["skills_exact"] == 0


def test_the_baseline_of_the_quickstart_cannot_answer_much():
    baseline = score_constant(list(held_out_items(50)), constant_answers(training_items(3000)))
    assert baseline["by_skill"].keys() == SKILLS.keys()
    assert 0 < baseline["skills_exact"] < 0.2 and baseline["by_skill"]["copying"] == 0


def test_questions_come_back_from_their_file(tmp_path):
    items = list(held_out_items(3))
    write_items(tmp_path / "skills.jsonl", items)
    assert read_items(tmp_path / "skills.jsonl") == items


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"skill": "a", "prompt": "b", "answer": "c"}\n{"skill": "a", "prompt": "b"}\n', "row 2: answer is missing"),
        ('{"skill": "a", "prompt": 7, "answer": "c"}\n', "row 1: prompt is missing or not a text"),
        ("", r"skills\.jsonl"),
        ("{", r"skills\.jsonl"),
        ("[1]\n", r"skills\.jsonl"),
    ],
)
def test_a_file_without_proper_questions_is_named(lines, said, tmp_path):
    (tmp_path / "skills.jsonl").write_text(lines)
    with pytest.raises((DataError, CorruptionError), match=said):
        read_items(tmp_path / "skills.jsonl")


def rows_at_once(monkeypatch) -> list[int]:
    """How many were being answered, before each step of any engine."""
    seen: list[int] = []
    step = Engine.step

    def watching(self: Engine):
        seen.append(len(self.scheduler.running) + len(self.scheduler.waiting))
        return step(self)

    monkeypatch.setattr(Engine, "step", watching)
    return seen


@pytest.mark.parametrize("task", ["skills", "refusals", "answers"])
def test_no_more_questions_than_a_batch_are_asked_at_once(task, base, tmp_path, monkeypatch):
    rows = {
        "skills": [{"skill": "s", "prompt": f"{number}?", "answer": "a"} for number in range(6)],
        "refusals": [{"harmful": f"{number}!", "harmless": f"{number}."} for number in range(3)],
        "answers": [{"prompt": f"{number}?", "response": "a"} for number in range(6)],
    }
    (tmp_path / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[task]))
    seen = rows_at_once(monkeypatch)
    evaluate(
        EvaluateConfig(model=base, data_dir=tmp_path, out=tmp_path / "out", tasks=[task], batch=2, longest_answer=4)
    )
    assert max(seen) == 2


# The report ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("data")
    source = write_text(place / "source.jsonl")
    prepare(PrepareConfig(source=str(source), out=place / "corpus", validation_fraction=0.2))
    write_items(place / "skills.jsonl", held_out_items(2))
    return place


@pytest.fixture(scope="module")
def report(data, base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report"
    evaluate(EvaluateConfig(model=base, data_dir=data, out=out, device="cpu", batch=5))
    return out


def test_a_report_holds_the_numbers_of_every_task(report, base, data):
    numbers = json.loads((report / "report.json").read_text())
    model, tokenizer = load_model(base)
    texts = [document.text for document in Corpus.open(data / "corpus").documents("val")]
    found = measure_likelihood(model, tokenizer, texts, max_bytes=10**9, batch=1)
    assert numbers["bits_per_byte"]["bits_per_byte"] == pytest.approx(found.bits_per_byte, rel=1e-5)
    assert numbers["bits_per_byte"]["bytes"] == sum(len(text.encode()) for text in texts)
    assert numbers["skills"]["by_skill"].keys() == SKILLS.keys()
    result = json.loads((report / "result.json").read_text())
    assert result["tasks"] == numbers and result["seconds"] > 0
    assert "bits_per_byte" in (report / "README.md").read_text()


def test_a_report_shows_every_answer(report):
    rows = [json.loads(line) for line in (report / "skills.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [item.prompt for item in held_out_items(2)]
    assert all(row.keys() == {"skill", "prompt", "answer", "given"} for row in rows)


def test_a_report_names_the_model_and_the_data(report, base, data):
    assert open_folder(report, "report", verify="all").inputs == {
        "model": read_manifest(base).hash,
        "data of skills": sha256_file(data / "skills.jsonl"),
        "data of bits_per_byte": read_manifest(data / "corpus").hash,
    }


def test_the_same_evaluation_gives_the_same_report(report, base, data, tmp_path):
    evaluate(EvaluateConfig(model=base, data_dir=data, out=tmp_path / "again", device="cpu", batch=5))
    assert read_manifest(tmp_path / "again").hash == read_manifest(report).hash


@pytest.mark.parametrize(("task", "said"), [("skills", "the task skills needs"), ("bits_per_byte", "needs a corpus")])
def test_missing_data_is_an_error_before_any_work(task, said, base, tmp_path, monkeypatch):
    monkeypatch.setattr(room.Engine, "load", lambda *given, **named: pytest.fail("a model was loaded"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        evaluate(EvaluateConfig(model=base, data_dir=tmp_path / "empty", out=tmp_path / "report", tasks=[task]))
    assert not (tmp_path / "report").exists()


def test_a_model_that_is_not_there_leaves_no_report(data, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        evaluate(EvaluateConfig(model=tmp_path / "nowhere", data_dir=data, out=tmp_path / "report"))
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("tasks", [["chess"], []])
def test_a_task_that_nobody_knows_and_no_task_at_all_are_refused(tasks, tmp_path):
    with pytest.raises(ConfigError, match="tasks"):
        EvaluateConfig(model=tmp_path, data_dir=tmp_path, out=tmp_path, tasks=tasks)


def test_a_question_longer_than_the_context_is_told(data, tmp_path):
    model = save_tiny_model(tmp_path / "model", context=16)
    with pytest.raises(DataError, match="the model's context is 16"):
        evaluate(EvaluateConfig(model=model, data_dir=data, out=tmp_path / "report", tasks=["skills"], device="cpu"))
    assert not (tmp_path / "report").exists()
