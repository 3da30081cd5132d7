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

from seedbed.configuration import from_arguments, load_config, save_config, to_dict
from seedbed.data.config import PrepareConfig, TokenizeConfig, TokenizerConfig
from seedbed.data.prepare import hash_source, prepare
from seedbed.data.skills import constant_answers, held_out_items, training_items
from seedbed.data.sources.files import find_files
from seedbed.data.tokenize import tokenize
from seedbed.data.vocabulary import train_tokenizer
from seedbed.devices import peak_memory_mb
from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.evaluation.config import EvaluateConfig
from seedbed.evaluation.evaluate import evaluate
from seedbed.evaluation.skills import QUESTIONS, read_items, score_constant, write_items
from seedbed.quickstart.config import QuickstartConfig
from seedbed.quickstart.page import build_page, build_samples, print_summary
from seedbed.quickstart.questions import write_conversations
from seedbed.runs import (
    MANIFEST,
    check_number,
    command,
    lock,
    new_folder,
    open_folder,
    read_json,
    read_manifest,
    write_result,
)
from seedbed.training.config import PretrainConfig
from seedbed.training.pretrain import pretrain
from seedbed.training.settings import CONFIG
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.finetune import finetune

PRETRAIN_SHARE = 0.20
"""Of the minutes. Fine-tuning takes what is left after it, less what evaluating and reporting will take."""

LEAST_SHARE = 0.1
"""Of the minutes, for fine-tuning, however little is left."""

BYTES_PER_MINUTE = 2_000_000
"""A sample of a large corpus is enough: a CPU reads far less than this in a minute of training."""

COMPARED_BYTES = 1_000_000_000
"""A corpus up to this large is read again to see whether it has changed."""

TRAINING_QUESTIONS_PER_MINUTE = 7_500
HELD_OUT_PER_SKILL = 200
REMEMBERED = "quickstart.yaml"
"""In the folder: the config that it was begun with."""
KINDS = ("corpus", "tokenizer", "tokens", "questions", "run", "report")
"""Of the folders that the stages write."""
CONVERSATIONS = "train.jsonl"
"""In the folder of questions: what is learned from."""
VALIDATION = "validation.jsonl"
"""Beside it: what fine-tuning is validated on."""


def quickstart(config: QuickstartConfig) -> dict[str, Any]:
    """Runs what is not done yet and returns the result that `result.json` holds."""
    with lock(config.out):
        _remember(config)
        try:
            return Quickstart(config).run()
        except BaseException:
            if not (config.out / "corpus").exists():  # nothing was made that could be gone on with
                (config.out / REMEMBERED).unlink()
            raise


def _remember(config: QuickstartConfig) -> None:
    """Writes the config to the folder, or checks that it is the one the folder was begun with."""
    path = config.out / REMEMBERED
    if path.exists() and (config.out / "corpus" / MANIFEST).is_file():
        for key, began in to_dict(load_config(path, QuickstartConfig)).items():
            if key not in ("out", "device") and to_dict(config)[key] != began:
                raise ConfigError(
                    f"{config.out} was begun with {key} {began}, now it is {to_dict(config)[key]}",
                    "Give the same settings to go on with it, or another --out.",
                )
        _refuse_other_text(config)
        return
    if any(entry.name != path.name and not entry.name.startswith(".") for entry in config.out.iterdir()):
        raise ConfigError(f"{config.out} exists and is not empty", "Choose another --out, or remove that folder first.")
    save_config(path, config)


def _refuse_other_text(config: QuickstartConfig) -> None:
    """DataError when the text that a corpus was made from has changed since. Text that is gone is not missed."""
    try:
        files = find_files(config.corpus)
    except DataError:
        return
    if sum(file.path.stat().st_size for file in files if file.path.is_file()) > COMPARED_BYTES:
        print(f"{config.corpus} is large: whether it has changed is not checked", file=sys.stderr)
    elif hash_source(_preparing(config)) != read_manifest(config.out / "corpus").inputs["source"]:
        raise DataError(
            f"{config.corpus} has changed since {config.out} was begun with it",
            "Give another --out to begin anew with it, or the text as it was to go on.",
        )


def _preparing(config: QuickstartConfig) -> PrepareConfig:
    limit = max(100_000, int(BYTES_PER_MINUTE * config.minutes))
    return PrepareConfig(source=config.corpus, out=config.out / "corpus", max_bytes=limit, seed=config.seed)


class Quickstart:
    """The stages in order, each skipped when its folder is complete."""

    def __init__(self, config: QuickstartConfig):
        self.config = config
        self.out = config.out
        self.results: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        """The result of the whole; `"finished": false` when a stage was asked to stop."""
        self.stage("corpus", self.prepare)
        self.stage("tokenizer", self.tokenizer)
        self.stage("tokens", self.tokenize)
        self.stage("questions", self.questions)
        for name, train in (("pretrain", self.pretrain), ("finetune", self.finetune)):
            trained = self.stage(name, train)
            if not trained.get("finished", True):
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
        return prepare(_preparing(self.config))

    def tokenizer(self) -> dict[str, Any]:
        return train_tokenizer(TokenizerConfig(corpus=self.out / "corpus", kind="bytes", out=self.out / "tokenizer"))

    def tokenize(self) -> dict[str, Any]:
        corpus, tokenizer, out = (self.out / name for name in ("corpus", "tokenizer", "tokens"))
        return tokenize(TokenizeConfig(corpus=corpus, tokenizer=tokenizer, out=out))

    def questions(self) -> dict[str, Any]:
        """Conversations to fine-tune on, and held-out questions to measure with."""
        count = max(600, int(TRAINING_QUESTIONS_PER_MINUTE * self.config.minutes))
        settings = {"count": count, "held_out_per_skill": HELD_OUT_PER_SKILL, "seed": self.config.seed}
        items = list(training_items(count, seed=self.config.seed))
        result = {"stage": "questions", **settings}
        with new_folder(self.out / "questions", "questions", config=settings) as staging:
            write_conversations(staging / CONVERSATIONS, items, seed=self.config.seed)
            # Validated on what is held out too, or the loss would be of questions seen in other wordings.
            validation = held_out_items(50, seed=self.config.seed + 1)
            write_conversations(staging / VALIDATION, validation, seed=self.config.seed)
            write_items(staging / QUESTIONS, held_out_items(HELD_OUT_PER_SKILL, seed=self.config.seed))
            write_result(staging, result)
        return result

    def pretrain(self) -> dict[str, Any]:
        arguments = self.training("pretrain", PRETRAIN_SHARE * self.config.minutes)
        return pretrain(from_arguments(PretrainConfig, [*arguments, f"--data.tokens={self.out / 'tokens'}"]))

    def finetune(self) -> dict[str, Any]:
        questions = self.out / "questions"
        sources = [f"--model={self.out / 'pretrain'}", f"--data={questions / CONVERSATIONS}"]
        sources.append(f"--validation={questions / VALIDATION}")
        sources.append(f"--replay.tokens={self.out / 'tokens'}")
        return finetune(from_arguments(FinetuneConfig, [*self.training("finetune", self.minutes_left()), *sources]))

    def minutes_left(self) -> float:
        """For fine-tuning. Of a run that was begun, those that it was begun with: its steps are counted."""
        begun = self.out / "finetune" / CONFIG
        if begun.exists() and (minutes := load_config(begun, FinetuneConfig).train.minutes) is not None:
            return minutes
        spent = sum(result["seconds"] for result in self.results.values())
        # The fine-tuned model is evaluated sooner than the pretrained one was, since its answers end; that much sooner
        # as the report with its samples takes, about.
        left = 60 * self.config.minutes - spent - self.results["evaluation/pretrain"]["seconds"]
        return max(left / 60, LEAST_SHARE * self.config.minutes)

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
            "stages": [self.stage_summary(stage) for stage in ("pretrain", "finetune")],
            "baseline": self.baseline(),
            "seconds": round(spent, 2),
            "peak_rss_mb": max(result.get("peak_rss_mb", 0.0) for result in self.results.values()),
            "model": "finetune/model",
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
