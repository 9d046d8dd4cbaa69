"""Tables in memory and in files: the same content, from several threads, and what a full disk does."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.store.tables import FileRows, MemoryRows, Rows, checksum, require_room

SHAPE = (50, 12)


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- content ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_and_file_hold_the_same(tmp_path: Path, dtype: type[np.generic]) -> None:
    memory, file = MemoryRows(SHAPE, dtype), FileRows(SHAPE, dtype, tmp_path)
    tables: list[Rows] = [memory, file]
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(dtype)
    for rows in tables:
        for row, items in enumerate(values):
            rows.write(row, 0, items)
    for row, start, count in [(0, 0, 12), (3, 5, 4), (49, 11, 1), (7, 2, 0)]:
        for rows in tables:
            items = rows.read(row, start, count)
            assert items.dtype == dtype
            np.testing.assert_array_equal(items, values[row, start : start + count])
    for rows in tables:
        rows.write(20, 3, values[:2, :2])
        assert rows.read(20, 3, 4).tobytes() == values[:2, :2].tobytes()
        np.testing.assert_array_equal(rows.read(20, 0, 3), values[20, :3])
        np.testing.assert_array_equal(rows.read(20, 7, 5), values[20, 7:])
    file.close()


def test_values_that_are_not_contiguous_or_of_another_type(tmp_path: Path) -> None:
    values = np.arange(24.0).reshape(2, 12)
    for rows in (MemoryRows((2, 12), np.float32), FileRows((2, 12), np.float32, tmp_path)):
        rows.write(1, 0, values[0, ::2])
        np.testing.assert_array_equal(rows.read(1, 0, 6), values[0, ::2])
        if isinstance(rows, FileRows):
            rows.close()


def test_several_threads_at_once(tmp_path: Path) -> None:
    rows = FileRows((200, 1000), np.float32, tmp_path)

    def work(row: int) -> bool:
        rows.write(row, 0, np.full(1000, row, np.float32))
        return bool(np.all(rows.read(row, 0, 1000) == row))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert [rows.read(row, 999, 1)[0] for row in range(200)] == list(range(200))
    rows.close()


def test_calls_that_move_a_few_bytes_only_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = FileRows(SHAPE, np.float32, tmp_path)
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:7], at))
    monkeypatch.setattr(os, "preadv", lambda file, views, at: preadv(file, [views[0][:5]], at))
    values = np.random.default_rng(1).standard_normal(12).astype(np.float32)
    rows.write(4, 0, values)
    np.testing.assert_array_equal(rows.read(4, 0, 12), values)
    rows.close()


def test_checksums_go_on_from_each_other() -> None:
    values = np.random.default_rng(2).standard_normal(24).astype(np.float32)
    assert checksum(values[10:], checksum(values[:10])) == checksum(values)
    assert checksum(values.reshape(4, 6)) == checksum(values)
    changed = values.copy()
    changed.view(np.uint8)[50] ^= 1
    assert checksum(changed) != checksum(values)


# ---- files -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_scratch_file_has_no_name_and_goes_with_its_table(tmp_path: Path) -> None:
    before = open_files()
    rows = FileRows(SHAPE, np.float32, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before + 1
    del rows
    assert open_files() == before


def test_scratch_is_in_the_temporary_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError) as caught:
        FileRows(SHAPE, np.float32)
    assert str(tmp_path / "gone") in str(caught.value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    FileRows(SHAPE, np.float32).close()


def test_a_kept_file_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "kept.bin"
    rows = FileRows(SHAPE, np.float32, path=path)
    rows.write(49, 0, np.arange(12, dtype=np.float32))
    rows.sync()
    rows.close()
    assert path.stat().st_size == 50 * 12 * 4
    again = FileRows(SHAPE, np.float32, path=path)
    assert again.read(49, 0, 12).tolist() == list(range(12))
    again.close()


def test_a_kept_file_that_was_cut_has_room_again(tmp_path: Path) -> None:
    path = tmp_path / "kept.bin"
    rows = FileRows(SHAPE, np.float32, path=path)
    rows.write(0, 0, np.ones(SHAPE, np.float32))
    rows.close()
    os.truncate(path, 1000)
    again = FileRows(SHAPE, np.float32, path=path)
    assert path.stat().st_size == 50 * 12 * 4
    assert np.all(again.read(0, 0, 250) == 1)
    assert np.all(again.read(0, 250, 350) == 0)
    again.close()


def test_file_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "kept.bin"
    rows = FileRows(SHAPE, np.float32, path=path)
    os.truncate(path, 1001)
    with pytest.raises(OutputError, match="ends at 1001 bytes: it was cut from outside"):
        rows.read(20, 0, 12)
    rows.close()


# ---- full disks ------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("error", "text"), [(errno.ENOSPC, "No space left"), (errno.EFBIG, "File too large")]
)
def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, text: str, kept: bool) -> None:
    asked: list[tuple[int, int]] = []

    def no_room(file: int, offset: int, size: int) -> None:
        asked.append((offset, size))
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    before = open_files()
    with pytest.raises(OutputError, match=text) as caught:
        FileRows((70_000, 20_000), np.float16, tmp_path, tmp_path / "kept.bin" if kept else None)
    assert asked == [(0, 2_800_000_000)]  # all of it at once: later is too late
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "2.8 GB" in message
    assert "memory budget" in message
    del caught
    assert open_files() == before


def test_disk_that_fails_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int, data: memoryview, at: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    rows = FileRows(SHAPE, np.float32, tmp_path)
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OutputError, match="could not be written: Input/output error"):
        rows.write(0, 0, np.ones(3, np.float32))
    rows.close()


def test_scratch_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        FileRows(SHAPE, np.float32, tmp_path / "gone")
    assert str(tmp_path / "gone") in str(caught.value)


@pytest.mark.parametrize(("free", "enough"), [(4999, False), (5000, True), (10**12, True)])
def test_room_is_required_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, enough: bool
) -> None:
    usage: Callable[[Path], SimpleNamespace] = lambda folder: SimpleNamespace(free=free)  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    if enough:
        require_room(tmp_path, 5000)
        return
    with pytest.raises(OutputError, match=r"files of 5 kB, .*has 5 kB\. Free room there, raise the memory"):
        require_room(tmp_path, 5000)
    FileRows((1, 4096), np.uint8, path=tmp_path / "tokens.bin").close()
    require_room(tmp_path, 5000)  # what an earlier run has taken will be used again
