"""A lot of images in, defect scores out: the paper's method from top to bottom.

1. list, decode and resize the images                     images/: listing.py, survey.py, reading.py
2. ViT: patch tokens of a few layers, CLS embedding       vit/extract.py: vit/choose.py -> store/features.py
3. LNAMD: describe each patch by its neighborhood         scoring/aggregate.py
4. MSM: score each patch by the other images' patches     scoring/mutual.py, scoring/judges.py
5. anomaly map in pixels, its maximum is the raw score    scoring/anomaly_map.py
6. RsCIN: rescore over images with similar CLS            scoring/rescore.py

What opens, plans and closes what these need is run.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import LotError
from .images.listing import list_lot
from .images.survey import DEFAULT_READING, ReadOptions, survey_lot
from .results.lot_result import LotResult
from .run import Run, Watch
from .scoring.anomaly_map import raw_scores
from .scoring.cautions import cautions
from .scoring.interval import smallest_lot
from .scoring.rescore import in_distance_units, rescore
from .settings import ANYTHING, PAPER, Resources, ScoreSettings
from .types import Bundle, LotImage, SkippedImage


def score_lot(
    lot: str | os.PathLike[str] | Sequence[LotImage],
    bundle: str | os.PathLike[str] | Bundle,
    settings: ScoreSettings = PAPER,
    resources: Resources = ANYTHING,
    *,
    reading: ReadOptions = DEFAULT_READING,
    keep: str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
) -> LotResult:
    """Score every image of a lot by all the others (paper, section 3).

    Parameters
    ----------
    lot : str, path or sequence of LotImage
        A folder, which is searched with its subfolders, or the images themselves.
    bundle : str, path or Bundle
        The bundle's folder, or what ``open_bundle`` gave.
    settings : ScoreSettings, default the paper's
        The method's parameters.
    resources : Resources, default all there is
        What runs the work, and how much of the machine it may use.
    reading : ReadOptions, default bit depth by the lot
        How files become images.
    keep : str or path, optional
        Folder for finished work.  The same call goes on from it after an interruption; remove it afterwards.
    watch : Watch, optional
        Who is told of forecast, progress and time.

    Returns
    -------
    LotResult
        Maps and scores, row i for image i.  Files that could not be read are in its ``skipped``.

    Raises
    ------
    LotError
        If the lot cannot be listed, has too few images for the interval (5 with the paper's settings), or the
        memory budget is too small.
    BundleError
        If the bundle is missing, damaged or not what was expected.
    DeviceError
        If a backend or scorer that was asked for cannot be used here, or fails.
    OutputError
        If scratch files or kept work cannot be written, or ``keep`` holds work of other images, of another
        bundle or version.
    """
    watch = watch or Watch()
    with watch.timer.stage("survey"):
        images = list_lot(lot) if isinstance(lot, str | os.PathLike) else tuple(lot)
        survey = survey_lot(images, reading, resources.workers, watch.progress)
        _require_enough(len(survey.images), survey.skipped, settings)
    with Run(bundle, settings, resources, watch) as run:
        features = run.extract(survey, Path(keep) if keep else None)  # 1 and 2
        _require_enough(len(features.images), features.skipped, settings)
        maps = run.score(features)  # 3 and 4
        with watch.timer.stage("map"):  # 5
            raw = raw_scores(maps, run.bundle.manifest.preprocess.size)
        with watch.timer.stage("rescore"):  # 6
            lot_scores = rescore(raw, features.cls, settings.neighbors)
            scores = in_distance_units(lot_scores, raw)
        with watch.timer.stage("look for cautions"):
            warnings = cautions(raw, features.cls, len(features.skipped))
        return LotResult(
            features.images, features.skipped, maps, raw, scores, lot_scores, features.cls, warnings, survey,
            run.facts(features),
        )  # fmt: skip


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
