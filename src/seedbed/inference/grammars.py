"""What a request says may be said, as a grammar that llguidance compiles. What could not be kept to is refused.

llguidance itself refuses the keywords of JSON Schema that it cannot keep to. Refused here is what it would take and not
keep to, and what would take it seconds or gigabytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from seedbed.errors import DataError
from seedbed.inference.config import CONSTRAINTS, SamplingConfig
from seedbed.runs import parse_json

S = TypeVar("S", bound=SamplingConfig)

LONGEST = 1 << 14
"""Bytes of a schema, an expression, a grammar or all choices. The worst ones take time that grows with the square."""

MOST_PATTERNS = 64
"""Patterns for names of properties: each is compared with each."""

LARGEST_MULTIPLE = 10_000
"""Of what all `multipleOf` have in common: a state for each remainder."""

OPTIONS = {"whitespace_flexible": False}
"""A model cannot say white space for ever, and what stands between two values is forced. "x-guidance" in a schema says
otherwise."""

NO_RULES = re.compile(r'//[^\n]*|#[^\n]*|"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/')
"""Comments, texts and expressions of Lark's notation."""


def wanted(sampling: SamplingConfig) -> tuple[str, str] | None:
    """Which constraint is asked for, and its text: equal texts mean equal constraints. DataError for one too long."""
    kind = next((kind for kind in CONSTRAINTS if getattr(sampling, kind) is not None), None)
    if kind is None:
        return None
    value = getattr(sampling, kind)
    try:
        text = value if isinstance(value, str) and kind != "choice" else json.dumps(value, ensure_ascii=False)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{kind} is no text that can be written: {error}") from None
    if size > LONGEST:
        raise DataError(f"{kind} has {size:,} bytes, at most {LONGEST:,} are taken", "Say it shorter.")
    return kind, text


def grammar_of(kind: str, text: str) -> str:
    """A constraint in llguidance's own words. DataError for what is refused before it is compiled."""
    from llguidance import LLMatcher

    if kind == "json_schema":
        try:
            schema = parse_json(text.encode("utf-8"))
        except ValueError as error:
            raise DataError(f"json_schema is not JSON: {error}") from None
        if not isinstance(schema, dict):
            raise DataError("json_schema must be a JSON object", 'For example {"type": "object"}.')
        _check(schema, kind)
        try:
            return LLMatcher.grammar_from_json_schema(text, defaults=OPTIONS)  # type: ignore[arg-type]  # not all keys
        except ValueError as error:
            raise DataError(f"json_schema cannot be kept to: {error}") from None
    if kind == "regex":
        return LLMatcher.grammar_from_regex(text)
    if kind == "choice":
        texts = json.loads(text)
        if not texts:
            raise DataError("choice holds no text", "Leave it out, or give texts to choose from.")
        if not isinstance(texts, list) or not all(isinstance(said, str) for said in texts):
            raise DataError("choice is no list of texts")
        return LLMatcher.grammar_from_regex("|".join(map(_literal, texts)))
    return _lark(text)


def read_files(config: S) -> S:
    """A config of the command line with what stands in the files that @FILE names. Only of the command line: elsewhere
    it would read files for whoever asks. DataError for a file that cannot be read or is too long."""
    for name in ("json_schema", "grammar"):
        if isinstance(text := getattr(config, name), str) and text.startswith("@"):
            config = replace(config, **{name: _read(name, Path(text[1:]))})  # type: ignore[arg-type]  # both take texts
    return config


def _read(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST + 1).decode("utf-8")
    except OSError as error:
        raise DataError(f"{name}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: {path} is not UTF-8 at byte {error.start:,}, or longer than {LONGEST:,}") from None
    return text


def _literal(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else f"\\u{{{ord(c):x}}}" for c in text)


def _lark(text: str) -> str:
    """A grammar in Lark's notation, from that or from GBNF."""
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        lark = any_to_lark(text)
    except Exception as error:  # of several classes, the plainest among them
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(
            f"grammar has neither a rule start: (Lark) nor can it be read as GBNF: {said}", "See docs/engine.md."
        ) from None
    rules = NO_RULES.sub("", lark)
    if "<" in rules:
        raise DataError("grammar names tokens by <…>: special tokens are never part of a text")
    if setting := re.search(r"\[[^\]]*\b(temperature|stop|max_tokens)\b", rules):
        raise DataError(f"grammar sets {setting[1]} for a rule", "It can only be set for the whole request.")
    for place in re.finditer(r"%json\s*", lark):
        try:
            schema, _ = json.JSONDecoder().raw_decode(lark, place.end())
        except (ValueError, RecursionError):
            continue  # in a comment, or told by llguidance
        _check(schema, "grammar")
    return lark


def _check(schema: Any, kind: str) -> None:
    """DataError for what llguidance takes and does not keep to, or not in good time."""
    patterns, multiple = 0, 1
    for part in _objects(schema):
        least, required, step = part.get("minProperties"), part.get("required"), part.get("multipleOf")
        if isinstance(least, int) and least > 1 + (len(required) if isinstance(required, list) else 0):
            # Names beyond `properties` could be the same one twice, which counts once.
            raise DataError(
                f"{kind} cannot be kept to: minProperties {least} asks for more than one property without a name",
                "Name them in `required`.",
            )
        if isinstance(part.get("patternProperties"), dict):
            patterns += len(part["patternProperties"])
        if isinstance(step, int | float) and math.isfinite(step) and step > 0:
            digits = int("".join(map(str, Decimal(str(step)).normalize().as_tuple().digits)))
            multiple = math.lcm(multiple, digits)
    if patterns > MOST_PATTERNS or multiple > LARGEST_MULTIPLE:
        what = f"{patterns} patternProperties" if patterns > MOST_PATTERNS else f"multipleOf up to {multiple:,}"
        raise DataError(f"{kind} is too large: {what}")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
