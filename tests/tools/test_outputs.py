"""Maps in every size and format, overlays and groups, as ``musc-edge infer`` writes them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from musc_edge import upsample
from musc_edge.runtime.results.heatmap import legend_height
from support.bad_input import Place
from support.command_line import run_here


def infer(commands: Path, place: Place, out: str, *options: str) -> dict[str, Any]:
    """Run ``musc-edge infer`` and return lot.json with the rows of scores.csv."""
    command = [
        str(commands / "musc-edge"),
        "infer",
        str(place.lot),
        "-b",
        str(place.bundle),
        "--scorer",
        "numpy",
        "-o",
        out,
        *options,
    ]
    run = run_here(command, cwd=place.root)
    assert run.returncode == 0, run.stderr
    about: dict[str, Any] = json.loads((place.root / out / "lot.json").read_text(encoding="ascii"))
    with (place.root / out / "scores.csv").open(encoding="utf-8", newline="") as file:
        about["rows"] = {row["image"]: row for row in csv.DictReader(file)}
    return about


def load(path: Path) -> Any:
    return np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    "kind", ["original", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("grid", "pixel"))]
)
def test_maps_of_every_kind_and_format_hold_the_same_values(place: Place, commands: Path, kind: str) -> None:
    wide = Image.open(place.an_image()).resize((64, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned: 40 wide, 64 high
    wide.convert("RGB").save(place.lot / "turned.jpg", exif=exif)
    size = {"grid": (8, 8), "pixel": (112, 112), "original": (64, 40)}[kind]
    reference = infer(commands, place, "reference", "--maps", "grid")
    grid = np.load(place.root / "reference" / reference["rows"]["turned.jpg"]["map"])
    expected = grid if kind == "grid" else upsample(grid[None], size)[0]
    scale = reference["png_map_scale"]
    span = scale["high"] - scale["low"]
    for map_format, suffix, tolerance in [
        ("npy", ".npy", 1e-6),
        ("tiff", ".tiff", 1e-6),
        ("png8", ".png", span / 255),
        ("png16", ".png", span / 65535),
    ]:
        about = infer(commands, place, map_format, "--maps", kind, "--map-format", map_format)
        assert about["rows"]["turned.jpg"]["map"] == f"maps/turned{suffix}"
        values = load(place.root / map_format / "maps" / f"turned{suffix}")
        assert values.shape == size
        if map_format.startswith("png"):
            top = np.iinfo(values.dtype).max
            assert top == (255 if map_format == "png8" else 65535)
            values = scale["low"] + values / top * span
        else:
            assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, atol=tolerance)


def test_no_maps(place: Place, commands: Path) -> None:
    about = infer(commands, place, "out", "--maps", "none")
    assert {row["map"] for row in about["rows"].values()} == {""}
    assert sorted(p.name for p in (place.root / "out").iterdir()) == [
        "contact_sheet.png",
        "lot.json",
        "scores.csv",
    ]


def test_overlays_show_every_image_at_its_own_size_with_the_scale_below(place: Place, commands: Path) -> None:
    Image.open(place.an_image()).resize((500, 200)).save(place.lot / "wide.png")
    about = infer(commands, place, "out", "--overlays")
    overlays = place.root / "out" / "overlays"
    assert len(list(overlays.iterdir())) == 9
    with Image.open(overlays / "wide.jpg") as picture:
        assert picture.width == 500
        assert picture.height == 200 + legend_height(500)
    worst = max(about["rows"].values(), key=lambda row: float(row["raw_score"]))["image"]
    best = min(about["rows"].values(), key=lambda row: float(row["raw_score"]))["image"]

    def colour(name: str) -> float:
        """How far the overlay's channels are apart: gray where nothing is unusual."""
        pixels = np.asarray(Image.open(overlays / f"{Path(name).stem}.jpg"), float)[:150]
        return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())

    assert colour(worst) > 2 * colour(best)


def test_names_that_would_collide_keep_their_suffix(place: Place, commands: Path) -> None:
    for name in ("part.bmp", "part.jpg", "part.jpg.png", "PART.png"):
        Image.open(place.an_image()).convert("RGB").save(place.lot / name)
    about = infer(commands, place, "out", "--overlays", "--map-format", "tiff")
    maps = [row["map"] for row in about["rows"].values()]
    assert len({name.casefold() for name in maps}) == 12
    assert all((place.root / "out" / name).is_file() for name in maps)
    assert len(list((place.root / "out" / "overlays").iterdir())) == 12
    assert about["rows"]["part.bmp"]["map"] == "maps/part.bmp.tiff"


def test_groups_are_lots_of_their_own(place: Place, commands: Path, solar_cells: Path) -> None:
    images = sorted((solar_cells / "elpv_dataset/data/images").iterdir())
    for k in (0, 1):
        (place.lot / f"type{k}").mkdir()
        for path in images[100 + k :: 250][:7]:
            shutil.copy(path, place.lot / f"type{k}")
    about = infer(commands, place, "out", "--group-by", "folder", "--maps", "grid")
    assert list(about["groups"]) == ["groups/01_lot", "groups/02_type0", "groups/03_type1"]
    assert about["images"] == 22
    assert len(about["rows"]) == 22
    for row in about["rows"].values():
        assert (place.root / "out" / row["map"]).is_file()
    alone = Place(place.root, place.lot / "type1", place.bundle)
    single = infer(commands, alone, "alone")
    for name, row in single["rows"].items():
        assert about["rows"][f"type1/{name}"]["score"] == row["score"]
    assert (place.root / "out/groups/02_type0/contact_sheet.png").is_file()


def test_deep_files_are_read_on_one_scale(place: Place, commands: Path) -> None:
    """A lot as 12-bit data in 16-bit files scores like the same lot in 8 bits."""
    eight = infer(commands, place, "eight")
    for path in place.lot.glob("*.png"):
        gray = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        cv2.imwrite(str(path), np.round(gray * (4095 / 255)).astype(np.uint16))
    top = place.an_image()
    values = load(top)
    values[0, 0] = 4095  # the lot's maximum decides the depth
    cv2.imwrite(str(top), values)
    deep = infer(commands, place, "deep")
    assert deep["settings"]["bit_depth"] == 12
    for name, row in eight["rows"].items():
        if name != top.name:
            assert float(deep["rows"][name]["raw_score"]) == pytest.approx(float(row["raw_score"]), abs=0.01)
    other = infer(commands, place, "other", "--bit-depth", "16")
    assert other["settings"]["bit_depth"] == 16
    assert other["rows"] != deep["rows"]


def test_groups_whose_names_would_collide(place: Place, commands: Path) -> None:
    paths = sorted(place.lot.glob("*.png"))
    for folder in ("a/b", "a_b", "scores.csv", "lot"):
        (place.lot / folder).mkdir(parents=True)
        for path in paths[:5]:
            shutil.copy(path, place.lot / folder / path.name)
    about = infer(commands, place, "out", "--group-by", "folder")
    assert len(about["groups"]) == 5
    assert len(about["rows"]) == 28
    assert {row["status"] for row in about["rows"].values()} == {"ok"}
    assert all((place.root / "out" / row["map"]).is_file() for row in about["rows"].values())
