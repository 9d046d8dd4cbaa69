"""Evaluate the results of lots against what is known of their images."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.errors import LotError
from ...runtime.results.read_results import ScoredImage, ScoredLot
from ...runtime.settings import RAW_SCORE
from ...runtime.types import Array
from ...runtime.verdict.limits import REJECT, REVIEW
from .image_metrics import Confusion, ImageMetrics, confusion, f1_max, image_metrics
from .pixel_metrics import PixelMetrics, metrics_of
from .sorted_pixels import SortedPixels
from .truth import Truth, find_truth

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Category:
    """The metrics of one lot.

    Attributes
    ----------
    labels, scores : of its images (N,): True for a defect; what they were judged by.
    image, raw : by the scores that the lot is judged by, and by the scores before rescoring.
    pixel : None if there are no maps or no masks.
    kinds : image and pixel metrics of each kind of defect against all good images.
    confusion : at ``verdict``, which says how images were judged.
    review : defective and good images whose verdict is review, which count as not rejected; None without any.
    remarks : what was left out, and why.
    """

    lot: ScoredLot
    labels: Array
    scores: Array
    image: ImageMetrics
    raw: ImageMetrics
    pixel: PixelMetrics | None
    kinds: dict[str, tuple[ImageMetrics, PixelMetrics | None]]
    confusion: Confusion | None
    verdict: str
    review: tuple[int, int] | None
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """The product's name."""
        return self.lot.name


def evaluate(
    lot: ScoredLot,
    source: Path,
    layout: str,
    *,
    threshold: float | None = None,
    resamples: int,
    progress: Progress,
) -> Category:
    """Evaluate one lot.

    Parameters
    ----------
    source, layout : where the truth is (``truth.find_truth``).
    threshold : score from which an image counts as rejected; by default the verdicts of the results, or
        without any the threshold of F1-max.
    resamples : of the bootstrap; 0 for no intervals.

    Raises
    ------
    LotError
        If results or truth cannot be read, or do not belong together.
    """
    truth = find_truth(source, layout, lot.root, [image.name for image in lot.images])
    images = [image for image in lot.images if image.name in truth.images]
    if not images:
        raise LotError(f"{lot.folder} has no scored image of which anything is known.")
    remarks = [*truth.remarks]
    if lot.skipped:
        remarks.append(f"{len(lot.skipped)} images were not scored and do not count")
    labels = np.array([truth.images[image.name].defective for image in images])
    missing = "good" if labels.all() else "defective" if not labels.any() else ""
    if missing:
        remarks.append(f"no image is {missing}: most metrics are not defined")
    kinds = sorted({truth.images[image.name].kind for image in images} - {""})
    kinds = kinds if len(kinds) > 1 else []
    pixel, pixel_by_kind = _pixels(lot, truth, images, kinds, progress, remarks)
    by_kind = {}
    for kind in kinds:
        chosen = [image for image in images if truth.images[image.name].kind in ("", kind)]
        of_kind = np.array([truth.images[image.name].defective for image in chosen])
        by_kind[kind] = (image_metrics(of_kind, _scores(chosen, lot.judge_by), 0), pixel_by_kind.get(kind))
    scores, raw = _scores(images, lot.judge_by), _scores(images, RAW_SCORE)
    counts, verdict = _confusion(images, labels, scores, threshold)
    review = _review(images, labels) if threshold is None else None
    unjudged = sum(not image.verdict for image in images)
    if threshold is None and 0 < unjudged < len(images):
        remarks.append(f"{unjudged} images have no verdict and count as not rejected")
    return Category(
        lot, labels, scores, image_metrics(labels, scores, resamples), image_metrics(labels, raw, 0),
        pixel, by_kind, counts, verdict, review, tuple(remarks),
    )  # fmt: skip


def _scores(images: Collection[ScoredImage], by: str) -> Array:
    """The values that a lot is judged by."""
    return np.array([image.judged(by) for image in images])


def _confusion(
    images: list[ScoredImage], labels: Array, scores: Array, threshold: float | None
) -> tuple[Confusion | None, str]:
    """Count by truth and verdict, and say whose verdict it was."""
    if threshold is None and any(image.verdict for image in images):
        rejected = np.array([image.verdict == REJECT for image in images])
        return confusion(labels, rejected, float("nan")), "the verdicts in scores.csv"
    how = "the threshold given"
    if threshold is None:
        if labels.all() or not labels.any():
            return None, ""
        threshold = f1_max(labels, scores)[1]
        how = "the threshold of F1-max, which the labels chose: better than any that is set beforehand"
    return confusion(labels, scores >= threshold, threshold), how


def _review(images: list[ScoredImage], labels: Array) -> tuple[int, int] | None:
    """Count defective and good images for review."""
    review = np.array([image.verdict == REVIEW for image in images])
    return (int(labels[review].sum()), int((~labels[review]).sum())) if review.any() else None


def _pixels(
    lot: ScoredLot,
    truth: Truth,
    images: list[ScoredImage],
    kinds: list[str],
    progress: Progress,
    remarks: list[str],
) -> tuple[PixelMetrics | None, dict[str, PixelMetrics]]:
    """Pixel metrics over the good images and those with a mask, and of each kind of defect against the good.

    None and none without maps or masks.  Each map is read and sorted once.
    """
    if not truth.has_masks or not lot.has_maps:
        what = "maps: score the lot with --maps grid" if truth.has_masks else "masks"
        remarks.append(f"no pixel metrics: there are no {what}")
        return None, {}
    chosen = [
        image
        for image in images
        if image.map and (truth.images[image.name].mask or not truth.images[image.name].defective)
    ]
    if len(chosen) < len(images):
        remarks.append(f"{len(images) - len(chosen)} images without a mask or a map do not count in pixels")
    if lot.settings["maps"] == "original":
        remarks.append("maps at the images' own size: other pixel metrics than at the model's size")
    if lot.settings["map_format"] == "png8":
        remarks.append("maps of 256 levels: ties between pixels make pixel metrics inexact")

    with SortedPixels() as pixels:
        for done, image in enumerate(chosen, 1):
            values = np.nan_to_num(lot.pixels(image), nan=0.0)  # outside of a region: the lowest distance
            pixels.add(values, truth.mask(image.name, (values.shape[0], values.shape[1])))
            progress("evaluate", done, len(chosen), "maps")
        of = [truth.images[image.name].kind for image in chosen]
        rows = {kind: [k for k, each in enumerate(of) if each in ("", kind)] for kind in kinds}
        return metrics_of(pixels.of()), {kind: metrics_of(pixels.of(some)) for kind, some in rows.items()}
