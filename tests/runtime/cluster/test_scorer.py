"""A cluster's scores, byte for byte those of one machine: whatever the lot, the judges and the method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime.cluster import arcs
from musc_edge.runtime.cluster.scorer import ClusterScorer
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.features import HostStore
from support.inline_cluster import InlineCluster
from support.interrupted import StopError, stops_behind
from support.lots import random_store

GRID, DEGREES = (3, 4), (1, 3)


@pytest.fixture(autouse=True)
def small_arcs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arcs of a few images, of which each is averaged in parts."""
    monkeypatch.setattr(arcs, "block_images", lambda patches: 3)
    monkeypatch.setattr(arcs, "ROW_BYTES", 2 * 40 * 2 * 12 * 4)


def scored(scorer: Any, store: HostStore, **given: Any) -> tuple[bytes, bytes]:
    later = np.empty(store.shape[1:3], np.float32)
    scores = scorer.score(store, scorer.plan(store.shape, 4), later=later, **given)
    return scores.tobytes(), later.tobytes()


METHODS: dict[str, dict[str, Any]] = {
    "all": {},
    "a few": {"group_size": 8},
    "an odd number": {"group_size": 7},
    "burn-out": {"burn_out": True},
    "a window": {"near": 1, "group_size": 10},
}


@pytest.mark.parametrize("images", [7, 41])
@pytest.mark.parametrize("name", METHODS)
def test_a_cluster_changes_no_byte(name: str, images: int) -> None:
    method = Method(GRID, DEGREES, **METHODS[name])
    store = random_store(images, (2, images, 12, 8))
    inside = np.random.default_rng(images).random((images, 12)) < 0.8
    copies = [(0, 3), (2, 5, 6)] if images > 7 else []
    for given in ({}, {"inside": inside}, {"copies": copies}):
        expected = scored(CpuScorer(method, "numpy"), store, **given)
        assert scored(ClusterScorer.of(method, InlineCluster(), "numpy"), store, **given) == expected


def test_such_lots_are_cut_into_many_arcs() -> None:
    cut = arcs.cut_circle(Method(GRID, DEGREES).lot_size((2, 41, 12, 8), 4))
    assert (cut.arc, cut.rows) == (6, 2)


def test_tokens_that_are_not_finite_are_named() -> None:
    store = random_store(0, (1, 9, 12, 8))
    store.tokens[0, 4, 2, 1] = np.inf
    with pytest.raises(LotError, match="in images 4 "):
        scored(ClusterScorer.of(Method(GRID, DEGREES), InlineCluster(), "numpy"), store)


def test_kept_work_is_taken_up_and_damage_is_made_again(tmp_path: Path) -> None:
    method = Method(GRID, DEGREES, group_size=8)
    store = random_store(3, (2, 41, 12, 8))
    scorer = ClusterScorer.of(method, InlineCluster(), "numpy")
    plan = scorer.plan(store.shape, 4, HostNeeds(keep=True))
    expected, _ = scored(CpuScorer(method, "numpy"), store)

    kept = Checkpoint(tmp_path / "kept", {}, {})
    with pytest.raises(StopError):
        scorer.score(store, plan, stops_behind(0.7), kept=kept)
    kept.close()
    table = tmp_path / "kept" / "cosines.bin"
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 1
    for damaged in (False, True):
        if damaged:
            table.write_bytes(content)
        kept = Checkpoint(tmp_path / "kept", {}, {})
        reports: list[float] = []
        scores = scorer.score(store, plan, lambda stage, done, *_, r=reports: r.append(done), kept=kept)
        kept.close()
        assert scores.tobytes() == expected
        assert "come from an earlier, interrupted run" in kept.notes[0]
        assert reports[-1] == 2 * method.judges(41).pairs
