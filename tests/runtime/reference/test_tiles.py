"""References by tiles: a bank for each position, and an image that scores as infer scores it in tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge import (
    Checker,
    DeviceError,
    LotError,
    ReadOptions,
    ReferenceFolder,
    ReferenceFolderError,
    ReferenceOptions,
    Resources,
    ScoreSettings,
    Tiles,
    make_reference,
    open_reference,
    score_lot,
)
from support.command_line import run_here
from support.references import BUNDLE, part

pytestmark = pytest.mark.slow
ALL = ReferenceOptions(hold_out=0)
GRID = Tiles(2, 3, overlap=0.25)


def write_lot(folder: Path, images: int, first: int = 0) -> Path:
    """Write good parts of 90 x 60 pixels into ``folder``."""
    folder.mkdir(exist_ok=True)
    for seed in range(first, first + images):
        part(seed).resize((90, 60)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lot(tmp_path_factory.mktemp("lots") / "lot", 9)


@pytest.fixture(scope="module")
def kept(lot: Path, tmp_path_factory: pytest.TempPathFactory) -> ReferenceFolder:
    settings = ScoreSettings((1, 3), tiles=GRID)
    return make_reference(lot, BUNDLE, tmp_path_factory.mktemp("refs") / "ref", settings, options=ALL)


@pytest.mark.parametrize(
    "settings",
    [ScoreSettings((1, 3), tiles=GRID), ScoreSettings((1,), tiles=Tiles(side=30, overlap=6), window=2)],
)
def test_an_image_scores_as_in_one_lot_with_the_reference(
    settings: ScoreSettings, lot: Path, tmp_path: Path
) -> None:
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", settings, options=ALL)
    together = write_lot(tmp_path / "lot", 9)
    part(99, spot=60).resize((90, 60)).save(together / "new.png")
    result = score_lot(together, BUNDLE, settings)
    position = [image.name for image in result.images].index("new.png")
    with Checker(kept, BUNDLE) as checker:
        check = checker.check(together / "new.png")
        other = checker.check(part(3))
    np.testing.assert_allclose(np.asarray(check.map), result.maps[position], rtol=0, atol=1e-5)
    assert check.raw_score == pytest.approx(result.raw_scores[position], abs=1e-5)
    if settings.tiles and settings.tiles.side:
        assert (other.status, "tiles of the reference are for images of 90 x 60" in other.error) == (
            "unsupported",
            True,
        )
    else:
        assert other.status == "ok"


@pytest.mark.parametrize("settings", [{"by": "residual"}, {"position_median": 0.5}])
def test_images_that_are_held_out_calibrate(settings: dict[str, Any], lot: Path, tmp_path: Path) -> None:
    options = ReferenceOptions(hold_out=0.3)
    kept = make_reference(
        lot, BUNDLE, tmp_path / "ref", ScoreSettings((1,), tiles=GRID, **settings), options=options
    )
    with Checker(kept, BUNDLE) as checker:
        raw = [checker.check(lot / name).raw_score for name in kept.manifest.calibration]
        defect = checker.check(part(99, spot=150).resize((90, 60)))
    np.testing.assert_allclose(np.sort(raw), kept.calibration, rtol=0, atol=1e-6)
    assert defect.raw_score > kept.calibration.max()


def test_of_the_lot_an_image_scores_by_residual_as_in_infer(lot: Path, tmp_path: Path) -> None:
    settings = ScoreSettings((1,), tiles=GRID, by="residual")
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", settings, options=ALL)
    result = score_lot(lot, BUNDLE, settings)
    with Checker(kept, BUNDLE) as checker:
        for image, expected in zip(result.images[:2], result.maps, strict=False):
            np.testing.assert_allclose(np.asarray(checker.check(image.local).map), expected, atol=1e-6)


def test_a_few_images_are_chosen_suspects_left_out_and_more_added(lot: Path, tmp_path: Path) -> None:
    options = ReferenceOptions(hold_out=0, images=6, patches=0.5, suspects=0.2)
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", ScoreSettings((1,), tiles=GRID), options=options)
    assert (len(kept.manifest.images), len(kept.manifest.others)) == (6, 1)
    more = write_lot(tmp_path / "more", 5, first=50)
    added = make_reference(more, BUNDLE, tmp_path / "more-ref", options=ALL, base=kept)
    assert (added.manifest.tiles, len(added.manifest.images)) == (GRID, 11)
    with Checker(added, BUNDLE) as checker:
        assert checker.check(lot / "0.png").status == "ok"


def test_the_folder_has_a_bank_for_each_tile(kept: ReferenceFolder) -> None:
    m = open_reference(kept.root).manifest
    assert m.schema_version == 3
    assert m.parts == [f"tile_{k}_" for k in range(1, 7)]
    assert {f"{part}layer_{m.layers[0]}.npy" for part in m.parts} < set(m.files)
    one = 4 * len(m.layers) * len(m.images) * m.grid[0] * m.grid[1] * (m.token_width + len(m.degrees))
    assert m.bank_bytes == 6 * one


@pytest.mark.parametrize(
    "change",
    [
        {"tiles_of": [90, 60]},
        {"mask_background": "auto"},
        {"tiles": {"rows": 2, "columns": 3, "side": 0, "overlap": 0.25, "free": True}},
        {"tiles": {"rows": 0, "columns": 0, "side": 30, "overlap": 0.0, "free": False}},
        {"tiles": {"rows": 2, "columns": 2, "side": 0, "overlap": 0.25, "free": False}},
        {"tiles": {"rows": -1, "columns": 3, "side": 0, "overlap": 0.25, "free": False}},
        {"tiles": None},
    ],
)
def test_manifests_that_contradict_themselves_are_refused(
    change: dict[str, object], kept: ReferenceFolder, tmp_path: Path
) -> None:
    facts = json.loads((kept.root / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ReferenceFolderError, match=r"not possible|lists the files|expected 1 to 64 rows"):
        open_reference(tmp_path)


def test_what_cannot_be_is_refused(kept: ReferenceFolder, lot: Path, tmp_path: Path) -> None:
    for settings, reading, said in (
        (ScoreSettings(tiles=Tiles(2, 3, free=True)), ReadOptions(), "tiles of any place are not made"),
        (ScoreSettings(tiles=GRID), ReadOptions(roi=(0, 0, 20, 20)), "with a region of interest"),
    ):
        with pytest.raises(LotError, match=said):
            make_reference(lot, BUNDLE, tmp_path / "ref", settings, reading=reading)
    with pytest.raises(DeviceError, match="keeps a bank for each tile, which are compared on the CPU"):
        Checker(kept, BUNDLE, resources=Resources(scorer="cuda"))
    with pytest.raises(LotError, match="memory budget leaves"):
        Checker(kept, BUNDLE, resources=Resources(memory_budget=1_000_000))


def test_from_the_command_line(lot: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "ref")
    make = ["musc-edge", "reference", str(lot), "-b", str(BUNDLE), "-o", out, "--hold-out", "0.3"]
    made = run_here([*make, "--tiles", "1x2"])
    assert made.returncode == 0, made.stderr
    assert "1 x 2 tiles, a bank for each" in made.stdout
    assert run_here(["musc-edge", "inspect", out]).stdout == made.stdout
    check = ["musc-edge", "check", str(lot / "3.png"), "--reference", out, "-b", str(BUNDLE), "--json"]
    done = run_here([*check, "-o", str(tmp_path / "checks")])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["status"] == "ok"
    again = run_here([*make, "--overwrite"])
    assert again.returncode == 0, again.stderr
    assert not list(Path(out).glob("tile_*"))
    assert run_here([*make, "--overwrite", "--tiles", "1x2", "--tiles-free"]).returncode == 6
