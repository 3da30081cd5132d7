"""Configuration: typed frozen dataclasses, read from presets, files and the command line. No torch here.

A stage describes itself in a dataclass whose fields each carry a docstring. `Parser` turns that class into options
with dotted names, lays presets and files under them, and answers every mistake with one line that names the key, the
value and what is allowed. The reading itself is jsonargparse's; what is added is the checking of keys before it reads,
the building of the dataclasses after it (so that a broken rule of `__post_init__` is told with its key), and the words.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import functools
import json
import math
import os
import re
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, set_parsing_settings

from seedbed.errors import ConfigError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

T = TypeVar("T")
PRESETS = Path(__file__).parent / "presets"
ELSEWHERE = {
    "lr": ("optimizer.matrix_rate", "optimizer.rate"),
    "learning_rate": ("optimizer.matrix_rate", "optimizer.rate"),
    "weight_decay": ("optimizer.weight_decay",),
    "batch_size": ("train.batch", "batch"),
    "block_size": ("data.length", "length"),
    "gradient_accumulation_steps": ("train.micro_batch",),
    "grad_accum": ("train.micro_batch",),
    "max_steps": ("train.steps",),
    "max_new_tokens": ("max_tokens",),
}
"""What people who come from other trainers type, and our keys for it."""
FRAME_OPTIONS = ("config", "print_config", "json", "help")


# -- Rules for __post_init__: each names the field, the parser puts the path before it. None means left out and passes.


def positive(config: Any, *names: str) -> None:
    """Each named number is finite and above zero, else ConfigError."""
    for name, value in _given(config, names):
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be > 0, got {value}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Each named number is finite and not below `least`, else ConfigError."""
    for name, value in _given(config, names):
        if not (value >= least and math.isfinite(value)):
            raise ConfigError(f"{name} must be at least {least}, got {value}")


def between(config: Any, low: float, high: float, *names: str) -> None:
    """Each named number lies in [low, high], ends included, else ConfigError."""
    for name, value in _given(config, names):
        if not low <= value <= high:
            raise ConfigError(f"{name} must be between {low} and {high}, got {value}")


def _given(config: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name in names if (value := getattr(config, name)) is not None)


# -- Presets


@dataclass(frozen=True)
class Preset:
    """A YAML file that comes with the package. Its first line reads `# COMMAND: what it is for`."""

    name: str
    path: Path
    command: str
    about: str


def list_presets() -> list[Preset]:
    """Every preset by name; those in folders are named `folder/name`."""
    return [_read_preset(path) for path in sorted(PRESETS.rglob("*.yaml"))]


def _read_preset(path: Path) -> Preset:
    with path.open(encoding="utf-8") as lines:
        command, _, about = lines.readline().lstrip("# ").rstrip().partition(": ")
    return Preset(path.relative_to(PRESETS).with_suffix("").as_posix(), path, command, about)


def find_preset(name_or_path: str | Path) -> Path:
    """The file of a preset, or the file at a path. A preset wins over a file of the same name unless a suffix is given.

    Raises ConfigError, with the nearest names, when there is neither.
    """
    name, path = str(name_or_path), Path(name_or_path)
    presets = {preset.name: preset.path for preset in list_presets()}
    if name in presets:
        return presets[name]
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"config must be a preset or a YAML file, but {name} is a folder")
    near = difflib.get_close_matches(name, presets, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(
        f"config: there is no preset and no file named {name!r}{hint}",
        f"Presets: {', '.join(presets)}" if presets else None,
    )


# -- What a config class holds


@dataclass(frozen=True)
class Option:
    """One key of a config class, by its dotted path."""

    path: str
    hint: Any
    default: Any
    """MISSING when the key must be given."""
    about: str
    group: type | None
    """The dataclass below this key, if it is a group."""

    @property
    def nullable(self) -> bool:
        return self.default is None or types.NoneType in _alternatives(self.hint)

    @property
    def takes_text_or_null(self) -> bool:
        """Whether a text or a path may be given, or none; jsonargparse then reads the text as YAML."""
        return self.nullable and set(_alternatives(self.hint)) <= {str, Path, types.NoneType}

    @property
    def allowed(self) -> str:
        """What may be written here, in words."""
        words = _words(self.hint)
        return f"{words} or null" if self.nullable and "null" not in words else words

    @property
    def choices(self) -> list[str]:
        """Every value there is, when they can be counted; for completion."""
        found: list[str] = []
        for part in _alternatives(self.hint):
            if part is bool:
                found += ["true", "false"]
            elif get_origin(part) is Literal:
                found += map(str, get_args(part))
            elif isinstance(part, type) and issubclass(part, enum.Enum):
                found += list(part.__members__)
        return found


@functools.cache
def options(cls: type, prefix: str = "") -> dict[str, Option]:
    """Every key of a config class and of the groups below it, in order."""
    hints, about = get_type_hints(cls), docs(cls)
    found: dict[str, Option] = {}
    for spec in dataclasses.fields(cls):
        if not spec.init:
            continue
        default = spec.default_factory() if spec.default_factory is not MISSING else spec.default
        hint, path = hints[spec.name], prefix + spec.name
        group = next((part for part in _alternatives(hint) if _is_config(part)), None)
        found[path] = Option(path, hint, default, about.get(spec.name, ""), group)
        if group is not None:
            found |= options(group, path + ".")
    return found


@functools.cache
def docs(cls: type) -> dict[str, str]:
    """The docstring below each field of a config class, inherited ones too."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if _is_config(part):
            params = parse_from_object(part).params
            found |= {item.arg_name: " ".join((item.description or "").split()) for item in params}
    return found


def to_dict(config: Any) -> Any:
    """A config as plain dicts, lists, strings and numbers: what YAML and JSON can carry."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {spec.name: to_dict(getattr(config, spec.name)) for spec in dataclasses.fields(config) if spec.init}
    if isinstance(config, Mapping):
        return {str(key): to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple | set | frozenset):
        return [to_dict(value) for value in config]
    if isinstance(config, enum.Enum):
        return config.name
    return os.fspath(config) if isinstance(config, os.PathLike) else config


def to_yaml(cls: type, values: Mapping[str, Any], *, comments: bool = False, indent: str = "") -> str:
    """Values of a config class as YAML in the order of its fields; a key that must be given and is not is a comment.

    With `comments`, each key is preceded by what it means and what is allowed.
    """
    lines: list[str] = []
    for name, option in options(cls).items():
        if "." in name:
            continue
        if comments:
            note = f"{option.about} " if option.about else ""
            note += "" if option.group else f"({option.allowed})"
            lines += ["", *(f"{indent}# {line}" for line in _wrap(note.strip(), 110 - len(indent)))]
        value = to_dict(values[name]) if name in values else MISSING
        if value is MISSING and option.default is MISSING:
            lines.append(f"{indent}# {name}: required")
        elif option.group and isinstance(value, Mapping) and value:
            lines += [
                f"{indent}{name}:",
                to_yaml(option.group, value, comments=comments, indent=indent + "  ").rstrip(),
            ]
        else:
            value = None if value is MISSING else value
            written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
            written = written.strip().removesuffix("...").rstrip()  # YAML ends a bare scalar's document with dots
            lines.append(f"{indent}{name}: {written}")
    return "\n".join(lines).lstrip("\n") + "\n"


def save_config(path: str | Path, config: Any) -> None:
    """Write a config as YAML, atomically; `load_config` gives back an equal one. Raises StorageError."""
    from seedbed.runs import write_atomic

    write_atomic(Path(path), to_yaml(type(config), to_dict(config)))


def load_config(path: str | Path, cls: type[T]) -> T:
    """Read a YAML file as a config of `cls`. Raises ConfigError that names the file, the key and what is allowed."""
    return from_arguments(cls, ["--config", str(path)])


def from_arguments(cls: type[T], arguments: Sequence[str]) -> T:
    """A config from command-line options, with everything `--config`, dotted keys and the rules of the classes mean."""
    config: T = Parser(cls).read(arguments).config
    return config


# -- The parser


@dataclass
class Request:
    """What a command line asks for: a config to act on, or `text` to print instead (help, or the config itself)."""

    config: Any = None
    json: bool = False
    text: str | None = None


@dataclass
class _Given:
    """A command line taken apart: options as `--key=value`, files, and where each key of a file stands."""

    arguments: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    flags: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)
    """Values that YAML reads as nothing, such as "# Rules", and that are texts all the same."""


class Parser:
    """Reads one config class. Every mistake is a ConfigError: no usage block, no exit.

    `positionals` names the fields that bare words fill, in order; the last takes all that remain if it is a list.
    It holds a jsonargparse parser rather than being one: jsonargparse makes inner parsers of its own parser's class.
    """

    def __init__(self, cls: type, prog: str = "seedbed", positionals: Sequence[str] = ()):
        self.config_class, self.prog, self.positionals, self.options = cls, prog, tuple(positionals), options(cls)
        self.places: dict[str, str] = {}
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
            elif option and _is_plain_list(option.hint):
                action.metavar = "A,B,..."
            if action.dest.endswith("_"):  # a field named for_ is written --for
                action.option_strings = [f"--{_flag(action.dest)}"]
                action.metavar = _flag(action.dest).upper()
                inner._option_string_actions[action.option_strings[0]] = action

    def read(self, arguments: Sequence[str]) -> Request:
        """Parse, check and build. Raises ConfigError."""
        given = self._take_apart(arguments)
        if "help" in given.flags:
            return Request(text=re.sub(r"<class\s+'(\w+)'>", r"\1", self.inner.format_help()))
        values, missing = self._parse(given)
        printing = "print_config" in given.flags
        if missing and not printing:
            first = next(path for path in self.options if path in missing)
            about = f": {self.options[first].about}" if self.options[first].about else ""
            raise ConfigError(f"{first} is required{about}", f"Give --{_flag(first)}, or {first} in a config file.")
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
            values = self.inner.parse_args([*(f"--config={path}" for path in given.files), *given.arguments])
        except argparse.ArgumentError as error:
            raise self._explain(str(error)) from None
        for path, text in given.texts.items():
            values[path] = Path(text) if Path in _alternatives(self.options[path].hint) else text
        for path in missing:
            above, _, name = path.rpartition(".")
            (values[above] if above else values).pop(name, None)
        return values.as_dict(), missing

    def _explain(self, message: str) -> ConfigError:
        """A mistake that jsonargparse found, in one line."""
        found = re.match(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL)
        key = found[1] if found else ""
        if found is None or key not in self.options:
            return ConfigError(" ".join(message.split()))
        for inner in re.findall(r'Parser key "([^"]+)"', found[2]):  # the key inside an optional group
            key = f"{key}.{inner}" if f"{key}.{inner}" in self.options else key
        value = re.search(
            r"(?:Got|Given) value: (.*?)(?:\n\s+- Expected|\n\s*Given value type:|\Z)", found[2], re.DOTALL
        )
        got = f", got {_shown(value[1])}" if value else f": {' '.join(found[2].split())}"
        place = f" ({self.places[key]})" if key in self.places else ""
        return ConfigError(f"{_flag(key)} must be {self.options[key].allowed}{got}{place}")

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
                    raise ConfigError(f"unexpected {_shown(token)}", "Options are written --name value.")
                is_list = get_origin(self.options[bare[0]].hint) is list
                name, value = bare[0] + "+" * is_list, token
                bare = bare if is_list else bare[1:]
            else:
                name, equals, value = token[2:].partition("=")
                if name in FRAME_OPTIONS and name != "config":
                    given.flags.add(name)
                    continue
                option = None if name == "config" else self._find(name)
                if not equals:
                    if rest and not re.fullmatch(r"--[A-Za-z][\w.]*\+?(=.*)?", rest[0]):
                        value = rest.pop(0)
                    elif option is not None and bool in _alternatives(option.hint):
                        value = "true"
                    else:
                        allowed = option.allowed if option else "a preset or a YAML file"
                        raise ConfigError(f"--{name} needs a value: {allowed}")
                if option is None:
                    self._check_file(value, given)
                    continue
                if _is_plain_list(option.hint) and not name.endswith("+"):
                    value = _as_list(value, option.hint)
            asked = self._find(name)
            given.texts.pop(asked.path, None)
            if asked.takes_text_or_null and value != "null" and _is_yaml_null(value):
                given.texts[asked.path] = value
            given.keys |= {name.rstrip("+"), self._find(name).path}
            self.places.pop(name.rstrip("+"), None)
            given.arguments.append(f"--{name}={value}")
        return given

    def _find(self, name: str) -> Option:
        """The option that `--name` sets. Raises ConfigError with the nearest names."""
        plain = name.removesuffix("+")
        option = self.options.get(plain) or self.options.get(plain + "_")
        if option is not None and option.group and not option.nullable:
            keys = ", ".join(f"--{path}" for path in self.options if path.startswith(plain + "."))
            raise ConfigError(f"--{plain} is a group of keys: {keys}")
        if option is not None:
            return option
        for path, candidate in self.options.items():
            if plain.startswith(path + ".") and dict in {get_origin(part) for part in _alternatives(candidate.hint)}:
                return candidate
        raise self._unknown(f"unknown option --{plain}", plain, "--")

    def _unknown(self, problem: str, key: str, dashes: str = "") -> ConfigError:
        names = {_flag(path): path for path, option in self.options.items() if not option.group or option.nullable}
        ours = [name for name in ELSEWHERE.get(key.rpartition(".")[2].replace("-", "_"), ()) if name in names]
        if ours:
            return ConfigError(f"{problem}; here it is {' or '.join(dashes + name for name in ours)}")
        written = key.replace("-", "_")
        alike = [name for name in names if name.rpartition(".")[2] == written.rpartition(".")[2]]
        near = alike if "." not in key else difflib.get_close_matches(written, alike, cutoff=0)
        near = (near or difflib.get_close_matches(written, names))[:2]
        hint = f"; did you mean {' or '.join(dashes + name for name in near)}?" if near else ""
        beside = [name for name in names if name.rpartition(".")[0] == key.rpartition(".")[0]] or list(names)
        fix = f"Allowed here: {', '.join(dashes + name for name in beside)}" if len(beside) <= 12 else None
        return ConfigError(problem + hint, fix or f"{self.prog} --help explains each.")

    def _check_file(self, name: str, given: _Given) -> None:
        """Check the keys of a preset or file, and note it for reading. Raises ConfigError that names file and line."""
        path = find_preset(name)
        command = self.prog.rpartition(" ")[2]
        if path.is_relative_to(PRESETS) and (preset := _read_preset(path)).command != command and command != "seedbed":
            raise ConfigError(f"preset {preset.name} is for seedbed {preset.command}, not for {self.prog}")
        try:
            root = yaml.compose(path.read_bytes().decode("utf-8"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name} is not text: wrong UTF-8 at byte {error.start}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}, line {line}: not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
        if root is not None:  # an empty file changes nothing
            self._check_node(root, name, "", given)
            given.files.append(str(path.resolve()))

    def _check_node(self, node: yaml.Node, name: str, prefix: str, given: _Given) -> None:
        if not isinstance(node, yaml.MappingNode):
            what = prefix.rstrip(".") or "a config"
            raise ConfigError(f"{name}, line {node.start_mark.line + 1}: {what} must be a group of keys")
        seen: set[str] = set()
        for key_node, value in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                self._check_node(value, name, prefix, given)
                continue
            key, place = prefix + str(key_node.value), f"{name}, line {key_node.start_mark.line + 1}"
            if key not in self.options:
                raise self._unknown(f"{place}: unknown key {key}", key)
            if key in seen:
                raise ConfigError(f"{place}: {key} is given twice")
            seen.add(key)
            given.keys.add(key)
            self.places[key] = place
            option = self.options[key]
            if option.group and not (option.nullable and value.tag == "tag:yaml.org,2002:null"):
                self._check_node(value, name, key + ".", given)


def build(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Dataclasses from parsed values, innermost first. A ConfigError of a class is told with its key's full path."""
    hints = get_type_hints(cls)
    arguments = {
        spec.name: _build_value(hints[spec.name], values[spec.name], f"{path}{spec.name}")
        for spec in dataclasses.fields(cls)  # type: ignore[arg-type]
        if spec.init and spec.name in values
    }
    try:
        return cls(**arguments)
    except ConfigError as error:
        if not path:
            raise
        named = re.match(r"\w+", error.problem)
        inside = named is not None and named[0] in hints
        problem = f"{path}{error.problem}" if inside else f"{path.rstrip('.')}: {error.problem}"
        raise ConfigError(problem, error.fix) from None


def _build_value(hint: Any, value: Any, path: str) -> Any:
    parts = _alternatives(hint)
    if isinstance(value, Mapping):
        for part in parts:
            if _is_config(part) and value.keys() <= {spec.name for spec in dataclasses.fields(part)}:
                return build(part, value, path + ".")
        inner = next((get_args(part)[1] for part in parts if get_origin(part) is dict), Any)
        return {key: _build_value(inner, item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        inner = next((get_args(part)[0] for part in parts if get_origin(part) is list), Any)
        return [_build_value(inner, item, f"{path}[{number}]") for number, item in enumerate(value)]
    return value


# -- Words


def _is_config(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _words(hint: Any) -> str:
    """A type as a person would say it."""
    parts, origin, arguments = _alternatives(hint), get_origin(hint), get_args(hint)
    if len(parts) > 1:
        return " or ".join(_words(part) for part in parts)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} values [{', '.join(_words(part) for part in arguments)}]"
    if origin in (list, tuple, set):
        return f"a list, each {_words(arguments[0])}"
    if origin is dict:
        return f"keys with values, each {_words(arguments[1])}"
    if _is_config(hint):
        return f"a group of keys ({', '.join(spec.name for spec in dataclasses.fields(hint))})"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    if isinstance(hint, type) and issubclass(hint, os.PathLike):
        return "a path"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", types.NoneType: "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _shown(value: Any) -> str:
    """A value in an error: quoted if it is text, on one line, not longer than 80 characters."""
    if not isinstance(value, str):
        return str(value)
    value = {"None": "null", "True": "true", "False": "false"}.get(value, value)
    plain = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|[\[{].*[\]}]|true|false|null", value)
    text = value if plain else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(value):,} characters)"


def _is_yaml_null(text: str) -> bool:
    try:
        return yaml.safe_load(text) is None
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def _is_plain_list(hint: Any) -> bool:
    plain = (str, int, float, Path)
    return any(get_origin(part) in (list, tuple) and get_args(part)[0] in plain for part in _alternatives(hint))


def _as_list(value: str, hint: Any) -> str:
    """`a,b` as `["a", "b"]`, so that lists can be written without quotes; brackets and null stay."""
    if value.startswith("[") or value == "null":
        return value
    items = [item.strip() for item in value.split(",")] if value else []
    holds_numbers = any(get_args(part)[:1] in ((int,), (float,)) for part in _alternatives(hint))
    return f"[{','.join(items)}]" if holds_numbers else json.dumps(items, ensure_ascii=False)


def _flag(path: str) -> str:
    return path.rstrip("_")


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]
