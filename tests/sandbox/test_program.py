"""What a program finds in its box, and the verdict on how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from seedbed.errors import ConfigError
from seedbed.sandbox import Limits, run, run_many
from seedbed.sandbox.box import Box, descendants, watch
from seedbed.sandbox.verdict import exception_named
from tests.sandbox.boxed import boxed

pytestmark = boxed


def test_a_program_prints_and_passes():
    verdict = run("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert (verdict.outcome, verdict.stdout, verdict.stderr, verdict.exit_code) == ("passed", b"out\n", b"err\n", 0)
    assert 0 < verdict.seconds < 10 and 0 < verdict.cpu_seconds < 10 and verdict.peak_memory > 2**20


def test_it_finds_its_files_arguments_and_input():
    program = "import sys, helper\nprint(helper.double(int(sys.argv[1])), sys.stdin.read(), open('deep/a').read())"
    files = {"helper.py": b"def double(x):\n    return 2 * x", "deep/a": b"letters"}
    assert run(program, files=files, arguments=["21"], stdin=b"given").stdout == b"42 given letters\n"


def test_what_it_writes_is_gone_with_its_box():
    assert run("open('kept', 'w').write('x')\nprint(open('kept').read())").stdout == b"x\n"
    assert run("import os\nprint(os.listdir('.'))").stdout == b"['main.py']\n"


def test_it_can_use_threads_processes_and_temporary_files():
    program = (
        "import asyncio, concurrent.futures, multiprocessing, subprocess, sys, tempfile\n"
        "if __name__ == '__main__':\n"
        "    with tempfile.NamedTemporaryFile() as file: file.write(b'x')\n"
        "    with concurrent.futures.ThreadPoolExecutor(2) as pool: print(list(pool.map(abs, [-1, -2])))\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-3, -4]))\n"
        "    print(subprocess.run([sys.executable, '-c', 'print(5)'], capture_output=True).stdout)\n"
        "    print(asyncio.run(asyncio.sleep(0, 6)))\n"
    )
    verdict = run(program)
    assert verdict.stdout == b"[1, 2]\n[3, 4]\nb'5\\n'\n6\n", verdict.stderr


def test_the_same_program_prints_the_same():
    """Hashes of text are not salted."""
    assert len({run("print(list({'a', 'b', 'c', 'd', 'e'}))").stdout for _ in range(3)}) == 1


@pytest.mark.parametrize(
    "program, outcome, reason, exception",
    [
        ("raise KeyError('k')", "failed", "KeyError", "KeyError"),
        ("class Own(Exception): pass\nraise Own('two\\nlines: x')", "failed", "Own", "Own"),
        ("import json\njson.loads('{')", "failed", "JSONDecodeError", "JSONDecodeError"),
        ("def", "failed", "SyntaxError", "SyntaxError"),
        ("x = '\ud800'", "failed", "SyntaxError", "SyntaxError"),
        ("x = \0", "failed", "SyntaxError", "SyntaxError"),
        ("import sys\nsys.exit('no')", "failed", "exit code 1", None),
        ("import sys\nsys.exit(9)", "failed", "exit code 9", None),
        ("import os\nos.abort()", "killed", "SIGABRT", None),
        ("import os\nos.kill(os.getpid(), 40)", "killed", "signal 40", None),
        ("raise KeyboardInterrupt", "killed", "SIGINT", None),
    ],
)
def test_each_end_has_its_verdict(program, outcome, reason, exception):
    verdict = run(program)
    assert (verdict.outcome, verdict.reason, verdict.exception) == (outcome, reason, exception), verdict


def test_what_was_printed_before_the_end_is_told():
    verdict = run("print('here', flush=True)\nwhile True: pass", Limits(seconds=0.3))
    assert (verdict.outcome, verdict.stdout) == ("timeout", b"here\n")
    assert 0.3 <= verdict.seconds < 3


def test_no_more_than_the_limit_is_printed():
    verdict = run("print('x' * 10**7)", Limits(output_kb=4))
    assert (verdict.outcome, len(verdict.stdout)) == ("output", 4096)


def test_a_program_that_ends_at_the_limit_of_output_passes():
    assert run("print('x' * 4095)", Limits(output_kb=4)).passed


def test_many_verdicts_stand_in_the_order_of_their_programs():
    programs = [f"import time\ntime.sleep({(3 - i) / 20})\nprint({i})" for i in range(4)]
    assert [int(verdict.stdout) for verdict in run_many(programs, workers=4)] == [0, 1, 2, 3]


def test_nothing_is_left_of_a_program_that_was_ended():
    box = Box(
        ["-c", "import os, time\nos.fork()\nos.fork()\nprint(flush=True)\ntime.sleep(60)"], {}, Limits(seconds=0.2)
    )
    seen: set[int] = set()
    look = box.look

    def looking(now: float, born: float) -> None:
        seen.update(descendants(box.process.pid))
        look(now, born)

    box.look = looking  # type: ignore[method-assign]
    watch([box])
    assert box.verdict().outcome == "timeout"
    assert len(seen) >= 4 and [pid for pid in seen if os.path.exists(f"/proc/{pid}")] == []


def test_a_box_ends_with_who_made_it(tmp_path):
    """Killed with no time to clean up."""
    code = "from seedbed.sandbox import run, Limits\nrun('import time\\ntime.sleep(77)', Limits(seconds=99))"
    maker = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 30
    while len(made := descendants(maker.pid)) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    maker.kill()
    maker.wait()
    while any(map(alive, made)) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(made) >= 3 and not any(map(alive, made))


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_boxes_leave_no_descriptor_open():
    run("pass")
    before = set(os.listdir("/proc/self/fd"))
    for program in ("pass", "raise ValueError", "print('x' * 10**7)"):
        run(program, Limits(output_kb=4))
    assert set(os.listdir("/proc/self/fd")) == before and threading.active_count() >= 1


@pytest.mark.parametrize("field, value", [("seconds", 0), ("processes", 0), ("memory_mb", 1), ("files", 1.5)])
def test_limits_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        Limits(**{field: value})


@pytest.mark.parametrize(
    "stderr, name",
    [
        (b"", None),
        (b"error: not a traceback\n", None),
        (b'Traceback (most recent call last):\n  File "a", line 1, in <module>\n    x\na.b.Own: text\n', "Own"),
        (b'  File "a", line 1\n    (\n    ^\nSyntaxError: never closed\n', "SyntaxError"),
        (b'Traceback:\n  File "a", line 1\n    x\nKeyError\nValueError: printed later\n', "KeyError"),
        (b"MemoryError\n", "MemoryError"),
    ],
)
def test_the_exception_is_read_from_the_traceback(stderr, name):
    assert exception_named(stderr) == name


def test_computing_too_long_is_a_timeout_where_the_clock_still_has_time():
    verdict = run("while True: pass", limits=Limits(seconds=20, cpu_seconds=1))
    assert (verdict.outcome, verdict.reason) == ("timeout", "more than 1 s of computing") and verdict.seconds < 20
