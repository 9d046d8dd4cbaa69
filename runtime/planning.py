"""What a lot will take: the plan of its memory and disk, and the forecast of its time, before any work."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from math import prod
from pathlib import Path

import numpy as np

from .cluster.worker_vit import WorkerVit
from .errors import LotError
from .forecast import Forecast
from .images.resolution import Resolution
from .images.survey import Survey, decoding_bytes, needs
from .images.tile_file import tile_bytes
from .memory import process_memory, release_memory
from .results.contact_sheet import sheet_images
from .results.image_files import OutputOptions, writing_bytes
from .scoring.anomaly_map import map_size
from .scoring.judges import Judges
from .scoring.method import Method
from .scoring.plan import HostNeeds
from .scoring.position import LOGARITHM_BYTES
from .scoring.protocols import MutualScorer
from .scoring.rescore import SALIENT
from .scoring.residual import READS, ResidualScorer
from .settings import AUTO, RESIDUAL, Resources, ScoreSettings
from .tiling import Layout, layout_of
from .trial import seconds_to_read, seconds_to_write
from .types import Bundle, FeatureBackend, LotImage, Plan
from .vit.extract import running_bytes, seconds_per_image, store_shape

_LEFT_BY_VIT = 24_000_000
"""Bytes that stay when a ViT is closed: ONNX Runtime's own, and what the allocator cannot give back."""
_LATER = 16_000_000
"""Bytes of code and tables that libraries load when they are first used, and of threads' stacks."""


@dataclass(frozen=True)
class Planner:
    """Plans and forecasts lots of an opened run.

    Attributes
    ----------
    bundle, method, scorer, settings, resources : those of the run.
    outputs : the files per image that will be written.
    program_bytes : what the process took before the ViT was loaded.
    tokens_needed : whether tokens must be kept for other work than scoring.
    """

    bundle: Bundle
    method: Method
    scorer: MutualScorer
    settings: ScoreSettings
    resources: Resources
    outputs: OutputOptions
    program_bytes: int
    tokens_needed: bool = False

    def shape(self, images: int) -> tuple[int, int, int, int]:
        """(S, N, P, C) of the tokens of so many images."""
        return store_shape(images, self.bundle)

    def plan(self, images: int, *, survey: Survey | None = None, keep: bool = False) -> Plan:
        """The memory plan, made while the ViT is open but has not run.

        ``survey`` says what decoding the images takes, if they are there already; ``keep`` that work is kept
        in files.  Where the budget is short fewer images are decoded, compared and written at a time.

        Raises
        ------
        LotError
            If the memory budget is too small even for one at a time.
        """
        release_memory()  # what loading the ViT took
        budget, threads = self.resources.budget, self.resources.workers
        fewer = [threads >> k for k in range(threads.bit_length())]  # halves, down to 1
        for lanes, comparing in [*((n, threads) for n in fewer), *((1, n) for n in fewer[1:])]:
            try:
                return self._plan(images, survey, budget, lanes, comparing, keep=keep)
            except LotError as error:
                last = error
        if survey is None:
            raise last
        largest = max(survey.images, key=lambda image: survey.headers[image.name].decode_bytes)
        raise LotError(f"{last} Of this, {needs(largest, survey.headers[largest.name])}") from last

    def _plan(
        self, images: int, survey: Survey | None, budget: int, lanes: int, threads: int, *, keep: bool
    ) -> Plan:
        """The plan that decodes and writes ``lanes`` images at a time, and compares on ``threads``."""
        resources, headers = self.resources, list(survey.headers.values()) if survey else []
        decoding = decoding_bytes(survey, lanes) if survey else 0
        writing = sum(nlargest(lanes, [writing_bytes(header, self.outputs) for header in headers]))
        vit = process_memory() - self.program_bytes + decoding + running_bytes(self.bundle, resources.batch)
        program = self.program_bytes + _LEFT_BY_VIT + _LATER + self._salient_bytes(images)
        program += self._map_bytes(images, survey)
        host = HostNeeds(
            budget=budget,
            threads=threads,
            program_bytes=program,
            vit_bytes=max(vit - _LEFT_BY_VIT, 0),
            decoding_bytes=decoding,
            writing_bytes=writing,
            keep=keep,
        )
        itemsize = np.dtype(self.bundle.manifest.tokens[0].dtype).itemsize
        shape = self.shape(self.together(images, survey))
        plan = self.scorer.plan(shape, itemsize, host)
        if isinstance(self.scorer, ResidualScorer) and self._no_room(plan, survey, keep=keep):
            plan = self.scorer.plan_twice(shape, itemsize, host, resources.batch)
        tiles = self._tile_bytes(images, plan, survey)
        if plan.cluster is None:
            return replace(plan, tile_bytes=tiles)
        layout = self.layout(survey)
        lots = images * len(layout.positions) // self.together(images, survey) if layout else 1
        objects, moved = plan.cluster.object_bytes + tiles, plan.cluster.moved_bytes
        moved = moved and moved * lots + tiles  # none on one machine
        return replace(plan, cluster=replace(plan.cluster, object_bytes=objects, moved_bytes=moved))

    def _no_room(self, plan: Plan, survey: Survey | None, *, keep: bool) -> bool:
        """Whether tokens do not fit on the disk, and can do without it: the ViT can run twice instead."""
        if not plan.tokens_on_disk or keep or self.tokens_needed or self.settings.tiles:
            return False
        if (survey and survey.in_region) or self.settings.rescore == SALIENT:
            return False
        folder = self.resources.scratch or Path(tempfile.gettempdir())
        return folder.is_dir() and shutil.disk_usage(folder).free < plan.disk_bytes

    def layout(self, survey: Survey | None) -> Layout | None:
        """Where the tiles of a lot's images lie; None if they are scored whole.

        Raises
        ------
        LotError
            If the images do not allow such tiles, or tiles in pixels meet no image.
        """
        if self.settings.tiles is None:
            return None
        headers = survey.headers.values() if survey else ()
        # Looked at only for tiles in pixels: this is asked for many times for a lot.
        return layout_of(self.settings.tiles, ((header.width, header.height) for header in headers))

    def together(self, images: int, survey: Survey | None = None) -> int:
        """How many are compared with each other: the images, or where any place will do all their tiles."""
        layout = self.layout(survey)
        free = self.settings.tiles and self.settings.tiles.free
        return images * len(layout.positions) if layout and free else images

    def _map_bytes(self, images: int, survey: Survey | None) -> int:
        """Bytes of the maps of all tiles, of those of whole images that are made of them, and of logarithms.

        Of a lot without tiles they are less than what the scorer had for its sums, which is free by then.
        """
        layout = self.layout(survey)
        if layout is None:
            return 0
        whole = images * prod(layout.grid(self.method.grid))
        patches = images * len(layout.positions) * self.bundle.manifest.patches
        numbers = (patches + whole) * (2 if self.method.burn_out else 1)
        logarithms = LOGARITHM_BYTES * whole if self.settings.position_median == AUTO else 0
        marks = patches * 2 if survey and survey.in_region else 0  # what is inside, and its lots'
        return numbers * np.dtype(np.float32).itemsize + logarithms + marks

    def _tile_bytes(self, images: int, plan: Plan, survey: Survey | None) -> int:
        """Bytes of files or objects that tiles need beside those of each: pixels, tokens of whole images."""
        layout = self.layout(survey)
        if layout is None:
            return 0
        whole = plan.token_bytes * images // self.together(images, survey)
        return whole + tile_bytes(layout, images, self.bundle.manifest.preprocess)

    def _salient_bytes(self, images: int) -> int:
        """Bytes of the tokens by which images are alike, where these are not the CLS embeddings."""
        layers, _, _, width = self.shape(images)
        return images * layers * width * 4 if self.settings.rescore == SALIENT else 0

    def forecast(
        self,
        images: int,
        plan: Plan,
        survey: Survey | None,
        vit: FeatureBackend,
        surveyed: float,
    ) -> Forecast:
        """What the work will take, by an open ViT; ``survey`` says what its images are like.

        Without one, the time to read and to write images is not known.  ``surveyed`` are the seconds that
        looking at the files took.
        """
        layout, together = self.layout(survey), self.together(images, survey)
        shape, judges = self.shape(together), self.scorer.judges(together)
        reading, writing = 0.0, None
        if survey:
            reading = seconds_to_read(survey, self.bundle.manifest.preprocess)
            grid = layout.grid(self.method.grid) if layout else None
            writing = seconds_to_write(survey, self.bundle, self.outputs, self.resources.scratch, grid)
            writing *= images / self.resources.workers
        if isinstance(vit, WorkerVit):
            describing = vit.seconds_per_image / vit.lanes
        else:
            describing = seconds_per_image(vit, self.bundle, self.resources.batch)
        # The ViT on the CPU shares the cores with the decoders; a GPU works beside them.
        read = reading / (plan.cluster.processors if plan.cluster else self.resources.workers)
        tiles = len(layout.positions) if layout else 1
        describing *= tiles + 1 if layout else 1
        each = describing + read if vit.name == "cpu" else max(describing, read)
        pairs, reads = self._comparing(judges, plan)
        return Forecast(
            images=images,
            judges=self.judges_of(images, together // images),
            others=(images - 1) * (together // images),
            pairs=pairs,
            layers=shape[0],
            reads=reads,
            seconds=images * tiles / together * self.scorer.seconds(shape, plan) + plan.twice * images * each,
            plan=plan,
            scorer=self.scorer.kind,
            vit=f"{vit.name} ({vit.version})",
            vit_seconds=images * each,
            survey_seconds=surveyed,
            write_seconds=writing,
            sheet_seconds=sheet_images(images, self.outputs.top) * reading,
            tiles=images * tiles // together,
            resolution=self.resolution(survey, survey.images) if survey else None,
        )

    def resolution(self, survey: Survey, images: Sequence[LotImage]) -> Resolution:
        """How some images of a survey come to the ViT: whole, or in tiles."""
        manifest, layout = self.bundle.manifest, self.layout(survey)
        seen = Resolution.of([survey.headers[image.name] for image in images], manifest)
        return seen.at(map_size((1, *layout.grid(manifest.grid)), manifest)) if layout else seen

    def judges_of(self, images: int, tiles: int) -> int:
        """How many others judge an image, or a tile: no more than those of the other images."""
        return min(self.method.judges(images * tiles).count, (images - 1) * tiles)

    def _comparing(self, judges: Judges, plan: Plan) -> tuple[int, float]:
        """How many pairs are compared in each layer, and how often its tokens are read."""
        if self.settings.by == RESIDUAL:
            return 0, 0 if plan.twice else READS
        if plan.cluster:  # where tokens are read is decided as tasks are shared out
            return judges.pairs, 2.0
        loads = judges.loads(plan.block, plan.blocks_in_memory) * plan.block
        return judges.pairs, 1 + loads / judges.images
