"""``musc-edge infer --resume``: killed or interrupted, the same command goes on, with the same bytes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge import open_bundle, score_lot
from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.settings import Resources, ScoreSettings
from musc_edge.tools.demo import read_scores
from support.bad_input import Place
from support.command_line import run_here
from support.forks import Forked, run_forked
from support.places import listen_to_interrupts

Run = subprocess.CompletedProcess[str]

# Runs the command line, and sends itself a signal when an entry of some kind was noted for the n-th time.
# Blocks of four images make six cells of so small a lot.
STOP_ITSELF = """
import os, sys
from musc_edge.runtime.store import journal
from musc_edge.runtime.scoring import plan
from musc_edge.tools.edge import main

plan.LARGEST_BLOCK = 4

kind, count, sent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
journal.COMMIT_S = 0.0
add = journal.Journal.add

def add_and_stop(self, entry):
    global count
    add(self, entry)
    count -= kind in entry
    if kind in entry and count == 0:
        os.kill(os.getpid(), sent)

journal.Journal.add = add_and_stop
sys.exit(main(sys.argv[4:]))
"""


@pytest.fixture(scope="module")
def lot(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 real images, two of them in a subfolder."""
    folder = tmp_path_factory.mktemp("resume") / "lot"
    (folder / "late").mkdir(parents=True)
    for k, path in enumerate(sorted((solar_cells / "elpv_dataset/data/images").iterdir())[:120:10]):
        shutil.copy(path, folder / "late" if k < 2 else folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    lot: Path, commands: Path, quick_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Results of a run that keeps nothing."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run = infer([str(commands / "musc-edge")], lot, quick_bundle, out, "--scorer", "numba")
    assert run.returncode == 0, run.stderr
    return out


def infer(start: list[str], lot: Path, bundle: Path, out: Path, *options: str) -> Run:
    command = [*start, "infer", str(lot), "-b", str(bundle), "-o", str(out), "--batch", "4", *options]
    if len(start) == 1:  # the console script, for what is not about the process
        return run_here(command)
    return run_forked(command, prepare=listen_to_interrupts)


def stopping(kind: str, count: int, sent: int) -> list[str]:
    """How to start a run that is stopped by a signal."""
    return [sys.executable, "-c", STOP_ITSELF, kind, str(count), str(int(sent))]


def results(out: Path) -> dict[str, bytes]:
    """Every file of results but lot.json, which holds times."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "lot.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def kept_lines(kept: Path) -> tuple[int, int]:
    """Lines in the journals of batches and of cells."""
    journals = (kept / "lot" / name for name in ("batches.journal", "cells.journal"))
    batches, cells = (len(path.read_bytes().splitlines()) if path.exists() else 0 for path in journals)
    return batches, cells


def about(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "lot.json").read_text(encoding="ascii"))
    return content


def test_stopped_again_and_again(lot: Path, undisturbed: Path, quick_bundle: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / ".out.kept"
    stops = [
        ("batch", 1, signal.SIGKILL, -signal.SIGKILL, (1, 0)),
        ("batch", 1, signal.SIGINT, 130, (2, 0)),
        ("cell", 2, signal.SIGKILL, -signal.SIGKILL, (3, 3)),  # the first line is no cell
        ("cell", 1, signal.SIGTERM, 143, (3, 4)),
        ("scores", 1, signal.SIGKILL, -signal.SIGKILL, (3, 8)),
    ]
    for kind, count, sent, code, lines in stops:
        run = infer(stopping(kind, count, sent), lot, quick_bundle, out, "--resume")
        assert run.returncode == code, run.stderr
        assert kept_lines(kept) == lines
        assert not out.exists()
        assert "Traceback" not in run.stderr
        if sent != signal.SIGKILL:
            assert f"kept in {kept}; the same command goes on from there." in run.stderr
        if sent != signal.SIGKILL:
            assert sorted(p.name for p in tmp_path.iterdir()) == [".out.kept"]
    run = infer(stopping("nothing", 0, 0), lot, quick_bundle, out, "--resume")
    assert run.returncode == 0, run.stderr
    assert results(out) == results(undisturbed)
    assert len(results(out)) == 12 + 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert about(out)["notes"] == [
        "features of 12 images come from an earlier, interrupted run",
        "66 comparisons of images come from an earlier, interrupted run",
    ]
    assert about(undisturbed)["notes"] == []


def test_killed_from_outside(
    lot: Path, undisturbed: Path, commands: Path, quick_bundle: Path, tmp_path: Path
) -> None:
    out, kept = tmp_path / "out", tmp_path / ".out.kept"
    (kept / "groups" / "1").mkdir(parents=True)  # as of a run with --group-by folder
    command = [str(commands / "musc-edge"), "infer", str(lot), "-b", str(quick_bundle), "-o", str(out)]
    command += ["--batch", "4", "--resume"]
    with Forked(command) as process:
        while process.poll() is None and not (kept / "lot" / "cosines.bin").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    if process.returncode == 0:  # a fast machine was done before the kill
        return
    assert not out.exists()
    assert kept_lines(kept)[0] == 3  # the features are kept before the first comparison
    run = infer([str(commands / "musc-edge")], lot, quick_bundle, out, "--resume")
    assert run.returncode == 0, run.stderr
    assert results(out) == results(undisturbed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert "features of 12 images come from an earlier" in run.stdout


def test_groups_by_folder_are_kept_one_by_one(
    lot: Path, commands: Path, quick_bundle: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    for k, path in enumerate(sorted(lot.glob("*.png"))):
        (parts / f"{k % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, parts / f"{k % 2}")
    out, options = tmp_path / "out", ["--group-by", "folder", "--resume"]
    start = [str(commands / "musc-edge")]
    assert infer(start, parts, quick_bundle, tmp_path / "expected", "--group-by", "folder").returncode == 0
    run = infer(stopping("scores", 2, signal.SIGKILL), parts, quick_bundle, out, *options)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert infer(start, parts, quick_bundle, out, *options).returncode == 0
    assert results(out) == results(tmp_path / "expected")
    groups = about(out)["groups"].values()
    assert all("features of 5 images come from an earlier" in group["notes"][0] for group in groups)
    assert not (tmp_path / ".out.kept").exists()


@pytest.mark.slow
def test_what_a_changed_command_can_use(place: Place, quick_bundle: Path, tmp_path: Path) -> None:
    bundle, keep = open_bundle(quick_bundle), tmp_path / "keep"

    def score(**options: Any) -> tuple[str, ...]:
        return score_lot(place.lot, bundle, **{"settings": "paper", "keep": keep, **options}).run.notes

    assert score() == ()
    settings = ScoreSettings((1,), (0.0, 0.5), group_size=5)
    only_features = (
        "an earlier run used other degrees ([1, 3, 5], now [1]); group size (None, now 5); "
        "interval ([0.0, 0.3], now [0.0, 0.5]): only its features are used"
    )
    features = "features of 8 images come from an earlier, interrupted run"
    assert score(settings=settings) == (only_features, features)
    assert score(settings=settings, resources=Resources(scorer="numpy"))[0].startswith(
        "an earlier run used other scorer (numba "
    )
    assert score(settings=settings, resources=Resources(scorer="numpy"))[1].startswith("20 comparisons")
    with pytest.raises(OutputError, match=r"made with other batch \(8, now 4\).*rm -r"):
        score(resources=Resources(batch=4))
    (place.lot / "one more.png").write_bytes(place.an_image().read_bytes())
    with pytest.raises(OutputError, match=r"images \(1 came, went or changed: one more\.png\)"):
        score()
    shutil.rmtree(keep)
    assert score() == ()


# ---- groups and scorers through the command line ---------------------------------------------


def test_a_group_of_judges(
    lot: Path, undisturbed: Path, commands: Path, quick_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--method", "paper", "--group-size", "6", "--resume"]
    run = infer([str(commands / "musc-edge")], lot, quick_bundle, out, *options)
    assert run.returncode == 0, run.stderr
    assert "12 images scored by 6 others each: 36 pairs in 1 layer," in run.stdout
    assert about(out)["judges_per_image"] == 6
    assert about(out)["settings"]["group_size"] == 6
    in_memory = score_lot(lot, open_bundle(quick_bundle), ScoreSettings(group_size=6), Resources(batch=4))
    few, everyone = (read_scores(out / "scores.csv", "raw_score") for out in (out, undisturbed))
    assert list(few.values()) == [round(float(score), 6) for score in in_memory.raw_scores]
    assert few != everyone
    assert np.corrcoef(list(few.values()), list(everyone.values()))[0, 1] > 0.8


@pytest.mark.long
def test_both_scorers(lot: Path, commands: Path, real_bundle: Path, tmp_path: Path) -> None:
    """With the real ViT: the nearer images are, the more a rounding error weighs in their distance."""
    outs = [tmp_path / name for name in ("numpy", "numba")]
    for out in outs:
        run = infer([str(commands / "musc-edge")], lot, real_bundle, out, "--scorer", out.name)
        assert run.returncode == 0, run.stderr
        assert about(out)["scorer"] == out.name
    one, other = (
        np.array([np.load(path) for path in sorted((folder / "maps").rglob("*.npy"))]) for folder in outs
    )
    assert one.shape == (12, 16, 16)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    for column in ("raw_score", "score"):
        numpy, numba = (read_scores(folder / "scores.csv", column) for folder in outs)
        assert numpy.keys() == numba.keys()
        np.testing.assert_allclose(list(numpy.values()), list(numba.values()), rtol=0, atol=2e-6)  # rounded
