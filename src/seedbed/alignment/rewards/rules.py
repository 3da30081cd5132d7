"""Rules that say what an answer to a problem is worth.

A row of problems names its rule (`"reward": "numeric"`), and the reward `check` asks that one. Every rule can also be
named for all rows. A rule is a program: it says the same every time, and nothing below nought.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from seedbed.alignment.rewards.time_limit import OutOfTimeError, time_limit
from seedbed.data.preferences import Problem
from seedbed.data.rows import naming
from seedbed.devices import count_cores
from seedbed.errors import DataError
from seedbed.extras import missing
from seedbed.sandbox import Limits, check_many
from seedbed.sandbox.check import functions_called
from seedbed.sandbox.kinds import boxes

Reward = Callable[[Problem, str], float]
"""What an answer to a problem is worth; 0 to 1 for those below."""


@dataclass(frozen=True)
class Answer:
    """What is judged."""

    problem: Problem
    text: str
    prompt: Sequence[int] = ()
    """Its ids."""
    said: Sequence[int] = ()
    """The ids of the answer, the one that ends it among them."""
    ended: bool = True
    """Whether it was not cut off."""


Rule = Callable[[Sequence[Answer]], Sequence[float]]
"""The same of many answers."""


NUMBER = re.compile(
    r"(?:(?<!\w)[-−+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}\b)?|(?<![\w.])[-−+]?\.\d+"
)
"""A number as people write it: 1,234.50 or -3 or .5 or 6e-4."""


CODE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
"""A block of code as chat models write it."""

TEST_LIMITS = Limits(seconds=5.0, cpu_seconds=5, memory_mb=256)
"""Of each test of a program that a model wrote."""

LOOKING_SECONDS = 2.0
"""Of computing, in which an answer is held against a pattern or a schema; some take for ever, such as (a+)+b."""

logger = logging.getLogger(__name__)


def exact(problem: Problem, answer: str) -> float:
    """1 for the right answer to the letter, white space around it aside."""
    return float(answer.strip() == _reference(problem).strip())


def numeric(problem: Problem, answer: str) -> float:
    """1 when the last number of the answer is that of the reference: 7, 7.0 and "… makes +7." are the same."""
    number = last_number(answer)
    return float(number is not None and number == last_number(_reference(problem)))


def regex(problem: Problem, answer: str) -> float:
    """1 when the whole answer, white space around it aside, matches the pattern. `.` is also the end of a line."""
    with _in_time(problem, answer) as found:
        found.append(re.fullmatch(_reference(problem), answer.strip(), re.DOTALL) is not None)
    return float(any(found))


def json_schema(problem: Problem, answer: str) -> float:
    """1 for JSON that the schema allows. NaN, Infinity and keys that come twice are no JSON."""
    try:
        value = json.loads(answer, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return 0.0
    with _in_time(problem, answer) as found, suppress(RecursionError, OverflowError):  # of a number such as 1e999
        found.append(_validator(_reference(problem)).is_valid(value))
    return float(any(found))


def tests(answers: Sequence[Answer]) -> list[float]:
    """1 for a program that passes its tests: the first block of code in the answer, or all of it where there is none.
    It runs in the sandbox or not at all, and cannot read its tests. Several run at a time; one that has failed runs no
    more."""
    blocks = [CODE.search(answer.text) for answer in answers]
    programs = [answer.text if block is None else block[1] for answer, block in zip(answers, blocks, strict=True)]
    alive, turn = list(range(len(answers))), 0
    while asked := [number for number in alive if turn < len(answers[number].problem.tests)]:
        pairs = [(programs[number], answers[number].problem.tests[turn]) for number in asked]
        verdicts = check_many(pairs, TEST_LIMITS, workers=count_cores())
        failed = {number for number, verdict in zip(asked, verdicts, strict=True) if not verdict.passed}
        alive, turn = [number for number in alive if number not in failed], turn + 1
    return [float(number in alive) for number in range(len(answers))]


def each(reward: Reward) -> Rule:
    """The rule that asks a reward of one answer after the other."""
    return lambda answers: [float(reward(answer.problem, answer.text)) for answer in answers]


CHECKS: dict[str, Rule] = {
    "exact": each(exact),
    "numeric": each(numeric),
    "regex": each(regex),
    "json_schema": each(json_schema),
    "tests": tests,
}
"""By the names that rows say."""


def check(answers: Sequence[Answer]) -> list[float]:
    """What the rules say that the rows themselves name."""
    found = [0.0] * len(answers)
    for name in dict.fromkeys(answer.problem.reward for answer in answers):
        places = [place for place, answer in enumerate(answers) if answer.problem.reward == name]
        for place, value in zip(places, CHECKS[name]([answers[place] for place in places]), strict=True):
            found[place] = value
    return found


REWARDS: dict[str, Rule] = {"check": check, **CHECKS}
"""By the names that a config says."""


def last_number(text: str) -> Decimal | None:
    """The last number in a text, exactly as written."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None


def refuse(problem: Problem, rule: str) -> None:
    """DataError, naming the row, for a problem that the rule cannot judge."""
    if rule == "check":
        rule = problem.reward
    if rule not in CHECKS:
        raise DataError(f"{problem.name}: there is no rule for the reward {rule}", f"There are: {', '.join(CHECKS)}.")
    if rule == "tests":
        return _refuse_tests(problem)
    if problem.reference is None:
        raise DataError(f"{problem.name}: it has no answer, which the reward {rule} compares with")
    if rule == "numeric" and last_number(problem.reference) is None:
        raise DataError(f"{problem.name}: its answer holds no number, which the reward numeric compares with")
    if rule == "regex":
        try:
            re.compile(problem.reference)
        except (re.error, RecursionError, OverflowError) as error:
            raise DataError(f"{problem.name}: its answer is no regular expression: {error}") from error
    if rule == "json_schema":
        try:
            _validator(problem.reference)
        except ValueError as error:
            raise DataError(f"{problem.name}: its answer is no JSON schema to check by: {error}") from error


def _refuse_tests(problem: Problem) -> None:
    if not problem.tests:
        raise DataError(f"{problem.name}: it has no tests, which the reward tests runs")
    with boxes(), naming(problem.name):
        for test in problem.tests:
            functions_called(test)


def _reference(problem: Problem) -> str:
    assert problem.reference is not None  # `refuse` saw to it
    return problem.reference


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Any:
    """Of a schema's text; ValueError, in a line, when it is none."""
    try:
        # An extra: only who rewards JSON needs it.
        from jsonschema import exceptions, validators
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012
    except ImportError:
        raise missing("the reward json_schema", "jsonschema", "align") from None
    try:
        parsed = json.loads(schema)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(parsed, dict | bool):
        raise ValueError("it is neither an object nor true or false")
    kind = validators.validator_for(parsed, default=validators.Draft202012Validator)
    try:
        kind.check_schema(parsed)
    except exceptions.SchemaError as error:
        raise ValueError(error.message) from error
    # An empty registry: a "$ref" to an address is an error, and nothing is fetched from anywhere.
    made = DRAFT202012.create_resource(parsed)
    for place, resolver in _references(parsed, Registry().with_resource("", made).resolver()):
        try:
            if not place.startswith("#"):
                raise Unresolvable(ref=place)
            resolver.lookup(place)
        except Unresolvable:
            raise ValueError(f"it refers to {place}, which is not in it") from None
    return kind(parsed, registry=Registry())


def _references(schema: Any, resolver: Any) -> Iterator[tuple[str, Any]]:
    """All that a schema refers to, and what finds it."""
    from referencing.jsonschema import DRAFT202012

    if isinstance(schema, dict) and isinstance(schema.get("$id"), str):
        resolver = resolver.in_subresource(DRAFT202012.create_resource(schema))
    items = schema.items() if isinstance(schema, dict) else enumerate(schema if isinstance(schema, list) else [])
    for key, value in items:
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            yield value, resolver
        yield from _references(value, resolver)


@contextmanager
def _in_time(problem: Problem, answer: str) -> Iterator[list[bool]]:
    """For what is found inside; nothing where that takes too long, which is told."""
    found: list[bool] = []
    try:
        with time_limit(LOOKING_SECONDS):
            yield found
    except OutOfTimeError:
        logger.warning("%s: its answer is too dear to compare with %r, which is worth nothing", problem.name, answer)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found
