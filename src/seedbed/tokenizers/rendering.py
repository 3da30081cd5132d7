"""Chat templates as Jinja renders them: in transformers' environment, sandboxed, and within a bound of work.

A template comes with a model, so from strangers. The sandbox keeps it from Python; the work it may do is counted, as
every loop, call, filter, operator and output pays for the size of what goes into it, and before it is made for what
writes one text many times.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sized
from contextvars import ContextVar
from datetime import datetime
from typing import Any, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox

from seedbed.errors import ConfigError, DataError

MOST_WORK = 20_000_000
"""Characters and steps of one rendering: a hundred times those of the longest conversations, and some seconds."""

CALL = 50
"""Of them, what a call costs by itself, in the time it takes."""

FAILURES = (
    *(TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError, MemoryError),
    *(AssertionError, StopIteration, OSError),
)
"""What Python raises when a template asks it for what it cannot do."""

LOOKS = {"length", "count", "first", "last", "list", "select", "selectattr", "reject", "rejectattr", "map", "items"}
LOOKS |= {"default", "d", "reverse", "safe"}
"""Filters that hand on what is in a list and make no text of it."""

CONTEXTS = (jinja2.Environment, jinja2.runtime.Context, jinja2.nodes.EvalContext)
"""What Jinja hands to some filters before the value."""

WRITES_OUT = ("format", "format_map")

PLACES: dict[str, Callable[..., int]] = {
    "replace": lambda text, old="", *_, **named: text.count(str(old)),
    "indent": lambda text, *_, **named: text.count("\n") + 1,
    "expandtabs": lambda text, *_, **named: text.count("\t"),
    "wordwrap": lambda text, *_, **named: len(text),
    "translate": lambda text, *_, **named: len(text),
    "format": lambda text, *_, **named: max(text.count("{"), text.count("%")),
}
"""Of filters and methods that may write one of their arguments many times: at most how many."""

_left: ContextVar[int] = ContextVar("_left", default=0)


def render_template(template: str, **variables: Any) -> str:
    """The text of a template. Raises ConfigError when it is not Jinja, DataError when it refuses or cannot render."""
    compiled = compile_template(template)
    _left.set(MOST_WORK)
    try:
        return compiled.render(**variables)
    except jinja2.exceptions.TemplateError as error:
        raise DataError(f"the chat template refuses the conversation: {_line(error)}") from error
    except FAILURES as error:
        raise DataError(f"the chat template cannot render the conversation: {_line(error)}") from error


@functools.lru_cache(maxsize=16)
def compile_template(template: str) -> jinja2.Template:
    """Raises ConfigError when the template is not Jinja, or Python refuses what it amounts to."""
    # Not optimized: constants would be computed here, where nothing counts the work.
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.filters = {name: _paid(name, filter_) for name, filter_ in environment.filters.items()}
    environment.filters["pay"] = _pay_for
    del environment.globals["lipsum"]  # writes as much as it is asked for
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except (jinja2.exceptions.TemplateError, SyntaxError, *FAILURES) as error:
        raise ConfigError(f"the chat template is not valid Jinja: {_line(error)}") from error


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Counts the work of what it renders."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(jinja2.nodes.For):
            # Each turn also writes what stands in the loop's body.
            weight = 1 + sum(len(text.data) for text in loop.find_all(jinja2.nodes.TemplateData))
            loop.iter = _paying(loop.iter, weight)
        for comparison in tree.find_all(jinja2.nodes.Compare):
            comparison.expr = _paying(comparison.expr)
            for operand in comparison.ops:
                operand.expr = _paying(operand.expr)
        for item in tree.find_all(jinja2.nodes.Getitem):
            if isinstance(item.arg, jinja2.nodes.Slice):
                item.node = _paying(item.node)
        written: list[Any] = [*tree.find_all(jinja2.nodes.Concat), *tree.find_all(jinja2.nodes.Output)]
        for node in written:
            node.nodes = [part if isinstance(part, jinja2.nodes.TemplateData) else _paying(part) for part in node.nodes]
        return tree

    def call(self, context: jinja2.runtime.Context, called: Any, /, *args: Any, **named: Any) -> Any:
        name, text = getattr(called, "__name__", ""), getattr(called, "__self__", None)
        _pay(CALL, *args, *named.values(), deep=name in WRITES_OUT)
        if isinstance(text, str):
            _pay_for_places(name, text, *args, **named)
        result = super().call(context, called, *args, **named)
        _pay(0 if isinstance(result, int) else result)
        return result

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            if operator == "*" and isinstance(other, int) and isinstance(one, str | list | tuple):
                _pay(len(one) * max(other, 0))
        if isinstance(left, int) and isinstance(right, int):
            _pay(left.bit_length() * (abs(right) if operator == "**" else 1) + right.bit_length())
        else:
            _pay(*(value for value in (left, right) if not isinstance(value, int)), deep=operator == "%")
        if operator == "%" and isinstance(left, str):
            _pay(_widths(left))
            _pay_for_places("format", left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @functools.wraps(wrapped)
        def paying(*args: Any, **named: Any) -> str:
            _pay(_widths(value.__self__))
            _pay_for_places("format", value.__self__, *args, **named)
            return wrapped(*args, **named)

        return paying


class _Generation(jinja2.ext.Extension):
    """Reads {% generation %} … {% endgeneration %} as its body: templates of the hub mark replies with it for
    transformers. Here replies are found by rendering, in any template."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _paying(node: jinja2.nodes.Node, weight: int = 0) -> jinja2.nodes.Filter:
    return jinja2.nodes.Filter(
        cast(jinja2.nodes.Expr, node), "pay", [jinja2.nodes.Const(weight)], [], None, None, lineno=node.lineno
    )


@jinja2.pass_context  # what depends on the context is never computed while compiling
def _pay_for(context: jinja2.runtime.Context, value: Any, weight: int) -> Any:
    """The value itself, once it is paid for: to be written out, or with a weight, item by item, for a loop."""
    if not weight:
        _pay(1 if isinstance(value, int) else value, deep=True)
        return value
    if not isinstance(value, Sized):
        value = list(value)  # an iterator, such as that of the filter `map`
    _pay(weight * len(value))
    return value


def _paid(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for its arguments and its result."""

    @functools.wraps(function)
    def paying(*args: Any, **named: Any) -> Any:
        _pay(CALL, *args[1:], *named.values(), deep=name not in LOOKS)
        if args and not isinstance(args[0], int):
            _pay(args[0], deep=name not in LOOKS)
        if name == "format":
            _pay(_widths(str(args[0])))
        at = int(isinstance(args[0], CONTEXTS))
        value, given = args[at], args[at + 1 :]
        if name == "join":  # the separator is what is written many times
            value = value if isinstance(value, Sized) else list(value)
            args = (*args[:at], value, *given)
            _pay_for_places(name, str(named.get("d", given[0] if given else "")), value)
        elif isinstance(value, str):
            _pay_for_places(name, value, *given, **named)
        if name == "sum" and len(args) > 1:  # each addition of lists copies all that came before
            items = list(args[1])
            args = (args[0], items, *args[2:])
            _pay(len(items) * sum(len(item) for item in items if isinstance(item, Sized)))
        result = function(*args, **named)
        _pay(0 if isinstance(result, int) else result)
        return result

    return paying


def _pay(*values: Any, deep: bool = False) -> None:
    """Takes from what is left: a number costs itself, a text its length, a list or mapping too, and if `deep` all that
    is in it: what a text of it would cost."""
    left = _left.get()
    rest = list(values)
    while rest and left >= 0:
        value = rest.pop()
        if isinstance(value, int):
            left -= abs(value)
        elif isinstance(value, str | list | tuple | dict):
            left -= len(value)
        if deep and isinstance(value, list | tuple | dict):
            left -= CALL
            items = [*value, *value.values()] if isinstance(value, dict) else value
            rest += [item for item in items if not isinstance(item, int)]
    _left.set(left)
    if left < 0:
        raise jinja2.exceptions.TemplateRuntimeError("it takes more work than any conversation is worth")


def _pay_for_places(name: str, text: str, *args: Any, **named: Any) -> None:
    """Pays for the longest argument as often as the call may write it, or by a number as often as that widens."""
    if name == "join":
        _pay(len(text) * (len(args[0]) if args and isinstance(args[0], Sized) else 1))
    elif name in PLACES:
        _pay(PLACES[name](text, *args, **named) * max(map(_size, [*args, *named.values()]), default=0))


def _size(value: Any) -> int:
    """The numbers and the lengths of all texts in a value together, no more than what can be paid counted."""
    size, rest = 0, [value]
    while rest and size <= MOST_WORK:
        value = rest.pop()
        size += abs(value) if isinstance(value, int) else len(value) if isinstance(value, Sized) else 0
        if isinstance(value, list | tuple | dict):
            rest += [*value, *value.values()] if isinstance(value, dict) else value
    return size


def _widths(form: str) -> int:
    """The numbers in a format string, such as the width in "%9999d"."""
    return sum(int(digits[:12]) for digits in re.findall(r"\d{4,}", form))


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: Any) -> None:
    _pay(message, deep=True)
    raise jinja2.exceptions.TemplateError(message)


def _line(error: BaseException) -> str:
    """What an error says, in one line that is not too long."""
    return " ".join(str(error).split())[:300] or type(error).__name__
