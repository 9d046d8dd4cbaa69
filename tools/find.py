"""What finds a defect of some size: whole images, tiles or a larger ViT input, and what each takes.

A clear defect is found from about 1.5 patches on (docs/small-defects.md).  Whole images and tiles are
forecast by the measurements of ``musc-edge plan``.  A bundle with a larger input is not there to be measured:
its time is that of this one, the ViT's by the number of patches and comparing by its square.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..runtime.memory import size_text
from ..runtime.tiling import MOST_TILES, Tiles
from .usage import UsageError

if TYPE_CHECKING:
    from ..runtime.forecast import Forecast
    from ..runtime.images.resolution import Resolution
    from ..runtime.settings import ScoreSettings
    from ..runtime.types import Manifest

PATCHES = 1.5
"""How many patches wide a clear defect must be to be found (docs/small-defects.md, the table of spots)."""
MOST_PATCHES = 74
"""Patches along a side of the largest input that is proposed: twice the paper's 37."""


@dataclass(frozen=True)
class Way:
    """A way to score the lot: what to say to the command, a patch in pixels of an image, and what it takes.

    ``seconds`` and ``memory`` (bytes) are None where the way is not for this lot; ``why`` says why not, or
    how they were found.
    """

    name: str
    patch: tuple[float, float]
    seconds: float | None = None
    memory: int | None = None
    why: str = ""


def add_find(parser: Any) -> None:
    """Add the options of this page to a parser."""
    parser.add_argument(
        "--find", type=length, metavar="SIZE",
        help="say what finds defects of this size, in pixels of an image (12) or in mm (0.5mm), and what "
        "it takes",
    )  # fmt: skip
    parser.add_argument(
        "--mm-per-pixel", type=positive_number, metavar="MM", help="of the images, for --find in mm"
    )


def length(text: str) -> tuple[float, str]:
    """Parse a length: 12, 12px or 0.5mm."""
    unit = next((unit for unit in ("mm", "px") if text.endswith(unit)), "")
    return positive_number(text.removesuffix(unit)), unit or "px"


def positive_number(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, as in 12, 12px or 0.5mm")
    return value


def defect_pixels(args: argparse.Namespace) -> float:
    """Return the size of the defect of ``--find`` in pixels of an image; UsageError if that is not said."""
    value, unit = args.find
    if unit == "mm" and args.mm_per_pixel is None:
        raise UsageError(f"--find {value:g}mm takes --mm-per-pixel, such as --mm-per-pixel 0.05.")
    if unit == "px" and args.mm_per_pixel is not None:
        raise UsageError(f"--mm-per-pixel has no meaning with --find {value:g} in pixels: give it in mm.")
    return float(value / args.mm_per_pixel if unit == "mm" else value)


def ways_to_find(
    pixels: float,
    whole: Forecast,
    settings: ScoreSettings,
    manifest: Manifest,
    forecast: Callable[[ScoreSettings], Forecast],
) -> list[Way]:
    """Return the ways to find defects of ``pixels``, those that do not do it included.

    ``whole`` is the forecast of whole images, ``forecast`` makes that of other settings.
    """
    seen = whole.resolution
    if seen is None:
        raise TypeError("a forecast without images has no resolution")
    target = pixels / PATCHES
    ways = [_whole(whole, seen, target)]
    if not ways[0].why:
        return ways
    return [*ways, _larger(whole, seen, target, manifest), _tiles(seen, target, settings, manifest, forecast)]


def chosen(ways: list[Way]) -> Way | None:
    """Return the way that takes the least time of those that find it; None if none does."""
    able = [way for way in ways if way.seconds is not None]
    return min(able, key=lambda way: way.seconds or 0.0) if able else None


def find_text(given: tuple[float, str], pixels: float, ways: list[Way]) -> str:
    """Format the ways as text, and which of them to take; ``given`` is what ``length`` returned."""
    from .progress import duration

    mm = f" ({given[0]:g} mm)" if given[1] == "mm" else ""
    lines = [
        f"find: a defect of {pixels:.3g} pixels{mm} takes patches of {pixels / PATCHES:.3g} pixels or less "
        f"({PATCHES:g} patches; docs/small-defects.md)"
    ]
    width = max(len(way.name) for way in ways)
    for way in ways:
        patch = " x ".join(f"{side:.3g}" for side in way.patch)
        takes = "" if way.seconds is None else f"about {duration(way.seconds)}"
        if way.memory is not None:
            takes += f", memory at most {size_text(way.memory)}"
        said = "; ".join(filter(None, (takes, way.why)))
        lines.append(f"      {way.name:<{width}}  patches of {patch} pixels: {said}")
    best = chosen(ways)
    lines.append(
        f"      take {best.name}"
        if best
        else "      none finds it: crop the images, or bring the camera nearer"
    )
    return "\n".join(lines)


def find_json(pixels: float, ways: list[Way]) -> dict[str, Any]:
    """Return the ways for JSON."""
    best = chosen(ways)
    return {
        "defect_pixels": pixels,
        "patch_pixels": pixels / PATCHES,
        "ways": [dataclasses.asdict(way) for way in ways],
        "take": best.name if best else None,
    }


def _whole(forecast: Forecast, seen: Resolution, target: float) -> Way:
    if max(seen.patch_size) <= target:
        return Way("this bundle", seen.patch_size, forecast.total_seconds, forecast.plan.memory_bytes)
    return Way("this bundle", seen.patch_size, why="too coarse")


def _larger(forecast: Forecast, seen: Resolution, target: float, manifest: Manifest) -> Way:
    """A bundle with a larger input, of this one's shape, whose patches are small enough."""
    step = manifest.patch_size
    rows, columns = (math.ceil(side / target) for side in (seen.height, seen.width))
    square = manifest.grid[0] == manifest.grid[1]
    rows, columns = (max(rows, columns),) * 2 if square else (rows, columns)
    size = rows * step, columns * step
    name = f"--image-size {size[0]}" if square else f"--image-size {size[0]}x{size[1]}"
    patch = seen.at(size).patch_size
    if max(rows, columns) > MOST_PATCHES:
        return Way(name, patch, why=f"{rows} x {columns} patches, too many for a ViT")
    more = rows * columns / manifest.patches
    seconds = forecast.total_seconds + forecast.vit_seconds * (more - 1) + forecast.seconds * (more**2 - 1)
    return Way(name, patch, seconds, why="by musc-export; at least, by this bundle's times")


def _tiles(
    seen: Resolution,
    target: float,
    settings: ScoreSettings,
    manifest: Manifest,
    forecast: Callable[[ScoreSettings], Forecast],
) -> Way:
    """Tiles of this bundle whose patches are small enough."""
    sides = (seen.height, seen.width)
    rows, columns = (
        math.ceil(side / (target * patches)) for side, patches in zip(sides, manifest.grid, strict=True)
    )
    name = f"--tiles {rows}x{columns}"
    patch = seen.width / columns / manifest.grid[1], seen.height / rows / manifest.grid[0]
    if max(rows, columns) > MOST_TILES:
        return Way(name, patch, why=f"more than {MOST_TILES} tiles along a side")
    found = forecast(dataclasses.replace(settings, tiles=Tiles(rows, columns)))
    return Way(name, patch, found.total_seconds, found.plan.memory_bytes)
