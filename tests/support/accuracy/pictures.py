"""Pictures of what the method misses: images beside their heatmaps, on the lot's scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from musc_edge.runtime.images.reading import read_image
from musc_edge.runtime.results.heatmap import lot_scale, overlay
from musc_edge.runtime.results.lettering import draw_text
from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.runtime.types import Array

from .drawn import DrawnLot
from .measured import tile_truth

_SIDE, _GAP, _TEXT = 150, 6, 36
_TRUTH = (0, 220, 120)


def missed(lot: DrawnLot, raw: Array, count: int) -> list[int]:
    """Places in a lot of its defective images with the lowest raw scores, the lowest first."""
    order = [int(i) for i in np.argsort(raw, kind="stable") if lot.labels[i]]
    return order[:count]


def highest_good(lot: DrawnLot, raw: Array, count: int) -> list[int]:
    """Places in a lot of its good images with the highest raw scores, the highest first."""
    order = [int(i) for i in np.argsort(-raw, kind="stable") if not lot.labels[i]]
    return order[:count]


def sheet(
    lot: DrawnLot, places: Sequence[int], degree_sets: Sequence[tuple[int, ...]], tiles: Path | None = None
) -> Image.Image:
    """A row for each image: itself, outlined by its mask if ``tiles`` has one, and a map per degrees."""
    columns = 1 + len(degree_sets)
    size = columns * (_SIDE + _GAP) - _GAP, len(places) * (_SIDE + _TEXT)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for row, place in enumerate(places):
        picture = _square(lot, place)
        top = row * (_SIDE + _TEXT)
        canvas.paste(Image.fromarray(_outlined(picture, lot, place, tiles)), (0, top))
        draw_text(draw, (0, top + _SIDE + 2), lot.pool.samples[lot.rows[place]].kind, "black", 12)
        for column, degrees in enumerate(degree_sets, 1):
            maps, raw = lot.maps(degrees), lot.raw(degrees)
            unit = lot_scale(maps, raw).unit(upsample(maps[place][None], (_SIDE, _SIDE))[0])
            left = column * (_SIDE + _GAP)
            canvas.paste(Image.fromarray(overlay(picture, unit)), (left, top))
            rank = int((raw > raw[place]).sum()) + 1
            text = f"degrees {','.join(map(str, degrees))}: {raw[place]:.2f}"
            draw_text(draw, (left, top + _SIDE + 2), text, "black", 12)
            draw_text(draw, (left, top + _SIDE + 18), f"rank {rank} of {len(raw)}", "black", 12)
    return canvas


def _square(lot: DrawnLot, place: int) -> Array:
    """The image as the ViT sees its shape: squeezed into a square."""
    image = read_image(lot.pool.samples[lot.rows[place]].path).convert("RGB")
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))


def _outlined(picture: Array, lot: DrawnLot, place: int, tiles: Path | None) -> Array:
    if tiles is None:
        return picture
    truth, names = tile_truth(lot, tiles)
    mask = truth.mask(names[place], (_SIDE, _SIDE)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlined: Array = cv2.drawContours(picture.copy(), contours, -1, _TRUTH, 1)
    return outlined
