"""``musc-bench`` as a user runs it: its reports, their schema, and what it says when it cannot measure."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from musc_edge import make_reference
from musc_edge.tools import bench
from musc_edge.tools.bench import peak
from musc_edge.tools.bench.harness import enough, sureness, warm_up
from musc_edge.tools.bench.limits import graph_flop
from musc_edge.tools.bench.lot import synthetic_lot
from musc_edge.tools.bench.report import Report
from musc_edge.tools.bench.report_text import table_of
from musc_edge.tools.bench.resources import Usage
from support.command_line import run_here
from support.forks import run_forked
from support.places import listen_to_interrupts

pytestmark = pytest.mark.long

Run = subprocess.CompletedProcess[str]
Bench = Callable[..., Run]
SCHEMA = json.loads((Path(bench.__file__).parent / "schema.json").read_text(encoding="ascii"))


def short_peaks() -> None:
    """Measure the machine's peaks for a fiftieth of a second: no test is about how high they are."""
    measure = peak.measure
    peak.measure = lambda threads, rounds=2, seconds=0.02: measure(threads, rounds, seconds)


@pytest.fixture
def run_bench(commands: Path) -> Bench:
    def run(*options: str) -> Run:
        return run_forked([str(commands / "musc-bench"), *options], prepare=short_peaks)

    return run


@pytest.fixture
def bench_here(commands: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """As ``run_bench``, for what is not about the process."""
    monkeypatch.setattr(peak, "measure", peak.measure)  # put back at the end
    short_peaks()
    return lambda *options: run_here([str(commands / "musc-bench"), *options])


@pytest.fixture(scope="module")
def lot(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "cells"
    folder.mkdir()
    for path in sorted((solar_cells / "elpv_dataset/data/images").iterdir())[:9]:
        shutil.copy(path, folder)
    return folder


def report_of(run: Run) -> dict[str, Any]:
    """The report that a run printed, which is of the published form."""
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    jsonschema.validate(report, SCHEMA)
    return report


# ---- reports ---------------------------------------------------------------------------------


def test_lot(run_bench: Bench, lot: Path, quick_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    options = [
        "-b",
        str(quick_bundle),
        "--rounds",
        "3",
        "--cold-rounds",
        "1",
        "--threads",
        "2",
        "-o",
        str(out),
    ]
    report = report_of(run_bench("lot", str(lot), *options, "--json"))
    facts = report["facts"]
    assert (facts["images"], facts["skipped"], report["partial"]) == (9, 0, False)
    stages = {"survey", "open", "load ViT", "decode", "resize", "extract", "aggregate", "load", "compare"}
    stages |= {"select", "map", "rescore", "write"}
    assert stages <= set(facts["stages"])
    assert {len(seconds) for seconds in report["samples"].values()} == {3}
    assert len(report["calls"]["decode"]) == 3 * 9
    line = facts["timeline"]
    assert 0.5 < line["explained"] <= 1
    assert facts["per_image_s"] == pytest.approx(facts["lot_s"] / 9)
    assert facts["takt_s"] * 9 == pytest.approx(max(report["samples"]["lot"]))
    compare = facts["stages"]["compare"]
    assert compare["flop"] == 36 * 2 * 64**2 * 128  # pairs, one layer, 8 x 8 patches
    assert compare["limit_s"] == pytest.approx(compare["flop"] / facts["peaks"]["flops"])
    assert compare["share_of_limit"] == pytest.approx(compare["limit_s"] * 2 / compare["busy_s"])
    assert facts["stages"]["decode"]["limit_s"] is None
    assert list(facts["cold"]) == ["start of Python", "bundle", "imports", "ViT", "first image"]
    assert all(seconds[0] > 0 for seconds in facts["cold"].values())
    assert json.loads((out / "report.json").read_text(encoding="ascii")) == report
    with (out / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [float(row["seconds"]) for row in rows if (row["kind"], row["name"]) == ("round", "extract")]
    assert found == pytest.approx(report["samples"]["extract"], abs=1e-8)
    text = (out / "report.txt").read_text(encoding="utf-8")
    assert "explained" in text
    assert "cold: first image after" in text


def test_synthetic_lot_of_different_images(bench_here: Bench, quick_bundle: Path, tmp_path: Path) -> None:
    contents = {path.read_bytes() for path in synthetic_lot(tmp_path / "lot", 7).iterdir()}
    assert len(contents) == 7
    options = ["--synthetic", "6", "-b", str(quick_bundle), "--rounds", "1", "--cold-rounds", "1"]
    run = bench_here("lot", *options)
    assert run.returncode == 0, run.stderr
    assert "6 images, 1 round after" in run.stdout


def test_backbone(bench_here: Bench, quick_bundle: Path) -> None:
    options = ["-b", str(quick_bundle), "--batches", "1,3", "--rounds", "2", "--json"]
    report = report_of(bench_here("backbone", *options))
    assert {name: len(seconds) for name, seconds in report["samples"].items()} == {"batch 1": 2, "batch 3": 2}
    three = report["facts"]["batch 3"]
    assert three["images_per_s"] == pytest.approx(3 / three["p50"])
    flop, peak = report["facts"]["flop_per_image"], report["facts"]["peaks"]["flops"]
    assert three["share_of_limit"] == pytest.approx(three["images_per_s"] * flop / peak)


def test_scorer(bench_here: Bench) -> None:
    options = ["--images", "6,8", "--grid", "3x4", "--width", "16", "--rounds", "2", "--json"]
    report = report_of(bench_here("scorer", *options))
    assert list(report["facts"]) == ["N=6", "N=8"]
    eight = report["facts"]["N=8"]
    assert eight["flop"] == 28 * 2 * 12**2 * 16
    assert eight["bytes"] == 8 * 12 * 16 * 4 + 2 * 8 * 7 * 3 * 12 * 4
    assert eight["max_difference"]["numba"] < 1e-6
    assert len(report["samples"]["N=8 numba"]) == 2


def test_check(bench_here: Bench, quick_bundle: Path, tmp_path: Path) -> None:
    lot = synthetic_lot(tmp_path / "lot", 9)
    reference = tmp_path / "ref"
    make_reference(lot, quick_bundle, reference)
    image = next(lot.iterdir())
    options = [str(image), "-b", str(quick_bundle), "--reference", str(reference), "--rounds", "2"]
    report = report_of(bench_here("check", *options, "--banks", "7,9x0.5", "--json"))
    names = ["the ViT alone", str(reference), "7 images", "9 images, 50 % of patches"]
    assert list(report["samples"]) == list(report["facts"]) == names
    facts = report["facts"]["7 images"]
    assert facts["over_vit"] == pytest.approx(facts["p50"] / report["facts"]["the ViT alone"]["p50"])
    assert facts["count"] == 2
    text = bench_here("check", "-b", str(quick_bundle), "--banks", "7", "--rounds", "1").stdout
    assert "7 images" in text
    assert "p99/p50" in text


@pytest.mark.parametrize("case", ["peak", "startup"])
def test_peak_and_startup(bench_here: Bench, case: str, tmp_path: Path) -> None:
    report = report_of(bench_here(case, "--rounds", "1", "--json", "-o", str(tmp_path / "out")))
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in report["samples"].values())
    table = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert {"peak": "GFLOP/s", "startup": "above bare Python"}[case] in table


# ---- what it cannot measure ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["lot"], 2, "LOT_DIR or --synthetic"),
        (["lot", "LOT", "--synthetic", "9"], 2, "LOT_DIR or --synthetic"),
        (["lot", "nowhere"], 2, "nowhere does not exist"),
        (["lot", "--synthetic", "4"], 6, "too few"),
        (["lot", "LOT", "-b", "nowhere"], 4, "no such folder"),
        (["lot", "LOT", "--memory-budget", "1M"], 6, "the smallest that works"),
        (["backbone", "--batches", "1,0"], 2, "1 or more"),
        (["backbone", "--batches", "5000"], 2, "at most"),
        (["backbone", "--backend", "opencl"], 2, "expected cpu, cuda or tensorrt"),
        (["backbone", "--backend", "cuda"], 5, "NVIDIA driver"),
        (["scorer", "--images", "few"], 2, "whole numbers"),
        (["scorer", "--images", "3"], 6, "too few"),
        (["scorer", "--scorers", "opencl"], 2, "numpy"),
        (["check", "nowhere.png"], 2, "nowhere.png"),
        (["check", "TEXT", "--banks", "7"], 6, "cannot be checked"),
        (["check", "--banks", "13x2"], 2, "13,100x0.05"),
        (["check", "--reference", "nowhere"], 4, "nowhere"),
        (["compare", "nowhere.json", "nowhere.json"], 2, "nowhere.json"),
    ],
)
def test_unusable_options(
    bench_here: Bench,
    lot: Path,
    quick_bundle: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    says: str,
) -> None:
    (tmp_path / "text.png").write_text("no image")
    names = {"LOT": str(lot), "TEXT": str(tmp_path / "text.png")}
    given = [names.get(option, option) for option in options]
    if given[0] in ("lot", "backbone", "check") and "-b" not in given:
        given += ["-b", str(quick_bundle)]
    run = bench_here(*given)
    assert (run.returncode, says in run.stderr) == (code, True), run.stderr
    assert "Traceback" not in run.stderr


def test_report_in_the_way_is_found_before_anything_is_measured(bench_here: Bench, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    run = bench_here("peak", "-o", str(tmp_path / "out"), "--rounds", "1000")
    assert run.returncode == 7
    assert (tmp_path / "out" / "thesis.txt").exists()


def short_peaks_and_interrupts() -> None:
    short_peaks()
    listen_to_interrupts()


# Sends itself ctrl-C when the third round has been measured.
INTERRUPT_ITSELF = """
import os, signal, sys
from musc_edge.tools.bench import backbone
from musc_edge.tools.bench.cli import main
rounds = 0

class Yardstick(backbone.Yardstick):
    def measure(self, seconds):
        global rounds
        super().measure(seconds)
        rounds += 1
        if rounds == 3:
            os.kill(os.getpid(), signal.SIGINT)

backbone.Yardstick = Yardstick
sys.exit(main())
"""


@pytest.mark.slow
def test_interrupt_keeps_what_was_measured(quick_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["backbone", "-b", str(quick_bundle), "--rounds", "100000", "--batches", "1", "-o", str(out)]
    command = [sys.executable, "-c", INTERRUPT_ITSELF, *options]
    process = run_forked(command, prepare=short_peaks_and_interrupts)
    stdout, stderr = process.stdout, process.stderr
    assert process.returncode == 130, stderr
    assert "partial" in stderr
    report = json.loads((out / "report.json").read_text(encoding="ascii"))
    jsonschema.validate(report, SCHEMA)
    assert report["partial"]
    assert len(report["samples"]["batch 1"]) >= 1
    assert "batch 1" in stdout


def test_what_disturbed_a_measurement_is_said() -> None:
    quiet = Usage(
        wall_s=9.0, cpu_s=8.0, cpu_cores=0.9, others_cores=0.01, peak_rss=10**8, peak_device_memory=None,
        energy_j=90.0, power_w=10.0, power_source="VDD_IN", cpu_clock_mhz=(1000, 2000), gpu_clock_mhz=None,
        throttled=False, nvpmodel=None,
    )  # fmt: skip
    peaks = {"peaks": {"flops": 1e12, "bytes_per_s": 1e10, "threads": 2}, "per_image_s": 0.25}
    report = Report("peak", {}, {"product": [0.1]}, facts=peaks, resources=asdict(quiet))
    text = table_of(report)
    assert "energy per image       2.50 J" in text
    assert "warning" not in text
    report.resources = asdict(replace(quiet, others_cores=1.5, throttled=True, power_w=None))
    text = table_of(report)
    assert "other processes used 1.5 cores" in text
    assert "throttled; cool it" in text
    assert "energy per image" not in text


# ---- counts and rounds -----------------------------------------------------------------------


def graph(path: Path, declared: list[int | str]) -> Path:
    """A convolution (3 to 5 channels, 2 x 2, stride 2), a product with weights and one of two results."""
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], strides=[2, 2]),
        helper.make_node("Reshape", ["c", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["m"]),
        helper.make_node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["m", "t"], ["y"]),
    ]
    weights = {"kernel": np.ones((5, 3, 2, 2), np.float32), "weights": np.ones((6, 7), np.float32)}
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    initializers.append(numpy_helper.from_array(np.array([0, 5, 6]), "shape"))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, declared)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    onnx.save(model, path)
    return path


def test_flop_of_a_graph_for_one_image(tmp_path: Path) -> None:
    found = graph_flop(graph(tmp_path / "a.onnx", ["B", 3, 4, 6]))
    convolution = 2 * (5 * 2 * 3) * (3 * 2 * 2)
    assert found == convolution + 2 * (5 * 7) * 6 + 2 * (5 * 5) * 7


def test_flop_are_not_guessed(tmp_path: Path) -> None:
    assert graph_flop(graph(tmp_path / "a.onnx", ["B", 3, "H", "W"])) is None


def test_rounds_end_when_the_median_is_sure() -> None:
    assert not enough([1.0] * 4, None)
    assert enough([1.0] * 5, None)
    noisy = [1.0, 1.5] * 8
    assert sureness(noisy) > 0.05
    assert not enough(noisy, None)
    assert enough([1.0, 1.5] * 15, None)  # no more than that
    assert enough([30.0, 50.0] * 3, None)  # nor longer
    assert [enough([1.0] * n, 3) for n in (2, 3)] == [False, True]


def test_warm_up_ends_when_two_rounds_are_alike() -> None:
    for seconds, runs in (([5, 4, 3], 3), ([5, 1, 1.01], 3), ([2, 2.01, 9], 2)):
        left = iter(seconds)
        assert warm_up(lambda left=left: next(left)) == runs  # type: ignore[misc]
