"""A cluster of somebody's own, with a token: who has another, or none, is told so and gets nothing."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from musc_edge.runtime.cluster import opened
from musc_edge.runtime.cluster.inside_ray import require_answer
from musc_edge.runtime.cluster.opened import open_cluster
from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.settings import Resources
from support.bad_input import Place
from support.brokers import free_port

PATIENCE = 120  # seconds for Ray to start, on a busy machine


@contextmanager
def started_head(port: int, token: Path) -> Iterator[None]:
    """A cluster of one processor, started by ``ray start`` with a token."""
    given = ["--head", "--port", str(port), "--num-cpus", "1", "--include-dashboard", "false", "--block"]
    given += ["--node-ip-address", "127.0.0.1", "--object-store-memory", "100000000", "--disable-usage-stats"]
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *given, "--temp-dir", folder]
        with subprocess.Popen(
            command, env=environment(token), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                wait_for_listener(port, process)
                yield
            finally:
                process.terminate()
                opened.kill_those_of(Path(folder))  # ray stop would end all clusters of this machine


def wait_for_listener(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, "ray start has ended"
            time.sleep(0.1)
    raise AssertionError("nobody listens")


def environment(token: Path | None, **more: str) -> dict[str, str]:
    """The environment of a process that finds its token in a file, or none at all."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"RAY_AUTH_TOKEN_PATH": str(token)} if token else {"HOME": "/nonexistent"}
    path = os.pathsep.join(sys.path)
    return {**kept, "RAY_AUTH_MODE": "token", "PYTHONPATH": path, **own, **more}


@pytest.mark.long
def test_a_cluster_serves_those_alone_who_have_its_token(place: Place, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for path in (right, wrong):
        path.write_text(secrets.token_hex(32))
    port = free_port()

    def infer(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        given = ["infer", str(place.lot), "-b", str(place.bundle), "-o", str(place.root / "out")]
        more = ["--scorer", "numpy", "--backend", "cpu", "--cluster", f"127.0.0.1:{port}"]
        return subprocess.run(
            [sys.executable, "-m", "musc_edge", *given, *more], env=env, capture_output=True, text=True,
            check=False, timeout=PATIENCE, cwd=place.root,
        )  # fmt: skip

    with started_head(port, right):
        for env, said in (
            (
                environment(wrong),
                f"refuses the token of {wrong}: it expects the one that it was started with",
            ),
            (environment(None), "expects a token, and none is here. Set RAY_AUTH_TOKEN_PATH to a file"),
            (environment(None, RAY_AUTH_TOKEN="0" * 64), "refuses the token of $RAY_AUTH_TOKEN"),
            (environment(None, RAY_AUTH_MODE="disabled"), "refuses a command without a token (RAY_AUTH_MODE"),
        ):
            refused = infer(env)
            assert refused.returncode == 5, refused.stderr
            assert f"the cluster at 127.0.0.1:{port} {said}" in refused.stderr
            assert not (place.root / "out").exists()
        served = infer(environment(right))
        assert served.returncode == 0, served.stderr
        assert (place.root / "out" / "scores.csv").exists()


def test_where_nobody_listens_is_said_at_once() -> None:
    nobody = open_cluster(Resources(cluster=f"127.0.0.1:{free_port()}"))
    with pytest.raises(DeviceError, match=r"nobody answers at 127\.0\.0\.1:\d+ \(Connection refused\)"):
        nobody.__enter__()


def test_a_ray_without_the_private_parts_is_named() -> None:
    ray: Any = SimpleNamespace(__version__="9.9", _raylet=SimpleNamespace())
    said = re.escape("Ray 9.9 is installed, which lacks a private part that musc-edge uses")
    with pytest.raises(DeviceError, match=f"{said}.*pip install 'musc-edge\\[cluster\\]'"):
        require_answer(ray, "127.0.0.1:1")
