"""Disks that refuse to be written, for real: too small, or another user's."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A disk of 256 KiB: a real one where this user may mount, else files limited to that size."""
    place.mkdir()
    if shutil.which("mount") and os.geteuid() == 0:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True)
        if mounted.returncode == 0:
            try:
                yield
            finally:
                subprocess.run(["umount", "-l", place], check=True)
            return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@contextlib.contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """As a user who may not write `folder`; root drops its privileges, because mode bits do not stop root."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    above = folder.parents[:-1]
    modes = [place.stat().st_mode for place in above]
    if root:
        for place, mode in zip(above, modes, strict=True):
            place.chmod(mode | 0o055)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
            for place, mode in zip(above, modes, strict=True):
                place.chmod(mode)
        folder.chmod(0o755)
