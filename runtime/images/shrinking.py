"""Say when images are much larger than the ViT's input, and what of them is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

MUCH = 4.0
"""Pixels of an image, along one side, that become one: from here on the user is told."""


def shrink_note(sizes: Sequence[tuple[int, int]], model: tuple[int, int], patch: int) -> str:
    """Return a note on images that are shrunk much, else an empty text.

    Parameters
    ----------
    sizes : (width, height) of each image in pixels.
    model : (height, width) of the ViT's input in pixels.
    patch : side of a patch in pixels of the ViT's input.
    """
    if not sizes:
        return ""
    width, height = (median(side) for side in zip(*sizes, strict=True))
    across, down = width / model[1], height / model[0]
    if (across * down) ** 0.5 < MUCH:
        return ""
    return (
        f"images of {width:.0f} x {height:.0f} pixels are shrunk to {model[1]} x {model[0]}, "
        f"{across:.3g} by {down:.3g} times: a patch covers {patch * across:.0f} x {patch * down:.0f} of "
        "their pixels, and what is much smaller may not show in the scores. For small defects make a "
        "bundle with a larger --image-size (musc-export), or cut the images by --tiles"
    )
