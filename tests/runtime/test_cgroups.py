"""Limits of cgroups, read from trees of files as Linux shows them, of both versions and in containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musc_edge.runtime import cgroups, parallel
from musc_edge.runtime.cgroups import memory_room, most_processes, processors
from musc_edge.runtime.parallel import cores

MB = 10**6
NO_LIMIT = 9223372036854771712  # what version 1 says


class Tree:
    """The files of one process: ``proc`` in place of /proc/self, ``usual`` of /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.proc, self.usual = root / "proc", root / "cgroup"
        self.proc.mkdir()
        self.usual.mkdir()

    def process(self, memberships: str, *mounts: str) -> None:
        (self.proc / "cgroup").write_text(memberships, encoding="ascii")
        (self.proc / "mountinfo").write_text("".join(f"{line}\n" for line in mounts), encoding="ascii")

    def write(self, group: str, **files: object) -> None:
        """Write the files of a cgroup; ``memory_max`` is memory.max.  Linux ends each with a newline."""
        folder = self.usual / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            kind, _, rest = name.partition("_")
            (folder / f"{kind}.{rest}").write_text(f"{content}\n", encoding="ascii")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    made = Tree(tmp_path)
    monkeypatch.setattr(cgroups, "_PROC", made.proc)
    monkeypatch.setattr(cgroups, "_USUAL", made.usual)
    return made


def mount(kind: str, point: Path, root: str = "/", options: str = "rw") -> str:
    return f"36 31 0:33 {root} {point} rw,nosuid shared:9 - {kind} {kind} {options}"


def test_without_files_nothing_limits(tree: Tree) -> None:
    assert memory_room() is None
    assert processors() is None
    assert most_processes() is None


def test_version_2_at_its_root(tree: Tree) -> None:
    """As in a container with a namespace of its own."""
    tree.process("0::/\n", mount("cgroup2", tree.usual))
    tree.write(
        "", memory_max=500 * MB, memory_current=200 * MB, memory_stat="anon 1", cpu_max="150000 100000"
    )
    assert memory_room() == 300 * MB
    assert processors() == 1.5


def test_limit_below_the_root(tree: Tree) -> None:
    """systemd's MemoryMax=400M of a service: case 16."""
    tree.process("0::/system.slice/musc.service\n", mount("cgroup2", tree.usual))
    tree.write("system.slice/musc.service", memory_max=400 * MB, memory_current=50 * MB, pids_max=77)
    tree.write("system.slice", memory_max="max", memory_current=900 * MB)
    assert memory_room() == 350 * MB
    assert most_processes() == 77


def test_each_limit_is_held_against_its_own_group(tree: Tree) -> None:
    """The tightest is neither the lowest limit nor the lowest group."""
    tree.process("0::/a/b/c\n", mount("cgroup2", tree.usual))
    tree.write("a/b/c", memory_max=400 * MB, memory_current=50 * MB, cpu_max="max 100000")
    tree.write("a/b", memory_max=1000 * MB, memory_current=900 * MB, cpu_max="50000 100000")
    tree.write("a", memory_max=5000 * MB, memory_current=1000 * MB, cpu_max="300000 100000")
    assert memory_room() == 100 * MB
    assert processors() == 0.5
    assert cores() == 1


def test_high_counts_as_well(tree: Tree) -> None:
    tree.process("0::/a\n", mount("cgroup2", tree.usual))
    tree.write("a", memory_max=500 * MB, memory_high=300 * MB, memory_current=200 * MB)
    assert memory_room() == 100 * MB


@pytest.mark.parametrize("used", [500 * MB, 510 * MB])
def test_a_limit_below_what_is_used_leaves_nothing(tree: Tree, used: int) -> None:
    tree.process("0::/\n", mount("cgroup2", tree.usual))
    tree.write("", memory_max=500 * MB, memory_current=used)
    assert memory_room() == 0


def test_files_in_the_page_cache_do_not_count_as_used(tree: Tree) -> None:
    """Having read a lot's images leaves them in the cache, which Linux gives back without swapping."""
    tree.process("0::/\n", mount("cgroup2", tree.usual))
    stat = f"anon {190 * MB}\nfile {800 * MB}\ninactive_file {600 * MB}"
    tree.write("", memory_max=1000 * MB, memory_current=990 * MB, memory_stat=stat)
    assert memory_room() == 610 * MB


@pytest.mark.parametrize("text", ["max", "", "unknown", "12 34 56"])
def test_what_is_no_number_is_no_limit(tree: Tree, text: str) -> None:
    tree.process("0::/\n", mount("cgroup2", tree.usual))
    tree.write("", memory_max=text, memory_current=200 * MB, cpu_max=text, pids_max=text)
    assert memory_room() is processors() is most_processes() is None


def version_1(tree: Tree, path: str, root: str = "/") -> None:
    memberships = (
        f"5:devices:{path}\n4:memory:{path}\n3:cpu,cpuacct:{path}\n2:pids:{path}\n1:name=systemd:/\n"
    )
    points = [("memory", "memory"), ("cpu,cpuacct", "cpu,cpuacct"), ("pids", "pids")]
    tree.process(
        memberships, *(mount("cgroup", tree.usual / point, root, f"rw,{names}") for point, names in points)
    )


@pytest.mark.parametrize(("path", "group"), [("/", ""), ("/jobs/7", "/jobs/7"), ("/jobs/7", "/jobs")])
def test_version_1(tree: Tree, path: str, group: str) -> None:
    version_1(tree, path)
    stat = f"inactive_file 1\ntotal_inactive_file {30 * MB}"
    limits = {"memory_limit_in_bytes": 400 * MB, "memory_usage_in_bytes": 100 * MB, "memory_stat": stat}
    tree.write("memory" + group, **limits)
    tree.write(
        "memory", **({} if group == "" else {"memory_limit_in_bytes": NO_LIMIT, "memory_usage_in_bytes": 9})
    )
    tree.write("cpu,cpuacct" + group, cpu_cfs_quota_us=250_000, cpu_cfs_period_us=100_000)
    tree.write("pids" + group, pids_max=50)
    assert memory_room() == 330 * MB
    assert processors() == 2.5
    assert most_processes() == 50


def test_version_1_without_limits(tree: Tree) -> None:
    version_1(tree, "/jobs")
    tree.write("memory/jobs", memory_limit_in_bytes=NO_LIMIT, memory_usage_in_bytes=5)
    tree.write("cpu,cpuacct/jobs", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100_000)
    assert memory_room() is processors() is None


@pytest.mark.parametrize("below", ["", "/worker"])
def test_container_that_sees_its_own_part_only(tree: Tree, below: str) -> None:
    """The mount's root is the container's group, while the process is told the whole path."""
    version_1(tree, f"/docker/0a1b{below}", root="/docker/0a1b")
    tree.write("memory" + below, memory_limit_in_bytes=400 * MB, memory_usage_in_bytes=100 * MB)
    assert memory_room() == 300 * MB


def test_group_outside_of_the_namespace(tree: Tree) -> None:
    tree.process("0::/../other\n", mount("cgroup2", tree.usual))
    tree.write("", memory_max=400 * MB, memory_current=100 * MB)
    (tree.usual.parent / "other").mkdir()
    assert memory_room() == 300 * MB


def test_usual_place_without_a_mount(tree: Tree) -> None:
    tree.process("0::/a\n4:memory:/b\n")
    tree.write("a", memory_max=400 * MB, memory_current=100 * MB)
    tree.write("memory/b", memory_limit_in_bytes=400 * MB, memory_usage_in_bytes=150 * MB)
    assert memory_room() == 250 * MB


@pytest.mark.parametrize(
    "line", ["", "nonsense", "1 2 3 - cgroup2", "a b c d - cgroup2 cgroup2", " - cgroup"]
)
def test_odd_lines_are_passed_over(tree: Tree, line: str) -> None:
    tree.process(f"{line}\n0::/\n", line, mount("cgroup2", tree.usual))
    tree.write("", memory_max=400 * MB, memory_current=100 * MB)
    assert memory_room() == 300 * MB


@pytest.mark.parametrize(
    ("quota", "usable", "expected"), [(None, 8, 8), (0.2, 8, 1), (2.5, 8, 3), (16.0, 8, 8), (1.0, 1, 1)]
)
def test_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int, expected: int) -> None:
    monkeypatch.setattr(parallel, "processors", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(usable)))
    assert cores() == expected


IN_A_NAMESPACE = """
set -e
mount -t tmpfs none /sys/fs/cgroup
group=$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p "/sys/fs/cgroup$group"
echo 123000000 > "/sys/fs/cgroup$group/memory.max"
echo 23000000 > "/sys/fs/cgroup$group/memory.current"
echo "20000 100000" > "/sys/fs/cgroup$group/cpu.max"
exec "$@"
"""
SAY = "from musc_edge.runtime import memory, parallel; print(memory.available_memory(), parallel.cores())"


def unshared() -> list[str]:
    """The start of a command in a mount namespace of its own, by whatever this user may do."""
    for way in (
        ["unshare", "--mount"],
        ["unshare", "--map-root-user", "--mount"],
        ["sudo", "-n", "unshare", "--mount"],
    ):
        mount = [*way, "mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"]
        if shutil.which(way[0]) and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            return way
    pytest.skip("this kernel does not allow a mount namespace, in which a tree of ours is at /sys/fs/cgroup")


def test_in_a_mount_namespace() -> None:
    """Case 16. Real /proc, and a tree over the real one: the way from the process's path to the files."""
    command = [*unshared(), "bash", "-c", IN_A_NAMESPACE, "bash", sys.executable, "-c", SAY]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["100000000", "1"]
