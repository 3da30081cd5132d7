"""The house itself: floors, lock, Makefile, and the strictness about skips."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M))


def plain(requirement: str) -> str:
    return re.split(r"[\[<>=;~! ]", requirement)[0].lower().replace("_", "-")


def test_the_lock_pins_every_requirement_exactly():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [
        line for line in lines if line and not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)
    ] == []
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["dev"]
    assert {plain(name) for name in wanted} - {plain(name) for name in PINS} == set()
    assert PINS["torch"] == "2.13.0"
    assert [name for name in PINS if "nvidia" in name or "cuda" in name or name == "triton"] == []


def test_the_lock_satisfies_pyproject():
    from packaging.requirements import Requirement

    pins = {plain(name): version for name, version in PINS.items()}
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["dev"]
    unmet = [line for line in wanted if not Requirement(line).specifier.contains(pins[plain(line)])]
    assert unmet == []


def test_make_help_names_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split()
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in named if not re.search(rf"^  {target} ", said, re.M)] == []
    assert set(named) >= {"help", "demo", "test", "proof", "check", "bench", "docs", "clean"}


def test_the_picture_and_the_table_show_every_room():
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = set(re.findall(r"\w+", " ".join(layers))) - {"__main__"}
    picture = (ROOT / "docs/pictures/floors.svg").read_text(encoding="utf-8")
    assert rooms - set(re.findall(r">(\w+)<", picture)) == set()
    table = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert rooms - set(re.findall(r"`(\w+)(?:/|\.py)`", table)) == set()


@pytest.fixture
def copied_house(tmp_path):
    """A package with the rooms of the contract, each empty, to break one at a time."""
    contract = PYPROJECT["tool"]["importlinter"]["contracts"][0]
    package = tmp_path / "seedbed"
    for layer in ["", *contract["layers"]]:
        for room in re.findall(r"\w+", layer) or [""]:
            (package / room).mkdir(parents=True, exist_ok=True)
            (package / room / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return package


def lint_imports(package: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports\n"
    code += "sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True)


def test_the_contract_holds_for_an_empty_house(copied_house):
    done = lint_imports(copied_house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "imported"),
    [("model", "training"), ("data", "model"), ("errors", "runs"), ("training", "cli"), ("tuning", "evaluation")],
)
def test_an_import_upwards_or_sideways_breaks_the_contract(copied_house, room, imported):
    (copied_house / room / "__init__.py").write_text(f"import seedbed.{imported}\n")
    done = lint_imports(copied_house)
    assert done.returncode == 1
    assert f"seedbed.{room} is not allowed to import seedbed.{imported}" in done.stdout


def test_a_room_without_a_floor_breaks_the_contract(copied_house):
    (copied_house / "utils").mkdir()
    (copied_house / "utils" / "__init__.py").touch()
    assert lint_imports(copied_house).returncode == 1


@pytest.mark.parametrize(
    ("reason", "strict", "code"),
    [("no zsh here", "1", 1), ("no zsh here", "0", 0), ("needs a GPU", "1", 0)],
)
def test_a_skip_without_a_gpu_for_a_reason_fails_in_ci(tmp_path, reason, strict, code):
    (tmp_path / "conftest.py").write_text(
        (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tmp_path / "test_x.py").write_text(
        f"import pytest\n\ndef test_a(): pytest.skip({reason!r})\n\ndef test_b(): pass\n", encoding="utf-8"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n",
        "1",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "SEEDBED_STRICT_SKIPS": strict}, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout
    assert ("SKIPPED IS FAILED HERE" in done.stdout) == bool(code)
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]


def test_the_built_package_holds_its_presets_and_templates():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["seedbed"]
    package = ROOT / "src" / "seedbed"
    held = {path for pattern in patterns for path in package.glob(pattern)}
    wanted = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".typed")}
    assert wanted - held == set()
