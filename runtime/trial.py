"""Time a few images of a lot, for the forecast of all: reading them, and writing their maps and overlays."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import mean

import numpy as np

from .images.reading import ImageError, preprocess
from .images.survey import Survey
from .results.heatmap import Scale
from .results.image_files import Drawing, OutputOptions
from .scoring.anomaly_map import map_size
from .types import Bundle, LotImage, PreprocessSpec

_ANY_SCALE = Scale(0, 1)
_PATIENCE = 0.2  # seconds


def seconds_to_read(survey: Survey, spec: PreprocessSpec) -> float:
    """Return the mean seconds of decoding and resizing some of a lot's images, one after the other."""

    def read(image: LotImage) -> None:
        with suppress(ImageError):  # it will be met again, and said
            preprocess(survey.read(image), spec)

    return _mean_seconds(survey, read)


def seconds_to_write(
    survey: Survey,
    bundle: Bundle,
    outputs: OutputOptions,
    scratch: Path | None,
    grid: tuple[int, int] | None = None,
) -> float:
    """Return the mean seconds of writing the files of some of a lot's images, with a map of all values.

    ``grid`` is that of the maps, the bundle's by default.
    They are written into a folder in ``scratch``, by default the system's temporary folder, and removed.

    Raises
    ------
    OSError
        If the disk is full or fails.
    """
    manifest = bundle.manifest
    grid = grid or manifest.grid
    values = np.linspace(0, 1, grid[0] * grid[1], dtype=np.float32).reshape(grid)
    size = map_size((1, *grid), manifest)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".timing-") as folder:
        drawing = Drawing(survey, size, outputs, Path(folder), _ANY_SCALE, _ANY_SCALE)
        return _mean_seconds(survey, lambda image: drawing.write(image, values, "one", image.name))


def _mean_seconds(survey: Survey, work: Callable[[LotImage], object]) -> float:
    """Return the mean seconds of ``work`` on one to three images: of large ones, of one."""
    images = survey.images
    spent: list[float] = []
    for k in dict.fromkeys((len(images) // 2, 0, len(images) - 1)):
        start = time.perf_counter()
        work(images[k])
        spent.append(time.perf_counter() - start)
        if sum(spent) > _PATIENCE:
            break
    return mean(spent)
