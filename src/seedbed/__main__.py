"""The command `seedbed`; also as `python -m seedbed`."""

import os
import sys

SPARING = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""glibc hands slivers that are left between two tensors to small objects, thread by thread; the hole beside such a
sliver then never fits a tensor of its old size again. Without that, training on a CPU takes a tenth less memory, in the
same time (docs/experiments.md)."""


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
