"""The parts of tests/gpu_check.py, each run in a process of its own: ``gpu_parts.py PART OPTIONS.json``.

A part prints nothing and writes its result to the file that the options name; whatever it raises fails it
alone.  Devices: "cuda" is the real thing; "cpu-driver" is pycuda on a driver without a GPU
(kernels/cuda_driver_cpu.cpp), "cpu-emulation" the emulated GPU, and with both torch works on the CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import kernel_checks
from checkout import WORK
from cpu_driver import CUBIN, CpuDriver, build_driver
from emulated_gpu import EmulatedGpu, build_library
from gpu_reference import Reference, choose_portion, peaks, random_tokens, synchronize
from gpu_timing import time_kernels
from musc_edge.kernels.cubins import cubin_for
from musc_edge.kernels.errors import KernelError
from musc_edge.kernels.pycuda_gpu import PycudaGpu
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.cuda_scorer import CudaScorer
from musc_edge.runtime.store import HostStore
from musc_edge.tools.bench.harness import alternate
from places import ROOT, golden_folder

DEGREES = (1, 3, 5)


class NotRunError(Exception):
    """What a part needs is not there; the message says what."""


@dataclass(frozen=True)
class Options:
    """What gpu_check.py hands to a part."""

    device: str
    quick: bool
    pycuda: str
    bundle: str | None
    seconds: float
    out: str

    @property
    def torch_device(self) -> str:
        return "cuda" if self.device == "cuda" else "cpu"


@contextmanager
def open_device(options: Options) -> Iterator[GpuThread]:
    """The GPU, or what stands for it, with the kernels loaded."""
    if options.device == "cpu-emulation":
        library = build_library(WORK / "libmusc_cpu.so")
        with GpuThread(lambda: EmulatedGpu(library, memory=4 << 30)) as device:
            yield device
        return
    if options.pycuda:
        sys.path.insert(0, options.pycuda)
    if options.device == "cpu-driver":
        CpuDriver(build_driver(Path(options.pycuda), WORK)).set_up(memory=4 << 30)
    with GpuThread(PycudaGpu) as device:
        cubin = (lambda arch: CUBIN) if options.device == "cpu-driver" else compile_kernels
        device.run(lambda gpu: gpu.load(cubin(gpu.arch)))
        yield device


def compile_kernels(arch: str) -> bytes:
    """The product's own cubin; by nvcc as long as the product compiles none."""
    try:
        return cubin_for(arch, None)
    except KernelError:
        cubin = WORK / f"{arch}.cubin"  # of this run: gpu_check.py begins by removing it
        if not cubin.exists():
            command = ["nvcc", "-cubin", f"-arch={arch}", "-o", str(cubin), str(ROOT / "kernels/musc.cu")]
            subprocess.run(command, check=True)
        return cubin.read_bytes()


# ---- parts -----------------------------------------------------------------------------------------


def device(options: Options) -> dict[str, Any]:
    """Name and versions."""
    with open_device(options) as gpu_thread:
        facts = gpu_thread.run(lambda gpu: {"name": gpu.name, "arch": gpu.arch, "free": gpu.free_memory()})
    if options.device != "cpu-emulation":
        from pycuda import VERSION_TEXT, driver

        facts |= {
            "pycuda": VERSION_TEXT,
            "cuda": driver.get_version(),
            "supported": driver.get_driver_version(),
        }
    return facts


def kernels(options: Options) -> dict[str, Any]:
    """Each kernel against numpy."""
    with open_device(options) as gpu_thread:
        large = not options.quick
        return {"errors": gpu_thread.run(lambda gpu: kernel_checks.check_kernels(gpu, large=large))}


def scorer(options: Options) -> dict[str, Any]:
    """The scorer against the CPU's, and the same bits again and by every plan; the golden files."""
    sizes = [(2, 6, (3, 4), 24)] if options.quick else [(2, 40, (16, 16), 384), (1, 6, (37, 37), 1024)]
    errors = {}
    with open_device(options) as gpu_thread:
        for layers, images, grid, width in sizes:
            store = kernel_checks.make_lot(layers, images, grid, width)
            name = f"S={layers} N={images} P={grid[0] * grid[1]} C={width}"
            errors[name] = kernel_checks.check_scorer(gpu_thread, store, grid)
        errors |= kernel_checks.check_golden(gpu_thread, golden_folder())
    return {"errors": errors}


def small(options: Options) -> dict[str, Any]:
    """What compute-sanitizer watches: every kernel at small sizes, and a small lot."""
    with open_device(options) as gpu_thread:
        gpu_thread.run(lambda gpu: kernel_checks.check_kernels(gpu, large=False))
        store = kernel_checks.make_lot(2, 6, (3, 4), 24)
        return {"scorer": kernel_checks.check_scorer(gpu_thread, store, (3, 4))}


def limits(options: Options) -> dict[str, Any]:
    """The matrix peak and the copy peak, through torch."""
    require_torch(options)
    return peaks(options.torch_device, quick=options.quick)


def times(options: Options) -> dict[str, Any]:
    """Each kernel's time."""
    with open_device(options) as gpu_thread:
        return {"rows": gpu_thread.run(lambda gpu: time_kernels(gpu, quick=options.quick))}


def whole(options: Options) -> dict[str, Any]:
    """Mutual scoring of a lot, from tokens in host memory to scores there, in turn with the authors' form."""
    require_torch(options)
    images, grid, width, layers = (6, (3, 4), 24, 2) if options.quick else (200, (37, 37), 1024, 4)
    patches, where = grid[0] * grid[1], options.torch_device
    end = time.monotonic() + options.seconds
    tokens = random_tokens(where, layers, images, patches, width)
    store = HostStore(tokens, np.empty((images, 0), np.float32))
    with open_device(options) as gpu_thread:
        ours = CudaScorer(grid, DEGREES, device=gpu_thread)
        plan = kernel_checks.plan_from_host(ours, store)
        facts: dict[str, Any] = {"images": images, "patches": patches, "width": width, "layers": layers}
        facts |= {"degrees": DEGREES, "plan": str(plan.device), "references": {}, "difference": {}}
        for half in (False, True):
            reference = Reference(tokens, grid, where, half)
            name = "half" if half else "float"
            try:
                left = (end - time.monotonic()) / (1 if half else 2)
                facts["references"][name] = in_turn(ours, store, plan, reference, left)
                facts["difference"][name] = difference(gpu_thread, store, reference)
            except (RuntimeError, MemoryError) as error:  # torch's own, such as too little memory
                facts["references"][name] = {"error": str(error)[:500]}
        facts["resident"] = resident_seconds(ours, store)
    pairs = images * (images - 1) / 2 * layers * len(DEGREES)
    return facts | {"flop": pairs * 2.0 * patches**2 * width, "notes": ours.notes}


def in_turn(
    ours: CudaScorer, store: HostStore, plan: Any, reference: Reference, seconds: float
) -> dict[str, Any]:
    """Seconds of both, A B A B, each after a run that is not counted."""
    import torch

    layers, images = store.shape[:2]
    few = min(images, 4)
    first = seconds_of(lambda: reference.scores(range(1), DEGREES[:1], few))
    first = min(first, seconds_of(lambda: reference.scores(range(1), DEGREES[:1], few))) / few
    start = time.perf_counter()
    ours.score(store, plan)
    mine = time.perf_counter() - start
    portion = choose_portion(images, layers, DEGREES, first, (seconds - 3 * mine) / 3)
    synchronize(torch, reference.device)
    cases: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.score(store, plan),
        "authors": lambda: reference.scores(range(portion.layers), portion.degrees, portion.images),
    }
    samples = {s.name: s.seconds for s in alternate(cases, rounds=2, warm_up=0)}
    return {
        "ours": samples["ours"],
        "authors": [s * portion.scale for s in samples["authors"]],
        "measured": str(portion),
    }


def resident_seconds(ours: CudaScorer, store: HostStore) -> list[float]:
    """Seconds of ours with the tokens on the device already; none if there is no room for them."""
    plan = ours.plan(store.shape, 2, None)
    there = kernel_checks.put_on_device(ours, store, plan)
    return [seconds_of(lambda: ours.score(there, plan)) for _ in range(3)] if there else []


def difference(device: GpuThread, store: HostStore, reference: Reference) -> float:
    """The largest difference of the two forms, for a layer, a degree and some images."""
    few = min(8, store.shape[1])
    scorer = CudaScorer(reference.grid, DEGREES[1:2], device=device)
    layer = HostStore(store.tokens[:1], store.cls)
    mine = scorer.score(layer, scorer.plan(layer.shape, 2, None))[:few]
    return float(np.abs(mine - reference.scores(range(1), DEGREES[1:2], few)).max())


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tensorrt(options: Options) -> dict[str, Any]:
    """The bundle's probe through TensorRT, if there is one."""
    modules = [name for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings") if find_spec(name)]
    if not modules:
        raise NotRunError("no TensorRT module is installed")
    if options.bundle is None:
        raise NotRunError(f"{modules[0]} is there, but no bundle was given (--bundle)")
    command = [
        sys.executable,
        "-c",
        "from musc_edge.tools.export import main; raise SystemExit(main())",
        "verify",
    ]
    usage = subprocess.run([*command, "--help"], check=False, capture_output=True, text=True).stdout
    if "tensorrt" not in usage:
        raise NotRunError("this version has no TensorRT backend")
    command += [options.bundle, "--backend", "tensorrt"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"verify answered {done.returncode}: {done.stdout}{done.stderr}")
    return {"modules": modules, "printed": done.stdout}


def require_torch(options: Options) -> None:
    """NotRunError if there is no torch, or torch finds no GPU where there should be one."""
    if find_spec("torch") is None:
        raise NotRunError("torch is not installed")
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise NotRunError(f"torch {torch.__version__} finds no GPU")


PARTS = {part.__name__: part for part in (device, kernels, scorer, small, limits, times, whole, tensorrt)}


def main() -> int:
    name, path = sys.argv[1:]
    options = Options(**json.loads(Path(path).read_text()))
    try:
        result = {"status": "ok", "result": PARTS[name](options)}
    except NotRunError as why:
        result = {"status": "not run", "why": str(why)}
    Path(options.out).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
