"""The files of results: scores.csv and lot.json as others read them, and the maps."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from musc_edge import upsample
from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.images.listing import natural_key
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.results import image_files
from musc_edge.runtime.results import write as results
from musc_edge.runtime.results.groups import results_folder
from musc_edge.runtime.results.heatmap import Scale
from musc_edge.runtime.results.image_files import (
    MAP_FORMATS,
    OutputOptions,
    file_names,
    save_map,
    write_image_files,
)
from musc_edge.runtime.results.lot_result import LotResult
from musc_edge.runtime.results.write import COLUMNS, combine, write_results
from musc_edge.runtime.types import LotImage, SkippedImage
from support.lots import MANIFEST, Array, lot_result, write_png
from support.tiny_fonts import only_fonts_of

NAMES = ["10.png", "2.png", "late shift/3.png"]
SKIPPED = [
    SkippedImage("9.png", "unreadable", "the file is empty"),
    SkippedImage("big.tif", "too_large", "60000 x 60000 pixels; the limit is 178956970"),
    SkippedImage("1.tif", "unsupported", "floating-point pixels have no known white"),
]


@pytest.fixture
def result(tmp_path: Path) -> LotResult:
    return lot_result(tmp_path / "lot", NAMES, SKIPPED)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def write(result: LotResult, out: Path, **options: Any) -> dict[str, Any]:
    """Write results and return the content of lot.json, read with a strict parser."""
    write_results(result, out, out.parent / "lot", OutputOptions(**options))
    return read_json(out / "lot.json")


def read_json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content: dict[str, Any] = json.loads(path.read_text(encoding="ascii"), parse_constant=refuse)
    return content


def read_rows(out: Path) -> list[dict[str, str]]:
    """scores.csv as Python's documentation says to read such files."""
    with (out / "scores.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


# ---- scores.csv ------------------------------------------------------------------------------


def test_columns_and_rows_in_natural_order_with_the_skipped_ones(result: LotResult, out: Path) -> None:
    write(result, out)
    rows = read_rows(out)
    assert (out / "scores.csv").read_bytes().split(b"\n")[0] == ",".join(COLUMNS).encode()
    assert list(rows[0])[:7] == ["image", "status", "raw_score", "score", "lot_score", "map", "error"]
    assert list(rows[0])[7:] == ["verdict", "p"]
    assert [(row["image"], row["status"]) for row in rows] == [
        ("1.tif", "unsupported"),
        ("2.png", "ok"),
        ("9.png", "unreadable"),
        ("10.png", "ok"),
        ("big.tif", "too_large"),
        ("late shift/3.png", "ok"),
    ]


def test_numbers_round_trip_and_belong_to_their_images(result: LotResult, out: Path) -> None:
    write(result, out)
    rows = {row["image"]: row for row in read_rows(out)}
    for i, image in enumerate(result.images):
        row = rows[image.name]
        assert float(row["raw_score"]) == pytest.approx(result.raw_scores[i], abs=5.1e-7)
        assert float(row["score"]) == pytest.approx(result.scores[i], abs=5.1e-7)
        assert float(row["lot_score"]) == pytest.approx(result.lot_scores[i], abs=5.1e-7)
        assert row["error"] == ""


def test_skipped_images_have_a_reason_and_no_numbers(result: LotResult, out: Path) -> None:
    write(result, out)
    rows = {row["image"]: row for row in read_rows(out)}
    for skip in SKIPPED:
        row = rows[skip.name]
        assert row["error"] == skip.reason
        assert {row[column] for column in ("raw_score", "score", "lot_score", "map")} == {""}


@pytest.mark.parametrize("maps", ["grid", "none"])
def test_map_column_leads_to_the_map(result: LotResult, out: Path, maps: str) -> None:
    write(result, out, maps=maps)
    for row in read_rows(out):
        if maps == "grid" and row["status"] == "ok":
            assert (out / row["map"]).is_file()
        else:
            assert row["map"] == ""


ODD = [
    pytest.param(b"line\nbreak.png", id="newline"),
    pytest.param(b"carriage\rreturn.png", id="carriage return"),
    pytest.param(b"both\r\nends.png", id="both"),
    pytest.param(b'"a", b.png', id="quotes and comma"),
    pytest.param(b'"', id="a quote"),
    pytest.param(b"caf\xe9.png", id="not UTF-8"),
    pytest.param("größe 部品 \u2028🔥.png".encode(), id="unicode"),
    pytest.param(b" spaces .png", id="spaces"),
    pytest.param(b"-o.png", id="leading dash"),
    pytest.param(b"tab\t;\\.png", id="tab"),
]


@pytest.mark.parametrize("raw", ODD)
def test_odd_names_survive(tmp_path: Path, out: Path, raw: bytes) -> None:
    name = os.fsdecode(raw)
    skipped = SkippedImage(f"skipped {name}", "unreadable", f"no {name}")
    result = lot_result(tmp_path / "lot", ["1.png", name, "3.png"], [skipped])
    about = write(result, out, overlays=True)
    rows = {os.fsencode(row["image"]): row for row in read_rows(out)}
    assert set(rows) == {b"1.png", raw, b"3.png", b"skipped " + raw}
    assert rows[raw]["status"] == "ok"
    assert np.array_equal(np.load(out / rows[raw]["map"]), result.maps[1])
    assert rows[b"skipped " + raw]["error"] == f"no {name}"
    assert about["skipped"] == [dataclasses.asdict(skipped)]


@pytest.mark.parametrize("map_format", MAP_FORMATS)
def test_names_as_long_as_can_be(tmp_path: Path, out: Path, map_format: str) -> None:
    """Every name that a file can have must not cost the whole lot its results."""
    names = ["a" * 251 + ".png", "a" * 251 + ".bmp", "b" * 251 + ".png"]
    result = lot_result(tmp_path / "lot", names)
    write(result, out, map_format=map_format, overlays=True)
    rows = {row["image"]: row for row in read_rows(out)}
    assert set(rows) == set(names)
    assert len({row["map"] for row in rows.values()}) == 3
    assert all((out / row["map"]).is_file() for row in rows.values())


# ---- lot.json --------------------------------------------------------------------------------


def test_lot_json_says_how_the_scores_came_about(result: LotResult, out: Path) -> None:
    about = write(result, out, maps="pixel", map_format="tiff")
    assert about["lot"] == str(out.parent / "lot")
    assert about["images"] == 3
    assert about["skipped"] == [dataclasses.asdict(skip) for skip in SKIPPED]
    assert about["warnings"] == list(result.warnings)
    settings = about["settings"]
    assert (settings["degrees"], settings["interval"], settings["neighbors"]) == ([1, 3], [0.0, 0.5], [1, 2])
    assert (settings["maps"], settings["map_format"], settings["bit_depth"]) == ("pixel", "tiff", 8)
    assert about["backend"] == "cpu"
    assert about["bundle"]["sha256"] == "ab" * 32
    assert about["bundle"]["backbone"] == MANIFEST.backbone
    assert about["bundle"]["image_size"] == [8, 12]
    assert about["bundle"]["layers"] == [0, 2]
    assert about["plan"]["memory_bytes"] == result.run.plan.memory_bytes
    assert about["timings_s"].keys() == {"extract", "score", "write"}
    assert about["timings_s"]["score"] == 0.1235
    assert set(about["versions"]) >= {"musc-edge", "python", "numpy"}
    scale = about["heatmap_scale"]
    assert scale == pytest.approx({"low": np.median(result.maps), "high": result.raw_scores.max()})
    assert about["png_map_scale"] == pytest.approx({"low": result.maps.min(), "high": result.maps.max()})


def test_folders_with_odd_names(tmp_path: Path, out: Path) -> None:
    root, bundle = (tmp_path / os.fsdecode(raw) for raw in (b"l\xf6t\n", b"b\xfcndle"))
    result = lot_result(root, NAMES, bundle=bundle)
    about, _ = write_results(result, out, root, OutputOptions())
    assert read_json(out / "lot.json") == json.loads(json.dumps(about))
    assert about["lot"] == str(root)
    assert about["bundle"]["path"] == str(bundle)


def test_what_is_returned_is_what_is_written(result: LotResult, out: Path) -> None:
    about, rows = write_results(result, out, out.parent / "lot", OutputOptions())
    assert json.loads(json.dumps(about)) == read_json(out / "lot.json")
    assert list(rows.values()) == [list(row.values()) for row in read_rows(out)]


def test_groups_are_combined(tmp_path: Path, out: Path) -> None:
    parts: dict[str, Any] = {}
    for group in ("a", "b"):
        place = out / "groups" / group
        place.mkdir(parents=True)
        result = lot_result(
            tmp_path / "lot", [f"{group}/{k}.png" for k in (10, 9)], SKIPPED[:1] if group == "a" else []
        )
        result = dataclasses.replace(result, warnings=(f"only of {group}",))
        about, rows = write_results(result, place, tmp_path / "lot", OutputOptions())
        parts[f"groups/{group}"] = (rows, about)
    combine(out, tmp_path / "lot", parts)
    rows_read = read_rows(out)
    assert [row["image"] for row in rows_read] == ["9.png", "a/9.png", "a/10.png", "b/9.png", "b/10.png"]
    assert [row["map"] for row in rows_read][1] == "groups/a/maps/a/9.npy"
    assert all((out / row["map"]).is_file() for row in rows_read if row["status"] == "ok")
    assert rows_read[0]["map"] == ""
    content = read_json(out / "lot.json")
    assert content["images"] == 4
    assert content["warnings"] == ["groups/a: only of a", "groups/b: only of b"]
    assert [skip["name"] for skip in content["skipped"]] == ["9.png"]


# ---- for spreadsheets ------------------------------------------------------------------------

FORMULAS = ["=1+1.png", "+49.png", "-1.png", "@SUM(A1).png", "\ttab.png", "\rreturn.png", "\uff1dwide.png"]


def test_a_table_for_spreadsheets_is_utf8_that_they_know_and_has_no_formulas(
    tmp_path: Path, out: Path
) -> None:
    names = [*FORMULAS, "größe.png", "plain=1.png"]
    result = lot_result(tmp_path / "lot", names, [SkippedImage("9.png", "unreadable", "=cmd|' /C calc'!A0")])
    write(result, out, csv="excel")
    content = (out / "scores.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfimage,")
    assert content.count(b"\xef\xbb\xbf") == 1
    with (out / "scores.csv").open(encoding="utf-8-sig", newline="") as file:
        table = {row["image"]: row for row in csv.DictReader(file)}
    assert set(table) == {*(f"'{name}" for name in FORMULAS), "größe.png", "plain=1.png", "9.png"}
    assert table["9.png"]["error"] == "'=cmd|' /C calc'!A0"
    starts = {cell[:1] for row in table.values() for cell in row.values()}
    assert not starts & set("=+-@\t\r\n\uff1d")
    assert read_json(out / "lot.json")["settings"]["csv"] == "excel"


def test_a_name_that_is_no_utf8_is_so_in_a_table_for_spreadsheets(tmp_path: Path, out: Path) -> None:
    result = lot_result(tmp_path / "lot", [*NAMES, os.fsdecode(b"caf\xe9.png")])
    write(result, out, csv="excel")
    assert "caf\\udce9.png" in (out / "scores.csv").read_text(encoding="utf-8-sig")


def test_the_usual_table_is_as_ever(result: LotResult, out: Path, tmp_path: Path) -> None:
    write(result, out)
    row = (out / "scores.csv").read_bytes().splitlines()[2]
    assert row == b"2.png,ok,%.6f,%.6f,0.500000,maps/2.npy,,," % (result.raw_scores[1], result.scores[1])
    names = lot_result(tmp_path / "other", FORMULAS)
    (tmp_path / "plain").mkdir()
    write(names, tmp_path / "plain")
    assert [row["image"] for row in read_rows(tmp_path / "plain")] == sorted(FORMULAS, key=natural_key)


def test_groups_have_one_form(tmp_path: Path, out: Path) -> None:
    result = lot_result(tmp_path / "lot", ["=a/1.png", "=a/2.png"])
    about, rows = write_results(result, out, tmp_path / "lot", OutputOptions(csv="excel"))
    combine(out, tmp_path / "lot", {"groups/01_=a": (rows, about)}, form="excel")
    with (out / "scores.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["'=a/1.png", "'=a/2.png"]


@pytest.mark.parametrize("options", [{"csv": "xlsx"}, {"top": 0}, {"top": 401}])
def test_options_that_there_are_not(options: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match="expected"):
        OutputOptions(**options)


# ---- notes on what the pictures are ----------------------------------------------------------


def test_images_that_are_shrunk_much_are_said(tmp_path: Path, out: Path) -> None:
    """The model's input has 12 x 8 pixels and patches of 4."""
    about = write(lot_result(tmp_path / "lot", NAMES, size=(60, 70)), out)
    (note,) = about["notes"]
    assert note.startswith("images of 70 x 60 pixels are reduced to 12 x 8: a patch covers 23 x 30 pixels")
    assert about["resolution"]["text"] == (
        "70 x 60 reduced 5.8 x 7.5; one patch is 23 x 30 pixels of your image"
    )
    assert "--image-size" in note
    assert write(lot_result(tmp_path / "less", NAMES, size=(30, 40)), out)["notes"] == []


def test_letters_that_no_font_has_are_noted_once(tmp_path: Path, out: Path) -> None:
    """Of the images that are drawn: those on the contact sheet, and all with overlays."""
    names = ["ж.png", "э.png", *(f"{k}.png" for k in range(20))]
    scores = [0.5, 0.9] + [0.8 - k / 100 for k in range(9)] + [0.4 - k / 100 for k in range(11)]
    result = lot_result(tmp_path / "lot", names, scores=scores)
    with only_fonts_of(tmp_path):
        (sheet,) = write(result, out)["notes"]
        (both,) = write(result, out, overlays=True)["notes"]
    assert "has 1 letter of the images' names (э <U+044D>)" in sheet
    assert "has 2 letters" in both


# ---- maps ------------------------------------------------------------------------------------


def load(path: Path) -> Array:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize(("kind", "size"), [("grid", (2, 3)), ("pixel", (8, 12)), ("original", (6, 9))])
@pytest.mark.parametrize("map_format", MAP_FORMATS)
def test_maps(result: LotResult, out: Path, kind: str, size: tuple[int, int], map_format: str) -> None:
    about = write(result, out, maps=kind, map_format=map_format)
    low, high = about["png_map_scale"]["low"], about["png_map_scale"]["high"]
    rows = {row["image"]: row for row in read_rows(out)}
    files = {str(path.relative_to(out)) for path in (out / "maps").rglob("*") if path.is_file()}
    assert files == {row["map"] for row in rows.values()} - {""}
    for i, image in enumerate(result.images):
        expected = result.maps[i] if kind == "grid" else upsample(result.maps[i : i + 1], size)[0]
        assert expected.shape == size
        values = load(out / rows[image.name]["map"])
        tolerance = 0.0
        if map_format.startswith("png"):
            top = {"png8": 255, "png16": 65535}[map_format]
            assert values.dtype == (np.uint8 if top == 255 else np.uint16)
            values, tolerance = (
                low + values.astype(np.float64) * (high - low) / top,
                0.51 * (high - low) / top,
            )
        else:
            assert values.dtype == np.float32
        assert values.shape == size
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance + 1e-7)


def test_no_maps(result: LotResult, out: Path) -> None:
    write(result, out, maps="none")
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "lot.json", "scores.csv"]


@pytest.mark.parametrize("threads", [1, 4])
def test_progress_grows_to_all_images(result: LotResult, out: Path, threads: int) -> None:
    seen: list[tuple[str, float, float, str]] = []
    options = OutputOptions(threads=threads, overlays=True)
    write_results(result, out, out.parent / "lot", options, lambda *args: seen.append(args))
    assert seen == [("write", done, 3, "images") for done in (1, 2, 3)]


def test_constant_maps_are_written_in_every_format(tmp_path: Path) -> None:
    flat = np.full((4, 5), 0.7, np.float32)
    for map_format, suffix in MAP_FORMATS.items():
        save_map(tmp_path / f"{map_format}{suffix}", flat, map_format, Scale(0.7, 0.700001))
        assert load(tmp_path / f"{map_format}{suffix}").shape == (4, 5)


def lot_of(*names: str) -> tuple[LotImage, ...]:
    return tuple(LotImage(name, Path(name)) for name in names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1.png", "2.png"], ["1", "2"]),
        (["a/1.png", "b/1.png"], ["a/1", "b/1"]),
        (["1.png", "1.bmp", "2.png"], ["1.png", "1.bmp", "2"]),
        (["1.png", "1.PNG"], ["1.png", "1.PNG"]),
        (["A.png", "a.jpg"], ["A.png", "a.jpg"]),
        (["v1.2.png", "v1.3.png"], ["v1.2", "v1.3"]),
    ],
)
def test_file_names_are_short_where_they_can_be(names: list[str], expected: list[str]) -> None:
    assert list(file_names(lot_of(*names)).values()) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "a.png.bmp", "a.bmp"],
        ["a.png", "a.jpg", "a.png.png", "a.jpg.jpg", "a.png.jpg"],
        ["a.b.png", "a.b", "a.png"],
        ["cell.png", "cell.jpg", "cell.png.npy/1.png", "cell.jpg.JPG/1.png"],
        ["cell.png", "Cell.npy/1.png", "cell.jpg/2.png", "cell.tiff/x/3.png"],
        ["a/cell.png", "a/cell.png/cell.npy/1.png", "a/cell.npy/2.png"],
    ],
)
def test_file_names_never_collide(names: list[str]) -> None:
    stems = [stem.casefold() for stem in file_names(lot_of(*names)).values()]
    assert len(set(stems)) == len(names)
    folders = {str(parent).casefold() for stem in stems for parent in PurePosixPath(stem).parents}
    assert not {f"{stem}{suffix}" for stem in stems for suffix in (".npy", ".tiff", ".png", ".jpg")} & folders


@pytest.mark.parametrize("map_format", MAP_FORMATS)
def test_an_image_beside_a_folder_of_its_maps_name(tmp_path: Path, out: Path, map_format: str) -> None:
    suffix = MAP_FORMATS[map_format]
    names = [
        "cell.png",
        "cell.jpg",
        f"cell.png{suffix}/1.png",
        "cell.png.jpg/2.png",
        "part.bmp",
        f"part{suffix}/3.png",
    ]
    result = lot_result(tmp_path / "lot", names)
    write(result, out, map_format=map_format, overlays=True)
    rows = read_rows(out)
    assert all((out / row["map"]).is_file() and not row["error"] for row in rows)
    overlays = [path for path in (out / "overlays").rglob("*.jpg") if path.is_file()]
    assert len(overlays) == len(names)


# ---- what cannot be written ------------------------------------------------------------------


def test_image_that_is_too_long_for_its_overlay_costs_nothing_but_that(tmp_path: Path, out: Path) -> None:
    result = lot_result(tmp_path / "lot", ["1.png", "2.png", "3.png"])
    write_png(tmp_path / "lot" / "2.png", (3, 65_600))
    result = dataclasses.replace(result, survey=survey_lot(result.images, ReadOptions(), threads=1))
    about = write(result, out, overlays=True)
    reason = "65600 x 3 pixels; a JPEG has at most 65500 a side"
    assert f"no overlay of 2.png: {reason}" in about["warnings"]
    rows = {row["image"]: row for row in read_rows(out)}
    assert [rows[name]["error"] for name in ("1.png", "2.png", "3.png")] == ["", f"no overlay: {reason}", ""]
    assert rows["2.png"]["status"] == "ok"
    assert (out / rows["2.png"]["map"]).is_file()
    assert sorted(p.name for p in (out / "overlays").iterdir()) == ["1.jpg", "3.jpg"]
    assert (out / "contact_sheet.png").is_file()


@pytest.mark.parametrize(
    "error", [ValueError("odd"), MemoryError(), OSError("encoder error"), struct.error("4G")]
)
def test_a_map_or_a_sheet_that_cannot_be_made_is_said(
    result: LotResult, out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(image_files.Drawing, "_map", fail)
    monkeypatch.setattr(results, "draw_contact_sheet", fail)
    about = write(result, out)
    said = str(error) or type(error).__name__
    assert about["warnings"][len(result.warnings) :] == [
        f"no contact sheet: {said}",
        *(f"no map of {image.name}: {said}" for image in result.images),
    ]
    assert [row["map"] for row in read_rows(out) if row["status"] == "ok"] == ["", "", ""]
    assert not list((out / "maps").rglob("*.npy"))


def test_a_disk_that_is_full_is_no_small_matter(
    result: LotResult, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image_files.Drawing, "_map", fail)
    with pytest.raises(OSError, match="No space left"):
        write(result, out)


@pytest.mark.parametrize(
    "name", ["部" * 60, "x" * 255, "é" * 127, "a/" * 100 + "b", os.fsdecode(b"\xff" * 200)]
)
def test_groups_are_named_within_what_a_file_system_allows(tmp_path: Path, name: str) -> None:
    place = results_folder(7, name)
    (tmp_path / place).mkdir(parents=True)
    assert place.startswith("groups/07_")
    assert place != results_folder(7, name + "x")


# ---- order and overlays ----------------------------------------------------------------------


def test_order_is_from_the_worst_with_ties_in_the_lots_order(tmp_path: Path) -> None:
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(5)], scores=[0.2, 0.9, 0.2, 0.9, 0.5])
    assert result.order() == [1, 3, 4, 0, 2]


def test_overlay_that_cannot_be_drawn_is_a_warning_and_the_rest_is_there(
    result: LotResult, out: Path
) -> None:
    result.images[1].local.unlink()
    about = write(result, out, overlays=True)
    (warning,) = about["warnings"][len(result.warnings) :]
    assert "no overlay of 2.png" in warning
    overlays = sorted(str(path.relative_to(out)) for path in (out / "overlays").rglob("*.jpg"))
    assert overlays == ["overlays/10.jpg", "overlays/late shift/3.jpg"]
    with Image.open(out / overlays[0]) as picture:
        assert picture.width == 9
        assert picture.height > 6


@pytest.mark.parametrize(("budget", "room"), [(1, False), (10**12, True), (None, True)])
def test_writing_says_if_it_takes_more_than_the_budget(
    tmp_path: Path, budget: int | None, room: bool
) -> None:
    result = lot_result(tmp_path / "lot", ["a.png", "b.png", "c.png", "d.png", "e.png"])
    plan = dataclasses.replace(result.run.plan, budget=budget)
    result = dataclasses.replace(result, run=dataclasses.replace(result.run, plan=plan))
    (tmp_path / "out").mkdir()
    written = write_image_files(result, tmp_path / "out", OutputOptions(overlays=True, threads=3))
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 5
    assert (written.problems == ()) == room
    assert room or "more than the memory budget of 1 byte had left" in written.problems[0]
