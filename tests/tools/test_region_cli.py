"""Regions of interest and windows from end to end: infer, its outputs, verdict, reference and check."""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge import (
    Checker,
    LotError,
    ReferenceFolder,
    ReferenceOptions,
    ScoreSettings,
    make_reference,
    open_reference,
    score_lot,
)
from musc_edge.runtime.images.survey import ReadOptions
from musc_edge.runtime.results.read_results import read_results
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.vit.bundle import open_bundle
from support.command_line import Run, run_here
from support.references import BUNDLE, part, write_lot

pytestmark = pytest.mark.slow
ROI = (0, 10, 40, 20)
"""Of images of 40 x 40 pixels."""
ALL = ReferenceOptions(hold_out=0)


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good parts, one with a spot inside of the region and one with a brighter spot below it."""
    folder = tmp_path_factory.mktemp("lots") / "lot"
    write_lot(folder, 12)
    part(20, spot=60).save(folder / "inside.png")
    outside = np.asarray(part(21)).copy()
    outside[32:39, 2:12] = 255
    Image.fromarray(outside).save(folder / "outside.png")
    return folder


def grid() -> tuple[int, int]:
    return open_bundle(BUNDLE).manifest.grid


def inside() -> Any:
    rows = (np.arange(grid()[0]) + 0.5) / grid()[0] * 40
    return np.repeat(((rows > 10) & (rows < 30))[:, None], grid()[1], axis=1)


def edge(commands: Path, *options: str) -> Run:
    return run_here([str(commands / "musc-edge"), *options])


@pytest.fixture(scope="module")
def results(commands: Path, lot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    given = ["-b", str(BUNDLE), "-o", str(out), "--roi", ",".join(map(str, ROI)), "--overlays", "--report"]
    run = edge(commands, "infer", str(lot), *given, "--scorer", "numpy", "--reject-count", "2")
    assert (run.returncode, run.stderr) == (0, "")
    assert "only 50% of the patches of each image take part" in run.stdout
    return out


def test_scores_and_maps_are_those_inside(results: Path) -> None:
    (scored,) = read_results(results)
    assert scored.settings["roi"] == "0,10,40,20"
    by_name = {image.name: image for image in scored.images}
    size = tuple(scored.about["bundle"]["image_size"])
    for image in scored.images:
        values = scored.stored_map(image.map)
        np.testing.assert_array_equal(np.isnan(values), ~inside())
        assert image.raw_score == pytest.approx(raw_scores(values[None], size)[0], abs=1e-6)
        assert image.raw_score <= np.nanmax(values) + 1e-6
    assert max(by_name, key=lambda name: by_name[name].raw_score) == "inside.png"


def test_overlays_are_dim_outside(results: Path) -> None:
    drawn = np.asarray(Image.open(results / "overlays/5.jpg")).astype(float)[:40]
    plain = np.asarray(part(5)).astype(float)
    assert drawn[:6].mean() < 0.5 * plain[:6].mean()
    assert drawn[15:25].mean() > 0.7 * plain[15:25].mean()


def test_regions_lie_inside(results: Path) -> None:
    rows = list(csv.DictReader((results / "regions.csv").read_text(encoding="utf-8").splitlines()))
    assert "inside.png" in {row["image"] for row in rows}
    for row in rows:
        top = int(row["y"])
        assert top >= 5
        assert top + int(row["height"]) <= 35  # an edge of a map lies at the middle between two patches


def test_the_report_has_what_is_inside(results: Path) -> None:
    text = (results / "report.html").read_text(encoding="utf-8")
    found = set(re.findall(r'"inside": ?"([^"]+)"', text))
    bits = inside().astype(np.uint8)
    assert found == {base64.b64encode(bits.tobytes()).decode("ascii")}


@pytest.mark.long
@pytest.mark.parametrize("form", ["npy", "tiff", "png8", "png16"])
@pytest.mark.parametrize("kind", ["grid", "pixel", "original"])
def test_maps_of_all_forms(commands: Path, lot: Path, tmp_path: Path, kind: str, form: str) -> None:
    result = score_lot(lot, BUNDLE, reading=ReadOptions(roi=ROI))
    result.save(tmp_path / "out", maps=kind, map_format=form, report=True)
    (scored,) = read_results(tmp_path / "out")
    values = scored.stored_map(scored.images[0].map)
    outside = np.isnan(values) if form in ("npy", "tiff") else values == np.nanmin(result.maps)
    assert 0.3 < outside.mean() < 0.7
    run = edge(commands, "verdict", str(tmp_path / "out"), "--reject-count", "1")
    assert (run.returncode, run.stderr) == (0, "")


def test_kept_work_of_another_region_is_not_taken(lot: Path, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    first = score_lot(lot, BUNDLE, reading=ReadOptions(roi=ROI), keep=keep)
    other = ReadOptions(roi=(0, 0, 40, 30))
    second = score_lot(lot, BUNDLE, reading=other, keep=keep)
    np.testing.assert_array_equal(second.maps, score_lot(lot, BUNDLE, reading=other).maps)
    again = score_lot(lot, BUNDLE, reading=ReadOptions(roi=ROI), keep=keep)
    np.testing.assert_array_equal(again.maps, first.maps)


def test_images_and_masks_that_cannot_be_used(commands: Path, lot: Path, tmp_path: Path) -> None:
    masks, empty, text = tmp_path / "masks", tmp_path / "empty", tmp_path / "text.png"
    write_lot(masks, 1)
    empty.mkdir()
    text.write_text("no image")
    out = ["-b", str(BUNDLE), "-o", str(tmp_path / "out")]
    for given, code, said in (
        ("1,2,3", 2, "expected x,y,w,h in pixels"),
        (str(tmp_path / "gone"), 2, "does not exist"),
        ("0,0,41,4", 6, "ends at 41, 4 and the image 0.png has 40 x 40 pixels"),
        (str(masks), 6, "has no mask for 1.png, 2.png, 3.png and 10 more"),
        (str(empty), 2, "has no image in it: expected a folder of masks"),
        (str(text), 2, "text.png' cannot be read"),
    ):
        run = edge(commands, "infer", str(lot), *out, "--roi", given)
        assert run.returncode == code
        assert said in run.stderr


# ---- references ------------------------------------------------------------------------------


def reference(lot: Path, out: Path, settings: ScoreSettings, **options: Any) -> ReferenceFolder:
    return make_reference(lot, BUNDLE, out, settings, options=ALL, reading=ReadOptions(**options))


@pytest.mark.parametrize(
    ("settings", "reading"),
    [
        (ScoreSettings(), {"roi": ROI}),
        (ScoreSettings((1, 3), window=1), {}),
        (ScoreSettings(window=1), {"roi": ROI}),
    ],
)
def test_an_image_scores_as_in_one_lot_with_the_reference(
    lot: Path, tmp_path: Path, settings: ScoreSettings, reading: dict[str, Any]
) -> None:
    kept = reference(lot, tmp_path / "ref", settings, **reading)
    together = tmp_path / "lot"
    together.mkdir()
    for path in lot.iterdir():
        (together / path.name).write_bytes(path.read_bytes())
    part(99, spot=60).save(together / "new.png")
    result = score_lot(together, BUNDLE, settings, reading=ReadOptions(**reading))
    position = [image.name for image in result.images].index("new.png")
    with Checker(kept, BUNDLE) as checker:
        check = checker.check(together / "new.png")
        turned = checker.check(part(98).resize((40, 50)), "other.png")
    assert check.map is not None
    np.testing.assert_allclose(check.map, result.maps[position], rtol=0, atol=1e-5)
    assert check.raw_score == pytest.approx(result.raw_scores[position], abs=1e-5)
    if reading:
        assert (turned.status, "is for images of 40 x 40" in turned.error) == ("unsupported", True)


def test_a_reference_keeps_its_region_and_hands_it_on(lot: Path, tmp_path: Path) -> None:
    kept = reference(lot, tmp_path / "ref", ScoreSettings(window=2), roi=ROI)
    assert kept.manifest.schema_version == 2
    more = tmp_path / "more"
    write_lot(more, 6, first=50)
    larger = make_reference(more, BUNDLE, tmp_path / "larger", options=ALL, base=kept)
    assert (larger.manifest.window, larger.manifest.roi) == (2, kept.manifest.roi)
    assert len(larger.manifest.images) == 20
    region = open_reference(tmp_path / "larger").manifest.region
    assert region
    np.testing.assert_array_equal(region.patches, inside())


def test_a_reference_of_some_patches_takes_those_inside(lot: Path, tmp_path: Path) -> None:
    """With as many as there are inside, an image scores as against all of them."""
    share = float(inside().mean())
    whole = reference(lot, tmp_path / "whole", ScoreSettings((1,)), roi=ROI)
    options = ReferenceOptions(hold_out=0, patches=share)
    some = make_reference(
        lot, BUNDLE, tmp_path / "some", ScoreSettings((1,)), options=options, reading=ReadOptions(roi=ROI)
    )
    maps = []
    for kept in (whole, some):
        with Checker(kept, BUNDLE) as checker:
            maps.append(np.asarray(checker.check(part(77, spot=60)).map))
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)


def write_masks(folder: Path, images: list[str]) -> Path:
    """A mask for each image: a band that lies a little lower from one to the next."""
    folder.mkdir()
    for k, name in enumerate(images):
        mask = np.zeros((40, 40), np.uint8)
        mask[5 * (k % 3) : 5 * (k % 3) + 25] = 255
        Image.fromarray(mask).save(folder / name)
    return folder


def test_a_reference_of_images_with_a_mask_each(lot: Path, tmp_path: Path) -> None:
    together = tmp_path / "lot"
    write_lot(together, 14)
    masks = write_masks(tmp_path / "masks", [f"{k}.png" for k in range(14)] + ["new.png"])
    kept = reference(together, tmp_path / "ref", ScoreSettings(), roi=masks)
    part(99, spot=60).save(together / "new.png")
    result = score_lot(together, BUNDLE, ScoreSettings(), reading=ReadOptions(roi=masks))
    position = [image.name for image in result.images].index("new.png")
    assert (kept.manifest.schema_version, kept.manifest.roi, kept.manifest.masks) == (3, None, True)
    with Checker(kept, BUNDLE) as checker:
        check = checker.check(together / "new.png", mask=masks / "new.png")
        without = checker.check(together / "new.png")
        wrong = checker.check(together / "new.png", mask=np.ones((40, 39), bool))
        broken = checker.check(together / "new.png", mask=tmp_path / "gone.png")
    np.testing.assert_allclose(np.asarray(check.map), result.maps[position], rtol=0, atol=1e-5)
    assert not any("mask" in text for text in check.warnings)
    assert "no mask was given: the reference's usual region was taken" in without.warnings[0]
    assert "its mask has 39 x 40 pixels and the image 40 x 40" in wrong.error
    assert (broken.status, "gone.png cannot be read" in broken.error) == ("unsupported", True)
    more = tmp_path / "more"
    write_lot(more, 6)
    with pytest.raises(LotError, match="those that are added need theirs: give their folder by --roi"):
        make_reference(more, BUNDLE, tmp_path / "larger", base=kept)
    add = [
        "musc-edge",
        "reference",
        str(kept.root),
        "--add",
        str(more),
        "-b",
        str(BUNDLE),
        "--roi",
        str(masks),
    ]
    added = run_here([*add, "-o", str(tmp_path / "larger")])
    assert added.returncode == 0, added.stderr
    assert "by a mask for each image" in added.stdout


def test_masks_of_checked_images(lot: Path, tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", [path.name for path in lot.iterdir()])
    kept = reference(lot, tmp_path / "ref", ScoreSettings(), roi=masks)
    check = ["musc-edge", "check", str(lot / "inside.png"), "-b", str(BUNDLE), "--json", "--reference"]
    done = run_here([*check, str(kept.root), "--roi", str(masks)])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["warnings"] == []
    (masks / "inside.png").unlink()
    lacking = run_here([*check, str(kept.root), "--roi", str(masks)])
    assert (lacking.returncode, "has no mask for inside.png" in lacking.stderr) == (6, True)
    assert run_here([*check, str(kept.root), "--roi", "0,0,5,5"]).returncode == 2
    plain = reference(lot, tmp_path / "plain", ScoreSettings())
    useless = run_here([*check, str(plain.root), "--roi", str(masks / "0.png")])
    assert (useless.returncode, "made without a mask for each image" in useless.stderr) == (6, True)


def test_a_reference_without_a_region_is_of_schema_1(lot: Path, tmp_path: Path) -> None:
    kept = reference(lot, tmp_path / "ref", ScoreSettings())
    text = json.loads((tmp_path / "ref/manifest.json").read_text(encoding="ascii"))
    assert kept.manifest.schema_version == 1
    assert not {"window", "roi", "mask_background"} & text.keys()


def test_what_a_reference_cannot_have(lot: Path, tmp_path: Path) -> None:
    with pytest.raises(LotError, match=r"a window of 2 patches with a share of 0\.5"):
        make_reference(
            lot, BUNDLE, tmp_path / "ref", ScoreSettings(window=2), options=ReferenceOptions(patches=0.5)
        )
    mixed = tmp_path / "mixed"
    write_lot(mixed, 5)
    part(9).resize((40, 44)).save(mixed / "tall.png")
    with pytest.raises(LotError, match="takes images of one size, and these have 2"):
        reference(mixed, tmp_path / "ref", ScoreSettings(), roi=ROI)
