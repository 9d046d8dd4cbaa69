"""A lot of images in, defect scores out: the paper's method from top to bottom.

1. list, decode and resize the images                     lot.py, survey.py, images.py
2. ViT: patch tokens of a few layers, CLS embedding       features.py: backends.py -> store.py
3. LNAMD: describe each patch by its neighborhood         aggregate.py
4. MSM: score each patch by the other images' patches     mutual.py, judges.py
5. anomaly map in pixels, its maximum is the raw score    anomaly_map.py
6. RsCIN: rescore over images with similar CLS            rescore.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from .._version import __version__
from .anomaly_map import raw_scores
from .backends import enter_backend
from .bundle import open_bundle
from .cautions import cautions
from .checkpoint import Checkpoint
from .errors import LotError
from .features import BATCH, allocate, extract, store_shape
from .forecast import Forecast, forecast
from .interval import smallest_lot
from .judges import choose
from .lot import list_lot
from .lot_result import LotResult
from .memory import default_budget, process_memory, release_memory
from .method import Method
from .parallel import cores
from .rescore import in_distance_units, rescore
from .rows import require_room
from .scorers import MutualScorer, open_scorer
from .survey import ReadOptions, Survey, survey_lot
from .timing import StageTimer
from .types import (
    Bundle,
    LotImage,
    Plan,
    Progress,
    ScoreSettings,
    SkippedImage,
    no_progress,
)

_DEFAULTS = ScoreSettings()
_READING = ReadOptions()
DECODED = 14
"""Bytes for a pixel of an image while it is decoded; those with alpha or 16 bits take most."""

_LEFT_BY_VIT = 24_000_000
"""Bytes that stay when a ViT is closed: ONNX Runtime's own, and what the allocator cannot give back."""


def score_lot(
    lot: str | os.PathLike[str] | Sequence[LotImage],
    bundle: str | os.PathLike[str] | Bundle,
    settings: ScoreSettings = _DEFAULTS,
    *,
    reading: ReadOptions = _READING,
    batch: int = BATCH,
    threads: int | None = None,
    backend: str = "auto",
    scorer: str = "auto",
    memory_budget: int | None = None,
    device_memory: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    keep: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
    announce: Callable[[Forecast], None] = lambda forecast: None,
    timer: StageTimer | None = None,
) -> LotResult:
    """Score every image of a lot by the others.

    Parameters
    ----------
    lot : folder of images, or the images themselves.
    bundle : bundle folder, or an opened bundle.
    settings : degrees, interval, neighbors and group size of the method.
    reading : bit depth and largest size of the image files.
    batch : images per run of the ViT.
    threads : threads that decode and compare images, and that the ViT uses; None for all cores.
    backend : what runs the ViT: "tensorrt", "cuda" or "cpu", or "auto" for the first that works here.
    scorer : "cuda", "numba" or "numpy", or "auto" for the first of these that works here.
    memory_budget : bytes for the whole process; None for what it holds already and half of what is free.
    device_memory : bytes that the scorer may use of a GPU; None for what is free.
    scratch : folder for what does not fit into the budget; None for the system's temporary folder.
    keep : folder in which finished work is kept, and from which that of an interrupted run is taken up.
    progress : called with the stage, the work done, the work in all, and its unit.
    announce : called with the forecast before the work begins.
    timer : records when each stage and the work within it ran.

    Returns
    -------
    LotResult

    Raises
    ------
    LotError
        If the folder has no images, fewer can be read than the interval needs, the budget is too small, or a
        setting is not usable.
    BundleError, DeviceError
        If the bundle, the backend or the scorer cannot be used.
    OutputError
        If a scratch file or kept work cannot be written.
    """
    if batch < 1 or (threads is not None and threads < 1) or min(settings.neighbors, default=0) < 1:
        raise LotError(
            f"batch {batch}, threads {threads} and neighbors {settings.neighbors}: expected 1 or more."
        )
    timer = timer or StageTimer()
    threads = threads or cores()
    scratch_folder = Path(scratch) if scratch else None
    with timer.stage("survey"):
        images = list_lot(lot) if isinstance(lot, str | os.PathLike) else tuple(lot)
        survey = survey_lot(images, reading, threads, progress)
        _require_enough(len(survey.images), survey.skipped, settings)
    with ExitStack() as stack:
        with timer.stage("open"):
            opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
            grid, spec = opened.manifest.grid, opened.manifest.preprocess
            method = Method(grid, settings.degrees, settings.interval, settings.group_size)
            scores_by = stack.enter_context(
                open_scorer(
                    scorer, method, scratch=scratch_folder,
                    device_memory=device_memory, bundle_root=opened.root,
                )
            )  # fmt: skip
            scores_by.judges(len(survey.images))
        program = process_memory()
        with ExitStack() as vit:
            with timer.stage("load ViT"):
                runs_vit, passed_over = enter_backend(vit, backend, opened, threads, batch)
                vit_version = runs_vit.version
            with timer.stage("plan"):
                kept = None
                if keep:
                    kept = _open_kept(
                        Path(keep), survey, opened, vit_version, method, scores_by, batch, threads
                    )
                    stack.callback(kept.close)
                shape = store_shape(len(survey.images), opened)
                plan = plan_lot(
                    shape, opened, scores_by, memory_budget, program, batch, threads,
                    largest_image=max(h.width * h.height for h in survey.headers.values()), keep=bool(kept),
                )  # fmt: skip
                announce(forecast(scores_by, shape, plan, vit=f"{runs_vit.name} ({vit_version})"))
                require_room(Path(keep or scratch or tempfile.gettempdir()), plan.disk_bytes)
                store = allocate(
                    shape, opened, plan, scores_by, scratch_folder, kept, fills_device=runs_vit.fills_device
                )
            read, failed = extract(survey, runs_vit, spec, store, batch, threads, timer, progress, kept)
            with timer.stage("unload ViT"):
                vit.close()
                release_memory()
        skipped = (*survey.skipped, *failed)
        _require_enough(len(read), skipped, settings)
        store = store.first(len(read))
        with timer.stage("score"):
            maps = scores_by.score(store, plan, progress, kept, timer).reshape(-1, *grid)
        scorer_version = scores_by.version
    with timer.stage("map"):
        raw = raw_scores(maps, spec.size)
    with timer.stage("rescore"):
        lot_scores = rescore(raw, store.cls, settings.neighbors)
        scores = in_distance_units(lot_scores, raw)
    with timer.stage("look for cautions"):
        warnings = cautions(raw, store.cls, len(skipped))
    return LotResult(
        images=read,
        skipped=skipped,
        maps=maps,
        raw_scores=raw,
        scores=scores,
        lot_scores=lot_scores,
        cls=store.cls,
        warnings=warnings,
        survey=survey,
        settings=settings,
        bundle=opened,
        backend=runs_vit.name,
        scorer=scores_by.kind,
        judges=choose(len(read), settings.group_size).count,
        plan=plan,
        timings=timer.seconds,
        computed_by=(vit_version, scorer_version),
        notes=(*passed_over, *scores_by.notes, *(kept.notes if kept else ())),
    )


def plan_lot(
    shape: tuple[int, int, int, int],
    bundle: Bundle,
    scorer: MutualScorer,
    memory_budget: int | None,
    program: int,
    batch: int,
    threads: int,
    *,
    largest_image: int = 0,
    keep: bool = False,
) -> Plan:
    """The memory plan for tokens of ``shape`` (S,N,P,C), made when the ViT is loaded but has not run.

    ``program`` is what the process held before that, in bytes; ``largest_image`` counts pixels.
    """
    release_memory()  # what loading the ViT took
    m = bundle.manifest
    decoding = threads * DECODED * largest_image
    vit = process_memory() - program + decoding + _running_bytes(bundle, batch)
    budget = default_budget() if memory_budget is None else memory_budget
    return scorer.plan(
        shape,
        np.dtype(m.tokens[0].dtype).itemsize,
        budget,
        threads=threads,
        fixed_bytes=program + _LEFT_BY_VIT,
        vit_bytes=max(vit - _LEFT_BY_VIT, 0),
        keep=keep,
    )


def _running_bytes(bundle: Bundle, batch: int) -> int:
    """About what a ViT needs to run a batch, with images that are decoded ahead and tokens that it gives."""
    m = bundle.manifest
    pixels = 3 * m.preprocess.size[0] * m.preprocess.size[1]
    tokens = m.patches * m.token_width
    heads = max(1, m.token_width // 64)
    activations = 12 * tokens + 2 * heads * m.patches**2
    return 4 * batch * (4 * pixels + activations + len(m.layers) * tokens)


def _open_kept(
    folder: Path,
    survey: Survey,
    bundle: Bundle,
    vit_version: str,
    method: Method,
    scorer: MutualScorer,
    batch: int,
    threads: int,
) -> Checkpoint:
    """The kept work of just this: the same images, bundle, settings and versions give the same bytes."""
    files = [(image.name, *survey.headers[image.name].stamp) for image in survey.images]
    features = {
        "images": files,
        "bit depth": survey.bit_depth,
        "max pixels": survey.max_pixels,
        "bundle": bundle.digest,
        "backend": vit_version,
        "batch": batch,
        "threads": threads,
        "musc-edge version": __version__,
    }
    scoring = {
        "degrees": method.degrees,
        "interval": method.interval,
        "group size": method.group,
        "scorer": scorer.version,
        "numpy version": np.__version__,
    }
    return Checkpoint(folder, features, scoring)


def _require_enough(images: int, skipped: Sequence[SkippedImage], settings: ScoreSettings) -> None:
    """Raise LotError if ``images`` are too few for the interval."""
    least = smallest_lot(settings.interval, images)
    if images == least:
        return
    reasons = "".join(f"\n  {s.name}: {s.status} ({s.reason})" for s in skipped[:10])
    unread = f"; {len(skipped)} could not be read:{reasons}" if skipped else ""
    raise LotError(
        f"{images} images are too few: mutual scoring over the interval {settings.interval} needs at "
        f"least {least} that can be read{unread}"
    )
