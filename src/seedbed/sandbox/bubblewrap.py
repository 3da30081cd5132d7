"""A box made by bubblewrap (the Debian package): namespaces of its own for processes, mounts, network, names and IPC.

What the program sees is an empty file system with Python and the C library in it, read-only, a folder of its own in
memory, and itself in /proc. Root's boxes run as a user that nobody else is; other people's in a user namespace.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import sysconfig
from functools import cache
from pathlib import Path

FOLDER = "/work"
"""The program's, the only one that it can write to; also its home and /tmp."""

UNUSED_USERS = range(1_900_000_000, 2_100_000_000)
"""Numbers that no one gives to users, by systemd's table of them (Users, Groups, UIDs and GIDs on systemd systems)."""

CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
"""Of a box's first process: to mount its folders, to become another user, to give all of them up for good."""

ZONES = "/usr/share/zoneinfo"
"""Of time, which Python reads there."""
DEVICES = ("null", "zero", "full", "random", "urandom")


def command(program: str, user: int | None, first: list[str]) -> list[str]:
    """What starts a box whose first process is `first`. `program` is where bubblewrap is; `user`, whom root will become
    in the box, if it is root's."""
    words = [program, "--die-with-parent", "--as-pid-1", "--hostname", "box", "--unshare-uts", "--unshare-ipc"]
    words += ["--unshare-pid", "--unshare-net", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    for name in CAPABILITIES:
        words += ["--cap-add", name]
    if user is None:
        words += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    words += [*_system(), "--dir", FOLDER, "--proc", "/proc", "--symlink", FOLDER, "/tmp"]
    for name in DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    words += ["--symlink", FOLDER, "/dev/shm", "--symlink", "/proc/self/fd", "/dev/fd"]
    return [*words, "--remount-ro", "/", "--chdir", "/", "--", *first]


def room(user: int | None, disk_mb: int, files: int) -> str:
    """The options of the file system in memory that the first process mounts as the program's folder."""
    owner = 1000 if user is None else user
    return f"size={disk_mb}m,nr_inodes={files},mode=700,uid={owner},gid={owner}"


def unused_user() -> int | None:
    """A user that nobody is, for a box of root's; None where only one's own is to be had.

    Limits on the number of processes are counted by user, and never for root, even in a namespace of its own.
    """
    if os.geteuid() != 0:
        return None
    for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= UNUSED_USERS.start and UNUSED_USERS.stop <= first + count:
            return secrets.choice(UNUSED_USERS)
    return None


def find() -> str | None:
    """Where bubblewrap is, if it is."""
    return shutil.which("bwrap")


@cache
def interpreter() -> str:
    """The Python that runs seedbed, without the environment around it."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


@cache
def _system() -> tuple[str, ...]:
    """The options that show the C library and Python, and no packages but Python's own."""
    links = [place for place in ("/lib", "/lib64") if os.path.islink(place)]
    library = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    shown: list[str] = []
    for place in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", f"{sys.base_prefix}/lib", library, interpreter(), ZONES):
        within = any(Path(place).is_relative_to(other) for other in shown)
        if os.path.exists(place) and place not in links and not within:
            shown.append(place)

    words: list[str] = []
    for folder in sorted({"/dev", *(str(parent) for place in shown for parent in Path(place).parents)}):
        words += ["--perms", "755", "--dir", folder]  # made on the way they would be root's alone
    for place in shown:
        words += ["--ro-bind", os.path.realpath(place), place]
    packages = {path for place in shown for path in Path(place).glob("python*/*-packages")}
    for hidden in sorted({*packages, *Path(library).glob("*-packages")}):
        words += ["--tmpfs", str(hidden), "--remount-ro", str(hidden)]
    for link in links:
        words += ["--symlink", os.readlink(link), link]
    return tuple(words)
