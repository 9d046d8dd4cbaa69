"""Lots whose images are cut into tiles: each position is a lot of its own, and all of them one map."""

from __future__ import annotations

import gc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge import LotImage, ReadOptions, ScoreSettings, score_lot, upsample
from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.errors import LotError, OutputError
from musc_edge.runtime.forecast import Forecast
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.images.reading import ImageError
from musc_edge.runtime.images.survey import Survey, survey_lot
from musc_edge.runtime.run import Run
from musc_edge.runtime.settings import Resources
from musc_edge.runtime.store.features import DeviceStore
from musc_edge.runtime.tiling import Tiles
from musc_edge.tools.summary import forecast_text
from support.bad_input import Place
from support.oracle import mutual_scores

NUMPY = Resources(scorer="numpy", threads=1, batch=3)


def cut_by_hand(lot: Path, folder: Path, rows: int, columns: int) -> list[list[LotImage]]:
    """The lot of each position, as files that were cut by Pillow, at the model's size."""
    lots = []
    for r in range(rows):
        for c in range(columns):
            here = folder / f"{r}-{c}"
            here.mkdir(parents=True)
            for path in sorted(lot.iterdir()):
                image = Image.open(path).convert("RGB")
                width, height = image.width // columns, image.height // rows
                box = c * width, r * height, (c + 1) * width, (r + 1) * height
                image.resize((112, 112), Image.Resampling.BICUBIC, box).save(here / path.name)
            lots.append([LotImage(path.name, path) for path in sorted(here.iterdir())])
    return lots


def test_each_position_is_scored_as_a_lot_of_its_own(place: Place, tmp_path: Path) -> None:
    result = score_lot(place.lot, place.bundle, ScoreSettings(tiles=Tiles(2, 3)), NUMPY)
    lots = cut_by_hand(place.lot, tmp_path / "cut", 2, 3)
    maps = [score_lot(lot, place.bundle, ScoreSettings(), NUMPY).maps for lot in lots]
    whole = np.concatenate([np.concatenate(maps[3 * r : 3 * r + 3], axis=2) for r in range(2)], axis=1)
    np.testing.assert_array_equal(result.maps, whole)
    np.testing.assert_array_equal(result.raw_scores, upsample(whole, (2 * 112, 3 * 112)).max(axis=(1, 2)))
    # What images are rescored by is what the whole ones show.
    np.testing.assert_array_equal(result.cls, score_lot(place.lot, place.bundle, ScoreSettings(), NUMPY).cls)


def test_one_tile_scores_as_the_whole_image(place: Place) -> None:
    one = score_lot(place.lot, place.bundle, ScoreSettings(tiles=Tiles(1, 1)), NUMPY)
    whole = score_lot(place.lot, place.bundle, ScoreSettings(), NUMPY)
    np.testing.assert_array_equal(one.maps, whole.maps)
    np.testing.assert_array_equal(one.scores, whole.scores)


def test_tiles_and_tokens_in_files_give_their_room_back_at_once(place: Place, tmp_path: Path) -> None:
    """Not when Python next looks for what nobody needs."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    opened: set[str] = set()

    def look(*_: object) -> None:
        opened.update(_open_files(scratch))

    gc.disable()
    try:
        resources = replace(NUMPY, scratch=scratch)
        score_lot(
            place.lot, place.bundle, ScoreSettings(tiles=Tiles(2, 2)), resources, watch=Watch(progress=look)
        )
        assert opened
        assert not _open_files(scratch)
    finally:
        gc.enable()


def _open_files(folder: Path) -> set[str]:
    """What this process has open in a folder."""
    found = set()
    for opened in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(opened.readlink()))
    return {path for path in found if path.startswith(str(folder))}


def test_forecast_and_progress_are_of_all_tiles(place: Place) -> None:
    told: list[Forecast] = []
    seen: dict[str, list[tuple[float, float]]] = {}

    def progress(stage: str, done: float, total: float, unit: str) -> None:
        seen.setdefault(stage, []).append((done, total))

    watch = Watch(progress, told.append)
    score_lot(place.lot, place.bundle, ScoreSettings(tiles=Tiles(2, 2)), NUMPY, watch=watch)
    assert [forecast.tiles for forecast in told] == [4]
    assert told[0].plan.tile_bytes > 8 * 4 * 3 * 112 * 112
    last = {stage: list(reports[-1]) for stage, reports in seen.items()}
    assert last["extract"] == [5 * 8, 5 * 8]  # the whole images first
    assert last["score"] == [4 * 28, 4 * 28]
    for reports in seen.values():
        assert reports == sorted(reports)


def test_an_image_that_cannot_be_read_is_left_out_of_all_tiles(place: Place) -> None:
    names = sorted(path.name for path in place.lot.iterdir())
    path = place.lot / names[2]
    path.write_bytes(path.read_bytes()[:3000])
    result = score_lot(place.lot, place.bundle, ScoreSettings(tiles=Tiles(1, 2)), NUMPY)
    assert [image.name for image in result.images] == names[:2] + names[3:]
    assert [image.name for image in result.skipped] == [names[2]]
    assert len(result.maps) == 7


def test_free_tiles_are_judged_by_those_of_all_places_but_of_their_own_image(
    place: Place, tmp_path: Path
) -> None:
    settings = ScoreSettings((1,), tiles=Tiles(2, 1, free=True))
    result = score_lot(place.lot, place.bundle, settings, NUMPY)
    lots = cut_by_hand(place.lot, tmp_path / "cut", 2, 1)
    images = [LotImage(f"{k} {tile.name}", tile.path) for k, lot in enumerate(lots) for tile in lot]
    with Run(place.bundle, ScoreSettings(), NUMPY) as run:
        store = run.extract(survey_lot(images, ReadOptions(), 1)).store
        tokens = np.stack([store.block(layer, 0, 16) for layer in range(store.shape[0])])
    same_image = [[k, 8 + k] for k in range(8)]
    maps = mutual_scores(tokens, run.method.grid, (1,), (0.0, 0.3), copies=same_image)
    whole = maps.reshape(2, 8, *run.method.grid).swapaxes(0, 1).reshape(8, -1, run.method.grid[1])
    np.testing.assert_allclose(result.maps, whole, atol=2e-5)  # of distances of 0.05 in float32
    assert result.run.judges == 7 * 2


class StoppedError(Exception):
    """A run that is stopped in its midst."""


@pytest.mark.parametrize("tiles", [Tiles(1, 3), Tiles(1, 2, free=True)], ids=str)
def test_an_interrupted_run_goes_on_at_the_tile_where_it_was(
    place: Place, tmp_path: Path, tiles: Tiles
) -> None:
    settings, keep = ScoreSettings(tiles=tiles), tmp_path / "kept"
    expected = score_lot(place.lot, place.bundle, settings, NUMPY)

    def stop(stage: str, done: float, total: float, unit: str) -> None:
        if stage == "score" and done > total / 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        score_lot(place.lot, place.bundle, settings, NUMPY, keep=keep, watch=Watch(stop))
    result = score_lot(place.lot, place.bundle, settings, NUMPY, keep=keep)
    np.testing.assert_array_equal(result.maps, expected.maps)
    first = "tile 1: features of 16 images" if tiles.free else "tile 1 of 3"
    assert any(note.startswith(first) for note in result.run.notes)
    assert all(note.endswith("an earlier, interrupted run") for note in result.run.notes)
    assert [path.name for path in keep.iterdir()] == ["all"]
    with pytest.raises(OutputError, match="made with other tiles"):
        score_lot(place.lot, place.bundle, ScoreSettings(tiles=Tiles(2, 2)), NUMPY, keep=keep)


def _stopped_in_scoring(place: Place, keep: Path, settings: ScoreSettings) -> None:
    """Interrupt a run while it compares the first tiles."""

    def stop(stage: str, done: float, total: float, unit: str) -> None:
        if stage == "score" and done > 0:
            raise StoppedError

    with pytest.raises(StoppedError):
        score_lot(place.lot, place.bundle, settings, NUMPY, keep=keep, watch=Watch(stop))


@pytest.mark.parametrize("fails_first", [True, False], ids=["fails in the first run", "in the second"])
def test_an_image_that_decodes_in_one_of_two_runs_alone(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_first: bool
) -> None:
    settings, keep = ScoreSettings(tiles=Tiles(1, 2)), tmp_path / "kept"
    name, read = sorted(path.name for path in place.lot.iterdir())[2], Survey.read

    def fail(survey: Survey, image: LotImage) -> Image.Image:
        if image.name == name:
            raise ImageError("unreadable", "for now")
        return read(survey, image)

    first, second = (fail, read) if fails_first else (read, fail)
    monkeypatch.setattr(Survey, "read", first)
    _stopped_in_scoring(place, keep, settings)
    monkeypatch.setattr(Survey, "read", second)
    expected = score_lot(place.lot, place.bundle, settings, NUMPY)
    result = score_lot(place.lot, place.bundle, settings, NUMPY, keep=keep)
    np.testing.assert_array_equal(result.maps, expected.maps)
    assert list(result.run.notes) == [
        f"tile 1: an earlier run had other images (1 came, went or changed: {name}): none of its work is used"
    ]


@pytest.mark.parametrize("first", [None, Tiles(1, 2)], ids=["whole first", "tiles first"])
def test_work_on_tiles_and_on_whole_images_is_not_mixed(
    place: Place, tmp_path: Path, first: Tiles | None
) -> None:
    keep = tmp_path / "kept"
    _stopped_in_scoring(place, keep, ScoreSettings(tiles=first))
    before = sorted(keep.rglob("*"))
    with pytest.raises(OutputError, match=r"made of .*, and this run is of .*: rm -r"):
        score_lot(
            place.lot, place.bundle, ScoreSettings(tiles=None if first else Tiles(1, 2)), NUMPY, keep=keep
        )
    assert sorted(keep.rglob("*")) == before
    score_lot(place.lot, place.bundle, ScoreSettings(tiles=first), NUMPY, keep=keep)


def test_overlaps_that_differ_little_are_other_work(place: Place, tmp_path: Path) -> None:
    _stopped_in_scoring(place, tmp_path, ScoreSettings(tiles=Tiles(1, 2, overlap=0.25)))
    with pytest.raises(OutputError, match="made with other tiles"):
        score_lot(
            place.lot,
            place.bundle,
            ScoreSettings(tiles=Tiles(1, 2, overlap=0.25 + 1e-9)),
            NUMPY,
            keep=tmp_path,
        )


@pytest.mark.usefixtures("emulated_gpu")
def test_each_tile_finds_the_gpu_empty(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int] = []
    made: list[str] = []
    device_store = CudaScorer.device_store

    def watched(scorer: CudaScorer, *args: Any) -> DeviceStore | None:
        free.append(scorer.device.run(lambda gpu: gpu.free_memory()))
        store = device_store(scorer, *args)
        made.append(type(store).__name__)
        return store

    monkeypatch.setattr(CudaScorer, "device_store", watched)
    resources = Resources(scorer="cuda", threads=1, batch=3)
    score_lot(place.lot, place.bundle, ScoreSettings(tiles=Tiles(1, 3)), resources)
    assert made == ["NoneType", *["DeviceStore"] * 3]  # whole images tell copies alone
    assert len(set(free)) == 1


def test_a_group_too_small_for_free_tiles_is_refused_before_work(place: Place) -> None:
    told: list[Forecast] = []
    settings = ScoreSettings(tiles=Tiles(3, 3, free=True), group_size=4)
    with pytest.raises(LotError, match=r"a group size of 4 is too small for tiles .* size of 12"):
        score_lot(place.lot, place.bundle, settings, NUMPY, watch=Watch(announce=told.append))
    assert not told
    enough = ScoreSettings(tiles=Tiles(3, 3, free=True), group_size=12)
    score_lot(place.lot, place.bundle, enough, NUMPY, watch=Watch(announce=told.append))
    assert "by 12 others each" in forecast_text(told[0])


def test_tiles_that_the_images_do_not_allow_are_refused_before_work(place: Place) -> None:
    with pytest.raises(LotError, match="larger than the images, which have a side of 300"):
        score_lot(place.lot, place.bundle, ScoreSettings(tiles=Tiles(side=400)), NUMPY)
