"""The contact sheet: the worst and the best images of a lot with their heatmaps, on one scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..._numbers import ceil_div, counted
from ..images.reading import ImageError
from ..images.survey import PATIENCE
from ..parallel import Room, in_order
from ..scoring.anomaly_map import upsample
from ..settings import RAW_SCORE
from ..types import FloatArray
from .heatmap import Scale, colours, overlay
from .image_files import TOP, save_picture
from .lettering import draw_text, shorten, shown
from .lot_scores import LotScores

COLUMNS = 4
_THUMB = 150  # longer side of an image, pixels
_GAP, _CAPTION, _TITLE, _LEGEND = 12, 34, 34, 56
_SMALL = 12  # pixels: height of letters below the images
_COMPRESSION = 2  # a third of the time of Pillow's usual 6, for a file that is a fifth larger
Pictures = tuple[Image.Image, Image.Image]
"""A small picture of an image, and the same under its heatmap."""
_INK, _PAPER, _FAINT = (30, 30, 30), (255, 255, 255), (110, 110, 110)


def draw_contact_sheet(
    result: LotScores, path: Path, top: int = TOP, threads: int = 1, room: Room | None = None
) -> None:
    """Write the sheet as PNG: the ``top`` most suspicious images, the least suspicious, the colour scale.

    ``threads`` decode its images, as many at once as fit into ``room``, by default all.
    """
    order = result.order()
    worst, best = _worst_and_best(order, top)
    sections = [(f"Most suspicious of {counted(len(order), 'image')}", worst)]
    if best:
        sections.append(("Least suspicious", best))
    scale = result.heat
    cell_width, cell_height = 2 * _THUMB + 2, _THUMB + _CAPTION
    rows = [ceil_div(len(members), COLUMNS) for _, members in sections]
    width = _GAP + COLUMNS * (cell_width + _GAP)
    height = sum(_TITLE + count * (cell_height + _GAP) for count in rows) + _LEGEND
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    rooms = room or Room()
    pictures = in_order(
        [row for _, members in sections for row in members],
        lambda row: _pictures(result, row, scale, rooms),
        threads,
        ahead=threads,
        name="images",
        patience=PATIENCE,
    )
    with closing(pictures):
        _draw_sections(sheet, draw, result, sections, pictures)
    _draw_legend(sheet, draw, height - _LEGEND, scale)
    save_picture(path, sheet, "PNG", compress_level=_COMPRESSION)


def _draw_sections(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    result: LotScores,
    sections: Sequence[tuple[str, Sequence[int]]],
    pictures: Iterator[tuple[int, Pictures]],
) -> None:
    """Draw the titles and the cells below each; ``pictures`` are those of the rows, in this order."""
    cell_width, cell_height = 2 * _THUMB + 2, _THUMB + _CAPTION
    y = 0
    for title, members in sections:
        draw_text(draw, (_GAP, y + 9), title, _INK, 17)
        for k, (row, drawn) in enumerate(islice(pictures, len(members))):
            corner = (
                _GAP + k % COLUMNS * (cell_width + _GAP),
                y + _TITLE + k // COLUMNS * (cell_height + _GAP),
            )
            _draw_cell(sheet, draw, corner, result, row, drawn)
        y += _TITLE + ceil_div(len(members), COLUMNS) * (cell_height + _GAP)


def drawn_rows(result: LotScores, top: int = TOP) -> list[int]:
    """Rows of the images on the sheet."""
    worst, best = _worst_and_best(result.order(), top)
    return worst + best


def sheet_images(images: int, top: int) -> int:
    """How many of a lot's images are on the sheet."""
    return min(images, top + COLUMNS)


def _worst_and_best(order: list[int], top: int) -> tuple[list[int], list[int]]:
    worst = order[:top]
    return worst, order[len(worst) :][-COLUMNS:]


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    result: LotScores,
    row: int,
    drawn: Pictures,
) -> None:
    """Draw an image with its heatmap to the right, and name and score below."""
    x, y = corner
    thumb, heatmap = drawn
    top = y + (_THUMB - thumb.height) // 2
    sheet.paste(thumb, (x, top))
    sheet.paste(heatmap, (x + _THUMB + 2, top))
    name = shorten(shown(result.images[row].name), 2 * _THUMB, _SMALL)
    draw_text(draw, (x, y + _THUMB + 2), name, _INK, _SMALL)
    scores = f"score {result.scores[row]:.3f}", f"raw {result.raw_scores[row]:.3f}"
    scores = scores[::-1] if result.judge_by == RAW_SCORE else scores
    draw_text(draw, (x, y + _THUMB + 17), "   ".join(scores), _FAINT, _SMALL)


def _pictures(result: LotScores, row: int, scale: Scale, room: Room) -> Pictures:
    image = result.images[row]
    with room.taken(result.survey.headers[image.name].decode_bytes):
        try:
            thumb = result.survey.read(image)
            thumb.thumbnail((_THUMB, _THUMB))
        except ImageError:  # it was readable before, and is gone or changed now
            thumb = Image.new("RGB", (_THUMB, _THUMB), _FAINT)
    unit = scale.unit(_map_at(result.maps[row], thumb.size))
    return thumb, Image.fromarray(overlay(np.asarray(thumb), unit))


def _map_at(grid: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Upsample the map of one image to (width, height) pixels."""
    pixels: FloatArray = upsample(grid[None], (size[1], size[0]))[0]
    return pixels


def _draw_legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, y: int, scale: Scale) -> None:
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (12, 1))
    sheet.paste(Image.fromarray(colours(ramp)), (_GAP, y + 8))
    draw_text(draw, (_GAP, y + 24), f"{scale.low:.2f}  (the lot's median)", _INK, _SMALL)
    high = f"{scale.high:.2f}  mutual score (distance); one scale for the lot"
    draw_text(draw, (_GAP + 262, y + 6), high, _INK, _SMALL)
