"""Scores by residual on a cluster, byte for byte those of one machine, and what they take of it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge import ScoreSettings, score_lot
from musc_edge.runtime import run as run_module
from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.cluster import arcs, residual
from musc_edge.runtime.cluster.engine import WORKER_BYTES, Node
from musc_edge.runtime.cluster.residual import ClusterResidual, LayerOnCluster, residual_plan
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.plan import UNLIMITED, HostNeeds, LotSize
from musc_edge.runtime.scoring.residual import READS, ResidualScorer
from musc_edge.runtime.settings import RESIDUAL, Resources
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.features import HostStore
from support.inline_cluster import InlineCluster
from support.interrupted import StopError, stops_behind
from support.lots import random_store, write_png
from support.same_results import same

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


@pytest.mark.parametrize("images", [41, 301])
def test_sums_have_the_bytes_of_one_machine(images: int) -> None:
    """Scores pass through float32, which hides in which order and in which blocks moments were added."""
    store = random_store(images, (1, images, 12, 8))
    one, scorer = ResidualScorer(METHOD), ClusterResidual.of(METHOD, InlineCluster(2))
    plan = scorer.plan(store.shape, 4)
    layer = LayerOnCluster(
        scorer.cluster, one, store, 0, plan, judges=one.judges(images), tick=lambda reads: None, inside=None
    )
    found = layer.whole_moments()
    expected = one.layer_of(one.plan(store.shape, 4))(store, 0).whole_moments()
    assert found.count == expected.count == images * 12
    assert found.sums.tobytes() == expected.sums.tobytes()
    assert found.products.tobytes() == expected.products.tobytes()


def test_tasks_say_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = random_store(0, (1, 41, 12, 8)), []
    submit = InlineCluster.submit

    def noted(self: InlineCluster, function: Any, *given: Any, **resources: int) -> list[Any]:
        asked.append((function, resources.get("memory")))
        return submit(self, function, *given, **resources)

    scorer = ClusterResidual.of(METHOD, InlineCluster())
    monkeypatch.setattr(InlineCluster, "submit", noted)
    plan = scorer.plan(store.shape, 4)
    scorer.score(store, plan)
    assert plan.cluster
    assert {function for function, _ in asked} == {residual.moments, residual.add, residual.residuals}
    assert {memory for _, memory in asked} == {plan.cluster.worker_bytes}


def test_every_task_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short ones that add too: else moments would pile up, and more than a few tasks be open."""
    store, cluster = random_store(0, (1, 301, 12, 8)), InlineCluster(1)
    submitted, waited = set(), set()
    submit, wait = InlineCluster.submit, cluster.ray.wait

    def noted(self: InlineCluster, function: Any, *given: Any, **resources: int) -> list[Any]:
        references = submit(self, function, *given, returns=resources.pop("returns", 1), **resources)
        submitted.add(references[0])
        return references

    def waiting(references: list[Any], **options: Any) -> Any:
        waited.update(references)
        assert len(references) <= cluster.ahead
        return wait(references, **options)

    scorer = ClusterResidual.of(METHOD, cluster)
    monkeypatch.setattr(InlineCluster, "submit", noted)
    monkeypatch.setattr(cluster.ray, "wait", waiting)
    scorer.score(store, scorer.plan(store.shape, 4))
    assert submitted == waited


def test_what_is_done_once_is_not_shared_out() -> None:
    class Measured(InlineCluster):
        """Where each image takes a second, and what is common three."""

        def submit(self, function: Any, *given: Any, **resources: int) -> list[Any]:
            measured = function is residual.time_residual
            return [self._put((1.0, 3.0))] if measured else super().submit(function, *given, **resources)

    scorer = ClusterResidual.of(METHOD, Measured(4))
    shape = (2, 100, 12, 8)
    assert scorer.seconds(shape, scorer.plan(shape, 4)) == 2 * (100 / 4 + 3)


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

    kept = Checkpoint(tmp_path / "kept", {}, {})
    with pytest.raises(StopError):
        scorer.score(store, plan, stops_behind(0.7), kept=kept)
    kept.close()
    kept = Checkpoint(tmp_path / "kept", {}, {})
    scores = scorer.score(store, plan, kept=kept)
    kept.close()
    assert scores.tobytes() == scored(ResidualScorer(METHOD), store)
    assert kept.notes == ["scores of 2 layers come from an earlier, interrupted run"]


def test_a_lot_is_counted_by_hand() -> None:
    size = LotSize(4, 100_000, 256, 384, 4, 3, 99_999)
    tokens, block, of_block = 256 * 384 * 4, 8, 8 * 3 * 384**2
    plan = residual_plan(size, UNLIMITED, InlineCluster(8, 1 << 40, THERE))
    assert plan.cluster
    assert (plan.block, plan.cluster.arc, plan.cluster.cells) == (80, 80, 0)  # of 32 MB of tokens
    tasks, blocks = 1250, 10
    assert plan.cluster.object_bytes == size.token_bytes + (3 * 12 + 2) * (blocks + 1) * of_block
    moved = 2 * size.token_bytes + 4 * tasks * (blocks + 2) * of_block
    assert plan.cluster.moved_bytes == moved
    described = 256 * 384 * (block * (4 + 8 * 3) + 4 * (4 + 3))
    assert plan.cluster.worker_bytes == WORKER_BYTES + 80 * tokens + (blocks + 1) * of_block + described
    held = 4 * 100_000 * arcs.REFERENCE_BYTES + 100_000 * arcs.COPIES_BYTES
    here = 20 * 100_000 * 256 + 2 * of_block + 4 * 8 * 384**2
    assert plan.workspace_bytes == held + here
    kept = residual_plan(size, HostNeeds(keep=True), InlineCluster(8, 1 << 40, THERE))
    assert kept.cluster
    assert kept.cluster.moved_bytes == moved + size.token_bytes  # that come to be kept
    assert kept.workspace_bytes == plan.workspace_bytes + 80 * tokens


def test_tasks_are_small_where_images_are_large_or_few_and_all_here() -> None:
    alone = residual_plan(LotSize(4, 2000, 1369, 1024, 4, 1, 1999), UNLIMITED, InlineCluster(8))
    assert alone.cluster
    assert (alone.cluster.arc, alone.cluster.moved_bytes) == (4, 0)
    small = residual_plan(LotSize(4, 100, 256, 384, 4, 3, 99), UNLIMITED, InlineCluster(8))
    assert small.cluster
    assert small.cluster.arc == 8  # so that no worker is without


def test_a_cluster_without_the_memory_is_refused() -> None:
    size = LotSize(4, 1000, 256, 384, 4, 3, 999)
    with pytest.raises(LotError, match=r"a worker needs \d+ MB of memory"):
        residual_plan(size, UNLIMITED, InlineCluster(memory=300_000_000))
    with pytest.raises(LotError, match=r"a task takes \d+ MB of objects.*--object-store-memory\.$"):
        residual_plan(size, UNLIMITED, InlineCluster(store=1_000_000))
    with pytest.raises(LotError, match="too small for 1000 images on a cluster"):
        residual_plan(size, HostNeeds(budget=1_000_000), InlineCluster())


def test_a_layer_finished_on_a_cluster_is_taken_up_by_one_machine(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers are the same on both, where cells of pairs are not."""
    monkeypatch.setattr(run_module, "open_cluster", lambda *_: nullcontext(InlineCluster()))
    one = Resources(backend="cpu", threads=1)
    settings, lot = ScoreSettings((1,), by=RESIDUAL), tmp_path / "lot"
    lot.mkdir()
    for seed in range(7):
        write_png(lot / f"{seed}.png", seed=seed)
    expected = score_lot(lot, tiny_bundle, settings, one)

    ways = [(replace(one, cluster="auto"), one), (one, replace(one, cluster="auto"))]
    for number, (first, then) in enumerate(ways):
        keep = tmp_path / f"kept{number}"
        with pytest.raises(StopError):
            score_lot(lot, tiny_bundle, settings, first, keep=keep, watch=Watch(progress=stops_behind(0.99)))
        found = score_lot(lot, tiny_bundle, settings, then, keep=keep)
        assert any("come from an earlier, interrupted run" in note for note in found.run.notes)
        assert any(note.startswith("scores of ") for note in found.run.notes)
        same(found, expected)
