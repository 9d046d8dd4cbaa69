"""What a cluster costs before it works: functions are given to workers once, and Ray starts few processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from musc_edge.runtime.cluster import opened
from musc_edge.runtime.cluster.engine import Cluster
from musc_edge.runtime.cluster.inside_ray import few_processes, loopback_alone
from musc_edge.runtime.cluster.scorer import ClusterScorer, settle
from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.settings import ScoreSettings
from support.inline_cluster import InlineCluster


class _Exporting:
    """In Ray's place: notes which functions become tasks, and calls them at once."""

    def __init__(self) -> None:
        self.exported: list[Callable[..., Any]] = []

    def remote(self, function: Callable[..., Any]) -> Any:
        self.exported.append(function)
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=function))


def test_a_function_is_given_to_the_workers_once() -> None:
    ray = _Exporting()
    cluster = Cluster(ray, "here", (), 0)
    assert [cluster.submit(abs, value) for value in (-3, 4)] == [[3], [4]]
    assert cluster.submit(len, "ab") == [2]
    assert ray.exported == [abs, len]


def test_every_worker_is_asked_to_get_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Callable[..., Any]] = []
    cluster = InlineCluster(cpus=3)
    submit = cluster.submit

    def noted(function: Callable[..., Any], *given: Any) -> list[Any]:
        asked.append(function)
        return submit(function, *given)

    monkeypatch.setattr(cluster, "submit", noted)
    ClusterScorer.of(Method.of((4, 4), ScoreSettings()), cluster, "numpy")
    assert asked == [settle] * 3


def _ray() -> Any:
    """A module with those of Ray's private parts that are replaced."""
    private = SimpleNamespace(
        parameter=SimpleNamespace(RayParams=dict),
        services=SimpleNamespace(start_api_server=lambda *_: ("http://", "a process")),
        ray_constants=SimpleNamespace(ENABLE_RAY_CLUSTER=True),
    )
    return SimpleNamespace(_private=private, __version__="2.60.0")


def test_ray_starts_few_processes_within_the_block_alone() -> None:
    ray = _ray()
    with few_processes(ray), loopback_alone(ray):
        fewer = ray._private.parameter.RayParams(num_cpus=2)
        assert fewer == {"num_cpus": 2, "no_monitor": True, "include_log_monitor": False}
        assert ray._private.services.start_api_server(False, host="127.0.0.1") == (None, None)
        assert not ray._private.ray_constants.ENABLE_RAY_CLUSTER
    assert ray._private.parameter.RayParams is dict
    assert ray._private.services.start_api_server()[1] == "a process"
    assert ray._private.ray_constants.ENABLE_RAY_CLUSTER


def test_another_ray_is_named_and_left_as_it_was() -> None:
    ray = _ray()
    del ray._private.services.start_api_server
    with pytest.raises(DeviceError, match=r"Ray 2\.60\.0 is installed, which lacks"), few_processes(ray):
        pass
    assert ray._private.parameter.RayParams is dict


_OTHER = "import subprocess; subprocess.run(['pkill', '-x', '-P', str(os.getpid()), 'sh'], check=True)"
"""Ends the process that would tell."""


@pytest.mark.parametrize(
    ("leave", "code"), [("os._exit(1)", 1), ("sys.exit(3)", 3), ("pass", 0), (_OTHER, 0)]
)
def test_a_process_that_ray_ends_says_so(leave: str, code: int) -> None:
    """Ray ends a command that has lost its cluster by ``_exit``: nothing of the command runs then."""
    program = f"import os, sys\nfrom {opened.__name__} import told_of_its_end\n"
    program += f"with told_of_its_end():\n    {leave}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.startswith("musc-edge was ended from outside" if code == 1 else "")
    assert (done.stderr == "") == (code != 1)
    assert done.stdout == ""
