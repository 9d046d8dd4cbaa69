"""Every kind of input that a lot, an output folder or a bundle can be wrong or unusual in.

Each case is run by tests/tools/test_bad_input.py, and by measure/bad_input_table.py, which makes the table
in docs/bad-input.md of what the user sees.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from musc_edge.runtime.vit.hashes import sha256
from support.hostile_files import (
    chunk,
    eps,
    ico,
    jpeg_of_scans,
    png,
    run_length_bmp,
    tiff_of_pages,
    tiff_of_strips,
    wide_open,
)


@dataclass(frozen=True)
class Place:
    """A fresh folder with a lot of eight real images in ``lot``, and a bundle that cases may copy."""

    root: Path
    lot: Path
    bundle: Path

    def own_bundle(self) -> Path:
        """A copy of the bundle that may be damaged."""
        return Path(shutil.copytree(self.bundle, self.root / "bundle"))

    def an_image(self) -> Path:
        return sorted(self.lot.glob("*.png"))[0]


@dataclass(frozen=True)
class Case:
    """What is given, how to make it, the exit code, and a part of what the user sees.

    ``build`` returns further arguments; ``bad`` names the images that must not be scored, ``scored`` how many
    must be, and ``stays`` the hidden files beside the results that are somebody else's.
    """

    given: str
    build: Callable[[Place], list[str]]
    code: int
    says: str
    bad: tuple[str, ...] = ()
    scored: int = 8
    stays: tuple[str, ...] = ()


def command_of(case: Case, place: Place, scripts: Path) -> list[str]:
    """Make the case's input and return the command to run in ``place.root``.

    A first argument of the case that is no option takes the place of the lot.
    """
    extra = case.build(place)
    lot = [] if extra and not extra[0].startswith("-") else [str(place.lot)]
    given = [] if "-b" in extra else ["-b", str(place.bundle)]
    given += [] if "-o" in extra else ["-o", "out"]
    # A folder ``bin`` that the case has made comes first in PATH.
    path = ["env", f"PATH={place.root / 'bin'}:{os.environ['PATH']}"] if (place.root / "bin").exists() else []
    return [*path, str(scripts / "musc-edge"), "infer", *lot, *extra, *given]


# ---- files -----------------------------------------------------------------------------------


def write_bytes(name: str, content: bytes) -> Callable[[Place], list[str]]:
    def build(place: Place) -> list[str]:
        (place.lot / name).write_bytes(content)
        return []

    return build


def made(name: str, make: Callable[[], bytes]) -> Callable[[Place], list[str]]:
    """A file whose many bytes are made only where the case is run."""

    def build(place: Place) -> list[str]:
        return write_bytes(name, make())(place)

    return build


def truncated(share: float, suffix: str) -> Callable[[Place], list[str]]:
    def build(place: Place) -> list[str]:
        path = place.lot / f"cut{suffix}"
        Image.open(place.an_image()).save(path)
        os.truncate(path, int(path.stat().st_size * share))
        return []

    return build


def saved(
    name: str, convert: Callable[[Image.Image], Image.Image], **options: object
) -> Callable[[Place], list[str]]:
    def build(place: Place) -> list[str]:
        convert(Image.open(place.an_image())).save(place.lot / name, **options)  # type: ignore[arg-type]
        return []

    return build


def deep(name: str, bits: int, channels: int) -> Callable[[Place], list[str]]:
    """A real image as ``bits``-bit data in a 16-bit file."""

    def build(place: Place) -> list[str]:
        gray = np.asarray(Image.open(place.an_image()).convert("L")).astype(np.uint16)
        values = gray * ((2**bits - 1) // 255)
        cv2.imwrite(str(place.lot / name), values if channels == 1 else np.dstack([values] * channels))
        return []

    return build


def float_tiff(place: Place) -> list[str]:
    Image.open(place.an_image()).convert("F").save(place.lot / "float.tiff")
    return []


def pages(place: Place) -> list[str]:
    page = Image.open(place.an_image())
    page.save(place.lot / "pages.tif", save_all=True, append_images=[page.rotate(90)])
    return []


def rotated_by_exif(place: Place) -> list[str]:
    image = Image.open(place.an_image()).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(place.lot / "turned.jpg", exif=exif)
    return []


def giant(place: Place) -> list[str]:
    """A PNG whose header says 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    (place.lot / "giant.png").write_bytes(content + chunk(b"IEND", b""))
    return []


def postscript(place: Place) -> list[str]:
    """An EPS, and a ``gs`` that removes the lot's first image if it is started."""
    script = wide_open(place.root / "bin") / "gs"
    script.write_text(f"#!/bin/sh\nrm {place.an_image()}\n", encoding="utf-8")
    (place.lot / "eps.png").write_bytes(eps())
    return []


def icon_bomb(place: Place) -> list[str]:
    """An icon of 16 x 16 pixels that holds 400 megapixels."""
    (place.lot / "icon.png").write_bytes(ico(png(size=(20_000, 20_000), bits=1)))
    return []


def odd_names(place: Place) -> list[str]:
    names = [
        b"with space.png",
        b"new\nline.png",
        "größe-部品.png".encode(),
        b"-o.png",
        b"caf\xe9.png",
        b'a,b"c.png',
    ]
    for name in names:
        shutil.copy(place.an_image(), place.lot / os.fsdecode(name))
    return []


def same_stems(place: Place) -> list[str]:
    for folder in ("left", "right"):
        (place.lot / folder).mkdir()
        shutil.copy(place.an_image(), place.lot / folder / "part.png")
    Image.open(place.an_image()).save(place.lot / "left" / "part.bmp")
    return []


def links(place: Place) -> list[str]:
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(place.an_image(), elsewhere / "linked.png")
    (place.lot / "folder").symlink_to(elsewhere)
    (place.lot / "file.png").symlink_to(elsewhere / "linked.png")
    (place.lot / "loop").symlink_to(place.lot)
    (place.lot / "nowhere.png").symlink_to(elsewhere / "gone.png")
    return []


def foreign_marker(place: Place) -> list[str]:
    """A subfolder with a lot.json that is not ours is part of the lot."""
    (place.lot / "b").mkdir()
    (place.lot / "b" / "lot.json").write_text("[]", encoding="ascii")
    shutil.copy(place.an_image(), place.lot / "b" / "b.png")
    return []


def pipe(place: Place) -> list[str]:
    os.mkfifo(place.lot / "pipe.png")
    return []


def mixed_sizes(place: Place) -> list[str]:
    image = Image.open(place.an_image())
    image.resize((640, 320)).save(place.lot / "wide.png")
    image.resize((100, 400)).save(place.lot / "tall.png")
    return []


# ---- folders, outputs, bundles ---------------------------------------------------------------


def other_lot(name: str, make: Callable[[Path], object]) -> Callable[[Place], list[str]]:
    """Another LOT_DIR in place of the lot."""

    def build(place: Place) -> list[str]:
        make(place.root / name)
        return [str(place.root / name)]

    return build


def four_images(place: Place) -> list[str]:
    for path in sorted(place.lot.glob("*.png"))[4:]:
        path.write_bytes(b"")
    return []


def output(make: Callable[[Path], object], *options: str) -> Callable[[Place], list[str]]:
    def build(place: Place) -> list[str]:
        make(place.root / "out")
        return list(options)

    return build


def foreign(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine", encoding="ascii")


def earlier(out: Path) -> None:
    out.mkdir()
    (out / "lot.json").write_text("{}", encoding="ascii")


def earlier_with_foreign(out: Path) -> None:
    earlier(out)
    (out / "notes.txt").write_text("mine", encoding="ascii")


def planted(place: Place) -> list[str]:
    """A link where the results are to be written, to a folder that is nobody's business."""
    (place.root / "thesis").mkdir()
    (place.root / "thesis" / "chapter1.txt").write_text("mine", encoding="ascii")
    (place.root / ".out.partial").symlink_to("thesis")
    return []


def planted_kept(place: Place) -> list[str]:
    planted(place)
    (place.root / ".out.partial").rename(place.root / ".out.kept")
    return ["--resume"]


def long_image(place: Place) -> list[str]:
    """An image with a longer side than a JPEG can have."""
    Image.open(place.an_image()).convert("L").resize((70_000, 4)).save(place.lot / "strip.png")
    return ["--overlays"]


def long_groups(place: Place) -> list[str]:
    """Folders named by 60 characters of three bytes each: within what a name may have, but not twice."""
    for k, name in enumerate(("部" * 60, "品" * 60)):
        folder = place.lot / name
        folder.mkdir()
        for path in sorted(place.lot.glob("*.png"))[: 4 - k]:
            shutil.move(path, folder / path.name)
        shutil.copy(next(folder.glob("*.png")), folder / "more.png")
    for path in place.lot.glob("*.png"):
        shutil.move(path, folder / path.name)
    return ["--group-by", "folder"]


def results_pipe(place: Place) -> list[str]:
    """A subfolder with a pipe of the name that results of an earlier run have."""
    (place.lot / "b").mkdir()
    os.mkfifo(place.lot / "b" / "lot.json")
    shutil.copy(place.an_image(), place.lot / "b" / "b.png")
    return []


def many_ways(place: Place) -> list[str]:
    """26 levels of two links each: 67 million ways to one image."""
    for k in range(26):
        (place.lot / f"{k}").mkdir()
        for side in ("left", "right"):
            (place.lot / f"{k}" / side).symlink_to(place.lot / f"{k + 1}")
    (place.lot / "26").mkdir()
    shutil.copy(place.an_image(), place.lot / "26" / "b.png")
    return []


def bundle(damage: Callable[[Path], None]) -> Callable[[Place], list[str]]:
    def build(place: Place) -> list[str]:
        own = place.own_bundle()
        damage(own)
        return ["-b", str(own)]

    return build


def edit_manifest(**changes: object) -> Callable[[Path], None]:
    def damage(own: Path) -> None:
        path = own / "manifest.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8"
        )

    return damage


def file_outside(own: Path) -> None:
    files = json.loads((own / "manifest.json").read_text(encoding="utf-8"))["files"]
    edit_manifest(files={**files, "../lot": "0"})(own)


def flip_a_bit(own: Path) -> None:
    middle = (own / "model.onnx").stat().st_size // 2
    with (own / "model.onnx").open("r+b") as file:
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))


def weights_outside(own: Path) -> None:
    """A graph whose weights lie in a file outside of the bundle, with the manifest brought in line."""
    move_weights(own, "../w.data")


def weights_unlisted(own: Path) -> None:
    """The same with a file inside, of which the manifest has no hash."""
    move_weights(own, "w.data")


def move_weights(own: Path, location: str) -> None:
    import onnx

    model = onnx.load(own / "model.onnx")
    onnx.save(model, own / "model.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    (own / "w.data").rename(own / location)
    model = onnx.load(own / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (own / "model.onnx").write_bytes(model.SerializeToString())
    files = json.loads((own / "manifest.json").read_text(encoding="utf-8"))["files"]
    edit_manifest(files={**files, "model.onnx": sha256(own / "model.onnx")})(own)


def manifest_pipe(own: Path) -> None:
    (own / "manifest.json").unlink()
    os.mkfifo(own / "manifest.json")


def many_links(own: Path) -> None:
    """A file that is listed is a link to a link, and so on."""
    for k in range(1200):
        (own / f"link{k}").symlink_to(f"link{k + 1}")
    (own / "link1200").write_bytes(b"")
    files = json.loads((own / "manifest.json").read_text(encoding="utf-8"))["files"]
    edit_manifest(files={**files, "link0": "0"})(own)


def arguments(*options: str) -> Callable[[Place], list[str]]:
    return lambda place: list(options)


def groups(sizes: tuple[int, ...], *options: str) -> Callable[[Place], list[str]]:
    def build(place: Place) -> list[str]:
        paths = iter(sorted(place.lot.glob("*.png")))
        for k, size in enumerate(sizes):
            (place.lot / f"part{k}").mkdir()
            for _ in range(size):
                path = next(paths)
                shutil.move(path, place.lot / f"part{k}" / path.name)
        return list(options)

    return build


def copied(name: str) -> Callable[[Place], list[str]]:
    """One of the images once more, under another name."""

    def build(place: Place) -> list[str]:
        (place.lot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place.an_image(), place.lot / name)
        return []

    return build


RGB = "RGB"
JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
CASES = [
    Case("zero-byte file", write_bytes("a.png", b""), 3, "the file is empty", ("a.png",)),
    Case(
        "text with an image's name", write_bytes("a.jpg", b"not an image"), 3, "not an image file", ("a.jpg",)
    ),
    *(
        Case(
            f"{kind} cut after {share:.0%}",
            truncated(share, f".{kind}"),
            3,
            f"cut.{kind}: unreadable",
            (f"cut.{kind}",),
        )
        for kind in ("png", "jpg", "tif", "bmp", "webp")
        for share in (0.02, 0.5, 0.98)
    ),
    Case("pipe with an image's name", pipe, 3, "not a regular file", ("pipe.png",)),
    Case("60,000 x 60,000 pixels", giant, 3, "too_large (60000 x 60000 pixels", ("giant.png",)),
    Case(
        "EPS with an image's name",
        postscript,
        3,
        "a file of the kind EPS, which is not read",
        ("eps.png",),
    ),
    Case(
        "icon that holds 20,000 x 20,000 pixels",
        icon_bomb,
        3,
        "a file of the kind ICO, which is not read",
        ("icon.png",),
    ),
    Case(
        "TIFF with 100,000 pages",
        made("pages.tif", lambda: tiff_of_pages(100_000)),
        0,
        "1 file has several pages; the first page",
        scored=9,
    ),
    Case(
        "TIFF with 4 million strips",
        made("strips.tif", lambda: tiff_of_strips(4_000_000)),
        3,
        "more than 524,288 strips or tiles",
        ("strips.tif",),
    ),
    Case(
        "JPEG with 3,000 scans",
        write_bytes("scans.jpg", jpeg_of_scans(3_000)),
        3,
        "more than 100 scans",
        ("scans.jpg",),
    ),
    Case(
        "PNG with a million chunks",
        made("chunks.png", lambda: png(before=chunk(b"prIv") * 10**6)),
        3,
        "more than 1,000 chunks",
        ("chunks.png",),
    ),
    Case(
        "run-length-encoded BMP of 100 megapixels",
        write_bytes("runs.bmp", run_length_bmp(10_000, 10_000, b"\0\1")),
        3,
        "a large run-length-encoded BMP",
        ("runs.bmp",),
    ),
    Case("float TIFF", float_tiff, 3, "floating-point pixels have no known white", ("float.tiff",)),
    Case("gray with alpha", saved("a.png", lambda i: i.convert("LA")), 0, "most suspicious of 9", scored=9),
    Case("palette", saved("a.png", lambda i: i.convert("P")), 0, "most suspicious of 9", scored=9),
    Case("RGBA", saved("a.webp", lambda i: i.convert("RGBA")), 0, "most suspicious of 9", scored=9),
    Case("CMYK", saved("a.jpg", lambda i: i.convert("CMYK")), 0, "most suspicious of 9", scored=9),
    Case("1 bit per pixel", saved("a.tif", lambda i: i.convert("1")), 0, "most suspicious of 9", scored=9),
    Case("rotated by EXIF", rotated_by_exif, 0, "most suspicious of 9", scored=9),
    Case("TIFF with two pages", pages, 0, "1 file has several pages; the first page", scored=9),
    Case("12-bit gray in a 16-bit PNG", deep("a.png", 12, 1), 0, "read as 12-bit data", scored=9),
    Case("12-bit RGB in a 16-bit PNG", deep("a.png", 12, 3), 0, "read as 12-bit data", scored=9),
    Case("16-bit RGB TIFF", deep("a.tif", 16, 3), 0, "read as 16-bit data", scored=9),
    Case(
        "16-bit data with --bit-depth 12",
        lambda place: [*deep("a.png", 16, 1)(place), "--bit-depth", "12"],
        3,
        "above 12 bits; use --bit-depth auto",
        ("a.png",),
    ),
    Case("other sizes and aspects", mixed_sizes, 0, "images have 3 sizes", scored=10),
    Case("subfolder with a foreign lot.json", foreign_marker, 0, "most suspicious of 9", scored=9),
    Case("odd names", odd_names, 0, "most suspicious of 14", scored=14),
    Case("one stem in two folders, two suffixes", same_stems, 0, "most suspicious of 11", scored=11),
    Case("links, a loop, a dead link", links, 3, "nowhere.png: unreadable", ("nowhere.png",), scored=10),
    Case("folder that does not exist", other_lot("nowhere", lambda path: None), 2, "does not exist"),
    Case("file instead of a folder", other_lot("file", Path.touch), 2, "is a file"),
    Case("empty folder", other_lot("empty", Path.mkdir), 6, "no image was found"),
    Case("four readable images", four_images, 6, "4 images are too few"),
    Case("folder of other files as output", output(foreign, "--overwrite"), 7, "not ours"),
    Case("results of an earlier run as output", output(earlier), 7, "--overwrite"),
    Case("file as output", output(Path.touch), 7, "is a file"),
    Case("output that cannot be written", arguments("-o", "/proc/out"), 7, "cannot be written"),
    Case(
        "the lot itself as output",
        lambda place: ["-o", str(place.lot), "--overwrite"],
        7,
        "is or holds the lot",
    ),
    Case(
        "a folder above the lot as output",
        lambda place: ["-o", str(place.root), "--overwrite"],
        7,
        "is or holds",
    ),
    Case(
        "results with a foreign file as output", output(earlier_with_foreign, "--overwrite"), 7, "(notes.txt)"
    ),
    Case("link where the results are to be written", planted, 7, "is in the way", stays=(".out.partial",)),
    Case(
        "link where work is to be kept", planted_kept, 7, "where work is kept, cannot", stays=(".out.kept",)
    ),
    Case("image of 70,000 x 4 pixels with --overlays", long_image, 0, "no overlay of strip.png", scored=9),
    Case("groups named by 60 Chinese characters", long_groups, 0, "10 images", scored=10),
    Case("pipe with the name of results", results_pipe, 0, "most suspicious of 9", scored=9),
    Case("67 million ways to one folder", many_ways, 0, "most suspicious of 9", scored=9),
    Case("empty argument for the lot", lambda place: [""], 2, "LOT_DIR is empty"),
    Case("no bundle there", arguments("-b", "nowhere"), 4, "there is no such folder"),
    Case(
        "bundle without its model", bundle(lambda own: (own / "model.onnx").unlink()), 4, "lacks model.onnx"
    ),
    Case("bundle with one bit flipped", bundle(flip_a_bit), 4, "was changed since it was written"),
    Case("bundle of a newer schema", bundle(edit_manifest(schema_version=99)), 4, "Upgrade musc-edge"),
    Case("bundle with a file outside", bundle(file_outside), 4, "lies outside of it"),
    Case("bundle with weights outside", bundle(weights_outside), 4, "takes weights from '../w.data'"),
    Case(
        "bundle with weights that the manifest does not list",
        bundle(weights_unlisted),
        4,
        "takes weights from 'w.data', which the manifest does not list",
    ),
    Case("pipe in place of the manifest", bundle(manifest_pipe), 4, "not a regular file"),
    Case(
        "bundle with a number of 400 digits",
        bundle(edit_manifest(token_width=10**400)),
        4,
        "expected 1 to 16384",
    ),
    Case(
        "manifest that is nested deeply",
        bundle(edit_manifest(parity={"a": json.loads("[" * 300 + "]" * 300)})),
        4,
        "nested deeper than 32 levels",
    ),
    Case("file of the bundle behind 1,200 links", bundle(many_links), 4, "Do not use this bundle"),
    Case("budget that is too small", arguments("--memory-budget", "1M"), 6, "the smallest that works is"),
    Case("maps none with a map format", arguments("--maps", "none", "--map-format", "tiff"), 2, "no meaning"),
    Case("100,000 threads", arguments("--threads", "100000"), 2, "at most 256 threads"),
    Case("even degree", arguments("--degrees", "2"), 2, "odd"),
    Case("interval the wrong way round", arguments("--interval", "0.3,0.1"), 2, "lo < hi"),
    Case("interval too narrow for the lot", arguments("--interval", "0,0.05"), 6, "at least 21"),
    Case(
        "groups, one too small",
        groups((6, 2), "--group-by", "folder"),
        3,
        "folder part1: not scored (2 images are too few",
        ("part1/cell0061.png", "part1/cell0071.png"),
        scored=6,
    ),
    Case("groups, all too small", groups((4, 4), "--group-by", "folder"), 6, "part1 (4)"),
    Case("picture with an unusual ending", write_bytes("a.jp2", JPEG_2000), 3, "JPEG 2000", ("a.jp2",)),
    Case("picture without an ending", copied("scan"), 0, "images by their first bytes", scored=9),
    Case("thumbnails of a NAS", copied("@eaDir/a/SYNOPHOTO_THUMB_M.jpg"), 0, "1 folder with 1 file"),
    Case("raw file of a camera", copied("a.nef"), 3, "a camera's raw file (.nef)", ("a.nef",)),
    Case("the same image twice", copied("again.png"), 0, "(the same bytes)", scored=9),
    Case("files that are no images", write_bytes("a.txt", b"x"), 0, "left out: 1 .txt (first: a.txt)"),
    Case("pattern that matches nothing", arguments("--exclude", "*.PNG"), 6, "matches the pattern '*.PNG'"),
]
