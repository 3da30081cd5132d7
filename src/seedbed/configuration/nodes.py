"""A YAML file as nodes, bounded: what passes here can be built without a surprise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import yaml
from yaml.constructor import SafeConstructor

from seedbed.configuration.hints import shown
from seedbed.configuration.presets import find_preset
from seedbed.configuration.values import flaw
from seedbed.errors import ConfigError

DEEPEST = 32
"""Groups and lists inside one another."""

MOST = 10_000
"""Values in a file, those counted again that an alias repeats: nine lines of aliases can stand for a billion."""

TAG = "tag:yaml.org,2002:"
NULL = TAG + "null"
TAGS = {TAG + kind for kind in ("null", "bool", "int", "float", "str", "timestamp", "merge", "seq", "map")}


def read_nodes(path: Path, name: str) -> yaml.Node | None:
    """The root of a YAML file; None if it is empty. `name` is what it is called in errors.

    Raises ConfigError, naming the line, for what is not YAML, is nested too deeply or holds itself, holds too many
    values, other tags than those of plain values, or texts that UTF-8 cannot hold.
    """
    try:
        root = yaml.compose(path.read_bytes().decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not text: wrong UTF-8 at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}, line {line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{name} is nested more than {DEEPEST} deep") from None
    if root is not None:
        _check(root, name, itertools.count(1))
    return root


def read_group(name_or_path: str, group: str) -> dict[str, str]:
    """The values of one group in a preset or YAML file as text, by key, whether nested or dotted. Other keys are not
    looked at. Raises ConfigError for a file that cannot be read, and for a value that is not a single one."""
    root = read_nodes(find_preset(name_or_path), name_or_path)
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{name_or_path} has no group `{group}` of keys")
    found: dict[str, str] = {}
    for key, value in [] if root is None else root.value:
        if key.value == group and value.tag != NULL:
            if not isinstance(value, yaml.MappingNode):
                raise ConfigError(f"{_place(name_or_path, value)}: {group} must be a group of keys")
            found |= {inner.value: _text(item, name_or_path, f"{group}.{inner.value}") for inner, item in value.value}
        elif key.value.startswith(f"{group}."):
            found[key.value.removeprefix(f"{group}.")] = _text(value, name_or_path, key.value)
    return found


def _text(node: yaml.Node, name: str, key: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{_place(name, node)}: {key} must be a single value")
    return "null" if node.tag == NULL else str(node.value)


def _check(node: yaml.Node, name: str, count: Iterator[int], depth: int = 0) -> None:
    place = _place(name, node)
    if depth > DEEPEST:
        raise ConfigError(f"{place}: nested more than {DEEPEST} deep, or an alias inside of what it stands for")
    if next(count) > MOST:
        raise ConfigError(f"{name} holds more than {MOST:,} values, counting again what aliases repeat")
    if node.tag not in TAGS:
        raise ConfigError(f"{place}: {node.tag.replace(TAG, '!!')} is no tag of a config", "Quote it if it is a text.")
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, place)
        return
    for part in node.value:
        if isinstance(node, yaml.MappingNode) and not isinstance(part[0], yaml.ScalarNode):
            raise ConfigError(f"{_place(name, part[0])}: a key must be a word")
        for child in part if isinstance(part, tuple) else (part,):
            _check(child, name, count, depth + 1)


def _check_scalar(node: yaml.ScalarNode, place: str) -> None:
    if wrong := flaw(node.value):
        raise ConfigError(f"{place}: a value holds {wrong}")
    try:
        if node.tag == TAG + "int":
            float(SafeConstructor().construct_yaml_int(node))
        elif node.tag == TAG + "float":
            SafeConstructor().construct_yaml_float(node)
        elif node.tag == TAG + "bool":
            SafeConstructor().construct_yaml_bool(node)
    except (ValueError, KeyError, OverflowError):
        kind = node.tag.replace(TAG, "!!")
        raise ConfigError(f"{place}: {shown(node.value)} cannot be read as {kind}") from None


def _place(name: str, node: yaml.Node) -> str:
    return f"{name}, line {node.start_mark.line + 1}"
