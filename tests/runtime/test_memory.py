"""What memory is available, read from files as Linux writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from musc_edge.runtime import memory
from musc_edge.runtime.memory import available_memory, default_budget, process_memory

MB = 10**6
FREE = 800 * 1024 * 1000
HELD = 120 * 1024 * 1000


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup folder without files, on a machine with ``FREE`` bytes available; this process holds HELD."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text(f"VmSize: 9 kB\nVmRSS:\t  {HELD // 1024} kB\n", encoding="ascii")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemAvailable: {FREE // 1024} kB\n", encoding="ascii")
    return tmp_path


def limit(cgroup: Path, most: str, used: str, stat: str = "anon 1\n") -> None:
    """The files of a container; Linux ends each with a newline."""
    (cgroup / "memory.max").write_text(f"{most}\n", encoding="ascii")
    (cgroup / "memory.current").write_text(f"{used}\n", encoding="ascii")
    (cgroup / "memory.stat").write_text(stat, encoding="ascii")


def test_without_a_container_the_machine_counts(cgroup: Path) -> None:
    assert available_memory() == FREE


def test_container_without_a_limit(cgroup: Path) -> None:
    limit(cgroup, "max", str(300 * MB))
    assert available_memory() == FREE


@pytest.mark.parametrize(
    ("most", "used", "expected"),
    [
        (500 * MB, 200 * MB, 300 * MB),
        (4000 * MB, 200 * MB, FREE),
        (500 * MB, 500 * MB, 0),
        (500 * MB, 510 * MB, 0),  # a limit may be lowered below what is used
    ],
)
def test_limit_of_a_container(cgroup: Path, most: int, used: int, expected: int) -> None:
    limit(cgroup, str(most), str(used))
    assert available_memory() == expected


def test_files_in_the_page_cache_do_not_count_as_used(cgroup: Path) -> None:
    """Having read a lot's images leaves them in the cache, which Linux gives back without swapping."""
    limit(
        cgroup, str(1000 * MB), str(990 * MB), f"anon {190 * MB}\nfile {800 * MB}\ninactive_file {600 * MB}\n"
    )
    assert available_memory() >= 600 * MB


@pytest.mark.parametrize("text", ["", "unknown\n", "12 34\n"])
def test_unreadable_limit_is_none(cgroup: Path, text: str) -> None:
    limit(cgroup, str(500 * MB), str(200 * MB))
    (cgroup / "memory.max").write_text(text, encoding="ascii")
    assert available_memory() == FREE


@pytest.mark.parametrize(("kilobytes", "budget"), [(1000, 512_000), (7, 3584), (0, 0)])
def test_default_budget_is_what_is_held_and_half_of_the_rest(
    cgroup: Path, kilobytes: int, budget: int
) -> None:
    (cgroup / "meminfo").write_text(f"MemAvailable: {kilobytes} kB\n", encoding="ascii")
    assert default_budget() == HELD + budget


def test_a_process_without_a_status_counts_as_none(cgroup: Path) -> None:
    assert process_memory() == HELD
    (cgroup / "status").unlink()
    assert process_memory() == 0


MEMINFO = """\
MemTotal:       16277936 kB
MemFree:          812340 kB
{line}Buffers:          301244 kB
"""


def test_meminfo(cgroup: Path) -> None:
    (cgroup / "meminfo").write_text(MEMINFO.format(line="MemAvailable:    9412308 kB\n"), encoding="ascii")
    assert available_memory() == 9_412_308 * 1024


@pytest.mark.parametrize("there", [True, False])
def test_without_its_line_half_of_the_machine(cgroup: Path, there: bool) -> None:
    (cgroup / "meminfo").write_text(MEMINFO.format(line=""), encoding="ascii")
    if not there:
        (cgroup / "meminfo").unlink()
    assert available_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


HOLD_AND_RELEASE = """
import numpy as np
from musc_edge.runtime.memory import process_memory, release_memory
before = process_memory()
held = np.ones(50_000_000, np.uint8)
taken = process_memory() - before
del held
release_memory()
print(taken, process_memory() - before)
"""


def test_a_process_holds_what_it_takes() -> None:
    """In a process of its own: what a thousand tests left to be freed, Linux may take back at any time."""
    done = subprocess.run(
        [sys.executable, "-c", HOLD_AND_RELEASE], capture_output=True, text=True, timeout=60, check=True
    )
    taken, kept = map(int, done.stdout.split())
    assert 45 * MB < taken < 60 * MB
    assert kept < 10 * MB


def test_this_machine_has_some() -> None:
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
