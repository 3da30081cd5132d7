"""Tests of a program, and programs that would rather forge having passed them."""

from __future__ import annotations

import pytest

from seedbed.errors import DataError
from seedbed.sandbox import Limits, check, check_many
from seedbed.sandbox.check import functions_called
from tests.sandbox.boxed import boxed

TESTS = "def test(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(-1, 1) == 0\ntest(add)\n"


@boxed
class TestVerdict:
    def test_a_right_program_passes(self):
        verdict = check("def add(a, b):\n    print('adding')\n    return a + b", TESTS)
        assert verdict.passed and verdict.stdout == b"adding\n" * 2

    def test_a_wrong_one_fails_with_the_assertion(self):
        verdict = check("def add(a, b):\n    return a - b", TESTS)
        assert (verdict.outcome, verdict.exception) == ("failed", "AssertionError")
        assert b'"tests.py", line 2' in verdict.stderr

    @pytest.mark.parametrize(
        "program, outcome, reason",
        [
            ("def sub(a, b):\n    return a - b", "failed", "AttributeError"),
            ("raise ValueError('at once')", "failed", "ValueError"),
            ("def add(a, b):\n    return {}['a']", "failed", "KeyError"),
            ("def add(a, b):\n    while True: pass", "timeout", "more than 1 s"),
            ("def add(a, b):\n    return bytearray(1 << 40)", "memory", "MemoryError"),
            ("def add(a, b):\n    while True: print('x' * 1000)", "output", "more than 64 KiB of output"),
            ("def add(a, b):\n    import ctypes\n    ctypes.string_at(0)", "killed", "SIGSEGV"),
            ("def add(a, b):\n    return add", "failed", "TypeError"),
        ],
    )
    def test_each_way_to_fail_is_told(self, program, outcome, reason):
        verdict = check(program, TESTS, Limits(seconds=1, output_kb=64))
        assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict

    def test_what_a_program_does_to_its_arguments_does_not_reach_its_tests(self):
        """Else it could empty a list before a right answer is made of it."""
        tests = "rows = [3, 1, 2]\nassert f(rows) == sorted(rows)"
        assert not check("def f(rows):\n    rows.clear()\n    return []", tests).passed
        assert check("def f(rows):\n    rows.sort()\n    return rows", tests).passed

    def test_exceptions_that_tests_await_reach_them(self):
        program = "class Own(LookupError): pass\ndef f(x):\n    raise Own('text') if x else ValueError('other')"
        tests = (
            "for x, kind in ((1, LookupError), (0, ValueError)):\n"
            "    try:\n        f(x)\n    except kind as error:\n        print(error)\n    else:\n        assert False"
        )
        verdict = check(program, tests)
        assert verdict.passed, verdict

    def test_what_is_plain_arrives_as_it_was_sent(self):
        values = (
            "[None, True, 0, -(10**30), 1.5, float('inf'), 1j, '\\ud800ä', b'x', (1,), {1: (2,)}, {3}, frozenset({4})]"
        )
        tests = (
            f"values = {values}\nback = same(values)\nassert back == values\n"
            "assert list(map(type, back)) == list(map(type, values))"
        )
        assert check("def same(x):\n    return x", tests).passed

    def test_tests_may_use_unittest(self):
        tests = (
            "import unittest\nclass Sums(unittest.TestCase):\n    def test_sum(self):\n"
            "        self.assertEqual(add(1, 2), 3)\nunittest.main()"
        )
        assert check("def add(a, b):\n    return a + b", tests).passed
        assert check("def add(a, b):\n    return 4", tests).outcome == "failed"

    def test_many_stand_in_their_order(self):
        pairs = [(f"def f():\n    return {i % 2}", "assert f() == 1") for i in range(4)]
        assert [verdict.passed for verdict in check_many(pairs)] == [False, True, False, True]


FORGERIES = {
    "it prints that it passed": "print('passed', flush=True)",
    "it ends well before its tests": "import os\nos._exit(0)",
    "it ends well when it is asked": "def add(a, b):\n    import os\n    os._exit(0)",
    "it leaves when it is asked": "def add(a, b):\n    raise SystemExit(0)",
    "it returns what is equal to all": (
        "class Equal(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def add(a, b):\n    return Equal()"
    ),
    "it returns what is true": "def add(a, b):\n    return True",
    "it brings its own builtins": (
        "import builtins\nbuiltins.abs = builtins.all = lambda *_: True\ndef abs(x): return 0\n"
        "def add(a, b):\n    return 0"
    ),
    "it patches the exception": "import builtins\nbuiltins.AssertionError = ValueError\ndef add(a, b):\n    return 0",
    "it raises what ends a loop": "def add(a, b):\n    raise StopIteration",
    "it raises what tests raise to leave": "def add(a, b):\n    raise KeyboardInterrupt",
    "it answers by itself": (
        "import os, sys\ndef add(a, b): return 0\n"
        "for fd in range(3, 64):\n"
        '    for text in (b\'"ready"\', b\'["returned", ["int", "0x7"]]\'):\n'
        "        try: os.write(fd, len(text).to_bytes(4, 'big') + text)\n"
        "        except OSError: pass\n"
    ),
    "it answers nonsense": (
        "import os\ndef add(a, b):\n    for fd in range(3, 64):\n"
        "        try: os.write(fd, b'\\x00\\x00\\x00\\x04[[[[' * 9)\n        except OSError: pass\n    return 5"
    ),
    "it promises an endless answer": (
        "import os\ndef add(a, b):\n    for fd in range(3, 64):\n"
        "        try: os.write(fd, b'\\xff\\xff\\xff\\xff')\n        except OSError: pass\n    return 5"
    ),
    "it answers too deeply": "def add(a, b):\n    x = []\n    for _ in range(9**5): x = [x]\n    return x",
    "it looks for its tests": (
        "import gc, glob, os, sys\ndef add(a, b):\n"
        "    files = filter(os.path.isfile, glob.glob('/work/**', recursive=True))\n"
        "    text = ''.join(open(f, errors='ignore').read() for f in files)\n"
        "    text += ''.join(str(x) for x in gc.get_objects() if isinstance(x, str))\n"
        "    return 5 if 'candidate(2, 3) ' + '== 5' in text else 0"
    ),
    "it changes the arguments that the tests compare with": "def add(*args):\n    return 0",
}


@boxed
@pytest.mark.parametrize("program", FORGERIES.values(), ids=FORGERIES)
@pytest.mark.parametrize(
    "tests", [TESTS, "assert all(map(lambda x: abs(add(*x) - 5) < 1, [(2, 3), (9, -4)])) and add(1, 1) == 2"]
)
def test_no_forgery_passes(program, tests):
    assert check(program, tests, Limits(seconds=5, processes=4)).outcome != "passed"


@boxed
@pytest.mark.parametrize("program", ["import os\ndef f(x):\n    os._exit(0)", "def f(x):\n    raise SystemExit(0)"])
def test_no_except_of_the_tests_takes_the_end_of_a_program_for_an_answer(program):
    """Tests may catch whatever a function raises; that it is gone is no exception."""
    tests = "for x in range(3):\n    try:\n        f(x)\n    except BaseException:\n        pass"
    verdict = check(program, tests)
    assert (verdict.outcome, verdict.reason) == ("failed", "it ended before its tests did")
    assert check("def f(x):\n    raise ValueError", tests).passed


@boxed
def test_a_function_that_ends_a_loop_does_not_end_that_of_its_tests():
    """`all(map(f, rows))` of nothing is true."""
    assert not check("def f(x):\n    raise StopIteration", "assert all(map(f, [1, 2]))").passed


def test_what_tests_call_is_what_they_do_not_have():
    tests = (
        "import math as m\nfrom os import path\ndef check(candidate):\n    y = [x for x in g(1)]\n"
        "    assert abs(candidate(y)) == m.pi\ncheck(f)"
    )
    assert functions_called(tests) == ["f", "g"]


@pytest.mark.parametrize("tests", ["assert True", "def", "x = 1\nassert x", "\0"])
def test_tests_that_prove_nothing_are_refused(tests):
    with pytest.raises(DataError, match="the tests"):
        check("pass", tests)
