"""Types of command-line arguments: the text that was given as a value, or an error on what was expected."""

from __future__ import annotations

import argparse
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .._numbers import counted
from ..runtime.errors import LotError
from ..runtime.settings import AUTO, MAX_DEGREE
from ..runtime.tiling import Tiles
from .usage import UsageError

if TYPE_CHECKING:
    from ..runtime.types import LotRoot

MAX_THREADS, MAX_BATCH, MAX_IMAGES = 256, 1024, 10**7
_AMOUNT = re.compile(
    r"(?P<number>(\d+(\.\d*)?|\.\d+)(e\d+)?) *(?P<unit>[kmgt]?)(?P<binary>i(?=b))?b?",
    re.IGNORECASE | re.ASCII,
)
_DAY = 86400
_DIGITS = 18
_LEAST_MEMORY, _FEW_GIGABYTES, _LEAST_PIXELS = 100_000, 64, 1000


def lot_root(text: str) -> LotRoot:
    """The folder or URL of a lot; UsageError if there is no such folder, or the URL cannot be taken."""
    from ..runtime.remote import RemoteFolder, is_url

    try:
        return RemoteFolder.of(text) if is_url(text) else lot_folder(text)
    except LotError as error:
        raise UsageError(str(error)) from error


def lot_folder(text: str) -> Path:
    """The folder of a lot; UsageError if there is none."""
    give = "give the folder that holds the lot's images"
    if not text:
        raise UsageError(f"LOT_DIR is empty: {give}.")
    if not _is_there(text, folder=True):
        problem = "is a file" if _is_there(text) else "does not exist"
        raise UsageError(f"{text} {problem}: {give}.")
    return Path(text)


def integers(text: str) -> tuple[int, ...]:
    """Parse '1,3,5' -> (1, 3, 5)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers such as 1,3,5") from error


def arches(text: str) -> tuple[str, ...]:
    """Parse 'sm_87,sm_86' -> ("sm_87", "sm_86"), each once."""
    from ..kernels.cuda_source import arch_number

    names = tuple(dict.fromkeys(text.split(",")))
    try:
        for name in names:
            arch_number(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names


def cluster(text: str) -> str:
    """Take "auto" or the address of a cluster."""
    from ..runtime.settings import require_address

    try:
        require_address(text)
    except LotError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def degrees(text: str) -> tuple[int, ...]:
    """Parse aggregation degrees: positive odd numbers, each once."""
    values = integers(text)
    if any(value % 2 == 0 or not 1 <= value <= MAX_DEGREE for value in values) or len(set(values)) != len(
        values
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected different odd numbers from 1 to {MAX_DEGREE} such as 1,3,5"
        )
    return values


def degrees_or_auto(text: str) -> tuple[int, ...] | str:
    """Parse aggregation degrees, or 'auto'."""
    return text if text == AUTO else degrees(text)


def neighbors(text: str) -> tuple[int, ...]:
    """Parse window sizes of RsCIN: 1 or more."""
    values = integers(text)
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of 1 or more such as 1,2,3")
    return values


def interval(text: str) -> tuple[float, float]:
    """Parse '0,0.3' -> (0.0, 0.3), with 0 <= lo < hi <= 1."""
    try:
        lo, hi = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two numbers such as 0,0.3") from error
    if not 0 <= lo < hi <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 <= lo < hi <= 1")
    return lo, hi


def tiles(text: str) -> Tiles:
    """Parse '2x3' (rows and columns) or '640' (pixels of a side)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(_is_number(part) and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected ROWSxCOLUMNS such as 2x3, or a side in pixels such as 640"
        )
    try:
        if len(parts) == 1:
            return Tiles(side=int(parts[0]))
        return Tiles(int(parts[0]), int(parts[1]))
    except LotError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def overlap(text: str) -> float:
    """Parse a share of a tile, such as 0.25, or whole pixels, such as 64."""
    try:
        return Tiles(1, 1, overlap=float(text)).overlap
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a share such as 0.25, or pixels such as 64"
        ) from error
    except LotError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def roi(text: str) -> tuple[int, int, int, int] | Path:
    """Parse 'x,y,w,h' in pixels, or the path of a mask or of a folder of masks."""
    if re.fullmatch(r"-?\d+(,-?\d+)+", text):
        values = integers(text)
        if len(values) != 4 or min(values) < 0 or min(values[2:]) < 1:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected x,y,w,h in pixels such as 100,50,800,600, the file of a mask, or a "
                "folder of masks"
            )
        return values[0], values[1], values[2], values[3]
    if not _is_there(text or "-"):
        raise argparse.ArgumentTypeError(
            f"{text!r} does not exist: expected x,y,w,h in pixels, the file of a mask, or a folder of masks"
        )
    path = Path(text)
    _require_masks(path)
    return path


def _require_masks(path: Path) -> None:
    """Raise ArgumentTypeError unless ``path`` is an image, as a mask is, or a folder with any below it."""
    from ..runtime.images.kinds import IMAGE_SUFFIXES
    from ..runtime.images.reading import ImageError, read_header

    if path.is_dir():
        if not any(each.suffix.lower() in IMAGE_SUFFIXES for each in path.rglob("*")):
            raise argparse.ArgumentTypeError(f"{str(path)!r} has no image in it: expected a folder of masks")
        return
    try:
        read_header(path)
    except ImageError as error:
        raise argparse.ArgumentTypeError(f"the mask {str(path)!r} cannot be read: {error}") from error


def window(text: str) -> int:
    """Parse a number of patches from 0 on."""
    if not _is_number(text) or int(text) > MAX_DEGREE:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of patches from 0 to {MAX_DEGREE}")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not _is_number(text) or int(text) < 1:
        most = f", of at most {_DIGITS} digits" if text.isdecimal() and len(text) > _DIGITS else ""
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more{most}")
    return int(text)


def share(text: str) -> float:
    """Parse a share above 0 and below 1, such as 0.1."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share such as 0.1") from error
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share above 0 and below 1, such as 0.1")
    return value


def share_or_auto(text: str) -> float | str:
    """Parse a share from 0 to 1, or 'auto'."""
    if text == AUTO:
        return AUTO
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share from 0 to 1 such as 0.5, or {AUTO}")
    return value


def seconds(text: str) -> float:
    """Parse a time above 0 and up to a day, in seconds."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds such as 2 or 0.5") from error
    if not 0 < value <= _DAY:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds above 0, and at most a day ({_DAY})")
    return value


def public_key(text: str) -> str:
    """The file of a public key, or a folder of them."""
    expected = "expected the file of a public key, or a folder of such files"
    try:
        # As it is given on, in a variable that has a colon between two keys.
        there, whole = bool(text) and Path(text).exists(), os.path.abspath(text)  # noqa: PTH100
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read ({error.strerror}): {expected}") from error
    if os.pathsep in whole:
        raise argparse.ArgumentTypeError(
            f"{text!r} is {whole!r}, which has a {os.pathsep!r} in it: give the option once for each key, or "
            "rename the file or folder"
        )
    if not there:
        raise argparse.ArgumentTypeError(f"{text!r} does not exist: {expected}")
    return text


def threads(text: str) -> int:
    """Parse a number of threads."""
    return _at_most(positive(text), MAX_THREADS, "threads")


def batch(text: str) -> int:
    """Parse the images in one run of the ViT."""
    return _at_most(positive(text), MAX_BATCH, "images")


def images(text: str) -> int | LotRoot:
    """Parse the number of images of a lot, or a folder or URL of them."""
    from ..runtime.remote import is_url

    if is_url(text):
        try:
            return lot_root(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    if text.isdecimal():
        return _at_most(positive(text), MAX_IMAGES, "images")
    if not _is_there(text or "-", folder=True):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of images, or a folder of them")
    return Path(text)


def top(text: str) -> int:
    """Parse how many of the most suspicious images are shown."""
    from ..runtime.results.image_files import MOST_TOP

    return _at_most(positive(text), MOST_TOP, "images")


def _is_there(text: str, folder: bool = False) -> bool:
    """Return whether a file or folder has this name, which may be longer than any name can be."""
    try:
        return Path(text).is_dir() if folder else Path(text).exists()
    except (OSError, ValueError):
        return False


def _is_number(text: str) -> bool:
    """Return whether a text is a whole number from 0 on, of so many digits that Python reads it."""
    return text.isdecimal() and len(text) <= _DIGITS


def _at_most(value: int, limit: int, what: str) -> int:
    if value > limit:
        raise argparse.ArgumentTypeError(f"{value}: expected at most {limit} {what}")
    return value


def image_size(text: str) -> tuple[int, int]:
    """Parse '224' -> (224, 224); '224x448' -> height 224, width 448."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(_is_number(part) and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected pixels such as 224, or HEIGHTxWIDTH such as 224x448"
        )
    return int(parts[0]), int(parts[-1])


def triple(text: str) -> tuple[float, float, float]:
    """Parse three numbers such as '0.485,0.456,0.406'."""
    try:
        r, g, b = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers, for R, G and B") from error
    if not all(map(math.isfinite, (r, g, b))):
        raise argparse.ArgumentTypeError(f"{text!r}: expected three finite numbers, for R, G and B")
    return r, g, b


def spread(text: str) -> tuple[float, float, float]:
    """Parse three numbers above 0."""
    values = triple(text)
    if not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers above 0, for R, G and B")
    return values


def memory(text: str) -> int:
    """Parse '2G', '500M', '1.5 GiB' or a number of bytes."""
    value = _amount(text, "an amount of memory such as 500M or 2G")
    if value < _LEAST_MEMORY:
        unit = "G" if value < _FEW_GIGABYTES else "M"
        meant = f"; did you mean {text}{unit}?" if text.isdecimal() else ""
        raise argparse.ArgumentTypeError(
            f"{text!r} is {counted(value, 'byte')}, too little for anything{meant}"
        )
    return value


def memories(text: str) -> tuple[int, ...]:
    """Parse amounts of memory such as '8G,24G'."""
    return tuple(memory(part) for part in text.split(","))


def pixels(text: str) -> int:
    """Parse '400M' or a number of pixels."""
    value = _amount(text, "a number of pixels such as 400M")
    if value < _LEAST_PIXELS and text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r}: no photograph has so few pixels in all; did you mean {text}M?"
        )
    return value


def _amount(text: str, expected: str) -> int:
    parts = _AMOUNT.fullmatch(text.strip())
    value = 0
    if parts:
        unit, binary = parts["unit"].upper(), parts["binary"]
        with suppress(OverflowError):
            value = int(float(parts["number"]) * (1024 if binary else 1000) ** " KMGT".index(unit or " "))
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return value
