"""Resample a learned position embedding to another grid.

Two ways are in use that differ by several percent, so the manifest says which one was taken:

    authors    torch's bicubic (a = -0.75), half-pixel, without antialiasing; for DINO with the scale
               (grid + 0.1) / stored, as its own code has it
    upstream   the same with antialias=True (open_clip 3, timm, and Meta's DINOv2 with registers)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..runtime.errors import BundleError


@dataclass(frozen=True)
class Resampling:
    """A way of resampling; ``offset`` is added to the new grid when the scale is computed."""

    antialias: bool = False
    offset: float = 0.0

    def say(self, stored: tuple[int, int], grid: tuple[int, int]) -> str:
        """Describe the resampling, for the manifest."""
        if stored == grid:
            return "as stored, {}x{}".format(*grid)
        offset = f", scale (grid+{self.offset})/stored" if self.offset else ""
        way = f"bicubic, antialias {'on' if self.antialias else 'off'}{offset}"
        return "{}, {}x{} to {}x{}".format(way, *stored, *grid)


AUTHORS = Resampling()
AUTHORS_DINO = Resampling(offset=0.1)
UPSTREAM = Resampling(antialias=True)


def resample(
    embedding: torch.Tensor, stored: tuple[int, int], grid: tuple[int, int], way: Resampling
) -> torch.Tensor:
    """Resample a position embedding (T,C) from a ``stored`` grid to ``grid``; leading tokens stay.

    Raises
    ------
    BundleError
        If the embedding has fewer tokens than its grid.
    """
    patches = stored[0] * stored[1]
    prefix = len(embedding) - patches
    if prefix < 0:
        raise BundleError(f"the position embedding has {len(embedding)} tokens, its grid {stored} more.")
    if stored == grid:
        return embedding
    first, rest = embedding[:prefix], embedding[prefix:].float()
    image = rest.reshape(1, *stored, -1).permute(0, 3, 1, 2)  # (1,C,Gh,Gw)
    # Given a scale, torch samples by it even if the grid that follows is rounded; given a size it computes
    # the scale itself, without the offset.
    if way.offset:
        scale = tuple((new + way.offset) / old for new, old in zip(grid, stored, strict=True))
        image = torch.nn.functional.interpolate(image, scale_factor=scale, mode="bicubic")
    else:
        image = torch.nn.functional.interpolate(image, grid, mode="bicubic", antialias=way.antialias)
    flat = image.permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])
    return torch.cat([first, flat.to(first.dtype)])
