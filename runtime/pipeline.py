"""A lot of images in, defect scores out: the paper's method from top to bottom.

1. list, decode and resize the images                     lot.py, survey.py, images.py
2. ViT: patch tokens of a few layers, CLS embedding       onnx_backend.py -> store.py
3. LNAMD: describe each patch by its neighborhood         aggregate.py
4. MSM: score each patch by the other images' patches     mutual.py
5. anomaly map in pixels, its maximum is the raw score    anomaly_map.py
6. RsCIN: rescore over images with similar CLS            rescore.py
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from .anomaly_map import raw_scores
from .bundle import open_bundle
from .cautions import cautions
from .errors import DeviceError, LotError
from .images import ImageError
from .lot import list_lot
from .lot_result import LotResult
from .memory import default_budget
from .mutual import NumpyScorer, smallest_lot
from .onnx_backend import OnnxBackend
from .plan import make_plan
from .rescore import in_distance_units, rescore
from .store import HostStore, host_array
from .survey import ReadOptions, Survey, decode_ahead, survey_lot
from .timing import StageTimer
from .types import (
    Bundle,
    FeatureBackend,
    LotImage,
    Plan,
    PreprocessSpec,
    Progress,
    ScoreSettings,
    SkippedImage,
    Slot,
    no_progress,
)

BATCH = 8
_DEFAULTS = ScoreSettings()
_READING = ReadOptions()


def score_lot(
    lot: str | os.PathLike[str] | Sequence[LotImage],
    bundle: str | os.PathLike[str] | Bundle,
    settings: ScoreSettings = _DEFAULTS,
    *,
    reading: ReadOptions = _READING,
    batch: int = BATCH,
    threads: int | None = None,
    memory_budget: int | None = None,
    scratch: Path | None = None,
    progress: Progress = no_progress,
) -> LotResult:
    """Score every image of a lot by all the others.

    Parameters
    ----------
    lot : folder of images, or the images themselves.
    bundle : bundle folder, or an opened bundle.
    settings : degrees, interval and neighbors of the method.
    reading : bit depth and largest size of the image files.
    batch : images per run of the ViT.
    threads : threads that decode images, and that the ViT uses; None for all cores.
    memory_budget : bytes for features, distances and workspace; None for half of what is free.
    scratch : folder for what does not fit into the budget; None for the system's temporary folder.
    progress : called with the stage, the work done, the work in all, and its unit.

    Returns
    -------
    LotResult

    Raises
    ------
    LotError
        If the folder has no images, fewer can be read than the interval needs, or the budget is too small.
    BundleError, DeviceError
        If the bundle or the backend cannot be used.
    OutputError
        If a scratch file cannot be made.
    """
    if batch < 1 or (threads is not None and threads < 1):
        raise LotError(f"batch {batch} and threads {threads}: expected 1 or more.")
    timer = StageTimer()
    threads = threads or os.cpu_count() or 1
    with timer.stage("survey"):
        images = list_lot(lot) if isinstance(lot, str | os.PathLike) else tuple(lot)
        survey = survey_lot(images, reading, threads, progress)
        _require_enough(len(survey.images), survey.skipped, settings)
    with timer.stage("open"):
        opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        plan = plan_lot(len(survey.images), opened, memory_budget)
        grid, size = opened.manifest.grid, opened.manifest.preprocess.size
        scorer = NumpyScorer(grid, settings.degrees, settings.interval, scratch)
        store = allocate(len(survey.images), opened, plan, scratch)
    with OnnxBackend(opened, threads) as backend:
        spec = opened.manifest.preprocess
        read, failed = extract(survey, backend, spec, store, batch, threads, timer, progress)
    skipped = (*survey.skipped, *failed)
    _require_enough(len(read), skipped, settings)
    store = store.first(len(read))
    with timer.stage("score"):
        maps = scorer.score(store, plan, progress).reshape(-1, *grid)
    with timer.stage("map"):
        raw = raw_scores(maps, size)
    with timer.stage("rescore"):
        lot_scores = rescore(raw, store.cls, settings.neighbors)
        scores = in_distance_units(lot_scores, raw)
    return LotResult(
        images=read,
        skipped=skipped,
        maps=maps,
        raw_scores=raw,
        scores=scores,
        lot_scores=lot_scores,
        cls=store.cls,
        warnings=cautions(raw, store.cls, len(skipped)),
        survey=survey,
        settings=settings,
        bundle=opened,
        backend=backend.name,
        plan=plan,
        timings=timer.seconds,
    )


def plan_lot(images: int, bundle: Bundle, memory_budget: int | None) -> Plan:
    """The memory plan for a lot of ``images``; None plans within half of the memory that is free."""
    m = bundle.manifest
    itemsize = np.dtype(m.tokens[0].dtype).itemsize
    shape = (len(m.layers), images, m.patches, m.token_width)
    return make_plan(shape, itemsize, default_budget() if memory_budget is None else memory_budget)


def allocate(images: int, bundle: Bundle, plan: Plan, scratch: Path | None = None) -> HostStore:
    """An empty store for the features of ``images``, in memory or on disk as the plan says."""
    m = bundle.manifest
    shape = (len(m.layers), images, m.patches, m.token_width)
    tokens = host_array(shape, m.tokens[0].dtype, plan.tokens_on_disk, scratch)
    return HostStore(tokens, np.empty((images, m.cls_width), np.float32))


def extract(
    survey: Survey,
    backend: FeatureBackend,
    spec: PreprocessSpec,
    store: HostStore,
    batch: int = BATCH,
    threads: int = 1,
    timer: StageTimer | None = None,
    progress: Progress = no_progress,
) -> tuple[tuple[LotImage, ...], tuple[SkippedImage, ...]]:
    """Decode a lot's images ahead of the ViT and fill ``store`` with the features of those that can be read.

    Returns the images in the order of their rows in the store, and those that failed.

    Raises
    ------
    DeviceError
        If the backend fails, or gives tokens that are not finite.
    """
    timer = timer or StageTimer()
    read: list[LotImage] = []
    failed: list[SkippedImage] = []
    total = len(survey.images)
    with closing(decode_ahead(survey, spec, threads, ahead=2 * batch)) as stream:
        for done in range(0, total, batch):
            with timer.stage("wait for images"):
                chunk = list(islice(stream, batch))
            good = [(image, pixels) for image, pixels in chunk if not isinstance(pixels, ImageError)]
            bad = [(image, error) for image, error in chunk if isinstance(error, ImageError)]
            failed += [SkippedImage(image.name, error.status, str(error)) for image, error in bad]
            if good:
                with timer.stage("extract"):
                    slot = store.slot(len(read), len(read) + len(good))
                    backend.extract_into(np.stack([pixels for _, pixels in good]), slot)
                    _require_finite(slot, [image for image, _ in good])
                read += [image for image, _ in good]
            progress("extract", done + len(chunk), total, "images")
    return tuple(read), tuple(failed)


def _require_finite(slot: Slot, images: Sequence[LotImage]) -> None:
    """Raise DeviceError with the images' names if the backend gave infinities or NaN."""
    finite = np.isfinite(slot.tokens).all(axis=(0, 2, 3)) & np.isfinite(slot.cls).all(axis=1)
    if not np.all(finite):
        names = ", ".join(images[int(i)].name for i in np.flatnonzero(~finite))
        raise DeviceError(f"the ViT gave values that are not finite for {names}. Try a bundle in fp32.")


def _require_enough(images: int, skipped: Sequence[SkippedImage], settings: ScoreSettings) -> None:
    """Raise LotError if ``images`` are too few for the interval."""
    least = smallest_lot(settings.interval)
    if images >= least:
        return
    reasons = "".join(f"\n  {s.name}: {s.status} ({s.reason})" for s in skipped[:10])
    unread = f"; {len(skipped)} could not be read:{reasons}" if skipped else ""
    raise LotError(
        f"{images} images are too few: mutual scoring over the interval {settings.interval} needs at "
        f"least {least} that can be read{unread}"
    )
