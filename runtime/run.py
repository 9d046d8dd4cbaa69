"""A run: a bundle's ViT and a scorer, opened for one lot or for many.

    with Run(bundle, settings, resources) as run:
        features = run.extract(survey)         files -> ViT -> a store of tokens
        maps = run.score(features)             mutual scoring

It opens what was asked for, or the best that works, plans memory between the two, says beforehand what the
work will take, and closes everything.  The paper is not in here (pipeline.py).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from .._version import __version__
from .beginning import Watch, require_enough
from .cluster.arcs import head_bytes
from .cluster.blocks import OnCluster, sketches_on
from .cluster.engine import Cluster
from .cluster.extraction import extract_on
from .cluster.object_store import ObjectStore
from .cluster.opened import open_cluster
from .cluster.possible import require_possible
from .cluster.residual import ClusterResidual
from .cluster.scorer import ClusterScorer
from .cluster.tiles import ClusterTiles, TilePictures
from .cluster.worker_vit import WorkerVit
from .errors import MuscEdgeError
from .images.inside import Inside, patches_inside
from .images.survey import Survey, decode_ahead, gray
from .images.tile_file import TileFile
from .memory import memory_left, process_memory, release_memory
from .planning import Planner
from .results.image_files import NO_FILES, OutputOptions
from .results.lot_scores import RunFacts
from .scorers import open_scorer, require_meaning
from .scoring.blocks import ByBlocks, here
from .scoring.copies import find_copies, looked_at
from .scoring.image_pairs import prepare_near
from .scoring.method import Method
from .scoring.mutual import CpuScorer
from .scoring.nearest import mark_excluded
from .scoring.protocols import Groups, MutualScorer
from .scoring.residual import ResidualScorer
from .scoring.same_shot import SameShot
from .scoring.tile_lots import TileLot
from .settings import ANYTHING, PAPER, RESIDUAL, Resources, ScoreSettings
from .store.again import AgainStore, Taker
from .store.checkpoint import Checkpoint
from .store.tables import FileRows, require_room
from .tiling import WHOLE, Layout
from .types import (
    Array,
    Bundle,
    FeatureBackend,
    FeatureStore,
    FloatArray,
    LotImage,
    Plan,
    SkippedImage,
)
from .vit.bundle import open_bundle
from .vit.choose import enter_backend
from .vit.extract import Pictures, allocate, extract, store_shape

_PROGRAM = 200_000_000
"""Bytes that this process comes to take of libraries and Ray, while a cluster does the work."""


@dataclass(frozen=True)
class Features:
    """What the ViT gave for a lot: row i of ``store`` belongs to ``images[i]``; ``skipped`` have none.

    ``tiles`` of each image are compared with those of the others together.
    ``inside`` (N,P) are the patches that take part, None for all; ``notes`` and ``warnings`` are on them.
    ``lots`` are the tiles that take part, where images are cut and have a region, or where tiles of any place
    are compared.
    """

    images: tuple[LotImage, ...]
    skipped: tuple[SkippedImage, ...]
    store: FeatureStore
    plan: Plan
    kept: Checkpoint | None
    tiles: int = 1
    inside: Array | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    lots: tuple[TileLot, ...] = ()

    @property
    def cls(self) -> FloatArray:
        """CLS embeddings (N,D)."""
        return self.store.cls


class Maps(NamedTuple):
    """What comparing the images of a lot gave.

    ``scores`` (N,Gh,Gw) are the mutual scores; ``later`` (N,Gh,Gw), None without burn-out, is the share of
    layers and degrees in which a patch's interval began later than the paper's.
    """

    scores: FloatArray
    later: FloatArray | None


class Run:
    """A context manager; no device is touched before it is entered.

    Parameters
    ----------
    bundle : bundle folder, or an opened bundle.
    settings : the method's parameters.
    resources : what runs the work, and what it may use.
    watch : who is told of it.
    outputs : the files per image that will be written, for memory plan and forecast.
    cluster : one that is open already, that of another run; by default it is opened where one is asked for.
    images : how many are to be scored: a cluster on this machine leaves this process the memory for so many.

    Raises
    ------
    BundleError, DeviceError
        On entering, and by ``vit``: if the bundle, the scorer or the backend cannot be used.
    LotError
        If a setting is not usable.
    """

    bundle: Bundle
    method: Method
    scorer: MutualScorer
    planner: Planner

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        settings: ScoreSettings = PAPER,
        resources: Resources = ANYTHING,
        watch: Watch | None = None,
        outputs: OutputOptions = NO_FILES,
        cluster: Cluster | None = None,
        images: int = 0,
    ) -> None:
        self._given = bundle
        self.outputs = outputs
        self.watch = watch or Watch()
        self.settings, self.resources = settings, resources
        self._stack = ExitStack()
        self.cluster, self._images = cluster, images
        self.by_blocks: ByBlocks = here
        self._vit: FeatureBackend | None = None
        self._vit_names = "", ""
        self._passed_over: tuple[str, ...] = ()

    def __enter__(self) -> Run:
        with self.watch.timer.stage("open"), ExitStack() as stack:
            self.bundle = self._given if isinstance(self._given, Bundle) else open_bundle(self._given)
            self.method = Method.of(self.bundle.manifest.grid, self.settings)
            self.scorer = self._open_scorer(stack)
            release_memory()  # what looking at the files took
            self.planner = Planner(
                self.bundle,
                self.method,
                self.scorer,
                self.settings,
                self.resources,
                self.outputs,
                process_memory(),
            )
            self._stack = stack.pop_all()
        return self

    def _open_scorer(self, stack: ExitStack) -> MutualScorer:
        """Open what compares the images, and the cluster that it is on."""
        if self.resources.cluster is None:
            return stack.enter_context(open_scorer(self.method, self.resources, self.bundle))
        require_possible(self.resources)
        require_meaning(self.method.by, self.resources)
        if self.cluster is None:
            self.cluster = stack.enter_context(open_cluster(self.resources, self._needed()))
        self.by_blocks = OnCluster(self.cluster)
        if self.method.by == RESIDUAL:
            return ClusterResidual.of(self.method, self.cluster)
        return ClusterScorer.of(self.method, self.cluster, self.resources.scorer)

    def _needed(self) -> int:
        """Bytes that this process takes while a cluster does the work."""
        shape = store_shape(self._images, self.bundle)
        itemsize = np.dtype(self.bundle.manifest.tokens[0].dtype).itemsize
        size = self.method.lot_size(shape, itemsize)
        return _PROGRAM + head_bytes(size, pairs=self.method.by != RESIDUAL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @contextmanager
    def vit(self) -> Iterator[FeatureBackend]:
        """The ViT, for as long as the block runs: open before the block, it stays open behind it.

        What it says counts behind the outermost block, where all of the bundle has been checked.
        """
        if self._vit is not None:
            yield self._vit
            return
        timer = self.watch.timer
        with self._checked_behind(), ExitStack() as stack:
            with timer.stage("load ViT"):
                backend, self._passed_over = self._enter_vit(stack)
                self._vit, self._vit_names = backend, (backend.name, backend.version)
            try:
                yield backend
            finally:
                self._vit = None
                with timer.stage("unload ViT"):
                    del backend
                    stack.close()
                    release_memory()

    def _enter_vit(self, stack: ExitStack) -> tuple[FeatureBackend, tuple[str, ...]]:
        """Enter the ViT here, or that of the cluster's workers, with notes on it."""
        resources = self.resources
        if self.cluster:
            vit = stack.enter_context(WorkerVit(self.cluster, self.bundle, resources))
            return vit, vit.notes
        return enter_backend(stack, resources.backend, self.bundle, resources.workers, resources.batch)

    @contextmanager
    def _checked_behind(self) -> Iterator[None]:
        """Wait, behind a block, until all of the bundle is checked; a changed file explains its errors."""
        try:
            yield
        except MuscEdgeError:
            self.bundle.require_checked()
            raise
        self._require_checked()

    def _require_checked(self) -> None:
        if self.bundle.pending:
            with self.watch.timer.stage("wait for hashes"):
                self.bundle.require_checked()

    @contextmanager
    def part(self, shares: Mapping[str, tuple[float, float]]) -> Iterator[None]:
        """Report the progress of a block as a part of the whole: number k of n, by the name of the stage.

        Where parts differ in size, both are in parts of the block's.
        """
        watch = self.watch

        def progress(stage: str, done: float, total: float, unit: str) -> None:
            number, count = shares.get(stage, (0, 1))
            watch.progress(stage, number * total + done, count * total, unit)

        self.watch = replace(watch, progress=progress)
        try:
            yield
        finally:
            self.watch = watch

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, and what else a user should know of."""
        return (*self._passed_over, *self.scorer.notes)

    # ---- the work --------------------------------------------------------------------------------

    def prepare(self, survey: Survey, keep: str | os.PathLike[str] | None = None) -> Plan:
        """Make the plan of a lot, announce the forecast, and see that the disk has room; opens the ViT.

        Raises
        ------
        LotError
            If there are too few images for the method, or the memory budget is too small.
        OutputError
            If the disk is too small.
        """
        count, surveyed = len(survey.images), self.watch.timer.seconds.get("survey", 0.0)
        self.scorer.judges(count)
        with self.vit() as vit, self.watch.timer.stage("plan"):
            plan = self.planner.plan(count, survey=survey, keep=bool(keep))
            self.watch.announce(self.planner.forecast(count, plan, survey, vit, surveyed))
            folder = Path(keep or self.resources.scratch or tempfile.gettempdir())
            require_room(folder, plan.disk_bytes)
        return plan

    def extract(
        self,
        survey: Survey,
        keep: str | os.PathLike[str] | None = None,
        *,
        kept: Checkpoint | None = None,
        plan: Plan | None = None,
        pictures: Pictures | TilePictures = decode_ahead,
    ) -> Features:
        """Decode the images of a lot and let the ViT describe them; announces the forecast before.

        Parameters
        ----------
        keep : a folder in which finished work is kept, and from which that of an interrupted run of the same
            work is taken up.
        kept : such work, if it is open already.
        plan : what ``prepare`` returned, if it was called before.
        pictures : what makes the ViT's inputs of the files.

        Raises
        ------
        LotError
            If there are too few images for the method, or the memory budget is too small.
        DeviceError
            If the backend fails, or gives tokens that are not finite.
        OutputError
            If a scratch file or kept work cannot be written.
        """
        watch, resources = self.watch, self.resources
        self.scorer.judges(len(survey.images))
        region = self.region(survey)
        with self.vit() as backend:
            if keep:
                opened = self.open_kept(Path(keep), survey, region=region)
                kept = self._stack.enter_context(closing(opened))
            plan = plan or self.prepare(survey, keep)
            store = self._allocate(len(survey.images), plan, kept, fills_device=backend.fills_device)
            if isinstance(backend, WorkerVit):
                of_tiles = pictures if isinstance(pictures, TilePictures) else None
                with watch.timer.stage("extract"):
                    read, failed = extract_on(backend, survey, store, watch.progress, kept, of_tiles)
                self._passed_over = backend.notes
            else:
                assert not isinstance(pictures, TilePictures)
                read, failed = extract(
                    survey, backend, self.bundle.manifest.preprocess, store, resources.batch,
                    resources.workers, watch.timer, watch.progress, kept, plan.decoding_bytes, pictures,
                )  # fmt: skip
        if isinstance(store, AgainStore):
            store.again = partial(self._describe_again, survey, plan, store)
        skipped = (*survey.skipped, *failed)
        require_enough(len(read), skipped, self.settings)  # files may have vanished since the survey
        inside = rows_of(read, survey, region) if region else None
        notes = region.notes if region else ()
        return Features(read, skipped, store.first(len(read)), plan, kept, inside=inside, notes=notes)

    def tiles_of(self, layout: Layout, images: Sequence[LotImage]) -> TileFile | ClusterTiles:
        """Make a place for the tiles of images: a file, or with the workers of a cluster.

        Raises
        ------
        OutputError
            If the disk cannot hold the file.
        """
        if self.cluster:
            return ClusterTiles(layout)
        return TileFile(layout, images, self.bundle.manifest.preprocess, self.resources.scratch)

    def _describe_again(self, survey: Survey, plan: Plan, store: AgainStore, taker: Taker) -> None:
        """Let the ViT describe the images of a lot once more, in the same batches, for a ``taker``."""

        def progress(_: str, done: float, total: float, unit: str) -> None:
            self.watch.progress("score", done, total, unit)

        second = store.taken_by(taker)
        with self.vit() as backend:
            extract(
                survey, backend, self.bundle.manifest.preprocess, second, self.resources.batch,
                self.resources.workers, self.watch.timer, progress, room=plan.decoding_bytes,
            )  # fmt: skip

    def region(self, survey: Survey, layout: Layout = WHOLE) -> Inside | None:
        """Which patches of images, or of the tiles of a layout, take part, before any work; None for all.

        Raises
        ------
        LotError
            If the region does not fit the images.
        """
        with self.watch.timer.stage("region"):
            room = memory_left(self.resources.budget)
            grid, threads = self.method.grid, self.resources.workers
            found = patches_inside(survey, grid, threads, room, self.watch.progress, layout)
        if found and isinstance(self.scorer, CpuScorer):
            with self.watch.timer.stage("compile"):  # before the forecast, which times pairs
                self.watch.progress("compile", 0, 1, "pass")
                self.scorer.notes.extend(filter(None, [prepare_near(self.scorer.kind)]))
                self.watch.progress("compile", 1, 1, "pass")
        return found

    def find_copies(self, features: Features, survey: Survey) -> list[tuple[int, ...]]:
        """The groups of images, rows of a lot, that are copies of each other.

        Files are read only where pictures are alike.
        """
        spec = self.bundle.manifest.preprocess
        confirm = SameShot(lambda row: gray(survey, features.images[row], spec))
        with self.watch.timer.stage("look for copies"):
            store = features.store
            made = sketches_on(store) if isinstance(store, ObjectStore) else None
            return find_copies(store, confirm, self.by_blocks, made)

    def apart(self, features: Features, copies: Groups) -> list[Sequence[int]]:
        """Return the groups of ``copies``, rows of a lot, that are not to judge each other.

        A group stays together where too few others would be left to judge its images, or their tiles at some
        position.
        """
        if self.settings.copies_judge:
            return []
        can_be = [self.method.can_be_apart(len(features.images), copies)]
        can_be += [lot.can_be_apart(self.method, copies) for lot in features.lots]
        return [group for group, *can in zip(copies, *can_be, strict=True) if all(can)]

    def score(self, features: Features, apart: Groups = ()) -> Maps:
        """Mutual scores of a lot's images by each other: LNAMD and MSM (paper, 3.2 and 3.3).

        ``apart`` are groups of rows that do not judge each other.

        Raises
        ------
        LotError
            If there are too few images for the interval, or tokens are not finite.
        DeviceError
            If the scorer's device fails.
        """
        later = np.empty(features.store.shape[1:3], np.float32) if self.method.burn_out else None
        with self.watch.timer.stage("score"):
            scores = self.scorer.score(
                features.store, features.plan, self.watch.progress, features.kept, self.watch.timer,
                later, apart, features.inside,
            )  # fmt: skip
        mark_excluded(scores, features.inside)
        if later is not None and features.inside is not None:
            later[~features.inside] = 0
        grids = -1, *self.method.grid
        return Maps(scores.reshape(grids), None if later is None else later.reshape(grids))

    def facts(self, features: Features, settings: ScoreSettings | None = None) -> RunFacts:
        """How the scores of a lot came about; ``settings`` are those of the run where it settled none."""
        backend, vit_version = self._vit_names
        where = (f"computed by {self.cluster}",) if self.cluster else ()
        return RunFacts(
            bundle=self.bundle,
            settings=settings or self.settings,
            backend=backend,
            scorer=self.scorer.kind,
            judges=self.planner.judges_of(len(features.images), features.tiles),
            plan=features.plan,
            timings=self.watch.timer.seconds,
            notes=(*where, *self.notes, *features.notes, *(features.kept.notes if features.kept else ())),
            computed_by=(vit_version, self.scorer.version),
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    # ---- parts -----------------------------------------------------------------------------------

    def _allocate(
        self, images: int, plan: Plan, kept: Checkpoint | None, *, fills_device: bool
    ) -> FeatureStore:
        """An empty store: on the scorer's device, if the plan has the tokens there, else on the host."""
        cls = np.empty((images, self.bundle.manifest.cls_width), np.float32)
        shape, dtype = self.planner.shape(images), self.bundle.manifest.tokens[0].dtype
        if self.cluster and kept is None:
            return ObjectStore(self.cluster, shape, np.dtype(dtype), cls)
        if plan.twice and isinstance(self.scorer, ResidualScorer):
            places = looked_at(shape[2])
            rows = FileRows((images, len(places) * shape[3]), dtype, self.resources.scratch)
            return AgainStore(shape, dtype, cls, rows, places, self.scorer.seen(shape, plan))
        on_device = self.scorer.device_store(shape, dtype, cls, plan)
        if on_device is not None:
            return on_device.for_backend(fills_device=fills_device)
        return allocate(shape, dtype, cls, plan, self.resources.scratch, kept)

    def open_kept(
        self,
        folder: Path,
        survey: Survey,
        part: str = "",
        region: Inside | None = None,
        *,
        void_other: bool = False,
    ) -> Checkpoint:
        """The kept work of just this: the same images, bundle, settings and versions give the same bytes.

        ``part`` says of which part of the images it is, ``region`` which patches take part; ``void_other``
        that work of other images is removed rather than refused.  The ViT must be open, or have been; the
        bundle is all checked before anything is kept.
        """
        self._require_checked()
        tiles = self.settings.tiles
        features = {
            "images": [(image.name, *survey.headers[image.name].stamp) for image in survey.images],
            "bit depth": survey.bit_depth,
            "max pixels": survey.max_pixels,
            "bundle": self.bundle.digest,
            "backend": self._vit_names[1],
            "batch": self.resources.batch,
            "threads": self.resources.workers,
            "musc-edge version": __version__,
            "tiles": {**asdict(tiles), "part": part} if tiles else None,
            # It says which tiles the ViT describes.
            "region of tiles": region.digest if region and tiles else None,
        }
        scoring = {
            "by": self.method.by,
            "degrees": self.method.degrees,
            "interval": self.method.interval,
            "group size": self.method.group_size,
            "burn-out": self.method.burn_out,
            "copies judge": self.settings.copies_judge,
            "window": self.method.near,
            "region": region.digest if region and not self.settings.tiles else None,
            "scorer": self.scorer.version,
            "numpy version": np.__version__,
            "cluster": True if isinstance(self.scorer, ClusterScorer) else None,  # its cells are others
        }
        return Checkpoint(folder, features, scoring, void_other=void_other)


def rows_of(images: Sequence[LotImage], survey: Survey, region: Inside) -> Array:
    """The patches (N,P) of ``images``, of those of the survey, that take part."""
    rows = {image.name: row for row, image in enumerate(survey.images)}
    return region.patches[[rows[image.name] for image in images]]
