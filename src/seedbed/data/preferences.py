"""Rows that say which answers are wanted, for alignment. Files are those of `rows`.

A prompt is `prompt`, `question` or `instruction` with `input` (Alpaca), a text or messages, or `messages` or
`conversations`; a `system` text goes first.
Kinds of rows:

    Preference   {prompt, chosen, rejected, margin?}     answers are texts or messages, or whole conversations that
                 {chosen, rejected, margin?}             share their beginning, the prompt
                 {input: {messages}, preferred_output, non_preferred_output}                            (OpenAI)
    Judgement    {prompt, completion or response, label} label: true for a wanted answer (KTO)
                 {messages, label}                       of the last message
    Question     {prompt}                                nobody has answered it yet
    Solution     {prompt, steps or completions, labels}  the steps of an answer, and whether each is right
    Problem      {prompt, answer, reward?}               an answer that can be checked (also reference, solution,
                                                         ground_truth), or
                 {prompt, tests}                         code to run against a program
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeVar, get_args

from seedbed.data.messages import (
    PROMPTS,
    TURNS,
    Messages,
    Row,
    answer_of,
    first_key,
    prompt_of,
    row_of,
    text_of,
    turns_of,
    with_system,
)
from seedbed.data.rows import naming, numbered_rows, row_files, row_name
from seedbed.errors import DataError
from seedbed.runs import json_name, parse_json

Useless = Literal["error", "drop"]
"""What becomes of a row that is well formed but teaches nothing: it is an error, or is dropped and counted."""

Check = Literal["exact", "numeric", "regex", "json_schema", "tests"]
"""How an answer to a problem is checked: the same text, the same number, a pattern it matches, JSON of a schema, code
that runs."""

LARGEST = 1e30
"""Sums of larger numbers are none in fp32."""
REFERENCES = ("answer", "reference", "solution", "ground_truth")
"""Fields that hold the right answer to a problem: trl's examples and verl have the last two."""

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
"""Labels as .csv holds them."""


class UselessRow(DataError):
    """A row from which nothing is to be learned; `reason` is what such rows are counted by."""

    def __init__(self, reason: str, problem: str):
        super().__init__(problem, "Such rows can be dropped and counted instead.")
        self.reason = reason


@dataclass(frozen=True)
class Preference:
    """Of two answers to a prompt, the better one."""

    shape: ClassVar[str] = "A row is {prompt, chosen, rejected} or {instruction, input, chosen, rejected}."

    name: str
    """File and row, for messages to people."""
    prompt: Messages
    chosen: Messages
    rejected: Messages
    margin: float | None
    """By how much it is better, when the row says so."""

    @classmethod
    def read(cls, row: Row, name: str) -> Self:
        row = _as_ours(row)
        for key in ("chosen", "rejected"):
            if key not in row:
                raise DataError(f"it has no {key}; its keys: {_keys(row)}", cls.shape)
            _refuse_blank(row, key)
        if _is_whole(row, "chosen") and _is_whole(row, "rejected"):
            prompt, chosen, rejected = _parted(row)
        else:
            prompt, chosen, rejected = _prompt(row, cls.shape), answer_of(row, "chosen"), answer_of(row, "rejected")
        if chosen == rejected:
            raise UselessRow("equal answers", "chosen and rejected are the same")
        return cls(name, prompt, chosen, rejected, _number(row, "margin") if "margin" in row else None)


@dataclass(frozen=True)
class Judgement:
    """An answer to a prompt, and whether it is wanted."""

    shape: ClassVar[str] = "A row is {prompt, completion, label} or {messages, label}."

    name: str
    prompt: Messages
    completion: Messages
    label: bool

    @classmethod
    def read(cls, row: Row, name: str) -> Self:
        label = row.get("label")
        label = BOOLEANS.get(label.lower()) if isinstance(label, str) else label
        if label not in (True, False):
            raise DataError(f"label must be true or false, got {row.get('label', 'nothing')!r}", cls.shape)
        turns = first_key(row, TURNS)
        if turns and not row.keys() & {"completion", "response"}:
            _refuse_blank(row, turns)
            messages = turns_of(row, turns)
            row = {**row, "prompt": messages[:-1], "completion": messages[-1:]}
            if messages[-1]["role"] != "assistant" or not messages[:-1]:
                raise DataError(f"{turns} must end with a message of the assistant, which label judges", cls.shape)
        key = first_key(row, ("completion", "response")) or "completion"
        _refuse_blank(row, key)
        return cls(name, _prompt(row, cls.shape), answer_of(row, key), bool(label))


@dataclass(frozen=True)
class Question:
    """A prompt that nobody has answered yet."""

    shape: ClassVar[str] = "A row is {prompt}, {question} or {instruction, input}: a text, or messages."

    name: str
    prompt: Messages

    @classmethod
    def read(cls, row: Row, name: str) -> Self:
        return cls(name, _prompt(row, cls.shape))


@dataclass(frozen=True)
class Solution:
    """An answer in steps, and which of them are right (Lightman et al. 2023, arXiv:2305.20050)."""

    shape: ClassVar[str] = "A row is {prompt, steps, labels}: texts, and for each true or false."

    name: str
    prompt: Messages
    steps: tuple[str, ...]
    labels: tuple[bool, ...]

    @classmethod
    def read(cls, row: Row, name: str) -> Self:
        key = first_key(row, ("steps", "completions"))
        steps, labels = row.get(key or "steps"), row.get("labels")
        if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise DataError(f"steps must be a list of texts; its keys: {_keys(row)}", cls.shape)
        if not isinstance(labels, list) or any(label not in (True, False) for label in labels):
            raise DataError("labels must be a list of true and false", cls.shape)
        if len(labels) != len(steps):
            raise DataError(f"it has {len(steps)} steps, but {len(labels)} labels", cls.shape)
        if not steps or not all(step.strip() for step in steps):
            raise UselessRow("empty answer", "a step is empty" if steps else "it has no step")
        return cls(name, _prompt(row, cls.shape), tuple(steps), tuple(map(bool, labels)))


@dataclass(frozen=True)
class Problem:
    """A prompt whose answers a program can check."""

    shape: ClassVar[str] = "A row is {prompt, answer or reference} or {prompt, tests}."

    name: str
    prompt: Messages
    reference: str | None
    """The right answer, or the pattern or JSON schema that it fits; None where only tests tell."""
    reward: Check
    tests: tuple[str, ...]
    """Source code that raises where a program is wrong."""

    @classmethod
    def read(cls, row: Row, name: str) -> Self:
        key, tests = first_key(row, REFERENCES), _tests(row)
        reward = row.get("reward", "tests" if tests else "exact")
        if reward not in get_args(Check):
            raise DataError(f"reward must be one of {', '.join(get_args(Check))}, got {reward!r}")
        if reward == "tests" and not tests:
            raise DataError("its reward is tests, but it has none", cls.shape)
        if reward != "tests" and key is None:
            raise DataError(f"it has neither answer, reference nor tests; its keys: {_keys(row)}", cls.shape)
        reference = None if key is None else _reference(row, key, reward)
        return cls(name, _prompt(row, cls.shape), reference, reward, tests)


@dataclass(frozen=True)
class OpenProblem(Problem):
    """A prompt whose answers no program need check: a row may hold nothing beside it."""

    shape: ClassVar[str] = "A row is {prompt}, {question} or {instruction, input}: a text, or messages."

    @classmethod
    def read(cls, row: Row, name: str) -> Self:
        if {*REFERENCES, "tests", "reward"} & row.keys():
            return super().read(row, name)
        return cls(name, _prompt(row, cls.shape), None, "exact", ())


Kind = TypeVar("Kind", Preference, Judgement, Solution, Question, Problem)


def read_rows(
    kind: type[Kind], path: Path | str, *, useless: Useless = "error", counts: Counter[str] | None = None
) -> Iterator[Kind]:
    """The rows of a file, or of those that a glob matches, in order, as one kind: `read_rows(Preference, "a.jsonl")`.

    Rows that teach nothing (equal answers, an empty answer) are errors, as others are; with `useless="drop"` they are
    left out, and counted by reason in `counts`. Raises DataError naming the file, the row and what is wrong with it,
    also when no row is left; CorruptionError for a broken compressed stream.
    """
    anything = False
    for name, value in (
        (row_name(file, i), value) for file in row_files(Path(path)) for i, value in numbered_rows(file)
    ):
        with naming(name):
            try:
                row = kind.read(row_of(value), name)
            except UselessRow as error:
                if useless == "error":
                    raise
                if counts is not None:
                    counts[error.reason] += 1
                continue
        anything = True
        yield row
    if not anything:
        raise DataError(f"{path} holds no row to learn from", kind.shape)


def _as_ours(row: Row) -> Row:
    """A preference by our fields: OpenAI's others, and an answer that is one message (LLaMA-Factory)."""
    if row.keys() >= {"preferred_output", "non_preferred_output"} and "chosen" not in row:
        asked = row.get("input")
        turns = asked.get("messages") if isinstance(asked, Mapping) else asked
        row = {"prompt": turns, "chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
    alone = {key: [row[key]] for key in ("chosen", "rejected") if isinstance(row.get(key), Mapping)}
    return {**row, **alone}


def _prompt(row: Row, shape: str) -> Messages:
    key = first_key(row, (*PROMPTS, *TURNS))
    if key is None:
        raise DataError(f"it has no prompt; its keys: {_keys(row)}", shape)
    return prompt_of(row, key)


def _refuse_blank(row: Row, key: str) -> None:
    """UselessRow for an answer without a word."""
    said = row.get(key)
    if isinstance(said, list) and said and isinstance(said[-1], Mapping):
        said = said[-1].get("content", said[-1].get("value"))
    if isinstance(said, str) and not said.strip():
        raise UselessRow("empty answer", f"{key} is empty" if key not in TURNS else f"the last of {key} is empty")


def _is_whole(row: Row, key: str) -> bool:
    """Whether an answer is a conversation from its beginning on."""
    return isinstance(row[key], list) and turns_of(row, key)[0]["role"] != "assistant"


def _parted(row: Row) -> tuple[Messages, Messages, Messages]:
    """The beginning that two conversations share, and how each goes on."""
    chosen, rejected = turns_of(row, "chosen"), turns_of(row, "rejected")
    if chosen == rejected:
        return chosen, [], []
    pairs = zip(chosen, rejected, strict=False)
    shared = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(chosen), len(rejected)))
    prompt, answers = chosen[:shared], (chosen[shared:], rejected[shared:])
    if not all(answer and answer[0]["role"] == answer[-1]["role"] == "assistant" for answer in answers):
        raise DataError(
            f"chosen and rejected part at message {shared + 1}, which must be an answer of each to the same prompt"
        )
    if isinstance(asked := row.get("prompt"), str) and asked.strip() not in (
        turn["content"].strip() for turn in prompt
    ):
        raise DataError("its prompt is not in what chosen and rejected begin with")
    if isinstance(asked, list) and turns_of(row, "prompt") != prompt[: len(asked)]:
        raise DataError("its prompt is not what chosen and rejected begin with")
    return with_system(row, prompt), *answers


def _number(row: Row, key: str) -> float:
    try:
        number = float(row[key])
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < LARGEST:  # NaN too
        raise DataError(f"{key} must be a number, got {row[key]!r}")
    return number


def _reference(row: Row, key: str, reward: str) -> str:
    if reward == "json_schema":
        return _schema(row, key)
    if isinstance(row[key], int | float) and not isinstance(row[key], bool):
        return str(row[key])
    text = text_of(row, key)
    if reward == "numeric" and not re.search(r"\d", text):
        raise DataError(f"{key} holds no number, but its reward is numeric")
    if reward == "regex":
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise DataError(f"{key} is no regular expression: {error}") from error
    return text


def _schema(row: Row, key: str) -> str:
    """A JSON schema, given as an object or as its text."""
    schema = row[key]
    if isinstance(schema, str):
        try:
            schema = parse_json(schema.encode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise DataError(f"{key} is no JSON schema: {error}") from error
    if not isinstance(schema, Mapping):
        raise DataError(f"{key} must be a JSON schema, got {json_name(schema)}")
    return json.dumps(schema)


def _tests(row: Row) -> tuple[str, ...]:
    tests = row.get("tests", [])
    tests = [tests] if isinstance(tests, str) else tests
    if not isinstance(tests, list) or not all(isinstance(test, str) and test.strip() for test in tests):
        raise DataError("tests must be a text of source code, or a list of such")
    return tuple(tests)


def _keys(row: Row) -> str:
    return ", ".join(map(repr, row)) or "none"
