"""What a cluster cannot do is said by name, before any work; and so is what it lacks."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from musc_edge.runtime.cluster import extraction
from musc_edge.runtime.cluster.engine import Node
from musc_edge.runtime.cluster.extraction import _require_seen
from musc_edge.runtime.cluster.possible import require_one_machine, require_possible
from musc_edge.runtime.cluster.shards import Described
from musc_edge.runtime.cluster.worker_vit import WorkerVit
from musc_edge.runtime.errors import DeviceError, LotError, MuscEdgeError
from musc_edge.runtime.images.survey import Survey
from musc_edge.runtime.remote import RemoteFolder
from musc_edge.runtime.run import Run
from musc_edge.runtime.settings import RESIDUAL, Resources, ScoreSettings
from musc_edge.runtime.types import LotImage
from musc_edge.runtime.vit.bundle import open_bundle
from support.bad_input import Place
from support.command_line import run_here
from support.inline_cluster import InlineCluster

AUTO = Resources(cluster="auto")
COMMAND = str(Path(sys.executable).parent / "musc-edge")


@pytest.mark.parametrize(
    ("settings", "resources", "said"),
    [
        (
            ScoreSettings(by=RESIDUAL),
            Resources(cluster="auto", scorer="numpy"),
            "scorer numpy has no",
        ),
        (
            ScoreSettings(),
            Resources(cluster="auto", scorer="cuda"),
            r"the scorer cuda .* on their processors",
        ),
        (ScoreSettings(), Resources(cluster="auto", device_memory=1), "--device-memory has no meaning"),
    ],
)
def test_what_is_for_one_machine_is_refused(
    settings: ScoreSettings, resources: Resources, said: str, quick_bundle: Path
) -> None:
    with pytest.raises(MuscEdgeError, match=said), Run(quick_bundle, settings, resources):
        pass
    require_possible(Resources(scorer=resources.scorer))


def test_what_is_done_on_one_machine_refuses_a_cluster() -> None:
    require_one_machine(Resources(), "references are made")
    with pytest.raises(DeviceError, match="references are made on one machine, without a cluster"):
        require_one_machine(AUTO, "references are made")


def test_without_ray_the_extra_is_named(place: Place) -> None:
    with mock.patch.dict(sys.modules, {"ray": None}):
        done = run_here(
            [COMMAND, "infer", str(place.lot), "-b", str(place.bundle), "--cluster", "auto"], cwd=place.root
        )
    assert done.returncode == 5
    assert "pip install 'musc-edge[cluster]'" in done.stderr
    assert sorted(path.name for path in place.root.iterdir()) == ["lot"]


def test_a_budget_that_is_too_small_for_a_cluster_is_named(quick_bundle: Path) -> None:
    resources = Resources(cluster="auto", memory_budget=1)
    with (
        pytest.raises(LotError, match=r"a cluster on this machine need 7\d\d MB\. Raise .* by 7\d\d MB"),
        Run(quick_bundle, ScoreSettings(), resources),
    ):
        pass


def test_workers_fit_into_their_machines() -> None:
    cluster = InlineCluster(cpus=4, memory=2_000)
    assert cluster.threads_for(100) == 1
    assert cluster.threads_for(1_000) == 2
    assert (cluster.lanes(1_000, threads=2), cluster.lanes(100, threads=1)) == (2, 4)
    with pytest.raises(LotError, match="a worker needs 2 kB of memory, and no machine"):
        cluster.threads_for(2_001)


def test_a_vit_takes_a_gpu_where_the_cluster_has_some(quick_bundle: Path) -> None:
    bundle = open_bundle(quick_bundle)
    cluster = InlineCluster(cpus=8)
    with pytest.raises(DeviceError, match="backend cuda was asked for, and the cluster has no GPU"):
        WorkerVit(cluster, bundle, Resources(backend="cuda")).__enter__()
    cluster = InlineCluster(8, 1 << 40, Node("there", 4, 1, 1 << 40, 1 << 40), gpus=2)
    vit = WorkerVit(cluster, bundle, Resources(backend="auto"))
    assert vit.gpus == 1
    assert cluster.threads_for(vit.memory, vit.gpus) == 4  # of the 8 processors that two GPUs have
    assert cluster.lanes(vit.memory, 4, vit.gpus) == 3
    assert WorkerVit(cluster, bundle, Resources(backend="cpu")).gpus == 0


def test_what_is_no_address_is_refused(quick_bundle: Path) -> None:
    with pytest.raises(LotError, match="cluster 5: expected auto"):
        Resources(cluster=5)  # type: ignore[arg-type]
    for wrong in ("nowhere", "", "AUTO", "ray://10.0.0.1:10001", "10.0.0.1", "10.0.0.1:a", "a b:1"):
        with pytest.raises(LotError, match="expected auto, or the address of one such as"):
            Resources(cluster=wrong)
    for right in ("auto", "10.0.0.1:6379", "[fe80::1]:6379", "head-1.plant:1"):
        Resources(cluster=right)
    done = run_here([COMMAND, "plan", "10", "--cluster", "nowhere"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "cluster 'nowhere': expected auto" in done.stderr
    done = run_here([COMMAND, "plan", "10", "--cluster", "auto", "--devices", "8G", "-b", str(quick_bundle)])
    assert (done.returncode, done.stdout) == (2, "")
    assert "--devices has no meaning with --cluster" in done.stderr


def test_a_worker_that_has_no_way_to_a_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    image = LotImage("1.png", RemoteFolder.of("s3://plant/lot").file("1.png"))
    receipt = Described((), (), (image.name,), np.empty((0, 1), np.float32), "", "machine7")
    survey = Survey((image,), {}, (), 8, 1)
    monkeypatch.setattr(extraction, "seen", lambda survey, name: False)
    _require_seen(survey, receipt)  # gone for all: a row
    monkeypatch.setattr(extraction, "seen", lambda survey, name: True)
    said = (
        r"the worker on machine7 cannot read s3://plant/lot/1\.png as it is here.*all machines the same way"
    )
    with pytest.raises(DeviceError, match=said):
        _require_seen(survey, receipt)
