"""The features of a lot: in memory or in a file they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.store.features import DeviceStore, FileStore, HostStore
from musc_edge.runtime.store.tables import FileRows
from support import scorer_checks
from support.emulated_gpu import EmulatedGpu

SHAPE = (2, 7, 6, 5)  # S, N, P, C


def memory_store(dtype: type[np.generic] = np.float32) -> HostStore:
    return HostStore(np.empty(SHAPE, dtype), np.zeros((SHAPE[1], 3), np.float32))


def file_store(folder: Path, dtype: type[np.generic] = np.float32, room: int = SHAPE[1]) -> FileStore:
    rows = FileRows((SHAPE[0] * room, SHAPE[2] * SHAPE[3]), dtype, folder)
    return FileStore(rows, SHAPE, dtype, np.zeros((SHAPE[1], 3), np.float32), room)


def fill(store: HostStore | FileStore, batch: int, seed: int = 0) -> None:
    """Write random features batch by batch, as a backend does."""
    generator = np.random.default_rng(seed)
    tokens = generator.standard_normal((SHAPE[1], SHAPE[0], *SHAPE[2:]))  # image by image
    cls = generator.standard_normal((SHAPE[1], 3))
    for i0 in range(0, SHAPE[1], batch):
        i1 = min(i0 + batch, SHAPE[1])
        slot = store.slot(i0, i1)
        slot.tokens[:] = tokens[i0:i1].swapaxes(0, 1)
        slot.cls[:] = cls[i0:i1]
        store.put(i0, i1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("room", [7, 20])
def test_memory_and_file_hold_the_same(
    tmp_path: Path, dtype: type[np.generic], batch: int, room: int
) -> None:
    memory, file = memory_store(dtype), file_store(tmp_path, dtype, room)
    for store in (memory, file):
        fill(store, batch)
        assert store.shape == SHAPE
    for layer in range(SHAPE[0]):
        for i0, i1 in [(0, 7), (0, 1), (2, 5), (6, 7)]:
            expected = memory.block(layer, i0, i1)
            assert expected.shape == (i1 - i0, *SHAPE[2:])
            assert np.any(expected)
            found = file.block(layer, i0, i1)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(file.cls, memory.cls)
    file.rows.close()


def test_slots_are_contiguous_layer_by_layer(tmp_path: Path) -> None:
    file = file_store(tmp_path)
    for store in (memory_store(), file):
        slot = store.slot(2, 5)
        assert slot.tokens.shape == (2, 3, 6, 5)
        assert slot.cls.shape == (3, 3)
        assert all(layer.flags.c_contiguous for layer in slot.tokens)
        assert slot.cls.flags.c_contiguous
        slot.cls[:] = 4
        assert np.all(store.cls[2:5] == 4)
    file.rows.close()


def test_what_is_stored_stays_when_the_next_slot_is_filled(tmp_path: Path) -> None:
    store = file_store(tmp_path)
    fill(store, 7)
    before = store.block(1, 0, 7)
    slot = store.slot(2, 5)
    slot.tokens[:] = 9
    np.testing.assert_array_equal(store.block(1, 0, 7), before)  # not stored yet
    store.put(2, 5)
    assert np.all(store.block(1, 2, 5) == 9)
    np.testing.assert_array_equal(store.block(1, 0, 2), before[:2])
    np.testing.assert_array_equal(store.block(1, 5, 7), before[5:])
    store.rows.close()


def test_first_images_are_the_same_store(tmp_path: Path) -> None:
    memory, file = memory_store(), file_store(tmp_path)
    for store in (memory, file):
        fill(store, 7)
        cut = store.first(4)
        assert cut.shape == (2, 4, 6, 5)
        assert cut.cls.shape == (4, 3)
        for layer in range(2):
            np.testing.assert_array_equal(cut.block(layer, 0, 4), store.block(layer, 0, 4))
            patches = np.array([5, 0, 3, 3])
            picked = store.block(layer, 0, 4)[range(4), patches]
            np.testing.assert_array_equal(cut.picked(layer, patches), picked)
    assert np.shares_memory(memory.first(4).tokens, memory.tokens)
    file.rows.close()


def test_some_patches_alone(kernel_library: Path) -> None:
    """In memory and on a GPU, from which only they are copied."""
    tokens = np.random.default_rng(0).standard_normal((2, 5, 12, 7)).astype(np.float16)
    host, places = HostStore(tokens, np.zeros((5, 3), np.float32)), np.array([11, 0, 4])
    with GpuThread(lambda: EmulatedGpu(kernel_library)) as device:
        on_device = DeviceStore(
            device, device.run(lambda gpu: gpu.empty(tokens.shape, tokens.dtype)), host.cls, 5
        )
        scorer_checks.fill(on_device, tokens, batch=2)
        for store in (host, on_device):
            np.testing.assert_array_equal(store.some(1, 1, 4, places), tokens[1, 1:4][:, places])
            patches = np.array([11, 0, 4, 4, 7])
            np.testing.assert_array_equal(store.picked(1, patches), tokens[1, range(5), patches])


@pytest.mark.parametrize("room", [0, 12, 12 + 3 * 3 * 7 * 2])  # bytes: of nothing, of the places, of all
def test_some_patches_where_the_gpu_is_full(kernel_library: Path, room: int) -> None:
    """They are gathered on the host then, and nothing stays on the GPU."""
    tokens = np.random.default_rng(0).standard_normal((2, 5, 12, 7)).astype(np.float16)
    cls, places = np.zeros((5, 3), np.float32), np.array([11, 0, 4])
    gathered = room > 12
    with GpuThread(lambda: EmulatedGpu(kernel_library, memory=tokens.nbytes + room)) as device:
        arena = device.run(lambda gpu: gpu.empty(tokens.shape, tokens.dtype))
        store = DeviceStore(device, arena, cls, 5)
        scorer_checks.fill(store, tokens, batch=2)
        np.testing.assert_array_equal(store.some(1, 1, 4, places), tokens[1, 1:4][:, places])
        assert device.run(lambda gpu: gpu.free_memory()) == room
        launched = device.run(lambda gpu: bool(cast(EmulatedGpu, gpu).launches))
        assert launched == gathered
