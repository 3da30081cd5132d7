"""`seedbed constitution`: a model criticises and revises its own answers by written principles (Bai et al. 2022,
arXiv:2212.08073, §3.1); that it prefers the revision is what seedbed dpo can teach it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seedbed.alignment.constitution.config import ConstitutionConfig
from seedbed.configuration import to_dict
from seedbed.data.messages import Messages, row_of, text_of
from seedbed.data.preferences import Question, read_rows
from seedbed.data.rows import input_files, naming, numbered_rows, row_name
from seedbed.errors import DataError
from seedbed.inference.answers import answers
from seedbed.inference.config import OpenConfig
from seedbed.inference.opening import open_engine
from seedbed.model.folder import find_model
from seedbed.progress import progress
from seedbed.runs import command, new_folder, write_card, write_result
from seedbed.shards import write_rows
from seedbed.tokenizers.chat import encode_prompt

PRINCIPLES = Path(__file__).parent / "principles.jsonl"
PREFERENCES, TRANSCRIPTS = "preferences.jsonl", "transcripts.jsonl"


@dataclass(frozen=True)
class Principle:
    """What an answer is held against."""

    name: str
    critique: str
    """What the model is asked to find."""
    revision: str
    """What it is asked to do about it."""


@dataclass
class Draft:
    """What has become of one prompt."""

    question: Question
    principles: list[Principle]
    """Of each round."""
    answers: list[str] = field(default_factory=list)
    """The first one, then each revision."""
    critiques: list[str] = field(default_factory=list)
    dropped: str | None = None
    """Why it teaches nothing."""

    def conversation(self) -> Messages:
        """What the model is to go on with."""
        if not self.answers:
            return self.question.prompt
        principle = self.principles[len(self.answers) - 1]
        turns = [*self.question.prompt, _says("assistant", self.answers[-1]), _says("user", principle.critique)]
        if len(self.critiques) == len(self.answers):
            turns += [_says("assistant", self.critiques[-1]), _says("user", principle.revision)]
        return turns


def constitution(config: ConstitutionConfig) -> dict[str, Any]:
    """Writes the folder `config.out`; returns how many pairs it holds, and how many prompts gave none, by reason."""
    questions = list(read_rows(Question, config.prompts))
    principles = read_principles(config.principles or PRINCIPLES)
    inputs = {"model": find_model(config.model), **input_files("prompts", config.prompts)}
    settings = {key: value for key, value in to_dict(config).items() if key not in OpenConfig.__dataclass_fields__}
    with new_folder(config.out, "preferences", inputs=inputs, config=settings) as staging:
        drafts = [_draft(question, principles, config) for question in questions]
        _converse(drafts, config)
        pairs = [_pair(draft) for draft in drafts if draft.dropped is None]
        dropped = Counter(draft.dropped for draft in drafts if draft.dropped is not None)
        if not pairs:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in dropped.items())
            raise DataError(
                f"no pair came of {len(drafts):,} prompts ({reasons})",
                "Take a model that follows requests, with room for a question, an answer and what is asked about both.",
            )
        write_rows(staging / PREFERENCES, pairs)
        write_rows(staging / TRANSCRIPTS, map(_transcript, drafts))
        result = {
            "command": command("constitution", config),
            "prompts": len(drafts),
            "pairs": len(pairs),
            "dropped": dict(dropped),
        }
        write_card(staging, config.out.name, _card(config, result))
        write_result(staging, result)
    return {**result, "preferences": str(config.out / PREFERENCES)}


def read_principles(path: Path) -> list[Principle]:
    """Rows of {name, critique, revision}. DataError naming the row that lacks one of them."""
    principles = []
    for number, value in numbered_rows(path):
        with naming(row_name(path, number)):
            row = row_of(value)
            principles.append(Principle(*(text_of(row, key) for key in ("name", "critique", "revision"))))
    if not principles:
        raise DataError(f"{path} holds no principle", "A row is {name, critique, revision}.")
    return principles


def _draft(question: Question, principles: Sequence[Principle], config: ConstitutionConfig) -> Draft:
    """Which principles it is held against hangs on nothing but the seed and its place."""
    draw = random.Random(f"{config.seed}, {question.name}")
    return Draft(question, [draw.choice(principles) for _ in range(config.rounds)])


def _converse(drafts: Sequence[Draft], config: ConstitutionConfig) -> None:
    """All first answers, then in each round all critiques and all revisions."""
    engine, adapter = open_engine(config)

    def ask(what: str, keep: Callable[[Draft, str], None], *, whole: bool = False) -> None:
        going = [(draft, draft.conversation()) for draft in drafts if draft.dropped is None]
        encoded = [(draft, encode_prompt(engine.tokenizer, turns)) for draft, turns in going]
        for draft, ids in encoded:
            if not engine.fits(ids):
                draft.dropped = "too long"
        fitting = [(draft, ids) for draft, ids in encoded if draft.dropped is None]
        with progress(what, total=len(fitting), unit="prompts") as advance:
            said = answers(engine, [ids for _, ids in fitting], config, adapter=adapter)
            for (draft, _), completion in zip(fitting, said, strict=True):
                text = completion.text.strip()
                keep(draft, text)
                if not text:
                    draft.dropped = f"empty {what}"
                elif whole and completion.reason != "end":
                    draft.dropped = f"{what} cut off"
                advance(1)

    ask("answer", lambda draft, text: draft.answers.append(text))
    for _ in range(config.rounds):
        ask("critique", lambda draft, text: draft.critiques.append(text))
        ask("revision", lambda draft, text: draft.answers.append(text), whole=True)
    for draft in drafts:
        if draft.dropped is None and draft.answers[-1] == draft.answers[0]:
            draft.dropped = "nothing revised"


def _pair(draft: Draft) -> dict[str, Any]:
    return {
        "prompt": draft.question.prompt,
        "chosen": draft.answers[-1],
        "rejected": draft.answers[0],
        "principles": [principle.name for principle in draft.principles],
    }


def _transcript(draft: Draft) -> dict[str, Any]:
    return {
        "row": draft.question.name,
        "prompt": draft.question.prompt,
        "principles": [principle.name for principle in draft.principles],
        "answers": draft.answers,
        "critiques": draft.critiques,
        "dropped": draft.dropped,
    }


def _says(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _card(config: ConstitutionConfig, result: dict[str, Any]) -> dict[str, str | list[str]]:
    return {
        "What": f"{result['pairs']:,} pairs of answers: what `{config.model}` said, and what it made of that when held "
        "against written principles.",
        "Left out": [f"{reason}: {count:,}" for reason, count in result["dropped"].items()] or "Nothing.",
        "Use": f"`seedbed dpo --model {config.model} --data {config.out / PREFERENCES} --out RUN`",
        "Look": f"{TRANSCRIPTS} holds every answer, critique and revision. The model judged itself: read some.",
    }
