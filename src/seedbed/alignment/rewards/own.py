"""Rewards from a file of a person's own.

It is run as any program that they start: in this process, with all that they may do. That is why no folder and no
config ever names one: a person does, at each command.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from seedbed.alignment.rewards.rules import REWARDS, Reward
from seedbed.errors import ConfigError

ROLE = "file of rewards"
"""Of the file among what a run is made from."""

MODULE = "seedbed_own_rewards"
"""What the file is called while it runs; its name need not be one that Python could import."""

CALLED = "A reward takes a problem and the text of one answer, and gives a number: def {name}(problem, answer)."


def read_rewards(file: Path, named: Iterable[str]) -> dict[str, Reward]:
    """The public functions of a file, by name. ConfigError when it cannot be run, has a function of the name of a
    reward there is, none of those that are `named`, or one of them that takes something else."""
    functions = _functions(file)
    if hidden := [name for name in functions if name in REWARDS]:
        raise ConfigError(
            f"own_rewards: {file} has a function {hidden[0]}, and {hidden[0]} is a reward already",
            f"Give it another name; one that is no reward begins with _: _{hidden[0]}.",
        )
    chosen = [name for name in named if name in functions]
    if not chosen:
        has = f"it has {', '.join(functions)}" if functions else "it has no function that is public"
        example = next(iter(functions), "NAME")
        raise ConfigError(
            f"own_rewards: rewards names nothing that {file} has: {has}", f"Name it: --rewards '{{\"{example}\": 1}}'."
        )
    for name in chosen:
        _refuse_signature(file, name, functions[name])
    return functions


def _functions(file: Path) -> dict[str, Reward]:
    """Those that the file itself defines."""
    found = vars(_run(file)).items()
    return {
        name: value
        for name, value in found
        if not name.startswith("_")
        and callable(value)
        and not inspect.isclass(value)
        and getattr(value.func if isinstance(value, partial) else value, "__module__", None) == MODULE
    }


def _run(file: Path) -> ModuleType:
    """The file as a module. It leaves no compiled copy beside it, and imports nothing from there."""
    module = ModuleType(MODULE)
    module.__file__ = str(file)
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"own_rewards: {file} cannot be read: {error.strerror}", "Give a Python file.") from error
    sys.modules[MODULE] = module  # dataclasses look there for what annotations name
    try:
        exec(compile(source, str(file), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # whatever a person's own code may raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{file}, line {line}" if line else str(file)
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigError(f"own_rewards: {where}: {type(error).__name__}: {said}".rstrip(": ")) from error
    return module


def _refuse_signature(file: Path, name: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # of what is not written in Python
        return
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(f"own_rewards: {file}: {name} gives no number when it is called", CALLED.format(name=name))
    parameters: Mapping[str, inspect.Parameter] = signature.parameters
    try:
        signature.bind(None, "")
    except TypeError:
        fits = False
    else:
        fits = "completions" not in parameters
    if not fits:
        theirs = "; trl's take lists" if "completions" in parameters else ""
        raise ConfigError(f"own_rewards: {file}: {name}{signature} is not called so{theirs}", CALLED.format(name=name))
