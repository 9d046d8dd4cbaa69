"""Regions of interest in images that are cut into tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from musc_edge import LotImage, ReadOptions, ScoreSettings, score_lot
from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.errors import LotError, OutputError
from musc_edge.runtime.forecast import Forecast
from musc_edge.runtime.scoring.stitch import stitch
from musc_edge.runtime.settings import RESIDUAL, Resources
from musc_edge.runtime.tiling import Tiles, layout_of
from musc_edge.runtime.vit.bundle import open_bundle
from support.references import BUNDLE, part

Array = npt.NDArray[Any]
NUMPY = Resources(scorer="numpy", threads=1, batch=3)
SIDE = 80
IMAGES = 8
CUT = Tiles(1, 2)


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    """Parts on a table of one colour."""
    folder = tmp_path / "lot"
    folder.mkdir()
    for seed in range(IMAGES):
        picture = Image.new("RGB", (SIDE, SIDE), (240, 240, 240))
        picture.paste(part(seed), (10, 20))
        picture.save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Of two images nothing of the right half; of the others a part of both, not the same in all."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for seed in range(IMAGES):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[10 : 50 + seed, : SIDE // 2 if seed < 2 else 65] = 255
        Image.fromarray(mask).save(folder / f"{seed}.png")
    return folder


def cut(folder: Path, out: Path, column: int, names: list[str]) -> list[LotImage]:
    """One half of each image, as a file."""
    out.mkdir()
    for name in names:
        picture = Image.open(folder / name)
        half = picture.width // 2
        picture.crop((column * half, 0, (column + 1) * half, picture.height)).save(out / name)
    return [LotImage(name, out / name) for name in names]


@pytest.mark.parametrize("by", ["pairs", RESIDUAL])
def test_each_position_is_scored_as_a_lot_of_its_own(lot: Path, masks: Path, tmp_path: Path, by: str) -> None:
    """Tiles have the model's size, so that they can be cut by hand to the last bit."""
    manifest = open_bundle(BUNDLE).manifest
    height, width = manifest.preprocess.size
    for path in [*lot.iterdir(), *masks.iterdir()]:
        Image.open(path).resize((2 * width, height), Image.Resampling.NEAREST).save(path)
    resources = NUMPY if by == "pairs" else Resources(threads=1, batch=3)
    settings = ScoreSettings((1, 3), by=by, tiles=CUT)
    result = score_lot(lot, BUNDLE, settings, resources, reading=ReadOptions(roi=masks))
    expected = np.full_like(result.maps, np.nan)
    for column, first in enumerate((0, 2)):
        names = [f"{seed}.png" for seed in range(first, IMAGES)]
        tiles = cut(lot, tmp_path / f"tiles{column}", column, names)
        there = tmp_path / f"masks{column}"
        cut(masks, there, column, names)
        alone = score_lot(
            tiles, BUNDLE, ScoreSettings((1, 3), by=by), resources, reading=ReadOptions(roi=there)
        )
        columns = slice(column * manifest.grid[1], (column + 1) * manifest.grid[1])
        expected[first:, :, columns] = alone.maps
    assert np.isnan(expected[2:]).any()
    np.testing.assert_array_equal(result.maps, expected)


def test_a_position_with_too_few_is_said_and_has_no_scores(lot: Path, masks: Path) -> None:
    for seed in range(2, 5):
        (masks / f"{seed}.png").write_bytes((masks / "0.png").read_bytes())
    reading = ReadOptions(roi=masks)
    result = score_lot(lot, BUNDLE, ScoreSettings(tiles=CUT), NUMPY, reading=reading)
    half = result.maps.shape[2] // 2
    assert np.isnan(result.maps[:, :, half:]).all()
    assert not np.isnan(result.maps[:, :, :half]).all(axis=(1, 2)).any()
    text = "nothing is scored at 1 tile position of 2, where at most 3 images have a patch in the region"
    assert any(text in warning for warning in result.warnings)
    free = score_lot(lot, BUNDLE, ScoreSettings(tiles=Tiles(1, 2, free=True)), NUMPY, reading=reading)
    scored = ~np.isnan(free.maps[:, :, half:]).all(axis=(1, 2))
    assert scored.tolist() == [False] * 5 + [True] * 3


def test_an_image_of_which_nothing_is_left_is_refused_before_the_forecast(lot: Path, masks: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    Image.fromarray(mask).save(masks / "0.png")
    for seed in range(1, 5):
        Image.fromarray(mask[:, ::-1].copy()).save(masks / f"{seed}.png")
    told: list[Forecast] = []
    with pytest.raises(LotError, match=r"nothing can be scored of 0\.png: too few other images"):
        score_lot(
            lot, BUNDLE, ScoreSettings(tiles=CUT), NUMPY,
            reading=ReadOptions(roi=masks), watch=Watch(announce=told.append),
        )  # fmt: skip
    assert not told


def test_a_plain_background_is_left_out_of_tiles(lot: Path) -> None:
    settings = ScoreSettings(tiles=Tiles(2, 2, overlap=0.25))
    result = score_lot(lot, BUNDLE, settings, NUMPY, reading=ReadOptions(mask_background="auto"))
    assert "the plain background was masked in 8 of 8 images" in result.run.notes
    rows = (np.arange(result.maps.shape[1]) + 0.5) / result.maps.shape[1] * SIDE
    columns = (np.arange(result.maps.shape[2]) + 0.5) / result.maps.shape[2] * SIDE
    deep = np.outer((rows > 25) & (rows < 55), (columns > 15) & (columns < 45))
    far = ~np.outer((rows > 10) & (rows < 70), (columns > 0) & (columns < 60))
    assert deep.any()
    assert far.any()
    assert not np.isnan(result.maps[:, deep]).any()
    assert np.isnan(result.maps[:, far]).all()


class StoppedError(Exception):
    """A run that is stopped in its midst."""


def test_an_interrupted_run_goes_on_and_another_region_is_refused(
    lot: Path, masks: Path, tmp_path: Path
) -> None:
    settings, keep, reading = ScoreSettings((1,), tiles=CUT), tmp_path / "kept", ReadOptions(roi=masks)
    expected = score_lot(lot, BUNDLE, settings, NUMPY, reading=reading)
    reports: list[float] = []

    def stop(stage: str, done: float, total: float, unit: str) -> None:
        if stage == "score":
            reports.append(done)
            if done > 0.8 * total:
                raise StoppedError

    with pytest.raises(StoppedError):
        score_lot(lot, BUNDLE, settings, NUMPY, reading=reading, keep=keep, watch=Watch(stop))
    assert reports == sorted(reports)
    result = score_lot(lot, BUNDLE, settings, NUMPY, reading=reading, keep=keep)
    np.testing.assert_array_equal(result.maps, expected.maps)
    assert "tile 1 of 2 comes from an earlier, interrupted run" in result.run.notes
    with pytest.raises(OutputError, match="made with other region of tiles"):
        score_lot(lot, BUNDLE, settings, NUMPY, reading=ReadOptions(roi=(0, 0, 80, 60)), keep=keep)


def test_cells_are_made_of_the_tiles_that_have_them() -> None:
    """Two tiles of four patches on six cells; the second has no score in its first two."""
    layout = layout_of(Tiles(1, 2, overlap=0.5), [])
    nan = np.nan
    maps = np.array([[[[1, 1, 1, 1]]], [[[nan, nan, 0, nan]]]], np.float32)
    np.testing.assert_array_equal(stitch(maps, layout)[0, 0], [1, 1, 1, 1, 0, nan])
    maps = np.array([[[[nan, 1, 1, 1]]], [[[0, 0, 0, 0]]]], np.float32)
    np.testing.assert_allclose(stitch(maps, layout)[0, 0], [nan, 1, 0.75, 0.25, 0, 0], atol=1e-7)


@pytest.mark.parametrize(
    "tiles", [Tiles(1, 1), Tiles(2, 2, overlap=0.31), Tiles(3, 2, overlap=0.25)], ids=str
)
def test_no_patch_is_lost_and_nothing_grows(tiles: Tiles) -> None:
    layout = layout_of(tiles, [])
    for patch in range(25):
        maps = np.full((len(layout.positions), 1, 5, 5), np.nan, np.float32)
        maps[-1, 0].flat[patch] = 0.5
        whole = stitch(maps, layout)
        assert set(whole[~np.isnan(whole)].tolist()) == {0.5}
        assert 1 <= (~np.isnan(whole)).sum() <= 4
