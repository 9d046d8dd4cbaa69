"""Conformal p-values: how rare a score is among images that were scored alike, whatever their distribution.

With the scores c of n images that took no part in the choice of the bank, p = (1 + #{c >= s}) / (n + 1).  If
the checked image is as good as these were drawn, p <= alpha happens with probability at most alpha, on
average over draws of the n images (Vovk, Gammerman, Shafer 2005; Laxhammar 2014; Bates et al. 2023).
Nothing is said of defects.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from ..errors import LotError
from ..types import Array
from ..verdict.limits import NOT_FLAGGED, REJECT, conformal_p


class Calibration:
    """The scores (n,) of good images, and the false-alarm rate ``alpha`` at which an image is rejected.

    Raises
    ------
    LotError
        If ``alpha`` is not between 0 and 1.
    """

    def __init__(self, scores: Array, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise LotError(
                f"a false-alarm rate of {alpha:g}: expected a number between 0 and 1, such as 0.05."
            )
        self.alpha = alpha
        self._scores = np.sort(scores)

    @property
    def images(self) -> int:
        """The number n of scores."""
        return len(self._scores)

    @property
    def smallest(self) -> float:
        """The smallest p that n scores allow."""
        return 1 / (self.images + 1)

    @property
    def reject_above(self) -> float | None:
        """The score, one of the n, above which an image is rejected; None if none can be."""
        # The same comparison of floats as in ``verdict``, so that the two never disagree.
        p_values = np.arange(1, self.images + 2) / (self.images + 1)
        as_high = int((p_values <= self.alpha).sum()) - 1
        return float(self._scores[self.images - 1 - as_high]) if as_high >= 0 else None

    def p(self, score: float) -> float:
        """Return the p-value of a score."""
        return float(conformal_p(self._scores, np.array(score)))

    def verdict(self, p: float) -> str:
        """Return the verdict on an image with this p-value."""
        return REJECT if p <= self.alpha else NOT_FLAGGED

    @property
    def rejects(self) -> bool:
        """Whether any image can be rejected at all."""
        return self.smallest <= self.alpha

    def promise(self) -> str:
        """Say what the verdicts promise, and what n allows, in a sentence or two."""
        n, alpha = self.images, f"{100 * self.alpha:g} %"
        if not self.rejects:
            needed = ceil(1 / self.alpha) - 1
            return (
                f"no image can be rejected at a false-alarm rate of {alpha}: with {n} images to calibrate by "
                f"the smallest p is {self.smallest:.3g}. Calibrate by {needed} or more, or raise the rate."
            )
        return (
            f"of images as good as the {n} of the calibration, at most {alpha} are rejected on average; the "
            f"smallest p is {self.smallest:.3g}. Nothing is promised about missed defects."
        )
