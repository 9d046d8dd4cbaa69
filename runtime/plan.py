"""The one memory plan: where a lot's arrays live and how they are cut.  Pure arithmetic.

What a lot needs on the CPU, in bytes:
    tokens     S*N*P*C * itemsize           written once by the ViT, read twice or more per layer
    minima     N*K*R*P * 4                  one layer at a time; K judges per image
    workspace  resident blocks of centred tokens, lengths, and the scratch of each thread
    fixed      the program itself, measured, not planned
    vit        the ViT and a batch of images, gone before the images are compared

Within the budget everything stays in memory.  Beyond it first the minima and then the tokens move
to a file, and then fewer images keep their tokens in memory at once.  How the images are cut into blocks
depends on P alone, and every pair of images is compared for itself: no plan changes a result.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import LotError
from .types import Plan

BLOCK_TOKENS = 2048
"""Tokens that a block of images aims at: enough work to hand to a thread, little enough to lose."""
LEAST_BLOCK, LARGEST_BLOCK = 2, 16


@dataclass(frozen=True)
class LotSize:
    """What a plan is made for: tokens (S,N,P,C) of ``itemsize`` bytes, R degrees, K judges per image."""

    layers: int
    images: int
    patches: int
    width: int
    itemsize: int
    degrees: int
    judges: int

    @property
    def token_bytes(self) -> int:
        """The features of the lot."""
        return self.layers * self.images * self.patches * self.width * self.itemsize

    @property
    def minima_bytes(self) -> int:
        """The largest cosines of one layer."""
        return self.images * self.judges * self.degrees * self.patches * 4


def block_images(patches: int) -> int:
    """Images in a block: the unit in which features are loaded, work is handed out and kept."""
    return min(max(BLOCK_TOKENS // patches, LEAST_BLOCK), LARGEST_BLOCK)


def make_plan(
    size: LotSize,
    budget: int | None,
    *,
    threads: int = 1,
    scratch_bytes: int = 0,
    fixed_bytes: int = 0,
    vit_bytes: int = 0,
    keep: bool = False,
) -> Plan:
    """Plan within ``budget`` bytes for the whole process; None means unlimited: everything in memory.

    Parameters
    ----------
    threads : threads that compare images, each with ``scratch_bytes`` of its own.
    fixed_bytes : what the process holds besides.
    vit_bytes : what the ViT holds while it runs.
    keep : tokens and minima are kept in files, to resume from, whatever the budget.

    Raises
    ------
    LotError
        If the budget is below what the smallest plan needs.
    """
    block = block_images(size.patches)
    per_thread = scratch_bytes + _describing(size) + size.patches**2 * 4

    def plan(resident: int, tokens_on_disk: bool, minima_on_disk: bool) -> Plan:
        held = min(2 * resident, -(-size.images // block)) * block  # the two sides of a comparison
        return Plan(
            budget=-1 if budget is None else budget,
            threads=threads,
            block=block,
            resident=resident,
            tokens_on_disk=tokens_on_disk or keep,
            minima_on_disk=minima_on_disk or keep,
            token_bytes=size.token_bytes,
            minima_bytes=size.minima_bytes,
            workspace_bytes=held * size.patches * size.width * 4
            # lengths of all layers, scores of one and of all
            + size.images * size.patches * (4 * size.degrees * size.layers + 24)
            + threads * max(per_thread, _selecting(size)),
            fixed_bytes=fixed_bytes,
            vit_bytes=vit_bytes,
        )

    everything = max(1, -(-size.images // block))
    candidates = [plan(everything, False, False), plan(everything, False, True), plan(everything, True, True)]
    resident = everything
    while resident > 2:
        resident = -(-resident // 2)
        candidates.append(plan(resident, True, True))
    if budget is None:
        return candidates[0]
    for candidate in candidates:
        if candidate.memory_bytes <= budget:
            return candidate
    least = min(candidate.memory_bytes for candidate in candidates)
    fixed = (
        f"; the program takes {fixed_bytes / 1e6:.0f} MB, and first the ViT {vit_bytes / 1e6:.0f} MB"
        if fixed_bytes
        else ""
    )
    raise LotError(
        f"a memory budget of {budget / 1e6:.0f} MB is too small for {size.images} images of {size.patches} "
        f"patches: the smallest that works is {least / 1e6 + 1:.0f} MB{fixed}."
    )


def _describing(size: LotSize) -> int:
    """Bytes that one thread needs to read an image and measure its tokens: itself, and two sums of it."""
    return size.patches * size.width * (size.itemsize + 3 * 4)


def _selecting(size: LotSize) -> int:
    """Bytes that one thread needs to average the distances of an image: four copies of them."""
    return 4 * size.judges * size.degrees * size.patches * 4
