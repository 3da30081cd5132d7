"""The command `seedbed`; also as `python -m seedbed`."""

import os
import sys

TUNABLES = {"tcache_count": 0, "mmap_threshold": 8 * 2**20, "trim_threshold": 4 * 2**30}
SPARING = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in TUNABLES.items())}
"""How glibc takes memory. Slivers that are left between two tensors are not handed to small objects, thread by thread:
the hole beside such a sliver would never fit a tensor of its old size again. Tensors of less than 8 MB lie in memory
that the program keeps once it has it, and are not taken from the system anew in each step. Training on a CPU takes a
tenth less memory so, and a small model up to a tenth less time (docs/experiments.md)."""


def start() -> None:
    _begin_sparing()
    from seedbed.cli import main  # not before: it is read once

    sys.exit(main())


def _begin_sparing() -> None:
    """Starts this program anew, where its C library reads how to take memory before a program begins."""
    has_glibc = sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names
    if has_glibc and not SPARING.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | SPARING)


if __name__ == "__main__":
    start()
