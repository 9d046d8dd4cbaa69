"""The GPU's part of the memory plan: how much of a lot is on the device at once.  Pure arithmetic.

A lot needs there, in bytes, one layer and degree at a time:
    tokens     S*N * P*C * itemsize              as the ViT gave them, of all layers
    or         ring * block * P*C * itemsize     a ring of buffers for a block each, two at least
    features   N * P*pitch * 2                   pooled rows in half precision, P in eights, and squares; or
               N * P*pitch                       in int8, with their scales
    distances  panel * K*P * 4                   of the images of a panel to all their judges
    other      pairs, scores, and eight images from which the rows' common part is taken

If all of it fits, tokens go to the device as the ViT gives them, and every pair is compared once.  If not,
first the tokens are copied for each layer, or for each degree.  Then the images are scored in panels, whose
distances are there together, so that pairs across panels are compared twice.  At last only the features of
the panel stay on the device, and those of the other images pass by, block after block.  No plan changes a
result: a minimum does not depend on the order of its terms, and one thread averages a patch's distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..._numbers import ceil_div
from ...kernels.launches import MOST_IMAGES, most_pairs, pitch_of
from ...kernels.precisions import HALF
from ..errors import LotError
from ..memory import available_memory, size_text
from ..scoring.plan import HostNeeds, LotSize
from ..types import DevicePlan, Plan
from .rows import row_bytes

BLOCK_BYTES = 32_000_000
"""Bytes of tokens in a block, which are copied at once: enough to be fast, little enough to wait for."""
SAMPLES = 8
"""Images from which the common part of all rows is taken."""
PAIR_BYTES = 16
ALL_TOKENS = 0
"""Given as ``ring``: there is no ring, the tokens of all layers are on the device."""
LAUNCH_FLOP = 2e13
"""Work of one launch: about a second on the smallest boards, after which ctrl-C is noticed."""


def make_device_plan(
    size: LotSize, budget: int, precision: str = HALF, *, holds_tokens: bool | None = None
) -> DevicePlan:
    """Return the fastest plan within ``budget`` bytes of device memory.

    ``holds_tokens`` is True if the tokens of all layers are on the device already, False if they cannot be
    put there, None if they can.  ``precision`` is what patches are compared in.

    Raises
    ------
    LotError
        If the smallest plan needs more.
    """
    plans = [
        plan for plan in _candidates(size, budget, precision) if holds_tokens in (None, plan.holds_tokens)
    ]
    if fitting := [plan for plan in plans if plan.memory_bytes <= budget]:
        return min(fitting, key=_cost)
    least = min(plan.memory_bytes for plan in plans)
    raise LotError(
        f"{size_text(budget)} of device memory is too little for {size.images} images of {size.patches} "
        f"patches: the smallest plan needs {size_text(least)}. Close what else uses the GPU, let fewer "
        "images score each (--group-size), or use --scorer numpy."
    )


def device_budget(host: Plan, free: int, wanted: int | None, *, integrated: bool) -> int:
    """Return the bytes of device memory that a plan may take: ``wanted``, or nine tenths of what is free.

    An ``integrated`` GPU shares the processor's memory, and its driver counts cached files as taken.  There
    the free memory is what the system can give beyond the host's plan.
    """
    if wanted is not None:
        return wanted
    if integrated:
        # The program is already taken out of what is available: the host's plan counts it once more.
        free = max(available_memory() - host.memory_bytes + host.program_bytes, 0)
    return free * 9 // 10


def host_plan(size: LotSize, needs: HostNeeds, *, tokens_on_device: bool = False) -> Plan:
    """Make the host's part: tokens in memory or in a file, and the memory for copying them to the device.

    Raises
    ------
    LotError
        If the budget is below what the smallest plan needs.
    """
    # Three blocks of tokens: the one that is read, and two page-locked buffers of uploads (pycuda_gpu.py).
    block = _block(size)
    workspace = (
        3 * block * size.patches * size.width * size.itemsize + size.images * size.patches * 36 * size.results
    )

    def plan(tokens_on_disk: bool) -> Plan:
        return Plan(
            budget=needs.budget,
            threads=needs.threads,
            block=block,
            blocks_in_memory=1,
            tokens_on_disk=tokens_on_disk or needs.keep,
            cosines_on_disk=False,
            token_bytes=0 if tokens_on_device else size.token_bytes,
            cosine_bytes=0,
            workspace_bytes=workspace,
            program_bytes=needs.program_bytes,
            vit_bytes=needs.vit_bytes,
            decoding_bytes=needs.decoding_bytes,
            writing_bytes=needs.writing_bytes,
        )

    for on_disk in (False, True):
        if needs.budget is None or plan(on_disk).memory_bytes <= needs.budget:
            return plan(on_disk)
    raise LotError(
        f"a memory budget of {size_text(needs.budget or 0)} is too small for {size.images} images of "
        f"{size.patches} patches: the smallest that works is {size_text(plan(True).memory_bytes + 1e6)}."
    )


def pairs_per_launch(size: LotSize) -> int:
    """Return the number of pairs of images that one launch compares."""
    flop = 2.0 * size.patches**2 * pitch_of(size.width)
    return max(1, min(int(LAUNCH_FLOP / flop), size.images * size.judge_count, most_pairs(size.patches)))


def _candidates(size: LotSize, budget: int, precision: str = HALF) -> Iterator[DevicePlan]:
    """Yield the plans to choose from: each can be the fastest for some amount of memory."""
    # Smaller blocks make the ring and the block behind a panel smaller, at the price of smaller copies.
    block = _block(size)
    for smaller in dict.fromkeys((block, ceil_div(block, 4), ceil_div(block, 16))):
        cut = _Cut(size, budget, smaller, precision)
        blocks = ceil_div(size.images, smaller)
        # One panel, so that no pair is compared twice.  With a ring of 2 a block is copied while another is
        # pooled, and all blocks again for each degree.  One of ``blocks`` keeps a layer for all of its
        # degrees; with one of twice as many, the next layer's tokens come in meanwhile.
        for ring in (2, blocks, 2 * blocks):
            yield cut.plan(ring, blocks, False)
        # Panels of every size that changes their number; sizes in between would only take more memory.
        for panel_blocks in dict.fromkeys(ceil_div(blocks, panels) for panels in range(1, blocks + 1)):
            yield cut.plan(ALL_TOKENS, panel_blocks, False)
            yield cut.plan(ALL_TOKENS, panel_blocks, True)
            yield cut.plan(2, panel_blocks, False)
            yield cut.plan(2, panel_blocks, True)


def _cost(plan: DevicePlan) -> tuple[float, ...]:
    """Return what makes a plan slow, worst first: pairs compared twice, tokens pooled or copied again."""
    return plan.comparisons, plan.streamed, not plan.holds_tokens, -plan.ring * plan.block, -plan.block


@dataclass(frozen=True)
class _Cut:
    """A lot that is cut into blocks of ``block`` images."""

    size: LotSize
    budget: int
    block: int
    precision: str

    def plan(self, ring: int, panel_blocks: int, streamed: bool) -> DevicePlan:
        """Make the plan with ``ring`` buffers, or ALL_TOKENS, and panels of ``panel_blocks`` blocks."""
        size, block = self.size, self.block
        # A panel is whole blocks, since pairs within it are told by their blocks (schedule.py); and a launch
        # takes it as the second axis of a grid.
        panel = min(panel_blocks * block, size.images, MOST_IMAGES // block * block)
        # When streamed, the block that passes by lies behind the panel's own.
        held = min(panel + block, size.images) if streamed else size.images
        holds_tokens = ring == ALL_TOKENS
        ring = 0 if holds_tokens else min(ring, size.layers * ceil_div(size.images, block))
        row, of_sample = (row_bytes(size.patches, size.width, each) for each in (self.precision, HALF))
        tokens = size.patches * size.width * size.itemsize
        return DevicePlan(
            budget=self.budget,
            holds_tokens=holds_tokens,
            block=block,
            ring=ring,
            panel=panel,
            streamed=streamed,
            # Of p panels, pairs within one (a share of 1/p) are compared once, all others from both sides.
            comparisons=2 - 1 / ceil_div(size.images, panel),
            token_bytes=(size.layers * size.images if holds_tokens else ring * block) * tokens,
            feature_bytes=held * row,
            distance_bytes=panel * size.judge_count * size.patches * 4,
            # the samples' features, squares, centres and tokens; scores and centres; pairs; the shift
            other_bytes=min(SAMPLES, size.images) * (of_sample + 16 + (0 if holds_tokens else tokens))
            + size.images * (size.patches * 4 * size.results + 16)
            + pairs_per_launch(size) * PAIR_BYTES
            + pitch_of(size.width) * 4,
            precision=self.precision,
        )


def _block(size: LotSize) -> int:
    """Return the images in a block, whose tokens are copied at once."""
    fitting = max(1, BLOCK_BYTES // (size.patches * size.width * size.itemsize))
    return min(fitting, size.images, MOST_IMAGES)
