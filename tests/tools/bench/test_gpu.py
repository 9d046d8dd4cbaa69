"""What ``musc-bench`` says of a GPU: its peaks, the limits of the stages on it, tokens that stay there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from musc_edge.runtime import scorers
from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.tools import bench
from musc_edge.tools.bench import gpu_peak, peak
from musc_edge.tools.bench.limits import least_gpu_work
from support.command_line import run_here
from support.fake_onnxruntime import FakeOnnxRuntime, install_onnxruntime
from support.gpu_machine import install

SCHEMA = json.loads((Path(bench.__file__).parent / "schema.json").read_text(encoding="ascii"))
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_peaks")]


@pytest.fixture
def quick_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks in no time: no test is about how high they are."""
    measure = peak.measure
    monkeypatch.setattr(peak, "measure", lambda threads, rounds=1: measure(threads, rounds, 0.01))
    for name, small in {"THREADS": 256, "ROUNDS": 1, "COPIED": 4096, "UPLOADED": 1024}.items():
        monkeypatch.setattr(gpu_peak, name, small)


def bench_report(commands: Path, *options: str) -> dict[str, Any]:
    run = run_here([str(commands / "musc-bench"), *options, "--json"])
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    jsonschema.validate(report, SCHEMA)
    return report


def no_gpu(*_: object) -> None:
    raise DeviceError("there is no GPU here.")


def test_peaks_of_a_gpu(emulated_gpu: None, commands: Path) -> None:
    run = run_here([str(commands / "musc-bench"), "peak", "--gpu", "--rounds", "2"])
    assert run.returncode == 0, run.stderr
    assert "limits of emulated GPU: " in run.stdout
    assert [line.split(",")[1].split()[0] for line in run.stdout.splitlines() if line.startswith("GPU,")] == [
        "products",
        "copy",
        "upload",
    ]


@pytest.mark.long
def test_a_gpu_that_was_asked_for_must_be_there(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "open_gpu", no_gpu)
    run = run_here([str(commands / "musc-bench"), "peak", "--gpu", "--rounds", "1"])
    assert run.returncode == 5
    assert "there is no GPU here" in run.stderr


@pytest.mark.long
def test_stages_on_the_gpu_have_its_limits(emulated_gpu: None, commands: Path, quick_bundle: Path) -> None:
    options = ["--synthetic", "6", "-b", str(quick_bundle), "--rounds", "1", "--cold-rounds", "1"]
    options += ["--method", "paper"]
    facts = bench_report(commands, "lot", *options, "--scorer", "cuda")["facts"]
    least = least_gpu_work(open_bundle(quick_bundle), 6, 15, 5, 3, 4)
    limits = facts["gpu_peaks"]
    stages = facts["stages"]
    assert stages["compare"]["flop"] == least["compare"].flop == 15 * 3 * 2 * 64**2 * 128
    assert stages["compare"]["limit_s"] == pytest.approx(least["compare"].flop / limits["flops"])
    assert stages["select"]["limit_s"] == pytest.approx(least["select"].moved / limits["bytes_per_s"])
    assert stages["extract"]["limit_s"] == pytest.approx(stages["extract"]["flop"] / facts["peaks"]["flops"])
    share = stages["compare"]["limit_s"] / stages["compare"]["busy_s"]
    assert stages["compare"]["share_of_limit"] == pytest.approx(share)


def test_tokens_that_stay_are_timed_too(
    emulated_gpu: None, commands: Path, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    runtime = FakeOnnxRuntime()
    install_onnxruntime(monkeypatch, runtime)
    options = ["-b", str(quick_bundle), "--backend", "cuda", "--batches", "1,2", "--rounds", "1"]
    report = bench_report(commands, "backbone", *options)
    assert list(report["samples"]) == ["batch 1", "batch 1, tokens stay", "batch 2", "batch 2, tokens stay"]
    stay = report["facts"]["batch 2, tokens stay"]
    assert stay["images_per_s"] == pytest.approx(2 / stay["p50"])
    flop = report["facts"]["flop_per_image"]
    assert stay["share_of_limit"] == pytest.approx(
        stay["images_per_s"] * flop / report["facts"]["gpu_peaks"]["flops"]
    )
    assert {kind for _, kind in runtime.bound} == {"cpu", "cuda"}


def test_what_is_not_measured_is_said(
    commands: Path, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    install_onnxruntime(monkeypatch, FakeOnnxRuntime())
    monkeypatch.setattr(scorers, "open_gpu", no_gpu)
    options = ["-b", str(quick_bundle), "--backend", "cuda", "--batches", "1", "--rounds", "1"]
    run = run_here([str(commands / "musc-bench"), "backbone", *options])
    assert run.returncode == 0, run.stderr
    assert "tokens that stay on the GPU: not measured: there is no GPU here" in run.stdout
    assert "limits of the GPU are not known: there is no GPU here" in run.stdout
