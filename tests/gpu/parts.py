"""The parts of tests/gpu/gpu_check.py, each run in a process of its own: ``parts.py PART OPTIONS.json``.

A part prints nothing and writes its result to the file that the options name; whatever it raises fails it
alone.  Devices: "cuda" is the real thing; "cpu-driver" is pycuda on a driver without a GPU
(support/cuda/cuda_driver_cpu.cpp), "cpu-emulation" the emulated GPU, and with both torch works on the CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpu.checkout import WORK
from gpu.cpu_driver import CUBIN, CpuDriver, build_driver
from gpu.reference import peaks
from gpu.timing import comparing, time_kernels
from gpu.whole import measure_whole
from musc_edge.kernels import cubins
from musc_edge.kernels.cuda_source import HOPPER, arch_number, source_digest
from musc_edge.kernels.precisions import INT8
from musc_edge.kernels.pycuda_gpu import PycudaGpu
from musc_edge.kernels.thread import GpuThread
from musc_edge.tools.demo import read_scores
from musc_edge.tools.selftest import kernel_checks
from support import scorer_checks
from support.emulated_gpu import EmulatedGpu, build_library
from support.places import ROOT, golden_folder


class NotRunError(Exception):
    """What a part needs is not there; the message says what."""


@dataclass(frozen=True)
class Options:
    """What gpu_check.py hands to a part."""

    device: str
    quick: bool
    sites: list[str]
    bundle: str | None
    seconds: float
    out: str

    @property
    def torch_device(self) -> str:
        return "cuda" if self.device == "cuda" else "cpu"


@contextmanager
def open_device(options: Options) -> Iterator[GpuThread]:
    """The GPU, or what stands for it, with the kernels loaded."""
    source = Path(cubins.__file__).parent
    if options.device == "cpu-emulation":
        library = WORK / f"libmusc_cpu-{source_digest()[:16]}.so"
        if not library.exists():
            WORK.mkdir(parents=True, exist_ok=True)
            build_library(library, kernels=source)
        with GpuThread(lambda: EmulatedGpu(library, memory=4 << 30)) as device:
            yield device
        return
    sys.path[:0] = options.sites
    if options.device == "cpu-driver":
        CpuDriver(build_driver(Path(options.sites[0]), WORK, source)).set_up(memory=4 << 30)
    with GpuThread(PycudaGpu) as device:
        emulated = options.device == "cpu-driver"
        if emulated:
            device.run(lambda gpu: gpu.load(CUBIN, "sm_00"))
        else:
            load_for(device, device.run(lambda gpu: gpu.arch))
        yield device


def load_for(device: GpuThread, arch: str) -> None:
    """Load the kernels as they are compiled for ``arch``."""
    found = cubins.find_cubin(arch)
    device.run(lambda gpu: gpu.load(found.code, found.arch))


REFUSED = "builds no engine for compute capability"
"""Words of a library of TensorRT that does not know this kind of GPU (export/engine_builder.py)."""

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
    """Each kernel against numpy; on Hopper also those that other GPUs run, as compiled for sm_90."""
    with open_device(options) as gpu_thread:
        large = not options.quick

        def checked() -> dict[str, float]:
            return gpu_thread.run(lambda gpu: kernel_checks.check_kernels(gpu, large=large))

        errors = checked()
        if gpu_thread.run(lambda gpu: gpu.compiled_for) == HOPPER:
            load_for(gpu_thread, "sm_90")
            errors |= {f"{name} of sm_90": error for name, error in checked().items()}
        return {"errors": errors}


def scorer(options: Options) -> dict[str, Any]:
    """The scorer against the CPU's, and the same bits again and by every plan; the golden files."""
    sizes = [(2, 6, (3, 4), 24)] if options.quick else [(2, 40, (16, 16), 384), (1, 6, (37, 37), 1024)]
    errors = {}
    with open_device(options) as gpu_thread:
        for layers, images, grid, width in sizes:
            store = scorer_checks.make_lot(layers, images, grid, width)
            name = f"S={layers} N={images} P={grid[0] * grid[1]} C={width}"
            errors[name] = scorer_checks.check_scorer(gpu_thread, store, grid)
            errors[f"{name} int8"] = scorer_checks.check_scorer(gpu_thread, store, grid, INT8)
        errors |= scorer_checks.check_golden(gpu_thread, golden_folder())
    return {"errors": errors}


def small(options: Options) -> dict[str, Any]:
    """What compute-sanitizer watches: every kernel at small sizes, and a small lot."""
    with open_device(options) as gpu_thread:
        gpu_thread.run(lambda gpu: kernel_checks.check_kernels(gpu, large=False))
        store = scorer_checks.make_lot(2, 6, (3, 4), 24)
        found = {"int8": scorer_checks.check_scorer(gpu_thread, store, (3, 4), INT8)}
        return {"scorer": scorer_checks.check_scorer(gpu_thread, store, (3, 4)), **found}


def limits(options: Options) -> dict[str, Any]:
    """The matrix peak and the copy peak, through torch."""
    require_torch(options)
    return peaks(options.torch_device, quick=options.quick)


def times(options: Options) -> dict[str, Any]:
    """Each kernel's time."""
    with open_device(options) as gpu_thread:
        rows = gpu_thread.run(lambda gpu: time_kernels(gpu, quick=options.quick))
        if gpu_thread.run(lambda gpu: gpu.compiled_for) == HOPPER:
            load_for(gpu_thread, f"sm_{arch_number(HOPPER)}")  # products of single warps
            compared = gpu_thread.run(lambda gpu: time_kernels(gpu, quick=options.quick, cases=(comparing,)))
            rows += [row | {"kernel": f"{row['kernel']}, of sm_90"} for row in compared]
        return {"rows": rows}


def whole(options: Options) -> dict[str, Any]:
    """Mutual scoring of a lot, in turn with the authors' form."""
    require_torch(options)
    with open_device(options) as gpu_thread:
        return measure_whole(gpu_thread, options.torch_device, options.seconds, quick=options.quick)


def tensorrt(options: Options) -> dict[str, Any]:
    """An engine of the bundle for this GPU: built, proven, and the ViT's time on it."""
    modules = [name for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings") if find_spec(name)]
    if not modules:
        raise NotRunError("no TensorRT module is installed")
    bundle = require_bundle(options, modules[0])
    try:
        built = run(options, "export", "engine", bundle)
    except RuntimeError as error:
        if REFUSED in str(error):  # TensorRT-RTX is not for every GPU
            raise NotRunError(str(error)) from None
        raise
    return {"modules": modules, "built": built, **run_vit(options, bundle, "tensorrt")}


def onnx_cuda(options: Options) -> dict[str, Any]:
    """The bundle's ViT by ONNX Runtime on CUDA: its numbers and its time."""
    if find_spec("onnxruntime") is None:
        raise NotRunError("ONNX Runtime is not installed")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotRunError("this ONNX Runtime is not the one for GPUs (onnxruntime-gpu)")
    return run_vit(options, require_bundle(options, "onnxruntime-gpu"), "cuda")


def choices(options: Options) -> dict[str, Any]:
    """What the command line offers, by the GPU's scorer and by the CPU's best: the same scores."""
    bundle = require_bundle(options, options.device)
    if options.device != "cuda":
        raise NotRunError("commands find no emulated GPU")
    with tempfile.TemporaryDirectory() as folder:
        lot, on_cpu = write_crops(Path(folder) / "lot", 10), "numba" if find_spec("numba") else "numpy"
        changes = {}
        for choice in CHOICES:
            scores = []
            for scorer, chosen in (("cuda", choice), (on_cpu, without_precision(choice))):
                out = Path(folder) / scorer
                scores.append(raw_scores(options, bundle, lot, out, "--scorer", scorer, *chosen))
            changes[" ".join(choice) or "default"] = largest_change(*scores)
        changes["reference and check"] = compare_checks(options, bundle, lot, Path(folder), on_cpu)
    for what, change in changes.items():
        limit = 5e-3 if "int8" in what else 1e-3
        if not change < limit:
            raise AssertionError(f"{what}: raw scores are {change:.1e} from {on_cpu}'s, of {changes}")
    return {"errors": changes}


CHOICES = (
    (),
    ("--method", "paper"),
    ("--window", "3"),
    ("--window", "3", "--burn-out", "--mask-background", "auto"),
    ("--precision", "int8"),
    ("--precision", "int8", "--window", "3"),
    ("--roi", "40,30,100,120"),
    ("--burn-out", "--copies", "apart"),
    ("--group-size", "5"),
    ("--tiles", "2x2"),
    ("--tiles", "2x2", "--tiles-free", "--overlap", "0.25"),
    ("--device-memory", "60M"),
)
"""Options of ``infer`` that lead through other kernels or another order of work."""


def without_precision(choice: tuple[str, ...]) -> tuple[str, ...]:
    """Options for a scorer of the CPU, which compares in float32 alone."""
    return choice[2:] if choice[:1] == ("--precision",) else choice


def write_crops(folder: Path, count: int) -> str:
    """Crops of the probe's photographs, which resemble each other as images of a lot do."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    sources = [Image.open(path) for path in sorted((ROOT / "export/probe_images").glob("brick_*.jpg"))]
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = draw.integers(0, min(source.size) // 8, 2)
        size = min(source.size) * 7 // 8
        source.crop((left, top, left + size, top + size)).resize((256, 256)).save(folder / f"{number:02}.png")
    return str(folder)


def compare_checks(options: Options, bundle: str, lot: str, folder: Path, on_cpu: str) -> float:
    """How much the scores of images that are checked change, if GPU or CPU make the reference and check."""
    scores = []
    for scorer in ("cuda", on_cpu):
        kept, out = folder / f"{scorer}.ref", folder / f"{scorer}.checks"
        run(options, "edge", "reference", lot, "-b", bundle, "-o", str(kept), "--scorer", scorer)
        command = ("check", lot, "--reference", str(kept), "-b", bundle, "-o", str(out), "--scorer", scorer)
        run(options, "edge", *command)
        checked = json.loads((out / "checks.json").read_text())["images"]
        scores.append({image["image"]: image["raw_score"] for image in checked})
    return largest_change(*scores)


def raw_scores(options: Options, bundle: str, lot: str, out: Path, *choice: str) -> dict[str, float]:
    """Score a lot into ``out``: the raw score of each image."""
    run(options, "edge", "infer", lot, "-b", bundle, "-o", str(out), "--overwrite", *choice)
    return read_scores(out / "scores.csv", "raw_score")


def largest_change(some: dict[str, float], others: dict[str, float]) -> float:
    """The largest difference of an image's score."""
    return max(abs(some[name] - score) for name, score in others.items())


def require_bundle(options: Options, what: str) -> str:
    """The bundle that was given; NotRunError if none was."""
    if options.bundle is None:
        raise NotRunError(f"{what} is there, but no bundle was given (--bundle)")
    return options.bundle


def run_vit(options: Options, bundle: str, backend: str) -> dict[str, Any]:
    """A backend against the probe, its time, and a lot whose tokens it leaves where the kernels read them."""
    printed = [
        run(options, "export", "verify", bundle, "--backend", backend),
        run(options, "bench.cli", "backbone", "-b", bundle, "--backend", backend),
    ]
    return {"printed": printed, "direct": compare_paths(options, bundle, backend)}


def compare_paths(options: Options, bundle: str, backend: str) -> dict[str, float]:
    """Largest difference of a raw score between tokens that stay on the GPU and tokens on the host."""
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for scorer in ("cuda", "numpy"):
            out, lot = Path(folder) / scorer, str(ROOT / "export" / "probe_images")
            choice = ("--backend", backend, "--scorer", scorer)
            scores[scorer] = raw_scores(options, bundle, lot, out, *choice)
        plan = json.loads((Path(folder) / "cuda" / "lot.json").read_text())["plan"]["device"]
    if not plan["holds_tokens"]:
        raise AssertionError(f"the tokens did not stay on the GPU: {plan}")
    difference = largest_change(scores["cuda"], scores["numpy"])
    if not difference < 1e-3:
        raise AssertionError(f"tokens that stayed on the GPU score {difference:.1e} from those of the host")
    return {"raw_score_max_change": difference}


def run(options: Options, tool: str, *arguments: str) -> str:
    """What a command of musc-edge prints; RuntimeError if it fails."""
    code = f"from musc_edge.tools.{tool} import main; raise SystemExit(main())"
    path = os.pathsep.join(filter(None, (*options.sites, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} answered {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def require_torch(options: Options) -> None:
    """NotRunError if there is no torch, or torch finds no GPU where there should be one."""
    if find_spec("torch") is None:
        raise NotRunError("torch is not installed")
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise NotRunError(f"torch {torch.__version__} finds no GPU")


PARTS = {
    part.__name__: part
    for part in (device, kernels, scorer, small, limits, times, whole, tensorrt, onnx_cuda, choices)
}


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
