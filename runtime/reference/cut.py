"""A lot of a reference in tiles: whole images are described once, then all tiles of one position at a time.

The tiles lie in a file (images/tile_file.py), so that each image is decoded once and the tokens of one
position are there at a time, as where a lot is scored in tiles (tiled.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..images.survey import Survey
from ..images.tile_file import lot_of_tiles
from ..run import Features, Run
from ..tiling import Layout


class Cut:
    """The images of ``survey`` in the tiles of ``layout``; the run's ViT must stay open.

    Attributes
    ----------
    whole : the features of the whole images, whose CLS embeddings count.

    Raises
    ------
    LotError
        If there are too few images for the method, or the memory budget is too small.
    """

    def __init__(self, run: Run, survey: Survey, layout: Layout) -> None:
        self.layout, self._run, self._survey = layout, run, survey
        plan = run.prepare(survey)
        self._file = run.tiles_of(layout, survey.images)
        # Tokens of whole images tell copies alone, and must not take the memory of a position's.
        device = plan.device and replace(plan.device, holds_tokens=False)
        beside = replace(plan, tokens_on_disk=True, device=device)
        whole = run.extract(survey, plan=beside, pictures=self._file.cutting)
        self.whole: Features = replace(whole, plan=plan)
        self._number, self._tiles = -1, self.whole

    def at(self, number: int) -> Features:
        """Return the features of the tiles at a position, valid until those of another are asked for."""
        if number != self._number:
            if self._number >= 0:
                self._tiles.store.free()
            images = self.whole.images
            rows = np.arange(len(images)).tolist()
            tiles = lot_of_tiles(replace(self._survey, images=images), [number], rows)
            self._tiles = self._run.extract(tiles, plan=self.whole.plan, pictures=self._file.tiles)
            self._number = number
        return self._tiles
