"""MSM, mutual scoring (paper, section 3.3), on a GPU: the twin of the CPU's scorer (scoring/mutual.py).

For each layer and degree the tokens of all images become rows in half precision (kernels/pool.cuh), the
pairs of images are compared (gram.cuh), and each patch's distances are averaged (interval.cuh).  What is on
the device at once is the plan's matter (plan.py), and how it gets there the lot's (arrays.py).

Half precision costs up to 2e-5 in a distance of a real lot, and the result is the same, bit for bit, from
run to run and for every plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ...kernels.errors import DeviceMemoryError
from ...kernels.thread import GpuThread
from ..errors import device_errors
from ..memory import size_text
from ..scoring.judges import Judges
from ..scoring.method import Method
from ..scoring.plan import UNLIMITED, HostNeeds
from ..scoring.protocols import KeptCells
from ..store.features import DeviceStore
from ..timing import UNTIMED, StageTimer
from ..types import DevicePlan, FeatureStore, FloatArray, Plan, Progress, no_progress
from .plan import device_budget, host_plan, make_device_plan, pairs_per_launch
from .work import DeviceWork, seconds_of

_SMALLER = 0.8
"""Of the memory of a plan that did not fit, for the next one."""


@dataclass(frozen=True)
class CudaScorer:
    """Mutual scores by ``method`` on the GPU of ``device``, which must be entered.

    ``memory`` is what may be used of the device, in bytes, None for what is free; ``notes`` receives what the
    user should know of.
    """

    method: Method
    device: GpuThread
    memory: int | None = None
    notes: list[str] = field(default_factory=list)

    kind = "cuda"

    @property
    def version(self) -> str:
        """What the result depends on besides the images: the compiled kernels and the kind of GPU."""
        return self.device.run(lambda gpu: f"cuda {gpu.arch} {gpu.module}")

    def judges(self, images: int) -> Judges:
        """Who judges whom, as for every scorer."""
        return self.method.judges(images)

    @device_errors()
    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = UNLIMITED) -> Plan:
        """The memory plan, on the host and on the device."""
        size = self.method.lot_size(shape, itemsize)
        free, integrated = self.device.run(lambda gpu: (gpu.free_memory(), gpu.integrated))
        for tokens_on_device in (False,) if needs.keep else (True, False):
            host = host_plan(size, needs, tokens_on_device=tokens_on_device)
            room = device_budget(host, free, self.memory, integrated=integrated)
            plan = make_device_plan(size, room, holds_tokens=None if tokens_on_device else False)
            if plan.holds_tokens == tokens_on_device:
                break
        return replace(host, device=plan)

    def device_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> DeviceStore | None:
        """A store on the device, if the plan has the tokens there; None if not, or if there is no room."""
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
    ) -> FloatArray:
        """Mutual scores (N,P); where the device has less memory than planned, a smaller plan is noted."""
        judges = self.judges(store.shape[1])
        size = self.method.lot_size(store.shape, store.dtype.itemsize)
        on_device = isinstance(store, DeviceStore)
        device = _of_device(plan)
        if device.holds_tokens != on_device or device.panel > size.images:
            device = make_device_plan(size, device.budget, holds_tokens=on_device)
        while True:
            work = DeviceWork(
                self.method, store, size, device, judges, progress, kept, timer, self.device.check
            )
            try:
                by_place = self.device.run(work.scores)
                break
            except DeviceMemoryError as error:
                device = make_device_plan(size, int(_SMALLER * device.memory_bytes), holds_tokens=on_device)
                self.notes.append(f"{error} A plan of {size_text(device.memory_bytes)} was taken instead.")
        by_image = np.empty(by_place.shape, np.float32)
        by_image[judges.order] = by_place
        return by_image

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Time that ``score`` will take here, from a measurement of some pairs of random rows."""
        size = self.method.lot_size(shape, 2)
        pairs = self.judges(shape[1]).pairs
        some = min(pairs, max(1, pairs_per_launch(size) // 8))
        all_pairs = shape[0] * len(self.method.degrees) * pairs * _of_device(plan).comparisons
        return self.device.run(lambda gpu: seconds_of(gpu, size, some)) * all_pairs / some


def _of_device(plan: Plan) -> DevicePlan:
    """The device's part of a plan that ``CudaScorer.plan`` has made."""
    if plan.device is None:
        raise TypeError("the plan has no part for a GPU: it was made by another scorer")
    return plan.device
