"""Which patches of a lot's images take part: those in the region of interest, not on a plain background."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..._files import shown
from ..._numbers import counted
from ..errors import LotError
from ..memory import size_text
from ..parallel import Room
from ..tiling import WHOLE, Layout
from ..types import Array, LotImage, Progress, no_progress
from .background import product_mask
from .reading import ImageError, read_header
from .roi import Roi, coverage, half_or_more, read_mask
from .survey import Survey, run_ahead

AUTO = "auto"
ON_PRODUCT = 0.9
"""Share of a patch's pixels that must be on the product, where its background is masked: half of it leaves a
rim of the background, which scores (docs/small-defects.md)."""
CLEAR = 0.9
"""Share of the images whose background must be clear, or none is masked."""


@dataclass(frozen=True)
class Inside:
    """The patches that take part: ``patches`` (N,P) bool of all images of a survey; ``notes`` on them.

    Where images are cut, P are the patches of all tiles of an image, one tile after the other.
    """

    patches: Array
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What tells two of them apart."""
        return hashlib.sha256(np.packbits(self.patches).tobytes()).hexdigest()


def patches_inside(
    survey: Survey,
    grid: tuple[int, int],
    threads: int,
    room: int | None = None,
    progress: Progress = no_progress,
    layout: Layout = WHOLE,
) -> Inside | None:
    """Return which patches of the survey's images take part; None if nothing was asked for.

    ``room`` is the memory in bytes for masks and images that are decoded at once.  Each tile of ``layout``
    has a ``grid`` of patches.

    Raises
    ------
    LotError
        If a mask is missing, cannot be read or does not fit its image, or no patch of an image is left.
    """
    if not survey.in_region:
        return None
    inside = np.ones((len(survey.images), len(layout.positions), *grid), bool)
    notes: list[str] = []
    if survey.roi is not None:
        inside &= _in_region(Roi.of(survey.roi, survey.images), survey, grid, layout, threads, room)
    if survey.mask_background:
        found, remark = _on_product(survey, grid, layout, threads, room, progress)
        inside &= found
        notes.append(remark)
    patches = inside.reshape(len(inside), -1)
    _require_some(patches, survey.images)
    notes.insert(0, _share_note(patches))
    return Inside(patches, tuple(notes))


def _in_region(
    roi: Roi, survey: Survey, grid: tuple[int, int], layout: Layout, threads: int, room: int | None
) -> Array:
    """Return the patches (N,T,Gh,Gw) in the region; each mask is read once."""
    if roi.region and layout != WHOLE:
        raise LotError(
            "the region of a reference is that of whole images, and these are cut into tiles: give a "
            "rectangle or a mask."
        )
    common = None if roi.mask is None else _read(roi.mask, survey, room)
    decoding = Room(room)

    def tiles(image: LotImage, mask: Array | None) -> Array:
        header = survey.headers[image.name]
        boxes = layout.boxes((header.width, header.height))
        return np.array([half_or_more(roi.coverage(image, header, grid, mask, box)) for box in boxes])

    if roi.masks is None:
        return _by_size(survey, lambda image: tiles(image, common))
    masks = roi.masks

    def look(image: LotImage) -> Array:
        with decoding.taken(survey.headers[image.name].decode_bytes):
            return tiles(image, _read(masks[image.name], survey, room))

    return np.array([each for _, each in run_ahead(survey.images, look, threads, 2 * threads)])


def _by_size(survey: Survey, tiles: Callable[[LotImage], Array]) -> Array:
    """Return what ``tiles`` does for each image, and call it once for each size of image."""
    found: dict[tuple[int, int], Array] = {}
    rows = []
    for image in survey.images:
        header = survey.headers[image.name]
        size = header.width, header.height
        if size not in found:
            found[size] = tiles(image)
        rows.append(found[size])
    return np.array(rows)


def _read(path: Path, survey: Survey, room: int | None) -> Array:
    """Read a mask, if the memory suffices."""
    try:
        needed = read_header(path, survey.max_pixels).decode_bytes
    except ImageError as error:
        raise LotError(f"the mask {path} cannot be read: {error}.") from error
    if room is not None and needed > room:
        raise LotError(
            f"the mask {path} needs {size_text(needed)} to be decoded, and {size_text(room)} of the memory "
            "budget are left. Allow more by --memory-budget."
        )
    return read_mask(path, survey.max_pixels)


def _on_product(
    survey: Survey,
    grid: tuple[int, int],
    layout: Layout,
    threads: int,
    room: int | None,
    progress: Progress,
) -> tuple[Array, str]:
    """Return the patches (N,T,Gh,Gw) that do not lie on a plain background, and what to say of it."""
    decoding = Room(room)

    def look(image: LotImage) -> Array | None:
        with decoding.taken(survey.headers[image.name].decode_bytes):
            return _product_tiles(survey.read(image), grid, layout)

    found: list[Array | None] = []
    for _, each in run_ahead(survey.images, look, threads, 2 * threads):
        found.append(None if isinstance(each, ImageError) else each)
        progress("background", len(found), len(survey.images), "images")
    clear = [each for each in found if each is not None]
    if len(clear) < CLEAR * len(found) or not clear:
        return np.ones((len(found), len(layout.positions), *grid), bool), (
            f"no background was masked: in {len(clear)} of {counted(len(found), 'image')} a plain one is "
            f"clear to tell from the product, and {CLEAR:.0%} are asked for. Give the region by --roi"
        )
    usual = half_or_more(np.mean(clear, axis=0))
    remark = f"the plain background was masked in {len(clear)} of {counted(len(found), 'image')}"
    if len(clear) < len(found):
        remark += "; the others, where it is not clear, have the region that most of these have"
    return np.array([usual if each is None else each for each in found]), remark


def product_patches(picture: Image.Image, grid: tuple[int, int]) -> Array | None:
    """Return the patches (Gh,Gw) that show the product; None where the background is not plain and clear."""
    found = _product_tiles(picture, grid, WHOLE)
    return None if found is None else np.asarray(found[0])


def _product_tiles(picture: Image.Image, grid: tuple[int, int], layout: Layout) -> Array | None:
    """Return ``product_patches`` of all tiles (T,Gh,Gw) of a picture."""
    mask = product_mask(picture)
    if mask is None:
        return None
    boxes = layout.boxes((mask.shape[1], mask.shape[0]))
    return np.array([half_or_more(coverage(mask, grid, box), ON_PRODUCT) for box in boxes])


def _require_some(patches: Array, images: Sequence[LotImage]) -> None:
    empty = np.flatnonzero(~patches.any(axis=1))
    if len(empty):
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise LotError(
            f"the region leaves no patch of {shown(images[empty[0]].name)}{more}: a patch takes part if at "
            "least half of its pixels are inside. Check the mask (light is inside), or widen the region."
        )


def _share_note(patches: Array) -> str:
    shares = patches.mean(axis=1)
    low, high = shares.min(), shares.max()
    span = f"{low:.0%}" if round(low, 2) == round(high, 2) else f"{low:.0%} to {high:.0%}"
    return f"only {span} of the patches of each image take part; the others have no score"
