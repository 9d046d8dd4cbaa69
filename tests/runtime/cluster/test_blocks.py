"""What is N x N, by a cluster's tasks: the same bytes as on one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from musc_edge.runtime.cluster.blocks import OnCluster, of_block, sketches_on
from musc_edge.runtime.cluster.engine import Node
from musc_edge.runtime.cluster.object_store import ObjectStore, Part
from musc_edge.runtime.cluster.pairs import settle_down
from musc_edge.runtime.scoring.blocks import row_blocks
from musc_edge.runtime.scoring.copies import find_copies, sketch
from musc_edge.runtime.scoring.rescore import rescore
from musc_edge.runtime.scoring.spanning_tree import spanning_tree
from musc_edge.runtime.store.features import HostStore
from support.inline_cluster import InlineCluster

IMAGES = 600
DRAW = np.random.default_rng(0)
CLS = DRAW.standard_normal((IMAGES, 24), np.float32)
TOKENS = DRAW.standard_normal((IMAGES, 9, 16), np.float32)


def test_rows_are_cut_into_blocks() -> None:
    assert row_blocks(IMAGES) == [range(256), range(256, 512), range(512, 600)]
    assert row_blocks(0) == []


class Counting(InlineCluster):
    """Two machines, or one, that count blocks."""

    def __init__(self, *others: Node) -> None:
        super().__init__(2, 1 << 40, *others)
        self.blocks = 0

    def submit(
        self, function: Callable[..., Any], *given: Any, returns: int = 1, **resources: int
    ) -> list[Any]:
        self.blocks += function is of_block
        return super().submit(function, *given, returns=returns, **resources)


def test_a_cluster_changes_no_byte_of_what_all_images_are_compared_for() -> None:
    settle_down()  # as a task would, which is done in this process here
    cluster = Counting(Node("other", 2, 0, 1 << 40, 1 << 40))
    by_blocks = OnCluster(cluster)
    cls, raw = CLS / np.linalg.norm(CLS, axis=1, keepdims=True), DRAW.random(IMAGES)
    assert rescore(raw, cls, (1, 5), by_blocks).tobytes() == rescore(raw, cls, (1, 5)).tobytes()
    assert spanning_tree(cls, by_blocks) == spanning_tree(cls)
    tokens = TOKENS.copy()
    tokens[[3, 300, 500]] = tokens[[400, 301, 20]] + np.float32(1e-4)
    store = HostStore(tokens[None], cls)
    assert find_copies(store, by_blocks=by_blocks) == [(3, 400), (20, 500), (300, 301)]
    assert find_copies(store) == [(3, 400), (20, 500), (300, 301)]
    assert cluster.blocks == 3 * 3


def test_one_machine_has_all_of_its_processors_without_tasks() -> None:
    cluster = Counting()
    cls = CLS / np.linalg.norm(CLS, axis=1, keepdims=True)
    assert spanning_tree(cls, OnCluster(cluster)) == spanning_tree(cls)
    assert cluster.blocks == 0


def test_workers_make_the_same_sketches() -> None:
    settle_down()
    cluster = InlineCluster()
    shards = [cluster.ray.put(TOKENS[None, i : i + 20]) for i in range(0, 70, 20)]
    found: list[Sequence[Part]] = [[Part(shards[i // 20], 0, i % 20)] for i in range(70)]
    store = ObjectStore(cluster, (1, 70, 9, 16), np.dtype(np.float32), CLS[:70], found)
    assert sketches_on(store).tobytes() == sketch(HostStore(TOKENS[None, :70], CLS[:70])).tobytes()
    assert find_copies(store, sketches=sketches_on(store)) == []
