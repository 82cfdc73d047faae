from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bgaug.cli.main import app
from bgaug.pipelines.doctor import run
from bgaug.pipelines.doctor.run import Diagnosis, diagnose


def states(found: Diagnosis) -> dict[str, str]:
    return {finding.part: finding.state for finding in found.findings}


def test_this_machine_can_do_the_work() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == 0 and found["missing"] == 0
    by_part = {finding["part"]: finding for finding in found["findings"]}
    needed = {"bgaug", "python", "packages", "decoder pyav", "device", "processors", "memory", "disk"}
    assert needed <= set(by_part) and all(by_part[part]["state"] == "ok" for part in needed - {"memory", "disk"})
    assert "torch 2" in by_part["packages"]["found"] and "pydantic" in by_part["packages"]["found"]
    assert {"extra cloud", "extra segment", "extra tensorboard", "extra plots"} <= set(by_part)
    assert all(finding["fix"] for finding in found["findings"] if finding["state"] == "missing")


def test_what_is_missing_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str) -> Any:
        if name in ("zarr", "obstore"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name == "skimage":
            raise ImportError("numpy.dtype size changed")
        return real(name)

    monkeypatch.setattr("bgaug.pipelines.doctor.run.import_module", broken)
    found = {finding.part: finding for finding in diagnose().findings}
    assert found["packages"].state == "missing"
    assert "zarr: not installed" in found["packages"].found and "dtype size changed" in found["packages"].found
    assert found["packages"].fix == "pip install scikit-image zarr"
    assert found["extra cloud"].state == "optional" and found["extra cloud"].fix == 'pip install "bgaug[cloud]"'
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1 and "MISSING" in done.stdout and "pip install scikit-image zarr" in done.stdout


def test_a_decoder_that_reads_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, decoder: str) -> Any:
        raise ModuleNotFoundError("No module named 'decord'", name="decord") if decoder == "decord" else OSError("lost")

    monkeypatch.setattr("bgaug.video.open_video", broken)
    found = {finding.part: finding for finding in diagnose().findings}
    assert (found["decoder pyav"].state, found["decoder pyav"].found) == ("missing", "OSError: lost")
    assert (found["decoder decord"].state, found["decoder decord"].found) == ("optional", "decord is not installed")


def test_two_distributions_of_opencv_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    both = ("opencv-python", "opencv-python-headless")
    monkeypatch.setattr(metadata, "version", lambda name: "5.0" if name in both else real(name))
    finding = next(finding for finding in diagnose().findings if finding.part == "opencv")
    assert finding.state == "optional" and all(name in finding.fix for name in both)


def test_little_memory_and_disk_are_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "_LITTLE_MEMORY", 1e15)
    monkeypatch.setattr(run, "_LITTLE_DISK", 1e18)
    found = diagnose(tmp_path)
    assert states(found)["memory"] == states(found)["disk"] == "optional" and found.missing == 0


def test_the_package_is_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "bgaug", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("bgaug ")
