"""One table tells a file by its first bytes: what is listed whatever its name is also read, as what it is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from musc_edge.runtime.images.first_bytes import is_image, kind_of
from musc_edge.runtime.images.image_bytes import FileHeader, ImageError
from musc_edge.runtime.images.image_header import READERS, read_file_header
from musc_edge.runtime.images.listing import list_lot

PIXELS = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
SIZE = (30, 20)


def brand(major: bytes, *others: bytes) -> bytes:
    """Return an ``ftyp`` box with these brands."""
    return struct.pack(">L4s4sL", 16 + 4 * len(others), b"ftyp", major, 0) + b"".join(others)


def bmp_header(size: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<L", size)


LISTED = {
    "png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff\xe0", "gif 87": b"GIF87a", "gif 89": b"GIF89a",
    "tiff II": b"II*\0", "tiff MM": b"MM\0*", "tiff II, wrong": b"II\0*", "tiff MM, wrong": b"MM*\0",
    "tiff II, big": b"II+\0", "tiff MM, big": b"MM\0+", "webp": b"RIFF\0\1\0\0WEBPVP8X",
    "jpeg2000": b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000, bare": b"\xff\x4f\xff\x51",
    "jpegxl": b"\0\0\0\x0cJXL \r\n\x87\n",
    **{f"bmp {size}": bmp_header(size) for size in (12, 40, 52, 56, 64, 108, 124)},
    **{f"avif {major.decode()}": brand(major) for major in (b"avif", b"avis")},
    **{f"heic {major.decode()}": brand(major)
       for major in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")},
    "avif, by another brand": brand(b"miaf", b"mif1", b"avif"),
    "heic, by another brand": brand(b"MiHE", b"heic"),
    "heic, by the last of many": brand(b"isom", *[b"abcd"] * 900, b"heic"),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_has_a_kind_and_a_reader(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(LISTED[name])
    assert [image.name for image in list_lot(tmp_path)] == ["a"]
    assert kind_of(LISTED[name]) == name.split(maxsplit=1)[0].strip(",")
    assert header_of(tmp_path / "a") != "not an image file"


def header_of(path: Path) -> FileHeader | str:
    """Return the header of a file, or the reason why there is none."""
    with path.open("rb") as file:
        try:
            return read_file_header(file, 10**6)
        except ImageError as refused:
            return str(refused)


@pytest.mark.parametrize(
    "start",
    [
        b"", b"BMW,3,4\n", b"P5 is a model", b"%PDF-1.7", b"<svg", b"II plus", b"RIFF1234WAVE", b"PK\3\4",
        b"GIF88a", brand(b"mp42", b"isom"), brand(b"qt  "), bmp_header(41), b"\xff\x0a",
        struct.pack("<L", 40),
    ],
)  # fmt: skip
def test_what_begins_almost_like_an_image(start: bytes) -> None:
    assert not is_image(start.ljust(64, b" "))


def save_with(name: str, **options: object) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(PIXELS).save(path, name, **options)


FILES: dict[str, Callable[[Path], object]] = {
    "png": save_with("PNG"), "jpeg": save_with("JPEG"), "webp": save_with("WEBP"), "bmp": save_with("BMP"),
    "gif": save_with("GIF"), "jpeg2000": save_with("JPEG2000"), "avif": save_with("AVIF"),
    "tiff": lambda path: tifffile.imwrite(path, PIXELS, bigtiff=True, byteorder=">"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_told_and_read_without_its_ending(kind: str, tmp_path: Path) -> None:
    FILES[kind](tmp_path / "picture")
    assert [image.name for image in list_lot(tmp_path)] == ["picture"]
    header = header_of(tmp_path / "picture")
    assert isinstance(header, FileHeader)
    assert (header.kind, (header.width, header.height)) == (kind, SIZE)


def test_every_kind_has_a_reader() -> None:
    told = {kind_of(start) for start in LISTED.values()}
    assert told <= set(READERS)
    assert {"netpbm", "dib"} == set(READERS) - told  # these begin as a text or other data may
    assert kind_of(b"P5\n30 20 255\n") == "netpbm"
