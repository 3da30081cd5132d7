"""The log of a run: for people, for programs, and on a disk that fails."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path

import pytest

from seedbed.errors import StorageError
from seedbed.training.observers.config import LogConfig
from seedbed.training.run_log import log_to

logger = logging.getLogger("seedbed.training.stage")


def test_json_lines_say_when_who_how_loud_and_what(tmp_path):
    with log_to(tmp_path, LogConfig(format="json")):
        logger.info("step %d, “quoted”\nand broken", 3)
        try:
            raise ValueError("no such thing")
        except ValueError:
            logger.exception("it failed")
    first, second = map(json.loads, (tmp_path / "training.log").read_text(encoding="utf-8").splitlines())
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    assert first == {"level": "info", "logger": logger.name, "message": "step 3, “quoted”\nand broken"}
    assert second["level"] == "error" and second["exception"].endswith("ValueError: no such thing")


@pytest.mark.parametrize(("level", "kept"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_level_decides_what_is_written_and_a_person_sees_warnings_in_any_case(level, kept, tmp_path, capsys):
    with log_to(tmp_path, LogConfig(level=level)):
        logger.debug("one")
        logger.info("two")
        logger.warning("three")
    log = tmp_path / "training.log"
    lines = log.read_text().splitlines() if log.exists() else []
    assert [line.split()[-1] for line in lines] == ["one", "two", "three"][3 - kept :]
    assert capsys.readouterr().err == "seedbed: three\n"


def test_a_log_that_cannot_be_written_is_one_storage_error(tmp_path, capsys):
    with pytest.raises(StorageError, match=r"cannot write .*training\.log"), log_to(tmp_path, LogConfig()):
        (tmp_path / "training.log").mkdir()
        logger.info("a step")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_is_one_storage_error(tmp_path, capsys):
    (tmp_path / "training.log").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="no space left"), log_to(tmp_path, LogConfig()):
        logger.info("a step")
    assert capsys.readouterr().err == ""
