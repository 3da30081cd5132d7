"""Errors meant for people: each says what was wrong and where, then how to mend it."""

from __future__ import annotations


class SeedbedError(Exception):
    """Something a person can put right. The command line prints it without a traceback and ends with exit code 2.

    `problem` says what was wrong and where; `fix`, when there is one, says what to do or which command to run.
    """

    exit_code = 2
    """Of a command that ends with it."""

    def __init__(self, problem: str, fix: str | None = None):
        super().__init__(problem if fix is None else f"{problem}\n{fix}")
        self.problem = problem
        self.fix = fix


class ConfigError(SeedbedError):
    """A key or value that cannot be used."""


class DataError(SeedbedError):
    """Input that cannot be read as what it claims to be."""


class StorageError(SeedbedError):
    """A folder or file that cannot be written: disk full, no permission, in use."""


class CorruptionError(SeedbedError):
    """Bytes on disk that are not the bytes that were written."""


class SandboxError(SeedbedError):
    """Code that nobody vouches for, and no box to run it in."""


class TrainingError(SeedbedError):
    """A run that cannot go on, such as one whose loss is no longer a number."""


class CutOffError(TrainingError):
    """A run that something outside of it has cut off, such as another of its processes that was killed: the same
    command goes on."""

    exit_code = 75
    """What sysexits.h calls EX_TEMPFAIL: try again."""


class Alarm(TrainingError):
    """A run that an alert has ended, with an exit code of its own."""

    def __init__(self, problem: str, fix: str, exit_code: int):
        super().__init__(problem, fix)
        self.exit_code = exit_code


class BusyError(SeedbedError):
    """More is asked than can be done now: the same may be asked again later."""

    exit_code = 75
