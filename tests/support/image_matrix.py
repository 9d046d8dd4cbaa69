"""One picture in some thousand containers, and what each must give: its colours, or a reason.

What is expected comes from the picture that was written, never from the reader.  All of it is read by
``tests/runtime/images/test_matrix.py``; ``tests/measure/image_formats.py`` makes docs/image-formats.md of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from support import containers as raw
from support.lots import Array

WIDTH, HEIGHT = 24, 17
Write = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A file to write, and what reading it must give.

    Attributes
    ----------
    group : kind of container, a row of the table.
    name : what is special about this one.
    write : writes it.
    picture : (H,W,3) the colours from 0 to 255 that must come out; None where ``reason`` must be given.
    within : largest difference that is right.
    reason : part of the reason of a refusal.
    bit_depth : of the lot.
    suffix : of the file's name.
    """

    group: str
    name: str
    write: Write
    picture: Array | None = None
    within: float = 0.51
    reason: str = ""
    bit_depth: int = 16
    suffix: str = ".tif"


def picture(colours: int = 3) -> Array:
    """Colours from 0 to 1 (H,W,colours): lopsided and smooth, so that turning or shifting it changes it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    planes = [
        0.5 + 0.3 * np.sin(2 * x + k) * np.cos(1.5 * y - 0.4 * k) + 0.12 * x - 0.1 * y * y
        for k in range(colours)
    ]
    return np.asarray(np.clip(np.stack(planes, -1), 0.04, 0.96))


def levels(values: Array, bits: int) -> Array:
    """Values from 0 to 1 as whole numbers of some bits."""
    return np.asarray(np.round(values * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16))


def shown(values: Array, full: float) -> Array:
    """Stored values (H,W), (H,W,1) or (H,W,3) as colours from 0 to 255 (H,W,3)."""
    colours = values.reshape(*values.shape[:2], -1)[..., :3] * (255 / full)
    return np.broadcast_to(colours, (*colours.shape[:2], 3)).astype(float)


ALPHA = np.linspace(0.25, 1, WIDTH)[None].repeat(HEIGHT, 0)
TURN: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""How stored pixels are turned for display (TIFF 6.0 and EXIF 2.3, tag 274)."""


def cases() -> Iterator[Case]:
    """Yield all cases."""
    from support import other_containers, tiff_containers

    for part in (tiff_containers, other_containers):
        for make in part.PARTS:
            yield from make()


def by_group(found: Iterable[Case]) -> dict[str, list[Case]]:
    """Sort cases into their groups."""
    groups: dict[str, list[Case]] = {}
    for case in found:
        groups.setdefault(case.group, []).append(case)
    return groups


@cache
def groups() -> dict[str, list[Case]]:
    """Return all cases by group, made once: encoders take a second."""
    return by_group(cases())


def tif(data: Array, **options: Any) -> Write:
    """Write by tifffile."""

    def write(path: Path) -> None:
        tifffile.imwrite(path, data, metadata=None, software=False, **options)

    return write


def content(data: bytes | bytearray) -> Write:
    return lambda path: path.write_bytes(data)


def product(*choices: Any) -> Iterator[tuple[Any, ...]]:
    return itertools.product(*choices)


__all__ = [
    "ALPHA",
    "HEIGHT",
    "TURN",
    "WIDTH",
    "Case",
    "cases",
    "content",
    "levels",
    "picture",
    "product",
    "raw",
    "shown",
    "tif",
]


@dataclass(frozen=True)
class Outcome:
    """What reading a case gave: whether that is right, and in words."""

    right: bool
    scored: bool
    said: str
    most: float = 0.0


def outcome(case: Case, folder: Path) -> Outcome:
    """Write a case, read it, and compare."""
    from musc_edge.runtime.images.reading import ImageError, read_header, read_image

    path = folder / f"x{case.suffix}"
    case.write(path)
    try:
        header = read_header(path)
        image = read_image(path, case.bit_depth)
    except ImageError as error:
        expected = case.picture is None and error.status == "unsupported" and case.reason in str(error)
        return Outcome(expected, False, f"{error.status}: {error}")
    if case.picture is None:
        return Outcome(False, True, "read, though nobody can know what it means")
    found = np.asarray(image).astype(float)
    if found.shape != case.picture.shape or image.size != (header.width, header.height):
        return Outcome(False, True, f"shape {found.shape}, header {header.height, header.width}")
    most = float(np.abs(found - case.picture).max())
    return Outcome(
        most <= case.within, True, f"differs by at most {most:.2f}, {case.within} are allowed", most
    )
