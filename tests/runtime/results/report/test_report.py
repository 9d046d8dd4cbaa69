"""What is written of the report: pictures, addresses, maps, and what happens where something is missing."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.errors import LotError, OutputError
from musc_edge.runtime.images.image_bytes import ImageError
from musc_edge.runtime.results.read_results import read_results
from musc_edge.runtime.results.rejudge import Request, rejudge
from musc_edge.runtime.results.report import write as report_module
from musc_edge.runtime.results.report.content import encoded, grid_of
from musc_edge.runtime.results.report.html import block
from musc_edge.runtime.results.report.originals import find_root, inside, link
from musc_edge.runtime.results.report.thumbnails import Reading, make_thumbnail, side
from musc_edge.runtime.results.report.write import write_report
from musc_edge.runtime.scoring.anomaly_map import to_grid, upsample
from musc_edge.runtime.verdict.rules import RejectCount
from support.lots import Array, lot_result, tree, write_png

NAMES = tuple(f"{i}.png" for i in range(6))


def content(page: Path) -> dict[str, Any]:
    """The data of a report."""
    found = re.search(rb'<script type="application/json" id="data">(.*?)</script>', page.read_bytes())
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


def saved(folder: Path, **options: Any) -> Path:
    """Results of a small lot in ``folder``/out."""
    lot_result(folder / "lot", NAMES).save(folder / "out", **options)
    return folder / "out"


def decoded(image: dict[str, Any]) -> Array:
    codes = np.frombuffer(base64.b64decode(image["map"]), "<u2")
    return codes.reshape(image["grid"]).astype(np.float64) * 2 / 65535


# ---- content ---------------------------------------------------------------------------------


def test_repeated_patches_are_in_lot_json_and_on_the_page(tmp_path: Path) -> None:
    result = lot_result(tmp_path / "lot", NAMES)
    later = np.zeros_like(result.maps)
    later[2, 0, 1], later[2, 1, 2], later[4, 1, 0], later[5, 0, 0] = 1, 0.5, 0.75, 0.49
    replace(result, later=later).save(tmp_path / "out", report=True)
    about = json.loads((tmp_path / "out" / "lot.json").read_bytes())
    patches = {"2.png": [1, 5], "4.png": [3]}
    assert about["repeated"] == {"share": round(3 / 36, 6), "grid": [2, 3], "patches": patches}
    (lot,) = content(tmp_path / "out" / "report.html")["lots"]
    found = {image["name"]: image["repeated"] for image in lot["images"] if "repeated" in image}
    assert found == {"2.png": {"grid": [2, 3], "at": [1, 5]}, "4.png": {"grid": [2, 3], "at": [3]}}


def test_without_burn_out_nothing_is_said_of_repeated_patches(tmp_path: Path) -> None:
    out = saved(tmp_path, report=True)
    assert json.loads((out / "lot.json").read_bytes())["repeated"] is None
    assert not any("repeated" in image for image in content(out / "report.html")["lots"][0]["images"])


def test_the_page_has_every_row_its_map_and_its_picture(tmp_path: Path) -> None:
    (lot,) = content(saved(tmp_path, report=True) / "report.html")["lots"]
    result = lot_result(tmp_path / "again", NAMES)
    assert [image["name"] for image in lot["images"]] == list(NAMES)
    for image, score, grid in zip(lot["images"], result.scores, result.maps, strict=True):
        assert image["score"] == pytest.approx(score, abs=1e-6)
        np.testing.assert_allclose(decoded(image), grid, atol=4e-5)
        assert image["picture"].startswith("data:image/webp;base64,UklGR")
        assert image["file"] == f"../lot/{image['name']}"
        assert image["size"] == [9, 6]


@pytest.mark.parametrize("maps", ["grid", "pixel", "original", "none"])
def test_maps_of_every_kind_are_brought_back_to_the_grid(tmp_path: Path, maps: str) -> None:
    out = saved(tmp_path, maps=maps)
    write_report(out)
    expected = lot_result(tmp_path / "again", NAMES).maps
    for image, grid in zip(content(out / "report.html")["lots"][0]["images"], expected, strict=True):
        if maps == "none":
            assert "map" not in image
        else:
            np.testing.assert_allclose(decoded(image), grid, atol=1e-4)


def test_maps_that_were_not_written_are_in_the_report_all_the_same(tmp_path: Path) -> None:
    (lot,) = content(saved(tmp_path, maps="none", report=True) / "report.html")["lots"]
    assert all("map" in image for image in lot["images"])


def test_the_grid_is_the_inverse_of_upsampling() -> None:
    grid = np.random.default_rng(0).uniform(0, 1, (5, 7)).astype(np.float32)
    pixels = upsample(grid[None], (101, 67))[0]
    np.testing.assert_allclose(to_grid(pixels, (5, 7)), grid, atol=1e-6)


def test_codes_of_a_map_never_fall_below_a_limit() -> None:
    values = np.array([[0.0, 0.586037, 2.0]], np.float32)
    codes = np.frombuffer(base64.b64decode(encoded(values)), "<u2").astype(np.float64) * 2 / 65535
    assert (codes >= values[0] - 1e-6).all()
    assert (codes <= values[0] + 4e-5).all()


def test_a_damaged_map_is_said(tmp_path: Path) -> None:
    out = saved(tmp_path)
    (out / "maps" / "1.npy").write_bytes(b"nothing")
    (lot,) = read_results(out)
    with pytest.raises(LotError, match="cannot be read"):
        grid_of(lot, "1.png", "maps/1.npy", None)
    write_report(out)
    images = content(out / "report.html")["lots"][0]["images"]
    assert "1.npy cannot be read" in images[1]["error"]
    assert [("map" in image) for image in images] == [True, False, True, True, True, True]


def test_data_ends_no_script() -> None:
    assert "<" not in block({"name": "</script><!--\udce9"})


# ---- pictures --------------------------------------------------------------------------------


def test_images_that_are_gone_or_lead_elsewhere_have_a_reason(tmp_path: Path) -> None:
    out = saved(tmp_path)
    (tmp_path / "lot" / "2.png").unlink()
    (tmp_path / "lot" / "3.png").write_bytes(b"no image")
    table = out / "scores.csv"
    table.write_text(table.read_text().replace("\n4.png", "\n../out/contact_sheet.png"))
    write_report(out)
    images = content(out / "report.html")["lots"][0]["images"]
    reasons = [image.get("no_picture") for image in images]
    assert reasons[:2] == [None, None]
    assert reasons[2] == "No such file or directory"
    assert reasons[3]
    assert reasons[4] == "its name leaves the lot's folder"
    assert ["file" in image for image in images] == [True, True, False, True, False, True]


def test_an_image_that_needs_more_memory_has_no_picture(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", (300, 400))
    with pytest.raises(ImageError, match=r"decoding it needs 2 MB, and 1000 .*bytes|1 kB"):
        make_thumbnail(path, Reading(8, 10**6), 100, room=1000)
    made = make_thumbnail(path, Reading(8, 10**6), 100, room=10**8)
    with Image.open(io.BytesIO(made.content)) as picture:
        assert picture.size == (100, 75)


def test_larger_lots_have_smaller_pictures() -> None:
    assert [side(count) for count in (1, 120, 121, 600, 601, 10**6)] == [640, 640, 400, 400, 320, 320]


def test_the_lot_is_found_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "a/lots/one/x.png")
    out = tmp_path / "a/results/one"
    out.mkdir(parents=True)
    assert find_root("lots/one", out, ["x.png"]) == tmp_path / "a/lots/one"
    assert find_root("lots/one", out, ["y.png"]) is None
    assert find_root(str(tmp_path / "a/lots/one"), out, ["../y.png", "x.png"]) == tmp_path / "a/lots/one"
    monkeypatch.chdir(tmp_path / "a")
    assert find_root("lots/one", Path("results/one"), ["x.png"]) == Path("lots/one")


def test_addresses_are_relative_and_quoted() -> None:
    assert link(Path("/a/lot/é #?%.png"), Path("/a/out")) == "../lot/%C3%A9%20%23%3F%25.png"
    assert link(Path("/a/lot/\udce9.png"), Path("/a")) == "lot/%E9.png"


@pytest.mark.parametrize("name", ["", "../x", "a/../../x", "/x", "a\0b"])
def test_names_that_leave_the_lot(name: str) -> None:
    assert not inside(name)


# ---- files -----------------------------------------------------------------------------------


def test_a_report_elsewhere_leaves_the_results_alone(tmp_path: Path) -> None:
    out = saved(tmp_path)
    before = tree(out)
    assert write_report(out, tmp_path / "page.html") == [tmp_path / "page.html"]
    assert tree(out) == before


def test_a_link_in_its_place_is_replaced_not_followed(tmp_path: Path) -> None:
    out = saved(tmp_path)
    (tmp_path / "precious").write_text("kept")
    (out / "report.html").symlink_to(tmp_path / "precious")
    write_report(out)
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (out / "report.html").is_symlink()


def test_a_foreign_folder_with_the_name_of_the_pictures_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "INLINE", 0)
    out = saved(tmp_path)
    (tmp_path / "x-files").mkdir()
    (tmp_path / "x-files" / "precious").write_text("kept")
    with pytest.raises(OutputError, match="files that are not ours"):
        write_report(out, tmp_path / "x.html")
    assert [path.name for path in (tmp_path / "x-files").iterdir()] == ["precious"]
    assert not (tmp_path / "x.html").exists()


def test_results_with_a_report_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "INLINE", 0)
    out = saved(tmp_path, report=True)
    assert (out / "report-files" / "report.txt").is_file()
    saved(tmp_path, overwrite=True)
    assert not (out / "report.html").exists()


def test_results_that_are_judged_anew_get_a_new_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "INLINE", 0)
    out = saved(tmp_path, report=True)
    monkeypatch.undo()
    rejudge(out, Request(RejectCount(2)))
    (lot,) = content(out / "report.html")["lots"]
    assert [image["verdict"] for image in lot["images"]].count("reject") == 2
    assert lot["images"][0]["file"] == "../lot/0.png"
    assert not (out / "report-files").exists()


def test_a_report_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise ValueError("of all things")

    monkeypatch.setattr(report_module, "page", fail)
    out = saved(tmp_path, report=True)
    assert "no report: of all things" in json.loads((out / "lot.json").read_bytes())["warnings"]
    assert not (out / "report.html").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report_module, "write_pieces", full)
    with pytest.raises(OutputError, match="No space left"):
        saved(tmp_path, report=True)
    assert not (tmp_path / "out").exists()


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(LotError, match="holds no results"):
        write_report(tmp_path)
