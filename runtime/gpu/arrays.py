"""The arrays of a lot on the GPU: tokens in a ring of buffers, features, distances and scores.

A buffer of the ring holds one block of tokens.  Tokens are copied in a stream of their own, ahead of the
kernels that read them.  Two events order the use of each buffer: the kernels wait for ``copied``, and the
next copy into the buffer waits for ``used``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from types import TracebackType

import numpy as np

from ...kernels import launches
from ...kernels.gpu import DeviceArray, Gpu, Stream
from ...kernels.precisions import HALF
from ..scoring.method import Window
from ..scoring.plan import LotSize
from ..timing import StageTimer
from ..types import Array, DevicePlan
from .average import average
from .plan import SAMPLES, pairs_per_launch
from .rows import Rows
from .timing import DeviceTimer

Use = tuple[int, int]
"""A layer and a block of places, whose tokens are needed next."""


class DeviceLot:
    """The arrays of a plan, allocated when it is entered and freed when it is left.

    Parameters
    ----------
    gpu : the GPU; all methods are called in the thread that owns it.
    read : gives the tokens (n,P,C) of places i0..i1 of a layer, in host memory.
    on_device : gives the same tokens on the device, as runs of neighbors (n,P,C), if the plan has them there.
    uses : the blocks of tokens that will be asked for, in this order.
    timer : records when the device uploads, aggregates, compares and selects.
    inside : (N,P) bool, by place, the patches that may be the nearest; None for all.
    window : how many rows and columns apart patches are that are compared; None for any.
    """

    def __init__(
        self,
        gpu: Gpu,
        size: LotSize,
        plan: DevicePlan,
        grid: tuple[int, int],
        read: Callable[[int, int, int], Array],
        on_device: Callable[[int, int, int], list[DeviceArray]],
        uses: Sequence[Use],
        timer: StageTimer,
        inside: Array | None = None,
        window: int | None = None,
    ) -> None:
        self._near = launches.Near.of(grid, window)
        self._timer, self._excluding = timer, inside
        self._inside: DeviceArray | None = None
        self.gpu, self.size, self.plan = gpu, size, plan
        self._grid, self._read, self._on_device, self._uses = grid, read, on_device, uses
        self._next = 0
        self._allocated: list[DeviceArray] = []

    def __enter__(self) -> DeviceLot:
        try:
            self._allocate()
        except BaseException:
            self._free()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free()

    def _allocate(self) -> None:
        gpu, size, plan = self.gpu, self.size, self.plan
        held = min(plan.panel + plan.block, size.images) if plan.streamed else size.images
        samples = min(SAMPLES, size.images)
        token = np.float16 if size.itemsize == 2 else np.float32
        of_sample = 0 if plan.holds_tokens else samples
        self._ring = self._empty((plan.ring, plan.block, size.patches, size.width), token)
        self.rows = self._rows(held, plan.precision)
        self.distances = self._empty((plan.panel * size.judge_count, size.patches), np.uint32)
        self.results = self._empty((size.results, size.images, size.patches), np.float32)
        self.centres = self._empty((size.images, 4), np.float32)
        self.pairs = self._empty((pairs_per_launch(size), 4), np.int32)
        self.shift = self._empty((launches.pitch_of(size.width),), np.float32)
        self._sample_tokens = self._empty((of_sample, size.patches, size.width), token)
        self._sample_rows = self._rows(samples, HALF)
        self._sample_centres = self._empty((samples, 4), np.float32)
        self.compute, self._copies = gpu.stream(), gpu.stream()
        if self._excluding is not None:
            self._inside = self._empty(self._excluding.shape, np.uint8)
            gpu.upload(self._inside, self._excluding.astype(np.uint8), self.compute)
        # UploadStore queued its copies in the default stream, and streams do not wait for each other.
        earlier = gpu.event()
        gpu.record(earlier, gpu.default_stream())
        gpu.wait(self.compute, earlier)
        self._timed = DeviceTimer(gpu, self._timer, self.compute)
        self._copied = [gpu.event() for _ in range(plan.ring)]
        self._used = [gpu.event() for _ in range(plan.ring)]
        self._buffers: dict[Use, int] = {}
        self._samples: list[DeviceArray] = []
        self._centred: set[int] = set()
        """Blocks of this layer whose centres are computed: they are the same for all degrees."""

    def _empty(self, shape: tuple[int, ...], dtype: type) -> DeviceArray:
        array = self.gpu.empty(shape, dtype)
        self._allocated.append(array)
        return array

    def _rows(self, images: int, precision: str) -> Rows:
        return Rows.allocate(self._empty, images, self.size.patches, self.size.width, precision)

    def _free(self) -> None:
        while self._allocated:
            self.gpu.free(self._allocated.pop())

    # ---- tokens in, features made ----------------------------------------------------------------

    def sample(self, layer: int) -> None:
        """Begin a layer: gather the tokens of a few images, spread over the lot, to take the shift from."""
        self._centred.clear()
        places = np.linspace(0, self.size.images - 1, min(SAMPLES, self.size.images)).astype(int)
        self._samples = []
        for row, place in enumerate(places.tolist()):
            if self.plan.holds_tokens:
                self._samples += self._on_device(layer, place, place + 1)
            else:
                tokens = self._sample_tokens.rows(row, row + 1)
                self._upload(tokens, (layer, place, place + 1), self.compute)
                self._samples.append(tokens)
            centres = self._sample_centres.rows(row, row + 1)
            with self._timed.work("aggregate", self.compute):
                launches.centre(self.gpu, self._samples[row], centres, self.compute)

    def find_shift(self, degree: int) -> None:
        """Set the shift of this layer and degree to the mean of the sample's rows."""
        with self._timed.work("aggregate", self.compute):
            # The sample is pooled unshifted, with the shift still 0, to find the mean that becomes the shift.
            # Any common vector cancels in a distance, so a few images are enough (kernels/pool.cuh).
            self.gpu.fill(self.shift, 0, self.compute)
            # In half precision whatever the rows are in: of these only the mean is wanted.
            for row, tokens in enumerate(self._samples):
                centres = self._sample_centres.rows(row, row + 1)
                self._pool(tokens, degree, centres, self._sample_rows.part(row, row + 1))
            launches.column_mean(
                self.gpu, self._sample_rows.features, self.size.patches, self.shift, self.compute
            )

    def pool_block(self, number: int, degree: int, row: int) -> None:
        """Compute the features of block ``number`` of ``uses``, into the rows from ``row`` on."""
        use = self._uses[number]
        block = use[1]
        start = block * self.plan.block
        stop = min(start + self.plan.block, self.size.images)
        self._next = number
        if self.plan.holds_tokens:
            runs = self._on_device(use[0], start, stop)
        else:
            buffer = self._buffer_of(use)
            self._next += 1  # only now: until it was found, its buffer had to count as needed
            self.gpu.wait(self.compute, self._copied[buffer])
            runs = [self._ring.item(buffer).rows(0, stop - start)]
        with self._timed.work("aggregate", self.compute):
            for tokens in runs:
                count = tokens.shape[0]
                centres = self.centres.rows(start, start + count)
                if block not in self._centred:
                    launches.centre(self.gpu, tokens, centres, self.compute)
                rows = self.rows.part(row, row + count)
                self._pool(tokens, degree, centres, rows)
                if self._inside is not None:
                    inside = self._inside.rows(start, start + count)
                    launches.exclude_patches(self.gpu, rows.squares, inside, self.compute)
                start, row = start + count, row + count
        self._centred.add(block)
        if not self.plan.holds_tokens:
            self.gpu.record(self._used[buffer], self.compute)
            self.copy_ahead()

    def _pool(self, tokens: DeviceArray, degree: int, centres: DeviceArray, rows: Rows) -> None:
        rows.pool(self.gpu, tokens, centres, self.shift, self._grid, degree, self.compute)

    def open_panel(self, images: int) -> None:
        """Set the distances of the first ``images`` images of a panel to what one without a neighbor has."""
        rows = self.distances.rows(0, images * self.size.judge_count)
        self.gpu.fill(rows, launches.farthest_bits(self._near), self.compute)

    def compare(self, pairs: Array) -> None:
        """Queue the comparison of ``pairs`` (count,4), at most as many as one launch takes."""
        on_device = self.pairs.rows(0, len(pairs))
        self.gpu.upload(on_device, pairs, self.compute)
        with self._timed.work("compare", self.compute):
            self.rows.compare(self.gpu, on_device, self.distances, self.compute, self._near)

    def average(self, panel: int, start: int, stop: int, window: Window) -> None:
        """Average the distances of places ``start`` to ``stop``, of a panel that begins at ``panel``."""
        rows = self.distances.rows(*((place - panel) * self.size.judge_count for place in (start, stop)))
        distances = replace(rows, shape=(stop - start, self.size.judge_count, self.size.patches))
        results = [self.results.item(k).rows(start, stop) for k in range(self.size.results)]
        with self._timed.work("select", self.compute):
            average(self.gpu, distances, results, window, self.compute)

    def finish(self) -> None:
        """End a layer: wait for all work and record when each part of it ran."""
        self._timed.finish()

    def copy_ahead(self, most: int = 1) -> None:
        """Queue up to ``most`` copies of the blocks that are needed next, into free buffers.

        A buffer is free if it is empty, or if its block is not among the next ``ring`` different blocks.
        """
        # Of the next ``ring`` blocks each has a buffer or a claim to one: a buffer with one of them is never
        # overwritten, so a ring that holds a whole layer copies each block once and keeps it for all degrees.
        # The host does not wait for a buffer here: the copy itself waits, on the device, for ``used``.
        needed = list(islice(dict.fromkeys(self._uses[self._next :]), self.plan.ring))
        free = [b for b in range(self.plan.ring) if b not in self._buffers.values()]
        free += [b for use, b in self._buffers.items() if use not in needed]
        missing = [use for use in needed if use not in self._buffers]
        for use, buffer in islice(zip(missing, free, strict=False), most):
            self._copy(use, buffer)

    def _buffer_of(self, use: Use) -> int:
        """Return the buffer with the tokens of ``use``, the next one needed; copies missing ones."""
        if use not in self._buffers:
            self.copy_ahead()
        return self._buffers[use]

    def _copy(self, use: Use, buffer: int) -> None:
        self._buffers = {u: b for u, b in self._buffers.items() if b != buffer} | {use: buffer}
        layer, start = use[0], use[1] * self.plan.block
        stop = min(start + self.plan.block, self.size.images)
        self.gpu.wait(self._copies, self._used[buffer])
        self._upload(self._ring.item(buffer).rows(0, stop - start), (layer, start, stop), self._copies)
        self.gpu.record(self._copied[buffer], self._copies)

    def _upload(self, there: DeviceArray, part: tuple[int, int, int], stream: Stream) -> None:
        """Queue a copy of the tokens of ``part``, a layer and places i0 to i1."""
        with self._timer.work("load"):
            self._timed.upload(there, self._read(*part), stream)
