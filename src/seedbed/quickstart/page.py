"""The report of a quickstart: what was done, how well it went, what the model says."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as TerminalTable

from seedbed.devices import choose_device
from seedbed.evaluation.skills import QUESTIONS
from seedbed.inference.engine import Engine
from seedbed.inference.generate import DEMO
from seedbed.quickstart.config import QuickstartConfig
from seedbed.shards import read_rows
from seedbed.training.chart import loss_chart
from seedbed.training.records import JsonLines
from seedbed.visual.page import Block, Heading, Page, Paragraph, Picture, Table, Verbatim

ANSWERS_SHOWN = 2
"""Questions of each skill that the report shows."""

TITLES = {"pretrain": "pretrained", "finetune": "fine-tuned", "dpo": "after DPO", "grpo": "after GRPO"}
"""What a model is called after each training."""


def build_page(
    out: Path, result: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]], samples: list[Block]
) -> Page:
    """The report on the folder `out`. `result` is the quickstart's, `stages` holds that of each stage."""
    pretrained, tuned, *_, last = result["stages"]
    warnings = [Paragraph(f"{name}: {stage['warning']}") for name, stage in stages.items() if "warning" in stage]
    blocks: list[Block] = [
        *warnings,
        Paragraph(
            f"Made in {result['seconds'] / 60:.1f} minutes with at most {result['peak_rss_mb']:,.0f} MB of memory. "
            f"The model answers {last['skills_exact']:.1%} of the held-out questions exactly; always giving the same "
            f"answer would reach {result['baseline']['skills_exact']:.1%}."
        ),
        Heading("Learning to predict text"),
        Picture(
            "loss",
            _loss_chart(out),
            "Bits per byte on training and validation text over the steps of pretraining",
        ),
        Paragraph(
            f"Held-out text costs {pretrained['val_bits_per_byte']:.3f} bits per byte after pretraining (8 is knowing "
            f"nothing) and {tuned['val_bits_per_byte']:.3f} after fine-tuning, which teaches something else."
        ),
        Heading("Held-out questions answered exactly"),
        Paragraph(
            "Fine-tuning shows the right answers to questions. DPO compares right answers with wrong ones: what the "
            "model said, or, where that was right, the answer with a slip in it. GRPO asks, and says no more "
            "than which of several answers were right."
        ),
        _skills_table(result),
        *_second_turn(last),
        Heading("Stages"),
        _stages_table(stages),
        Heading("What it says"),
        *samples,
    ]
    return Page("From raw text to a chat model", blocks)


def print_summary(out: Path, result: Mapping[str, Any]) -> None:
    """The table of skills and where everything is, for the terminal."""
    console = Console(highlight=False)
    table = _skills_table(result)
    shown = TerminalTable(title="Held-out questions answered exactly")
    for column, name in enumerate(table.header):
        shown.add_column(name, justify="left" if column == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)
    console.print(f"{result['seconds'] / 60:.1f} minutes, {result['peak_rss_mb']:,.0f} MB at most")
    console.print(f"report  {out / 'report.html'}")
    console.print(f"talk    {_program()} chat --model {shlex.quote(str(out / result['model']))}", soft_wrap=True)


def _program() -> str:
    """What calls seedbed from here: its name if it is on PATH, else what was called just now."""
    if shutil.which("seedbed"):
        return "seedbed"
    called = Path(sys.argv[0])
    return shlex.quote(sys.argv[0]) if called.name == "seedbed" else f"{shlex.quote(sys.executable)} -m seedbed"


def _loss_chart(out: Path) -> str:
    return loss_chart(JsonLines(out / "pretrain" / "metrics.jsonl").records(), "Pretraining") or ""


def _skills_table(result: Mapping[str, Any]) -> Table:
    columns = [result["baseline"], *result["stages"]]
    skills = list(result["baseline"]["by_skill"])
    rows = [[skill.replace("_", " "), *(f"{column['by_skill'][skill]:.1%}" for column in columns)] for skill in skills]
    rows.append(["all", *(f"{column['skills_exact']:.1%}" for column in columns)])
    titles = [TITLES[stage["stage"]] for stage in result["stages"]]
    return Table(["skill", "best constant answer", *titles], rows)


def _second_turn(last: Mapping[str, Any]) -> list[Block]:
    if "second_turn_exact" not in last:
        return []
    said = f"it answers {last['second_turn_exact']:.0%} of a quarter of them exactly"
    if left_out := last.get("second_turns_left_out"):
        said += f" ({left_out:,} more are longer than the context)"
    return [Paragraph(f"Asked after another question and its answer, {said}.")]


def _stages_table(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, stage in stages.items():
        steps = f"{stage['steps']:,}" if "steps" in stage else ""
        loss = f"{stage['val_loss']:.3f}" if name in ("pretrain", "finetune") and "val_loss" in stage else ""
        rows.append([f"{name}/", f"{stage['seconds']:.1f}", steps, loss])
    return Table(["folder", "seconds", "steps", "validation loss, nats a token"], rows)


def build_samples(config: QuickstartConfig) -> list[Block]:
    """What the pretrained model and the last one say."""
    engine = Engine.load(config.out / "pretrain" / "model", device=choose_device(config.device))
    continued = engine.generate(list(DEMO), max_tokens=200, seed=config.seed)
    blocks: list[Block] = [Paragraph("The pretrained model continues a text:")]
    blocks += [Verbatim(opening + text) for opening, text in zip(DEMO, continued, strict=True)]
    blocks.append(Paragraph("After GRPO it answers held-out questions, the first of each skill, right or wrong:"))
    answers = list(read_rows(config.out / "evaluation" / "grpo" / QUESTIONS))
    shown: list[str] = []
    for skill in dict.fromkeys(answer["skill"] for answer in answers):
        for answer in [answer for answer in answers if answer["skill"] == skill][:ANSWERS_SHOWN]:
            wrong = "" if answer["given"].strip() == answer["answer"] else f"    (right: {answer['answer']})"
            shown.append(f"{answer['prompt']}\n→ {answer['given']}{wrong}")
    return [*blocks, Verbatim("\n".join(shown))]
