"""Files that are not what they seem, or that would cost more than an image does: refused before they do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.images.reading import deepest_value, read_header, read_image
from support.hostile_files import (
    BYTES,
    LIMITED,
    LONG,
    RATIONAL,
    chunk,
    directory,
    eps,
    exif,
    ico,
    ihdr,
    jpeg,
    jpeg_of_scans,
    many_entries,
    outcome,
    outcome_of,
    packed,
    page,
    png,
    riff,
    run_length_bmp,
    segment,
    sparse,
    tiff,
    tiff_of_pages,
    tiff_of_strips,
    wide_open,
)


def not_read(kind: str) -> str:
    return f"a file of the kind {kind}, which is not read; save it as PNG"


# ---- what a file is --------------------------------------------------------------------------


def test_postscript_with_an_image_name_starts_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wide_open(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    assert outcome_of(tmp_path, eps()) == ("unsupported", not_read("EPS"))
    assert not (folder / "started").exists()


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "TGA", "PCX", "SGI", "DDS"])
def test_no_other_decoder_of_pillow_is_reached(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, kind)
    status, reason = outcome_of(tmp_path, buffer.getvalue())
    assert (status, reason) == ("unsupported", not_read(kind))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (ico(png(size=(3000, 3000))), "ICO"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "MP4"),
        (b"qoif", "QOI"),
        (b"8BPS\0\1", "PSD"),
    ],
    ids=["ICO", "PDF", "MP4", "QOI", "PSD"],
)
def test_file_of_another_kind_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    status, reason = outcome_of(tmp_path, content)
    assert (status, reason) == ("unsupported", not_read(name))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.slow
def test_limit_that_the_process_has_set_in_pillow_is_neither_lifted_nor_obeyed(
    tmp_path: Path, suffix: str
) -> None:
    Image.new("L", (40, 30)).save(tmp_path / f"x{suffix}")
    code = (
        "import sys, pathlib\n"
        "from PIL import Image\n"
        "Image.MAX_IMAGE_PIXELS = 100\n"
        "from musc_edge.runtime.images.reading import read_image\n"
        "print(read_image(pathlib.Path(sys.argv[1])).size, Image.MAX_IMAGE_PIXELS)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / f"x{suffix}")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("(40, 30) 100\n", "")


def test_size_that_a_decoder_finds_is_held_against_the_header(tmp_path: Path) -> None:
    status, reason = outcome_of(tmp_path, png(before=ihdr(10, 20)))
    assert status == "unreadable"
    assert "10 x 10 pixels, but 10 x 20 inside" in reason


def test_canvas_of_a_webp_is_held_against_the_limit_before_the_decoder_is_made(tmp_path: Path) -> None:
    size = (16_382).to_bytes(3, "little")
    content = riff((b"VP8X", b"\2\0\0\0" + size + size), (b"ANIM", bytes(6)), (b"ANMF", bytes(16)))
    assert outcome_of(tmp_path, content) == ("too_large", "16383 x 16383 pixels; the limit is 178956970")


# ---- more than an image needs ----------------------------------------------------------------

SMALL = run_length_bmp(3000, 3000, b"\xff\1" * 600_000)  # runs that go nowhere: the row is full
MANY: dict[str, tuple[Callable[[], bytes], str]] = {
    "TIFF of 4 million strips": (lambda: tiff_of_strips(4_000_000), "strips or tiles"),
    "TIFF of 65,535 entries on the same bytes": (
        lambda: tiff(bytes(10**6), [*page(8), *many_entries(60_000, 10**6)]),
        "entries in a directory",
    ),
    "TIFF of 900 entries on the same bytes": (
        lambda: tiff(bytes(10**6), [*page(8), *many_entries(900, 10**6)]),
        "bytes besides the pixels",
    ),
    "TIFF of 2 million rationals": (
        lambda: tiff(bytes(16 * 10**6), [*page(8), (282, RATIONAL, 2 * 10**6, 8)]),
        "numbers besides the pixels",
    ),
    "TIFF with EXIF of 60,000 entries": (
        lambda: tiff(directory(many_entries(60_000, 9)), [*page(8), (34665, LONG, 1, 8)]),
        "entries in a directory",
    ),
    "PNG of a million chunks before its pixels": (lambda: png(before=chunk(b"prIv") * 10**6), "chunks"),
    "PNG of a million chunks behind its pixels": (lambda: png(after=chunk(b"prIv") * 10**6), "chunks"),
    "PNG of a million parts": (lambda: png(between=chunk(b"IDAT") * 10**6), "chunks"),
    "PNG of 200 packed profiles": (lambda: png(before=packed(b"iCCP") * 200), "bytes before the pixels"),
    "PNG of 200 packed texts at its end": (lambda: png(after=packed(b"zTXt") * 200), "far more"),
    "JPEG of a million segments": (lambda: jpeg(segment(0xEC) * 10**6), "segments"),
    "JPEG of a million EXIF segments": (lambda: jpeg(segment(0xE1, b"Exif\0\0x") * 10**6), "segments"),
    "JPEG of 3,000 scans": (lambda: jpeg_of_scans(3_000), "scans"),
    "WebP of a million parts": (
        lambda: riff((b"VP8X", bytes(10)), *[(b"JUNK", b"")] * 10**6),
        "pictures and other parts",
    ),
    "BMP of a million runs for one row": (lambda: SMALL, "far more"),
    "large run-length-encoded BMP": (lambda: run_length_bmp(10_000, 10_000, b"\0\1"), "run-length-encoded"),
}


@pytest.mark.parametrize("given", MANY)
@pytest.mark.slow
def test_file_of_far_too_many_parts_is_unsupported(tmp_path: Path, given: str) -> None:
    make, reason = MANY[given]
    status, found = outcome_of(tmp_path, make())
    assert status == "unsupported"
    assert reason in found


def test_tile_that_is_far_larger_than_its_image_is_too_large(tmp_path: Path) -> None:
    tiles = [(322, LONG, 1, 40_000), (323, LONG, 1, 20_000), (324, LONG, 1, 8), (325, LONG, 1, 100)]
    entries = [e for e in page(8) if e[0] not in (259, 273, 278, 279)] + [(259, LONG, 1, 8), *tiles]
    status, reason = outcome_of(tmp_path, tiff(bytes(100), entries))
    assert (status, reason) == ("too_large", "tiles of 40000 x 20000 pixels, far more than the image has")


@pytest.mark.slow
def test_pages_are_counted_without_reading_them_all(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(tiff_of_pages(100_000))
    assert read_header(tmp_path / "x.tif").pages == 1000
    assert read_image(tmp_path / "x.tif").size == (10, 10)


def test_directories_in_a_circle_are_one_page(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(tiff(bytes(100), page(8), after=108))
    assert read_header(tmp_path / "x.tif").pages == 1


def test_damage_of_a_later_page_does_not_keep_the_first_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(tiff(bytes(100), page(8), after=10**9))
    assert read_image(tmp_path / "x.tif").size == (10, 10)


def test_absurd_count_in_a_big_tiff(tmp_path: Path) -> None:
    content = b"II+\0\x08\0\0\0" + (16).to_bytes(8, "little") + (1 << 60).to_bytes(8, "little") + bytes(4000)
    assert outcome_of(tmp_path, content)[0] == "unreadable"


@pytest.mark.parametrize("make", [
    lambda block: png(before=chunk(b"eXIf", block), size=(10, 20)),
    lambda block: jpeg(segment(0xE1, b"Exif\0\0" + block)),
], ids=["PNG", "JPEG"])  # fmt: skip
def test_orientation_is_read_without_the_rest_of_the_exif_data(
    tmp_path: Path, make: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow copies the bytes of every entry: 4,000 times the same 60,000 are 240 MB of one small file."""

    def copies_all(self: object) -> None:
        raise AssertionError("Pillow's parser was asked")

    (tmp_path / "x.png").write_bytes(make(exif(many_entries(4_000, 60_000), 64_000)))
    monkeypatch.setattr(Image.Image, "getexif", copies_all)
    assert read_image(tmp_path / "x.png").size == (20, 10)
    header = read_header(tmp_path / "x.png")
    assert (header.width, header.height) == (20, 10)


# ---- real files of many parts ----------------------------------------------------------------


def test_row_of_pixels_per_strip_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(tiff_of_strips(65_535))
    assert read_image(tmp_path / "x.tif").size == (1, 65_535)


def test_metadata_of_a_camera_or_an_editor_is_no_reason_to_refuse(tmp_path: Path) -> None:
    profile = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([k, 200]) + bytes(60_000)) for k in range(1, 201)
    )
    assert outcome_of(tmp_path, jpeg(profile))[0] == "ok"
    assert outcome_of(tmp_path, jpeg_of_scans(100))[0] == "ok"
    assert outcome_of(tmp_path, png(before=chunk(b"tEXt", b"a\0b") * 900))[0] == "ok"
    texts = [(37724, BYTES, 20 * 10**6, 8)]
    assert outcome_of(tmp_path, tiff(bytes(20 * 10**6), [*page(8), *texts]))[0] == "ok"


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_deep_file_is_read_alike_from_memory_and_from_a_long_file(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / f"x{suffix}"), values)
    content = (tmp_path / f"x{suffix}").read_bytes()
    long = sparse(tmp_path / f"long{suffix}", content, 3 * 10**9)
    np.testing.assert_array_equal(read_image(long, 12), read_image(tmp_path / f"x{suffix}", 12))
    assert deepest_value(long) == values.max()


# ---- memory ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_of_gigabytes_take_no_more_memory_than_their_pixels_need(tmp_path: Path) -> None:
    """In a process that may not have as much: what was asked for would be a MemoryError."""
    gap = directory([e for e in page(0) if e[0] not in (273, 278, 279)] + [
        (273, LONG, 2, 200), (278, LONG, 1, 5), (279, LONG, 2, 200)])  # fmt: skip
    strips = b"II*\0\x08\0\0\0" + gap
    strips = strips.ljust(200, b"\0") + (300).to_bytes(4, "little") + (4 * 10**9).to_bytes(4, "little")
    lossless = io.BytesIO()
    Image.new("L", (10, 10)).save(lossless, "WEBP", lossless=True)
    webp = lossless.getvalue()
    promised = (2 * 10**9).to_bytes(4, "big")
    files = {
        "deep.png": png(bits=16),
        "deep.tif": b"II*\0\x08\0\0\0" + directory(page(300, bits=16)),
        "gap.tif": strips,
        "trailing.webp": webp,
        "claims.webp": webp[:4] + (4 * 10**9 - 8).to_bytes(4, "little") + webp[8:],
        "chunk.png": png()[:-12] + promised + b"prIv",
        "pixels.png": png()[:33] + promised + b"IDAT" + png()[41:],
    }
    for name, content in files.items():
        sparse(tmp_path / name, content, 6 * 10**9)
    command = [sys.executable, "-c", LIMITED, str(4 * 10**9), *(str(tmp_path / name) for name in files)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    too_much = "its data is far more, or in far more parts, than its pixels need"
    assert json.loads(run.stdout) == {
        "deep.png": "0",
        "deep.tif": "0",
        "gap.tif": "ok",
        "trailing.webp": "ok",
        "claims.webp": too_much,
        "chunk.png": too_much,
        "pixels.png": too_much,
    }


# ---- whatever a decoder does -----------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [RecursionError("too deep"), MemoryError(), AssertionError(), ValueError("x" * 10**6)]
)
def test_any_error_of_a_decoder_is_an_unreadable_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(self: object) -> None:
        (tmp_path / "x.png").unlink(missing_ok=True)  # nothing about the file can be asked any more
        raise error

    (tmp_path / "x.png").write_bytes(png())
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fails)
    status, reason = outcome(tmp_path / "x.png")
    assert status == ("too_large" if isinstance(error, MemoryError) else "unreadable")
    assert 0 < len(reason) <= 300
