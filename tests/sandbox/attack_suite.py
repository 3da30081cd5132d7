"""Programs that try to get out of a box, or to use more than they may: attacks.txt, and the world that they attack.

An attack begins with a line `#### NAME | OUTCOME | REASON (limits: KEY=VALUE …)`: the verdict that is right, the reason
as an expression that must match. It finds what there is to attack in `facts`, and prints ESCAPED when it has got
anything.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from seedbed.sandbox import Limits, Verdict, run

LIMITS = Limits(seconds=8, cpu_seconds=5, memory_mb=160, processes=8, disk_mb=8, files=64, open_files=64, output_kb=64)
HEADER = re.compile(
    r"#### (?P<name>[^|]+) \| (?P<outcome>\w+) \|(?P<reason>[^(\n]*)(?:\(limits: (?P<limits>.*)\))?$", re.M
)
FACTS = "import json, sys\nfacts = json.loads(sys.argv[1])\n"


@dataclass(frozen=True)
class Attack:
    name: str
    program: str
    outcome: str
    reason: str
    limits: Limits

    def right(self, verdict: Verdict) -> bool:
        """Whether the verdict is the one that the attack has earned."""
        return verdict.outcome == self.outcome and re.search(f"(?:{self.reason})", verdict.reason) is not None


def attacks() -> list[Attack]:
    """All of attacks.txt."""
    text = (Path(__file__).parent / "attacks.txt").read_text(encoding="utf-8")
    headers = list(HEADER.finditer(text))
    ends = [header.start() for header in headers[1:]] + [len(text)]
    found = []
    for header, end in zip(headers, ends, strict=True):
        pairs = (pair.split("=") for pair in (header["limits"] or "").split())
        limits = replace(LIMITS, **{name: int(value) for name, value in pairs})
        program = FACTS + text[header.end() : end]
        found.append(Attack(header["name"], program, header["outcome"], header["reason"].strip(), limits))
    return found


class World:
    """What there is to attack: a secret in files, in the environment, a process, servers, a place to write to."""

    def __init__(self, folder: Path, home_file: Path, victim: subprocess.Popen[bytes], servers: list[socket.socket]):
        self.token = secrets.token_hex(16)
        self.victim, self.servers = victim, servers
        self.outside = folder / "written"
        for file in (folder / "model.safetensors", home_file):
            file.write_text(self.token)
            file.chmod(0o644)
        os.environ["SEEDBED_SECRET"] = self.token
        abstract = secrets.token_hex(8)
        servers[2].bind("\0" + abstract)
        self.facts = {
            **{"secret_file": str(folder / "model.safetensors"), "home_file": str(home_file), "victim": victim.pid},
            **{"outside": str(self.outside), "port": servers[0].getsockname()[1], "abstract": abstract},
            "parent": os.getpid(),
        }

    def harm(self, verdict: Verdict) -> list[str]:
        """What an attack has got."""
        said = verdict.stdout + verdict.stderr
        lines = said.decode("utf-8", "replace").splitlines()
        found = {
            "it says so": any(line.startswith("ESCAPED") for line in lines),
            "it has read the secret": self.token.encode() in said,
            "it has ended a process of others": self.victim.poll() is not None,
            "it has written a file of others": self.outside.exists(),
            "it has reached a server": any(_reached(server) for server in self.servers),
        }
        return [what for what, happened in found.items() if happened]

    def attack(self, attack: Attack) -> Verdict:
        return run(attack.program, attack.limits, arguments=[json.dumps(self.facts)])


def _reached(server: socket.socket) -> bool:
    try:
        server.recv(1) if server.type == socket.SOCK_DGRAM else server.accept()
        return True
    except BlockingIOError:
        return False


@contextmanager
def world() -> Iterator[World]:
    """A world, and its end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)  # whoever is on this machine may read and write there: only the box keeps a program out
        home = Path.home() / f".seedbed_attacked_{secrets.token_hex(8)}"
        stack.callback(home.unlink, missing_ok=True)
        victim = stack.enter_context(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        stack.callback(victim.kill)
        tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(tcp.getsockname())
        servers = [tcp, udp, socket.socket(socket.AF_UNIX)]
        place = World(folder, home, victim, servers)
        stack.callback(os.environ.pop, "SEEDBED_SECRET", None)
        servers[2].listen()
        for server in servers:
            stack.enter_context(server)
            server.setblocking(False)
        yield place
