"""Warn the user where the method reaches its limits: warnings that come with a lot's scores.

How often each warning is right and how often it is a false alarm was measured on real images
(docs/warnings.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..._files import shown
from ..._numbers import counted
from ..settings import PAIRS
from ..types import Array, Copies, FloatArray, Manifest
from .blocks import ByBlocks, here
from .spanning_tree import Link, spanning_tree

FEW_IMAGES = 20
GROUP_GAP = 2.7
"""Gap between two groups of CLS embeddings, in median links, from which a lot counts as mixed."""

GROUP_SHARE, GROUP_IMAGES = 0.1, 5
COPIES_NAMED, IMAGES_NAMED = 3, 5
RANDOM = "none"
"""What a manifest has in place of a name where the weights are random numbers."""
STAND_OUT = 1.2
"""Ratio of the largest raw score to the median below which nothing stands out."""


def bundle_cautions(manifest: Manifest) -> tuple[str, ...]:
    """Return the warnings for a bundle, whatever the lot: that its ViT has learned nothing.

    Of an ONNX file nobody knows where its weights come from, and nothing is said.
    """
    if manifest.pretrained != RANDOM:
        return ()
    return (
        f"the bundle's ViT ({manifest.backbone}) has random weights and has learned nothing: the scores "
        "look like any others, but do not trust them. Export it with --pretrained or --checkpoint",
    )


def cautions(raw_scores: Array, cls: FloatArray, skipped: int, by_blocks: ByBlocks = here) -> tuple[str, ...]:
    """Return the warnings for a lot: raw scores (N,), CLS embeddings (N,D), number of skipped images."""
    count = len(raw_scores)
    warnings = []
    if skipped:
        warnings.append(f"{skipped} of {count + skipped} images could not be scored; scores.csv says why")
    if count < FEW_IMAGES:
        warnings.append(
            f"only {counted(count, 'image')}: each is judged by few others; scores get steady from about "
            f"{FEW_IMAGES} on"
        )
    smaller = separate_group(cls, by_blocks)
    if smaller:
        warnings.append(
            f"the images fall into clearly separate groups ({smaller} and {count - smaller}); if these are "
            "different products, score each by itself: --group-by folder"
        )
    if stand_out(raw_scores) < STAND_OUT:
        warnings.append(
            "no image stands out: the lot may hold no defect, or one that most images have; the order of "
            "the scores says little"
        )
    return tuple(warnings)


def copy_caution(copies: Sequence[Copies], *, judge: bool, by: str = PAIRS) -> tuple[str, ...]:
    """Return the warning for a lot in which images are copies of each other, with the first of them.

    ``judge`` says whether it was asked for that copies judge each other, ``by`` what patches are scored by.
    """
    if not copies:
        return ()
    first = "; ".join(_alike(group) for group in copies[:COPIES_NAMED])
    rest = len(copies) - COPIES_NAMED
    more = f"; and {rest} more, see lot.json" if rest > 0 else ""
    return (
        f"{sum(len(group.images) for group in copies)} images are copies of others: {first}{more}. "
        f"{_what_came_of_it(copies, judge=judge, by=by)}",
    )


def _what_came_of_it(copies: Sequence[Copies], *, judge: bool, by: str) -> str:
    """Say whether copies judge each other, and what to do."""
    if all(group.apart for group in copies):
        return "They do not judge each other"
    text = "a defect that is on several of them scores too low"
    if by != PAIRS:
        return f"What is on all of them counts as common to the lot: {text}. Keep one of each, with --exclude"
    if judge:
        return f"Copies judge each other: {text}. Keep one of each, with --exclude, or use --copies apart"
    return (
        "Too few others are left to judge some of them by, so that these judge each other all the same: "
        f"{text}. Keep one of each, with --exclude"
    )


def _alike(copies: Copies) -> str:
    """Names of one group, and in what they agree; of many, the first ones."""
    names = copies.images
    text = ", ".join(map(shown, names[:IMAGES_NAMED]))
    if len(names) > IMAGES_NAMED:
        text += f" and {len(names) - IMAGES_NAMED} more"
    same = any(len(group) == len(names) for group in copies.same_bytes)
    return f"{text} ({'the same bytes' if same else 'nearly the same picture'})"


def separate_group(cls: FloatArray, by_blocks: ByBlocks = here) -> int:
    """Size of the smaller of two clearly separate groups of CLS embeddings (N,D), or 0.

    The minimum spanning tree of the embeddings is cut at its longest link that leaves enough images
    on both sides; the groups are separate where that link is GROUP_GAP times the median link.
    """
    count = len(cls)
    least = max(GROUP_IMAGES, round(GROUP_SHARE * count))
    if count < 2 * least:
        return 0
    links = sorted(spanning_tree(cls, by_blocks), reverse=True)
    limit = GROUP_GAP * float(np.median([length for length, _, _ in links]))
    for link, side in zip(links, _sides(links), strict=True):
        if link.length < limit:
            return 0
        # Cutting one link of a tree leaves two parts; the longest link often cuts off a single odd image,
        # so shorter ones are tried until both parts are large enough to be products of their own.
        if min(side, count - side) >= least:
            return min(side, count - side)
    return 0


def stand_out(raw_scores: Array) -> float:
    """Ratio of the largest raw score to the median; 1 where all are zero."""
    median = float(np.median(raw_scores))
    return float(raw_scores.max()) / median if median > 0 else 1.0


def _sides(links: Sequence[Link]) -> list[int]:
    """Of each link of a tree, how many points are on that side of it which point 0 is not on."""
    neighbors: list[list[int]] = [[] for _ in range(len(links) + 1)]
    for _, a, b in links:
        neighbors[a].append(b)
        neighbors[b].append(a)
    parent, order = {0: -1}, [0]  # from the first point on, each after the one that it hangs on
    for point in order:
        fresh = [other for other in neighbors[point] if other != parent[point]]
        parent.update(dict.fromkeys(fresh, point))
        order += fresh
    below = [1] * len(order)
    for point in reversed(order[1:]):
        below[parent[point]] += below[point]
    return [below[b] if parent[b] == a else below[a] for _, a, b in links]
