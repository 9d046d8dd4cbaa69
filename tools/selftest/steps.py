"""The steps of the self-test, each run in a process of its own: ``python -m ...steps STEP OPTIONS.json OUT``.

A step returns what it found; what is wrong is an error, and what its machine lacks a NotHereError.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...export.probe import probe_files
from ...export.verify import verify
from ...runtime import scorers
from ...runtime.errors import DeviceError
from ...runtime.gpu.row import DeviceRow
from ...runtime.parallel import cores
from ...runtime.pipeline import score_lot
from ...runtime.scoring.image_pairs import load_filter
from ...runtime.scoring.method import Method
from ...runtime.scoring.plan import HostNeeds
from ...runtime.scoring.row import RowScorer, WholeBank
from ...runtime.settings import Resources
from ...runtime.store.features import HostStore
from ...runtime.types import FloatArray, LotImage
from ...runtime.vit.bundle import open_bundle
from ...runtime.vit.choose import enter_backend
from ...runtime.vit.extract import seconds_per_image
from .kernel_checks import check_kernels, require

CPU_ERROR, GPU_ERROR, SCORE_ERROR = 1e-5, 1e-4, 1e-3
"""What rounding may change: a patch score on the CPU, one by half precision, a raw score from files on."""


class NotHereError(Exception):
    """What a step needs is not on this machine; the message says what."""


@dataclass(frozen=True)
class Options:
    """What a step is given: a bundle, the backends whose libraries work here, and whether sizes are small."""

    bundle: str
    backends: tuple[str, ...]
    small: bool

    @property
    def root(self) -> Path:
        """The bundle's folder; NotHereError without one."""
        if not self.bundle:
            raise NotHereError("no bundle was given (-b BUNDLE)")
        return Path(self.bundle)


def bundle(options: Options) -> dict[str, Any]:
    """Hash every file of the bundle."""
    opened = open_bundle(options.root, whole=True)
    m = opened.manifest
    size = "x".join(map(str, m.preprocess.size))
    return {"backbone": m.backbone, "precision": m.precision, "pixels": size, "sha256": opened.digest}


def vit(name: str, options: Options) -> dict[str, Any]:
    """Compare a backend with the source model's numbers on the probe images, and time it."""
    if name not in options.backends:
        raise NotHereError(f"backend {name} cannot be used here (musc-edge doctor says what is missing)")
    parity = verify(str(options.root), name)
    opened = open_bundle(options.root)
    with ExitStack() as stack:
        backend, _ = enter_backend(stack, name, opened, cores(), 8)
        seconds = seconds_per_image(backend, opened, 8)
        return {"version": backend.version, "ms_an_image": 1e3 * seconds, "parity": parity.as_dict()}


def gpu(options: Options) -> dict[str, Any]:
    """Run every kernel against numpy in double precision."""
    notes: list[str] = []
    with _gpu(options, notes) as device:
        errors = device.run(lambda found: check_kernels(found, large=not options.small))
        arch, name = device.run(lambda found: (found.arch, found.name))
    worst = max(errors, key=lambda case: errors[case])
    return {
        "gpu": name,
        "arch": arch,
        "notes": notes,
        "cases": len(errors),
        "largest": {worst: errors[worst]},
    }


def compare(name: str, options: Options) -> dict[str, Any]:
    """Score a lot of random tokens by a scorer and by numpy, and time it."""
    layers, images, grid, width = (1, 6, (3, 4), 24) if options.small else (1, 24, (16, 16), 384)
    store = HostStore(_tokens(layers, images, grid, width), np.empty((images, 0), np.float32))
    found, version, seconds = _scores(name, store, grid)
    expected, _, _ = _scores("numpy", store, grid)
    error, limit = float(np.abs(found - expected).max()), GPU_ERROR if name == "cuda" else CPU_ERROR
    require(error <= limit, f"a patch score is {error:.1e} from numpy's: expected at most {limit:g}")
    pairs = images * (images - 1) // 2 * layers
    return {"version": version, "largest_difference": error, "ms_a_pair": 1e3 * seconds / pairs}


def single(options: Options) -> dict[str, Any]:
    """Score single images against a bank on the GPU and on the CPU."""
    layers, images, grid, width = (2, 6, (3, 4), 24) if options.small else (2, 13, (16, 16), 384)
    tokens, method = _tokens(layers, images + 1, grid, width).astype(np.float32), Method(grid)
    bank, image = tokens[:, :-1], list(tokens[:, -1])
    on_host = WholeBank.of(method, load_filter("numpy"), list(bank), cores())
    with RowScorer(on_host, cores()) as row:
        expected = row.score(image)
    with (
        _gpu(options, []) as device,
        DeviceRow(method, device, bank.shape, lambda layer: bank[layer]) as there,
    ):
        found = there.score(image)
        start = time.perf_counter()
        there.score(image)
        seconds = time.perf_counter() - start
    error = float(np.abs(found - expected).max())
    require(
        error <= GPU_ERROR, f"a patch score is {error:.1e} from the CPU's: expected at most {GPU_ERROR:g}"
    )
    return {"largest_difference": error, "ms_an_image": 1e3 * seconds}


def lot(options: Options) -> dict[str, Any]:
    """Score the probe images from their files, by the best of this machine and by CPU and numpy."""
    with probe_files() as files:
        images = [LotImage(path.name, path) for path in files]
        best = score_lot(images, options.root)
        plain = score_lot(images, options.root, resources=Resources(backend="cpu", scorer="numpy"))
    error = float(np.abs(best.raw_scores - plain.raw_scores).max())
    require(error <= SCORE_ERROR, f"a raw score is {error:.1e} from that of CPU and numpy")
    return {"computed_by": list(best.run.computed_by), "largest_difference": error}


STEPS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "bundle": bundle,
    "ViT by cpu": lambda options: vit("cpu", options),
    "ViT by cuda": lambda options: vit("cuda", options),
    "ViT by tensorrt": lambda options: vit("tensorrt", options),
    "GPU kernels": gpu,
    "scorer numba": lambda options: compare("numba", options),
    "scorer cuda": lambda options: compare("cuda", options),
    "single images by cuda": single,
    "lot": lot,
}


def _gpu(options: Options, notes: list[str]) -> Any:
    """The GPU; NotHereError if pycuda finds none."""
    try:
        scorers.import_scorer("cuda")
    except DeviceError as error:
        raise NotHereError(str(error)) from error
    return scorers.open_gpu(open_bundle(options.root) if options.bundle else None, notes)


def _tokens(layers: int, images: int, grid: tuple[int, int], width: int) -> FloatArray:
    """Tokens (S,N,P,C) in half precision: a common image plus noise, as those of a lot."""
    draw, patches = np.random.default_rng(0), grid[0] * grid[1]
    common = 1 + draw.standard_normal((layers, 1, patches, width), np.float32)
    noise = 0.3 * draw.standard_normal((layers, images, patches, width), np.float32)
    return (common + noise).astype(np.float16)


def _scores(name: str, store: HostStore, grid: tuple[int, int]) -> tuple[FloatArray, str, float]:
    """Scores (N,P) by a scorer, its version, and the seconds of a second run."""
    try:
        scorers.import_scorer(name)
    except DeviceError as error:
        raise NotHereError(str(error)) from error
    with scorers.open_scorer(Method(grid), Resources(scorer=name)) as scorer:
        plan = scorer.plan(store.shape, store.dtype.itemsize, HostNeeds(threads=cores()))
        scores = scorer.score(store, plan)
        start = time.perf_counter()
        scorer.score(store, plan)
        return scores, scorer.version, time.perf_counter() - start


def run_step(name: str, options: Options) -> dict[str, Any]:
    """Run a step: its status "ok" or "not here", and what it found."""
    try:
        return {"status": "ok", "found": STEPS[name](options)}
    except NotHereError as why:
        return {"status": "not here", "why": str(why)}


def main() -> None:
    """Run the step that the command line names, and write what came of it."""
    name, given, out = sys.argv[1:]
    content = json.loads(given)
    options = Options(content["bundle"], tuple(content["backends"]), content["small"])
    Path(out).write_text(json.dumps(run_step(name, options)), encoding="utf-8")


if __name__ == "__main__":
    main()
