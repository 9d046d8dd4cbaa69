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
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of a machine with ``FREE`` bytes available, and of this process, which holds ``HELD``."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text(f"VmSize: 9 kB\nVmRSS:\t  {HELD // 1024} kB\n", encoding="ascii")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemAvailable: {FREE // 1024} kB\n", encoding="ascii")
    for limit in ("memory_room", "address_room"):
        monkeypatch.setattr(memory, limit, lambda: None)
    return tmp_path


def test_without_limits_the_machine_counts(machine: Path) -> None:
    assert available_memory() == FREE


@pytest.mark.parametrize("limit", ["memory_room", "address_room"])
@pytest.mark.parametrize(("room", "expected"), [(300 * MB, 300 * MB), (4000 * MB, FREE), (0, 0)])
def test_the_tightest_limit_counts(
    machine: Path, monkeypatch: pytest.MonkeyPatch, limit: str, room: int, expected: int
) -> None:
    monkeypatch.setattr(memory, limit, lambda: room)
    assert available_memory() == expected


@pytest.mark.parametrize(("kilobytes", "budget"), [(1000, 512_000), (7, 3584), (0, 0)])
def test_default_budget_is_what_is_held_and_half_of_the_rest(
    machine: Path, kilobytes: int, budget: int
) -> None:
    (machine / "meminfo").write_text(f"MemAvailable: {kilobytes} kB\n", encoding="ascii")
    assert default_budget() == HELD + budget


def test_a_process_without_a_status_counts_as_none(machine: Path) -> None:
    assert process_memory() == HELD
    (machine / "status").unlink()
    assert process_memory() == 0


MEMINFO = """\
MemTotal:       16277936 kB
MemFree:          812340 kB
{line}Buffers:          301244 kB
"""


def test_meminfo(machine: Path) -> None:
    (machine / "meminfo").write_text(MEMINFO.format(line="MemAvailable:    9412308 kB\n"), encoding="ascii")
    assert available_memory() == 9_412_308 * 1024


@pytest.mark.parametrize("there", [True, False])
def test_without_its_line_half_of_the_machine(machine: Path, there: bool) -> None:
    (machine / "meminfo").write_text(MEMINFO.format(line=""), encoding="ascii")
    if not there:
        (machine / "meminfo").unlink()
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
