"""What every test shares: markers, strictness about skips, and a way to run the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("seedbed", deadline=None, derandomize=True)
settings.load_profile("seedbed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped where torch sees none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def forbidden_skips(config: pytest.Config) -> list[str]:
    """Under SEEDBED_STRICT_SKIPS=1, the skips whose reason is not a GPU."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SEEDBED_STRICT_SKIPS") != "1" or reporter is None:
        return []
    found = []
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "GPU" not in reason:
            found.append(f"{report.nodeid}: {reason}")
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skip that is not allowed makes the session fail."""
    if forbidden_skips(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which skips failed the session."""
    for line in forbidden_skips(config):
        terminalreporter.write_line(f"SKIPPED IS FAILED HERE (only a GPU excuses a skip): {line}", red=True)


@pytest.fixture
def seedbed(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `seedbed ARGUMENTS` in a process of its own, in tmp_path; keyword arguments are environment variables."""

    def run(*arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "seedbed", *map(str, arguments)]
        env = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=timeout)

    return run
