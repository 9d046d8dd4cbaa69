"""What an earlier version wrote is still opened, and still means the same (docs/compatibility.md).

tests/data/schema1 holds a bundle, a lot and its results as musc-edge 0.1.0 wrote them.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musc_edge
from musc_edge import Checker, LotResult, open_bundle, open_reference, score_lot
from musc_edge.runtime.images.listing import list_lot
from musc_edge.runtime.results.write import COLUMNS
from musc_edge.tools.export import main as musc_export
from support.places import DATA

KEPT = DATA / "schema1"


def rows(results: Path) -> list[dict[str, str]]:
    with (results / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def about(results: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((results / "lot.json").read_text(encoding="ascii"))
    return content


@pytest.fixture(scope="module")
def result() -> LotResult:
    return score_lot(KEPT / "lot", KEPT / "bundle", "paper")


def test_the_kept_files_are_of_schema_1() -> None:
    assert json.loads((KEPT / "bundle/manifest.json").read_text())["schema_version"] == 1


def test_the_kept_bundle_opens_whole() -> None:
    bundle = open_bundle(KEPT / "bundle", whole=True)
    assert bundle.manifest.backbone == "tiny ViT"
    assert bundle.manifest.made_with["musc-edge"] == "0.1.0"


def test_the_kept_bundle_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    """Its proof covers the probe's photographs, so these may not change either."""
    assert musc_export(["verify", str(KEPT / "bundle"), "--json"]) == 0
    parity = json.loads(capsys.readouterr().out)["parity"]
    assert parity["raw_score_max_change"] < 1e-5


def test_the_kept_bundle_still_gives_the_kept_scores(result: LotResult) -> None:
    kept = rows(KEPT / "results")
    assert [image.name for image in result.images] == [row["image"] for row in kept]
    for column, values in (
        ("raw_score", result.raw_scores),
        ("score", result.scores),
        ("lot_score", result.lot_scores),
    ):
        np.testing.assert_allclose(values, [float(row[column]) for row in kept], rtol=0, atol=1e-5)


def test_the_kept_bundle_still_gives_the_kept_maps(result: LotResult) -> None:
    kept = [np.load(KEPT / "results" / row["map"]) for row in rows(KEPT / "results")]
    np.testing.assert_allclose(result.maps, kept, rtol=0, atol=1e-5)


def test_the_defect_is_worst(result: LotResult) -> None:
    assert result.images[result.order()[0]].name == "5.png"


def test_tables_only_gain_columns_behind_those_that_were() -> None:
    header = (KEPT / "results/scores.csv").read_text(encoding="utf-8").splitlines()[0]
    kept = header.split(",")
    assert list(COLUMNS[: len(kept)]) == kept


def keys(value: Any, place: str = "") -> set[str]:
    """Dotted paths of all fields, but of those that are called after what they hold."""
    if not isinstance(value, dict) or place == ".timings_s":
        return {place}
    return {place}.union(*(keys(inner, f"{place}.{name}") for name, inner in value.items()))


def test_lot_json_only_gains_fields(result: LotResult, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    assert keys(about(KEPT / "results")) <= keys(about(tmp_path / "out"))


def test_kept_results_are_known_for_results(result: LotResult, tmp_path: Path) -> None:
    """They are not searched for images, and a new run may replace them."""
    lot = Path(shutil.copytree(KEPT / "lot", tmp_path / "lot"))
    earlier = Path(shutil.copytree(KEPT / "results", lot / "results"))
    (earlier / "maps/overlay.png").write_bytes((lot / "0.png").read_bytes())
    assert len(list_lot(lot)) == 8
    result.save(earlier, overwrite=True)
    assert about(earlier)["versions"]["musc-edge"] == musc_edge.__version__


@pytest.mark.parametrize("name", ["reference", "reference_patches"])
def test_the_kept_references_still_give_the_kept_scores(name: str) -> None:
    kept = open_reference(KEPT / name)
    assert kept.manifest.schema_version == 1
    assert kept.manifest.made_with["musc-edge"] == "0.1.0"
    with Checker(kept, KEPT / "bundle") as checker:
        raw = [checker.check(KEPT / "lot" / image).raw_score for image in kept.manifest.calibration]
    np.testing.assert_allclose(np.sort(raw), kept.calibration, rtol=0, atol=1e-5)
