"""MSM, mutual scoring (paper, section 3.3), on a GPU: the twin of the CPU's scorer (mutual.py).

For each layer and degree the tokens of all images become rows in half precision (kernels/pool.cuh), the
pairs of images are compared (gram.cuh), and each patch's distances are averaged (interval.cuh).  What is on
the device at once is the plan's matter (device_plan.py), and how it gets there the lot's (device_lot.py).

Half precision costs up to 2e-5 in a distance of a real lot, and the result is the same, bit for bit, from
run to run and for every plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..kernels.errors import DeviceMemoryError, KernelError
from ..kernels.thread import GpuThread
from .device_plan import device_budget, host_plan, make_device_plan, pairs_per_launch
from .device_work import DeviceWork, seconds_of
from .errors import DeviceError
from .layer import KeptCells
from .memory import size_text
from .method import Method
from .store import DeviceStore
from .timing import StageTimer
from .types import DevicePlan, FeatureStore, FloatArray, Plan, Progress, no_progress

_SMALLER = 0.8
"""Of the memory of a plan that did not fit, for the next one."""


@dataclass(frozen=True)
class CudaScorer(Method):
    """Mutual scores on the GPU of ``device``, which must be entered.

    ``memory`` is what may be used of the device, in bytes, None for what is free; ``notes`` receives what the
    user should know of.
    """

    device: GpuThread = field(kw_only=True)
    memory: int | None = None
    notes: list[str] = field(default_factory=list)

    kind = "cuda"

    @property
    def version(self) -> str:
        """What the result depends on besides the images: the compiled kernels and the kind of GPU."""
        return self.device.run(lambda gpu: f"cuda {gpu.arch} {gpu.module}")

    def plan(
        self,
        shape: tuple[int, int, int, int],
        itemsize: int,
        budget: int | None,
        *,
        threads: int = 1,
        fixed_bytes: int = 0,
        vit_bytes: int = 0,
        keep: bool = False,
    ) -> Plan:
        """The memory plan for tokens of ``shape`` (S,N,P,C), on the host and on the device.

        Raises
        ------
        LotError
            If a budget is too small.
        DeviceError
            If the kernels cannot take such tokens.
        """
        size = self.lot_size(shape, itemsize)
        try:
            free, integrated = self.device.run(lambda gpu: (gpu.free_memory(), gpu.integrated))
            for resident in (False,) if keep else (True, False):
                host = host_plan(
                    size, budget, threads=threads, fixed_bytes=fixed_bytes, vit_bytes=vit_bytes, keep=keep,
                    resident=resident,
                )  # fmt: skip
                room = device_budget(host, free, self.memory, integrated=integrated)
                plan = make_device_plan(size, room, resident=None if resident else False)
                if plan.resident == resident:
                    break
            return replace(host, device=plan)
        except KernelError as error:
            raise DeviceError(str(error)) from error

    def resident_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> DeviceStore | None:
        """A store on the device, if the plan has the tokens there; None if not, or if there is no room."""
        if not _of_device(plan).resident:
            return None
        try:
            tokens = self.device.run(lambda gpu: gpu.empty(shape, dtype))
        except DeviceMemoryError as error:
            self.notes.append(f"{error} Features are kept in the host's memory instead.")
            return None
        return DeviceStore(self.device, tokens, cls, shape[1])

    def score(
        self,
        store: FeatureStore,
        plan: Plan,
        progress: Progress = no_progress,
        kept: KeptCells | None = None,
        timer: StageTimer | None = None,
    ) -> FloatArray:
        """Mutual scores (N,P) of the images in ``store``, averaged over layers and degrees.

        Where the device has less memory than planned, a smaller plan is made and noted.

        Raises
        ------
        LotError
            If the lot is too small for the interval, or tokens are not finite.
        DeviceError
            If the device fails.
        """
        judges = self.judges(store.shape[1])
        size = self.lot_size(store.shape, store.dtype.itemsize)
        resident = isinstance(store, DeviceStore)
        device = _of_device(plan)
        if device.resident != resident or device.panel > size.images:
            device = make_device_plan(size, device.budget, resident=resident)
        timer = timer or StageTimer()
        while True:
            work = DeviceWork(self, store, size, device, judges, progress, kept, timer, self.device.check)
            try:
                by_place = self.device.run(work.scores)
                break
            except DeviceMemoryError as error:
                device = make_device_plan(size, int(_SMALLER * device.memory_bytes), resident=resident)
                self.notes.append(f"{error} A plan of {size_text(device.memory_bytes)} was taken instead.")
            except KernelError as error:
                raise DeviceError(str(error)) from error
        by_image = np.empty(by_place.shape, np.float32)
        by_image[judges.order] = by_place
        return by_image

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Time that ``score`` will take here, from a measurement of some pairs of random rows."""
        size = self.lot_size(shape, 2)
        pairs = self.judges(shape[1]).pairs
        some = min(pairs, max(1, pairs_per_launch(size) // 8))
        all_pairs = shape[0] * len(self.degrees) * pairs * _of_device(plan).comparisons
        return self.device.run(lambda gpu: seconds_of(gpu, size, some)) * all_pairs / some


def _of_device(plan: Plan) -> DevicePlan:
    """The device's part of a plan that ``CudaScorer.plan`` has made."""
    if plan.device is None:
        raise TypeError("the plan has no part for a GPU: it was made by another scorer")
    return plan.device
