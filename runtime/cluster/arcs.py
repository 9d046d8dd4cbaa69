"""How a lot is cut for a cluster, and what it takes there.  Pure arithmetic.

What lies with the cluster, in bytes:
    tokens     S*N*P*C * itemsize       on the machines that described the images, spilled to their disks
    prepared   N*P*C * 4                of one layer
    cosines    N*K*R*P * 4              of one layer, gone as soon as an image is averaged
What goes over the network, at most: the tokens of all layers once, to be prepared; both arcs of each cell;
the cosines of all pairs, to where they are averaged.

The cut depends on the lot alone, not on the cluster: what one run has kept another takes up.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Protocol

from ..._numbers import ceil_div
from ..errors import LotError
from ..memory import size_text
from ..scoring.judges import choose
from ..scoring.plan import HostNeeds, LotSize, block_images
from ..types import ClusterPlan, Plan
from .engine import STORE_SHARE, WORKER_BYTES, WORKERS_SHARE, with_slack

ARC_BYTES = 32_000_000
"""Bytes of the tokens of an arc, at most: two of them are read for one task."""
CELL_BYTES = 64_000_000
"""Bytes of the cosines of a cell, at most: what a task gives."""
ROW_BYTES = 128_000_000
"""Bytes of the cosines that one task averages, at most."""
LEAST_ARCS = 8
"""Arcs of a lot, at least, if its blocks are so many: their 36 cells keep a few machines busy."""


class Machines(Protocol):
    """What a plan must know of a cluster (engine.Cluster)."""

    def threads_for(self, memory: int) -> int:
        """LotError if no machine has so much for a task."""
        ...

    def require_store(self, size: int, instead: str = "") -> None:
        """LotError if the objects of a task do not fit."""
        ...

    def over_network(self, size: int) -> int:
        """How many of ``size`` bytes go over a network, at most."""
        ...

    @property
    def reserved(self) -> int:
        """Bytes of the memory budget that it has."""
        ...

    @property
    def cpus(self) -> int:
        """Processors of all machines."""
        ...


@dataclass(frozen=True)
class Cut:
    """``arc`` places make an arc; ``rows`` of them are averaged by one task."""

    arc: int
    rows: int


def cut_circle(size: LotSize) -> Cut:
    """Cut a lot: arcs of whole blocks, as large as the tokens of a task may be."""
    block = block_images(size.patches)
    fitting = ARC_BYTES // (size.patches * size.width * 4)
    square = isqrt(CELL_BYTES // (2 * size.degree_count * size.patches * 4))
    several = ceil_div(size.images, LEAST_ARCS)
    arc = max(1, ceil_div(min(fitting, square, several), block)) * block
    row = max(1, size.judge_count) * size.degree_count * size.patches * 4
    return Cut(arc, min(arc, max(1, ROW_BYTES // row)))


def cells(size: LotSize, cut: Cut) -> int:
    """How many cells of two arcs have pairs."""
    arcs = ceil_div(size.images, cut.arc)
    if size.judge_count >= size.images - 1:
        return arcs * (arcs + 1) // 2
    judges = choose(size.images, size.judge_count)
    return sum(len(group) for group in judges.groups(cut.arc, arcs))


def moved_bytes(size: LotSize, cut: Cut) -> int:
    """Bytes over the network, at most: where no task finds anything on its own machine."""
    image = size.patches * size.width * 4
    pairs = 2 * cells(size, cut) * min(cut.arc, size.images) * image + size.cosine_bytes
    return size.token_bytes + size.layers * pairs


def task_bytes(size: LotSize, cut: Cut) -> int:
    """Bytes of the objects of one task: two arcs, and their cosines or those of its rows."""
    arc = cut.arc * size.patches * (size.width + size.degree_count) * 4
    cosines = size.degree_count * size.patches * 4
    return 2 * arc + max(2 * cut.arc**2, cut.rows * size.judge_count) * cosines


def worker_bytes(size: LotSize, cut: Cut) -> int:
    """Bytes of a process that compares or averages."""
    gram = 3 * size.patches**2 * 4
    cosines = 2 * cut.arc**2 * size.degree_count * size.patches * 4
    averaging = (cut.rows + 4) * size.judge_count * size.degree_count * size.patches * 4
    preparing = 2 * cut.arc * size.patches * size.width * 4
    return WORKER_BYTES + max(gram + cosines, averaging, preparing)


def cluster_plan(size: LotSize, needs: HostNeeds, cluster: Machines) -> Plan:
    """Make the plan of a lot on a cluster: this process holds scores and what is small alone.

    Raises
    ------
    LotError
        If the budget is too small for that.
    """
    cut = cut_circle(size)
    cluster.threads_for(worker_bytes(size, cut))
    cluster.require_store(task_bytes(size, cut), "; or score each image by fewer others with a group size")
    on_cluster = ClusterPlan(
        processors=cluster.cpus,
        arc=cut.arc,
        cells=cells(size, cut),
        worker_bytes=worker_bytes(size, cut),
        object_bytes=size.token_bytes + size.images * size.patches * size.width * 4 + size.cosine_bytes,
        moved_bytes=cluster.over_network(moved_bytes(size, cut) + kept_bytes(size, needs, size.cosine_bytes)),
        reserved=cluster.reserved,
    )
    return head_plan(size, needs, on_cluster, pairs=True)


def kept_bytes(size: LotSize, needs: HostNeeds, cosines: int = 0) -> int:
    """Bytes that come to this process to be kept: tokens, and the ``cosines`` of each layer."""
    return size.token_bytes + size.layers * cosines if needs.keep else 0


def head_plan(size: LotSize, needs: HostNeeds, on_cluster: ClusterPlan, *, pairs: bool) -> Plan:
    """Make the plan of the process that gives the work to a cluster: to compare ``pairs``, or by residual.

    Raises
    ------
    LotError
        If the budget is too small for that.
    """
    # with kept work, tokens of a task on their way from the disk
    task = on_cluster.arc * size.patches * size.width * size.itemsize if needs.keep else 0
    plan = Plan(
        budget=needs.budget,
        threads=needs.threads,
        block=on_cluster.arc,
        blocks_in_memory=1,
        tokens_on_disk=needs.keep,
        cosines_on_disk=needs.keep and pairs,
        token_bytes=size.token_bytes,
        cosine_bytes=size.cosine_bytes if pairs else 0,
        workspace_bytes=head_bytes(size, pairs=pairs) + task,
        program_bytes=needs.program_bytes,
        vit_bytes=0,
        writing_bytes=needs.writing_bytes,
        cluster=on_cluster,
    )
    reserved = on_cluster.reserved
    if needs.budget is not None and plan.memory_bytes > needs.budget - reserved:
        beside, enough = "", plan.memory_bytes
        if reserved:  # which grows with the budget: this process gets the rest of each byte more
            beside = f", and the cluster on this machine has {size_text(reserved)} of it"
            missing = plan.memory_bytes - (needs.budget - reserved)
            enough = needs.budget + int(missing / (1 - STORE_SHARE - WORKERS_SHARE))
        fewer = ", or score each image by fewer others with a group size" if pairs else ""
        raise LotError(
            f"a memory budget of {size_text(needs.budget)} is too small for {size.images} images on a "
            f"cluster: this process alone needs {size_text(plan.memory_bytes)}{beside}. Raise "
            f"--memory-budget to {size_text(with_slack(enough))}{fewer}."
        )
    return plan


def head_bytes(size: LotSize, *, pairs: bool) -> int:
    """Bytes of the process that gives the work to a cluster, beside its program."""
    # Tokens so small come along with what a task says of itself, and stay here.
    small = size.patches * size.width * size.itemsize <= INLINE_BYTES
    held = (size.token_bytes if small else 0) + size.images * COPIES_BYTES
    held += size.layers * size.images * REFERENCE_BYTES
    return held + (_comparing_bytes(size, cut_circle(size)) if pairs else _residual_bytes(size))


def _residual_bytes(size: LotSize) -> int:
    """Bytes of this process while residuals are measured."""
    # scores of one layer, of all, and what is returned; moments of the lot, and what becomes of them
    return 20 * size.images * size.patches + 8 * size.width**2 * (2 * size.degree_count + 4)


def _open_cells(size: LotSize, cut: Cut) -> int:
    """How many cells are waiting for others of their rows, at most."""
    reach = ceil_div(size.judge_count, 2 * cut.arc) + 1
    arcs = ceil_div(size.images, cut.arc)
    return min(reach**2 * 2, arcs * (arcs + 1) // 2) + arcs  # those across the end of the circle too


INLINE_BYTES = 100 * 1024
"""Bytes of an object that Ray keeps with who owns it, and not in shared memory, at most."""
COPIES_BYTES = 20_000
"""Bytes for each image while copies are looked for: twice its sketch, and rows of distances."""
REFERENCE_BYTES = 2_000
"""Bytes that this process keeps of each object of the cluster, about."""


def _comparing_bytes(size: LotSize, cut: Cut) -> int:
    """Bytes of this process while pairs are compared: references, scores of one layer and of all, a cell."""
    parts = ceil_div(cut.arc, cut.rows)
    references = 2 * parts * min(cells(size, cut), _open_cells(size, cut))
    scores = 24 * size.results * size.images * size.patches
    hollow = size.images * size.degree_count * size.patches
    one_cell = 4 * cut.arc**2 * size.degree_count * size.patches * 4
    return references * REFERENCE_BYTES + scores + hollow + one_cell
