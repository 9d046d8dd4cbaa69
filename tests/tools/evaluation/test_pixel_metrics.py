"""Pixel metrics: the authors' numbers, plain loops over all thresholds, and scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.tools.evaluation.pixel_metrics import metrics_of, pixel_metrics
from musc_edge.tools.evaluation.sorted_pixels import SortedPixels
from support.places import golden_folder

Array = npt.NDArray[Any]
METRICS = sorted(golden_folder().glob("metrics*.npz"))


def pairs(maps: Array, masks: Array) -> Iterator[tuple[Array, Array]]:
    return zip(np.asarray(maps, np.float32), np.asarray(masks) > 0, strict=True)


def lot(seed: int, levels: int = 0) -> tuple[Array, Array]:
    """Four maps with masks of several regions, some of which touch at corners; ``levels`` makes ties."""
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 9, 11)) < 0.12
    masks[0] = False
    maps = rng.normal(size=masks.shape) + masks
    if levels:
        maps = np.round(maps * levels) / levels
    return maps.astype(np.float32), masks


def regions(mask: Array) -> list[Array]:
    """The 8-connected regions of a mask, by growing each from one of its pixels."""
    left, found = mask.copy(), []
    while left.any():
        region = np.zeros_like(mask)
        region[tuple(np.argwhere(left)[0])] = True
        while True:
            grown = region.copy()
            for y, x in np.argwhere(region):
                grown[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
            grown &= mask
            if (grown == region).all():
                break
            region = grown
        left &= ~region
        found.append(region)
    return found


def overlaps(parts: Sequence[Sequence[Array]], above: Array) -> float:
    """Mean share of the regions, those of each mask, that is ``above``."""
    shares = [
        of_image[region].mean() for of_image, found in zip(above, parts, strict=True) for region in found
    ]
    return float(np.mean(shares))


@pytest.mark.parametrize("path", METRICS, ids=lambda path: path.stem)
@pytest.mark.parametrize("most_pixels", [1 << 21, 3000, 1])
def test_the_authors_numbers(path: Any, most_pixels: int) -> None:
    with np.load(path) as golden:
        found = pixel_metrics(pairs(golden["maps"], golden["masks"]), most_pixels=most_pixels)
        auroc, f1, ap, pro = golden["pixel"]
    assert (found.auroc, found.f1_max, found.ap) == pytest.approx((auroc, f1, ap), abs=1e-9)
    assert found.pro_200 == pytest.approx(pro, abs=1e-9)


def test_golden_metrics_are_there() -> None:
    assert METRICS


@pytest.mark.parametrize("most_pixels", [1 << 21, 100])
@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_scikit_learn(seed: int, levels: int, most_pixels: int) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    maps, masks = lot(seed, levels)
    found = pixel_metrics(pairs(maps, masks), most_pixels=most_pixels)
    labels, values = masks.ravel(), maps.ravel()
    precision, recall, thresholds = precision_recall_curve(labels, values)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision + recall, 1e-9)[:-1]
    assert found.auroc == pytest.approx(roc_auc_score(labels, values), abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(labels, values), abs=1e-12)
    assert found.f1_max == pytest.approx(f1.max(), abs=1e-12)
    assert f1[thresholds == found.threshold] == pytest.approx(f1.max(), abs=1e-12)  # of equals, any
    assert (found.defect_pixels, found.normal_pixels) == (labels.sum(), (~labels).sum())


@pytest.mark.parametrize("most_pixels", [1 << 21, 100])
@pytest.mark.parametrize("levels", [0, 2])
def test_pro_against_plain_loops(levels: int, most_pixels: int) -> None:
    maps, masks = lot(3, levels)
    parts = [regions(mask) for mask in masks]
    found = pixel_metrics(pairs(maps, masks), limits=(0.05, 0.3, 1.0), most_pixels=most_pixels)
    assert found.regions == sum(map(len, parts))
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        points.append((above[~masks].mean(), overlaps(parts, above)))
    x, y = np.array(points).T
    for limit, value in found.aupro.items():
        inside = x <= limit
        xs, ys = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
        area = sum((xs[k + 1] - xs[k]) * (ys[k] + ys[k + 1]) / 2 for k in range(len(xs) - 1))
        assert value == pytest.approx(area / limit, abs=1e-9)


def test_the_authors_pro_against_plain_loops() -> None:
    maps, masks = lot(4)
    parts = [regions(mask) for mask in masks]
    low, high = maps.min(), maps.max()
    points = []
    for threshold in np.arange(low, high, (high - low) / 200):
        above = maps > threshold
        points.append((above[~masks].mean(), overlaps(parts, above)))
    x, y = np.array([point for point in points if point[0] < 0.3]).T
    x = (x - x.min()) / (x.max() - x.min())
    area = sum((x[k] - x[k + 1]) * (y[k] + y[k + 1]) / 2 for k in range(len(x) - 1))
    assert pixel_metrics(pairs(maps, masks)).pro_200 == pytest.approx(area, abs=1e-9)


def test_a_perfect_lot_and_an_inverted_one() -> None:
    _, masks = lot(0)
    perfect, inverted = (pixel_metrics(pairs(sign * masks, masks)) for sign in (1, -1))
    assert (perfect.auroc, perfect.ap, perfect.f1_max) == (1, 1, 1)
    assert perfect.aupro == pytest.approx({0.05: 1, 0.3: 1})
    assert inverted.auroc == 0
    assert inverted.aupro[0.05] == pytest.approx(0)


def test_maps_without_a_range() -> None:
    _, masks = lot(0)
    found = pixel_metrics(pairs(np.zeros(masks.shape), masks))
    assert found.auroc == 0.5
    assert found.ap == pytest.approx(masks.mean())
    assert found.aupro[0.3] == pytest.approx(0.15)  # the line from (0,0) to (1,1)
    assert np.isnan(found.pro_200)


@pytest.mark.parametrize("inside", [False, True])
def test_nothing_to_tell_apart(inside: bool) -> None:
    maps, masks = lot(0)
    found = pixel_metrics(pairs(maps, np.full(masks.shape, inside)))
    values = [found.auroc, found.ap, found.f1_max, found.pro_200, *found.aupro.values()]
    assert np.isnan(values).all()


def test_curves_begin_low_and_end_at_one() -> None:
    maps, masks = lot(5)
    fpr, recall, precision, pro = pixel_metrics(pairs(maps, masks)).curves.T
    for rising in (fpr, recall, pro):
        assert (np.diff(rising) >= 0).all()
        assert rising[0] < 0.05
        assert rising[-1] == pytest.approx(1)
    assert precision[-1] == pytest.approx(masks.mean())


@pytest.mark.parametrize(
    ("value", "shape", "says"), [(np.nan, (4, 4), "not finite"), (0, (4, 5), r"shape \(4, 4\) with a mask")]
)
def test_what_is_no_pair(value: float, shape: tuple[int, int], says: str) -> None:
    with pytest.raises(LotError, match=says):
        pixel_metrics([(np.full((4, 4), value, np.float32), np.zeros(shape, bool))])


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3, 4, 5], [0, 2, 3, 5], [4, 1], [0, 2], [1], []])
def test_some_of_the_sorted_maps_give_what_they_give_alone(chosen: list[int]) -> None:
    """Maps 0 and 2 are good; each other one has regions of its own."""
    rng = np.random.default_rng(5)
    maps = rng.integers(0, 40, (6, 12, 10)).astype(np.float32) / 7  # with ties between and within maps
    masks = rng.random(maps.shape) < 0.1
    masks[[0, 2]] = False
    with SortedPixels() as pixels:
        for values, mask in zip(maps, masks, strict=True):
            pixels.add(values, mask)
        part = pixels.of(chosen)
        assert part.regions == metrics_of(part).regions
        found = metrics_of(part, most_pixels=50)
    alone = pixel_metrics(pairs(maps[chosen], masks[chosen]), most_pixels=50)
    for name in ("auroc", "ap", "f1_max", "threshold", "pro_200"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name), abs=1e-12, nan_ok=True), name
    assert found.aupro == pytest.approx(alone.aupro, abs=1e-12, nan_ok=True)
    assert (found.defect_pixels, found.normal_pixels) == (alone.defect_pixels, alone.normal_pixels)
    assert np.isnan(found.auroc) == (chosen in ([0, 2], []))
