"""Over a lot's images as a whole, as in the paper, or tile by tile.

Each image is decoded once, and its tiles go into a file (images/tile_file.py), or with a cluster into
objects (cluster/tiles.py).  Then one position after the other is a lot of its own: ViT and mutual scoring, in
the memory of one.  Or, where tiles are compared with those of any place, all of them are one lot, in which
those of one image do not judge each other.  At last the maps of the tiles are put together
(scoring/stitch.py).  CLS embeddings, by which images are rescored, and copies are those of whole images: they
say what a picture shows, which a tile need not.  With a region of interest a lot has the tiles that lie in it
(scoring/tile_lots.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from .errors import OutputError
from .images.survey import Survey
from .images.tile_file import lot_of_tiles
from .run import Features, Maps, Run, rows_of
from .scoring.protocols import Groups
from .scoring.stitch import stitch
from .scoring.tile_lots import TileLot, require_enough_tiles, require_judges, tile_lots
from .settings import RESIDUAL
from .store.checkpoint import Checkpoint
from .store.kept_folder import ABOUT, remove_kept
from .tiling import Layout
from .types import Array, LotImage

_WHOLE = "all"
"""Folder of kept work on the scores of all tiles, beside those of the tiles that are being scored."""


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
    OutputError
        If the folder holds work on whole images, and these are cut, or the other way round.
    """
    layout = run.planner.layout(survey)
    folder = Path(keep) if keep else None
    if folder:
        _require_same_walk(folder, whole=layout is None)
    return Tiled(run, survey, folder, layout) if layout else Whole(run, survey, folder)


def _require_same_walk(folder: Path, *, whole: bool) -> None:
    """Raise OutputError if a folder holds work on tiles and images are scored ``whole``, or vice versa."""
    other, what, now = (_WHOLE, "tiles", "whole images") if whole else (ABOUT, "whole images", "tiles")
    if (folder / other).exists():
        raise OutputError(
            f"the work kept in {folder} was made of {what}, and this run is of {now}. Use the same --tiles "
            f"again, or begin anew: rm -r {folder}"
        )


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
        self._free = bool(run.settings.tiles and run.settings.tiles.free)

    def extract(self) -> Features:
        """Decode the images, keep their tiles in a file, and let the ViT describe the whole images."""
        run, whole = self._run, self._survey.without_region()
        self._region = run.region(self._survey, self._layout)
        self._lots, _ = self._tiles_of(self._survey.images)
        with run.vit(), ExitStack() as stack:
            finished = stack.enter_context(closing(self._kept(_WHOLE, self._survey))) if self._keep else None
            plan = run.prepare(self._survey, self._keep)
            self._tiles = run.tiles_of(self._layout, self._survey.images)
            # Tokens of whole images tell copies alone, and must not take the memory of a part's.
            device = plan.device and replace(plan.device, holds_tokens=False)
            beside = replace(plan, tokens_on_disk=True, device=device)
            images, tiles = len(whole.images), sum(len(lot.rows) for lot in self._lots)
            with run.part({"extract": (0, (images + tiles) / images)}):
                features = run.extract(whole, plan=beside, pictures=self._tiles.cutting)
            # Files may have vanished since the survey.
            self._lots, warnings = self._tiles_of(features.images)
            stack.pop_all()
        features = replace(features, plan=plan, kept=finished, tiles=len(self._lots[0].positions))
        if self._free:  # what is asked of whole images says nothing of groups of these
            features = replace(features, lots=tuple(self._lots))
        if self._region is None:
            return features
        return replace(features, notes=self._region.notes, warnings=warnings, lots=tuple(self._lots))

    def _tiles_of(self, images: Sequence[LotImage]) -> tuple[list[TileLot], tuple[str, ...]]:
        """Return the lots of tiles that are scored, and warnings on them."""
        positions = len(self._layout.positions)
        if self._region is None:
            lots = tile_lots(len(images), positions, free=self._free)
            require_judges(lots, self._run.method)
            return lots, ()
        inside = rows_of(images, self._survey, self._region)
        lots = tile_lots(len(images), positions, free=self._free, inside=inside)
        require_judges(lots, self._run.method)
        return require_enough_tiles(lots, self._run.method, images)

    def score(self, features: Features, apart: Groups) -> Maps:
        """Compare the tiles, part by part; maps are on the grid (GH,GW) of the whole images."""
        kinds, images = 2 if self._run.method.burn_out else 1, len(features.images)
        grid = self._run.method.grid
        maps = np.full((kinds, len(self._layout.positions), images, *grid), np.nan, np.float32)
        if features.kept:  # scores of other images, or of others apart, are void
            there = {image.name for image in features.images}
            read = [row for row, image in enumerate(self._survey.images) if image.name in there]
            features.kept.begin_scoring([read, *apart])
        with closing(self._tiles), closing(features.kept) if features.kept else nullcontext():
            for lot in self._lots:
                maps[:, lot.position, lot.image] = self._part(lot, features, lot.apart(apart))
        with self._run.watch.timer.stage("stitch"):
            if kinds == 2:
                maps[1][np.isnan(maps[0])] = np.nan
            whole = [stitch(each, self._layout) for each in maps]
        return Maps(whole[0], np.nan_to_num(whole[1], copy=False) if kinds == 2 else None)

    def _part(self, lot: TileLot, features: Features, apart: Groups) -> Array:
        """Return the scores (1,n,Gh,Gw) of a lot of tiles, or (2,n,Gh,Gw) with where burn-out acted.

        Those that an earlier run has finished are there.
        """
        if features.kept is None:
            return self._scored(lot, features, apart, None)
        name, parts = f"tile {lot.part + 1}", 1 if self._free else len(self._layout.positions)
        shape = 2 if self._run.method.burn_out else 1, len(lot.rows), *self._run.method.grid
        finished = features.kept.scores(lot.part, shape, np.float32)
        if finished is not None:
            features.kept.notes.append(f"{name} of {parts} comes from an earlier, interrupted run")
            return finished
        read = replace(self._survey, images=features.images)  # in another run others may fail to decode
        with closing(self._kept(name, read, void_other=True)) as kept:
            maps = self._scored(lot, features, apart, kept)
            features.kept.keep_scores(lot.part, maps)
            features.kept.notes += [f"{name}: {note}" for note in kept.notes]
        remove_kept(self._folder(name))
        return maps

    def _scored(self, lot: TileLot, features: Features, apart: Groups, kept: Checkpoint | None) -> Array:
        """Let the ViT describe the tiles of a lot and compare them."""
        run = self._run
        survey = replace(self._survey.without_region(), images=features.images)
        survey = lot_of_tiles(survey, lot.positions.tolist(), lot.rows.tolist())
        with run.part(self._shares(lot, len(features.images))):
            tiles = run.extract(survey, kept=kept, plan=features.plan, pictures=self._tiles.tiles)
            if tiles.images != survey.images:
                raise OutputError("tiles of some images are missing: begin anew, without kept work.")
            found = run.score(replace(tiles, inside=lot.inside), apart)
        tiles.store.free()
        return np.stack([each for each in found if each is not None])

    def _shares(self, lot: TileLot, images: int) -> dict[str, tuple[float, float]]:
        """Return which part of each stage this lot is, for ``Run.part``."""
        place = self._lots.index(lot)
        tiles = [len(each.rows) for each in self._lots]
        method = self._run.method
        pairs = tiles if method.by == RESIDUAL else [method.judges(count).pairs for count in tiles]
        return {
            "extract": _share([images, *tiles], place + 1),
            "describe": _share(tiles, place),
            "score": _share(pairs, place),
        }

    def _kept(self, part: str, survey: Survey, *, void_other: bool = False) -> Checkpoint:
        return self._run.open_kept(self._folder(part), survey, part, self._region, void_other=void_other)

    def _folder(self, part: str) -> Path:
        assert self._keep
        return self._keep / part.replace(" ", "-")


def _share(sizes: Sequence[int], place: int) -> tuple[float, float]:
    """What comes before a part, and the whole, in parts of its size."""
    return sum(sizes[:place]) / sizes[place], sum(sizes) / sizes[place]
