"""A cluster of two workers on this machine: the same results, whatever is lost in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from musc_edge.runtime import run as run_module
from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.cluster.engine import Cluster
from musc_edge.runtime.cluster.opened import open_cluster
from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.images.survey import ReadOptions
from musc_edge.runtime.pipeline import score_lot
from musc_edge.runtime.settings import RESIDUAL, Resources, ScoreSettings
from musc_edge.runtime.tiling import Tiles
from support.command_line import run_here
from support.same_results import same

pytestmark = pytest.mark.slow
HERE = Resources(cluster="auto", threads=2, backend="cpu", batch=4)
ONE = Resources(threads=2, backend="cpu", batch=4)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Cluster]:
    """A cluster that the tests of this file share: it takes seconds to start."""
    with open_cluster(HERE) as cluster:
        yield cluster


@pytest.fixture
def cluster(two_workers: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """What a run opens is the one that is there."""
    monkeypatch.setattr(run_module, "open_cluster", lambda *_: nullcontext(two_workers))
    return two_workers


@pytest.fixture(scope="module")
def lot(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 images, of which two are copies and one cannot be read: no whole number of batches."""
    folder = tmp_path_factory.mktemp("lot")
    images = solar_cells / "elpv_dataset/data/images"
    for name in sorted(path.name for path in images.iterdir())[:200:10]:
        shutil.copy(images / name, folder)
    shutil.copy(sorted(folder.iterdir())[2], folder / "copy.png")
    (folder / "cell0005.png").write_bytes(b"no image")
    return folder


SETTINGS: dict[str, tuple[ScoreSettings, ReadOptions]] = {
    "all others": (ScoreSettings(), ReadOptions()),
    "a few, copies apart": (
        ScoreSettings(group_size=8, copies_judge=False, rescore="salient"),
        ReadOptions(roi=(20, 20, 250, 200)),
    ),
    "tiles": (ScoreSettings(tiles=Tiles(1, 2)), ReadOptions()),
    "by residual": (ScoreSettings(by=RESIDUAL), ReadOptions()),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_lot_is_scored_as_on_one_machine(
    name: str, cluster: Cluster, lot: Path, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "a few, copies apart":  # as on several machines: each image's tokens by themselves
        monkeypatch.setattr(Cluster, "holds", lambda self, size: False)
    settings, reading = SETTINGS[name]
    found = score_lot(lot, quick_bundle, settings, HERE, reading=reading)
    same(found, score_lot(lot, quick_bundle, settings, ONE, reading=reading))
    assert "a cluster on this machine: 1 machine, 2 processors" in found.run.notes[0]
    assert found.run.plan.cluster is not None


def workers() -> list[int]:
    """The processes that are doing, or have done, tasks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode(errors="replace")
            names = (path / "environ").read_bytes()
        except OSError:
            continue
        if command.startswith("ray::") and "Agent" not in command and b"RAY_AUTH_MODE" in names:
            found.append(int(path.name))
    return found


def test_a_worker_that_is_lost_is_replaced(cluster: Cluster, lot: Path, quick_bundle: Path) -> None:
    lost: list[int] = []

    def kill(stage: str, done: float, total: float, unit: str) -> None:
        if stage in ("extract", "score") and done and len(lost) < {"extract": 1, "score": 2}[stage]:
            mine = [pid for pid in workers() if pid not in lost]
            lost.append(mine[0])
            os.kill(mine[0], signal.SIGKILL)

    found = score_lot(lot, quick_bundle, ScoreSettings(), HERE, watch=Watch(progress=kill))
    assert len(lost) == 2
    same(found, score_lot(lot, quick_bundle, ScoreSettings(), ONE))


def infer(lot: Path, bundle: Path, out: Path, *more: str) -> list[str]:
    given = [
        "-b",
        str(bundle),
        "-o",
        str(out),
        "--threads",
        "2",
        "--batch",
        "4",
        "--backend",
        "cpu",
        "--scorer",
        "numpy",
    ]
    return [str(Path(sys.executable).parent / "musc-edge"), "infer", str(lot), *given, *more]


def results(out: Path) -> dict[str, bytes]:
    """The files of results but lot.json, which has times."""
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix in (".csv", ".npy")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def wait_for_more(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a file is larger than it is, or the process has ended."""
    before = path.stat().st_size if path.exists() else 0
    while process.poll() is None and not (path.exists() and path.stat().st_size > before):
        time.sleep(0.05)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Where a command puts its cluster: Ray's sockets do not fit below pytest's folders."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def started(command: list[str], temporary: Path) -> subprocess.Popen[str]:
    """A command in a process of its own, which Ray's are children of."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "musc_edge", *command[1:]], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.mark.long
def test_a_head_that_is_lost_goes_on_by_the_same_command(
    lot: Path, quick_bundle: Path, tmp_path: Path
) -> None:
    command = infer(lot, quick_bundle, tmp_path / "out", "--cluster", "auto", "--resume")
    batches = tmp_path / ".out.kept" / "lot" / "batches.journal"
    with temporary_folder() as temporary:
        with started(command, temporary) as process:
            wait_for_more(batches, process)
            process.kill()
            _, said = process.communicate()
        if process.returncode == 3:  # where this process waited for its turn, the command was done before
            return
        assert process.returncode == -signal.SIGKILL, said
        with started(command, temporary) as process:
            printed, said = process.communicate()
    assert process.returncode == 3, said  # one image is none
    assert "come from an earlier, interrupted run" in printed
    assert run_here(infer(lot, quick_bundle, tmp_path / "one")).returncode == 3
    assert results(tmp_path / "out") == results(tmp_path / "one")
    assert results(tmp_path / "one")


@pytest.mark.long
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(
    kind: signal.Signals, lot: Path, quick_bundle: Path, tmp_path: Path
) -> None:
    command = infer(lot, quick_bundle, tmp_path / "out", "--cluster", "auto", "--resume")
    with temporary_folder() as temporary:
        with started(command, temporary) as process:
            wait_for_more(tmp_path / ".out.kept" / "lot" / "batches.journal", process)
            if kind == signal.SIGINT:
                os.killpg(process.pid, kind)  # as ctrl-C does: to the processes of Ray too
            else:
                process.send_signal(kind)
            _, said = process.communicate()
        # On a busy machine it may have been done before: then it has left nothing either.
        assert process.returncode in (128 + kind, 3), said
        assert not list(temporary.iterdir())
        assert not in_session(process.pid)


def in_session(leader: int) -> list[str]:
    """The commands of a session, and of sessions whose leader has it for a parent, that still run.

    Not those that have ended and wait for init to take note.
    """
    given = ["ps", "-eo", "sid=,ppid=,stat=,args="]
    found = subprocess.run(given, capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=3) for line in found.stdout.splitlines()]
    return [row[3] for row in rows if str(leader) in row[:2] and not row[2].startswith("Z")]


def test_a_worker_with_another_bundle_is_refused(
    cluster: Cluster, lot: Path, quick_bundle: Path, tmp_path: Path
) -> None:
    from musc_edge.runtime.cluster.shards import VitJob, meet

    for root, said in ((quick_bundle, "has another bundle at"), (tmp_path / "none", "finds no bundle at")):
        with pytest.raises(DeviceError, match=said):
            cluster.get(cluster.submit(meet, VitJob(root, "0" * 64, "cpu", 1, 4))[0])
    with pytest.raises(DeviceError, match=r"has musc-edge \S+, expected 0\.0"):
        cluster.get(cluster.submit(meet, VitJob(quick_bundle, "0" * 64, "cpu", 1, 4, version="0.0"))[0])


def test_files_that_a_worker_cannot_read_are_named(
    cluster: Cluster, lot: Path, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that is this process's own, such as one below /proc/self."""
    here = Path(f"/proc/self/fd/{os.open(lot, os.O_RDONLY)}")
    with pytest.raises(DeviceError, match=r"cannot read /proc/self/fd/\d+/cell\d+\.png as it is here"):
        score_lot(here, quick_bundle, ScoreSettings(), HERE)
    os.close(int(here.name))


def test_a_cluster_of_our_own_listens_to_this_machine_alone(cluster: Cluster) -> None:
    (node,) = cluster.ray.nodes()
    gcs = cluster.ray.get_runtime_context().gcs_address
    ports = {int(gcs.rpartition(":")[2]), node["NodeManagerPort"], node["ObjectManagerPort"]}
    found = {port: address for address, port in listening() if port in ports}
    assert set(found) == ports
    assert set(found.values()) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1


def listening() -> Iterator[tuple[str, int]]:
    """Addresses and ports, as the kernel has them, on which somebody listens."""
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.split(":")
                yield address, int(port, 16)


def test_ray_starts_no_process_that_is_not_needed(cluster: Cluster) -> None:
    node = cluster.ray._private.worker.global_worker.node
    assert set(node.all_processes) <= {"gcs_server", "raylet", "reaper"}
