"""Read Netpbm files: pbm, pgm, ppm as text or bytes, and pam, each on the scale of its own largest value."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..types import Array
from .image_bytes import FileHeader, ImageError, read_at
from .samples import Samples

KINDS = tuple(b"P%d" % number for number in range(1, 8))

_MOST_HEADER = 1 << 16  # bytes, comments included
_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")
_CHANNELS = {"BLACKANDWHITE": 1, "GRAYSCALE": 1, "RGB": 3}


@dataclass(frozen=True)
class _Info:
    """What the header says: ``channels`` of a pixel, alpha included; ``white``; where the pixels begin."""

    kind: int
    width: int
    height: int
    channels: int
    white: int
    pixels: int

    @property
    def alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def size(self) -> int:
        """Bytes of the pixels; of text, the least that there can be."""
        if self.kind == 4:
            return (self.width + 7) // 8 * self.height
        return self.width * self.height * self.channels * (1 if self.white < 256 or self.kind < 4 else 2)


def netpbm_header(file: BinaryIO) -> FileHeader:
    """Read the size of a Netpbm file; ImageError if it has no header, or one without sense."""
    info = _info(file)
    deep = info.white > 255
    # 65535 is what 16 bits can hold, and not what a camera's white is.
    white = info.white if deep and info.white != 65535 else None
    end = info.pixels + info.size
    more = info.kind > 3 and read_at(file, end, 2) in KINDS
    bits = info.white.bit_length() if deep else 8
    return FileHeader("netpbm", info.width, info.height, info.size, 1 + more, bits, white, decoder="netpbm")


def netpbm_samples(file: BinaryIO, header: FileHeader) -> Samples:
    """Read the pixels; ImageError if they are damaged or above the largest value that the header names."""
    info = _info(file)
    pixels = _text(file, info, header) if info.kind < 4 else _bytes(file, info)
    if info.kind in (1, 4):
        pixels = 1 - pixels  # here 1 is ink
    if pixels.max() > info.white:
        raise ImageError("unreadable", f"holds the value {pixels.max()}, above its own largest, {info.white}")
    colour, alpha = (pixels[..., :-1], pixels[..., -1]) if info.alpha else (pixels, None)
    return Samples(colour, alpha, header.white or (info.white if info.white < 256 else None), info.white)


def _bytes(file: BinaryIO, info: _Info) -> Array:
    content = np.frombuffer(read_at(file, info.pixels, info.size), np.uint8)
    if content.size < info.size:
        raise ImageError("unreadable", "image file is truncated")
    if info.kind == 4:
        return np.unpackbits(content.reshape(info.height, -1), axis=1)[:, : info.width, None]
    values = content if info.white < 256 else content.view(">u2").astype(np.uint16)
    return values.reshape(info.height, info.width, info.channels)


def _text(file: BinaryIO, info: _Info, header: FileHeader) -> Array:
    """Read numbers that are written out; in a pbm they need no space between them."""
    most = info.size * 8 + _MOST_HEADER
    left = os.fstat(file.fileno()).st_size - info.pixels
    if left > min(most, header.most_bytes):
        raise ImageError("unsupported", "its data is far more than its pixels need")
    content = re.sub(rb"#[^\r\n]*", b" ", read_at(file, info.pixels, most))
    if info.kind == 1:
        found = np.frombuffer(re.sub(rb"\s+", b"", content), np.uint8) - np.uint8(ord("0"))
    else:
        found = _numbers(content)
    if found.size < info.size:
        raise ImageError("unreadable", "image file is truncated")
    pixels = found[: info.size].reshape(info.height, info.width, info.channels)
    if pixels.max() > info.white:
        raise ImageError("unreadable", f"holds the value {pixels.max()}, above its own largest, {info.white}")
    return pixels.astype(np.uint8 if info.white < 256 else np.uint16)


def _numbers(content: bytes) -> Array:
    if not re.fullmatch(rb"[0-9\s]*[0-9][0-9\s]*", content):
        raise ImageError("unreadable", "a Netpbm file with something else than numbers")
    return np.fromstring(content, np.uint32, sep=" ")


def _info(file: BinaryIO) -> _Info:
    start = read_at(file, 0, _MOST_HEADER)
    kind = start[1] - ord("0")
    if kind == 7:
        return _pam(start)
    wanted, at = (2 if kind in (1, 4) else 3), 2
    numbers: list[int] = []
    while len(numbers) < wanted and (found := _TOKEN.match(start, at)):
        numbers.append(_whole(found[1]))
        at = found.end()
    if len(numbers) < wanted:
        raise ImageError("unreadable", "a Netpbm file without its header")
    width, height, white = (*numbers, 1)[:3]
    return _Info(kind, width, height, 3 if kind in (3, 6) else 1, _white(white), at + 1)


def _pam(start: bytes) -> _Info:
    head, end, _ = start.partition(b"ENDHDR\n")
    lines = [
        line.split(None, 1) for line in head.split(b"\n")[1:] if line.strip() and not line.startswith(b"#")
    ]
    found = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    if not end or not {b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"} <= found.keys():
        raise ImageError("unreadable", "a PAM file without its header")
    width, height, depth, white = (_whole(found[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    kind = found.get(b"TUPLTYPE", {1: b"GRAYSCALE", 3: b"RGB"}.get(depth, b"")).decode("latin-1")
    base = _CHANNELS.get(kind.removesuffix("_ALPHA"), 0) + kind.endswith("_ALPHA")
    if base != depth:
        raise ImageError("unsupported", f"a PAM file of {depth} channels that are called {kind or 'nothing'}")
    return _Info(7, width, height, depth, _white(white), len(head) + len(end))


def _whole(text: bytes) -> int:
    if not text.isdigit() or len(text) > 9:
        raise ImageError("unreadable", f"a Netpbm file with {text[:20].decode('latin-1')!r} for a number")
    return int(text)


def _white(value: int) -> int:
    if not 1 <= value <= 65535:
        raise ImageError("unreadable", f"a Netpbm file with {value} for its largest value")
    return value
