"""The stages of `seedbed quickstart`, in order.

Each stage is the same function that its own command calls, and writes the same folder. Given again after it was
stopped, the command goes on where it was.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from seedbed.alignment.direct.config import DirectConfig
from seedbed.alignment.direct.dpo import dpo
from seedbed.alignment.policy.config import GrpoConfig
from seedbed.alignment.policy.grpo import grpo
from seedbed.configuration import from_arguments, load_config
from seedbed.data.config import TokenizeConfig, TokenizerConfig
from seedbed.data.prepare import prepare
from seedbed.data.skills import SkillItem, constant_answers, held_out_items, training_items
from seedbed.data.tokenize import tokenize
from seedbed.data.vocabulary import train_tokenizer
from seedbed.devices import choose_device, peak_memory_mb
from seedbed.errors import CorruptionError
from seedbed.evaluation.config import EvaluateConfig
from seedbed.evaluation.evaluate import evaluate
from seedbed.evaluation.skills import QUESTIONS, read_items, score_constant, write_items
from seedbed.inference.engine import Engine
from seedbed.model.folder import find_model
from seedbed.quickstart.beginning import REMEMBERED, preparing, remember
from seedbed.quickstart.config import QuickstartConfig
from seedbed.quickstart.page import build_page, build_samples, print_summary
from seedbed.quickstart.preferences import write_preferences
from seedbed.quickstart.questions import write_conversations, write_problems
from seedbed.runs import (
    MANIFEST,
    check_number,
    command,
    lock,
    new_folder,
    open_folder,
    read_json,
    write_result,
)
from seedbed.training.config import PretrainConfig
from seedbed.training.pretrain import pretrain
from seedbed.training.settings import CONFIG
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.finetune import finetune

PRETRAIN_SHARE, DPO_SHARE, GRPO_SHARE = 0.20, 0.06, 0.12
"""Of the minutes. Fine-tuning takes what is left of them, less what evaluating and reporting will take."""

LEAST_SHARE = 0.1
"""Of the minutes, for fine-tuning, however little is left."""

TRAINING_QUESTIONS_PER_MINUTE = 7_500
PREFERENCES_PER_MINUTE = 500
PROBLEMS_PER_MINUTE = 150
LEAST_QUESTIONS = 600
"""Of each of them."""
HELD_OUT_PER_SKILL, VALIDATED_PER_SKILL = 200, 50
KINDS = ("corpus", "tokenizer", "tokens", "questions", "preferences", "run", "report")
"""Of the folders that the stages write."""
TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
"""In a folder of questions, or of preferences: what is learned from, and what that is validated on."""
PROBLEMS, UNSEEN = "problems.jsonl", "unseen.jsonl"
"""In the folder of questions: what GRPO asks, and what it is validated on."""
COMPARED, ASKED = 10**6, 2 * 10**6
"""Added to the seed: what DPO compares and GRPO asks is drawn anew."""


def quickstart(config: QuickstartConfig) -> dict[str, Any]:
    """Runs what is not done yet and returns the result that `result.json` holds."""
    with lock(config.out):
        remember(config)
        try:
            return Quickstart(config).run()
        except BaseException:
            if not (config.out / "corpus").exists():  # nothing was made that could be gone on with
                (config.out / REMEMBERED).unlink()
            raise


class Quickstart:
    """The stages in order, each skipped when its folder is complete."""

    def __init__(self, config: QuickstartConfig):
        self.config = config
        self.out = config.out
        self.results: dict[str, dict[str, Any]] = {}
        self.asked_to_stop = False
        self.trainings = {"pretrain": self.pretrain, "finetune": self.finetune, "dpo": self.dpo, "grpo": self.grpo}

    def run(self) -> dict[str, Any]:
        """The result of the whole; `"finished": false` when a stage was asked to stop."""
        self.stage("corpus", self.prepare)
        self.stage("tokenizer", self.tokenizer)
        self.stage("tokens", self.tokenize)
        self.stage("questions", self.questions)
        for name, train in self.trainings.items():
            if name == "dpo":
                self.stage("preferences", self.preferences)
            trained = self.stage(name, train)
            if self.asked_to_stop or not trained.get("finished", True):
                go_on = command("quickstart", self.config)
                print(f"stopped in {name}; this goes on: {go_on}", file=sys.stderr)
                interrupted = trained.get("interrupted", False)
                return {"finished": False, "interrupted": interrupted, "stopped_in": name, "go_on": go_on}
            self.stage(f"evaluation/{name}", functools.partial(self.evaluate, name))
        return self.report()

    def stage(self, folder: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Does the work of a stage unless its folder is complete; its result, with the seconds it took."""
        path = self.out / folder
        if (path / MANIFEST).is_file() and (path / "result.json").is_file():
            self.results[folder] = self.finished_result(folder)
            return self.results[folder]
        print(f"→ {folder}", file=sys.stderr)
        earlier = self.seconds_before(path)
        began = time.perf_counter()
        result = work()
        self.asked_to_stop = result.pop("asked_to_stop", False)  # it may have been finished all the same
        spent = round(earlier + time.perf_counter() - began, 2)
        self.results[folder] = {**result, "seconds": spent, "peak_rss_mb": round(peak_memory_mb(), 1)}
        if path.is_dir():
            write_result(path, self.results[folder])
        return self.results[folder]

    def finished_result(self, folder: str) -> dict[str, Any]:
        """What a stage that is complete had to say. CorruptionError when a byte of its folder has changed, or its
        result.json does not say what the report needs."""
        path = self.out / folder
        open_folder(path, KINDS, verify="all")
        needed: list[tuple[str, ...]] = []
        if folder.startswith("evaluation/"):
            needed += [("tasks", "bits_per_byte", "bits_per_byte"), ("tasks", "skills", "skills_exact")]
            needed += [("tasks", "skills", "by_skill", skill) for skill in self.baseline()["by_skill"]]
        # A process that died right after the stage had no time to add the seconds.
        return {"seconds": 0.0, **_read_result(path, needed, optional=("seconds", "peak_rss_mb", "steps", "val_loss"))}

    def seconds_before(self, path: Path) -> float:
        """What an earlier sitting, that was stopped, spent on the stage."""
        if not (path / "result.json").is_file():
            return 0.0
        return float(_read_result(path, [("seconds",)])["seconds"])

    # The stages ------------------------------------------------------------------------------------------------------

    def prepare(self) -> dict[str, Any]:
        return prepare(preparing(self.config))

    def tokenizer(self) -> dict[str, Any]:
        return train_tokenizer(TokenizerConfig(corpus=self.out / "corpus", kind="bytes", out=self.out / "tokenizer"))

    def tokenize(self) -> dict[str, Any]:
        corpus, tokenizer, out = (self.out / name for name in ("corpus", "tokenizer", "tokens"))
        return tokenize(TokenizeConfig(corpus=corpus, tokenizer=tokenizer, out=out))

    def questions(self) -> dict[str, Any]:
        """Conversations to fine-tune on, problems that GRPO asks, and held-out questions to measure with."""
        seed = self.config.seed
        count, asked = self.count(TRAINING_QUESTIONS_PER_MINUTE), self.count(PROBLEMS_PER_MINUTE)
        settings = {"count": count, "asked": asked, "held_out_per_skill": HELD_OUT_PER_SKILL, "seed": seed}
        result = {"stage": "questions", **settings}
        with new_folder(self.out / "questions", "questions", config=settings) as staging:
            shown = list(training_items(count, seed=seed))
            write_conversations(staging / TRAIN, shown, seed=seed)
            write_conversations(staging / VALIDATION, self.unseen(), seed=seed)
            write_problems(staging / PROBLEMS, training_items(asked, seed=seed + ASKED))
            write_problems(staging / UNSEEN, self.unseen())
            write_items(staging / QUESTIONS, self.measured())
            write_result(staging, result)
        return result

    def count(self, per_minute: int) -> int:
        """Of questions."""
        return max(LEAST_QUESTIONS, int(per_minute * self.config.minutes))

    def measured(self) -> list[SkillItem]:
        """What every model is measured with."""
        return list(held_out_items(HELD_OUT_PER_SKILL, seed=self.config.seed))

    def unseen(self) -> list[SkillItem]:
        """What trainings are validated on. It is held out too, or the loss would be of questions seen in other
        wordings; and none of it is measured."""
        return list(held_out_items(VALIDATED_PER_SKILL, seed=self.config.seed + 1, without=self.measured()))

    def preferences(self) -> dict[str, Any]:
        """Questions that the fine-tuned model answers, each with the right answer beside a wrong one."""
        seed, count = self.config.seed, self.count(PREFERENCES_PER_MINUTE)
        engine = Engine.load(self.out / "finetune", device=choose_device(self.config.device))
        compared = list(training_items(count, seed=seed + COMPARED))
        settings = {"count": count, "seed": seed}
        result = {"stage": "preferences", **settings}
        inputs = {"model": find_model(self.out / "finetune")}
        with new_folder(self.out / "preferences", "preferences", inputs=inputs, config=settings) as staging:
            write_preferences(staging / TRAIN, engine, compared, seed=seed)
            write_preferences(staging / VALIDATION, engine, self.unseen(), seed=seed)
            write_result(staging, result)
        return result

    def pretrain(self) -> dict[str, Any]:
        arguments = self.training("pretrain", PRETRAIN_SHARE * self.config.minutes)
        return pretrain(from_arguments(PretrainConfig, [*arguments, f"--data.tokens={self.out / 'tokens'}"]))

    def finetune(self) -> dict[str, Any]:
        questions = self.out / "questions"
        sources = [f"--model={self.out / 'pretrain'}", f"--data={questions / TRAIN}"]
        sources.append(f"--validation={questions / VALIDATION}")
        sources.append(f"--replay.tokens={self.out / 'tokens'}")
        return finetune(from_arguments(FinetuneConfig, [*self.training("finetune", self.minutes_left()), *sources]))

    def dpo(self) -> dict[str, Any]:
        rows = self.out / "preferences"
        sources = [f"--model={self.out / 'finetune'}", f"--data={rows / TRAIN}"]
        sources.append(f"--validation={rows / VALIDATION}")
        return dpo(from_arguments(DirectConfig, [*self.training("dpo", DPO_SHARE * self.config.minutes), *sources]))

    def grpo(self) -> dict[str, Any]:
        problems = self.out / "questions"
        sources = [f"--model={self.out / 'dpo'}", f"--data={problems / PROBLEMS}", f"--validation={problems / UNSEEN}"]
        return grpo(from_arguments(GrpoConfig, [*self.training("grpo", GRPO_SHARE * self.config.minutes), *sources]))

    def minutes_left(self) -> float:
        """For fine-tuning. Of a run that was begun, those that it was begun with: its steps are counted."""
        begun = self.out / "finetune" / CONFIG
        if begun.exists() and (minutes := load_config(begun, FinetuneConfig).train.minutes) is not None:
            return minutes
        spent = sum(result["seconds"] for result in self.results.values())
        # What evaluates the three models to come, asks for preferences and reports takes as long, about, as evaluating
        # the pretrained model took, whose answers do not end.
        left = 60 * self.config.minutes - spent - self.results["evaluation/pretrain"]["seconds"]
        return max(left / 60 - (DPO_SHARE + GRPO_SHARE) * self.config.minutes, LEAST_SHARE * self.config.minutes)

    def training(self, stage: str, minutes: float) -> list[str]:
        """The preset of a training stage with its part of the minutes, as its command would be told."""
        return [
            f"--config={stage}/quickstart",
            f"--out={self.out / stage}",
            f"--train.minutes={minutes}",
            f"--train.seed={self.config.seed}",
            f"--train.device={self.config.device}",
        ]

    def evaluate(self, stage: str) -> dict[str, Any]:
        return evaluate(
            EvaluateConfig(
                model=self.out / stage,
                data_dir=self.out,
                out=self.out / "evaluation" / stage,
                device=self.config.device,
            )
        )

    def report(self) -> dict[str, Any]:
        """Writes report.md, report.html and result.json."""
        began = time.perf_counter()
        samples = build_samples(self.config)
        spent = sum(result["seconds"] for result in self.results.values()) + time.perf_counter() - began
        result = {
            "finished": True,
            "stages": [self.stage_summary(stage) for stage in self.trainings],
            "baseline": self.baseline(),
            "seconds": round(spent, 2),
            "peak_rss_mb": max(result.get("peak_rss_mb", 0.0) for result in self.results.values()),
            "model": "grpo/model",
        }
        build_page(self.out, result, self.results, samples).write(self.out, "report")
        write_result(self.out, result)
        print_summary(self.out, result)
        return result

    def stage_summary(self, stage: str) -> dict[str, Any]:
        tasks = self.results[f"evaluation/{stage}"]["tasks"]
        return {"stage": stage, "val_bits_per_byte": tasks["bits_per_byte"]["bits_per_byte"], **tasks["skills"]}

    def baseline(self) -> dict[str, Any]:
        """What always giving the same answer to a skill's questions scores at best."""
        items = read_items(self.out / "questions" / QUESTIONS)
        return score_constant(items, constant_answers(items))


def _read_result(path: Path, needed: Iterable[tuple[str, ...]], optional: Iterable[str] = ()) -> dict[str, Any]:
    """The result.json of a folder. CorruptionError unless the values at `needed` are numbers, and those of the keys
    `optional` that are there."""
    file = path / "result.json"
    try:
        result = read_json(file)
        for keys in (*needed, *((key,) for key in optional if key in result)):
            check_number(result, keys, file)
    except CorruptionError as error:
        raise CorruptionError(error.problem, f"Remove {path}, then give the same command again.") from error
    return result
