"""Reading image files: what every kind becomes, what is refused and why."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.images.reading import (
    MAX_PIXELS,
    ImageError,
    deepest_value,
    file_stamp,
    normalise,
    preprocess,
    read_header,
    read_image,
)
from musc_edge.runtime.types import PreprocessSpec
from support.image_matrix import TURN
from support.lots import MEAN, SPEC, STD, Array, pixels, write_png


def refused(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    return caught.value


def read(path: Path) -> Array:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def lossless(suffix: str) -> dict[str, Any]:
    """Options for saving without loss."""
    return {"lossless": True} if suffix == ".webp" else {}


# ---- every 8-bit mode becomes RGB ------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_rgb_is_read_unchanged(tmp_path: Path, suffix: str) -> None:
    expected = pixels(7, 11)
    Image.fromarray(expected).save(tmp_path / f"x{suffix}", **lossless(suffix))
    np.testing.assert_array_equal(read(tmp_path / f"x{suffix}"), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_is_decoded_as_pillow_does(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(pixels(16, 24)).save(path)
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(path)))


def test_suffix_does_not_matter_for_what_a_file_is(tmp_path: Path) -> None:
    write_png(tmp_path / "x.jpg", (5, 4))
    np.testing.assert_array_equal(read(tmp_path / "x.jpg"), pixels(5, 4))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_gray_has_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    gray = pixels(5, 7, 1)
    Image.fromarray(gray).save(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"x{suffix}"), np.repeat(gray[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_is_black_and_white(tmp_path: Path, suffix: str) -> None:
    bits = pixels(9, 13, 1) > 127
    Image.fromarray(bits).save(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"x{suffix}"), np.repeat(bits[..., None], 3, axis=2) * 255)


def over_white(colour: Array, alpha: Array) -> Array:
    part = alpha[..., None] / 255
    return np.asarray(colour * part + 255 * (1 - part))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_rgba_lies_over_white(tmp_path: Path, suffix: str) -> None:
    rgba = pixels(8, 9, 4)
    rgba[0, :3, 3] = 0, 255, 128
    Image.fromarray(rgba).save(tmp_path / f"x{suffix}")
    found = read(tmp_path / f"x{suffix}")
    np.testing.assert_allclose(found, over_white(rgba[..., :3], rgba[..., 3]), atol=1)
    np.testing.assert_array_equal(found[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(found[0, 1], rgba[0, 1, :3])


def test_gray_with_alpha_lies_over_white(tmp_path: Path) -> None:
    both = pixels(8, 9, 2)
    both[0, :2, 1] = 0, 255
    Image.fromarray(both).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as written:
        assert written.mode == "LA"
    found = read(tmp_path / "x.png")
    gray = np.repeat(both[..., :1], 3, axis=2)
    np.testing.assert_allclose(found, over_white(gray, both[..., 1]), atol=1)
    np.testing.assert_array_equal(found[0, 0], [255, 255, 255])


def palette_image() -> Image.Image:
    image = Image.new("P", (4, 1))
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 1, 2, 3])
    for x in range(4):
        image.putpixel((x, 0), x)
    return image


@pytest.mark.parametrize("transparency", [None, 1, b"\xff\x00\x80"], ids=["none", "one index", "table"])
def test_palette_with_transparency_lies_over_white(tmp_path: Path, transparency: int | bytes | None) -> None:
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    palette_image().save(tmp_path / "x.png", **options)
    with Image.open(tmp_path / "x.png") as written:
        assert written.mode == "P"
    found = read(tmp_path / "x.png")[0]
    second = [200, 0, 0] if transparency is None else [255, 255, 255]
    third = [127, 227, 127] if isinstance(transparency, bytes) else [0, 200, 0]
    np.testing.assert_allclose(found, [[10, 20, 30], second, third, [1, 2, 3]], atol=1)


@pytest.mark.parametrize(
    ("mode", "key", "other"),
    [("1", 0, 255), ("L", 77, 100), ("RGB", (9, 8, 7), (50, 60, 70))],
    ids=["1 bit", "gray", "RGB"],
)
def test_colour_declared_transparent_is_white(tmp_path: Path, mode: str, key: Any, other: Any) -> None:
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), other)
    image.save(tmp_path / "x.png", transparency=key)
    np.testing.assert_array_equal(read(tmp_path / "x.png")[0], [[255, 255, 255], np.broadcast_to(other, 3)])


def test_cmyk(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (2, 1), (0, 0, 0, 0))
    cmyk.putpixel((1, 0), (255, 0, 255, 51))
    cmyk.save(tmp_path / "x.tif")
    np.testing.assert_array_equal(read(tmp_path / "x.tif")[0], [[255, 255, 255], [0, 204, 0]])


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    np.testing.assert_allclose(read(tmp_path / "x.jpg"), np.broadcast_to([255, 0, 0], (8, 16, 3)), atol=6)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_first_of_several_pages(tmp_path: Path, suffix: str) -> None:
    pages = [Image.new("RGB", (6, 5), (40 * k, 0, 200)) for k in range(3)]
    pages[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=pages[1:], **lossless(suffix))
    with Image.open(tmp_path / f"x{suffix}") as written:
        assert getattr(written, "n_frames", 1) == 3
    np.testing.assert_array_equal(read(tmp_path / f"x{suffix}"), np.asarray(pages[0]))


# ---- EXIF ------------------------------------------------------------------------------------

ORIENTATION = 0x0112


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", TURN)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = pixels(4, 7)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(tmp_path / f"x{suffix}", exif=exif, **lossless(suffix))
    np.testing.assert_array_equal(read(tmp_path / f"x{suffix}"), TURN[orientation](stored))


@pytest.mark.parametrize("orientation", TURN)
def test_exif_orientation_of_jpeg(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16] = 255  # the corner that is stored first is white
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(tmp_path / "x.jpg", exif=exif, quality=95)
    np.testing.assert_allclose(read(tmp_path / "x.jpg"), TURN[orientation](stored), atol=8)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels(4, 7)).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "x.png"), pixels(4, 7))


def jpeg_with_exif(ifd: list[tuple[int, int, int, bytes]]) -> bytes:
    """A JPEG whose EXIF block holds the entries (tag, type, count, four bytes of value)."""
    entries = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in ifd)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(ifd)) + entries + bytes(4)
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 32, 3), 90, np.uint8)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


TURNED = (ORIENTATION, 3, 1, b"\x06\0\0\0")


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param((0x011A, 2, 4, b"300\0"), id="resolution as text"),
        pytest.param((0x0100, 2, 4, b"abc\0"), id="width as text"),
        pytest.param((0x0128, 2, 4, b"dpi\0"), id="unit as text"),
    ],
)
def test_odd_exif_entry_does_not_keep_an_intact_image_from_being_read(
    tmp_path: Path, entry: tuple[int, int, int, bytes]
) -> None:
    (tmp_path / "x.jpg").write_bytes(jpeg_with_exif(sorted([TURNED, entry])))
    assert read(tmp_path / "x.jpg").shape == (32, 16, 3)


# ---- what cannot be read ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.8, 0.97])
def test_truncated_file_is_unreadable(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(pixels(64, 64)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    error = refused(path)
    assert error.status == "unreadable"
    assert str(error)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_damaged_file_is_refused_or_read_but_raises_nothing_else(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x011A] = 72.0
    exif[0x0131] = "a camera"
    buffer = io.BytesIO()
    Image.fromarray(pixels(16, 24)).save(buffer, Image.registered_extensions()[suffix], exif=exif)
    generator, path = random.Random(3), tmp_path / f"x{suffix}"
    refusals = 0
    for _ in range(400):
        content = bytearray(buffer.getvalue())
        for _ in range(generator.choice([1, 2, 5])):
            content[generator.randrange(generator.choice([40, 160, len(content)]))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            np.asarray(read_image(path, max_pixels=10_000))  # a damaged size must not cost memory here
        except ImageError:
            refusals += 1
    assert 0 < refusals < 400


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"this is text\n", "not an image file"), (bytes(500), "not an image file")],
    ids=["zero bytes", "text", "zeros"],
)
def test_file_that_is_no_image(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    error = refused(tmp_path / "x.png")
    assert (error.status, str(error)) == ("unreadable", reason)


def test_folder_with_an_image_name(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    error = refused(tmp_path / "x.png")
    assert (error.status, str(error)) == ("unreadable", "not a regular file")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    end = os.open(tmp_path / "x.png", os.O_RDWR | os.O_NONBLOCK)  # holds bytes, so that a reader would go on
    try:
        os.write(end, bytes(60_000))
        error = refused(tmp_path / "x.png")
    finally:
        os.close(end)
    assert (error.status, str(error)) == ("unreadable", "not a regular file")


def test_vanished_file(tmp_path: Path) -> None:
    error = refused(tmp_path / "x.png")
    assert (error.status, str(error)) == ("unreadable", "No such file or directory")


# ---- more than 8 bits ------------------------------------------------------------------------


def deep(channels: int, dtype: type[np.generic] = np.uint16) -> Array:
    shape = (6, 7) if channels == 1 else (6, 7, channels)
    return np.random.default_rng(0).integers(0, 4096, shape).astype(dtype)


def scaled(values: Array, bits: int) -> Array:
    """The 8-bit RGB that a depth gives, by the formula of the module."""
    levels = np.round(values * (255 / (2**bits - 1))).astype(np.uint8)
    return np.dstack([levels] * 3) if levels.ndim == 2 else levels[..., ::-1]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "RGB"])
@pytest.mark.parametrize("bits", [12, 14, 16])
def test_16_bit_files_are_scaled_by_the_depth(tmp_path: Path, suffix: str, channels: int, bits: int) -> None:
    path = tmp_path / f"x{suffix}"
    assert cv2.imwrite(str(path), deep(channels))
    assert read_header(path).bits == 16
    assert deepest_value(path) == deep(channels).max()
    found = np.asarray(read_image(path, bits)).astype(int)
    assert np.abs(found - scaled(deep(channels), bits)).max() <= 1  # a half may be rounded either way
    if bits == 12:
        assert found.mean() > 100  # and not the nearly black image of the high 8 bits


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_alpha_lies_over_white(tmp_path: Path, suffix: str) -> None:
    values = deep(4)
    values[..., 3] = np.where(np.arange(7) % 2, 65535, 0)
    assert cv2.imwrite(str(tmp_path / f"x{suffix}"), values)
    found = np.asarray(read_image(tmp_path / f"x{suffix}", 12)).astype(int)
    assert (found[:, ::2] == 255).all()
    assert np.abs(found[:, 1::2] - scaled(values[:, 1::2, :3], 12)).max() <= 1


def test_deep_file_with_values_above_the_depth(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "x.png"), deep(1))
    with pytest.raises(ImageError, match="above 10 bits") as caught:
        read_image(tmp_path / "x.png", 10)
    assert caught.value.status == "unsupported"


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "RGB"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_deep_file_is_unreadable(tmp_path: Path, channels: int, part: float) -> None:
    path = tmp_path / "x.png"
    values = np.random.default_rng(1).integers(0, 4096, (60, 70, 3)[: 2 if channels == 1 else 3])
    assert cv2.imwrite(str(path), values.astype(np.uint16))
    os.truncate(path, int(path.stat().st_size * part))
    assert refused(path).status == "unreadable"


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("orientation", TURN)
def test_orientation_of_a_deep_file(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x{suffix}"
    Image.fromarray(deep(1)).save(path, exif=exif)
    upright = TURN[orientation](deep(1))
    header = read_header(path)
    assert (header.height, header.width) == upright.shape
    found = np.asarray(read_image(path, 12))
    assert np.abs(found.astype(int) - scaled(upright, 12)).max() <= 1


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("orientation", TURN)
def test_orientation_of_a_deep_file_in_colour(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".tif":
        path.write_bytes(tiff(deep(3)[..., ::-1], orientation))
    else:
        assert cv2.imwrite(str(path), deep(3))
        turn_png(path, orientation)
    upright = TURN[orientation](deep(3))
    header = read_header(path)
    assert (header.height, header.width) == upright.shape[:2]
    found = np.asarray(read_image(path, 12))
    assert np.abs(found.astype(int) - scaled(upright, 12)).max() <= 1


def turn_png(path: Path, orientation: int) -> None:
    """Put an EXIF block with an orientation into a PNG file, before its pixels."""
    exif = b"II*\0" + struct.pack("<IHHHII", 8, 1, ORIENTATION, 3, 1, orientation) + bytes(4)
    content = path.read_bytes()
    start = content.index(b"IDAT") - 4
    path.write_bytes(content[:start] + png_chunk(b"eXIf", exif) + content[start:])


def tiff(rgb: Array, orientation: int) -> bytes:
    """An uncompressed TIFF file of 16-bit RGB (H,W,3)."""
    height, width, _ = rgb.shape
    data = rgb.astype("<u2").tobytes()
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 273: 14, 274: orientation}
    tags |= {277: 3, 278: height, 279: len(data), 284: 1}
    start = 14 + len(data)  # header, three times 16 bits per sample, pixels, tags
    entries = [struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags.items()]
    head = b"II*\0" + struct.pack("<I3H", start, 16, 16, 16)
    return head + data + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)


def png(width: int, height: int, bits: int, colour_type: int, data: bytes) -> bytes:
    """A PNG file, chunk by chunk, for what no encoder here can write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, content) for kind, content in chunks)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def test_16_bit_gray_with_alpha(tmp_path: Path) -> None:
    rows = struct.pack(">6H", 4095, 65535, 2048, 65535, 0, 65535)
    (tmp_path / "x.png").write_bytes(png(3, 1, 16, 4, zlib.compress(b"\0" + rows)))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "x.png", 12))[0, :, 0], [255, 128, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.int32], ids=["float", "32-bit integer"])
def test_tiff_of_other_numbers_is_unsupported(tmp_path: Path, dtype: type[np.generic]) -> None:
    Image.fromarray(deep(1, dtype)).save(tmp_path / "x.tif")
    assert refused(tmp_path / "x.tif").status == "unsupported"


def test_signed_16_bit_tiff_is_unsupported(tmp_path: Path) -> None:
    """Taken as unsigned, -1 would be the brightest value there is."""
    assert cv2.imwrite(str(tmp_path / "x.tif"), deep(1, np.int16) - np.int16(2000))
    assert refused(tmp_path / "x.tif").status == "unsupported"


def test_float_tiff_in_colour_is_not_scored(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "x.tif"), deep(3, np.float32))
    assert refused(tmp_path / "x.tif").status in ("unsupported", "unreadable")


# ---- size ------------------------------------------------------------------------------------


def test_image_above_the_limit_is_too_large(tmp_path: Path) -> None:
    write_png(tmp_path / "below.png", (6, 10))
    write_png(tmp_path / "above.png", (61, 1))
    assert np.asarray(read_image(tmp_path / "below.png", max_pixels=60)).shape == (6, 10, 3)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "above.png", max_pixels=60)
    error = caught.value
    assert error.status == "too_large"
    assert "1 x 61 pixels" in str(error)
    assert "60" in str(error)


def test_header_that_promises_a_huge_image_is_refused_without_decoding(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(60_000, 60_000, 8, 2, zlib.compress(bytes(100))))
    error = refused(tmp_path / "x.png")
    assert error.status == "too_large"
    assert str(MAX_PIXELS) in str(error)


@pytest.mark.parametrize(
    ("width", "height", "limit"), [(10_000, 9_000, MAX_PIXELS), (20_000, 15_000, 400_000_000)]
)
@pytest.mark.slow
def test_large_image_below_the_limit_is_taken_without_alarm(
    tmp_path: Path, width: int, height: int, limit: int
) -> None:
    """Pillow has limits of its own: it warns on the user's terminal, and refuses beyond twice that."""
    (tmp_path / "x.png").write_bytes(png(width, height, 1, 0, b""))  # nothing that could be decoded
    code = (
        "import sys, pathlib\n"
        "from musc_edge.runtime.images.reading import read_header\n"
        "header = read_header(pathlib.Path(sys.argv[1]), int(sys.argv[2]))\n"
        "print(header.width, header.height)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.png"), str(limit)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == (f"{width} {height}\n", "")


# ---- header ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_header_of_an_8_bit_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(pixels(16, 24)).save(path)
    header = read_header(path)
    assert (header.width, header.height, header.bits, header.pages) == (24, 16, 8, 1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", TURN)
def test_header_has_the_size_as_displayed(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels(16, 24)).save(tmp_path / f"x{suffix}", exif=exif)
    header = read_header(tmp_path / f"x{suffix}")
    assert (header.width, header.height) == ((16, 24) if orientation > 4 else (24, 16))
    assert (header.width, header.height) == read_image(tmp_path / f"x{suffix}").size


def test_header_counts_pages(tmp_path: Path) -> None:
    page = Image.fromarray(pixels(5, 6))
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page, page])
    assert read_header(tmp_path / "x.tif").pages == 3


def test_header_tells_whether_the_file_changed(tmp_path: Path) -> None:
    path = write_png(tmp_path / "x.png", (6, 9), seed=1)
    before = read_header(path).stamp
    assert read_header(path).stamp == before == file_stamp(path)
    write_png(path, (16, 19), seed=2)
    assert file_stamp(path) != before


# ---- preprocessing ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(20, 31), (224, 300), (5, 3), (8, 12), (1, 1), (300, 1)])
def test_preprocess_is_the_literal_pillow_code(size: tuple[int, int]) -> None:
    image = Image.fromarray(pixels(*size))
    resized = np.asarray(image.resize((12, 8), Image.Resampling.BICUBIC), np.float64)
    expected = ((resized / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    found = preprocess(image, SPEC)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "shape", [(16, 16, 3), (2, 400, 1000, 3), (3, 2, 1, 5, 3), (0, 4, 4, 3), (1, 40000, 3), (40000, 1, 3)]
)
def test_normalise_is_the_formula_to_the_last_bit(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    if shape == (16, 16, 3):
        values[:] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    spec = PreprocessSpec((7, 5), "squash", "bilinear", mean, std)
    scaled = values.astype(np.float32) / np.float32(255)
    expected = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    values.flags.writeable = False
    found = normalise(values, spec)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.moveaxis(expected, -1, -3))
    apart = np.repeat(values, 2, axis=-2)[..., ::2, :]  # not one after the other in memory
    np.testing.assert_array_equal(normalise(apart, spec), found)


def test_interpolation_of_the_bundle_is_used() -> None:
    image = Image.fromarray(pixels(20, 31))
    spec = PreprocessSpec((7, 5), "squash", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    resized = np.asarray(image.resize((5, 7), Image.Resampling.BILINEAR), np.float64)
    np.testing.assert_allclose(preprocess(image, spec), resized.transpose(2, 0, 1) / 255, rtol=0, atol=1e-6)
