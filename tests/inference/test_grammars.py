"""What is refused as the request comes, and what two notations of a grammar mean."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import pytest

from seedbed.errors import ConfigError, DataError
from seedbed.inference.config import ChatConfig, GenerateConfig, SamplingConfig
from seedbed.inference.constraints import Grammars
from seedbed.inference.grammars import LONGEST, read_files, wanted
from seedbed.tokenizers import bytes as byte_tokenizer

GRAMMARS = Grammars(byte_tokenizer.build(), 256)

JSON_GBNF = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""
"""As llama.cpp has it."""


def accepts(text, **constraint):
    """Whether the whole of a text may be said."""
    matcher = GRAMMARS.constraint(SamplingConfig(**constraint)).matcher
    raw = list(text.encode())
    return matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting()


SCHEMAS_REFUSED = [
    ({"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "array", "contains": {"const": 1}}, "contains"),
    ({"if": {"const": 1}, "then": {"const": 2}}, "Unimplemented keys"),
    ({"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "object", "properties": {"a": {"unevaluatedItems": False}}}, "unevaluatedItems"),
    ({"x-guidance": {"lenient": True}, "not": {}}, "Unimplemented keys"),
    ({"type": "string", "format": "iri"}, "Unknown format: iri"),
    ({"x-guidance": {"lenient": True}, "type": "string", "format": "iri"}, "Unknown format: iri"),
    ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
    ({"x-guidance": {"coerce_one_of": True}, "oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
    ({"type": "string", "pattern": "a(?=b)"}, "look-around"),
    ({"type": "string", "pattern": "("}, "unclosed group"),
    ({"type": "text"}, "Invalid type: text"),
    ({"minimum": "3"}, "minimum"),
    ({"$ref": "#/$defs/nowhere"}, "nowhere"),
    ({"$ref": "https://example.org/schema.json"}, "example.org"),
    ({"$ref": "#"}, "nothing can come next"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5) is greater than maximum (3)"),
    ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength"),
    ({"type": "string", "pattern": "^a$", "minLength": 3}, "Unsatisfiable"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
    ({"enum": []}, "Unsatisfiable"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "required property 'a'"),
    ({"type": "object", "minProperties": 2}, "minProperties 2"),
    ({"items": {"type": "object", "required": ["a"], "minProperties": 3}}, "minProperties 3"),
    ({"patternProperties": {f"^{i}x": {} for i in range(600)}}, "too large: 600 patternProperties"),
    ({"type": "integer", "multipleOf": 1000003}, "multipleOf up to 1,000,003"),
    ({"allOf": [{"type": "integer"}, {"multipleOf": 9973}, {"multipleOf": 0.9967}]}, "too large: multipleOf"),
    ({"const": "x" * LONGEST}, f"at most {LONGEST:,}"),
    ({"const": {1, 2}}, "no text that can be written"),
    ({"const": float("nan")}, "not JSON: "),
    ("[1]", "must be a JSON object"),
    ("{'a': 1}", "not JSON"),
    ("[" * 8000, "not JSON"),
    ('{"type": "integer", "maximum": 1e999}', "json_schema"),
    ("@/etc/passwd", "not JSON"),
]


@pytest.mark.parametrize(("schema", "problem"), SCHEMAS_REFUSED)
def test_a_schema_that_cannot_be_kept_to_is_refused_at_once(schema, problem):
    begun = time.perf_counter()
    with pytest.raises(DataError, match=re.escape(problem)) as raised:
        GRAMMARS.check(SamplingConfig(json_schema=schema))
    assert "json_schema" in raised.value.problem and "\n" not in raised.value.problem
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("constraint", "problem"),
    [
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"regex": r"\bword"}, "regex cannot be kept to"),
        ({"regex": "[a&&b]"}, "nothing can come next"),
        ({"regex": "a?" * LONGEST}, f"at most {LONGEST:,}"),
        ({"regex": "\ud800"}, "no text that can be written"),
        ({"choice": []}, "choice holds no text"),
        ({"choice": "yes"}, "choice is no list of texts"),
        ({"choice": ["yes", 1]}, "choice is no list of texts"),
        ({"choice": ["x" * LONGEST]}, f"at most {LONGEST:,}"),
        ({"grammar": ""}, "neither a rule start: (Lark)"),
        ({"grammar": "root ::= ("}, "GBNF"),
        ({"grammar": "answer ::= yes"}, "GBNF: Rule 'yes' not found"),
        ({"grammar": "root ::= " + "(" * 5000}, "nested too deeply"),
        ({"grammar": "start: answer"}, 'unknown name: "answer"'),
        ({"grammar": "start: start"}, "nothing can come next"),
        ({"grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000}, "too deeply nested"),
        ({"grammar": 'start: "a" <s>'}, "special tokens"),
        ({"grammar": "start: <[5]>"}, "special tokens"),
        ({"grammar": 'start: word\nword[temperature=0.5]: "a"'}, "sets temperature for a rule"),
        ({"grammar": 'start: word "x"\nword[stop="x"]: /.*/'}, "sets stop for a rule"),
        ({"grammar": 'start: %json {"not": {}}'}, "Unimplemented keys"),
        ({"grammar": 'start: %json {"x-guidance": {"lenient": true}, "not": {}}'}, "Unimplemented keys"),
        ({"grammar": 'start: %json {"type": "object", "minProperties": 2}'}, "minProperties 2"),
    ],
)
def test_a_constraint_that_cannot_be_kept_to_is_refused_at_once(constraint, problem):
    with pytest.raises(DataError, match=re.escape(problem)) as raised:
        GRAMMARS.check(SamplingConfig(**constraint))
    assert "\n" not in raised.value.problem and len(raised.value.problem) < 400


def test_one_constraint_at_most_is_given():
    for two in ({"regex": "a", "choice": ["a"]}, {"json_schema": {}, "grammar": "x"}):
        with pytest.raises(ConfigError, match="are both given"):
            SamplingConfig(**two)
    assert wanted(SamplingConfig()) is None


def test_a_schema_is_a_dict_or_its_text():
    schema = {"properties": {"ä": {"const": 1}, "a": {}}, "required": ["ä"]}
    kinds = [wanted(SamplingConfig(json_schema=each)) for each in (schema, json.dumps(schema, ensure_ascii=False))]
    assert kinds[0] == kinds[1]
    assert kinds[0][1].index("ä") < kinds[0][1].index('"a"')  # the order of properties is that of the text


def test_white_space_is_as_the_schema_says():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert accepts('{"a":1}', json_schema=schema) and not accepts('{"a": 1}', json_schema=schema)
    spaced = schema | {"x-guidance": {"key_separator": ": "}}
    assert accepts('{"a": 1}', json_schema=spaced) and not accepts('{"a":1}', json_schema=spaced)
    assert accepts('{\n"a" :1 }', json_schema=schema | {"x-guidance": {"whitespace_flexible": True}})


def test_enough_required_names_allow_a_least_number_of_properties():
    schema = {"type": "object", "required": ["a", "b"], "minProperties": 3}
    assert accepts('{"a":1,"b":2,"c":3}', json_schema=schema)
    assert not accepts('{"a":1,"b":2}', json_schema=schema)


def test_an_expression_is_of_the_whole_text():
    for regex in ("a+b", "^a+b$"):
        assert accepts("aab", regex=regex)
        assert not accepts("aabc", regex=regex) and not accepts("xaab", regex=regex)


def test_a_choice_may_begin_another_or_hold_anything():
    texts = ["no", "nobody", "", 'a "b"\\c/', "x\ny", "木\u2028\x00", "(a|b)*", "🌱"]
    assert all(accepts(text, choice=texts) for text in texts)
    assert not any(accepts(text, choice=texts) for text in ("n", "nob", "ab", "x", "nono"))


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ('{"a": [1, -2.5e3, "x\\n\\u00e4", {}], "木": null}', True),
        ("{}", True),
        ("[1]", False),  # the root is an object
        ("{'a': 1}", False),
        ('{"a": 01}', False),
        ('{"a" 1}', False),
    ],
)
def test_a_grammar_of_llama_cpp_means_what_it_means_there(text, is_json):
    assert accepts(text, grammar=JSON_GBNF) == is_json


def test_lark_and_gbnf_are_told_apart():
    lark = '// sums\nstart: sum\nsum: NUMBER ("+" NUMBER)*  # of <numbers>\nNUMBER: /[0-9]+/ | "<"'
    gbnf = 'root ::= sum\nsum ::= number ("+" number)*\nnumber ::= [0-9]+ | "<"'
    for grammar in (lark, gbnf):
        assert accepts("1+22+<", grammar=grammar) and not accepts("1+", grammar=grammar)


def test_a_schema_may_stand_in_a_grammar():
    grammar = 'start: "call " name " " %json {"type": "object", "properties": {}, "additionalProperties": false}\n'
    assert accepts("call f {}", grammar=grammar + "name: /[a-z]+/")


@pytest.mark.parametrize("cls", [GenerateConfig, ChatConfig])
def test_a_file_is_read_for_the_command_line_only(cls, tmp_path):
    (tmp_path / "a.json").write_text('{"const": "é"}', encoding="utf-8")
    config = cls(model="m", json_schema=f"@{tmp_path / 'a.json'}", **({"demo": True} if cls is GenerateConfig else {}))
    assert read_files(config) == replace(config, json_schema='{"const": "é"}')
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"json_schema: .*a\.json is not UTF-8 at byte 0"):
        read_files(config)
    (tmp_path / "a.json").write_text("x" * 10 * LONGEST)
    assert len(read_files(config).json_schema) == LONGEST + 1  # no more than is needed to refuse it
    with pytest.raises(DataError, match="json_schema has"):
        wanted(read_files(config))
    assert read_files(replace(config, json_schema={"a": 1})).json_schema == {"a": 1}
