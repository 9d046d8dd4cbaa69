"""Stores for the features of a lot: in host memory, in a file, or on a GPU.

A file is used where memory is short or the work is kept.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels import launches
from ...kernels.errors import DeviceMemoryError
from ...kernels.gpu import DeviceArray, Gpu
from ...kernels.thread import GpuThread
from ..types import Array, DeviceSlot, FloatArray, Slot
from .tables import FileRows

LARGEST = 1e15
"""Limit of a ViT's numbers, which are some thousands at most; half precision ends at 65,504."""
_ALIGNMENT = 256
"""Bytes: TensorRT may write only to addresses that are multiples of this."""


@dataclass(frozen=True)
class HostStore:
    """Tokens (S,N,P,C) in memory, one layer after the other; ``cls`` (N,D)."""

    tokens: Array
    cls: FloatArray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(S, N, P, C)."""
        layers, images, patches, width = self.tokens.shape
        return layers, images, patches, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the tokens."""
        return self.tokens.dtype

    def slot(self, i0: int, i1: int) -> Slot:
        """Return views for images i0..i1: tokens (S,B,P,C) and cls (B,D)."""
        return Slot(self.tokens[:, i0:i1], self.cls[i0:i1])

    def finite(self, i0: int, i1: int) -> Array:
        """Return for each of images i0..i1 whether all its numbers are believable."""
        return _finite(self.slot(i0, i1))

    def put(self, i0: int, i1: int) -> None:
        """Do nothing: the slot is the store."""

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Return tokens (i1-i0,P,C) of one layer."""
        block: Array = self.tokens[layer, i0:i1]
        return block

    def some(self, layer: int, i0: int, i1: int, places: Array) -> Array:
        """Return the tokens (i1-i0,K,C) of the patches ``places`` (K,) alone."""
        return self.block(layer, i0, i1)[:, places]

    def picked(self, layer: int, patches: Array) -> Array:
        """Return the token (N,C) of one patch of each image."""
        picked: Array = self.tokens[layer, np.arange(len(patches)), patches]
        return picked

    def first(self, images: int) -> HostStore:
        """Return a view of this store with its first ``images`` images only."""
        return HostStore(self.tokens[:, :images], self.cls[:images])

    def free(self) -> None:
        """Do nothing: memory goes with the last reference."""


class OneBatch:
    """Holds one batch of tokens in memory on its way to a store of ``shape`` (S,N,P,C) elsewhere."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray) -> None:
        layers, _, patches, width = shape
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.cls = cls
        self._tokens: Array = np.empty((layers, 0, patches, width), dtype)

    def slot(self, i0: int, i1: int) -> Slot:
        """Return room for images i0..i1: tokens (S,B,P,C) and cls (B,D)."""
        layers, _, patches, width = self.shape
        if self._tokens.shape[1] != i1 - i0:
            self._tokens = np.empty((layers, i1 - i0, patches, width), self.dtype)
        return Slot(self._tokens, self.cls[i0:i1])

    def finite(self, i0: int, i1: int) -> Array:
        """Return for each of images i0..i1, the latest slot, whether all its numbers are believable."""
        return _finite(self.slot(i0, i1))


class FileStore(OneBatch):
    """Tokens in a file, the latest batch of them in memory; ``cls`` (N,D) in memory.

    Parameters
    ----------
    rows : the file, with a row of P*C items for each layer and image: row ``layer * room + image``.
    shape : (S, N, P, C)
    room : images that the file has room for, at least N.
    """

    def __init__(
        self,
        rows: FileRows,
        shape: tuple[int, int, int, int],
        dtype: npt.DTypeLike,
        cls: FloatArray,
        room: int,
    ) -> None:
        super().__init__(shape, dtype, cls)
        self.rows = rows
        self._room = room

    def put(self, i0: int, i1: int) -> None:
        """Write the tokens in the slot of images i0..i1 to the file."""
        for layer, tokens in enumerate(self._tokens):
            self.rows.write(layer * self._room + i0, 0, tokens[: i1 - i0])

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Read tokens (i1-i0,P,C) of one layer from the file."""
        _, _, patches, width = self.shape
        items = self.rows.read(layer * self._room + i0, 0, (i1 - i0) * patches * width)
        return items.reshape(i1 - i0, patches, width)

    def some(self, layer: int, i0: int, i1: int, places: Array) -> Array:
        """Return the tokens (i1-i0,K,C) of the patches ``places`` (K,) alone."""
        return self.block(layer, i0, i1)[:, places]

    def picked(self, layer: int, patches: Array) -> Array:
        """Read the token (N,C) of one patch of each image, and nothing else, from the file."""
        row, width = layer * self._room, self.shape[3]
        return np.stack([self.rows.read(row + i, k * width, width) for i, k in enumerate(patches.tolist())])

    def first(self, images: int) -> FileStore:
        """Return a view of this store with its first ``images`` images only."""
        layers, _, patches, width = self.shape
        return FileStore(
            self.rows, (layers, images, patches, width), self.dtype, self.cls[:images], self._room
        )

    def free(self) -> None:
        """Do nothing: a file goes with the last reference, and one of kept work stays."""


class DeviceStore:
    """Tokens (S,N,P,C) on a GPU, where the ViT's backend writes them itself; ``cls`` (N,D) in host memory.

    Parameters
    ----------
    device : the GPU that ``tokens`` are on; they are freed by ``free``, or when it is left.
    images : images of the lot, at most as many as ``tokens`` has room for.
    """

    def __init__(self, device: GpuThread, tokens: DeviceArray, cls: FloatArray, images: int) -> None:
        layers, _, patches, width = tokens.shape
        self.shape = layers, images, patches, width
        self.dtype = tokens.dtype
        self.device = device
        self.cls = cls
        self._arena = tokens

    def slot(self, i0: int, i1: int) -> Slot | DeviceSlot:
        """Return views for images i0..i1: tokens (B,P,C) of each layer and cls (B,D)."""
        tokens = tuple(self.on_device(layer, i0, i1) for layer in range(self.shape[0]))
        return DeviceSlot(tokens, self.cls[i0:i1])

    def finite(self, i0: int, i1: int) -> Array:
        """Return for each of images i0..i1 whether all its numbers are believable."""
        # A mean is finite only if all its terms are: the kernel that centres tokens answers for all of them.

        def means(gpu: Gpu) -> Array:
            stream = gpu.default_stream()
            centres = gpu.empty((self.shape[0], i1 - i0, 4), np.float32)
            try:
                for layer in range(self.shape[0]):
                    launches.centre(gpu, self.on_device(layer, i0, i1), centres.item(layer), stream)
                return gpu.download(centres, stream)
            finally:
                gpu.free(centres)

        found = self.device.run(means)  # mean, what a float leaves of it, scale, largest distance from it
        tokens = np.isfinite(found).all(axis=(0, 2)) & believable(found[..., [0, 3]], (0, 2))
        finite: Array = np.logical_and(tokens, believable(self.cls[i0:i1], (1,)))
        return finite

    def put(self, i0: int, i1: int) -> None:
        """Do nothing: the slot is the store."""

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Copy tokens (i1-i0,P,C) of one layer from the device."""
        tokens = self.on_device(layer, i0, i1)
        return self.device.run(lambda gpu: gpu.download(tokens, gpu.default_stream()))

    def some(self, layer: int, i0: int, i1: int, places: Array) -> Array:
        """Copy the tokens (i1-i0,K,C) of the patches ``places`` (K,) from the device.

        Those alone, or where it has no room to gather them all others too.
        """
        tokens = self.on_device(layer, i0, i1)

        def gathered(gpu: Gpu) -> Array:
            stream = gpu.default_stream()
            with ExitStack() as held:
                taken = gpu.empty((len(places),), np.int32)
                held.callback(gpu.free, taken)
                rows = gpu.empty((i1 - i0, len(places), self.shape[3]), self.dtype)
                held.callback(gpu.free, rows)
                gpu.upload(taken, places.astype(np.int32), stream)
                launches.gather_rows(gpu, tokens, taken, rows, stream)
                return gpu.download(rows, stream)

        try:
            return self.device.run(gathered)
        except DeviceMemoryError:
            return self.block(layer, i0, i1)[:, places]

    def picked(self, layer: int, patches: Array) -> Array:
        """Copy the token (N,C) of one patch of each image from the device."""
        places = patches[:, None]
        return np.concatenate([self.some(layer, i, i + 1, place)[0] for i, place in enumerate(places)])

    def on_device(self, layer: int, i0: int, i1: int) -> DeviceArray:
        """Return tokens (i1-i0,P,C) of one layer, where they are on the device."""
        return self._arena.item(layer).rows(i0, i1)

    def first(self, images: int) -> DeviceStore:
        """Return a view of this store with its first ``images`` images only."""
        return DeviceStore(self.device, self._arena, self.cls[:images], images)

    def free(self) -> None:
        """Free the tokens, which all views of them share."""
        self.device.run(lambda gpu: gpu.free(self._arena))

    def for_backend(self, *, fills_device: bool) -> DeviceStore:
        """Return a store for a backend to write to: this one, or one that uploads what it is given.

        Batches are uploaded if the backend does not run on the GPU, or if images do not begin at addresses
        that TensorRT can write to.
        """
        # The arena itself is aligned; within it an image begins at a multiple of its own size.
        aligned = prod(self.shape[2:]) * self.dtype.itemsize % _ALIGNMENT == 0
        return self if fills_device and aligned else UploadStore(self)


class UploadStore(DeviceStore):
    """A store on the device whose batches are written to host memory first and then uploaded."""

    def __init__(self, store: DeviceStore) -> None:
        super().__init__(store.device, store._arena, store.cls, store.shape[1])
        self._batch = OneBatch(self.shape, self.dtype, self.cls)

    def slot(self, i0: int, i1: int) -> Slot:
        """Return room for images i0..i1: tokens (S,B,P,C) and cls (B,D)."""
        return self._batch.slot(i0, i1)

    def finite(self, i0: int, i1: int) -> Array:
        """Return for each of images i0..i1, the latest slot, whether all its numbers are believable."""
        return self._batch.finite(i0, i1)

    def put(self, i0: int, i1: int) -> None:
        """Copy the tokens in the slot of images i0..i1 to the device."""

        def upload(gpu: Gpu) -> None:
            stream = gpu.default_stream()
            for layer, tokens in enumerate(self.slot(i0, i1).tokens):
                gpu.upload(self.on_device(layer, i0, i1), tokens, stream)

        self.device.run(upload)


def _finite(slot: Slot) -> Array:
    finite: Array = np.logical_and(believable(slot.tokens, (0, 2, 3)), believable(slot.cls, (1,)))
    return finite


def believable(values: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Return whether all numbers along ``axis`` are finite, and at most ``LARGEST``."""
    # Extremes, not np.abs, which would copy.  NaN is the extreme wherever it is, and not at most anything.
    highest, lowest = (np.asarray(each(axis), np.float64) for each in (values.max, values.min))
    return np.asarray((highest <= LARGEST) & (lowest >= -LARGEST))
