"""The frame of the command line: which command, what it prints, how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from seedbed import __main__, __version__, cli, configuration
from seedbed.cli import COMMANDS, Command, main, parser
from seedbed.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class SumConfig:
    """Add two numbers."""

    a: float
    """First."""

    b: float = 1.0
    """Second."""

    fail: str | None = None
    """How to fail."""


def add(config: SumConfig):
    """Adds, or fails as told."""
    failures = {
        "data": DataError("x.txt is empty", "Write something into it."),
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out/x"),
        "denied": PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/root/x"),
        "rust": RuntimeError('IoError(Os { code: 28, message: "No space left on device" })'),
        "bug": ZeroDivisionError("a bug"),
        "stop": KeyboardInterrupt(),
    }
    if config.fail:
        raise failures[config.fail]
    return {"sum": config.a + config.b, "name": "sum", "list": [1]}


@pytest.fixture(autouse=True)
def sum_command(monkeypatch):
    monkeypatch.setitem(COMMANDS, "sum", Command("add two numbers", f"{__name__}:SumConfig", f"{__name__}:add"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def test_a_result_is_told_a_value_a_line(capsys):
    assert main(["sum", "--a", "2"]) == 0
    assert capsys.readouterr().out == "sum:\n  sum  3\n  name  sum\n"


def test_a_result_is_told_in_words(capsys, monkeypatch):
    result = {"units": 12345, "val_loss": 1.23456, "tasks": {"perplexity": 2345.6}}
    monkeypatch.setattr(cli, "load", lambda place: SumConfig if place.endswith("Config") else lambda config: result)
    assert main(["sum", "--a", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  target tokens  12,345",
        "  validation loss, nats a token  1.235",
        "  tasks, perplexity a token  2,346",
    ]


def test_json_is_the_last_line(capsys):
    assert main(["sum", "--a", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"sum": 3.0, "name": "sum", "list": [1]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sum"], "seedbed: a is required: First.\n         Give --a, or a in a config file.\n"),
        (["sum", "--a", "x"], "seedbed: a must be a number, got 'x'\n"),
        (["sun"], "seedbed: unknown command 'sun'; did you mean sum?\n"),
        (["sum", "--a", "1", "--fail", "data"], "seedbed: x.txt is empty\n         Write something into it.\n"),
        (["sum", "--a", "1", "--fail", "full"], "seedbed: /out/x: No space left on device\n"),
        (["sum", "--a", "1", "--fail", "rust"], "seedbed: No space left on device\n"),
        (["sum", "--a", "1", "--fail", "denied"], "seedbed: /root/x: Permission denied\n"),
    ],
)
def test_a_mistake_is_one_line_and_its_mending_and_code_2(capsys, arguments, said):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err


def test_ctrl_c_is_130_and_one_line(capsys):
    assert main(["sum", "--a", "1", "--fail", "stop"]) == 130
    assert capsys.readouterr().err == "seedbed: interrupted\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        main(["sum", "--a", "1", "--fail", "bug"])


def test_a_traceback_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("SEEDBED_TRACEBACK", "1")
    assert main(["sum", "--a", "1", "--fail", "data"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_print_config_prints_yaml_and_calls_nothing(capsys):
    assert main(["sum", "--a", "2", "--fail", "bug", "--print_config"]) == 0
    assert capsys.readouterr().out == "a: 2.0\nb: 1.0\nfail: bug\n"


def test_a_result_that_is_not_ok_ends_with_1(monkeypatch):
    monkeypatch.setattr(
        cli, "load", lambda place: SumConfig if place.endswith("Config") else lambda config: {"ok": False}
    )
    assert main(["sum", "--a", "2"]) == 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +{re.escape(command.about)}$", out, re.M) for name, command in COMMANDS.items())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"seedbed {__version__}\n"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "sum"])
class TestEveryCommand:
    def test_its_parts_exist(self, name):
        command = COMMANDS[name]
        assert isinstance(cli.load(command.config), type)
        assert callable(cli.load(command.function))

    def test_each_field_is_explained_by_its_docstring(self, name):
        keys = cli.parser(name).options
        assert [path for path, key in keys.items() if not key.about] == []

    def test_its_config_needs_no_torch(self, name):
        code = f"import sys; from seedbed import cli; cli.parser({name!r}); sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_rows_of_the_quickstart_follow_the_context_of_its_model():
    given = ["--config=pretrain/quickstart", "--model.context=64", "--data.tokens=t", "--out=o"]
    config = parser("pretrain").read(given).config
    assert config.model.context == 64 and config.data.length is None


def test_every_preset_fits_its_command():
    for preset in configuration.list_presets():
        assert cli.parser(preset.command).values(["--config", preset.name]), preset
        assert preset.about, preset


def quickest(code: str) -> float:
    """The best of five, in seconds, without coverage's own start."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)


def test_help_answers_within_half_a_second():
    assert quickest("from seedbed.cli import main; main(['--help'])") < 0.5


def test_import_takes_less_than_three_tenths_of_a_second():
    assert quickest("import seedbed") < 0.3


def test_help_loads_neither_torch_nor_the_parser():
    code = "import sys; from seedbed.cli import main; main([])\n"
    code += "sys.exit(bool({'torch', 'jsonargparse'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_a_closed_pipe_is_silent():
    code = "import sys; from seedbed import cli; cli.overview = lambda: 'x' * 1_000_000; sys.exit(cli.main([]))"
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" | head -c 1'], capture_output=True, text=True)
    assert done.stdout == "x"
    assert done.stderr == ""


def test_an_interrupted_process_says_one_line(tmp_path):
    code = (
        "import sys, time; from seedbed import cli\n"
        "def run(arguments): print('ready', flush=True); time.sleep(60)\n"
        "cli.run = run; sys.exit(cli.main(['x']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "seedbed: interrupted\n")


class TestConfigCommand:
    def test_list_can_be_asked_for_one_folder(self, capsys):
        assert main(["config", "list", "nowhere"]) == 2
        assert "there are no presets in 'nowhere'" in capsys.readouterr().err
        assert main(["config", "list", "data"]) == 0
        assert {line.split("/")[0] for line in capsys.readouterr().out.splitlines()} == {"data"}

    def test_list_names_each_preset(self, capsys):
        assert main(["config", "list", "--json"]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])["presets"]
        assert [preset["name"] for preset in found] == [preset.name for preset in configuration.list_presets()]

    def test_show_prints_the_file(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setattr(configuration.presets, "PRESETS", tmp_path)
        (tmp_path / "tiny.yaml").write_text("# sum: tiny\na: 4\n")
        assert main(["config", "show", "tiny"]) == 0
        assert capsys.readouterr().out == "# sum: tiny\na: 4\n"
        assert main(["config", "show"]) == 2

    def test_a_created_file_is_commented_and_runs(self, capsys, tmp_path):
        path = tmp_path / "sum.yaml"
        assert main(["config", "create", "--for", "sum", "--out", str(path)]) == 0
        text = path.read_text()
        assert "# First. (a number)\n# a: required\n" in text
        assert "# Second. (a number)\nb: 1.0\n" in text
        assert main(["sum", "--config", str(path), "--a", "2"]) == 0
        assert main(["config", "create", "--for", "sum", "--out", str(path)]) == 2
        assert "is there already" in capsys.readouterr().err

    def test_a_file_can_start_from_a_preset(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setattr(configuration.presets, "PRESETS", tmp_path)
        (tmp_path / "tiny.yaml").write_text("# sum: tiny\na: 4\n")
        assert main(["config", "create", "tiny"]) == 0
        assert "\na: 4.0\n" in capsys.readouterr().out

    def test_create_wants_a_command(self, capsys):
        assert main(["config", "create"]) == 2
        assert main(["config", "create", "--for", "sun"]) == 2
        assert "did you mean sum" in capsys.readouterr().err


class TestCompletion:
    def complete(self, shell_words: list[str], tmp_path: Path) -> set[str]:
        script = tmp_path / "seedbed.bash"
        script.write_text(self.script("bash"))
        words = " ".join(f"'{word}'" for word in shell_words)
        code = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(shell_words) - 1}; _seedbed; "
        code += "printf '%s\\n' \"${COMPREPLY[@]}\""
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert done.stderr == ""
        return set(done.stdout.split())

    def script(self, shell: str) -> str:
        done = subprocess.run([sys.executable, "-m", "seedbed", "completion", shell], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_bash_completes_commands_keys_values_and_files(self, tmp_path):
        (tmp_path / "some.txt").write_text("")
        assert self.complete(["seedbed", "pre"], tmp_path) == {"prepare", "pretrain"}
        assert {"--action", "--for", "--out", "--config", "--json"} <= self.complete(
            ["seedbed", "config", "--"], tmp_path
        )
        assert self.complete(["seedbed", "config", ""], tmp_path) == {"list", "show", "create"}
        assert self.complete(["seedbed", "config", "--action", "s"], tmp_path) == {"show"}
        assert self.complete(["seedbed", "config", "create", "--out", "so"], tmp_path) == {"some.txt"}

    def test_bash_completes_names_with_spaces(self, tmp_path):
        (tmp_path / "a b.txt").write_text("")
        assert self.complete(["seedbed", "config", "--out", "a"], tmp_path) == {"a", "b.txt"}

    @pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
    def test_zsh_completes_too(self, tmp_path):
        (tmp_path / "s.zsh").write_text(self.script("zsh"))
        # bashcompinit passes the words on as bash would and leaves the choice by prefix to zsh.
        code = "autoload -Uz compinit; compinit -u -D; source ./s.zsh; emulate ksh; COMP_CWORD=2; "
        code += "COMP_WORDS=(seedbed config ''); _seedbed; print -r -- \"${COMPREPLY[@]}\""
        done = subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert (done.stdout.split(), done.stderr) == (["list", "show", "create"], "")


def test_a_config_error_outside_the_parser_is_told_too(monkeypatch, capsys):
    def run(arguments):
        raise ConfigError("width must be a multiple of heads")

    monkeypatch.setattr(cli, "run", run)
    assert main(["x"]) == 2
    assert capsys.readouterr().err == "seedbed: width must be a multiple of heads\n"


def test_text_that_yaml_reads_as_nothing_is_taken_as_typed():
    for text in ("#include <stdio.h>", "# Rules", "~", "&x", "Null"):
        assert parser("generate").read(["--model=m", f"--prompt={text}"]).config.prompt == text
        assert parser("chat").read(["--model=m", "--system", text]).config.system == text
    assert parser("chat").read(["--model=m", "--system=null"]).config.system is None


def test_output_that_cannot_hold_a_character_shows_a_stand_in():
    given = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-m", "seedbed", "--help"], env=given, capture_output=True)
    assert done.returncode == 0 and b"text files ? corpus" in done.stdout


@pytest.mark.skipif(
    not hasattr(os, "confstr_names") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="no glibc"
)
def test_the_command_takes_memory_sparingly_unless_told_how(monkeypatch):
    """Its C library reads that before a program begins: it begins anew once, the same process with the same words."""
    begun = []
    monkeypatch.setattr(os, "execve", lambda *given: begun.append(given))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "seedbed", "chat"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    __main__._begin_sparing()
    ((program, words, environment),) = begun
    assert program == sys.executable and words == [sys.executable, "-X", "dev", "-m", "seedbed", "chat"]
    assert environment == os.environ | __main__.SPARING
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    __main__._begin_sparing()
    assert len(begun) == 1


def test_too_little_memory_is_told_in_one_line(monkeypatch, capsys):
    def hungry(arguments):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("seedbed.cli.run", hungry)
    assert main(["doctor"]) == 2
    assert "seedbed: not enough memory: Unable to allocate 9 TiB" in capsys.readouterr().err


def test_input_that_is_not_utf8_is_read_with_stand_ins():
    code = (
        "import sys; from seedbed import cli; cli.run = lambda _: print(ascii(input())) or 0; sys.exit(cli.main(['x']))"
    )
    given = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", code], env=given, input=b"caf\xe9\n", capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"'caf\\ufffd'\n"), done.stderr


@pytest.mark.parametrize(("name", "ours"), cli.ELSEWHERE.items())
def test_a_command_of_another_tool_tells_ours(name, ours):
    command, *options = ours.split()
    with pytest.raises(ConfigError, match=f"did you mean {ours}"):
        cli.parser(name)
    assert name not in cli.COMMANDS
    key = options[0].removeprefix("--") if options else None
    assert key is None or options[1] in str(cli.parser(command).options[key].hint)
