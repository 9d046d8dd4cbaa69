"""A lot of images in, defect scores out: the paper's method from top to bottom.

1. list, decode and resize the images                     images/: listing.py, survey.py, reading.py
2. ViT: patch tokens of a few layers, CLS embedding       vit/extract.py: vit/choose.py -> store/features.py
3. LNAMD: describe each patch by its neighborhood         scoring/aggregate.py
4. MSM: score each patch by the other images' patches     scoring/mutual.py, scoring/judges.py
5. anomaly map in pixels, its maximum is the raw score    scoring/anomaly_map.py
6. RsCIN: rescore over images with similar CLS            scoring/rescore.py

What settings may change of them: 5 without what each position has in all images (scoring/position.py), 6 over
images whose suspicious patches are alike.

What opens, plans and closes what these need is run.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .beginning import Watch, opened, require_enough, survey_files
from .images.same_files import same_files
from .images.survey import DEFAULT_READING, ReadOptions, Survey
from .results.image_files import NO_FILES, OutputOptions
from .results.lot_result import LotResult
from .run import Features, Run
from .scoring.anomaly_map import map_size, raw_scores
from .scoring.cautions import bundle_cautions, cautions, copy_caution
from .scoring.position import position_level, settled
from .scoring.repeated import repeated_caution
from .scoring.rescore import rescore, rescored
from .settings import ANYTHING, DEFAULT, Resources, ScoreSettings
from .tiled import walk_over
from .types import Array, Bundle, Copies, FloatArray, LotImage


def score_lot(
    lot: str | os.PathLike[str] | Sequence[LotImage],
    bundle: str | os.PathLike[str] | Bundle,
    settings: ScoreSettings | str = DEFAULT,
    resources: Resources = ANYTHING,
    *,
    reading: ReadOptions = DEFAULT_READING,
    keep: str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
    outputs: OutputOptions = NO_FILES,
) -> LotResult:
    """Score every image of a lot by all the others (paper, section 3).

    Parameters
    ----------
    lot : a folder, which is searched with its subfolders, or the images themselves (``list_lot``).
    bundle : the bundle's folder, or what ``open_bundle`` returned.
    settings : the method's parameters, or the name of a preset: "paper" or "default" (``settings_for``).
    resources : what runs the work, and how much of the machine it may use; all by default.
    reading : how files become images; the bit depth is found from the lot by default.
    keep : folder for finished work, from which the same call continues after an interruption.
    watch : who is told of forecast, progress and time.
    outputs : the files per image that will be written, for memory plan and forecast; none is written here.

    Raises
    ------
    LotError : too few images can be read, a setting cannot be used, or the memory budget is too small.
    BundleError : the bundle is missing, damaged or not what was expected.
    DeviceError : a backend or scorer that was asked for cannot be used here, or fails.
    OutputError : scratch files or kept work cannot be written, or ``keep`` holds other work.
    """
    watch = watch or Watch()
    bundle, settings = opened(bundle, settings, watch)
    survey = survey_files(lot, resources, reading, watch)
    require_enough(len(survey.images), survey.skipped, settings)
    with Run(bundle, settings, resources, watch, outputs, images=len(survey.images)) as run:
        walk = walk_over(run, survey, keep)  # whole images, or tile by tile
        features = walk.extract()  # 1 and 2
        same_shots = run.find_copies(features, survey)
        apart = run.apart(features, same_shots)
        maps, later = walk.score(features, apart)  # 3 and 4
        threads = features.plan.threads
        with watch.timer.stage("map"):  # 5
            settings = settled(settings, maps)
            level = position_level(maps, settings.position_median)
            peaks = raw_scores(maps, size := map_size(maps.shape, run.bundle.manifest), threads)
            above = maps if level is None else maps - level
            raw = peaks if level is None else raw_scores(above, size, threads)
        with watch.timer.stage("rescore"):  # 6
            lot_scores = rescore(raw, features.cls, settings.neighbors, run.by_blocks)
            scores = rescored(settings.rescore, raw, lot_scores, features.store, above, run.by_blocks)
        copies, warnings = _look_at(run, features, survey, peaks, later, same_shots, apart)
        return LotResult(
            features.images, features.skipped, maps, raw, scores, lot_scores, features.cls,
            warnings, survey, run.facts(features, settings), copies, level=level, later=later)  # fmt: skip


def _look_at(
    run: Run,
    features: Features,
    survey: Survey,
    peaks: Array,
    later: FloatArray | None,
    same_shots: Sequence[Sequence[int]],
    apart: Sequence[Sequence[int]],
) -> tuple[tuple[Copies, ...], tuple[str, ...]]:
    """What the scores cannot say: copies in the lot, and warnings of it and of the bundle."""
    timer = run.watch.timer
    with timer.stage("look for copies"):
        copies = tuple(_copies(features, rows, apart=rows in apart) for rows in same_shots)
    with timer.stage("look for cautions"):
        of_lot = cautions(peaks, features.cls, len(features.skipped), run.by_blocks)
        of_copies = copy_caution(copies, judge=run.settings.copies_judge, by=run.settings.by)
        repeated = repeated_caution([image.name for image in features.images], later)
        seen = run.planner.resolution(survey, features.images)
        reduced = (seen.caution,) if seen.drastic else ()
        of_bundle = bundle_cautions(run.bundle.manifest)
        return copies, (*of_bundle, *reduced, *features.warnings, *of_lot, *of_copies, *repeated)


def _copies(features: Features, rows: Sequence[int], *, apart: bool) -> Copies:
    """What is said of images that are copies of each other."""
    images = [features.images[row] for row in rows]
    same = same_files([image.path for image in images])
    return Copies(
        tuple(image.name for image in images),
        tuple(tuple(images[k].name for k in positions) for positions in same),
        apart,
    )
