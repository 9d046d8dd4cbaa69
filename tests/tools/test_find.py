"""``musc-edge plan --find``: what finds a defect of some size, and what it takes."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.forecast import Forecast
from musc_edge.runtime.images.resolution import Resolution
from musc_edge.runtime.settings import ScoreSettings
from musc_edge.runtime.types import Manifest, Plan
from musc_edge.runtime.vit import onnx_backend
from musc_edge.tools.find import PATCHES, Way, chosen, defect_pixels, find_text, length, ways_to_find
from musc_edge.tools.usage import UsageError
from support.command_line import run_here

MANIFEST = cast("Manifest", SimpleNamespace(patch_size=14, grid=(16, 16), patches=256))


def forecast_of(width: int, height: int, vit: float = 10.0, comparing: float = 1.0) -> Forecast:
    plan = cast("Plan", SimpleNamespace(memory_bytes=500_000_000))
    seen = Resolution(width, height, 1, (224, 224), 14)
    return Forecast(10, 9, 45, 4, 2.0, comparing, plan, "numpy", "cpu", vit, resolution=seen)


def ways(pixels: float, width: int, height: int, seconds_of_tiles: float = 60.0) -> list[Way]:
    def tiled(settings: ScoreSettings) -> Forecast:
        assert settings.tiles is not None
        return replace(forecast_of(width, height), vit_seconds=seconds_of_tiles)

    return ways_to_find(pixels, forecast_of(width, height), ScoreSettings(), MANIFEST, tiled)


def test_what_is_large_enough_needs_nothing() -> None:
    """Patches of 20 pixels find 30, and not 29."""
    (way,) = ways(30, 320, 320)
    assert (way.name, way.patch, way.seconds, way.memory) == ("this bundle", (20, 20), 11, 500_000_000)
    assert len(ways(29, 320, 320)) == 3


@pytest.mark.parametrize(("width", "height", "pixels"), [(2592, 1944, 40), (640, 480, 20), (1000, 999, 7.3)])
def test_every_way_that_is_proposed_has_patches_that_are_small_enough(
    width: int, height: int, pixels: float
) -> None:
    """And one tile or patch fewer would not do."""
    whole, larger, tiles = ways(pixels, width, height)
    target = pixels / PATCHES
    assert whole.seconds is None
    assert max(*larger.patch, *tiles.patch) <= target
    rows, columns = map(int, tiles.name.removeprefix("--tiles ").split("x"))
    assert tiles.patch == (width / columns / 16, height / rows / 16)
    assert width / (columns - 1) / 16 > target
    assert rows == 1 or height / (rows - 1) / 16 > target
    side = int(larger.name.removeprefix("--image-size "))
    assert larger.patch == pytest.approx((width * 14 / side, height * 14 / side))
    assert side % 14 == 0
    assert max(width, height) * 14 / (side - 14) > target


def test_the_time_of_a_larger_input_grows_with_its_patches() -> None:
    """32 x 32 patches for 16 x 16: the ViT 4 times, comparing 16 times."""
    _, larger, tiles = ways(15, 320, 320)
    assert larger.name == "--image-size 448"
    assert larger.seconds == pytest.approx(4 * 10 + 16 * 1)
    assert (tiles.name, tiles.seconds) == ("--tiles 2x2", 61)
    best = chosen([larger, tiles])
    assert best is larger
    best = chosen(ways(15, 320, 320, seconds_of_tiles=20))
    assert best is not None
    assert best.name == "--tiles 2x2"


def test_nothing_finds_a_speck() -> None:
    found = ways(1, 9000, 9000)
    assert [way.seconds for way in found] == [None] * 3
    assert [way.why for way in found[1:]] == [
        "13500 x 13500 patches, too many for a ViT",
        "more than 64 tiles along a side",
    ]
    assert chosen(found) is None
    assert "none finds it: crop the images" in find_text((1.0, "px"), 1.0, found)


@pytest.mark.parametrize(
    ("text", "per_pixel", "pixels"), [("12", None, 12), ("12px", None, 12), ("0.5mm", 0.05, 10)]
)
def test_lengths(text: str, per_pixel: float | None, pixels: float) -> None:
    args = argparse.Namespace(find=length(text), mm_per_pixel=per_pixel)
    assert math.isclose(defect_pixels(args), pixels)


@pytest.mark.parametrize("text", ["", "0", "-3px", "mm", "nan", "1cm", "inf"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number above 0"):
        length(text)


@pytest.mark.parametrize(
    ("find", "per_pixel", "said"),
    [((0.5, "mm"), None, "takes --mm-per-pixel"), ((5.0, "px"), 0.1, "has no meaning")],
)
def test_units_must_fit(find: tuple[float, str], per_pixel: float | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        defect_pixels(argparse.Namespace(find=find, mm_per_pixel=per_pixel))


def test_by_the_command_line(
    commands: Path, quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """quick_bundle has 8 x 8 patches at 112: of an image of 400 x 300 they are 50 x 37.5 pixels."""
    (tmp_path / "lot").mkdir()
    for k in range(6):
        pixels = np.random.default_rng(k).integers(0, 255, (300, 400), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "lot" / f"{k}.png")
    (tmp_path / "lot" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    def plan(*options: str) -> Any:
        return run_here([str(commands / "musc-edge"), "plan", *options, "-b", str(quick_bundle)])

    found = plan(str(tmp_path / "lot"), "--find", "3mm", "--mm-per-pixel", "0.1", "--json")
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)
    assert (facts["images"], facts["resolution"]["patch"]) == (6, [50.0, 37.5])
    names = ["this bundle", "--image-size 280", "--tiles 2x3"]
    assert [way["name"] for way in facts["find"]["ways"]] == names
    assert facts["find"]["take"] in names[1:]
    opened: list[onnx_backend.OnnxBackend] = []
    enter = onnx_backend.OnnxBackend.__enter__

    def counted(vit: onnx_backend.OnnxBackend) -> onnx_backend.OnnxBackend:
        opened.append(vit)
        return enter(vit)

    monkeypatch.setattr(onnx_backend.OnnxBackend, "__enter__", counted)
    text = plan(str(tmp_path / "lot"), "--find", "30").stdout
    assert len(opened) == 1
    assert "find: a defect of 30 pixels takes patches of 20 pixels or less" in text
    assert plan("9", "--find", "30").returncode == 2
    assert plan(str(tmp_path / "lot"), "--find", "30", "--tiles", "2x2").returncode == 2
