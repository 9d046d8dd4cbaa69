"""Over a lot's images as a whole, as in the paper, or tile by tile.

Each image is decoded once, and its tiles go into a file (images/tile_file.py).  Then one position after the
other is a lot of its own: ViT and mutual scoring, in the memory of one.  Or, where tiles are compared with
those of any place, all of them are one lot, in which those of one image do not judge each other.  At last
the maps of the tiles are put together (scoring/stitch.py).  CLS embeddings, by which images are rescored,
and copies are those of whole images: they say what a picture shows, which a tile need not.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from .images.survey import Survey
from .images.tile_file import TileFile
from .run import Features, Maps, Run
from .scoring.protocols import Groups
from .scoring.stitch import stitch
from .store.checkpoint import Checkpoint
from .store.kept_folder import remove_kept
from .tiling import Layout
from .types import Array


class Walk(Protocol):
    """A way over the images of a lot.  Twins: Whole, Tiled."""

    def extract(self) -> Features:
        """Decode the images and let the ViT describe them."""
        ...

    def score(self, features: Features, apart: Groups) -> Maps:
        """Compare what ``extract`` returned; groups of rows ``apart`` do not judge each other."""
        ...


def walk_over(run: Run, survey: Survey, keep: str | os.PathLike[str] | None = None) -> Walk:
    """Return the way over a lot that the run's settings ask for; ``keep`` is the folder of kept work.

    Raises
    ------
    LotError
        If the images do not allow such tiles.
    """
    layout = run.layout(survey)
    folder = Path(keep) if keep else None
    return Tiled(run, survey, folder, layout) if layout else Whole(run, survey, folder)


class Whole:
    """Images as they are."""

    def __init__(self, run: Run, survey: Survey, keep: Path | None) -> None:
        self._run, self._survey, self._keep = run, survey, keep

    def extract(self) -> Features:
        """Decode the images and let the ViT describe them."""
        return self._run.extract(self._survey, self._keep)

    def score(self, features: Features, apart: Groups) -> Maps:
        """Compare the images."""
        return self._run.score(features, apart)


class Tiled:
    """Images in the tiles of ``layout``."""

    def __init__(self, run: Run, survey: Survey, keep: Path | None, layout: Layout) -> None:
        self._run, self._survey, self._keep, self._layout = run, survey, keep, layout
        numbers = list(range(len(layout.positions)))
        free = run.settings.tiles and run.settings.tiles.free
        self._parts = [numbers] if free else [[number] for number in numbers]

    def extract(self) -> Features:
        """Decode the images, keep their tiles in a file, and let the ViT describe the whole images."""
        run = self._run
        with run.vit(), ExitStack() as stack:
            finished = stack.enter_context(closing(self._kept("all", self._survey))) if self._keep else None
            plan = run.prepare(self._survey, self._keep)
            spec, scratch = run.bundle.manifest.preprocess, run.resources.scratch
            self._file = TileFile(self._layout, self._survey.images, spec, scratch)
            # Tokens of whole images tell copies alone, and must not take the memory of a part's.
            device = plan.device and replace(plan.device, holds_tokens=False)
            beside = replace(plan, tokens_on_disk=True, device=device)
            with run.part({"extract": (0, len(self._parts) + 1)}):
                features = run.extract(self._survey, plan=beside, pictures=self._file.whole)
            stack.pop_all()
        return replace(features, plan=plan, kept=finished, tiles=len(self._parts[0]))

    def score(self, features: Features, apart: Groups) -> Maps:
        """Compare the tiles, part by part; maps are on the grid (GH,GW) of the whole images."""
        kinds, images = 2 if self._run.method.burn_out else 1, len(features.images)
        grid = self._run.method.grid
        maps = np.empty((kinds, len(self._layout.positions), images, *grid), np.float32)
        if features.kept:  # scores of other images, or of others apart, are void
            there = {image.name for image in features.images}
            read = [row for row, image in enumerate(self._survey.images) if image.name in there]
            features.kept.begin_scoring([read, *apart])
        with closing(features.kept) if features.kept else nullcontext():
            for part, numbers in enumerate(self._parts):
                found = self._part(part, features, _among_tiles(apart, images, len(numbers)))
                maps[:, numbers] = found.reshape(kinds, len(numbers), images, *grid)
        with self._run.watch.timer.stage("stitch"):
            whole = [stitch(each, self._layout) for each in maps]
        return Maps(whole[0], whole[1] if kinds == 2 else None)

    def _part(self, part: int, features: Features, apart: Groups) -> Array:
        """Return the scores (1,n,Gh,Gw) of a part, or (2,n,Gh,Gw) with where burn-out acted.

        Those that an earlier run has finished are there.
        """
        if features.kept is None:
            return self._scored(part, features, apart, None)
        name = f"tile {part + 1}"
        finished = features.kept.scores(part)
        if finished is not None:
            features.kept.notes.append(f"{name} of {len(self._parts)} comes from an earlier, interrupted run")
            return finished
        with closing(self._kept(name, self._survey)) as kept:
            maps = self._scored(part, features, apart, kept)
            features.kept.keep_scores(part, maps)
        remove_kept(self._folder(name))
        return maps

    def _scored(self, part: int, features: Features, apart: Groups, kept: Checkpoint | None) -> Array:
        """Let the ViT describe the tiles of a part and compare them."""
        run, count = self._run, len(self._parts)
        lot = self._file.lot(replace(self._survey, images=features.images), self._parts[part])
        shares = {"extract": (part + 1, count + 1), "describe": (part, count), "score": (part, count)}
        with run.part(shares):
            tiles = run.extract(lot, kept=kept, plan=features.plan, pictures=self._file.tiles)
            found = run.score(tiles, apart)
        return np.stack([each for each in found if each is not None])

    def _kept(self, part: str, survey: Survey) -> Checkpoint:
        return self._run.open_kept(self._folder(part), survey, part)

    def _folder(self, part: str) -> Path:
        assert self._keep
        return self._keep / part.replace(" ", "-")


def _among_tiles(apart: Groups, images: int, tiles: int) -> Groups:
    """Return which of the tiles of images, a lot of ``tiles`` times so many, do not judge each other."""
    if tiles == 1:
        return apart
    alone = set(range(images)).difference(*apart)
    groups = [*apart, *([image] for image in sorted(alone))]
    return [[tile * images + image for tile in range(tiles) for image in group] for group in groups]
