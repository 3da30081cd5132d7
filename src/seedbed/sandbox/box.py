"""A box: one program under way, what it prints, what it uses, and its end."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import platform
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import IO

from seedbed.sandbox import bubblewrap
from seedbed.sandbox.config import MIB, Limits
from seedbed.sandbox.syscalls import seccomp_filter
from seedbed.sandbox.verdict import Ending, Outcome, Verdict, judge_ending

ENVIRONMENT = {
    "HOME": bubblewrap.FOLDER,
    "PATH": "/nowhere",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the same program gives the same answer
    "MALLOC_ARENA_MAX": "2",  # an arena of the C library takes 64 MiB of address space
}
"""All that the program has of it."""

STARTING_SECONDS = 30.0
"""In which a box must be ready, however busy the machine is."""
LOOK_SECONDS = 0.02
"""Between two looks at the memory that a box uses."""
PARTING_SECONDS = 1.0
"""That a box has to end by itself when the one that led it has ended."""
STACK = 8 * MIB


class BoxError(Exception):
    """A box that could not be made; the program was not run."""


class Box:
    """A program under way. `watch` sees it to its end."""

    def __init__(
        self,
        command: Sequence[str],
        files: Mapping[str, bytes],
        limits: Limits,
        stdin: bytes = b"",
        passed_fds: Sequence[int] = (),
    ):
        """`command` runs with `files` in its folder; `passed_fds` are open in it under their numbers here."""
        self.limits = limits
        self.stdout, self.stderr, self._report = bytearray(), bytearray(), bytearray()
        self.began: float | None = None
        self.stopped: tuple[Outcome, str] | None = None
        self.seconds = 0.0
        user = bubblewrap.unused_user()
        processes = limits.processes + (user is None)  # process 1 counts where it has the same user
        order = {
            "room": bubblewrap.room(user, limits.disk_mb, limits.files),
            "uid": user,
            "folder": bubblewrap.FOLDER,
            "files": dict(files),
            "rlimits": _rlimits(limits, processes),
            "filter": seccomp_filter(platform.machine()),
            "command": [bubblewrap.interpreter(), "-s", "-B", *command],
            "environment": ENVIRONMENT,
        }
        order_fd, stdin_fd = _sealed(marshal.dumps(order)), _sealed(stdin)
        report_fd, report_end = os.pipe()
        first = [bubblewrap.interpreter(), "-I", "-S", "-c", inside("supervise.py"), str(order_fd), str(report_end)]
        try:
            self.process = subprocess.Popen(
                bubblewrap.command(bubblewrap.find() or "bwrap", user, first),
                stdin=stdin_fd,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(order_fd, report_end, *passed_fds),
                env={"PATH": os.defpath},
                cwd="/",
                start_new_session=True,  # away from our terminal
            )
        except BaseException:
            os.close(report_fd)
            raise
        finally:
            for fd in (order_fd, stdin_fd, report_end):
                os.close(fd)
        assert self.process.stdout is not None and self.process.stderr is not None
        self.streams: dict[IO[bytes], bytearray] = {
            self.process.stdout: self.stdout,
            self.process.stderr: self.stderr,
            os.fdopen(report_fd, "rb", buffering=0): self._report,
        }

    def take(self, stream: IO[bytes]) -> bool:
        """Reads what has come by a stream; false when it has come to its end."""
        data = os.read(stream.fileno(), 65_536)
        kept = self.streams[stream]
        if kept is not self._report:
            room = self.limits.output_kb * 1024 - len(self.stdout) - len(self.stderr)
            if len(data) > room and self.stopped is None:
                self.stop("output", f"more than {self.limits.output_kb} KiB of output")
            data = data[: max(room, 0)]
        kept += data
        if self.began is None and self._report.startswith(b"began\n"):
            self.began = time.monotonic()
        return bool(data)

    def look(self, now: float, born: float) -> None:
        """Ends a program whose time is over, whose processes are too many, or hold too much memory together."""
        if self.began is None:
            if now > born + STARTING_SECONDS:
                self.stop("killed", "its box was not ready in time")
            return
        if now > self.began + self.limits.seconds:
            return self.stop("timeout", f"more than {self.limits.seconds:g} s")
        _, *processes = descendants(self.process.pid) or [0]  # process 1 is ours
        if len(processes) > self.limits.processes:
            self.stop("processes", f"more than {self.limits.processes} processes")
        elif sum(map(_resident, processes)) > self.limits.memory_mb * MIB:
            self.stop("memory", f"more than {self.limits.memory_mb} MiB in all")

    def stop(self, outcome: Outcome, reason: str) -> None:
        """Ends the program and everything that it started, unless it has ended by itself."""
        if self.stopped is None:
            self.stopped = outcome, reason
        # When process 1 of a box ends, all of the box has ended, and only then does bubblewrap see it end.
        for pid in _children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        self.process.kill()

    def close(self) -> None:
        """Waits until nothing of the box is left."""
        self.process.wait()
        for stream in self.streams:
            stream.close()
        if self.began is not None:
            self.seconds = time.monotonic() - self.began

    def verdict(self) -> Verdict:
        """How the program ended. BoxError if it never began."""
        lines = self._report.decode("utf-8", "replace").splitlines()
        unable = next((line for line in lines if line.startswith("unable ")), None)
        if unable is not None or self.began is None:
            raise BoxError(
                (unable or self.stderr.decode("utf-8", "replace")).strip() or "no word from its first process"
            )
        ended = next((line.split()[1:] for line in lines if line.startswith("ended ")), None)
        ending = None if ended is None else Ending(int(ended[0]), float(ended[1]), int(ended[2]))
        outcome, reason, exception, exit_code = judge_ending(ending, bytes(self.stderr), self.limits.cpu_seconds)
        if self.stopped is not None:
            (outcome, reason), exception, exit_code = self.stopped, None, None
        return Verdict(
            outcome,
            reason,
            bytes(self.stdout),
            bytes(self.stderr),
            round(self.seconds, 4),
            exception,
            exit_code,
            None if ending is None else ending.cpu_seconds,
            None if ending is None else ending.peak_memory,
        )


def watch(boxes: Sequence[Box]) -> None:
    """Sees boxes to their ends; that of the first is soon the end of all."""
    born = looked = time.monotonic()
    leader_ended: float | None = None
    try:
        with selectors.DefaultSelector() as selector:
            for box in boxes:
                for stream in box.streams:
                    selector.register(stream, selectors.EVENT_READ, (box, stream))
            open_streams = len(boxes[0].streams)
            while selector.get_map():
                for key, _ in selector.select(LOOK_SECONDS):
                    box, stream = key.data
                    if not box.take(stream):
                        selector.unregister(stream)
                        open_streams -= box is boxes[0]
                if (now := time.monotonic()) - looked < LOOK_SECONDS:
                    continue
                looked = now
                if open_streams == 0:
                    leader_ended = leader_ended or now
                for box in boxes:
                    box.look(now, born)
                    if leader_ended is not None and now > leader_ended + PARTING_SECONDS:
                        box.stop("killed", "not needed any more")
    except BaseException:
        for box in boxes:
            box.stop("killed", "interrupted")
        raise
    finally:
        for box in boxes:
            box.close()


def inside(name: str) -> str:
    """The text of a file that runs in a box."""
    return (package_files("seedbed.sandbox") / "inside" / name).read_text(encoding="utf-8")


def _sealed(content: bytes) -> int:
    """A file that can be read and never changed, not by whom it is handed to either."""
    fd = os.memfd_create("box", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd


def _rlimits(limits: Limits, processes: int) -> dict[str, tuple[int, int]]:
    """Soft and hard limits of each process, none above what is allowed to us."""
    wanted = {
        "RLIMIT_AS": (limits.memory_mb * MIB,) * 2,
        "RLIMIT_CPU": (limits.cpu_seconds, limits.cpu_seconds + 1),  # a signal, and a second later the end
        "RLIMIT_FSIZE": (limits.disk_mb * MIB,) * 2,
        "RLIMIT_NOFILE": (limits.open_files,) * 2,
        "RLIMIT_NPROC": (processes,) * 2,
        "RLIMIT_STACK": (STACK, STACK),
        "RLIMIT_CORE": (1, 1),  # at 0 the system's crash reporter would still be started, as root, outside of the box
        **dict.fromkeys(("RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE"), (0, 0)),
    }
    capped = {}
    for name, (soft, hard) in wanted.items():
        _, ceiling = resource.getrlimit(getattr(resource, name))
        most = hard if ceiling == resource.RLIM_INFINITY else min(hard, ceiling)
        capped[name] = min(soft, most), most
    return capped


def _children(pid: int) -> list[int]:
    """The processes that a process has begun and not seen end, by any of its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii").split())
    return found


def descendants(pid: int) -> list[int]:
    """Its children, their children, and so on, in this order."""
    found = _children(pid)
    for child in found:  # which grows meanwhile
        found += _children(child)
    return found


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; what it shares with another counts for both."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:  # it has ended
        return 0
