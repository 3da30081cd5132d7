"""training.log: all that seedbed says while a run goes on, for people or for programs."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from seedbed.errors import StorageError
from seedbed.runs import storage_error
from seedbed.training.observers.config import LogConfig

LOG = "training.log"
TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _RunLog(logging.handlers.RotatingFileHandler):
    """Ends the run when the log cannot be written, as when metrics cannot; logging itself would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, StorageError):  # ours, on its way through the handlers that this one is built on
            raise error
        if not isinstance(error, OSError):
            return super().handleError(record)
        self.stream = None  # what is buffered there would fail again when it is closed
        raise storage_error(self.baseFilename, error) from error


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


@contextlib.contextmanager
def log_to(run: Path, config: LogConfig) -> Iterator[None]:
    """Everything that seedbed logs also goes to the run's own rotating log."""
    handler = _RunLog(run / LOG, maxBytes=10_000_000, backupCount=3, encoding="utf-8", delay=True)
    handler.setFormatter(JsonFormatter() if config.format == "json" else logging.Formatter(TEXT))
    handler.setLevel(config.level.upper())
    package = logging.getLogger("seedbed")
    # Warnings are for the person too: such as a checkpoint that had to be passed over.
    aloud = logging.StreamHandler()
    aloud.setLevel(logging.WARNING)
    aloud.setFormatter(logging.Formatter("seedbed: %(message)s"))
    package.addHandler(handler)
    package.addHandler(aloud)
    package.setLevel(min(logging.WARNING, handler.level))
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.removeHandler(aloud)
        handler.close()
