"""How work on a lot begins: the bundle is opened, files are looked at, and they must be enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .._numbers import too_few
from .errors import TooFewImagesError
from .forecast import Forecast
from .images.listing import list_lot
from .images.survey import ReadOptions, Survey, survey_lot
from .memory import give_back_large_blocks, memory_left
from .scoring.interval import smallest_lot
from .scoring.presets import settings_for
from .settings import RESIDUAL, Resources, ScoreSettings
from .timing import StageTimer
from .types import Bundle, LotImage, Progress, SkippedImage, no_progress
from .vit.bundle import open_beside


def _say_nothing(forecast: Forecast) -> None:
    """Say nothing: the default."""


@dataclass(frozen=True)
class Watch:
    """Who is told of a run.

    Attributes
    ----------
    progress : callable
        Called as ``progress(stage, done, total, unit)``, often, from the thread that scores the lot.
    announce : callable
        Called once before the work begins, with a forecast: ``images``, ``pairs``, the seconds of each stage,
        and the memory ``plan``.
    timer : StageTimer
        ``timer.seconds`` has the seconds of each stage by its name.
    """

    progress: Progress = no_progress
    announce: Callable[[Forecast], None] = _say_nothing
    timer: StageTimer = field(default_factory=StageTimer)


def opened(
    bundle: str | os.PathLike[str] | Bundle, settings: ScoreSettings | str, watch: Watch
) -> tuple[Bundle, ScoreSettings]:
    """Open a bundle, unless it is, and resolve the settings for it, if they are given as a preset's name.

    Its weights are still being checked: ``Run.vit`` waits for that.
    """
    with watch.timer.stage("open"):
        if not isinstance(bundle, Bundle):
            bundle = open_beside(bundle, watch.timer)
        if isinstance(settings, str):
            settings = settings_for(bundle.manifest, settings)
        return bundle, settings


def survey_files(
    lot: str | os.PathLike[str] | Sequence[LotImage], resources: Resources, reading: ReadOptions, watch: Watch
) -> Survey:
    """List the images of a lot and read their headers, within the memory budget."""
    give_back_large_blocks()
    with watch.timer.stage("survey"):
        images = list_lot(lot) if isinstance(lot, str | os.PathLike) else lot
        # Looking at files comes before any plan.  Of the same budget, it has what the program leaves.
        room = memory_left(resources.budget)
        return survey_lot(images, reading, resources.workers, watch.progress, room)


def require_enough(images: int, skipped: Sequence[SkippedImage], settings: ScoreSettings) -> None:
    """Raise TooFewImagesError, with what was ``skipped``, if ``images`` are too few for the interval."""
    least = smallest_lot(settings.interval, images)
    if images == least:
        return
    reasons = "".join(f"\n  {s.name}: {s.status} ({s.reason})" for s in skipped[:10])
    unread = f"; {len(skipped)} could not be read:{reasons}" if skipped else ""
    over = f"mutual scoring over the interval {settings.interval}"
    raise TooFewImagesError(
        f"{too_few(images, 'image')}: {'scoring by residual' if settings.by == RESIDUAL else over} needs at "
        f"least {least} that can be read{unread}",
        skipped,
    )
