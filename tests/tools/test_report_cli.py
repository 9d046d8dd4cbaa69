"""``musc-edge report``, and the report that ``musc-edge infer --report`` adds to the results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.bad_input import Place
from support.command_line import run_here
from support.places import DATA


@pytest.fixture
def results(tmp_path: Path) -> Path:
    shutil.copytree(DATA / "schema1" / "results", tmp_path / "results")
    return tmp_path / "results"


def test_a_report_of_results_that_exist(commands: Path, results: Path, tmp_path: Path) -> None:
    edge = str(commands / "musc-edge")
    run = run_here([edge, "report", str(results), "--images", str(DATA / "schema1" / "lot")])
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"report  {results / 'report.html'}\n"
    run = run_here([edge, "report", str(results), "-o", str(tmp_path / "other.html"), "--json"])
    assert json.loads(run.stdout) == {"report": str(tmp_path / "other.html"), "pictures": None}
    assert run_here([edge, "report", str(tmp_path / "nothing")]).returncode == 2
    assert run_here([edge, "report", str(results), "-o", str(tmp_path)]).returncode == 2
    assert run_here([edge, "report", str(tmp_path)]).returncode == 6
    assert run_here([edge, "report", str(results), "-o", str(tmp_path / "no" / "x.html")]).returncode == 7


@pytest.mark.parametrize("grouped", [False, True])
def test_infer_adds_it_to_the_results(commands: Path, place: Place, grouped: bool) -> None:
    shutil.copytree(place.lot, place.lot / "more")
    edge = str(commands / "musc-edge")
    options = ["--group-by", "folder"] if grouped else []
    command = [
        edge,
        "infer",
        str(place.lot),
        "-b",
        str(place.bundle),
        "-o",
        "out",
        "--report",
        "--scorer",
        "numpy",
    ]
    run = run_here([*command, *options], cwd=place.root)
    assert run.returncode == 0, run.stderr
    assert "report         out/report.html" in run.stdout
    page = (place.root / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count('"picture":"data:image/') == 16
    assert ('"name":"02_more"' in page) is grouped
