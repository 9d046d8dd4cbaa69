"""The one memory plan: where a lot's arrays live and how they are cut.  Pure arithmetic.

What a lot needs on the CPU, in bytes:
    tokens     S*N*P*C * itemsize    written once by the ViT, read once per layer, degree and block pair
    minima     N*N*P * 4             one layer and degree at a time
    workspace  2*resident*P*C * 4 + P*tile*P * 4 + what one tile needs while it is described

Within the budget everything stays in memory.  Beyond it first the minima and then the tokens move
to a memory-mapped file, and then fewer images keep their features in memory at once.  The tile, and
with it the shape of every matrix product, depends on P alone: no plan changes a result.
"""

from __future__ import annotations

from .errors import LotError
from .types import Plan

TILE_COLUMNS = 2048
"""Columns that one matrix product aims at; chosen so that the product stays in the cache."""


def make_plan(shape: tuple[int, int, int, int], itemsize: int, budget: int | None) -> Plan:
    """Plan for tokens of ``shape`` (S,N,P,C) with ``itemsize`` bytes each, within ``budget`` bytes.

    ``budget`` None means unlimited: everything in memory.

    Raises
    ------
    LotError
        If the budget is below what the smallest plan needs.
    """
    layers, images, patches, width = shape
    tile = max(1, TILE_COLUMNS // patches)
    token_bytes = layers * images * patches * width * itemsize
    minima_bytes = images * images * patches * 4

    def plan(resident: int, tokens_on_disk: bool, minima_on_disk: bool) -> Plan:
        workspace = _workspace(min(resident, images), images, patches, width, tile)
        return Plan(
            budget=-1 if budget is None else budget,
            tile=tile,
            resident=resident,
            tokens_on_disk=tokens_on_disk,
            minima_on_disk=minima_on_disk,
            token_bytes=token_bytes,
            minima_bytes=minima_bytes,
            workspace_bytes=workspace,
        )

    everything = _round_up(images, tile)
    candidates = [plan(everything, False, False), plan(everything, False, True), plan(everything, True, True)]
    resident = everything
    while resident > tile:
        resident = _round_up(resident // 2, tile)
        candidates.append(plan(resident, True, True))
    if budget is None:
        return candidates[0]
    for candidate in candidates:
        if candidate.memory_bytes <= budget:
            return candidate
    least = min(candidate.memory_bytes for candidate in candidates)
    raise LotError(
        f"a memory budget of {budget / 1e6:.0f} MB is too small for {images} images of {patches} patches: "
        f"the smallest that works is {least / 1e6 + 1:.0f} MB."
    )


def _workspace(resident: int, images: int, patches: int, width: int, tile: int) -> int:
    """Bytes of the aggregated features, one product, and a tile in the making (8-byte means, 3 copies)."""
    feature = patches * width * 4
    blocks = 1 if resident >= images else 2
    return blocks * resident * feature + patches * tile * patches * 4 + tile * feature * 5


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
