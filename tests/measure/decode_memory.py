"""Measure the memory that reading an image takes, for each decoder, against what headers promise.

    python tests/measure/decode_memory.py [--megapixels 20] [KIND ...]

Every file is read in a process of its own; its peak, without what the process had before, is compared with
``Header.decode_bytes``.  The exit code is 1 if a promise does not hold.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.lots import Array

READ = """
import sys
from pathlib import Path
import numpy as np
from musc_edge.runtime.images.reading import deepest_value, read_header, read_image
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
path, warm = Path(sys.argv[2]), Path(sys.argv[3])
read_image(warm)
header = read_header(path, 1 << 40)
open("/proc/self/clear_refs", "w").write("5")
before = peak()
if sys.argv[1] == "deepest":
    deepest_value(path, 1 << 40)
else:
    read_image(path, 16, 1 << 40)
print(peak() - before, header.decode_bytes)
"""


Kind = type[np.uint8] | type[np.uint16]


def picture(pixels: int, channels: int, kind: Kind) -> Array:
    """Noise, which packs badly: (H,W,channels), or (H,W) for one."""
    height = int((pixels * 0.8) ** 0.5)
    shape = (height, pixels // height, channels)[: 2 if channels == 1 else 3]
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape).astype(kind)


def smooth(pixels: int, channels: int, kind: Kind) -> Array:
    """The same in squares of 16 pixels a side, for encoders that take minutes on noise."""
    return picture(pixels // 256, channels, kind).repeat(16, axis=0).repeat(16, axis=1)


def by_pillow(channels: int, form: str, **options: Any) -> Callable[[Path, int], None]:
    def write(path: Path, pixels: int) -> None:
        mode = "CMYK" if form == "JPEG" and channels == 4 else None
        make = smooth if form in ("AVIF", "JPEG2000", "WEBP") else picture
        image = Image.fromarray(make(pixels, channels, np.uint8))
        if mode:
            image = Image.frombytes(mode, image.size, image.tobytes())
        image.save(path, form, **options)

    return write


def by_tifffile(channels: int, kind: Kind, **options: Any) -> Callable[[Path, int], None]:
    def write(path: Path, pixels: int) -> None:
        make = smooth if options.get("compression") == "jpeg2000" else picture
        values = make(pixels, channels, kind)
        if options.get("planarconfig") == "separate":
            values = np.moveaxis(values, -1, 0).copy()
        tifffile.imwrite(path, values, **options)

    return write


def by_opencv(channels: int, kind: Kind = np.uint16) -> Callable[[Path, int], None]:
    def write(path: Path, pixels: int) -> None:
        import cv2

        done, data = cv2.imencode(".png", picture(pixels, channels, kind), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert done
        path.write_bytes(data.tobytes())

    return write


def by_codec(name: str, channels: int, kind: Kind, **options: Any) -> Callable[[Path, int], None]:
    def write(path: Path, pixels: int) -> None:
        import imagecodecs

        path.write_bytes(getattr(imagecodecs, f"{name}_encode")(smooth(pixels, channels, kind), **options))

    return write


def netpbm(channels: int, white: int, text: bool) -> Callable[[Path, int], None]:
    def write(path: Path, pixels: int) -> None:
        values = picture(pixels, channels, np.uint8 if white < 256 else np.uint16)
        values = values if white in (255, 65535) else values % (white + 1)
        head = b"P%d\n%d %d\n%d\n" % (
            (2 if text else 5) + (channels == 3),
            values.shape[1],
            values.shape[0],
            white,
        )
        data = (
            " ".join(map(str, values.ravel().tolist())).encode()
            if text
            else values.astype(values.dtype.newbyteorder(">")).tobytes()
        )
        path.write_bytes(head + data)

    return write


def heic(path: Path, pixels: int) -> None:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(smooth(pixels, 3, np.uint8))).save(buffer, quality=50)
    path.write_bytes(buffer.getvalue())


def bmp(path: Path, pixels: int) -> None:
    from support.containers import bmp as encode

    path.write_bytes(encode(picture(pixels, 1, np.uint16), 16))


RGB: dict[str, Any] = {"photometric": "rgb"}
KINDS: dict[str, Callable[[Path, int], None]] = {
    "jpeg gray": by_pillow(1, "JPEG"),
    "jpeg rgb": by_pillow(3, "JPEG"),
    "jpeg rgb progressive": by_pillow(3, "JPEG", progressive=True, subsampling=0),
    "jpeg cmyk progressive": by_pillow(4, "JPEG", progressive=True, subsampling=0),
    "png gray": by_pillow(1, "PNG", compress_level=1),
    "png rgb": by_pillow(3, "PNG", compress_level=1),
    "png rgba": by_pillow(4, "PNG", compress_level=1),
    "png gray deep": by_opencv(1),
    "png rgb deep": by_opencv(3),
    "png rgba deep": by_opencv(4),
    "tiff gray": by_tifffile(1, np.uint8),
    "tiff rgb": by_tifffile(3, np.uint8, **RGB),
    "tiff rgb lzw": by_tifffile(3, np.uint8, compression="lzw", **RGB),
    "tiff rgba": by_tifffile(4, np.uint8, extrasamples=("unassalpha",), **RGB),
    "tiff rgb planes": by_tifffile(3, np.uint8, planarconfig="separate", compression="lzw", **RGB),
    "tiff gray deep": by_tifffile(1, np.uint16),
    "tiff rgb deep": by_tifffile(3, np.uint16, **RGB),
    "tiff rgb deep strips": by_tifffile(3, np.uint16, rowsperstrip=1, **RGB),
    "tiff rgb deep lzw": by_tifffile(3, np.uint16, compression="lzw", predictor=True, **RGB),
    "tiff rgb one strip": by_tifffile(
        3, np.uint16, compression="deflate", predictor=True, rowsperstrip=1 << 20, **RGB
    ),
    "tiff rgba deep lzw": by_tifffile(4, np.uint16, compression="lzw", extrasamples=("unassalpha",), **RGB),
    "tiff rgb deep planes": by_tifffile(3, np.uint16, compression="lzw", planarconfig="separate", **RGB),
    "tiff rgb deep tiles": by_tifffile(3, np.uint16, compression="deflate", tile=(256, 256), **RGB),
    "tiff five deep": by_tifffile(5, np.uint16, compression="lzw", extrasamples=(0, 0), **RGB),
    "tiff white is zero deep": by_tifffile(1, np.uint16, photometric="miniswhite", compression="lzw"),
    "tiff cmyk": by_tifffile(4, np.uint8, photometric="separated", compression="lzw"),
    "tiff cmyk deep": by_tifffile(4, np.uint16, photometric="separated", compression="lzw"),
    "tiff lab": by_tifffile(3, np.uint8, photometric="cielab", compression="lzw"),
    "tiff lab deep": by_tifffile(3, np.uint16, photometric="cielab", compression="lzw"),
    "tiff jpeg": by_tifffile(3, np.uint8, compression="jpeg", **RGB),
    "tiff jpeg2000": by_tifffile(3, np.uint8, compression="jpeg2000", **RGB),
    "bmp rgb": by_pillow(3, "BMP"),
    "bmp 555": bmp,
    "webp lossy": by_pillow(3, "WEBP", method=0),
    "webp lossless": by_pillow(4, "WEBP", lossless=True, quality=0, method=0),
    "gif": by_pillow(1, "GIF"),
    "netpbm gray": netpbm(1, 255, False),
    "netpbm rgb deep": netpbm(3, 4095, False),
    "netpbm rgb text": netpbm(3, 255, True),
    "netpbm rgb deep text": netpbm(3, 65535, True),
    "jpeg2000 rgb": by_pillow(3, "JPEG2000"),
    "jpeg2000 rgb deep": by_codec("jpeg2k", 3, np.uint16, level=0),
    "jpegxl rgb": by_codec("jpegxl", 3, np.uint8, effort=1),
    "jpegxl rgb deep": by_codec("jpegxl", 3, np.uint16, effort=1, lossless=True),
    "avif rgb": by_pillow(3, "AVIF", speed=10, quality=50),
    "heic rgb": heic,
}


def measure(kind: str, pixels: int, folder: Path, what: str) -> tuple[int, int, int]:
    """Return the peak, what was promised, and the size of the file, in bytes."""
    KINDS[kind](folder / "image", pixels)
    KINDS[kind](folder / "small", 5000)
    command = [sys.executable, "-c", READ, what, str(folder / "image"), str(folder / "small")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, promised = (int(part) for part in run.stdout.split())
    return peak, promised, (folder / "image").stat().st_size


def main() -> int:
    """Measure the kinds that are asked for, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megapixels", type=float, default=20)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    arguments = parser.parse_args()
    pixels, broken = int(arguments.megapixels * 1e6), 0
    print("| kind | bytes in the file, per pixel | peak | promised | largest value: peak |")
    print("|---|---|---|---|---|")
    for kind in arguments.kinds or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            peak, promised, size = measure(kind, pixels, Path(folder), "read")
            deep = measure(kind, pixels, Path(folder), "deepest")[0] if "deep" in kind else 0
        broken += max(peak, deep) > promised
        figures = " | ".join(f"{n / pixels:.1f}" for n in (size, peak, promised, deep))
        print(f"| {kind} | {figures} |{' BROKEN' if max(peak, deep) > promised else ''}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
