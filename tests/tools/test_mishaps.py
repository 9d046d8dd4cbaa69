"""What happens around a run: a second one, a full disk, interrupts, files that vanish or change."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from musc_edge import open_bundle, score_lot
from musc_edge._files import make_folders
from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.images.listing import list_lot
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.results.image_files import OutputOptions
from musc_edge.runtime.results.output import new_folder
from musc_edge.runtime.results.write import LOT, write_results
from support.bad_input import Place
from support.command_line import run_here
from support.forks import Forked, run_forked
from support.places import listen_to_interrupts

Run = subprocess.CompletedProcess[str]


def command(commands: Path, place: Place, *options: str) -> list[str]:
    return [
        str(commands / "musc-edge"),
        "infer",
        str(place.lot),
        "-b",
        str(place.bundle),
        "--scorer",
        "numpy",
        "-o",
        "out",
        *options,
    ]


def infer(commands: Path, place: Place, *options: str, limit: int | None = None) -> Run:
    """Run ``musc-edge infer``; ``limit`` bytes are the most that a file may grow to, as on a full disk."""
    if limit is None and "--memory-budget" not in options:  # which is that of a process
        return run_here(command(commands, place, *options), cwd=place.root)

    prepare = None if limit is None else partial(full_disk, limit)
    return run_forked(command(commands, place, *options), cwd=place.root, prepare=prepare)


def full_disk(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.long
@pytest.mark.parametrize("limit", [0, 100, 1_000, 5_000, 50_000])
def test_full_disk_leaves_nothing_and_keeps_earlier_results(place: Place, commands: Path, limit: int) -> None:
    options = ["--maps", "original", "--map-format", "tiff", "--overlays"]
    run = infer(commands, place, *options, limit=limit)
    assert run.returncode == 7, run.stdout + run.stderr
    assert "writing" in run.stderr
    assert sorted(p.name for p in place.root.iterdir()) == ["lot"]
    assert infer(commands, place).returncode == 0
    before = {p: p.read_bytes() for p in (place.root / "out").rglob("*") if p.is_file()}
    assert infer(commands, place, "--overwrite", *options, limit=limit).returncode == 7
    assert {p: p.read_bytes() for p in (place.root / "out").rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in place.root.iterdir()) == ["lot", "out"]


@pytest.mark.parametrize("kept", [pytest.param(False, marks=pytest.mark.long), True])
def test_full_disk_for_the_scratch_file(place: Place, wide_bundle: Path, commands: Path, kept: bool) -> None:
    place = Place(place.root, place.lot, wide_bundle)
    tokens = 4 * 8 * 256 * 384 * 4
    refused = infer(commands, place, "--memory-budget", "1M", limit=10 * tokens).stderr
    (least,) = re.findall(r"smallest that works is (\d+) MB", refused)
    budget = f"{int(least) + 4}M"  # no room for the 13 MB of tokens
    options = ["--resume"] if kept else ["--memory-budget", budget]
    run = infer(commands, place, *options, limit=tokens - 1)
    assert run.returncode == 7, run.stdout + run.stderr
    assert "a file of 13 MB could not be made in" in run.stderr
    assert ("the same command goes on" in run.stderr) == kept
    assert sorted(p.name for p in place.root.iterdir()) == [".out.kept", "lot"] if kept else ["lot"]
    assert infer(commands, place, *options, limit=tokens).returncode == 0
    assert sorted(p.name for p in place.root.iterdir()) == ["lot", "out"]


def test_second_run_on_one_output_is_refused(place: Place, commands: Path) -> None:
    with new_folder(place.root / "out", overwrite=False, marker="lot.json") as folder:
        run = infer(commands, place)
        assert run.returncode == 7
        assert "another run is writing" in run.stderr
        (folder / "lot.json").write_text("{}", encoding="ascii")
    assert (place.root / "out" / "lot.json").read_text(encoding="ascii") == "{}"


def test_lock_of_a_killed_run_does_not_hold(place: Place, commands: Path) -> None:
    code = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from musc_edge.runtime.results.output import new_folder\n"
        "with new_folder(Path('out'), False, 'lot.json') as folder:\n"
        "    (folder / 'half').mkdir(); (folder / 'half' / 'written').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=place.root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (place.root / ".out.partial" / "half" / "written").is_file()
    assert infer(commands, place).returncode == 0
    assert sorted(p.name for p in place.root.iterdir()) == ["lot", "out"]
    assert not (place.root / "out" / "half").exists()


@pytest.mark.long
def test_interrupts_at_many_moments(place: Place, commands: Path) -> None:
    """Whatever the moment: exit 130 and nothing left, or a whole result."""
    codes = []
    for delay in (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5):
        with Forked(
            command(commands, place, "--overlays"), cwd=place.root, prepare=listen_to_interrupts
        ) as process:
            while process.poll() is None and not (place.root / ".out.partial").exists():
                time.sleep(0.001)
            time.sleep(delay)  # the output folder is being made: from here on there is something to clean up
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        assert process.returncode is not None
        codes.append(process.returncode)
        # A signal before or after our own code runs ends Python by itself; a shell calls that 130 too.
        assert process.returncode in (0, 130, -signal.SIGINT), stderr
        left = sorted(p.name for p in place.root.iterdir())
        if left == ["lot", "out"]:
            assert len((place.root / "out/scores.csv").read_text(encoding="utf-8").splitlines()) == 9
            shutil.rmtree(place.root / "out")
        else:
            assert left == ["lot"]
            assert process.returncode != 0
        if process.returncode == 130:
            assert "Traceback" not in stderr
    assert 130 in codes


def test_file_that_vanishes_or_changes_while_the_lot_is_read(place: Place) -> None:
    images = list_lot(place.lot)
    survey = survey_lot(images, ReadOptions(), threads=1)
    assert len(survey.images) == 8

    def vanish_then_change(stage: str, done: float, total: float, unit: str) -> None:
        if (stage, done) == ("survey", total):
            images[2].local.unlink()
            Image.new("RGB", (300, 300)).save(images[5].local)
            os.utime(images[5].local, (1, 1))

    result = score_lot(images, open_bundle(place.bundle), watch=Watch(progress=vanish_then_change))
    reasons = {skip.name: (skip.status, skip.reason) for skip in result.skipped}
    assert reasons == {
        images[2].name: ("unreadable", "No such file or directory"),
        images[5].name: ("unreadable", "the file changed while the lot was being read"),
    }
    assert len(result.images) == 6


def removed_meanwhile(out: Path, write: Callable[[Path], None]) -> None:
    with new_folder(out, False, LOT) as folder:
        folder.rmdir()
        write(folder)


@pytest.mark.parametrize("maps", ["none", "grid"])
def test_half_written_results_that_somebody_removes_are_not_begun_anew(place: Place, maps: str) -> None:
    """A folder without a record in the lock would be in the way of every other run."""
    out, options = place.root / "out", OutputOptions(maps, overlays=True)
    result = score_lot(place.lot, open_bundle(place.bundle))

    def write(folder: Path) -> None:
        write_results(result, folder, place.lot, options)

    def write_group(folder: Path) -> None:
        make_folders(folder / "groups" / "1", within=folder)

    for each in (write, write_group):
        with pytest.raises(OutputError, match="No such file"):
            removed_meanwhile(out, each)
    assert sorted(path.name for path in place.root.iterdir()) == ["lot"]
    result.save(out)


@pytest.mark.slow
def test_image_that_vanishes_before_its_overlay_is_drawn(place: Place, tmp_path: Path) -> None:
    result = score_lot(place.lot, open_bundle(place.bundle))
    result.images[1].local.unlink()
    out = tmp_path / "written"
    out.mkdir()
    about, rows = write_results(result, out, place.lot, OutputOptions(overlays=True))
    assert any(f"no overlay of {result.images[1].name}" in text for text in about["warnings"])
    assert len(list((out / "overlays").iterdir())) == 7
    assert len(rows) == 8
    assert json.loads((out / "lot.json").read_text(encoding="ascii"))["warnings"] == about["warnings"]
