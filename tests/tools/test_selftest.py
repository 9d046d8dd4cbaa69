"""``musc-edge selftest``: its steps on the CPU and on an emulated GPU, and what it says where one fails."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.tools.doctor import CHECKS, examine
from musc_edge.tools.selftest import command, steps
from musc_edge.tools.selftest.kernel_checks import WrongNumberError
from support.command_line import run_here

pytestmark = pytest.mark.slow


@pytest.fixture
def options(quick_bundle: Path) -> steps.Options:
    return steps.Options(str(quick_bundle), ("cpu",), small=True)


@pytest.mark.long
@pytest.mark.usefixtures("emulated_gpu")
def test_every_step_on_an_emulated_gpu(options: steps.Options) -> None:
    results = {name: steps.run_step(name, options) for name in steps.STEPS}
    lacking = {name for name, result in results.items() if result["status"] != "ok"}
    assert lacking == {"ViT by cuda", "ViT by tensorrt"}
    assert results["GPU kernels"]["found"]["arch"] == "sm_00"
    assert 0 < results["scorer cuda"]["found"]["largest_difference"] < steps.GPU_ERROR
    assert 0 < results["single images by cuda"]["found"]["largest_difference"] < steps.GPU_ERROR
    assert results["lot"]["found"]["computed_by"][1].startswith("numba")  # pycuda is not installed
    assert results["ViT by cpu"]["found"]["parity"]["raw_score_max_change"] < 1e-4
    assert all(name in command.step_text(name, result) for name, result in results.items())


@pytest.mark.usefixtures("emulated_gpu")
def test_wrong_numbers_fail(options: steps.Options, monkeypatch: pytest.MonkeyPatch) -> None:
    score = CudaScorer.score

    def wrong(*given: Any) -> Any:
        return score(*given) + np.float32(2e-4)

    monkeypatch.setattr(CudaScorer, "score", wrong)
    with pytest.raises(WrongNumberError, match="from numpy's"):
        steps.run_step("scorer cuda", options)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Run these steps alone, and examine only what they need: each is a process."""
    checks = tuple(check for check in CHECKS if check.name in ("numpy", "ONNX Runtime", "its packages"))
    monkeypatch.setattr("musc_edge.tools.doctor.examine", partial(examine, checks))
    monkeypatch.setattr("musc_edge.tools.doctor.rehearsed", dict)
    monkeypatch.setattr(steps, "STEPS", {name: steps.STEPS[name] for name in names})


def test_a_report_of_this_machine(
    quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "bundle", "ViT by cpu", "GPU kernels")
    out = tmp_path / "report.json"
    given = ["musc-edge", "selftest", "-b", str(quick_bundle), "-o", str(out), "--small"]
    done = run_here(given)
    assert done.returncode == 0, done.stderr
    assert "PASSED: 2 of 3 steps passed" in done.stdout
    assert "not here  GPU kernels" in done.stdout
    report = json.loads(out.read_text())
    assert report["steps"]["ViT by cpu"]["found"]["ms_an_image"] > 0
    assert report["machine"]["backends"] == ["cpu"]
    again = run_here(given)
    assert (again.returncode, "exists" in again.stderr) == (7, True)


def test_a_step_that_crashes_or_hangs_fails_alone(
    quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "bundle", "lot", "scorer numba")

    def run(given: list[str], **options: Any) -> Any:
        if "bundle" in given:
            return subprocess.CompletedProcess(given, -11, "", "")
        if "lot" in given:
            return subprocess.CompletedProcess(
                given, 1, "", "Traceback ...\nWrongNumberError: a raw score is 1"
            )
        if "scorer numba" in given:
            raise subprocess.TimeoutExpired(given, 1)
        return real(given, **options)

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", run)
    done = run_here(["musc-edge", "selftest", "-b", str(quick_bundle), "-o", str(tmp_path / "r.json")])
    assert done.returncode == 8
    assert "FAILED: 0 of 3 steps passed; failed: bundle, lot, scorer numba" in done.stdout
    for said in ("killed by signal 11", "WrongNumberError: a raw score is 1", "did not end within"):
        assert said in done.stdout


def test_without_a_bundle_the_rest_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSC_EDGE_BUNDLE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    only(monkeypatch, "bundle")
    done = run_here(["musc-edge", "selftest", "-o", str(tmp_path / "r.json")])
    assert done.returncode == 0
    assert "no bundle was given" in done.stdout
    done = run_here(["musc-edge", "selftest", "-b", str(tmp_path / "no"), "-o", str(tmp_path / "s.json")])
    assert done.returncode == 4
