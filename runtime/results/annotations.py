"""Regions for tools in which people correct them: COCO, and tasks with predictions for Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..._files import write_whole
from ..._version import __version__
from ..errors import LotError, OutputError
from ..verdict.regions import Region
from .read_results import ScoredImage, ScoredLot
from .rejudge import Rejudged

DEFECT = "defect"
"""The one category: what kind of defect it is, nobody knows."""

_CATEGORY = 1


def coco(judged: list[Rejudged]) -> dict[str, Any]:
    """Return all scored images and the regions of flagged ones in COCO's format for instances.

    Each region is an annotation with its box, its pixels as uncompressed run-length encoding, and its peak as
    score, as COCO has it for results.

    Raises
    ------
    LotError
        If the size of an image is not known.
    """
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, (image, (height, width), regions) in enumerate(_all(judged), 1):
        images.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for region in regions:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": _CATEGORY,
                    "bbox": [region.x, region.y, region.width, region.height],
                    "area": region.area,
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": counts(region, height * width)},
                    "score": round(region.peak, 6),
                }
            )
    return {
        "info": {"description": "regions at the pixel limit of the verdicts", "version": _made_by()},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": _CATEGORY, "name": DEFECT, "supercategory": ""}],
    }


def label_studio(judged: list[Rejudged]) -> list[dict[str, Any]]:
    """Return a task for each scored image, with a rectangle for each region as prediction.

    The images are addressed as files of a local storage whose folder is the lot's.

    Raises
    ------
    LotError
        If the size of an image is not known.
    """
    tasks = []
    by = {image.name: each.lot.judge_by for each in judged for image in each.lot.images}
    for image, (height, width), regions in _all(judged):
        rectangles = [_rectangle(number, region, height, width) for number, region in enumerate(regions, 1)]
        name = quote(image.name, errors="surrogateescape")
        score = image.judged(by[image.name])
        prediction = {"model_version": _made_by(), "score": score, "result": rectangles}
        tasks.append(
            {"data": {"image": f"/data/local-files/?d={name}"}, "predictions": [prediction] * bool(regions)}
        )
    return tasks


def require_free(path: Path, overwrite: bool) -> None:
    """Raise OutputError if a file is there that shall not be replaced, or its folder is not."""
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: {path.parent} is no folder.")
    if path.is_symlink() or (path.exists() and not (overwrite and path.is_file())):
        hint = "give another name, or --overwrite" if path.is_file() else "give another name"
        raise OutputError(f"{path} is there already: {hint}.")


def write_annotations(path: Path, content: Any) -> None:
    """Write a file of annotations whole; OutputError if that is not possible."""
    try:
        write_whole(path, json.dumps(content).encode("ascii"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def counts(region: Region, pixels: int) -> list[int]:
    """Return COCO's run-length encoding: pixels outside and inside in turn, down the columns."""
    starts, lengths = region.runs.T
    ends = starts + lengths
    joined = starts[1:] == ends[:-1]  # the end of a column and the beginning of the next
    starts, ends = starts[np.r_[True, ~joined]], ends[np.r_[~joined, True]]
    edges = np.r_[0, np.stack([starts, ends], axis=1).ravel(), pixels]
    runs: list[int] = np.diff(edges).tolist()
    return runs if runs[-1] else runs[:-1]


def _rectangle(number: int, region: Region, height: int, width: int) -> dict[str, Any]:
    return {
        "id": f"region{number}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": round(region.peak, 6),
        "value": {
            "x": 100 * region.x / width,
            "y": 100 * region.y / height,
            "width": 100 * region.width / width,
            "height": 100 * region.height / height,
            "rotation": 0,
            "rectanglelabels": [DEFECT],
        },
    }


def _all(judged: list[Rejudged]) -> Iterator[tuple[ScoredImage, tuple[int, int], list[Region]]]:
    for each in judged:
        regions = dict(each.regions)
        for image in each.lot.images:
            yield image, _size(each.lot, image), regions.get(image.name, [])


def _size(lot: ScoredLot, image: ScoredImage) -> tuple[int, int]:
    size = lot.size_of(image)
    if size is None:
        raise LotError(
            f"the size of {image.name} is not known: {lot.folder} does not have it, and the file is not in "
            f"{lot.lot}. Score the lot again."
        )
    return size


def _made_by() -> str:
    return f"musc-edge {__version__}"
