"""A picture of what a reference was made of: its bank's images, small, then the others that were accepted."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from ..._numbers import ceil_div, counted
from ..errors import OutputError
from ..results.image_files import save_picture
from ..results.lettering import draw_text
from .files import ReferenceFolder, read_thumbnails
from .looks import THUMBNAIL

COLUMNS, MOST = 12, 600
_GAP, _TITLE, _WIDE = 6, 30, 2
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def draw_sheet(reference: ReferenceFolder, path: Path) -> None:
    """Write the sheet as PNG, with at most MOST images of each kind.

    Raises
    ------
    OutputError
        If there is something at ``path``, or it cannot be written.
    ReferenceFolderError
        If the reference's thumbnails are missing or damaged.
    """
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path} exists: give a new name, or remove it.")
    thumbnails, bank = read_thumbnails(reference), len(reference.manifest.images)
    sections = [("in the bank", thumbnails[:bank]), ("accepted, not in the bank", thumbnails[bank:])]
    sections = [(what, pictures) for what, pictures in sections if len(pictures)]
    side = _WIDE * THUMBNAIL
    rows = [ceil_div(min(len(pictures), MOST), COLUMNS) for _, pictures in sections]
    width = _GAP + COLUMNS * (side + _GAP)
    height = sum(_TITLE + count * (side + _GAP) for count in rows) + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw, y = ImageDraw.Draw(sheet), 0
    for (what, pictures), count in zip(sections, rows, strict=True):
        shown = min(len(pictures), MOST)
        of = f", the first {shown} shown" if shown < len(pictures) else ""
        draw_text(draw, (_GAP, y + 7), f"{counted(len(pictures), 'image')} {what}{of}", _INK, 16)
        for k in range(shown):
            corner = _GAP + k % COLUMNS * (side + _GAP), y + _TITLE + k // COLUMNS * (side + _GAP)
            picture = Image.fromarray(pictures[k]).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(picture, corner)
        y += _TITLE + count * (side + _GAP)
    try:
        save_picture(path, sheet, "PNG")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
