"""Write the maps of checked images, and each image with its heatmap over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..._files import make_folders
from ..images.reading import read_image
from ..results.heatmap import Scale
from ..results.image_files import JPEG_QUALITY, MAPS, OVERLAYS, draw_overlay, file_names, save_picture
from ..results.lettering import shown
from ..results.region_files import REGIONS
from ..types import LotImage
from .checker import Check
from .manifest import ReferenceManifest

CHECKS = "checks.json"
NAMES = frozenset({CHECKS, REGIONS, MAPS, OVERLAYS})
"""Everything that a folder of checks holds."""


def write_maps(
    folder: Path, images: Sequence[LotImage], checks: Sequence[Check], manifest: ReferenceManifest
) -> dict[str, str]:
    """Write a map on the grid and an overlay of each image that was scored; returns the map's file by name.

    All overlays have the scale of the reference's calibration, so that good images look good.

    Raises
    ------
    OSError
        If the disk is full or fails.
    """
    scale = Scale(*manifest.scale)
    maps = {}
    for image, check, name in zip(images, checks, _numbered(images), strict=True):
        if check.map is None:
            continue
        target, picture = folder / MAPS / f"{name}.npy", folder / OVERLAYS / f"{name}.jpg"
        for path in (target, picture):
            make_folders(path.parent, within=folder)
        np.save(target, check.map)
        rgb = np.asarray(read_image(image.path, manifest.bit_depth, manifest.max_pixels))
        caption = f"{shown(image.path.name)}   raw {check.raw_score:.3f}   p {check.p:.3f}"
        drawn = draw_overlay(rgb, check.map, scale, caption)
        save_picture(picture, Image.fromarray(drawn), "JPEG", quality=JPEG_QUALITY)
        maps[check.name] = f"{MAPS}/{name}.npy"
    return maps


def _numbered(images: Sequence[LotImage]) -> list[str]:
    """A name for the files of each image: a number, since they may come from several folders, and its own."""
    width = len(str(len(images)))
    own = [LotImage(f"{k:0{width}d}_{image.path.name}", image.path) for k, image in enumerate(images, 1)]
    return list(file_names(tuple(own)).values())
