"""What sources of bundles share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from musc_edge.export import messages as say
from musc_edge.export.messages import batches
from musc_edge.export.source import default_size


@pytest.mark.parametrize(
    ("patch", "side"), [(14, 518), (16, 512), (32, 512), (8, 520), (518, 518), (2000, 2000)]
)
def test_default_size_is_the_nearest_to_the_authors(patch: int, side: int) -> None:
    assert default_size(patch) == (side, side)


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(say, "time", SimpleNamespace(perf_counter=lambda: now))
    said: list[str] = []
    found = []
    for part in batches(7, 2, said.append):
        found.append((part.start, part.stop))
        now += 15
    assert found == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert said == ["  4 of 7 images after 30 s"]
