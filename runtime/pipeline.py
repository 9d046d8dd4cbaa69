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

from .images.listing import list_lot
from .images.survey import DEFAULT_READING, ReadOptions, Survey, survey_lot
from .results.lot_result import LotResult
from .run import Run, Watch, require_enough
from .scoring.anomaly_map import raw_scores
from .scoring.cautions import bundle_cautions, cautions
from .scoring.rescore import in_distance_units, rescore
from .settings import ANYTHING, PAPER, Resources, ScoreSettings
from .types import Bundle, LotImage


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
    lot : a folder, which is searched with its subfolders, or the images themselves.
    bundle : the bundle's folder, or what ``open_bundle`` returned.
    settings : the method's parameters; the paper's by default.
    resources : what runs the work, and how much of the machine it may use; all by default.
    reading : how files become images; the bit depth is found from the lot by default.
    keep : folder for finished work, from which the same call continues after an interruption.
    watch : who is told of forecast, progress and time.

    Raises
    ------
    LotError : too few images can be read, a setting cannot be used, or the memory budget is too small.
    BundleError : the bundle is missing, damaged or not what was expected.
    DeviceError : a backend or scorer that was asked for cannot be used here, or fails.
    OutputError : scratch files or kept work cannot be written, or ``keep`` holds other work.
    """
    watch = watch or Watch()
    survey = _survey(lot, settings, resources, reading, watch)
    with Run(bundle, settings, resources, watch) as run:
        features = run.extract(survey, keep)  # 1 and 2
        maps = run.score(features)  # 3 and 4
        with watch.timer.stage("map"):  # 5
            raw = raw_scores(maps, run.bundle.manifest.preprocess.size)
        with watch.timer.stage("rescore"):  # 6
            lot_scores = rescore(raw, features.cls, settings.neighbors)
            scores = in_distance_units(lot_scores, raw)
        with watch.timer.stage("look for cautions"):
            warnings = cautions(raw, features.cls, len(features.skipped))
            warnings = (*bundle_cautions(run.bundle.manifest), *warnings)
        return LotResult(
            features.images, features.skipped, maps, raw, scores, lot_scores, features.cls, warnings, survey,
            run.facts(features),
        )  # fmt: skip


def _survey(
    lot: str | os.PathLike[str] | Sequence[LotImage],
    settings: ScoreSettings,
    resources: Resources,
    reading: ReadOptions,
    watch: Watch,
) -> Survey:
    """List the images and read their headers; LotError if there are too few."""
    with watch.timer.stage("survey"):
        images = list_lot(lot) if isinstance(lot, str | os.PathLike) else tuple(lot)
        survey = survey_lot(images, reading, resources.workers, watch.progress)
        require_enough(len(survey.images), survey.skipped, settings)
    return survey
