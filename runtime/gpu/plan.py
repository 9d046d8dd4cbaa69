"""The GPU's part of the memory plan: what of a lot is on the device at once.  Pure arithmetic.

What a lot needs there, in bytes, one layer and degree at a time:
    tokens     S*N * P*C * itemsize              as the ViT gave them, of all layers
    or         ring * block * P*C * itemsize     a ring of blocks, two at least
    features   N * P*pitch * 2                   pooled rows in half precision, and their squares
    distances  panel * K*P * 4                   of the images of a panel to all their judges
    other      pairs, scores, and eight images from which the rows' common part is taken

If all fits, tokens go to the device as the ViT gives them, and every pair is compared once.  Beyond that
the tokens are copied anew for each degree; then the distances are made for a panel of images after the
other, so that pairs across panels are compared twice; and then only the panel's features stay on the
device, and the others' pass by. No plan changes a result: a minimum has no order, and each patch's
distances are averaged by one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..._numbers import ceil_div
from ...kernels.launches import MOST_IMAGES, most_pairs, pitch_of
from ..errors import LotError
from ..memory import available_memory, size_text
from ..scoring.plan import HostNeeds, LotSize
from ..types import DevicePlan, Plan

BLOCK_BYTES = 32_000_000
"""Tokens that are copied at once: enough to be fast, little enough to wait for."""
SAMPLES = 8
"""Images from which the common part of all rows is taken."""
PAIR_BYTES = 16
ALL_TOKENS = 0
"""Instead of a number of blocks in the ring: the tokens of all layers are on the device."""
LAUNCH_FLOP = 2e13
"""Work of one launch: about a second on the smallest boards, so that ctrl-C is heard."""


def make_device_plan(size: LotSize, budget: int, *, holds_tokens: bool | None = None) -> DevicePlan:
    """The fastest plan within ``budget`` bytes of device memory.

    ``holds_tokens`` says whether the tokens of all layers are on the device already; None if they may be put
    there.

    Raises
    ------
    LotError
        If the smallest plan needs more.
    """
    plans = [plan for plan in _candidates(size, budget) if holds_tokens in (None, plan.holds_tokens)]
    if fitting := [plan for plan in plans if plan.memory_bytes <= budget]:
        return min(fitting, key=_cost)
    least = min(plan.memory_bytes for plan in plans)
    raise LotError(
        f"{size_text(budget)} of device memory are too few for {size.images} images of {size.patches} "
        f"patches: the smallest plan needs {size_text(least)}. Close what else uses the GPU, let fewer "
        "images score each (--group-size), or use --scorer numpy."
    )


def device_budget(host: Plan, free: int, wanted: int | None, *, integrated: bool) -> int:
    """Bytes of device memory that a plan may take.

    Of what is ``free`` a tenth is left to others.  An ``integrated`` GPU shares the processor's memory, of
    which the driver counts what is only cached as taken: there it is what the system can give beyond the
    host's plan.
    """
    if wanted is not None:
        return wanted
    if integrated:
        free = max(available_memory() - host.memory_bytes + host.program_bytes, 0)
    return free * 9 // 10


def host_plan(size: LotSize, needs: HostNeeds, *, tokens_on_device: bool = False) -> Plan:
    """The host's part: tokens in memory or in a file, and what it takes to copy them to the device.

    Raises
    ------
    LotError
        If the budget is below what the smallest plan needs.
    """
    block = _block(size)
    workspace = 3 * block * size.patches * size.width * size.itemsize + size.images * size.patches * 36

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
        )

    for on_disk in (False, True):
        if needs.budget is None or plan(on_disk).memory_bytes <= needs.budget:
            return plan(on_disk)
    raise LotError(
        f"a memory budget of {size_text(needs.budget or 0)} is too small for {size.images} images of "
        f"{size.patches} patches: the smallest that works is {size_text(plan(True).memory_bytes + 1e6)}."
    )


def pairs_per_launch(size: LotSize) -> int:
    """Pairs of images that one launch compares."""
    flop = 2.0 * size.patches**2 * pitch_of(size.width)
    return max(1, min(int(LAUNCH_FLOP / flop), size.images * size.judge_count, most_pairs(size.patches)))


def _candidates(size: LotSize, budget: int) -> Iterator[DevicePlan]:
    """All plans that are worth a thought."""
    block = _block(size)
    for smaller in dict.fromkeys((block, ceil_div(block, 4), ceil_div(block, 16))):
        cut = _Cut(size, budget, smaller)
        blocks = ceil_div(size.images, smaller)
        for ring in (2, blocks, 2 * blocks):
            yield cut.plan(ring, blocks, False)
        for panel_blocks in dict.fromkeys(ceil_div(blocks, panels) for panels in range(1, blocks + 1)):
            yield cut.plan(ALL_TOKENS, panel_blocks, False)
            yield cut.plan(ALL_TOKENS, panel_blocks, True)
            yield cut.plan(2, panel_blocks, False)
            yield cut.plan(2, panel_blocks, True)


def _cost(plan: DevicePlan) -> tuple[float, ...]:
    """What makes a plan slow, the worst first: pairs compared again, then tokens copied or pooled again."""
    return plan.comparisons, plan.streamed, not plan.holds_tokens, -plan.ring * plan.block, -plan.block


@dataclass(frozen=True)
class _Cut:
    """A lot, cut into blocks of ``block`` images."""

    size: LotSize
    budget: int
    block: int

    def plan(self, ring: int, panel_blocks: int, streamed: bool) -> DevicePlan:
        """The plan with ``ring`` blocks of tokens, or all, and the distances of ``panel_blocks``."""
        size, block = self.size, self.block
        panel = min(panel_blocks * block, size.images, MOST_IMAGES // block * block)
        held = min(panel + block, size.images) if streamed else size.images
        holds_tokens = ring == ALL_TOKENS
        ring = 0 if holds_tokens else min(ring, size.layers * ceil_div(size.images, block))
        row = size.patches * pitch_of(size.width) * 2 + size.patches * 4
        tokens = size.patches * size.width * size.itemsize
        return DevicePlan(
            budget=self.budget,
            holds_tokens=holds_tokens,
            block=block,
            ring=ring,
            panel=panel,
            streamed=streamed,
            comparisons=2 - 1 / ceil_div(size.images, panel),
            token_bytes=(size.layers * size.images if holds_tokens else ring * block) * tokens,
            feature_bytes=held * row,
            distance_bytes=panel * size.judge_count * size.patches * 4,
            other_bytes=min(SAMPLES, size.images) * (row + 16 + (0 if holds_tokens else tokens))
            + size.images * (size.patches * 4 + 16)
            + pairs_per_launch(size) * PAIR_BYTES
            + pitch_of(size.width) * 4,
        )


def _block(size: LotSize) -> int:
    """Images whose tokens are copied at once."""
    fitting = max(1, BLOCK_BYTES // (size.patches * size.width * size.itemsize))
    return min(fitting, size.images, MOST_IMAGES)
