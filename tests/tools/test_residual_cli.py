"""``--score-by residual`` through the command line: what it says, writes, keeps and refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from musc_edge import open_bundle, score_lot
from musc_edge.runtime import planning
from musc_edge.runtime.settings import RESIDUAL, Resources, ScoreSettings
from musc_edge.runtime.store import checkpoint
from musc_edge.tools.demo import read_scores
from support.command_line import run_here

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def lot(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 real images."""
    folder = tmp_path_factory.mktemp("residual") / "lot"
    folder.mkdir()
    for path in sorted((solar_cells / "elpv_dataset/data/images").iterdir())[:120:10]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def infer(lot: Path, commands: Path, quick_bundle: Path, tmp_path: Path) -> Any:
    def run(out: str, *options: str) -> Run:
        command = [str(commands / "musc-edge"), "infer", str(lot), "-b", str(quick_bundle), "--batch", "4"]
        return run_here([*command, "-o", str(tmp_path / out), *options])

    return run


def test_results_say_how_they_came_about(infer: Any, lot: Path, quick_bundle: Path, tmp_path: Path) -> None:
    run = infer("out", "--score-by", "residual", "--degrees", "1", "--report")
    assert run.returncode == 0, run.stderr
    assert "12 images scored without comparing pairs, in 1 layer, " in run.stdout
    assert re.search(r"the ViT with reading .*, scoring .*, writing ", run.stdout)
    about = json.loads((tmp_path / "out/lot.json").read_text())
    assert (about["settings"]["by"], about["scorer"], about["judges_per_image"]) == (RESIDUAL, RESIDUAL, 11)
    assert about["versions"]["computed_by"][1].startswith("residual 0.95, numpy ")
    settings = ScoreSettings((1,), by=RESIDUAL)
    there = score_lot(lot, open_bundle(quick_bundle), settings, Resources(batch=4))
    found = read_scores(tmp_path / "out/scores.csv", "raw_score")
    assert list(found.values()) == [round(float(score), 6) for score in there.raw_scores]
    assert np.ptp(there.raw_scores) > 0


def test_kept_work_gives_the_same_bytes(infer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by = ("--score-by", "residual")
    assert infer("whole", *by, "--threads", "1").returncode == 0
    keep = checkpoint.Checkpoint.keep_scores

    def keep_and_stop(self: checkpoint.Checkpoint, layer: int, scores: Any) -> None:
        keep(self, layer, scores)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "keep_scores", keep_and_stop)
        assert infer("out", *by, "--resume", "--threads", "1").returncode == 130
    run = infer("out", *by, "--resume", "--threads", "1")
    assert run.returncode == 0, run.stderr
    assert "scores of 1 layer come from an earlier, interrupted run" in run.stdout
    assert (tmp_path / "out/scores.csv").read_bytes() == (tmp_path / "whole/scores.csv").read_bytes()


def test_scores_by_pairs_are_not_taken_up(infer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "keep_scores", stop)
        assert infer("out", "--resume").returncode == 130
    run = infer("out", "--resume", "--score-by", "residual")
    assert run.returncode == 0, run.stderr
    assert "an earlier run used other by (pairs, now residual)" in run.stdout


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--scorer", "cuda"), 5, "scorer cuda has no meaning by residual"),
        (("--device-memory", "2G"), 5, "device memory 2000000000 has no meaning"),
        (("--interval", "0,0.5"), 6, "interval (0.0, 0.5) has no meaning by residual"),
        (("--group-size", "20"), 6, "group size 20 has no meaning by residual"),
    ],
)
def test_what_has_no_meaning_is_refused(
    infer: Any, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    run = infer("out", "--score-by", "residual", *options)
    assert (run.returncode, message in run.stderr) == (code, True), run.stderr
    assert not any(tmp_path.iterdir())


def test_limits_of_results_by_pairs_are_refused(infer: Any, tmp_path: Path) -> None:
    assert infer("pairs").returncode == 0
    run = infer("out", "--score-by", "residual", "--threshold-from", str(tmp_path / "pairs"))
    assert run.returncode == 6
    assert "was scored with by pairs, this lot with residual" in run.stderr


def test_plan_says_what_a_large_lot_takes(
    commands: Path, wide_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(free=10**12)
    monkeypatch.setattr(planning, "shutil", SimpleNamespace(disk_usage=lambda _: disk))
    command = [
        str(commands / "musc-edge"),
        "plan",
        "100000",
        "-b",
        str(wide_bundle),
        "--score-by",
        "residual",
    ]
    command += ["--memory-budget", "4G", "--threads", "2"]
    text = run_here(command).stdout
    assert "100000 images scored without comparing pairs, in 4 layers, 2 threads, residual\n" in text
    assert "in files: features (157.3 GB); features are read 2 times" in text
    data = json.loads(run_here([*command, "--json"]).stdout)
    assert (data["pairs"], data["reads"], data["scorer"]) == (0, 2, RESIDUAL)
    assert data["plan"]["disk_bytes"] == 4 * 100_000 * 256 * 384 * 4
    assert data["plan"]["memory_bytes"] < 4e9
    disk.free = 10**10
    assert "the ViT runs twice" in run_here(command).stdout
    data = json.loads(run_here([*command, "--json"]).stdout)
    assert (data["reads"], data["plan"]["twice"]) == (0, True)
    assert data["plan"]["disk_bytes"] == 100_000 * 64 * 384 * 4
    refused = run_here([*command, "--devices", "8G"])
    assert (refused.returncode, "--devices has no meaning" in refused.stderr) == (2, True)
