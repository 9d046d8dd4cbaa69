"""Results of two runs that must have the same bytes."""

from __future__ import annotations

from musc_edge.runtime.results.lot_result import LotResult


def same(one: LotResult, other: LotResult) -> None:
    """Assert that they do, in all that the images have."""
    assert [image.name for image in one.images] == [image.name for image in other.images]
    assert one.skipped == other.skipped
    assert one.copies == other.copies
    for name in ("maps", "raw_scores", "scores", "lot_scores", "cls", "later"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None and b is None) or a.tobytes() == b.tobytes(), name
