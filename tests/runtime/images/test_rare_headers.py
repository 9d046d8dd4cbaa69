"""Headers that are rare: legal ones are read right, and each that is not has its own reason."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from musc_edge.runtime.images import small_headers
from musc_edge.runtime.images.image_bytes import BLOCK
from musc_edge.runtime.images.reading import read_header, read_image
from support.containers import Tiff, Values, bmp, chunk, png
from support.hostile_files import outcome_of
from support.hostile_formats import box, gif, gif_of_blocks, jpeg_2000
from support.lots import Array, pixels

PICTURE = pixels(12, 10)
SIX = [16] * 3


def jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, options.pop("kind", "JPEG"), quality=95, **options)
    return buffer.getvalue()


def read(folder: Path, content: bytes) -> Array:
    (folder / "x.png").write_bytes(content)
    return np.asarray(read_image(folder / "x.png"))


def tiff(tags: dict[int, Values], strip: bytes = bytes(1000), planes: int = 1) -> bytes:
    return Tiff((10, 12), [strip] * planes, tags).content()


def jpeg_xl(*fields: tuple[int, int]) -> bytes:
    """A codestream of 30 x 20 pixels, and then of ``fields``: a number, and its bits."""
    bits, at = 0, 0
    size = ((0, 1), (3, 2), (19, 30), (0, 3), (3, 2), (29, 30), (0, 1))
    for value, count in (*size, *fields):
        bits |= value << at
        at += count
    return b"\xff\x0a" + bits.to_bytes(64, "little")


DEPTH_10 = ((0, 1), (1, 2))  # whole numbers, of the second usual depth
PREVIEW_8 = ((0, 3), (0, 1), (1, 1), (1, 1), (3, 2), (5, 9), (0, 3), (0, 2), (0, 1))
PREVIEW = ((0, 3), (0, 1), (1, 1), (0, 1), (2, 2), (77, 10), (1, 3), (0, 1))
ANIMATION = ((0, 3), (0, 1), (0, 1), (1, 1), (3, 2), (9, 30), (2, 2), (7, 8), (1, 2), (5, 3), (0, 1))


@pytest.mark.parametrize(
    ("fields", "size", "bits"),
    [
        (((0, 1), *DEPTH_10), (30, 20), 10),
        (((1, 1), (4, 3), (0, 1), (0, 1), (0, 1), *DEPTH_10), (20, 30), 10),
        (((1, 1), *PREVIEW_8, *DEPTH_10), (30, 20), 10),
        (((1, 1), *PREVIEW, *DEPTH_10), (30, 20), 10),
        (((1, 1), *ANIMATION, *DEPTH_10), (30, 20), 10),
        (((0, 1), (0, 1), (3, 2), (15, 6)), (30, 20), 16),
    ],
    ids=["plain", "turned", "preview in eights", "preview", "animation", "any depth"],
)
def test_jpeg_xl_is_measured_behind_what_comes_before_its_depth(
    tmp_path: Path, fields: tuple[tuple[int, int], ...], size: tuple[int, int], bits: int
) -> None:
    (tmp_path / "x.jxl").write_bytes(jpeg_xl(*fields))
    found = read_header(tmp_path / "x.jxl")
    assert ((found.width, found.height), found.bits) == (size, bits)


def test_channels_of_a_jpeg_xl_are_counted_as_its_encoder_writes_them(tmp_path: Path) -> None:
    """A kilobyte of extra channels took gigabytes: each is decoded."""
    imagecodecs = pytest.importorskip("imagecodecs")

    def found(channels: int) -> tuple[str, str]:
        planes = np.full((channels, 20, 30), 7, np.uint8)
        return outcome_of(tmp_path, bytes(imagecodecs.jpegxl_encode(planes, lossless=True, planar=True)))

    assert found(1) == ("ok", "")
    assert found(6) == ("unsupported", "a JPEG XL file of 5 channels besides its colours")
    assert found(60) == ("unsupported", "a JPEG XL file of 59 channels besides its colours")


def test_first_picture_of_an_animated_jpeg_xl_is_read(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    frames = np.stack([PICTURE, PICTURE[::-1]])
    content = bytes(imagecodecs.jpegxl_encode(frames, lossless=True, photometric="rgb"))
    np.testing.assert_array_equal(read(tmp_path, content), PICTURE)


@pytest.mark.parametrize("junk", [0, 1, BLOCK - 1, BLOCK])
def test_marker_of_a_jpeg_is_found_behind_any_number_of_other_bytes(tmp_path: Path, junk: int) -> None:
    """Also where its two bytes lie on both sides of the end of what is read at once."""
    content = jpeg()
    (tmp_path / "x.jpg").write_bytes(content[:20] + bytes(junk) + content[20:])
    found = read_header(tmp_path / "x.jpg")
    assert (found.width, found.height) == (10, 12)


def test_pictures_of_a_jpeg_are_counted_unless_their_index_is_damaged(tmp_path: Path) -> None:
    content = jpeg(kind="MPO", save_all=True, append_images=[Image.fromarray(PICTURE)] * 2)
    for given, pages in ((content, 3), (content.replace(b"MPF\0II", b"MPF\0xx"), 1)):
        (tmp_path / "x.jpg").write_bytes(given)
        assert read_header(tmp_path / "x.jpg").pages == pages


def test_gif_whose_later_pictures_are_too_far_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_headers, "MOST_BLOCKS", 100)
    content = gif(1, 1)[:-1] + gif_of_blocks(200)[19:]
    (tmp_path / "x.gif").write_bytes(content)
    assert read_header(tmp_path / "x.gif").pages == 1
    assert read(tmp_path, content).shape == (1, 1, 3)


@pytest.mark.parametrize("text", [b"\nexif\n 4\nzz\n", b"\nexif\n", b""])
@pytest.mark.parametrize("packed", [False, True])
def test_orientation_that_cannot_be_read_is_none(tmp_path: Path, text: bytes, packed: bool) -> None:
    content = b"\0" + (zlib.compress(text)[:-5] + b"\xff" * 9 if text else b"no zlib") if packed else text
    mark = chunk(b"zTXt" if packed else b"tEXt", b"Raw profile type exif\0" + content)
    np.testing.assert_array_equal(read(tmp_path, png(PICTURE, 8, 2, behind=mark)), PICTURE)


def test_bmp_without_a_field_of_blue_has_none(tmp_path: Path) -> None:
    words = np.arange(120, dtype=np.uint32).reshape(12, 10) * 0x20301
    found = read(tmp_path, bmp(words, 32, (0xFF0000, 0xFF00, 0)))
    assert found[..., 0].tolist() == ((words >> 16) & 255).tolist()
    assert found[..., 1].tolist() == ((words >> 8) & 255).tolist()
    assert not found[..., 2].any()


def test_icclab_of_16_bits_has_its_own_white(tmp_path: Path) -> None:
    """Lightness of 100 is 0xFF00 there, as ICC's profiles of version 2 have it; a* and b* begin at 0x8000."""
    values = np.full((12, 10, 3), 0x8000, np.uint16)
    values[..., 0] = np.linspace(0, 0xFF00, 120).reshape(12, 10)
    content = tiff({258: SIX, 262: 9, 277: 3}, values.astype("<u2").tobytes())
    found = read(tmp_path, content).astype(int)
    assert np.ptp(found, axis=-1).max() <= 1, "gray"
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[-1, -1].tolist() == [255, 255, 255]
    assert abs(found[6, 0, 0] - 119) < 3, "a lightness of 50 is 119 in sRGB"


REFUSED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "BMP of 2 bits": (lambda: bmp(PICTURE[..., 0] & 3, 2), "unsupported", "2 bits per pixel"),
    "BMP of a short header": (
        lambda: b"BM" + struct.pack("<LHHLLLL", 54, 0, 0, 38, 24, 10, 12) + bytes(400),
        "unsupported", "OS/2 with a short header (24 bytes)",
    ),
    "BMP of OS/2's packing": (
        lambda: b"BM" + struct.pack("<LHHL LLLHHL", 999, 0, 0, 78, 64, 10, 12, 1, 1, 3) + bytes(900),
        "unsupported", "OS/2 with a compression of its own",
    ),
    "JPEG of hierarchies": (
        lambda: jpeg().replace(b"\xff\xc0", b"\xff\xc5", 1), "unsupported", "a hierarchical JPEG",
    ),
    "JPEG 2000 of coarse colours": (
        lambda: jpeg_2000(10, 12, (10, 12), 3, 11)[:-2] + b"\2\2", "unsupported", "with coarser colours",
    ),
    "JPEG XL of 32 bits": (lambda: jpeg_xl((0, 1), (0, 1), (3, 2), (31, 6)), "unsupported", "32-bit samples"),
    "JPEG XL of 4,000 channels": (
        lambda: jpeg_xl((0, 1), *DEPTH_10, (0, 1), (3, 2), (3998, 12)), "unsupported", "3999 channels",
    ),
    "JPEG XL of five channels more": (
        lambda: jpeg_xl((0, 1), *DEPTH_10, (0, 1), (2, 2), (3, 4)), "unsupported", "5 channels besides",
    ),
    "JPEG XL that ends": (lambda: jpeg_xl()[:9], "unreadable", "truncated"),
    "AVIF of a box too small": (
        lambda: box(b"ftyp", b"avif\0\0\0\0avif") + b"\0\0\0\4meta" + bytes(40), "unreadable", "",
    ),
    "PGM above its white": (lambda: b"P5 2 2 100\n" + bytes([1, 2, 3, 101]), "unreadable", "the value 101"),
    "PGM cut off": (lambda: b"P5 2 2 255\n123", "unreadable", "truncated"),
    "PGM of words": (lambda: b"P2 2 2 255\n1 2 x 4", "unreadable", "something else than numbers"),
    "PGM of white zero": (lambda: b"P5 2 2 0\n1234", "unreadable", "0 for its largest value"),
    "PGM beyond 16 bits": (lambda: b"P5 2 2 65536\n12345678", "unreadable", "65536 for its largest value"),
    "PAM without its end": (lambda: b"P7\nWIDTH 2\nHEIGHT 2\n", "unreadable", "PAM file without its header"),
    "PAM of other channels": (
        lambda: b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 5\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(20),
        "unsupported", "a PAM file of 5 channels that are called RGB",
    ),
    "TIFF of other inks": (
        lambda: tiff({258: [8] * 4, 262: 5, 277: 4, 332: 2}), "unsupported", "inks that are not cyan",
    ),
    "TIFF of differences of numbers": (
        lambda: tiff({259: 5, 317: 3}), "unsupported", "8-bit samples with predictor 3",
    ),
    "TIFF of tiles without a size": (
        lambda: tiff({258: SIX, 262: 2, 277: 3, 284: 2, 322: 0, 323: 16, 324: 8, 325: 100}, planes=3),
        "unreadable", "tiles without a size",
    ),
    "TIFF of far too many bytes": (
        lambda: tiff({258: SIX, 259: 5, 262: 2, 277: 3, 284: 2, 279: [1 << 30] * 3}, planes=3),
        "unsupported", "far more",
    ),
    "TIFF of YCbCr without a scale": (
        lambda: tiff({258: [8] * 3, 262: 6, 277: 3, 284: 2, 529: [0, 587, 114], 530: [1, 1]}, planes=3),
        "unreadable", "YCbCr without a scale",
    ),
    "TIFF of an old JPEG in parts": (
        lambda: tiff({258: [8] * 3, 259: 6, 262: 6, 277: 3}, jpeg()), "unsupported", "JPEG in parts",
    ),
    "TIFF of an old JPEG of another size": (
        lambda: Tiff((11, 12), [jpeg()], {258: [8] * 3, 259: 6, 262: 6, 277: 3, 512: 1, 513: 8,
                                          514: len(jpeg())}).content(),
        "unreadable", "11 x 12 pixels, but 10 x 12 inside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_has_its_reason(tmp_path: Path, what: str) -> None:
    make, status, reason = REFUSED[what]
    found = outcome_of(tmp_path, make())
    assert found[0] == status, found
    assert reason in found[1]


def test_a_pillow_without_a_format_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "WEBP", lossless=True)
    np.testing.assert_array_equal(read(tmp_path, buffer.getvalue()), PICTURE)
    monkeypatch.setattr(features, "check", lambda _: False)
    status, reason = outcome_of(tmp_path, buffer.getvalue())
    assert (status, reason) == ("unsupported", "a file of webp, which this build of Pillow does not read")
