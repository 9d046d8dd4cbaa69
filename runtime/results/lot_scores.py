"""What the scoring of a lot gave, as plain data for what writes it; users hold a LotResult."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..._files import shown
from ..images.roi import roi_text
from ..images.survey import Survey
from ..settings import RAW_SCORE, ScoreSettings
from ..types import Array, Bundle, Copies, FloatArray, LotImage, Plan, SkippedImage
from ..verdict.judge import Judgement, judge_lot
from ..verdict.judged_lot import MadeBy
from ..verdict.rules import Rule
from .heatmap import Scale, lot_scale


@dataclass(frozen=True)
class RunFacts:
    """How the scores of a lot came about.

    Attributes
    ----------
    backend, scorer : what ran the ViT, and what compared the images.
    judges : number of other images that scored each image.
    timings : seconds of each stage.
    notes : what happened that a user should know of.
    computed_by : versions of what made the features and the scores.
    time : when the scores were there: ISO 8601 in UTC; empty if that is not known.
    """

    bundle: Bundle
    settings: ScoreSettings
    backend: str
    scorer: str
    judges: int
    plan: Plan
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    computed_by: tuple[str, ...] = ()
    time: str = ""

    @property
    def compared_in(self) -> str:
        """The precision of what was compared: "float32", or on a GPU "half" or "int8"."""
        return self.plan.device.precision if self.plan.device else "float32"


@dataclass(frozen=True, repr=False, eq=False)
class LotScores:
    """Everything the scoring of a lot gave, field by field as LotResult describes it for users.

    Row i of maps (N,Gh,Gw), of the three kinds of scores (N,) and of cls (N,D) belongs to ``images[i]``.
    """

    images: tuple[LotImage, ...]
    skipped: tuple[SkippedImage, ...]
    maps: FloatArray
    raw_scores: Array
    scores: Array
    lot_scores: Array
    cls: FloatArray
    warnings: tuple[str, ...]
    survey: Survey
    run: RunFacts
    copies: tuple[Copies, ...] = ()
    judgement: Judgement | None = None
    later: FloatArray | None = None
    level: FloatArray | None = None

    def order(self) -> list[int]:
        """Row numbers from the most to the least suspicious image; equal scores keep the lot's order."""
        return [int(i) for i in np.argsort(-self.judged, kind="stable")]

    @property
    def judge_by(self) -> str:
        """The column that the lot is sorted and judged by: ``score`` or ``raw_score``."""
        return self.run.settings.judge_by

    @property
    def judged(self) -> Array:
        """The values (N,) of that column."""
        return self.raw_scores if self.judge_by == RAW_SCORE else self.scores

    @property
    def heat(self) -> Scale:
        """The colour scale of the lot's heatmaps, which show the maps as they are."""
        return lot_scale(self.maps, self.raw_scores if self.level is None else self.maps)

    def above(self, row: int) -> FloatArray:
        """The map (Gh,Gw) of an image as it is judged: what each position has in all images taken away."""
        above: FloatArray = self.maps[row] if self.level is None else self.maps[row] - self.level
        return above

    def verdicts_of(self, rows: Sequence[int]) -> list[str]:
        """Return the verdicts of some rows; none if the lot was not judged."""
        return [self.judgement.verdicts[row] for row in rows] if self.judgement else []

    def judgement_by(self, rule: Rule, min_region: int = 1) -> Judgement:
        """Judge the lot by a rule, which may refuse it (``judgement.limits.refused``)."""
        names = [image.name for image in self.images]
        return judge_lot(
            names, self.raw_scores, self.scores, rule, self.made_by(), None, min_region, self.judge_by
        )

    def made_by(self) -> MadeBy:
        """How the raw scores came about."""
        settings, bundle, survey = self.run.settings, self.run.bundle, self.survey
        return MadeBy.of(
            bundle.digest, settings, survey.bit_depth, self.run.judges, roi_text(survey.roi),
            survey.mask_background,
        )  # fmt: skip


@dataclass(frozen=True)
class Unscored:
    """A group of which nothing was scored: its folder, why, and a row for each of its images."""

    name: str
    status: str
    reason: str
    images: tuple[SkippedImage, ...]

    def __str__(self) -> str:
        return f"folder {shown(self.name)}: not scored ({self.reason})"
