"""Choose the backend that runs the ViT: the one that was asked for, or the best that works here."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec

from ...kernels.driver import find_gpu
from ...kernels.errors import KernelError
from ..errors import BundleError, DeviceError
from ..settings import AUTO
from ..types import Bundle, FeatureBackend
from .extract import warm_up
from .graphs import graph_notes
from .onnx_backend import OnnxBackend, import_onnxruntime
from .tensorrt_backend import TensorRtBackend
from .tensorrt_library import installed_flavors, load_library

BACKENDS = ("cpu", "cuda", "tensorrt")
_BEST_FIRST = ("tensorrt", "cuda")


def make_backend(name: str, bundle: Bundle, threads: int = 0, batch: int | None = None) -> FeatureBackend:
    """Make the backend called ``name``, one of ``BACKENDS``, without entering it.

    ``batch`` is the largest batch that it will be given; None for as many images as it takes.
    """
    if name not in BACKENDS:
        raise DeviceError(f"there is no backend {name!r}: expected {', '.join(BACKENDS)} or {AUTO}.")
    if name == "tensorrt":
        return TensorRtBackend(bundle, batch)
    return OnnxBackend(bundle, threads, name)


def enter_backend(
    stack: ExitStack, name: str, bundle: Bundle, threads: int, batch: int
) -> tuple[FeatureBackend, tuple[str, ...]]:
    """Enter the backend ``name``, or for "auto" the best that works, and let ``stack`` leave it.

    A backend on a GPU has run a batch by then, so that it holds all the GPU memory it will take.  Returns it
    with notes on those that were passed over, and on a faster graph that it cannot run; without a GPU there
    is nothing to note.

    Raises
    ------
    DeviceError, BundleError
        If the backend that was asked for, or the last one left, cannot be entered or does not run.
    """
    notes: list[str] = []
    for candidate in _BEST_FIRST if name == AUTO and _has_gpu() else ():
        try:
            backend = _enter(stack, candidate, bundle, threads, batch)
            return backend, (*notes, *_graph_notes(candidate, bundle))
        except (BundleError, DeviceError) as error:
            notes.append(f"backend {candidate} was passed over: {error}")
    last = "cpu" if name == AUTO else name
    return _enter(stack, last, bundle, threads, batch), (*notes, *_graph_notes(last, bundle))


def _enter(stack: ExitStack, name: str, bundle: Bundle, threads: int, batch: int) -> FeatureBackend:
    # Entered on a stack of its own: one that fails while it warms up is left at once and frees the GPU.
    with ExitStack() as trial:
        backend = trial.enter_context(make_backend(name, bundle, threads, batch))
        if backend.fills_device:
            warm_up(backend, bundle, batch)
        stack.enter_context(trial.pop_all())
    return backend


def _graph_notes(name: str, bundle: Bundle) -> tuple[str, ...]:
    return graph_notes(bundle, name, import_onnxruntime().__version__) if name == "cuda" else ()


def import_libraries(name: str) -> None:
    """Import the libraries of a backend; DeviceError with what to install if that fails.

    For "auto" this is ONNX Runtime, the fallback when nothing else works, except on a board that has only
    TensorRT.
    """
    if name == "tensorrt":
        load_library()
    elif name != AUTO or find_spec("onnxruntime") or not installed_flavors():
        import_onnxruntime()


def _has_gpu() -> bool:
    try:
        find_gpu()
    except KernelError:
        return False
    return True
