"""The wheel holds all that the package needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.proof
def test_the_wheel_runs_the_quickstart_outside_the_repository(tmp_path):
    """In an empty virtual environment. The packages seedbed needs are not installed again, which takes minutes: a .pth
    file shows it those of this environment. seedbed itself comes from the wheel, which the test checks."""
    copy = tmp_path / "copy"  # setuptools leaves folders where it builds
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", copy]
    made = subprocess.run(build, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # there pip would find the source
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, env=env, cwd=tmp_path)
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, capture_output=True, text=True, check=True, env=env).stdout.strip())
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    imported = [python, "-c", "import seedbed; print(seedbed.__file__)"]
    found = subprocess.run(imported, capture_output=True, text=True, check=True, env=env, cwd=tmp_path).stdout
    assert Path(found.strip()).is_relative_to(packages)
    command = [python.with_name("seedbed"), "quickstart", "--minutes=0.3", "--out=demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["finished"] and (tmp_path / "demo" / "report.html").is_file()
