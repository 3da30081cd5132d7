"""Programs and tests of them, each in a box of its own: a program passes when its tests run to their end, and it can
neither read the tests nor touch what runs them."""

from __future__ import annotations

import ast
import builtins
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from seedbed.errors import DataError
from seedbed.sandbox.box import Box, inside, watch
from seedbed.sandbox.config import Limits
from seedbed.sandbox.kinds import boxes
from seedbed.sandbox.program import encoded, in_threads
from seedbed.sandbox.verdict import Verdict

PROGRAM_LOST = 70
"""Exit code of tests that have lost the program (inside/judging.py)."""

LIMITS_HIT = ("timeout", "memory", "output", "processes")


def check(program: str, tests: str, limits: Limits | None = None) -> Verdict:
    """Runs `tests`, Python that calls functions of `program` by name and raises when something is wrong.

    The program is run first, then answers calls. Arguments and results are plain data (None, numbers, text, bytes,
    lists, tuples, sets, dicts), so nothing of the program's own making stands in the tests. The limits are for each of
    the two. Raises DataError for tests that are no Python or call nothing, SandboxError where no box can be made.
    """
    limits, names = limits or Limits(), functions_called(tests)
    to_program, from_tests = os.pipe()
    to_tests, from_program = os.pipe()
    with boxes():
        try:
            judge = _box("judging.py", tests, limits, (from_tests, to_tests), names)
            try:
                player = _box("answering.py", program, limits, (to_program, from_program))
            except BaseException:
                judge.stop("killed", "interrupted")
                judge.close()
                raise
        finally:
            for fd in (to_program, from_tests, to_tests, from_program):
                os.close(fd)
        watch([judge, player])
        return _together(judge.verdict(), player.verdict())


def _box(side: str, source: str, limits: Limits, pipes: tuple[int, int], names: Sequence[str] = ()) -> Box:
    """A box in which one side of a check runs a source; `pipes`: the ends it has of those to the other side."""
    files = {"main.py": encoded(source), "plain.py": inside("plain.py").encode()}
    return Box(["-c", inside(side), *map(str, pipes), *names], files, limits, passed_fds=pipes)


def check_many(pairs: Iterable[tuple[str, str]], limits: Limits | None = None, *, workers: int = 2) -> list[Verdict]:
    """`check` of each program with its tests, several at a time; the verdicts stand in the order of the pairs."""
    return in_threads(lambda pair: check(*pair, limits), pairs, workers)


def functions_called(tests: str) -> list[str]:
    """The names that tests use and do not define: what they call of the program.

    What Python has under a name is never asked of the program, which could otherwise bring its own `abs` or `sorted`
    to its tests.
    """
    try:
        tree = ast.parse(tests, "tests.py")
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # the last two: of what is nested too deeply
        raise DataError(f"the tests are no Python: {error or type(error).__name__}") from error
    used: set[str] = set()
    defined = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name is not None:
            defined.add(node.name)
    if not (names := sorted(used - defined)):
        raise DataError("the tests call nothing of the program", "They call its functions by name.")
    return names


def _together(judged: Verdict, played: Verdict) -> Verdict:
    """The verdict on the program: what its tests say if they had their say, else how it ended before."""
    if judged.exit_code != PROGRAM_LOST and played.outcome not in LIMITS_HIT:
        return replace(judged, stdout=played.stdout, stderr=played.stderr + judged.stderr)
    if played.passed:
        return replace(played, outcome="failed", reason="it ended before its tests did")
    return played
