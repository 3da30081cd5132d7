"""The parser: a config class as options with dotted names, over presets and files."""

from __future__ import annotations

import argparse
import difflib
import functools
import json
import math
import re
import types
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from seedbed.configuration.hints import alternatives, is_plain_list, names_in_list, shown
from seedbed.configuration.nodes import NULL, TAG, read_nodes
from seedbed.configuration.options import Option, find_option, flag, options, unknown_key
from seedbed.configuration.presets import check_command, find_preset
from seedbed.configuration.rules import refuse_from_file, refuse_unused
from seedbed.configuration.text import to_dict, to_yaml
from seedbed.configuration.values import build, flaw
from seedbed.errors import ConfigError

T = TypeVar("T")
FRAME_OPTIONS = ("config", "print_config", "json", "help")

LONGEST_NUMBER = 255
"""Characters: what is longer overflows a float, also when it is written in hexadecimal."""


@dataclass
class Request:
    """What a command line asks for: a config to act on, or `text` to print instead (help, or the config itself)."""

    config: Any = None
    json: bool = False
    text: str | None = None


@dataclass
class _Given:
    """A command line taken apart: options as `--key=value`, files as text, and where each key of a file stands."""

    arguments: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    options: set[str] = field(default_factory=set)
    """Keys that are not from a file."""
    flags: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)
    """Values that YAML reads as nothing, such as "# Rules", and that are texts all the same."""
    places: dict[str, str] = field(default_factory=dict)
    """Where each key of a file stands, unless an option beside it wins."""


class Parser:
    """Reads one config class. Every mistake is a ConfigError: no usage block, no exit.

    `positionals` names the fields that bare words fill, in order; the last takes all that remain if it is a list.
    It holds a jsonargparse parser rather than being one: jsonargparse makes inner parsers of its own parser's class.
    """

    def __init__(self, cls: type, prog: str = "seedbed", positionals: Sequence[str] = ()):
        self.config_class, self.prog, self.positionals, self.options = cls, prog, tuple(positionals), options(cls)
        words = "".join(f" [{name.upper()}]" for name in positionals)
        self.inner = inner = ArgumentParser(
            prog=prog,
            usage=f"{prog}{words} [--config PRESET|FILE] [--KEY VALUE ...]",
            description=" ".join((cls.__doc__ or "").split()),
            allow_abbrev=False,
            exit_on_error=False,
            print_config=None,
        )
        inner.add_argument(
            "--config",
            action="config",
            metavar="PRESET|FILE",
            help="A preset or a YAML file; options given beside it win.",
        )
        frame: dict[str, Any] = {"action": "store_true", "default": argparse.SUPPRESS}
        inner.add_argument("--print_config", help="Print the whole config as YAML and stop.", **frame)
        inner.add_argument("--json", help="Print the result as one JSON object, the last line.", **frame)
        inner.add_class_arguments(cls, as_group=False)
        for action in inner._actions:
            option = self.options.get(action.dest)
            if (option is None and action.dest.endswith(".help")) or (option and option.group and not option.nullable):
                action.help = argparse.SUPPRESS  # a group is set key by key
            elif option and is_plain_list(option.hint):
                action.metavar = "A,B,..."
            elif option and option.entry:
                keys = options(option.entry)
                action.metavar = f"[{{{', '.join(keys)}}}, ...]"
                each = " ".join(f"{name}: {key.about}" for name, key in keys.items())
                action.help = f"{action.help or ''} Of each entry, {each}"
            if action.dest.endswith("_"):  # a field named for_ is written --for
                action.option_strings = [f"--{flag(action.dest)}"]
                action.metavar = flag(action.dest).upper()
                inner._option_string_actions[action.option_strings[0]] = action

    def read(self, arguments: Sequence[str]) -> Request:
        """Parse, check and build. Raises ConfigError."""
        given = self._take_apart(arguments)
        request = self._request(given)
        if request.config is not None:
            refuse_unused(request.config, given.options)
            refuse_from_file(request.config, given.options)
        return request

    def load(self, path: str | Path) -> Any:
        """The config that a file holds, to look at what it says: code that it names is not to be run. Raises
        ConfigError."""
        return self._request(self._take_apart(["--config", str(path)])).config

    def _request(self, given: _Given) -> Request:
        if "help" in given.flags:
            return Request(text=re.sub(r"<class\s+'(\w+)'>", r"\1", self.inner.format_help()))
        values, missing = self._parse(given)
        printing = "print_config" in given.flags
        if missing and not printing:
            first = next(path for path in self.options if path in missing)
            about = f": {self.options[first].about}" if self.options[first].about else ""
            raise ConfigError(f"{first} is required{about}", f"Give --{flag(first)}, or {first} in a config file.")
        config = None if missing else build(self.config_class, values)
        text = to_yaml(self.config_class, to_dict(config) if config else values) if printing else None
        return Request(config, "json" in given.flags, text)

    def values(self, arguments: Sequence[str]) -> dict[str, Any]:
        """What a command line sets and leaves at its default, without the keys that must be given and are not."""
        return self._parse(self._take_apart(arguments))[0]

    def check(self, arguments: Sequence[str]) -> None:
        """Whether each option and each key of each file exists; values are not looked at. Raises ConfigError."""
        self._take_apart(arguments)

    def _parse(self, given: _Given) -> tuple[dict[str, Any], set[str]]:
        """Values by jsonargparse, and the keys that must be given and are not."""
        missing = {path for path in self.options if self._must(path, given.keys)}
        for action in self.inner._actions:
            action.required = False  # what is missing is told by the caller, or may be missing
        try:
            values = self.inner.parse_args([*(f"--config={text}" for text in given.files), *given.arguments])
        except argparse.ArgumentError as error:
            raise self._explain(str(error), given.places) from None
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ConfigError(f"a value cannot be read: {' '.join(str(error).split())}") from None
        for path, text in given.texts.items():
            values[path] = Path(text) if Path in alternatives(self.options[path].hint) else text
        for path in missing:
            above, _, name = path.rpartition(".")
            (values[above] if above else values).pop(name, None)
        return values.as_dict(), missing

    def _explain(self, message: str, places: dict[str, str]) -> ConfigError:
        """A mistake that jsonargparse found, in one line."""
        found = re.match(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL)
        key = found[1] if found else ""
        if found is None or key not in self.options:
            return ConfigError(" ".join(message.split()))
        for inner in re.findall(r'Parser key "([^"]+)"', found[2]):  # the key inside an optional group
            key = f"{key}.{inner}" if f"{key}.{inner}" in self.options else key
        place = f" ({places[key]})" if key in places else ""
        value = re.search(
            r"(?:Got|Given) value: (.*?)(?:\n\s+- Expected|\n\s*Given value type:|\Z)", found[2], re.DOTALL
        )
        names = names_in_list(self.options[key].hint)
        if names and value and value[1] not in ("None", *names):
            near = difflib.get_close_matches(value[1], names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return ConfigError(f"{flag(key)}: {shown(value[1])} is none of {', '.join(names)}{hint}{place}")
        got = f", got {shown(value[1])}" if value else f": {' '.join(found[2].split())}"
        ours = self.options[key].called_here(value[1]) if value else None
        hint = f"; here it is {ours}" if ours else ""
        return ConfigError(f"{flag(key)} must be {self.options[key].allowed}{got}{hint}{place}")

    def _must(self, path: str, keys: set[str]) -> bool:
        """Whether a key without a default is called for: not given, and not in an optional group that is left out."""
        option = self.options[path]
        if path in keys or option.default is not MISSING or (option.group and not option.nullable):
            return False  # a group is given by its keys
        above = path.rpartition(".")[0]
        return not above or self.options[above].default is not None or any(key.startswith(above + ".") for key in keys)

    def _take_apart(self, arguments: Sequence[str]) -> _Given:
        given, rest, bare = _Given(), list(arguments), list(self.positionals)
        while rest:
            token = rest.pop(0)
            if not token.startswith("--"):
                if token == "-h":
                    given.flags.add("help")
                    continue
                if not bare:
                    raise ConfigError(f"unexpected {shown(token)}", "Options are written --name value.")
                is_list = get_origin(self.options[bare[0]].hint) is list
                name, value = bare[0] + "+" * is_list, token
                bare = bare if is_list else bare[1:]
            else:
                name, equals, value = token[2:].partition("=")
                if name in FRAME_OPTIONS and name != "config":
                    given.flags.add(name)
                    continue
                option = None if name == "config" else find_option(self.options, name, self.prog)
                if not equals:
                    if rest and not re.fullmatch(r"--[A-Za-z][\w.]*\+?(=.*)?", rest[0]):
                        value = rest.pop(0)
                    elif option is not None and bool in alternatives(option.hint):
                        value = "true"
                    else:
                        allowed = option.allowed if option else "a preset or a YAML file"
                        raise ConfigError(f"--{name} needs a value: {allowed}")
                if option is None:
                    self._check_file(value, given)
                    continue
                if is_plain_list(option.hint) and not name.endswith("+"):
                    value = _as_list(value, option.hint)
            asked = find_option(self.options, name, self.prog)
            value = asked.truth_as_word(value) or value
            too_long = len(value) > LONGEST_NUMBER and set(alternatives(asked.hint)) <= {int, float, types.NoneType}
            if too_long or (value == "" and Path in alternatives(asked.hint)):
                raise ConfigError(f"{asked.path} must be {asked.allowed}, got {shown(value)}")
            if wrong := flaw(value):
                fix = "Rename the file or folder." if Path in alternatives(asked.hint) else None
                raise ConfigError(f"{asked.path} holds {wrong}", fix)
            given.texts.pop(asked.path, None)
            if asked.takes_text_or_null and value != "null" and _is_yaml_null(value):
                given.texts[asked.path] = value
            given.keys |= {name.rstrip("+"), asked.path}
            given.options.add(asked.path)
            given.places.pop(name.rstrip("+"), None)
            if asked.entry is not None:
                self._check_entries(_compose(value), asked, f"--{name}")
            given.arguments.append(f"--{name}={value}")
        return given

    def _check_file(self, name: str, given: _Given) -> None:
        """Check the keys of a preset or file, and note it for reading, values as their keys take them.

        Raises ConfigError that names file and line.
        """
        path = find_preset(name)
        check_command(path, self.prog)
        root = read_nodes(path, name)
        if root is not None:  # an empty file changes nothing
            self._check_node(root, name, "", given, {})
            given.files.append(yaml.serialize(root, allow_unicode=True, width=math.inf))

    def _check_node(self, node: yaml.Node, name: str, prefix: str, given: _Given, seen: dict[str, str]) -> None:
        """Check the keys of a group. `seen`: where each key of the file was given, and as "group." each group of which
        a dotted key was given."""
        if not isinstance(node, yaml.MappingNode):
            what = prefix.rstrip(".") or "a config"
            raise ConfigError(f"{name}, line {node.start_mark.line + 1}: {what} must be a group of keys")
        for number, (key_node, value) in enumerate(node.value):
            if key_node.tag == TAG + "merge":
                self._check_node(value, name, prefix, given, {})  # what is written beside it wins over it
                continue
            key, line = prefix + key_node.value, key_node.start_mark.line + 1
            place = f"{name}, line {line}"
            if key not in self.options:
                raise unknown_key(self.options, f"{place}: unknown key {key}", key, self.prog)
            if key in seen:
                raise ConfigError(f"{place}: {key} is given twice, first as {seen[key]}")
            above = [prefix + key_node.value[: dot.start()] for dot in re.finditer(r"\.", key_node.value)]
            for mixed in (*above, key + "."):  # whichever comes later would wipe out the other
                if mixed in seen:
                    raise ConfigError(
                        f"{place}: {key} cannot stand beside {seen[mixed]}",
                        "Write a group whole, or each of its keys with dots.",
                    )
            seen |= dict.fromkeys([key, *(group + "." for group in above)], f"{key} in line {line}")
            given.keys.add(key)
            given.places[key] = place
            option = self.options[key]
            if value.value == "" and value.tag != NULL and Path in alternatives(option.hint):
                raise ConfigError(f"{key} must be {option.allowed}, got '' ({place})")
            if option.group and not (option.nullable and value.tag == NULL):
                self._check_node(value, name, key + ".", given, seen)
            elif option.entry is not None:
                self._check_entries(value, option, name)
            elif isinstance(value, yaml.ScalarNode):
                node.value[number] = (key_node, _as_taken(value, option))

    def _check_entries(self, node: yaml.Node | None, option: Option, name: str) -> None:
        """Check the keys of each group in a list; what is no group is told with its value when it is read."""
        assert option.entry is not None
        known = options(option.entry)
        for number, entry in enumerate(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            if not isinstance(entry, yaml.MappingNode):
                continue
            path, keys = f"{option.path}[{number}]", [key.value for key, _ in entry.value]
            merges = any(key.tag == TAG + "merge" for key, _ in entry.value)
            for key, _ in entry.value:
                place = name if name.startswith("--") else f"{name}, line {key.start_mark.line + 1}"
                if key.tag != TAG + "merge" and key.value not in known:
                    raise unknown_key(known, f"{place}: unknown key {path}.{key.value}", key.value, self.prog)
                if keys.count(key.value) > 1:
                    raise ConfigError(f"{place}: {path}.{key.value} is given twice")
            place = name if name.startswith("--") else f"{name}, line {entry.start_mark.line + 1}"
            for key_name, key_option in known.items():
                if key_option.default is MISSING and "." not in key_name and key_name not in keys and not merges:
                    raise ConfigError(f"{place}: {path}.{key_name} is required: {key_option.about}")


def from_arguments(cls: type[T], arguments: Sequence[str]) -> T:
    """A config from command-line options, with everything `--config`, dotted keys and the rules of the classes mean."""
    config: T = _parser(cls).read(arguments).config  # type: ignore[arg-type]  # a class is hashable
    return config


@functools.cache
def _parser(cls: type) -> Parser:
    """Making one reads the source of every class; it keeps nothing of what it has read."""
    return Parser(cls)


def load_config(path: str | Path, cls: type[T]) -> T:
    """Read a YAML file as a config of `cls`. Raises ConfigError that names the file, the key and what is allowed."""
    config: T = _parser(cls).load(path)  # type: ignore[arg-type]  # a class is hashable
    return config


def _compose(text: str) -> yaml.Node | None:
    """A value of the command line as a node; None when it is none, which is told when it is read."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _as_taken(value: yaml.ScalarNode, option: Option) -> yaml.Node:
    """A value of a file, with the words on and off as words, and a single one of a list as a list of one."""
    if value.tag != TAG + "str" and (word := option.truth_as_word(value.value)):
        return yaml.ScalarNode(TAG + "str", word, value.start_mark, value.end_mark)
    if is_plain_list(option.hint) and value.tag != NULL:
        return yaml.SequenceNode(TAG + "seq", [value], value.start_mark, value.end_mark, flow_style=True)
    return value


def _is_yaml_null(text: str) -> bool:
    try:
        return yaml.safe_load(text) is None
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def _as_list(value: str, hint: Any) -> str:
    """`a,b` as `["a", "b"]`, so that lists can be written without quotes; brackets and null stay."""
    if value.startswith("[") or value == "null":
        return value
    items = [item.strip() for item in value.split(",")] if value else []
    holds_numbers = any(get_args(part)[:1] in ((int,), (float,)) for part in alternatives(hint))
    return f"[{','.join(items)}]" if holds_numbers else json.dumps(items, ensure_ascii=False)
