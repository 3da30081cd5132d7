"""The command line without the seconds that Python takes to import torch: a fork of a process that has done so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def seedbed_in(folder: Path, *arguments: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    """`seedbed ARGUMENTS` in `folder`, with `typed` as its input."""
    from seedbed.training.parallel.launch import processes

    given = list(map(str, arguments))
    streams = {name: folder.parent / f"{folder.name}.{name}" for name in ("in", "out", "err")}
    streams["in"].write_text(typed, encoding="utf-8")
    process = processes().Process(target=_command, args=(folder, given, streams))
    process.start()
    process.join(300)
    out, err = (streams[name].read_text(encoding="utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess(given, process.exitcode if process.exitcode is not None else -1, out, err)


def _command(folder: Path, arguments: list[str], streams: dict[str, Path]) -> None:
    from seedbed.cli import main

    sys.stdin = streams["in"].open(encoding="utf-8")
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        os.dup2(os.open(streams[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
        stream.reconfigure(encoding="utf-8")
    os.chdir(folder)
    sys.argv[:] = ["seedbed", *arguments]
    sys.exit(main())
