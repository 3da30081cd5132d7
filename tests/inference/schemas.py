"""Fifty JSON schemas, bounded so that a model that knows nothing comes to an end."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

SMALL: Schema = {"type": "integer", "minimum": 0, "maximum": 99}
WORD: Schema = {"type": "string", "pattern": "^[a-z]{1,6}$"}
TEXT: Schema = {"type": "string", "maxLength": 8}


def record(required: list[str] | None = None, **properties: Schema) -> Schema:
    """An object of these properties and no others, all of which must be there unless `required` says which."""
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def several(items: Schema, most: int = 4, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


SCHEMAS: dict[str, Schema] = {
    "a text": {"type": "string", "maxLength": 12},
    "a text of some length": {"type": "string", "minLength": 3, "maxLength": 5},
    "a pattern": {"type": "string", "pattern": "^[A-Z][a-z]{2,5}$"},
    "a pattern anywhere": {"type": "string", "pattern": "ab", "maxLength": 6},
    "a pattern of digits": {"type": "string", "pattern": r"^\d{3}-\d{4}$"},
    "a pattern of letters beyond ASCII": {"type": "string", "pattern": "^[äöü木🌱]{2,4}$"},
    "a pattern and a length": {"type": "string", "pattern": "^(ab|c)*$", "minLength": 3, "maxLength": 7},
    "a date": {"type": "string", "format": "date"},
    "a time": {"type": "string", "format": "date-time"},
    "an address of a computer": {"type": "string", "format": "ipv4"},
    "a uuid": {"type": "string", "format": "uuid"},
    "a whole number": {"type": "integer", "minimum": -5, "maximum": 1234},
    "a whole number between open bounds": {"type": "integer", "exclusiveMinimum": 7, "exclusiveMaximum": 11},
    "a whole number of sevens": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    "a negative number": {"type": "integer", "minimum": -300, "maximum": -17},
    "a number": {"type": "number", "minimum": 0, "maximum": 1},
    "a number between open bounds": {"type": "number", "exclusiveMinimum": -1.5, "exclusiveMaximum": 2.25},
    "a truth": {"type": "boolean"},
    "nothing": {"type": "null"},
    "one of some": {"enum": ["red", "green", 3, None, True, [1, "x"], {"a": 1}]},
    "one of some texts beyond ASCII": {"enum": ["木", 'sa"id', "back\\slash", "🌱 two", "line\nend"]},
    "just one": {"const": {"version": 2, "names": ["é", ""]}},
    "several types": {"type": ["integer", "null", "boolean"], "minimum": 0, "maximum": 9},
    "a list": several(SMALL),
    "a list of some length": several(WORD, most=5, least=3),
    "a list of lists": several(several(SMALL, most=3), most=3),
    "a list that begins with": {"type": "array", "prefixItems": [WORD, SMALL], "items": False, "minItems": 2},
    "a list that begins with and goes on": {"type": "array", "prefixItems": [SMALL], "items": WORD, "maxItems": 3},
    "an empty list": {"type": "array", "maxItems": 0},
    "an object": record(name=WORD, age=SMALL),
    "an object with what may be left out": record(["id"], id=SMALL, nick=WORD, tags=several(WORD, most=2)),
    "an object where all may be left out": record([], a=SMALL, b=SMALL, c=SMALL),
    "an object in an object": record(who=record(name=record(first=WORD, last=WORD), age=SMALL), at=WORD),
    "an object of short names": {
        "type": "object",
        "patternProperties": {"^.{0,4}$": SMALL},
        "additionalProperties": False,
        "maxProperties": 3,
        "a word of one's own": "is a remark",
    },
    "an object of names by pattern": {
        "type": "object",
        "patternProperties": {"^x[a-z]{1,3}$": SMALL},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    "an object of names in quotes": record(**{'a "b"': SMALL, "c\\d": SMALL, "é木": SMALL, "": SMALL}),
    "one name at least": {
        "type": "object",
        "properties": {"a": False, "b": SMALL, "c": SMALL},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "any of types": {"anyOf": [SMALL, WORD, {"type": "null"}]},
    "any of objects": {"anyOf": [record(cat=WORD), record(dog=SMALL), record(cat=WORD, lives=SMALL)]},
    "one of types": {"oneOf": [SMALL, WORD, several(SMALL, most=2)]},
    "one of kinds": {
        "oneOf": [record(kind={"const": "circle"}, radius=SMALL), record(kind={"const": "square"}, side=SMALL)]
    },
    "all of": {"allOf": [{"type": "integer", "minimum": 10}, {"maximum": 40}, {"multipleOf": 5}]},
    "all of objects": {
        "type": "object",
        "allOf": [
            {"properties": {"a": SMALL}, "required": ["a"]},
            {"properties": {"b": WORD}, "required": ["b"]},
        ],
        "maxProperties": 2,
    },
    "a definition": {"$defs": {"word": WORD}, **record(one={"$ref": "#/$defs/word"}, two={"$ref": "#/$defs/word"})},
    "a definition of objects": {
        "$defs": {"point": record(x=SMALL, y=SMALL)},
        **several({"$ref": "#/$defs/point"}, most=3, least=1),
    },
    "a tree": {
        "$defs": {"tree": record(["v"], v={"enum": [0, 1]}, left={"$ref": "#/$defs/tree"})},
        "$ref": "#/$defs/tree",
    },
    "draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "integer",
        "minimum": 3,
        "exclusiveMinimum": True,
        "maximum": 12,
    },
    "a person": record(
        ["name", "born", "languages"],
        name=TEXT,
        born={"type": "string", "format": "date"},
        languages=several({"enum": ["de", "en", "fr", "日本語"]}, most=3, least=1),
        height={"type": "number", "minimum": 0.5, "maximum": 2.5},
        partner={"anyOf": [{"type": "null"}, record(name=TEXT)]},
    ),
    "a call of a function": record(
        name={"enum": ["search", "weather"]},
        arguments=record(["query"], query=TEXT, limit={"type": "integer", "minimum": 1, "maximum": 50}),
    ),
    "an order": record(
        order=record(
            id={"type": "string", "pattern": "^[A-F0-9]{8}$"},
            lines=several(record(["sku", "count"], sku=WORD, count=SMALL, gift={"type": "boolean"}), most=3, least=1),
            status={"enum": ["open", "paid", "sent"]},
        )
    ),
}
