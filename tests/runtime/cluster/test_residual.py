"""Scores by residual on a cluster, byte for byte those of one machine, and what they take of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime.cluster import residual
from musc_edge.runtime.cluster.engine import Node
from musc_edge.runtime.cluster.residual import ClusterResidual, residual_plan
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.plan import UNLIMITED, HostNeeds, LotSize
from musc_edge.runtime.scoring.residual import READS, ResidualScorer
from musc_edge.runtime.settings import RESIDUAL
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.features import HostStore
from support.inline_cluster import InlineCluster
from support.lots import random_store

METHOD = Method((3, 4), (1, 3), by=RESIDUAL)
THERE = Node("there", 4, 0, 1 << 40, 1 << 40)


def scored(scorer: Any, store: HostStore, **given: Any) -> bytes:
    scores = scorer.score(store, scorer.plan(store.shape, 4), **given)
    assert isinstance(scores, np.ndarray)
    return scores.tobytes()


@pytest.mark.parametrize("images", [5, 7, 100, 301])
@pytest.mark.parametrize("least", [True, False])
def test_a_cluster_changes_no_byte(images: int, least: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if least:  # one block in each task
        monkeypatch.setattr(residual, "MOMENTS_BYTES", 1)
    store = random_store(images, (2, images, 12, 8))
    inside = np.random.default_rng(images).random((images, 12)) < 0.8
    for given in ({}, {"inside": inside}):
        expected = scored(ResidualScorer(METHOD), store, **given)
        assert scored(ClusterResidual.of(METHOD, InlineCluster()), store, **given) == expected


def test_reads_are_reported_to_the_last() -> None:
    store, reports = random_store(0, (2, 100, 12, 8)), []
    scored(
        ClusterResidual.of(METHOD, InlineCluster()), store, progress=lambda *told: reports.append(told[1:3])
    )
    assert reports[-1] == (READS * 2 * 100, READS * 2 * 100)
    assert sorted(reports) == reports


def test_tokens_that_are_not_finite_are_named() -> None:
    store = random_store(0, (1, 40, 12, 8))
    store.tokens[0, 34, 2, 1] = np.inf
    with pytest.raises(LotError, match="in images 34 "):
        scored(ClusterResidual.of(METHOD, InlineCluster()), store)


def test_finished_layers_are_taken_up(tmp_path: Path) -> None:
    store = random_store(3, (3, 41, 12, 8))
    scorer = ClusterResidual.of(METHOD, InlineCluster())
    plan = scorer.plan(store.shape, 4, HostNeeds(keep=True))

    class StopError(Exception):
        """Ends a run in its third layer."""

    def stop(stage: str, done: float, total: float, unit: str) -> None:
        if done > 0.7 * total:
            raise StopError

    kept = Checkpoint(tmp_path / "kept", {}, {})
    with pytest.raises(StopError):
        scorer.score(store, plan, stop, kept=kept)
    kept.close()
    kept = Checkpoint(tmp_path / "kept", {}, {})
    scores = scorer.score(store, plan, kept=kept)
    kept.close()
    assert scores.tobytes() == scored(ResidualScorer(METHOD), store)
    assert kept.notes == ["scores of 2 layers come from an earlier, interrupted run"]


def test_what_a_lot_takes() -> None:
    size = LotSize(4, 100_000, 256, 384, 4, 3, 99_999)
    of_block = 8 * 3 * 384**2
    plan = residual_plan(size, UNLIMITED, InlineCluster(8, 1 << 40, THERE), 8)
    assert plan.cluster
    blocks = residual.MOMENTS_BYTES // of_block
    assert plan.cluster.arc == blocks * 8
    tasks = -(-100_000 // (blocks * 8))
    assert plan.cluster.moved_bytes == 2 * size.token_bytes + 4 * tasks * (blocks + 2) * of_block
    assert plan.cluster.worker_bytes < 600e6
    assert plan.memory_bytes < 4e9 < size.token_bytes / 30
    alone = residual_plan(size, UNLIMITED, InlineCluster(8), 8)
    assert alone.cluster
    assert alone.cluster.moved_bytes == 0
    small = residual_plan(LotSize(4, 100, 256, 384, 4, 3, 99), UNLIMITED, InlineCluster(8), 8)
    assert small.cluster
    assert small.cluster.arc == 8  # so that no worker is without


def test_a_cluster_without_the_memory_is_refused() -> None:
    size = LotSize(4, 1000, 256, 384, 4, 3, 999)
    with pytest.raises(LotError, match=r"a worker needs \d+ MB of memory"):
        residual_plan(size, UNLIMITED, InlineCluster(memory=300_000_000), 8)
    with pytest.raises(LotError, match=r"a task takes \d+ MB of objects"):
        residual_plan(size, UNLIMITED, InlineCluster(store=1_000_000), 8)
    with pytest.raises(LotError, match="too small for 1000 images on a cluster"):
        residual_plan(size, HostNeeds(budget=1_000_000), InlineCluster(), 8)
