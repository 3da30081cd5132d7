"""What `seedbed doctor` finds, and that it would notice."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from seedbed import doctor, extras
from seedbed.cli import main
from seedbed.doctor import DoctorConfig

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))


FOUND = {
    **{"ok": True, "seedbed": "1", "python": "3", "platform": "x", "missing": [], "extras": {}, "torch": None},
    **{"cpu": {"name": "x", "cores": 1, "features": []}, "memory": {"free_gb": 1, "total_gb": 1}, "compiler": None},
    **{"disk": {"free_gb": 1, "folder": "."}, "devices": [], "device": None, "together": []},
    **{"sandbox": {"kind": "bubblewrap", "lacking": None}},
}


def test_every_extra_is_looked_for():
    assert set(extras.EXTRAS) == set(PYPROJECT["project"]["optional-dependencies"])


def test_it_tells_what_there_is(capsys, tmp_path):
    assert main(["doctor", "--out", str(tmp_path / "d"), "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert found == json.loads((tmp_path / "d" / "result.json").read_text())
    assert found["torch"]["version"] == torch.__version__
    assert found["devices"][-1]["kind"] == "cpu"
    assert found["device"]["auto"] in {device["kind"].replace("rocm", "cuda") for device in found["devices"]}
    assert found["device"]["gemm_gflops"] > 0
    assert re.search(r"rows are bit-equal across batch sizes: (yes|no)", out)
    assert found["invariance"]["bit_equal"] == (found["invariance"]["changes_at_rows"] == [])
    assert found["memory"]["total_gb"] > 0.5
    assert found["cpu"]["cores"] >= 1
    assert out.splitlines()[-2].strip() == "ready"


def test_something_essential_that_is_missing_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "missing_requirements", lambda: ["torch"])
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "torch: pip install torch" in out
    assert "not ready" in out


def test_a_requirement_that_is_not_installed_is_found(monkeypatch):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["numpy>=1", "no-such-thing[x]>=2", "other>=1; extra == 'dev'"]
    )
    assert doctor.missing_requirements() == ["no-such-thing"]


def test_the_probe_notices_a_kernel_that_depends_on_its_rows():
    def drifting(weight):
        return lambda x: x.double() @ weight.double().T + (1e-3 if len(x) > 16 else 0)

    assert set(doctor.rows_that_change(drifting)) >= {17, 31, 64, 65}


def test_the_probe_passes_exact_arithmetic():
    assert (
        doctor.rows_that_change(lambda weight: lambda x: (x * 8).round().double() @ (weight * 8).round().double().T)
        == []
    )


def test_our_own_kernels_pass():
    assert doctor.invariance()["kernels_bit_equal"] is True


def test_only_extras_that_this_version_uses_are_shown(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text('NAMES = ("gradio",)\n\ndef f():\n    import rensa.deep\n')
    assert doctor.imports(tmp_path, ["ftfy", "rensa"])
    assert not doctor.imports(tmp_path, ["gradio"]) and not doctor.imports(tmp_path, ["ren"])
    assert "dev" in doctor.extras() and "studio" not in doctor.extras()


def test_an_extra_is_brought_from_where_seedbed_came_from(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "PACKAGE", tmp_path / "src" / "seedbed")
    assert extras.bring("data") == "pip install 'FILE.whl[data]', the file that seedbed was installed from"
    (tmp_path / "pyproject.toml").touch()
    assert extras.bring("data") == f"pip install -e '{tmp_path}[data]'"
    monkeypatch.chdir(tmp_path)
    assert extras.bring("data") == "pip install -e '.[data]'"


@pytest.mark.parametrize("equal", [True, False])
def test_rows_that_change_are_said_to_be_normal(equal):
    found = {**FOUND, "invariance": {"bit_equal": equal, "changes_at_rows": [2], "kernels_bit_equal": None}}
    assert (("", "normal on CPUs; resume is exact all the same") in doctor.report(found)) != equal


@pytest.mark.parametrize("lacking", ["bubblewrap is not installed", None])
def test_it_says_whether_there_is_a_sandbox(lacking):
    found = {**FOUND, "sandbox": {"kind": None if lacking else "bubblewrap", "lacking": lacking}, "invariance": None}
    words = dict(doctor.report(found))["sandbox"]
    assert words == "bubblewrap" if lacking is None else f"{lacking}. On Debian and Ubuntu, apt-get" in words


@pytest.mark.parametrize("missing", [["datasets"], []])
def test_an_extra_says_how_to_bring_it(monkeypatch, capsys, missing):
    monkeypatch.setattr(doctor, "extras", lambda: {"data": missing})
    monkeypatch.setattr(doctor, "invariance", lambda: None)
    doctor.doctor(DoctorConfig())
    out = capsys.readouterr().out
    assert (f"{extras.bring('data')} (lacks datasets)" in out) == bool(missing)
    assert ("installed" in out) != bool(missing)


def test_a_source_tree_that_is_not_installed_names_no_requirements(monkeypatch):
    """The package's metadata is the one list of them."""

    def not_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", not_installed)
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert doctor.missing_requirements() == []


def test_doctor_reads_a_machine_without_torch(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "missing_requirements", lambda: ["torch"])
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    found = doctor.doctor(DoctorConfig())
    assert found["cpu"]["cores"] >= 1 and found["memory"]["total_gb"] > 0 and found["devices"] == []
    assert not found["ok"] and "pip install torch" in capsys.readouterr().out
