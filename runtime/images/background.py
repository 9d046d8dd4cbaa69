"""Tell a product from a plain background behind it, in one image, without knowing either.

The border of the image shows the background.  Where nearly all of it has one colour, all that has this colour
and hangs together with the border is background, if it ends in a clear edge.  Else nothing is said.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from ..types import Array

LONGEST = 320
"""Pixels of the longer side of the picture that is looked at."""
RING = 0.02
"""Width of the border, as a share of the shorter side."""
PLAIN = 0.9
"""Least share of the border that has the background's colour."""
NEAR, SPREADS = 6.0, 5.0
"""What is of the background's colour: distance in Lab, the larger of a fixed one and some spreads."""
SHARE = (0.05, 0.9)
"""Least and largest share of the image that is background."""
STEP = 2.0
"""How much farther from the background's colour the product is, just within its edge, than that distance."""


def product_mask(picture: Image.Image) -> Array | None:
    """Return where (h,w) a small copy of an RGB picture shows the product; None where that is not clear."""
    small = picture.copy()
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    lab = cv2.cvtColor(np.asarray(small, np.float32) / np.float32(255), cv2.COLOR_RGB2Lab)
    height, width = lab.shape[:2]
    ring = np.ones((height, width), bool)
    edge = max(1, round(RING * min(height, width)))
    ring[edge:-edge, edge:-edge] = False
    away = np.linalg.norm(lab - np.median(lab[ring], axis=0), axis=-1)
    near = max(NEAR, SPREADS * float(np.median(away[ring])))
    if (away[ring] <= near).mean() < PLAIN:
        return None
    product = _without_specks(~_joined_with(ring, away <= near))
    if not SHARE[0] <= 1 - product.mean() <= SHARE[1]:
        return None
    return product if _edge_is_clear(product, away, near) else None


def _joined_with(ring: Array, alike: Array) -> Array:
    """Return the parts of ``alike`` that hang together with the ``ring``."""
    count, parts = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)
    touching = np.zeros(count, bool)
    touching[np.unique(parts[ring & alike])] = True
    touching[0] = False
    joined: Array = touching[parts]
    return joined


def _without_specks(product: Array) -> Array:
    """Leave out what is thin or small: dust on the background, noise at the product's edge."""
    kernel = np.ones((3, 3), np.uint8)
    opened = cv2.morphologyEx(product.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    _, parts, facts, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    large = facts[:, cv2.CC_STAT_AREA] >= 0.05 * product.sum()
    large[0] = False
    found: Array = large[parts]
    return found


def _edge_is_clear(product: Array, away: Array, near: float) -> bool:
    """Whether the product, just within its edge, is far from the background's colour: no gradual passage."""
    kernel = np.ones((3, 3), np.uint8)
    whole = product.astype(np.uint8)
    within = cv2.erode(whole, kernel).astype(bool)
    rim = within & ~cv2.erode(whole, kernel, iterations=4).astype(bool)
    return bool(rim.any()) and float(np.median(away[rim])) >= STEP * near
