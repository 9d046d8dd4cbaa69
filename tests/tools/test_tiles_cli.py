"""``musc-edge infer --tiles``: every output is of whole images, in groups too, and on a GPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge.tools.demo import read_scores
from support.bad_input import Place
from support.command_line import run_here


def about(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "lot.json").read_text(encoding="ascii"))
    return content


def raw_scores(out: Path) -> list[float]:
    """Raw scores by the images' names."""
    return [score for _, score in sorted(read_scores(out / "scores.csv", "raw_score").items())]


def infer(place: Place, commands: Path, out: Path, *options: str) -> Path:
    start = str(commands / "musc-edge"), "infer", str(place.lot), "-b", str(place.bundle), "-o", str(out)
    run = run_here([*start, "--method", "paper", *options])
    assert run.returncode == 0, run.stderr
    return out


def test_outputs_are_of_whole_images(place: Place, commands: Path) -> None:
    files = "--overlays", "--report", "--maps", "pixel", "--map-format", "tiff", "--reject-count", "2"
    out = infer(place, commands, place.root / "out", "--tiles", "2x3", "--overlap", "0.25", *files)
    facts = about(out)
    # Two tiles of eight patches, two of them over each other; and three, which are 8 + 6 + 6.
    assert facts["map_grid"] == [14, 20]
    assert facts["map_size"] == [14 * 14, 20 * 14]
    assert facts["settings"]["tiles"] == {"rows": 2, "columns": 3, "side": 0, "overlap": 0.25, "free": False}
    maps = sorted((out / "maps").iterdir())
    assert len(maps) == len(list((out / "overlays").iterdir())) == 8
    values = np.asarray(Image.open(maps[0]))
    assert values.shape == (14 * 14, 20 * 14)
    assert values.max() == pytest.approx(raw_scores(out)[0], abs=1e-5)
    with (out / "regions.csv").open(encoding="utf-8") as file:
        assert len(file.readlines()) > 2
    run = run_here([str(commands / "musc-edge"), "report", str(out)])
    assert run.returncode == 0, run.stderr


def test_groups_are_cut_one_by_one(place: Place, commands: Path) -> None:
    for k, path in enumerate(sorted(place.lot.iterdir())):
        for group in "ab":
            (place.lot / group).mkdir(exist_ok=True)
            shutil.copy(path, place.lot / group / f"{k}.png")
        path.unlink()
    out = infer(place, commands, place.root / "out", "--tiles", "150", "--group-by", "folder", "--resume")
    assert {group["settings"]["tiles"]["side"] for group in about(out)["groups"].values()} == {150}
    scores = raw_scores(out)
    np.testing.assert_array_equal(scores[:8], scores[8:])
    assert sorted(path.name for path in place.root.iterdir()) == ["lot", "out"]


@pytest.mark.usefixtures("emulated_gpu")
def test_scores_of_the_gpu_are_those_of_the_cpu(place: Place, commands: Path) -> None:
    options = "--tiles", "1x2", "--scorer"
    cpu, gpu = (infer(place, commands, place.root / kind, *options, kind) for kind in ("numpy", "cuda"))
    assert about(gpu)["plan"]["device"]["holds_tokens"]
    np.testing.assert_allclose(raw_scores(gpu), raw_scores(cpu), atol=1e-4)


def test_plan_knows_of_tiles(place: Place, commands: Path) -> None:
    plan = [str(commands / "musc-edge"), "plan", "-b", str(place.bundle), "--json"]
    whole, tiles = (
        json.loads(run_here([*plan, str(place.lot), *more]).stdout) for more in ([], ["--tiles", "100"])
    )
    assert (whole["tiles"], tiles["tiles"]) == (1, 9)
    assert tiles["plan"]["tile_bytes"] > 8 * 9 * 3 * 112 * 112 > whole["plan"]["tile_bytes"] == 0
    free = json.loads(run_here([*plan, "8", "--tiles", "3x3", "--tiles-free"]).stdout)
    assert (free["pairs"], free["judges"]) == (72 * 71 // 2, 7 * 9)
    run = run_here([*plan, "8", "--tiles", "3x3", "--tiles-free", "--group-size", "4"])
    assert run.returncode == 6
    assert "a group size of 4 is too small for tiles" in run.stderr
    run = run_here([*plan, "8", "--tiles", "100"])
    assert run.returncode == 6
    assert "Give a folder of them" in run.stderr


def test_what_plans_for_other_devices_are_not_made_of(place: Place, commands: Path) -> None:
    plan = [str(commands / "musc-edge"), "plan", "-b", str(place.bundle), "8", "--devices", "8G"]
    run = run_here([*plan, "--tiles", "2x2", "--tiles-free"])
    assert run.returncode == 2
    assert "--devices with --tiles-free is not made" in run.stderr
    assert run_here([*plan, "--window", "1"]).returncode == 0
    assert run_here([*plan, "--tiles", "2x2"]).returncode == 0  # place by place, in the memory of whole ones


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", "0.25"], "--overlap takes --tiles"),
        (["--tiles-free"], "--tiles-free takes --tiles"),
        (["--tiles", "2x"], "expected ROWSxCOLUMNS such as 2x3, or a side in pixels such as 640"),
        (["--tiles", "2x3", "--overlap", "0.7"], "expected a share of a tile up to 0.5, or whole pixels"),
        (["--tiles", "2x3", "--rescore", "salient"], "not made for tiles"),
        (["--tiles", "400"], "larger than the images, which have a side of 300 pixels"),
    ],
)
def test_what_has_no_meaning_is_refused_before_work(
    place: Place, commands: Path, options: list[str], message: str
) -> None:
    out = place.root / "out"
    run = run_here(
        [
            str(commands / "musc-edge"),
            "infer",
            str(place.lot),
            "-b",
            str(place.bundle),
            "-o",
            str(out),
            *options,
        ]
    )
    assert run.returncode in (2, 6)
    assert message in run.stderr
    assert not out.exists()
