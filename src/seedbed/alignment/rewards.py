"""Rewards that a rule gives: what an answer to a problem is worth, told by a program and the same every time.

A row of problems names its rule (`"reward": "numeric"`), and the reward `check` asks that one. Every rule can also be
named for all rows, and a Python program may bring rules of its own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from seedbed.data.preferences import Problem
from seedbed.data.rows import naming
from seedbed.errors import ConfigError, DataError
from seedbed.extras import missing
from seedbed.sandbox import Limits
from seedbed.sandbox import check as passes
from seedbed.sandbox.check import functions_called
from seedbed.sandbox.kinds import boxes

Reward = Callable[[Problem, str], float]
"""What an answer to a problem is worth; 0 to 1 for those below."""

NUMBER = re.compile(
    r"(?:(?<!\w)[-−+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}\b)?|(?<![\w.])[-−+]?\.\d+"
)
"""A number as people write it: 1,234.50 or -3 or .5 or 6e-4."""


CODE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
"""A block of code as chat models write it."""

TEST_LIMITS = Limits(seconds=5.0, cpu_seconds=5, memory_mb=256)
"""Of each test of a program that a model wrote."""


def exact(problem: Problem, answer: str) -> float:
    """1 for the right answer to the letter, white space around it aside."""
    return float(answer.strip() == _reference(problem).strip())


def numeric(problem: Problem, answer: str) -> float:
    """1 when the last number of the answer is that of the reference: 7, 7.0 and "… makes +7." are the same."""
    number = last_number(answer)
    return float(number is not None and number == last_number(_reference(problem)))


def regex(problem: Problem, answer: str) -> float:
    """1 when the whole answer, white space around it aside, matches the pattern. `.` is also the end of a line."""
    return float(re.fullmatch(_reference(problem), answer.strip(), re.DOTALL) is not None)


def json_schema(problem: Problem, answer: str) -> float:
    """1 for JSON that the schema allows. NaN, Infinity and keys that come twice are no JSON."""
    try:
        value = json.loads(answer, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return 0.0
    try:
        return float(_validator(_reference(problem)).is_valid(value))
    except RecursionError:
        return 0.0


def tests(problem: Problem, answer: str) -> float:
    """1 for a program that passes its tests: the first block of code in the answer, or all of it where there is none.
    It runs in the sandbox or not at all, and cannot read its tests."""
    block = CODE.search(answer)
    program = answer if block is None else block[1]
    return float(all(passes(program, test, TEST_LIMITS).passed for test in problem.tests))


CHECKS: dict[str, Reward] = {
    "exact": exact,
    "numeric": numeric,
    "regex": regex,
    "json_schema": json_schema,
    "tests": tests,
}
"""By the names that rows say."""


def check(problem: Problem, answer: str) -> float:
    """What the rule says that the row itself names."""
    return CHECKS[problem.reward](problem, answer)


REWARDS: dict[str, Reward] = {"check": check, **CHECKS}
"""By the names that a config says."""


class Rewards:
    """Several rewards, each with its weight."""

    def __init__(self, weights: Mapping[str, float], own: Mapping[str, Reward] | None = None):
        """`weights` by the names of `REWARDS`, or of `own`, which a Python program brings. ConfigError for another."""
        known = REWARDS | dict(own or {})
        if unknown := [name for name in weights if name not in known]:
            raise ConfigError(f"there is no reward {unknown[0]!r}", f"There are: {', '.join(known)}.")
        if not weights:
            raise ConfigError("no reward is given", f"There are: {', '.join(known)}.")
        self.names, self.weights = tuple(weights), tuple(weights.values())
        self.functions = tuple(known[name] for name in weights)

    def __call__(self, problem: Problem, answer: str) -> list[float]:
        """What each says, in their order, before weighing. DataError, naming the row, for what is no finite number."""
        found = []
        for name, function in zip(self.names, self.functions, strict=True):
            value = float(function(problem, answer))
            if not abs(value) < sys.float_info.max:  # NaN too
                raise DataError(f"{problem.name}: the reward {name} is {value} for the answer {answer[:60]!r}")
            found.append(value)
        return found

    def refuse(self, problems: Sequence[Problem]) -> None:
        """DataError, naming the row, for a problem that one of the rules cannot judge. Before a run, not in it."""
        rules = [name for name in self.names if name in REWARDS]
        for problem in problems:
            for name in rules:
                _refuse(problem, problem.reward if name == "check" else name)


def last_number(text: str) -> Decimal | None:
    """The last number in a text, exactly as written."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None


def _refuse(problem: Problem, rule: str) -> None:
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
        except re.error as error:
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
    except ImportError:
        raise missing("the reward json_schema", "jsonschema", "align") from None
    parsed = json.loads(schema)
    kind = validators.validator_for(parsed, default=validators.Draft202012Validator)
    try:
        kind.check_schema(parsed)
    except exceptions.SchemaError as error:
        raise ValueError(error.message) from error
    # An empty registry: a "$ref" to an address is an error, and nothing is fetched from anywhere.
    validator = kind(parsed, registry=Registry())
    for place in _references(parsed):
        if not place.startswith("#"):
            raise ValueError(f"it refers to {place}, which is not in it")
    return validator


def _references(schema: Any) -> Iterator[str]:
    """All that a schema refers to."""
    items = schema.items() if isinstance(schema, dict) else enumerate(schema if isinstance(schema, list) else [])
    for key, value in items:
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            yield value
        yield from _references(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found
