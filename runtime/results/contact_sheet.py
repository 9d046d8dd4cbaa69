"""The contact sheet: the worst and the best images of a lot with their heatmaps, on one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..._numbers import ceil_div
from ..images.reading import ImageError
from ..scoring.anomaly_map import upsample
from ..types import FloatArray
from .heatmap import Scale, colours, lot_scale, overlay
from .image_files import save_picture
from .lot_scores import LotScores

COLUMNS, WORST_ROWS = 4, 2
SHEET_IMAGES = COLUMNS * (WORST_ROWS + 1)
_THUMB = 150  # longer side of an image, pixels
_GAP, _CAPTION, _TITLE, _LEGEND = 12, 34, 34, 56
_INK, _PAPER, _FAINT = (30, 30, 30), (255, 255, 255), (110, 110, 110)


def draw_contact_sheet(result: LotScores, path: Path) -> None:
    """Write the sheet as PNG: the most suspicious images, the least suspicious, and the colour scale."""
    order = result.order()
    worst = order[: COLUMNS * WORST_ROWS]
    best = order[len(worst) :][-COLUMNS:]
    sections = [(f"Most suspicious of {len(order)} images", worst)]
    if best:
        sections.append(("Least suspicious", best))
    scale = lot_scale(result.maps, result.raw_scores)
    cell_width, cell_height = 2 * _THUMB + 2, _THUMB + _CAPTION
    rows = [ceil_div(len(members), COLUMNS) for _, members in sections]
    width = _GAP + COLUMNS * (cell_width + _GAP)
    height = sum(_TITLE + count * (cell_height + _GAP) for count in rows) + _LEGEND
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = 0
    for (title, members), count in zip(sections, rows, strict=True):
        draw.text((_GAP, y + 9), title, _INK, _font(17))
        for k, row in enumerate(members):
            corner = (
                _GAP + k % COLUMNS * (cell_width + _GAP),
                y + _TITLE + k // COLUMNS * (cell_height + _GAP),
            )
            _draw_cell(sheet, draw, corner, result, row, scale)
        y += _TITLE + count * (cell_height + _GAP)
    _draw_legend(sheet, draw, y, scale)
    save_picture(path, sheet, "PNG")


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    result: LotScores,
    row: int,
    scale: Scale,
) -> None:
    """Draw an image with its heatmap to the right, and name and score below."""
    x, y = corner
    image = result.images[row]
    try:
        thumb = result.survey.read(image)
        thumb.thumbnail((_THUMB, _THUMB))
    except ImageError:  # it was readable before, and is gone or changed now
        thumb = Image.new("RGB", (_THUMB, _THUMB), _FAINT)
    unit = scale.unit(_map_at(result.maps[row], thumb.size))
    top = y + (_THUMB - thumb.height) // 2
    sheet.paste(thumb, (x, top))
    sheet.paste(Image.fromarray(overlay(np.asarray(thumb), unit)), (x + _THUMB + 2, top))
    name = image.name.encode("utf-8", "replace").decode("utf-8").replace("\n", " ")
    draw.text((x, y + _THUMB + 2), _shorten(name, 2 * _THUMB), _INK, _font(12))
    draw.text(
        (x, y + _THUMB + 17),
        f"score {result.scores[row]:.3f}   raw {result.raw_scores[row]:.3f}",
        _FAINT,
        _font(12),
    )


def _map_at(grid: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Upsample the map of one image to (width, height) pixels."""
    pixels: FloatArray = upsample(grid[None], (size[1], size[0]))[0]
    return pixels


def _draw_legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, y: int, scale: Scale) -> None:
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (12, 1))
    sheet.paste(Image.fromarray(colours(ramp)), (_GAP, y + 8))
    draw.text((_GAP, y + 24), f"{scale.low:.2f}  (the lot's median)", _INK, _font(12))
    draw.text(
        (_GAP + 262, y + 6),
        f"{scale.high:.2f}  mutual score (distance); one scale for the lot",
        _INK,
        _font(12),
    )


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shorten(text: str, width: int) -> str:
    """Cut ``text`` at the start, so that its end fits into ``width`` pixels."""
    font = _font(12)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text
