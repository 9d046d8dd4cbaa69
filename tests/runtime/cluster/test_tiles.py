"""Images in tiles on a cluster: the same results as on one machine, and no image is decoded more often."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musc_edge import ReadOptions, ScoreSettings, score_lot
from musc_edge.runtime import run as run_module
from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.cluster.engine import Node
from musc_edge.runtime.images.survey import Survey
from musc_edge.runtime.run import Run
from musc_edge.runtime.settings import Resources
from musc_edge.runtime.tiling import Tiles
from musc_edge.runtime.types import LotImage
from support.bad_input import Place
from support.inline_cluster import InlineCluster
from support.interrupted import StopError, stops_behind
from support.same_results import same

ONE = Resources(scorer="numpy", backend="cpu", threads=1, batch=3)
MANY = replace(ONE, cluster="auto")
CLUSTERS = {"one machine": (), "two machines": (Node("other", 2, 0, 1 << 40, 1 << 40),)}


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> InlineCluster:
    found = InlineCluster(2, 1 << 40, *CLUSTERS[request.param])
    monkeypatch.setattr(run_module, "open_cluster", lambda *_: nullcontext(found))
    return found


LOTS: dict[str, tuple[ScoreSettings, ReadOptions]] = {
    "by position": (ScoreSettings(tiles=Tiles(2, 2, overlap=0.25), burn_out=True), ReadOptions()),
    "of any place": (ScoreSettings(tiles=Tiles(1, 3, free=True), group_size=12), ReadOptions()),
    "in a region": (ScoreSettings(tiles=Tiles(2, 2)), ReadOptions(roi=(0, 0, 40, 60))),
}


@pytest.mark.parametrize("name", LOTS)
def test_a_cluster_changes_no_byte_of_tiles(
    name: str, cluster: InlineCluster, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, reading = LOTS[name]
    # One ends too early, which shows only when it is decoded.
    broken = sorted(place.lot.iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-200])
    decoded: Counter[str] = Counter()
    read = Survey.read

    def noted(survey: Survey, image: LotImage) -> object:
        decoded[image.name] += 1
        return read(survey, image)

    monkeypatch.setattr(Survey, "read", noted)
    expected = score_lot(place.lot, place.bundle, settings, ONE, reading=reading)
    assert len(expected.skipped) == 1
    by_one = Counter(decoded)
    decoded.clear()
    found = score_lot(place.lot, place.bundle, settings, MANY, reading=reading)
    same(found, expected)
    assert decoded == by_one


def test_the_plan_counts_all_tiles(cluster: InlineCluster, place: Place) -> None:
    plans = []
    for tiles in (None, Tiles(2, 3)):
        with Run(place.bundle, ScoreSettings(tiles=tiles), MANY) as run:
            plans.append(run.planner.plan(100))
            size = run.bundle.manifest.preprocess.size
    whole, cut = (plan.cluster for plan in plans)
    assert whole
    assert cut
    # Beside the tokens of one position: those of the whole images, and the pixels of all tiles.
    beside = plans[0].token_bytes + 100 * 6 * 3 * size[0] * size[1]
    assert cut.object_bytes == whole.object_bytes + beside
    moved = 6 * whole.moved_bytes + beside if len(cluster.nodes) > 1 else 0
    assert cut.moved_bytes == moved
    assert (whole.moved_bytes > 0) == (moved > 0)
    assert (plans[1].tile_bytes, plans[1].disk_bytes) == (0, 0)


def test_an_interrupted_run_goes_on_at_the_tile_where_it_was(
    cluster: InlineCluster, place: Place, tmp_path: Path
) -> None:
    settings, keep = ScoreSettings(tiles=Tiles(1, 3)), tmp_path / "kept"

    with pytest.raises(StopError):
        score_lot(place.lot, place.bundle, settings, MANY, keep=keep, watch=Watch(progress=stops_behind(0.5)))
    found = score_lot(place.lot, place.bundle, settings, MANY, keep=keep)
    assert any("tile 1 of 3 comes from an earlier, interrupted run" in note for note in found.run.notes)
    np.testing.assert_array_equal(found.maps, score_lot(place.lot, place.bundle, settings, ONE).maps)
