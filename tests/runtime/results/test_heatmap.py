"""Heatmaps, their one scale, the legend, and the contact sheet."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.parallel import Room
from musc_edge.runtime.results.contact_sheet import draw_contact_sheet, drawn_rows
from musc_edge.runtime.results.heatmap import Scale, colours, legend, legend_height, lot_scale, overlay
from musc_edge.runtime.results.image_files import draw_overlay
from support.lots import Array, lot_result, pixels


def lightness(rgb: Array) -> Array:
    """CIE L* (0-100) of sRGB (...,3) uint8."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    dark = luminance * (24389 / 27)
    return np.asarray(np.where(luminance <= 216 / 24389, dark, 116 * np.cbrt(luminance) - 16))


# ---- scale -----------------------------------------------------------------------------------


def test_scale_is_from_the_median_to_the_largest_raw_score() -> None:
    maps = np.arange(30, dtype=np.float32).reshape(5, 2, 3)
    scale = lot_scale(maps, np.array([5.0, 31.5, 7.0]))
    assert (scale.low, scale.high) == (14.5, 31.5)
    units = scale.unit(np.array([[0.0, 14.5, 23.0, 31.5, 99.0]], np.float32))
    assert units.dtype == np.float32
    np.testing.assert_allclose(units, [[0, 0, 0.5, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-6, 0.7, 1.9, 2.0])
@pytest.mark.parametrize("shift", [0.0, -1e-9])
def test_constant_maps_have_a_scale_and_show_as_ordinary(value: float, shift: float) -> None:
    """The raw score of a constant map may be a rounding error below the map."""
    maps = np.full((5, 2, 3), value, np.float32)
    scale = lot_scale(maps, np.full(5, float(np.float32(value)) + shift))
    assert scale.low < scale.high
    unit = scale.unit(maps[0])
    assert np.all(unit == 0)


@pytest.mark.parametrize("seed", range(3))
def test_units_keep_the_order_of_values(seed: int) -> None:
    maps = np.random.default_rng(seed).uniform(0.3, 0.9, (6, 4, 4)).astype(np.float32)
    scale = lot_scale(maps, maps.max(axis=(1, 2)))
    values = np.sort(maps.ravel())
    units = scale.unit(values[None])[0]
    assert np.all(np.diff(units) >= 0)
    assert (units[0], units[-1]) == (0, 1)


# ---- colours ---------------------------------------------------------------------------------


def test_colours_get_lighter_all_the_way() -> None:
    ramp = colours(np.linspace(0, 1, 256, dtype=np.float32)[None])[0]
    assert ramp.dtype == np.uint8
    assert np.all(np.diff(lightness(ramp[::5])) > 0)
    assert np.all(np.diff(lightness(ramp)) > -0.2)  # neighbors may be rounded the other way
    assert lightness(ramp[0]) < 1
    assert lightness(ramp[-1]) > 90


def test_colours_are_red_green_blue() -> None:
    (orange,) = colours(np.full((1, 1), 0.7, np.float32))[0]
    assert orange[0] > orange[1] > orange[2]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (5, 3)])
def test_colours_keep_the_size(size: tuple[int, int]) -> None:
    found = colours(np.full(size, 0.5, np.float32))
    assert found.shape == (*size, 3)
    assert found.flags.c_contiguous


# ---- overlay ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (6, 9), (9, 1)])
def test_overlay_of_zero_is_the_plain_gray_image(size: tuple[int, int]) -> None:
    image = pixels(*size)
    found = overlay(image, np.zeros(size, np.float32))
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert np.all(found == found[..., :1])
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found[..., 0], image @ weights, atol=1)


def test_overlay_gets_colour_with_the_score() -> None:
    image = np.full((1, 101, 3), 128, np.uint8)
    found = overlay(image, np.linspace(0, 1, 101, dtype=np.float32)[None])[0].astype(int)
    spread = found.max(axis=1) - found.min(axis=1)
    assert spread[0] == 0
    assert np.all(spread[20:] > 20)
    assert spread[60] > spread[30] > spread[10]


def test_overlay_leaves_the_image_as_it_is() -> None:
    image = pixels(4, 5)
    before = image.copy()
    overlay(image, np.ones((4, 5), np.float32))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 400), (120, 181)])
def test_overlay_with_its_legend_has_the_width_of_the_image(size: tuple[int, int]) -> None:
    grid = np.random.default_rng(0).uniform(0.3, 0.9, (2, 3)).astype(np.float32)
    found = draw_overlay(pixels(*size), grid, Scale(0.3, 0.9))
    assert found.dtype == np.uint8
    assert found.shape[1:] == (size[1], 3)
    assert size[0] < found.shape[0] <= size[0] + 45


@pytest.mark.parametrize("width", [1, 2, 89, 90, 180, 181, 1000])
def test_legend_goes_from_dark_to_light(width: int) -> None:
    strip = legend(width, Scale(0.25, 1234.5))
    assert strip.shape[1:] == (width, 3)
    assert np.all(np.diff(lightness(strip[0])) > -0.2)
    if width > 1:
        assert lightness(strip[0, -1]) - lightness(strip[0, 0]) > 80


def test_legend_says_its_values() -> None:
    first, other = legend(300, Scale(0.25, 0.75)), legend(300, Scale(0.25, 0.76))
    changed = np.argwhere(np.any(first != other, axis=2))
    assert len(changed)
    assert changed[:, 1].min() > 150  # the upper value stands at the right


def letter_rows(strip: Array) -> int:
    """Height in pixels of the letters of the first line, the value at the left."""
    left = strip[:, : strip.shape[1] // 4]
    dark = np.flatnonzero(np.any(np.all(left < 128, axis=2) & np.all(left == left[..., :1], axis=2), axis=1))
    ramp = np.flatnonzero(np.all(strip == 255, axis=(1, 2)))[0]
    dark = dark[dark >= ramp]
    return int(np.argmax(np.diff(dark, append=strip.shape[0] * 2) > 1)) + 1


@pytest.mark.parametrize(("width", "least"), [(300, 8), (1000, 11), (2592, 28), (6000, 66)])
def test_letters_can_be_read_on_a_picture_that_is_shown_as_a_whole(width: int, least: int) -> None:
    """About a ninetieth of the width: 10 pixels of the 900 that a browser or a report has for it."""
    strip = legend(width, Scale(0.25, 0.75), "name.png")
    assert strip.shape[0] == legend_height(width)
    assert least <= letter_rows(strip) <= 2 * least


@pytest.mark.parametrize("width", [90, 300, 2592])
def test_an_overlay_has_the_name_on_it(width: int) -> None:
    plain, first, other = (legend(width, Scale(0.25, 0.75), text) for text in ("", "1.png", "2.png"))
    changed = np.argwhere(np.any(first != other, axis=2))
    assert len(changed)
    assert changed[:, 0].min() > plain.shape[0] / 2
    assert np.array_equal(plain[: plain.shape[0] // 2], first[: plain.shape[0] // 2])
    long = legend(width, Scale(0.25, 0.75), "W" * 300 + ".png")
    assert long.shape == plain.shape
    assert np.all(long[plain.shape[0] // 2 :, -1] == 255)  # cut, not drawn over the edge


# ---- contact sheet ---------------------------------------------------------------------------


def opened(path: Path) -> Array:
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.mode == "RGB"
        return np.asarray(sheet)


@pytest.mark.parametrize(("count", "height"), [(5, 474), (8, 474), (9, 704), (12, 704), (40, 704)])
def test_sheet_has_a_sensible_size(tmp_path: Path, count: int, height: int) -> None:
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(count)], size=(40, 60))
    draw_contact_sheet(result, tmp_path / "sheet.png")
    found = opened(tmp_path / "sheet.png")
    assert 800 < found.shape[1] < 1600
    assert abs(found.shape[0] - height) < 100
    assert found.std() > 20


@pytest.mark.parametrize(("top", "shown"), [(1, 5), (3, 7), (8, 12), (20, 20), (400, 20)])
def test_as_many_of_the_worst_as_were_asked_for(tmp_path: Path, top: int, shown: int) -> None:
    """And the four least suspicious, as far as there are others."""
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(20)], size=(20, 30))
    rows = drawn_rows(result, top)
    assert rows[:top] == result.order()[:top]
    assert len(rows) == len(set(rows)) == shown
    draw_contact_sheet(result, tmp_path / "sheet.png", top)
    draw_contact_sheet(result, tmp_path / "usual.png")
    assert (opened(tmp_path / "sheet.png").shape[0] > opened(tmp_path / "usual.png").shape[0]) == (top > 8)


def test_images_are_shown_from_the_worst_on_with_their_own_pixels(tmp_path: Path) -> None:
    scores = [0.1, 0.2, 0.9, 0.3, 0.4, 0.5]
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(6)], scores=scores, size=(20, 150))
    plain = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
    for image, colour in zip(result.images, plain, strict=True):
        Image.new("RGB", (150, 20), colour).save(image.local)
    result = dataclasses.replace(result, survey=survey_lot(result.images, ReadOptions(), threads=1))
    draw_contact_sheet(result, tmp_path / "sheet.png")
    found = opened(tmp_path / "sheet.png")
    places = [np.argwhere(np.all(found == colour, axis=2)) for colour in plain]
    assert all(len(place) >= 2000 for place in places)
    corners = {k: (place[:, 0].min(), place[:, 1].min()) for k, place in enumerate(places)}
    assert sorted(corners, key=lambda k: corners[k]) == [2, 5, 4, 3, 1, 0]


@pytest.mark.parametrize("size", [(1, 1), (400, 1), (1, 400), (3000, 2), (151, 149)])
def test_sheet_of_narrow_images(tmp_path: Path, size: tuple[int, int]) -> None:
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(5)], size=size)
    draw_contact_sheet(result, tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").std() > 0


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(("部品" * 30 + ".png").encode(), id="long and unicode"),
        pytest.param(b"W" * 251 + b".png", id="as long as can be"),
        pytest.param(b"line\nbreak\r\ttab.png", id="control characters"),
        pytest.param(b"caf\xe9.png", id="not UTF-8"),
        pytest.param("مرحبا 🔥.png".encode(), id="right to left"),
    ],
)
def test_sheet_with_odd_names_stays_within_its_cells(tmp_path: Path, raw: bytes) -> None:
    names = [f"{k}.png" for k in range(5)]
    plain = lot_result(tmp_path / "lot", names, scores=[0.9, 0.8, 0.7, 0.6, 0.5], size=(40, 60))
    draw_contact_sheet(plain, tmp_path / "plain.png")
    odd = lot_result(
        tmp_path / "odd", [os.fsdecode(raw), *names[1:]], scores=list(plain.scores), size=(40, 60)
    )
    draw_contact_sheet(odd, tmp_path / "odd.png")
    first, other = opened(tmp_path / "plain.png"), opened(tmp_path / "odd.png")
    assert first.shape == other.shape
    changed = np.argwhere(np.any(first != other, axis=2))
    assert len(changed)
    assert changed[:, 1].max() < first.shape[1] / 4  # the first of four columns
    assert np.ptp(changed[:, 0]) < 25  # one line


def test_sheet_with_a_file_that_vanished_and_one_that_changed(tmp_path: Path) -> None:
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(5)], size=(40, 60))
    draw_contact_sheet(result, tmp_path / "before.png")
    result.images[1].local.unlink()
    result.images[2].local.write_bytes(b"not an image any more")
    draw_contact_sheet(result, tmp_path / "after.png")
    before, after = opened(tmp_path / "before.png"), opened(tmp_path / "after.png")
    assert before.shape == after.shape
    assert np.any(before != after)


@pytest.mark.parametrize(("threads", "room"), [(4, None), (4, 1), (3, 10**6), (20, 10**5)])
def test_sheet_is_the_same_by_any_threads(tmp_path: Path, threads: int, room: int | None) -> None:
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(15)], size=(90, 120))
    result.images[3].local.unlink()
    draw_contact_sheet(result, tmp_path / "one.png")
    draw_contact_sheet(result, tmp_path / "more.png", threads=threads, room=Room(room))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "more.png").read_bytes()


def test_sheet_of_images_without_any_difference(tmp_path: Path) -> None:
    result = lot_result(tmp_path / "lot", [f"{k}.png" for k in range(5)], scores=[0.5] * 5)
    flat = dataclasses.replace(
        result, maps=np.full_like(result.maps, 0.5), raw_scores=np.full_like(result.raw_scores, 0.5)
    )
    draw_contact_sheet(flat, tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").std() > 0
