"""Where there is no box, nothing is run; and what the command and doctor say of it."""

from __future__ import annotations

import json
import sys

import pytest

from seedbed.cli import main
from seedbed.errors import SandboxError
from seedbed.sandbox import bubblewrap, check, kinds, run
from tests.sandbox.boxed import boxed


@pytest.fixture
def no_box(monkeypatch):
    """Forgets what was tried out before, and after."""
    kinds.lacking.cache_clear()
    yield monkeypatch
    kinds.lacking.cache_clear()


def test_without_bubblewrap_nothing_is_run(no_box, tmp_path):
    no_box.setenv("PATH", str(tmp_path))
    for attempt in (lambda: run("pass"), lambda: check("pass", "assert f()")):
        with pytest.raises(SandboxError, match="bubblewrap is not installed"):
            attempt()


def test_where_bubblewrap_may_make_no_box_its_words_are_told(no_box, tmp_path):
    """As in a container without the right to, or on a kernel without user namespaces."""
    script = tmp_path / "bwrap"
    script.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    script.chmod(0o755)
    no_box.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(SandboxError, match="cannot make a box: bwrap: No permissions to create new namespace"):
        run("pass")


def test_elsewhere_than_on_linux_it_says_what_is_missing(no_box):
    no_box.setattr(kinds.platform, "system", lambda: "Darwin")
    assert "this is Darwin" in (kinds.lacking() or "")


def test_a_machine_whose_system_calls_are_unknown_is_refused(no_box):
    no_box.setattr(kinds.platform, "machine", lambda: "riscv64")
    assert "riscv64" in (kinds.lacking() or "")


def test_the_command_refuses_in_one_line(no_box, tmp_path, capsys):
    (tmp_path / "a.py").write_text("print(1)")
    no_box.setattr(bubblewrap, "find", lambda: None)
    assert main(["sandbox", str(tmp_path / "a.py")]) == 2
    problem, fix = capsys.readouterr().err.splitlines()
    assert "bubblewrap is not installed" in problem and "apt-get install bubblewrap" in fix


def test_doctor_says_which_box_there_is_or_why_none(no_box):
    no_box.setattr(bubblewrap, "find", lambda: None)
    assert kinds.describe() == {"kind": None, "lacking": "bubblewrap is not installed"}


@boxed
class TestCommand:
    def test_it_prints_what_the_program_printed_and_the_verdict(self, tmp_path, capsys):
        (tmp_path / "a.py").write_text("print('out')")
        assert main(["sandbox", str(tmp_path / "a.py"), "--json"]) == 0
        out, verdict, result = capsys.readouterr().out.splitlines()
        assert out == "out" and verdict.startswith("passed: exit code 0, ")
        assert json.loads(result)["outcome"] == "passed" and json.loads(result)["stdout"] == "out\n"

    def test_a_program_that_fails_ends_it_with_1(self, tmp_path, capsys):
        (tmp_path / "a.py").write_text("raise ValueError('why')")
        assert main(["sandbox", str(tmp_path / "a.py")]) == 1
        said = capsys.readouterr()
        assert said.out.startswith("failed: ValueError, ") and "ValueError: why" in said.err

    def test_it_runs_tests_of_a_program(self, tmp_path, capsys):
        (tmp_path / "a.py").write_text("def f(): return 1")
        (tmp_path / "b.py").write_text("assert f() == 2")
        assert main(["sandbox", str(tmp_path / "a.py"), "--tests", str(tmp_path / "b.py")]) == 1
        assert capsys.readouterr().out.startswith("failed: AssertionError, ")

    def test_a_terminal_is_not_given_what_it_would_obey(self, tmp_path, capsys, monkeypatch):
        (tmp_path / "a.py").write_text("print('a\\x1b]0;b\\x07ä\\t\\u202e')")
        monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
        assert main(["sandbox", str(tmp_path / "a.py")]) == 0
        assert capsys.readouterr().out.splitlines()[0] == "a\ufffd]0;b\ufffdä\t\ufffd"

    def test_limits_are_options(self, tmp_path, capsys):
        (tmp_path / "a.py").write_text("while True: pass")
        assert main(["sandbox", str(tmp_path / "a.py"), "--limits.seconds", "0.2"]) == 1
        assert capsys.readouterr().out.startswith("timeout: more than 0.2 s")

    def test_a_file_that_is_not_there_is_told(self, tmp_path, capsys):
        assert main(["sandbox", str(tmp_path / "none.py")]) == 2
        assert "none.py cannot be read" in capsys.readouterr().err

    def test_doctor_names_the_box(self):
        assert kinds.describe() == {"kind": "bubblewrap", "lacking": None}
