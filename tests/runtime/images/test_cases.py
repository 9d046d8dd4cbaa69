"""Faults that users of similar tools reported, each with its value: the same picture in another container."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from measure.decode_memory import measure
from musc_edge.runtime.images.reading import ImageError, deepest_value, read_header, read_image
from support import containers as raw
from support.hostile_files import eps, wide_open
from support.image_matrix import TURN, groups, outcome
from support.lots import Array, pixels

COLOUR, GRAY = pixels(17, 24), pixels(17, 24, 1)


def deep(values: Array) -> Array:
    return values.astype(np.uint16) * 257


def seen(path: Path, bit_depth: int = 16) -> Array:
    return np.asarray(read_image(path, bit_depth))


def as_colour(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_1_turned_tiff_of_one_strip_is_not_sheared(tmp_path: Path, orientation: int, mode: str) -> None:
    """Pillow#7381, #4053: mapped with width and height already swapped."""
    image = Image.fromarray(COLOUR).convert(mode)
    exif = Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / "x.tif", exif=exif)
    expected = TURN[orientation](np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(seen(tmp_path / "x.tif"), expected)


def test_2_planes_apart_are_as_chunks_and_the_same_at_each_read(tmp_path: Path) -> None:
    """opencv#29567, #28717: garbled, and different at each read."""
    planes = np.moveaxis(deep(COLOUR), -1, 0).copy()
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
    for _ in range(3):
        np.testing.assert_array_equal(seen(tmp_path / "x.tif"), COLOUR)


def test_3_white_is_zero(tmp_path: Path) -> None:
    """opencv#9550: scored as a negative, with the maximum of the negative."""
    values = GRAY.astype(np.uint16) * 4  # up to 1020, of 10 bits
    tifffile.imwrite(tmp_path / "x.tif", 65535 - values, photometric="miniswhite")
    assert deepest_value(tmp_path / "x.tif") == values.max()
    tifffile.imwrite(tmp_path / "y.tif", values, photometric="minisblack")
    np.testing.assert_array_equal(seen(tmp_path / "x.tif", 10), seen(tmp_path / "y.tif", 10))


@pytest.mark.parametrize("extra", [1, 2])
def test_4_sample_that_is_not_alpha_is_ignored(tmp_path: Path, extra: int) -> None:
    """imageio-ext#164, ImageMagick#8905: infrared was taken for alpha."""
    infrared = np.full((*COLOUR.shape[:2], extra), 40 * 257, np.uint16)
    both = np.concatenate([deep(COLOUR), infrared], 2)
    tifffile.imwrite(tmp_path / "x.tif", both, photometric="rgb", extrasamples=["unspecified"] * extra)
    np.testing.assert_array_equal(seen(tmp_path / "x.tif"), COLOUR)


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_5_signed_samples_are_refused(tmp_path: Path, kind: type[np.generic]) -> None:
    """image-tiff#129: read as unsigned, -1 is the brightest value; which value is black nobody can say."""
    tifffile.imwrite(tmp_path / "x.tif", (GRAY.astype(int) - 128).astype(kind))
    with pytest.raises(ImageError, match=r"(8|16)-bit signed pixels have no known black and white") as caught:
        read_image(tmp_path / "x.tif")
    assert caught.value.status == "unsupported"


WRITERS: dict[str, Callable[[Path, Array], object]] = {
    "BMP": lambda path, words: path.write_bytes(
        raw.bmp(words.view("<u4")[..., 0], 32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), 108)
    ),
    "TIFF": lambda path, words: tifffile.imwrite(path, words, photometric="rgb", extrasamples=["unassalpha"]),
    "deep TIFF": lambda path, words: tifffile.imwrite(
        path, deep(words), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "PNG": lambda path, words: Image.fromarray(words).save(path, "PNG"),
    "deep PNG": lambda path, words: path.write_bytes(raw.png(deep(words), 16, 6)),
    "WebP": lambda path, words: Image.fromarray(words).save(path, "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_6_alpha_of_nothing_does_not_make_an_image_white(tmp_path: Path, kind: str) -> None:
    """image-rs#539, SDL_image#64."""
    clear = np.concatenate([COLOUR, np.zeros_like(COLOUR[..., :1])], 2)
    WRITERS[kind](tmp_path / "x", np.ascontiguousarray(clear))
    np.testing.assert_array_equal(seen(tmp_path / "x"), COLOUR)


def test_7_bmp_of_16_bits_per_pixel_is_8_bits_per_channel(tmp_path: Path) -> None:
    """Pillow#2160."""
    five, six = (np.round(COLOUR / 255 * full).astype(np.uint16) for full in (31, 63))
    words = five[..., 0] << 11 | six[..., 1] << 5 | five[..., 2]
    (tmp_path / "x.bmp").write_bytes(raw.bmp(words, 16, (0xF800, 0x7E0, 0x1F)))
    assert read_header(tmp_path / "x.bmp").bits == 8
    assert np.abs(seen(tmp_path / "x.bmp").astype(int) - COLOUR).max() <= 5  # half a step of 5 bits


@pytest.mark.parametrize("bit_depth", [12, 16])
def test_8_packed_12_bits_have_a_scale_of_their_own(tmp_path: Path, bit_depth: int) -> None:
    """Pillow#414: OpenCV shifts them by 4, so that 12 bits were refused as above 12 bits."""
    values = GRAY.astype(np.uint16) * 4095 // 255
    content = raw.Tiff((24, 17), [raw.packed_rows(values, 12)], {258: 12}).content()
    (tmp_path / "x.tif").write_bytes(content)
    header = read_header(tmp_path / "x.tif")
    assert (header.bits, header.white) == (12, 4095)
    found = seen(tmp_path / "x.tif", bit_depth)
    np.testing.assert_array_equal(found, as_colour(np.round(values * (255 / 4095)).astype(np.uint8)))


@pytest.mark.parametrize(
    "group",
    ["TIFF of 1 to 16 bits", "TIFF of numbers without a known white", "TIFF jpeg2000", "TIFF lerc",
     "TIFF jpegxl", "JPEG of something else", "BigTIFF miniswhite"],
)  # fmt: skip
def test_9_image_is_never_said_to_be_none(tmp_path: Path, group: str) -> None:
    """Pillow#1602, #6266, opencv#17705: what is an image was said not to be one."""
    for case in groups()[group]:
        found = outcome(case, tmp_path)
        assert found.right, f"{case.name}: {found.said}"
        assert "not an image" not in found.said


def test_10_eps_with_the_name_of_a_picture_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow#7391, #4826."""
    folder = wide_open(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(eps())
    with pytest.raises(ImageError, match="a file of the kind EPS, which is not read"):
        read_image(tmp_path / "a.png")
    assert not (folder / "started").exists()


@pytest.mark.parametrize(
    ("group", "what"),
    [("JPEG XL", "a JPEG XL file"), ("HEIC", "a HEIC file"), ("TIFF lerc", "a TIFF compressed by LERC")],
)
def test_format_whose_decoder_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, what: str
) -> None:
    groups()[group][0].write(tmp_path / "x")
    for module in ("imagecodecs", "pillow_heif"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "x")
    assert caught.value.status == "unsupported"
    assert str(caught.value).startswith(f"{what}: pip install 'musc-edge[formats]' to have it read")


@pytest.mark.parametrize("kind", ["webp lossless", "tiff rgba deep lzw"])
@pytest.mark.slow
def test_reading_takes_no_more_memory_than_the_header_promises(tmp_path: Path, kind: str) -> None:
    peak, promised, _ = measure(kind, 2_000_000, tmp_path, "read")
    assert 1_000_000 < peak <= promised
