"""What this machine has, what is missing, and which promises hold on it: `seedbed doctor`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seedbed import __version__, devices
from seedbed.extras import EXTRAS, PACKAGE, bring
from seedbed.sandbox.kinds import FIX, describe


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Look at this machine: versions, devices, memory, extras, and whether results depend on the batch size."""

    out: str | None = None
    """Folder for result.json. Left out: only print."""


def doctor(config: DoctorConfig) -> dict[str, Any]:
    """Look and print a table. The result's `ok` is false when something essential is missing."""
    missing = missing_requirements()
    found: dict[str, Any] = {
        "ok": not missing and sys.version_info >= (3, 11),
        "seedbed": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "missing": missing,
        "cpu": devices.describe_cpu(),
        "memory": devices.describe_memory(),
        "disk": {"folder": os.getcwd(), "free_gb": round(shutil.disk_usage(".").free / 1e9, 1)},
        "torch": devices.describe_torch() if "torch" not in missing else None,
        "devices": devices.describe_devices() if "torch" not in missing else [],
        "device": devices.describe_choice() if "torch" not in missing else None,
        "together": devices.describe_backends() if "torch" not in missing else [],
        "compiler": shutil.which("g++") or shutil.which("clang++"),
        "sandbox": describe(),
        "extras": extras(),
        "invariance": invariance() if "torch" not in missing else None,
    }
    for name, words in report(found):
        print(f"{name:<14}{words}")
    if config.out is not None:
        from seedbed.runs import write_result

        Path(config.out).mkdir(parents=True, exist_ok=True)
        write_result(Path(config.out), found)
    return found


def missing_requirements() -> list[str]:
    """Packages that seedbed cannot do without and that are not installed."""
    try:
        lines = requires("seedbed") or []
    except PackageNotFoundError:  # a source tree that was never installed names no requirements
        return []
    names = [_name(line) for line in lines if "extra ==" not in line]
    return [name for name in names if _version(name) is None]


def _name(requirement: str) -> str:
    for end in "[<>=!~; ":
        requirement = requirement.partition(end)[0]
    return requirement


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def extras() -> dict[str, list[str]]:
    """The modules that each extra still lacks; none means that it is installed. Of those extras that this version uses:
    some are for rooms that are still empty."""
    used = {extra: modules for extra, modules in EXTRAS.items() if extra == "dev" or imports(PACKAGE, modules)}
    return {extra: [module for module in modules if find_spec(module) is None] for extra, modules in used.items()}


def imports(package: Path, modules: Sequence[str]) -> bool:
    """Whether any file of a package imports one of the modules."""
    line = re.compile(rf"^\s*(?:import|from) (?:{'|'.join(modules)})\b", re.MULTILINE)
    return any(line.search(path.read_text(encoding="utf-8")) for path in package.rglob("*.py"))


def invariance() -> dict[str, Any]:
    """Whether a row of a matrix product has the same bits whatever rows stand beside it: as PyTorch computes it, by
    kernels that are chosen by the number of rows, and by our own, with which the engine answers."""
    from functools import partial

    import torch

    from seedbed.model.packed.linears import PackedLinear
    from seedbed.native.library import available

    changes = rows_that_change(lambda weight: partial(torch.nn.functional.linear, weight=weight))
    own = rows_that_change(PackedLinear) == [] if available() else None
    return {"bit_equal": not changes, "changes_at_rows": changes, "kernels_bit_equal": own}


def rows_that_change(layer: Callable[[Any], Callable[[Any], Any]]) -> list[int]:
    """The batch sizes at which some row of x·Wᵀ differs in a bit from the same row alone; `layer` makes of the tensor W
    what multiplies with it."""
    import torch

    draw, changed = torch.Generator().manual_seed(0), set()
    for width_in, width_out in ((256, 768), (640, 256), (256, 8192)):
        multiply = layer(torch.randn(width_out, width_in, generator=draw))
        x = torch.randn(65, width_in, generator=draw)
        alone = torch.cat([multiply(x[row : row + 1]) for row in range(len(x))])
        for rows in (2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 65):
            if not torch.equal(multiply(x[:rows]), alone[:rows]):
                changed.add(rows)
    return sorted(changed)


def report(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The findings as lines for a person."""
    core, torch_found, equal = found["cpu"], found["torch"], found["invariance"]
    lines = [
        ("seedbed", found["seedbed"]),
        ("python", found["python"]),
        ("platform", found["platform"]),
        ("cpu", f"{core['name']}, {core['cores']} cores, {' '.join(core['features']) or 'no vector features known'}"),
        ("memory", f"{found['memory']['free_gb']} of {found['memory']['total_gb']} GB free"),
        ("disk", f"{found['disk']['free_gb']} GB free in {found['disk']['folder']}"),
    ]
    if torch_found:
        lines.append(
            ("torch", f"{torch_found['version']}, {torch_found['threads']} threads, blas {torch_found['blas']}")
        )
    for device in found["devices"]:
        size = f", {device['memory_gb']} GB" if device["memory_gb"] else ""
        lines.append(("device", f"{device['kind']}: {device['name']}{size}"))
    if found["device"]:
        lines.append(("", f"auto takes {found['device']['auto']}: {found['device']['gemm_gflops']:,} GFLOP/s in fp32"))
    if torch_found:
        lines.append(
            ("processes", f"several train together by {' and '.join(found['together']) or 'nothing: one only'}")
        )
    box = found["sandbox"]
    lines.append(("sandbox", box["kind"] or f"none, so no program that a model wrote is run: {box['lacking']}. {FIX}"))
    lines.append(("compiler", found["compiler"] or "none: no kernels, no torch.compile; apt-get install g++ brings it"))
    if equal:
        answer = (
            "yes" if equal["bit_equal"] else f"no (they change at {', '.join(map(str, equal['changes_at_rows']))} rows)"
        )
        lines.append(("invariance", f"rows are bit-equal across batch sizes: {answer}"))
        if not equal["bit_equal"]:
            lines.append(("", "normal on CPUs; resume is exact all the same"))
        kernels = {True: "yes", False: "no, so an answer may depend on who else is served", None: "there are none"}
        lines.append(("", f"those of the engine's own kernels: {kernels[equal['kernels_bit_equal']]}"))
    for extra, lacking in found["extras"].items():
        lines.append((f"[{extra}]", f"{bring(extra)} (lacks {', '.join(lacking)})" if lacking else "installed"))
    for name in found["missing"]:
        lines.append(("missing", f"{name}: pip install {name}"))
    return [*lines, ("", "ready" if found["ok"] else "not ready: see what is missing above")]
