"""Which scorer compares the images: the CPU's with one of its filters, or the GPU's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy.typing as npt

from ..kernels.cubins import find_cubin
from ..kernels.errors import KernelError
from ..kernels.pycuda_gpu import PycudaGpu, import_driver
from ..kernels.thread import GpuThread
from .compare import best_filter
from .cuda_scorer import CudaScorer
from .errors import DeviceError
from .judges import Judges
from .layer import KeptCells
from .method import Method
from .mutual import CpuScorer
from .store import DeviceStore
from .timing import StageTimer
from .types import FeatureStore, FloatArray, Plan, Progress


class MutualScorer(Protocol):
    """Compares the images of a lot.  Twins: CpuScorer (mutual.py), CudaScorer (cuda_scorer.py)."""

    @property
    def kind(self) -> str:
        """Such as "numba" or "cuda"."""
        ...

    @property
    def version(self) -> str:
        """What the scores' last bits depend on, besides the images."""
        ...

    @property
    def notes(self) -> list[str]:
        """What the user should know of."""
        ...

    def judges(self, images: int) -> Judges:
        """Who judges whom among ``images``; LotError if they are too few for the interval."""
        ...

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
        """The memory plan for tokens of ``shape`` (S,N,P,C)."""
        ...

    def resident_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> DeviceStore | None:
        """The store on the scorer's device that the plan asks for, or None for one of the host's."""
        ...

    def score(
        self,
        store: FeatureStore,
        plan: Plan,
        progress: Progress = ...,
        kept: KeptCells | None = None,
        timer: StageTimer | None = None,
    ) -> FloatArray:
        """Mutual scores (N,P) of the images in ``store``, averaged over layers and degrees."""
        ...

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Time that ``score`` will take here, from a short measurement."""
        ...


def import_scorer(name: str) -> None:
    """Import what scorer ``name`` needs; DeviceError if that is not there.  No device is touched."""
    if name == "cuda":
        try:
            import_driver()
        except KernelError as error:
            raise DeviceError(str(error)) from error
    else:
        best_filter(name)


@contextmanager
def open_scorer(
    name: str,
    method: Method,
    *,
    scratch: Path | None = None,
    device_memory: int | None = None,
    bundle_root: Path | None = None,
) -> Iterator[MutualScorer]:
    """The scorer called ``name`` for as long as the context is open.

    Parameters
    ----------
    name : "cuda", "numba", "numpy", or "auto" for the first of these that works here.
    scratch : folder for what the CPU's plan puts on disk.
    device_memory : bytes that may be used of a GPU; None for what is free.
    bundle_root : bundle that may hold compiled kernels.

    Raises
    ------
    DeviceError
        If there is no such scorer, or it does not work here.
    """
    settings = method.grid, method.degrees, method.interval, method.group
    with ExitStack() as stack:
        notes: list[str] = []
        device = _open_gpu_for(name, bundle_root, stack, notes)
        if device:
            yield CudaScorer(*settings, device=device, memory=device_memory, notes=notes)
        else:
            kind, note = best_filter(name)
            yield CpuScorer(*settings, kind, scratch, notes + ([note] if note else []))


def _open_gpu_for(
    name: str, bundle_root: Path | None, stack: ExitStack, notes: list[str]
) -> GpuThread | None:
    """The GPU if a scorer ``name`` uses it; why "auto" does not, although pycuda is installed, is noted."""
    if name not in ("auto", "cuda") or (name == "auto" and find_spec("pycuda") is None):
        return None
    try:
        return stack.enter_context(open_gpu(bundle_root, notes))
    except DeviceError as error:
        if name == "cuda":
            raise
        notes.append(f"the GPU does not compare the images: {error}")
        return None


@contextmanager
def open_gpu(bundle_root: Path | None, notes: list[str]) -> Iterator[GpuThread]:
    """The first GPU with the kernels loaded, from the bundle, from the cache of this device, or compiled.

    Where they came from, and what was passed over, is added to ``notes``.

    Raises
    ------
    DeviceError
        If there is no GPU, pycuda is not installed or there are no kernels for it; and in place of whatever
        KernelError leaves the context, or comes up when it is left.
    """
    try:
        with GpuThread(PycudaGpu) as device:
            found = find_cubin(device.run(lambda gpu: gpu.arch), bundle_root)
            device.run(lambda gpu: gpu.load(found.code))
            notes += [f"the GPU's kernels are those for {found}.", *found.notes]
            yield device
    except KernelError as error:
        raise DeviceError(str(error)) from error
