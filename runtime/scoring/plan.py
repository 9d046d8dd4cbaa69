"""The one memory plan: where a lot's arrays live and how they are cut.  Pure arithmetic.

What a lot needs on the CPU, in bytes:
    tokens     S*N*P*C * itemsize           written once by the ViT, read twice or more per layer
    cosines    N*K*R*P * 4                  the largest, one layer at a time; K judges per image
    workspace  a few blocks of centred tokens, lengths, and the scratch of each thread
    program    the program itself, measured, not planned
    vit        the ViT and a batch of images, gone before the images are compared

Within the budget everything stays in memory.  Beyond it first the cosines and then the tokens move
to a file, and then fewer images keep their tokens in memory at once.  How the images are cut into blocks
depends on P alone, and every pair of images is compared by itself: no plan changes a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..._numbers import ceil_div
from ..errors import LotError
from ..types import Plan

BLOCK_TOKENS = 2048
"""Tokens in a block of images, about: enough work to hand to a thread, little enough to lose."""
LEAST_BLOCK, LARGEST_BLOCK = 2, 16


@dataclass(frozen=True)
class HostNeeds:
    """The limits that a plan must keep on the host, and the memory that is taken already.

    Attributes
    ----------
    budget : bytes for the whole process; None is unlimited: everything in memory.
    threads : threads that compare images.
    program_bytes : memory that the process holds besides.
    vit_bytes : memory that the ViT holds while it runs, before the images are compared.
    decoding_bytes : the part of ``vit_bytes`` for images that are decoded at once.
    writing_bytes : memory for maps and overlays, after the images were compared.
    keep : whether tokens and cosines go to files whatever the budget, so that a run can be resumed.
    """

    budget: int | None = None
    threads: int = 1
    program_bytes: int = 0
    vit_bytes: int = 0
    decoding_bytes: int = 0
    writing_bytes: int = 0
    keep: bool = False


UNLIMITED = HostNeeds()


@dataclass(frozen=True)
class LotSize:
    """The sizes that a plan depends on: tokens (S,N,P,C) of ``itemsize`` bytes, R degrees, K judges.

    ``results`` is how many numbers are measured of a patch: its score, and with burn-out one more.
    """

    layers: int
    images: int
    patches: int
    width: int
    itemsize: int
    degree_count: int
    judge_count: int
    results: int = 1

    @property
    def token_bytes(self) -> int:
        """Bytes of the tokens of all layers."""
        return self.layers * self.images * self.patches * self.width * self.itemsize

    @property
    def cosine_bytes(self) -> int:
        """Bytes of the largest cosines of one layer."""
        return self.images * self.judge_count * self.degree_count * self.patches * 4


def block_images(patches: int) -> int:
    """Return the images in a block, the unit in which tokens are loaded and work is handed out and kept."""
    # From P alone, not from the budget, the threads or the size of the lot: cells that one run has kept are
    # then the cells of the next, even if it has another budget.
    return min(max(BLOCK_TOKENS // patches, LEAST_BLOCK), LARGEST_BLOCK)


def make_plan(size: LotSize, needs: HostNeeds, scratch_bytes: int = 0) -> Plan:
    """Return the plan that holds the most in memory within the budget.

    ``scratch_bytes`` is the memory that each thread needs for itself while it compares.

    Raises
    ------
    LotError
        If the budget is below what the smallest plan needs.
    """
    return first_within(list(_plans(size, needs, scratch_bytes)), size, needs)


def first_within(plans: Sequence[Plan], size: LotSize, needs: HostNeeds) -> Plan:
    """Return the first plan within the budget; LotError if there is none."""
    budget = needs.budget
    if budget is None:
        return plans[0]
    for plan in plans:
        if plan.memory_bytes <= budget:
            return plan
    least = min(plan.memory_bytes for plan in plans)
    program, vit = needs.program_bytes / 1e6, needs.vit_bytes / 1e6
    taken = f"; the program takes {program:.0f} MB, and first the ViT {vit:.0f} MB" if program else ""
    raise LotError(
        f"a memory budget of {budget / 1e6:.0f} MB is too small for {size.images} images of {size.patches} "
        f"patches: the smallest that works is {least / 1e6 + 1:.0f} MB{taken}."
    )


def _plans(size: LotSize, needs: HostNeeds, scratch_bytes: int) -> Iterator[Plan]:
    """Yield all plans, from the one that holds everything in memory to the one that holds the least."""
    # Cosines move to disk first: they are written and read once, while tokens are read again and again.
    # Then blocks leave memory by halves; each halving about doubles how often tokens are read.
    held = max(1, ceil_div(size.images, block_images(size.patches)))
    yield _plan(size, needs, scratch_bytes, held, tokens_on_disk=False, cosines_on_disk=False)
    yield _plan(size, needs, scratch_bytes, held, tokens_on_disk=False, cosines_on_disk=True)
    yield _plan(size, needs, scratch_bytes, held, tokens_on_disk=True, cosines_on_disk=True)
    while held > 2:
        held = ceil_div(held, 2)
        yield _plan(size, needs, scratch_bytes, held, tokens_on_disk=True, cosines_on_disk=True)


def _plan(
    size: LotSize,
    needs: HostNeeds,
    scratch_bytes: int,
    blocks_in_memory: int,
    *,
    tokens_on_disk: bool,
    cosines_on_disk: bool,
) -> Plan:
    block = block_images(size.patches)
    images = min(2 * blocks_in_memory, ceil_div(size.images, block)) * block  # two sides are compared
    per_thread = scratch_bytes + _describing(size) + size.patches**2 * 4
    return Plan(
        budget=needs.budget,
        threads=needs.threads,
        block=block,
        blocks_in_memory=blocks_in_memory,
        tokens_on_disk=tokens_on_disk or needs.keep,
        cosines_on_disk=cosines_on_disk or needs.keep,
        token_bytes=size.token_bytes,
        cosine_bytes=size.cosine_bytes,
        # blocks of centred tokens in float32
        workspace_bytes=images * size.patches * size.width * 4
        # lengths of all layers, scores of one and of all
        + size.images * size.patches * (4 * size.degree_count * size.layers + 24 * size.results)
        + needs.threads * max(per_thread, _selecting(size)),
        program_bytes=needs.program_bytes,
        vit_bytes=needs.vit_bytes,
        decoding_bytes=needs.decoding_bytes,
        writing_bytes=needs.writing_bytes,
    )


def _describing(size: LotSize) -> int:
    """Bytes that one thread needs to read an image and measure its tokens: the image, and float32 copies."""
    return size.patches * size.width * (size.itemsize + 3 * 4)


def _selecting(size: LotSize) -> int:
    """Bytes that one thread needs to average the distances of an image: four copies of them."""
    return 4 * size.judge_count * size.degree_count * size.patches * 4
