"""What a lot takes of a cluster: counted by hand where it is small, bounded where it is large."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from musc_edge.runtime import run as run_module
from musc_edge.runtime.cluster.arcs import cells, cluster_plan, cut_circle, moved_bytes
from musc_edge.runtime.cluster.engine import Node
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.plan import UNLIMITED, HostNeeds, LotSize
from support.command_line import run_here
from support.inline_cluster import InlineCluster

REAL = LotSize(4, 10_000, 256, 384, 4, 3, 100)
"""10,000 images by DINOv2-S at 224, 100 judges each."""
THERE = Node("there", 4, 0, 1 << 40, 1 << 40)
"""The second machine of a cluster."""


def test_a_small_lot_is_counted_by_hand() -> None:
    size = LotSize(2, 40, 1024, 10, 4, 1, 39)  # blocks of 2 images, of which arcs have 6
    cut = cut_circle(size)
    assert cut.arc == 6
    assert cells(size, cut) == 7 * 8 // 2
    image, cosines = 1024 * 10 * 4, 40 * 39 * 1024 * 4
    assert moved_bytes(size, cut) == 40 * 2 * image + 2 * (28 * 2 * 6 * image + cosines)


def test_with_a_group_size_work_grows_with_the_lot_and_memory_does_not() -> None:
    cluster, twice = InlineCluster(2, 1 << 40, THERE), replace(REAL, images=20_000)
    small, large = (cluster_plan(size, UNLIMITED, cluster) for size in (REAL, twice))
    assert small.cluster
    assert large.cluster
    assert large.cluster.worker_bytes == small.cluster.worker_bytes < 600e6
    assert 1.9 < large.cluster.cells / small.cluster.cells < 2.1
    assert 1.9 < large.cluster.moved_bytes / small.cluster.moved_bytes < 2.1
    assert small.memory_bytes < 450e6 < small.token_bytes / 30  # the head holds no tokens


def test_a_head_without_the_memory_is_refused() -> None:
    said = r"too small for 10000 images on a cluster: .* alone needs 445 MB\. Raise .* to 477 MB, or .*group"
    with pytest.raises(LotError, match=said):
        cluster_plan(REAL, HostNeeds(budget=10_000_000), InlineCluster())


def test_a_cluster_without_the_memory_is_refused() -> None:
    with pytest.raises(LotError, match="a worker needs 369 MB of memory"):
        cluster_plan(REAL, UNLIMITED, InlineCluster(memory=300_000_000))


def test_objects_that_would_never_fit_are_refused() -> None:
    everyone = replace(REAL, images=100_000, judge_count=99_999)
    small = InlineCluster(2, 1 << 40, Node("small", 4, 0, 1 << 40, 300_000_000))
    with pytest.raises(LotError, match=r"a task takes 3\d\d MB of objects, and small has 300 MB for them"):
        cluster_plan(everyone, UNLIMITED, small)
    cluster_plan(everyone, UNLIMITED, InlineCluster())


def test_the_command_says_what_a_lot_takes(quick_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = iter(InlineCluster(4, 1 << 40, THERE) for _ in range(2))  # once for each command
    monkeypatch.setattr(run_module, "open_cluster", lambda *_: nullcontext(next(opened)))
    command = [str(Path(sys.executable).parent / "musc-edge"), "plan", "100000", "--group-size", "200"]
    command += ["-b", str(quick_bundle), "--backend", "cpu", "--cluster", "auto"]
    text = run_here(command)
    assert text.returncode == 0, text.stderr
    assert "cluster: 8 processors, " in text.stdout
    assert "over the network" in text.stdout
    plan = json.loads(run_here([*command, "--json"]).stdout)["plan"]
    assert plan["cluster"]["processors"] == 8
    assert plan["memory_bytes"] > plan["token_bytes"]  # so small that this process holds them
