"""A program that dies at any step between picture, database, files and note leaves each result once."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from musc_edge.runtime.line import appended
from musc_edge.runtime.line.result_log import ResultLog
from support.dying_watch import DEAD, STEPS
from support.forks import run_forked
from support.quick_station import watched
from support.watching import png, problems

CODE = """
import sys
from pathlib import Path
from support.dying_watch import die_at
die_at(sys.argv[1], Path(sys.argv[2]))
"""


def die(step: str, work: Path) -> None:
    """Let a watch of ``work``/in die at a step."""
    died = run_forked([sys.executable, "-c", CODE, step, str(work)])
    assert died.returncode == DEAD, died.stderr


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_a_program_that_dies_between_two_steps(tmp_path: Path, step: str) -> None:
    (tmp_path / "in").mkdir()
    die(step, tmp_path)
    with watched(tmp_path / "in", tmp_path / "out") as line:
        (tmp_path / "in" / "b.png").write_bytes(png(2))
        line.until_recorded("a.png", "b.png")
        recorded_before = step not in ("picture", "overlay", "all pictures")
        assert ("a.png" in line.checker.names) != recorded_before
    assert not list(problems(tmp_path / "out", Counter(["a.png", "b.png"])))


def test_pictures_of_an_image_that_went_away_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    die("all pictures", tmp_path)
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 1
    (tmp_path / "in" / "a.png").unlink()
    with watched(tmp_path / "in", tmp_path / "out") as line:
        (tmp_path / "in" / "b.png").write_bytes(png(2))
        line.until_recorded("b.png")
    assert not list(problems(tmp_path / "out", Counter(["b.png"])))


def test_files_that_a_loss_of_power_left_empty_are_written_again(tmp_path: Path) -> None:
    """What was not synced may be there in length alone."""
    names = (appended.CSV, appended.JSON_LINES)
    with ResultLog(tmp_path) as log:
        for number in range(3):
            log.add({"image": f"{number}.png"})
    synced = {name: (tmp_path / name).stat().st_size for name in names}
    log = ResultLog(tmp_path)
    for number in range(3, 6):
        log.add({"image": f"{number}.png"})
    written = {name: (tmp_path / name).read_bytes() for name in names}
    log.database.close()  # as a kill does, without the last sync
    log._files.close()
    for name, content in written.items():
        (tmp_path / name).write_bytes(content[: synced[name]] + bytes(len(content) - synced[name]))
    with ResultLog(tmp_path):
        assert {name: (tmp_path / name).read_bytes() for name in names} == written
