"""The features of a lot: in memory or on disk they are the same, and a full disk is said so in time."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.store import HostStore, host_array

SHAPE = (2, 7, 6, 5)  # S, N, P, C


def store_in(on_disk: bool, scratch: Path | None, dtype: type[np.generic] = np.float32) -> HostStore:
    return HostStore(host_array(SHAPE, dtype, on_disk, scratch), np.zeros((SHAPE[1], 3), np.float32))


def fill(store: HostStore, batch: int, seed: int = 0) -> None:
    """Write random features batch by batch, as a backend does."""
    generator = np.random.default_rng(seed)
    tokens = generator.standard_normal((SHAPE[1], SHAPE[0], *SHAPE[2:]))  # image by image
    cls = generator.standard_normal((SHAPE[1], 3))
    for i0 in range(0, SHAPE[1], batch):
        i1 = min(i0 + batch, SHAPE[1])
        slot = store.slot(i0, i1)
        slot.tokens[:] = tokens[i0:i1].swapaxes(0, 1)
        slot.cls[:] = cls[i0:i1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_memory_and_disk_hold_the_same(tmp_path: Path, dtype: type[np.generic], batch: int) -> None:
    memory, disk = store_in(False, None, dtype), store_in(True, tmp_path, dtype)
    for store in (memory, disk):
        fill(store, batch)
        assert store.shape == SHAPE
        assert store.tokens.dtype == dtype
    assert not isinstance(memory.tokens, np.memmap)
    assert isinstance(disk.tokens, np.memmap)
    for layer in range(SHAPE[0]):
        for i0, i1 in [(0, 7), (0, 1), (2, 5), (6, 7)]:
            expected = memory.block(layer, i0, i1)
            assert expected.shape == (i1 - i0, *SHAPE[2:])
            assert np.any(expected)
            np.testing.assert_array_equal(disk.block(layer, i0, i1), expected)
    np.testing.assert_array_equal(disk.cls, memory.cls)


@pytest.mark.parametrize("on_disk", [False, True])
def test_slots_are_views_and_blocks_are_contiguous(tmp_path: Path, on_disk: bool) -> None:
    store = store_in(on_disk, tmp_path)
    fill(store, 7)
    slot = store.slot(2, 5)
    assert slot.tokens.shape == (2, 3, 6, 5)
    assert slot.cls.shape == (3, 3)
    for layer in range(SHAPE[0]):
        assert slot.tokens[layer].flags.c_contiguous
        assert store.block(layer, 2, 5).flags.c_contiguous
        slot.tokens[layer] = layer + 10
        assert np.all(store.block(layer, 2, 5) == layer + 10)
        assert not np.any(store.block(layer, 0, 2) == layer + 10)
        assert not np.any(store.block(layer, 5, 7) == layer + 10)
    slot.cls[:] = 4
    assert np.all(store.cls[2:5] == 4)


def test_first_images_are_the_same_store(tmp_path: Path) -> None:
    store = store_in(True, tmp_path)
    fill(store, 7)
    cut = store.first(4)
    assert cut.shape == (2, 4, 6, 5)
    assert cut.cls.shape == (4, 3)
    np.testing.assert_array_equal(cut.block(1, 0, 4), store.block(1, 0, 4))
    assert np.shares_memory(cut.tokens, store.tokens)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_scratch_file_has_no_name_and_goes_with_its_array(tmp_path: Path) -> None:
    gc.collect()
    before = open_files()
    array = host_array((1000,), np.float32, True, tmp_path)
    array[:] = 3
    assert list(tmp_path.iterdir()) == []
    assert np.all(array == 3)
    del array
    gc.collect()
    assert open_files() == before


def test_scratch_is_in_the_temporary_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError) as caught:
        host_array((10,), np.float32, True, None)
    assert str(tmp_path / "gone") in str(caught.value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert host_array((10,), np.float32, True, None).shape == (10,)


@pytest.mark.parametrize(
    ("error", "text"), [(errno.ENOSPC, "No space left"), (errno.EFBIG, "File too large")]
)
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, text: str) -> None:
    asked: list[tuple[int, int]] = []

    def no_room(file: int, offset: int, size: int) -> None:
        asked.append((offset, size))
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    before = open_files()
    with pytest.raises(OutputError, match=text) as caught:
        host_array((70_000, 10_000, 2), np.float16, True, tmp_path)
    assert asked == [(0, 2_800_000_000)]  # all of it at once: later is too late
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "2.8 GB" in message
    assert "memory budget" in message
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before


def test_scratch_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        host_array((10,), np.float32, True, tmp_path / "gone")
    assert str(tmp_path / "gone") in str(caught.value)


def test_memory_needs_no_scratch_folder(tmp_path: Path) -> None:
    assert host_array((2, 3), np.float16, False, tmp_path / "gone").shape == (2, 3)
