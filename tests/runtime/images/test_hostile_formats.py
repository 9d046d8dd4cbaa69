"""Hostile files of GIF, Netpbm, JPEG 2000, JPEG XL, AVIF and HEIC, and strips of TIFF that lie."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.images.ifd import Directory, Entry, Layout
from musc_edge.runtime.images.image_bytes import read_at
from musc_edge.runtime.images.reading import ImageError, read_header, read_image
from support.containers import Tiff, Values
from support.hostile_files import LIMITED, outcome_of, sparse
from support.hostile_formats import box, gif, gif_of_blocks, heif, jpeg_2000, jpeg_xl
from support.image_matrix import groups
from support.lots import pixels

GIANTS: dict[str, bytes] = {
    "GIF": gif(60_000, 60_000),
    "Netpbm": b"P5 60000 60000 255\n",
    "Netpbm as text": b"P2 60000 60000 255\n",
    "PAM": b"P7\nWIDTH 60000\nHEIGHT 60000\nDEPTH 1\nMAXVAL 255\nENDHDR\n",
    "JPEG 2000": jpeg_2000(60_000, 60_000, (60_000, 60_000)),
    "JPEG XL": jpeg_xl(60_000, 60_000),
    "AVIF": heif(b"avif", 60_000, 60_000),
    "HEIC": heif(b"heic", 60_000, 60_000),
}


@pytest.mark.parametrize("kind", GIANTS)
def test_giant_is_refused_by_its_header(tmp_path: Path, kind: str) -> None:
    assert outcome_of(tmp_path, GIANTS[kind]) == ("too_large", "60000 x 60000 pixels; the limit is 178956970")


MANY: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG 2000 of a million tiles": (lambda: jpeg_2000(1000, 1000, (1, 1)), "tiles"),
    "JPEG 2000 of 16,000 components": (lambda: jpeg_2000(10, 10, (10, 10), 16_000), "16000 components"),
    "JPEG 2000 of 38 bits": (lambda: jpeg_2000(10, 10, (10, 10), 1, 37), "38-bit samples"),
    "AVIF of a million boxes": (lambda: heif(b"avif", 10, 10, box(b"free", b"") * 10**6), "boxes"),
    "GIF of a long remark": (lambda: gif_of_blocks(1 << 19), "parts before the pixels"),
    "GIF of a million remarks": (lambda: gif(1, 1, extensions=10**6), "parts before the pixels"),
    "Netpbm with a text far longer than its pixels": (lambda: b"P2 2 2 255\n" + b" " * 10**6, "far more"),
}


@pytest.mark.parametrize("given", MANY)
def test_file_of_far_too_many_parts_is_unsupported(tmp_path: Path, given: str) -> None:
    make, reason = MANY[given]
    status, found = outcome_of(tmp_path, make())
    assert status == "unsupported"
    assert reason in found


def test_pictures_of_a_gif_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "x.gif").write_bytes(gif(1, 1, pictures=100_000))
    assert read_header(tmp_path / "x.gif").pages == 1000


def test_picture_that_is_larger_than_its_canvas_is_not_decoded(tmp_path: Path) -> None:
    status, reason = outcome_of(tmp_path, gif(10, 10, size=(100, 100)))
    assert status == "unreadable"
    assert "10 x 10 pixels, but 100 x 100 inside" in reason


@pytest.mark.long
@pytest.mark.parametrize("packing", [5, 8, 32773])
@pytest.mark.slow
def test_strip_that_unpacks_to_more_than_its_pixels_makes_no_more(tmp_path: Path, packing: int) -> None:
    """Planes apart, which our own code puts together; a bomb of 200 MB in each."""
    bomb = {8: zlib.compress(bytes(2 * 10**8), 9), 5: b"\x80\x00" * 1000, 32773: b"\x81\0" * 10**6}[packing]
    tags: dict[int, Values] = {258: [16] * 3, 259: packing, 262: 2, 277: 3, 284: 2}
    (tmp_path / "x.tif").write_bytes(Tiff((10, 10), [bomb] * 3, tags).content())
    status, _ = outcome_of(tmp_path, (tmp_path / "x.tif").read_bytes())
    assert status in ("ok", "unreadable")


def test_picture_in_a_strip_is_held_against_the_strip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, "WEBP", lossless=True)
    tags: dict[int, Values] = {258: [8] * 3, 259: 50001, 262: 2, 277: 3}
    content = Tiff((10, 10), [buffer.getvalue()], tags).content()
    assert outcome_of(tmp_path, content) == (
        "unreadable", "a part of 4000 x 4000 pixels where 10 x 10 belong"
    )  # fmt: skip


@pytest.mark.parametrize("value", [-1, 1 << 31, (1 << 32) - 1])
def test_strip_that_lies_outside_of_the_file(tmp_path: Path, value: int) -> None:
    tags: dict[int, Values] = {
        258: [16] * 3,
        262: 2,
        277: 3,
        284: 2,
        273: [8, value % (1 << 32), 8],
        279: [200, 200, 200],
    }
    status, reason = outcome_of(tmp_path, Tiff((10, 10), [bytes(200)] * 3, tags).content())
    assert (status, reason) == ("unreadable", "image file is truncated")


@pytest.mark.long
@pytest.mark.slow
def test_files_of_gigabytes_take_no_more_memory_than_their_pixels_need(tmp_path: Path) -> None:
    """In a process that may not have as much: what was asked for would be a MemoryError."""
    names = [
        "GIF",
        "Netpbm",
        "JPEG 2000",
        "JPEG XL",
        "AVIF",
        "HEIC",
        "TIFF with planes apart",
        "BMP of fields",
    ]
    for name in names:
        groups()[name][0].write(tmp_path / "small")
        sparse(tmp_path / name, (tmp_path / "small").read_bytes(), 6 * 10**9)
    command = [sys.executable, "-c", LIMITED, str(4 * 10**9), *(str(tmp_path / name) for name in names)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    refused = {"Netpbm": "its data is far more than its pixels need"}  # it is text
    assert json.loads(run.stdout) == {name: refused.get(name, "ok") for name in names}


DAMAGED = (
    *("GIF", "Netpbm", "JPEG 2000", "JPEG XL", "AVIF", "HEIC"),
    *("TIFF with planes apart", "TIFF palette", "BMP of fields", "TIFF YCbCr"),
)


@pytest.mark.parametrize("group", DAMAGED)
def test_damaged_file_is_refused_or_read_but_raises_nothing_else(tmp_path: Path, group: str) -> None:
    case = groups()[group][0]
    case.write(tmp_path / "x")
    good, generator, refusals = (tmp_path / "x").read_bytes(), random.Random(4), 0
    for _ in range(150):
        content = bytearray(good)
        for _ in range(generator.choice([1, 2, 5])):
            most = min(generator.choice([40, 160, 10**6]), len(content))
            content[generator.randrange(most)] = generator.randrange(256)
        if generator.random() < 0.2:
            del content[generator.randrange(len(content)) :]
        (tmp_path / "x").write_bytes(content)
        try:
            np.asarray(read_image(tmp_path / "x", max_pixels=10_000))
        except ImageError:
            refusals += 1
    assert refusals > 0


def test_dib_is_told_from_other_bytes(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, b"\x28\0\0\0" + bytes(100)) == ("unreadable", "not an image file")
    Image.fromarray(pixels(5, 7)).save(tmp_path / "x.dib", "DIB")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "x.dib")), pixels(5, 7))


def lerc(version: int, rows: int = 12, columns: int = 10, depth: int = 1) -> bytes:
    """A blob of one value for 12 x 10 pixels that says it were others; version 2 has no checksum."""
    imagecodecs = pytest.importorskip("imagecodecs")
    blob = bytearray(imagecodecs.lerc_encode(np.full((12, 10), 7, np.uint8), level=0, version=version))
    where = 14 if version >= 3 else 10
    struct.pack_into("<ii", blob, where, rows, columns)
    if version >= 4:
        struct.pack_into("<i", blob, where + 8, depth)
    valid = where + (12 if version >= 4 else 8)
    struct.pack_into("<i", blob, valid, rows * columns)
    return bytes(blob)


def tiff_of_lerc(blob: bytes) -> bytes:
    return Tiff((10, 12), [blob], {259: 34887}).content()


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_lerc_of_every_version_is_read(tmp_path: Path, version: int) -> None:
    (tmp_path / "x.tif").write_bytes(tiff_of_lerc(lerc(version)))
    assert np.asarray(read_image(tmp_path / "x.tif")).tolist() == np.full((12, 10, 3), 7).tolist()


LERC_BOMBS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "size": (lambda: lerc(2, 30_000, 30_000), "unreadable", "a part of 30000 x 30000 pixels where 10 x 12"),
    "depth": (
        lambda: lerc(4, depth=10**6),
        "unreadable",
        "a part of 1000000 values per pixel where 1 belong",
    ),
    "bands": (lambda: lerc(4) * 1000, "unreadable", "a part of 1000 values per pixel where 1 belong"),
    "sizes": (lambda: lerc(2) + lerc(2, 30_000, 30_000), "unreadable", "damaged LERC (of several sizes)"),
    "no bytes": (lambda: lerc(2)[:26] + bytes(36), "unreadable", "damaged LERC (its header)"),
    "less than nothing": (lambda: lerc(4, depth=-1), "unreadable", "damaged LERC (its header)"),
    "another kind": (lambda: b"CntZImage " + bytes(60), "unsupported", "an old version of LERC"),
}


@pytest.mark.parametrize("what", LERC_BOMBS)
def test_lerc_that_claims_more_than_its_part_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Of one value, a hundred bytes may stand for gigabytes."""
    make, status, reason = LERC_BOMBS[what]
    content = tiff_of_lerc(make())
    monkeypatch.setattr("imagecodecs.lerc_decode", lambda _: pytest.fail("it was decoded"))
    found = outcome_of(tmp_path, content)
    assert found[0] == status
    assert reason in found[1]


@pytest.mark.parametrize("offset", [-1, 1 << 62, (1 << 63) - 1, 1 << 80])
def test_nothing_is_read_where_no_file_reaches(offset: int) -> None:
    """Some file systems let one seek to the end of 63 bits, and fail as one reads."""

    class Endless(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            pytest.fail("it was sought")

    assert read_at(Endless(b"abc"), offset, 2) == b""
    assert read_at(io.BytesIO(b"abc"), 1, 2) == b"bc"


def test_numbers_of_a_tiff_beyond_63_bits_do_not_turn_negative(tmp_path: Path) -> None:
    """Sizes of parts below nothing would take away from those that cannot be allocated."""
    (tmp_path / "x").write_bytes(struct.pack("<QQQ", 2**64 - 1, 2**62, 7))
    directory = Directory(Layout("<", big=True), {279: Entry(kind=16, count=3, size=24, where=0)}, 1, 0)
    with (tmp_path / "x").open("rb") as file:
        assert directory.array(file, 279).tolist() == [2**63 - 1, 2**62, 7]
