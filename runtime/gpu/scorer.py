"""MSM, mutual scoring (paper, section 3.3), on a GPU: the twin of the CPU's scorer (scoring/mutual.py).

For each layer and degree the tokens of all images become rows in half precision (kernels/pool.cuh), the
pairs of images are compared (gram.cuh), and each patch's distances are averaged (interval.cuh).  Or the rows
are in int8, if that is asked for (pool_int8.cuh, gram.cuh).  The plan
decides how much is on the device at once (plan.py), and the lot's arrays bring it there (arrays.py).

Half precision costs up to 2e-5 in a distance of a real lot.  The result is the same, bit for bit, from run to
run and for every plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy.typing as npt

from ...kernels.errors import DeviceMemoryError
from ...kernels.precisions import HALF
from ...kernels.thread import GpuThread
from ..errors import device_errors
from ..memory import size_text
from ..scoring.judges import Judges, by_image
from ..scoring.method import Method
from ..scoring.plan import UNLIMITED, HostNeeds, LotSize
from ..scoring.protocols import Groups, KeptCells
from ..store.features import DeviceStore
from ..timing import UNTIMED, StageTimer
from ..types import Array, DevicePlan, FeatureStore, FloatArray, Plan, Progress, no_progress
from .plan import device_budget, host_plan, make_device_plan, pairs_per_launch
from .work import DeviceWork, seconds_of

_SMALLER = 0.8
"""Share of the memory of a plan that did not fit, for the next one to try."""


@dataclass(frozen=True)
class CudaScorer:
    """Mutual scores by ``method`` on the GPU of ``device``, which must be entered.

    ``memory`` is the device memory that may be used, in bytes; None for nine tenths of what is free.
    ``notes`` receives remarks for the user; ``precision`` is what patches are compared in.
    """

    method: Method
    device: GpuThread
    memory: int | None = None
    notes: list[str] = field(default_factory=list)
    precision: str = HALF

    kind = "cuda"

    @property
    def version(self) -> str:
        """The compiled kernels, the kind of GPU and the precision, which bits of the scores depend on."""
        version = self.device.run(lambda gpu: f"cuda {gpu.arch} {gpu.module}")
        return version if self.precision == HALF else f"{version} {self.precision}"

    def judges(self, images: int) -> Judges:
        """Choose who judges whom among ``images``, as every scorer does."""
        return self.method.judges(images)

    @device_errors()
    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = UNLIMITED) -> Plan:
        """Make the memory plan, on the host and on the device."""
        size = self.method.lot_size(shape, itemsize)
        free, integrated = self.device.run(lambda gpu: (gpu.free_memory(), gpu.integrated))
        # The two parts depend on each other: on an integrated GPU the host's plan takes of the same memory,
        # and less if the tokens are on the device.  So that is tried first, and taken if the device's plan
        # has them there.  Kept work is in files: its tokens are never on the device.
        for tokens_on_device in (False,) if needs.keep else (True, False):
            host = host_plan(size, needs, tokens_on_device=tokens_on_device)
            room = device_budget(host, free, self.memory, integrated=integrated)
            plan = self._plan(size, room, None if tokens_on_device else False)
            if plan.holds_tokens == tokens_on_device:
                break
        return replace(host, device=plan)

    def _plan(self, size: LotSize, budget: int, holds_tokens: bool | None) -> DevicePlan:
        return make_device_plan(size, budget, self.precision, holds_tokens=holds_tokens)

    def device_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> DeviceStore | None:
        """Make a store on the device if the plan has the tokens there; None if not, or without room."""
        if not _of_device(plan).holds_tokens:
            return None
        try:
            tokens = self.device.run(lambda gpu: gpu.empty(shape, dtype))
        except DeviceMemoryError as error:
            self.notes.append(f"{error} Features are kept in the host's memory instead.")
            return None
        return DeviceStore(self.device, tokens, cls, shape[1])

    @device_errors()
    def score(
        self,
        store: FeatureStore,
        plan: Plan,
        progress: Progress = no_progress,
        kept: KeptCells | None = None,
        timer: StageTimer = UNTIMED,
        later: FloatArray | None = None,
        copies: Groups = (),
        inside: Array | None = None,
    ) -> FloatArray:
        """Return the mutual scores (N,P); if the device has less memory than planned, uses a smaller plan."""
        judges = self.method.judges(store.shape[1], copies)
        if kept:
            kept.begin_scoring(copies)
        size = self.method.lot_size(store.shape, store.dtype.itemsize)
        on_device = isinstance(store, DeviceStore)
        device = _of_device(plan)
        # The store may differ from the plan: there was no room for it, or some images could not be read.
        if device.holds_tokens != on_device or device.panel > size.images:
            device = self._plan(size, device.budget, on_device)
        while True:
            work = DeviceWork(
                self.method,
                store,
                size,
                device,
                judges,
                progress,
                kept,
                timer,
                self.device.check,
                None if inside is None else inside[judges.order],
            )
            try:
                by_place = self.device.run(work.scores)
                break
            except DeviceMemoryError as error:  # another program has taken memory since the plan was made
                device = self._plan(size, int(_SMALLER * device.memory_bytes), on_device)
                self.notes.append(f"{error} A plan of {size_text(device.memory_bytes)} was taken instead.")
        return by_image(by_place, judges, later)

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Estimate the seconds that ``score`` will take, by timing some pairs of random rows."""
        size = self.method.lot_size(shape, 2)
        pairs = self.judges(shape[1]).pairs
        some = min(pairs, max(1, pairs_per_launch(size) // 8))
        all_pairs = shape[0] * len(self.method.degrees) * pairs * _of_device(plan).comparisons
        seconds = self.device.run(lambda gpu: seconds_of(gpu, size, some, self.method, self.precision))
        return seconds * all_pairs / some


def _of_device(plan: Plan) -> DevicePlan:
    """Return the device's part of a plan that ``CudaScorer.plan`` has made."""
    if plan.device is None:
        raise TypeError("the plan has no part for a GPU: it was made by another scorer")
    return plan.device
