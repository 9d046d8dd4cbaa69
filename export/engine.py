"""``musc-export engine``: build a TensorRT engine that gives the bundle's numbers on this device, or none.

The graph is built as it was exported and compared with the bundle's probe.  If the numbers differ, it is
built with unfused attention, and then in single precision as well; the first engine that passes is stored
with its proof.  An engine that TensorRT-RTX builds for other GPUs cannot be compared here: it is stored
without a proof, and the runtime refuses it until ``musc-export verify`` has passed on such a GPU.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from .._signatures import device_key
from ..kernels.driver import GpuModel, find_gpu
from ..kernels.errors import KernelError
from ..kernels.pycuda_gpu import import_driver
from ..runtime.errors import DeviceError, ParityError, device_errors, signature_errors
from ..runtime.types import Bundle, Progress, no_progress
from ..runtime.vit.engines import FORMAT, Engine, EngineInfo, graph_files
from ..runtime.vit.hashes import sha256
from ..runtime.vit.tensorrt_backend import TensorRtBackend
from ..runtime.vit.tensorrt_library import Library, load_library
from .engine_builder import AS_EXPORTED, FLOAT32, UNFUSED, BuildOptions, build_plan
from .engine_store import save_proof, store_engine, temporary_file, writable_folder, write_plan
from .messages import Say
from .parity import Parity
from .probe import Probe
from .verify import open_probe, require_parity


@dataclass(frozen=True)
class Target:
    """The library and the GPUs of a build; ``gpu`` is the one in this machine that can prove it, if any."""

    library: Library
    gpu: GpuModel | None
    compute_capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A stored engine: its file, its sidecar, and its parity, None if it is not proven yet."""

    path: Path
    info: EngineInfo
    parity: Parity | None


def choose_target(flavor: str | None, compute_capabilities: tuple[str, ...] = ()) -> Target:
    """Choose the library to build with and the GPUs to build for.

    ``flavor`` None means the installed one, TensorRT before TensorRT-RTX.  Without ``compute_capabilities``
    the engine is for the GPU in this machine.

    Raises
    ------
    DeviceError
        If TensorRT is not installed, or there is no GPU and TensorRT needs one, or no pycuda for the proof.
    """
    if compute_capabilities and flavor is None:
        flavor = "rtx"
    library = load_library(flavor)
    if compute_capabilities and library.flavor != "rtx":
        raise DeviceError(f"{library} builds for the GPU that is here alone. For others: --flavor rtx")
    try:
        gpu = find_gpu()
    except KernelError as error:
        if compute_capabilities:
            return Target(library, None, compute_capabilities)
        other = " Without a GPU, name those to build for, as in --compute-capability 8.6,8.9."
        raise DeviceError(
            f"{error} {library} builds on the device itself.{other if library.flavor == 'rtx' else ''}"
        ) from error
    targets = compute_capabilities or (gpu.compute_capability,)
    if gpu.compute_capability not in targets:
        return Target(library, None, targets)
    with device_errors():
        import_driver()  # the proof needs it, and building takes minutes
    return Target(library, gpu, targets)


def make_engine(
    bundle: Bundle,
    target: Target,
    max_batch: int,
    *,
    workspace: int | None = None,
    timing_cache: Path | None = None,
    say: Say = print,
    progress: Progress = no_progress,
) -> Built:
    """Build, prove and store the engine of ``bundle`` for ``target``.

    Raises
    ------
    BundleError, DeviceError
        If TensorRT cannot parse the graph, or build or run the engine, or this device's key cannot be used.
    ParityError
        If the engine does not give the bundle's numbers in any variant.
    OutputError
        If it cannot be written.
    """
    probe, folder = open_probe(bundle), writable_folder(bundle)
    with signature_errors():
        device_key()  # one that cannot be used is said before minutes are spent on building
    # TensorRT builds for the GPU that is there, and cannot be asked for another.
    named = target.compute_capabilities if target.library.flavor == "rtx" else ()
    options = BuildOptions((1, max_batch, max_batch), named, workspace, timing_cache)
    reasons = []
    for variant in _variants(bundle, target):
        say(f"building with {target.library} for {_names(target)}, {variant}")
        try:
            return _attempt(bundle, target, probe, folder, options, variant, progress, say)
        except ParityError as error:
            reasons.append(f"{variant}: {error}")
            say(f"  refused: {error}")
    raise ParityError(f"no engine gives the numbers of {bundle.root}:\n  " + "\n  ".join(reasons))


def _attempt(
    bundle: Bundle,
    target: Target,
    probe: Probe,
    folder: Path,
    options: BuildOptions,
    variant: str,
    progress: Progress,
    say: Say,
) -> Built:
    """Build one variant, and store it if it passes the gate or cannot be checked here."""
    with temporary_file(folder / "engine.plan") as partial:
        start = time.perf_counter()
        write_plan(partial, build_plan(target.library, bundle.model_path, options, variant, progress, say))
        info = _describe(bundle, target, options, variant, time.perf_counter() - start, partial)
        parity = _prove(bundle, target, probe, Engine(partial, info))
        path = store_engine(Engine(partial, info))
    if target.gpu and parity:
        save_proof(bundle, info, target.gpu, parity.as_dict())
    return Built(path, info, parity)


def _prove(bundle: Bundle, target: Target, probe: Probe, engine: Engine) -> Parity | None:
    """Check the engine at the gate; None if no GPU here can run it, ParityError if it does not pass."""
    if target.gpu is None:
        return None
    with TensorRtBackend(bundle, engine=engine, proven=False) as session:
        return require_parity(session, bundle, probe)


def _variants(bundle: Bundle, target: Target) -> tuple[str, ...]:
    """Return the variants of the graph to build, in order, until one passes the gate."""
    # An engine that cannot be checked here is built as exported: whether another is needed is not known.
    if target.gpu is None:
        return (AS_EXPORTED,)
    return (AS_EXPORTED, UNFUSED) if bundle.manifest.precision == "fp32" else (AS_EXPORTED, UNFUSED, FLOAT32)


def _names(target: Target) -> str:
    return str(target.gpu) if target.gpu else f"compute capability {', '.join(target.compute_capabilities)}"


def _describe(
    bundle: Bundle, target: Target, options: BuildOptions, variant: str, seconds: float, plan: Path
) -> EngineInfo:
    least, usual, largest = options.batches
    return EngineInfo(
        format=FORMAT,
        graph=graph_files(bundle),
        flavor=target.library.flavor,
        version=target.library.version,
        gpu=None if target.library.flavor == "rtx" else target.gpu,
        compute_capabilities=target.compute_capabilities,
        min_batch=least,
        opt_batch=usual,
        max_batch=largest,
        variant=variant,
        build_seconds=round(seconds, 1),
        plan_bytes=plan.stat().st_size,
        plan_sha256=sha256(plan),
    )
