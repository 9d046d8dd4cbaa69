"""Choose and open the scorer that compares the images: the CPU's with one of its filters, or the GPU's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from ..kernels.cubins import find_cubin
from ..kernels.precisions import HALF
from ..kernels.pycuda_gpu import PycudaGpu, import_driver
from ..kernels.thread import GpuThread
from .errors import DeviceError, device_errors
from .gpu.scorer import CudaScorer
from .scoring.image_pairs import best_filter, prepare_near
from .scoring.method import Method
from .scoring.mutual import CpuScorer
from .scoring.protocols import MutualScorer
from .scoring.residual import ResidualScorer
from .settings import ANYTHING, AUTO, RESIDUAL, Resources, meaningless
from .types import Bundle


def import_scorer(name: str) -> None:
    """Import the libraries of scorer ``name``; DeviceError if one is missing.  No device is touched."""
    if name == "cuda":
        with device_errors():
            import_driver()
    else:
        best_filter(name)


@contextmanager
def open_scorer(
    method: Method, resources: Resources = ANYTHING, bundle: Bundle | None = None
) -> Iterator[MutualScorer]:
    """Open the scorer that ``resources`` name, for as long as the context is open.

    ``bundle`` is one that may hold compiled kernels.

    Raises
    ------
    DeviceError
        If there is no such scorer, it does not work here, or has no meaning by ``method.by``.
    """
    require_meaning(method.by, resources)
    if method.by == RESIDUAL:
        yield ResidualScorer(method)
        return
    name = resources.scorer
    with ExitStack() as stack:
        notes: list[str] = []
        device = open_gpu_for(name, bundle, stack, notes)
        if device:
            precision = resources.precision or HALF
            yield CudaScorer(method, device, resources.device_memory, notes, precision)
        else:
            kind, note = best_filter(name)
            near = prepare_near(kind) if method.near is not None else ""
            yield CpuScorer(method, kind, resources.scratch, [*notes, *filter(None, (note, near))])


def require_meaning(by: str, resources: Resources) -> None:
    """Raise DeviceError if ``resources`` say what compares the images, and ``by`` that none are compared."""
    given = {"scorer": resources.scorer, "device memory": resources.device_memory}
    for what, value in given.items():
        if by == RESIDUAL and value not in (AUTO, None):
            raise DeviceError(meaningless(f"{what} {value}"))


def require_half(resources: Resources) -> None:
    """Raise DeviceError if ``resources`` ask for a precision in which single images are not compared."""
    if resources.precision not in (None, HALF):
        raise DeviceError(
            f"precision {resources.precision} is for lots: with a reference, images are compared in half "
            "precision on a GPU. Leave the precision out."
        )


def open_gpu_for(name: str, bundle: Bundle | None, stack: ExitStack, notes: list[str]) -> GpuThread | None:
    """Open the GPU, until ``stack`` is left, if scorer ``name`` uses it.

    Notes why "auto" does not although pycuda is installed, and returns None.
    """
    if name not in (AUTO, "cuda") or (name == AUTO and find_spec("pycuda") is None):
        return None
    try:
        return stack.enter_context(open_gpu(bundle, notes))
    except DeviceError as error:
        if name == "cuda":
            raise
        notes.append(f"the GPU does not compare the images: {error}")
        return None


@contextmanager
def open_gpu(bundle: Bundle | None, notes: list[str]) -> Iterator[GpuThread]:
    """Open the first GPU and load the kernels: from the bundle, from this device's cache, or compiled.

    Adds to ``notes`` where they came from and what was passed over.

    Raises
    ------
    DeviceError
        If there is no GPU, pycuda is not installed or there are no kernels for it, or those of the bundle are
        not signed as it had to be.  Every KernelError that leaves the context, or is raised on leaving it,
        becomes one too.
    """
    with device_errors(), GpuThread(PycudaGpu) as device:
        arch = device.run(lambda gpu: gpu.arch)
        found = find_cubin(arch, bundle.root, bundle.demands) if bundle else find_cubin(arch)
        device.run(lambda gpu: gpu.load(found.code, found.arch))
        notes += [f"the GPU's kernels are those for {found}.", *found.notes]
        yield device
