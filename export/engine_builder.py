"""Build a TensorRT engine from a bundle's graph, with TensorRT 10.3 to 11 or TensorRT-RTX.

The graph alone decides about precision: the network is strongly typed and TF32 is off.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._files import read_regular, write_whole
from ..runtime.errors import BundleError, DeviceError, OutputError
from ..runtime.parallel import result_of
from ..runtime.types import Progress, no_progress
from ..runtime.vit.tensorrt_api import IBuilder, IBuilderConfig, INetworkDefinition, IOnnxParser
from ..runtime.vit.tensorrt_library import Library, make_log, reasons
from .messages import Say
from .network import break_attention, raise_to_float32

AS_EXPORTED = "as exported"
UNFUSED = "attention not fused"
FLOAT32 = "attention not fused, in float32"
_LARGEST_TIMINGS = 1 << 28
"""Bytes: limit of a timing cache, which usually has a few million."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    ``batches`` are the least, the usual and the largest number of images.  ``compute_capabilities`` are those
    that TensorRT-RTX builds for; TensorRT builds for the GPU in the machine.  ``workspace`` is in bytes, None
    for TensorRT's own choice; ``timing_cache`` is a file that carries measurements from build to build.
    """

    batches: tuple[int, int, int]
    compute_capabilities: tuple[str, ...] = ()
    workspace: int | None = None
    timing_cache: Path | None = None


def build_plan(
    library: Library,
    model: Path,
    options: BuildOptions,
    variant: str,
    progress: Progress = no_progress,
    say: Say = print,
) -> Any:
    """Build ``model`` into a plan, a buffer, in a thread so that ctrl-C stops it at TensorRT's next step.

    Raises
    ------
    BundleError
        If TensorRT cannot parse the graph.
    DeviceError
        If it cannot build an engine from it.
    """
    monitor = _make_monitor(library.module, variant, progress)
    with ThreadPoolExecutor(1, thread_name_prefix="engine builder") as pool:
        building = pool.submit(_build, library, model, options, variant, monitor)
        try:
            plan = result_of(building)
        except BaseException:
            monitor.cancelled = True
            if not building.done():
                say("stopping at TensorRT's next step")
            raise
    progress(variant, 100, 100, "%")
    return plan


def _build(library: Library, model: Path, options: BuildOptions, variant: str, monitor: Any) -> Any:
    trt, log = library.module, make_log(library.module)
    builder: IBuilder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser: IOnnxParser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BundleError(f"{library} cannot parse {model}: {reasons(found or log.errors)}.")
    kept = _change(library, network, variant)
    config = _configure(library, builder, network, options)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    kept.clear()  # the weights had to live until here
    if plan is None:
        raise DeviceError(f"{library} cannot build {model} ({variant}): {reasons(log.errors)}.")
    _save_timings(config, options.timing_cache)
    return plan


def _change(library: Library, network: INetworkDefinition, variant: str) -> list[Any]:
    """Turn the network into a ``variant``; returns the objects that must live as long as it."""
    kept: list[Any] = []
    if variant == FLOAT32:
        kept += raise_to_float32(library.module, network)
    if variant != AS_EXPORTED and not break_attention(library.module, network):
        raise BundleError(f"the graph has no softmax, so {library} cannot be kept from fusing its attention.")
    return kept


def _configure(
    library: Library, builder: IBuilder, network: INetworkDefinition, options: BuildOptions
) -> IBuilderConfig:
    trt = library.module
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    pixels = network.get_input(0)
    image = tuple(pixels.shape)[1:]
    profile.set_shape(pixels.name, *((batch, *image) for batch in options.batches))
    config.add_optimization_profile(profile)
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.timing_cache is not None:
        _load_timings(library, config, options.timing_cache)
    if options.compute_capabilities:
        _set_targets(library, config, options.compute_capabilities)
    return config


def _set_targets(library: Library, config: IBuilderConfig, compute_capabilities: tuple[str, ...]) -> None:
    known = library.module.ComputeCapability.__members__
    names = [f"SM{target.replace('.', '')}" for target in compute_capabilities]
    unknown = [t for t, name in zip(compute_capabilities, names, strict=True) if name not in known]
    if unknown:
        possible = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in known if n.startswith("SM"))
        raise DeviceError(
            f"{library} builds no engine for compute capability {', '.join(unknown)}; expected of "
            f"{possible}. Use --flavor tensorrt on the device itself."
        )
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(known[name], index)


# ---- timing cache ----------------------------------------------------------------------------


def _load_timings(library: Library, config: IBuilderConfig, path: Path) -> None:
    if library.flavor == "rtx":
        raise DeviceError(f"{library} measures nothing while it builds: leave out --timing-cache.")
    try:
        stored = read_regular(path, _LARGEST_TIMINGS)
    except FileNotFoundError:
        stored = b""
    except OSError as error:
        raise DeviceError(
            f"the timing cache {path} cannot be read: {error.strerror}. Remove it, or give another file."
        ) from error
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, False):
        raise DeviceError(
            f"{path} is not a timing cache of {library} and this GPU. Remove it, or give another file."
        )


def _save_timings(config: IBuilderConfig, path: Path | None) -> None:
    cache = config.get_timing_cache() if path else None
    if path and cache is not None:
        try:
            write_whole(path, memoryview(cache.serialize()).cast("B"))
        except OSError as error:
            raise OutputError(f"the timing cache cannot be written to {path}: {error.strerror}.") from error


# ---- progress --------------------------------------------------------------------------------


def _make_monitor(trt: Any, stage: str, progress: Progress) -> Any:
    """Make a monitor that sums TensorRT's phases into one share; setting ``cancelled`` stops the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its base is known only where TensorRT is
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = False
            self._shares = NestedShares()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._shares.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(stage, 100 * self._shares.step(phase_name, step), 100, "%")
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


class NestedShares:
    """Computes the share of the whole that is done, from steps of phases within steps of other phases.

    Several of TensorRT's threads call it without a lock: each method reads and writes whole entries.
    """

    def __init__(self) -> None:
        self._phases: dict[str, tuple[float, float]] = {}  # where the current step begins, what a step is
        self._furthest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of ``steps`` within the current step of its parent."""
        start, step = self._phases.get(parent or "", (0.0, 1.0))
        self._phases[name] = start, step / max(steps, 1)

    def step(self, name: str, index: int) -> float:
        """Count step ``index`` of a phase as done; returns the share of the whole, which never falls."""
        start, step = self._phases.get(name, (0.0, 0.0))
        self._phases[name] = start + step, step
        self._furthest = max(self._furthest, min(start + step, 1.0))
        return self._furthest
