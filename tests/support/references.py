"""A small lot and references of it, made with the kept tiny ViT: for what is not about accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from musc_edge import LotImage, ReferenceFolder, ReferenceOptions, make_reference
from musc_edge.runtime.images.listing import list_lot
from support.places import DATA

BUNDLE = DATA / "schema1" / "bundle"


def part(seed: int, spot: float = 0.0) -> Image.Image:
    """A picture of 40 x 40 pixels: the same pattern on every part, some noise, and perhaps a bright spot."""
    y, x = np.mgrid[:40, :40]
    pattern = 110 + 40 * np.sin(x / 3) + 30 * np.cos(y / 5)
    noisy = pattern + np.random.default_rng(seed).normal(0, 6, (40, 40))
    noisy[10:16, 20:26] += spot
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).convert("RGB")


def write_lot(folder: Path, images: int, first: int = 0) -> list[LotImage]:
    """Write a lot of good parts into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + images):
        part(seed).save(folder / f"{seed}.png")
    return list(list_lot(folder))


def reference(lot: Path, out: Path, **options: float) -> ReferenceFolder:
    """Make a reference of ``lot`` with the tiny ViT."""
    return make_reference(lot, BUNDLE, out, options=ReferenceOptions(**options))  # type: ignore[arg-type]
